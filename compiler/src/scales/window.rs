//! Windows of rectifiers that are computed exactly: which bits of the operand count, and how many are dropped.

use super::bits::WORD;
use super::operators::is_summed;
use super::settle::WORD_SLACK;
use super::{Scales, Spreads};
use crate::error::CompileError;
use ir::graph::{Graph, NodeId};
use ir::plan::Select;

/// By how many bits the error of rounding the weights may be larger, over a unit of the value, than
/// [`RingOptions::rounding_bits`](super::bits::RingOptions::rounding_bits) has it over a step of a phase: units of values
/// are finer than steps.
const FINER_UNITS: f64 = 1.0;
/// Nothing is gained by a rectifier's window of fewer bits.
const LEAST_WINDOW: u32 = 4;
/// Values whose deviation is a smaller share of the window have no finer units for it: they are nearly always zero.
const LEAST_WIDTH: f64 = 1e-3;

impl Scales {
    /// Settles the operand of an exact rectifier whose values have the deviation `width`, and what the step drops.
    /// Operands are at most `bound`; beyond it their sign may come out wrong.
    ///
    /// # Errors
    /// If no ring holds the operand.
    pub fn window(
        &mut self,
        graph: &Graph,
        id: NodeId,
        (bound, width): (f64, f64),
        spreads: &Spreads,
    ) -> Result<(), CompileError> {
        let operand = graph.operands(id)[0];
        let bits = self.bits(id);
        let width = width.max(LEAST_WIDTH * bound);
        let p = bits.buckets(graph.node(id).shape.elements());
        // Magnitudes up to 2^(k−1) − 2^(k−p−1) have their sign.
        let period = 2.0 * bound.max(1e-9) / (1.0 - (-f64::from(p)).exp2());
        let value_bits = bits.value - if is_summed(graph, id) { 1.0 } else { 0.0 };
        let kept = (value_bits - width.log2() + period.log2()).max(1.0);
        let units = self.open_rounding_units(graph, operand, spreads).max(1.0);
        self.units.insert(id, units);
        let wanted = kept + (units.log2() + bits.rounding - FINER_UNITS).max(0.0);
        let word = f64::from(WORD);
        let wanted = if wanted <= word + WORD_SLACK { wanted.min(word) } else { wanted };
        let k = (wanted.ceil() as u32).max(p + 1).max(LEAST_WINDOW);
        let beside = self.unit_beside(graph, id);
        let (k, scale) = self.meet(graph, id, (period, beside), k)?;
        // What is left of the operand's bits when the value has those that it should have.
        let t = (scale.log2() - (value_bits - width.log2())).round().max(0.0) as u32;
        self.select.insert(id, Select { k, p, t: t.min(k - 1) });
        Ok(())
    }
}
