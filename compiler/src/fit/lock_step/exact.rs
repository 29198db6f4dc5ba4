//! Activations that are computed as they are: what their operands may be, and what a run computes of them and of fits.

use super::LockStep;
use crate::error::CompileError;
use crate::fit::bounds::Bounds;
use crate::fit::{Values, simulate};
use crate::scales::Spread;
use ir::graph::{NodeId, Op};
use ir::op::Activation;

/// Operands of exact rectifiers and tables may be this much larger than on the calibration inputs, and by this over the
/// root of the inputs' number. Wider windows have wider buckets and steps, narrower ones let the largest values of other
/// inputs wrap.
const WINDOW_MARGIN: f64 = 1.15;
const FEW_INPUTS: f64 = 1.8;
/// The least margin of tables, whose values beyond it come back at the other end.
const LOOKUP_MARGIN: f64 = 1.25;
/// What intervals say is taken up to so many times what was seen of made-up inputs: behind several layers they
/// say nothing any more.
const SYNTHETIC_WINDOW: f64 = 6.0;

/// Real inputs may have values so many bits smaller than made-up ones.
const SYNTHETIC_BITS: f64 = 2.0;

impl LockStep<'_> {
    pub(super) fn bound_by_intervals(&mut self, id: NodeId) {
        let node = self.teacher.node(id);
        let bounds = match &node.op {
            Op::Input => Bounds::of_inputs(&self.calibration.inputs),
            op => {
                let operands = self.teacher.operands(id);
                let known: Option<Vec<&Bounds>> =
                    operands.iter().map(|operand| self.bounds.get(operand)).collect();
                known.and_then(|known| Bounds::of(op, &node.shape, &known))
            }
        };
        self.bounds.extend(bounds.map(|bounds| (id, bounds)));
    }

    /// Settles the operand of an exact rectifier and what it drops, by the teacher's values.
    pub(super) fn settle_window(
        &mut self,
        id: NodeId,
        of_teacher: &Values,
    ) -> Result<(), CompileError> {
        let value = Spread::of(of_teacher, &self.outliers, false);
        let bound = self.bound(self.teacher.operands(id)[0]);
        let finer = if self.calibration.is_synthetic { SYNTHETIC_BITS } else { 0.0 };
        if let Some(scales) = &mut self.scales {
            let width = value.width() / f64::exp2(finer);
            scales.window(&self.student, id, (bound, width), &self.spreads)?;
        }
        self.settled();
        Ok(())
    }

    /// Settles the operand of a function that is looked up.
    pub(super) fn settle_lookup(&mut self, id: NodeId) -> Result<(), CompileError> {
        let operand = self.teacher.operands(id)[0];
        let bound = self.bound(operand).max(LOOKUP_MARGIN * self.spreads[&operand].largest);
        if let Some(scales) = &mut self.scales {
            scales.lookup(&self.student, id, bound, &self.spreads)?;
        }
        self.settled();
        Ok(())
    }

    /// What the operand of an exact rectifier or a table may be: more than was seen, and the more so the fewer inputs were
    /// seen. Of made-up inputs what intervals say, up to a point, unless a normalisation's statistics vouch for what was
    /// seen.
    fn bound(&self, operand: NodeId) -> f64 {
        let seen = self.spreads[&operand].largest;
        let is_vouched = self.teacher.node(operand).statistics.is_some();
        if self.calibration.is_synthetic && !is_vouched {
            let certain = self.bounds.get(&operand).map_or(f64::INFINITY, Bounds::largest);
            return certain.clamp(seen, seen * SYNTHETIC_WINDOW);
        }
        let count = self.calibration.inputs.len().max(1) as f64;
        seen * (WINDOW_MARGIN + FEW_INPUTS / count.sqrt())
    }

    /// Replaces the student's values of an activation whose scales are settled by what a run computes.
    pub(super) fn simulate(&mut self, id: NodeId) -> Result<(), CompileError> {
        let Some(scales) = &self.scales else { return Ok(()) };
        let Some(scale) = scales.uniform(id) else { return Ok(()) };
        let Some((_, student)) = self.values.get(&self.teacher.operands(id)[0]) else {
            return Ok(());
        };
        let values = match &self.rounded.node(id).op {
            Op::Activation(Activation::Trigonometric(fit)) => {
                let bits = (scales.bits(id).phase, scales.spare_bits(id));
                simulate::phases(fit, bits, student)
            }
            Op::Activation(Activation::Polynomial(fit)) => match scales.line.get(&id) {
                Some(&line) => simulate::polynomial(fit, line, student),
                None => return Ok(()),
            },
            Op::Activation(Activation::Exact(function)) => {
                // Their values are in units already.
                let values = match (scales.select.get(&id), scales.lookup.get(&id)) {
                    (Some(select), _) => simulate::select(select, scale, student),
                    (None, Some(lookup)) => {
                        let table = lookup.table(&self.teacher.node(id).name, function, scale)?;
                        simulate::table(&table, (lookup.scale, 1.0 / scale), student)
                    }
                    (None, None) => return Ok(()),
                };
                if let Some(own) = self.values.get_mut(&id) {
                    own.1 = values;
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        if let Some(own) = self.values.get_mut(&id) {
            own.1 = simulate::units(scale, scales.options.spare_bits(), &values);
        }
        Ok(())
    }
}
