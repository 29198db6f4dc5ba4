//! Scales: which integer stands for which real, for every value of a network.
//!
//! The integer of a value is `real·scale`. Scales of inputs are powers of two, those of activation
//! outputs any real number, chosen from the spread of the values, or such multiples of a known
//! summand's scale. Operators with secret weights may scale their outputs by any real number, so their
//! scale is chosen by what reads them: a phase wants one turn to be `2^k`, a square wants its truncated
//! input to have enough bits. Public linear steps pass scales through, and a sum needs one scale for
//! its operands: each gets a public integer factor.
//!
//! Nodes are visited in topological order. A value is *settled* when its scale is known; outputs of secret operators, and
//! sums of them, stay open until something reads them.
//!
//! Ring widths follow the rounding of the weights before a phase. It makes an error of `e/√12` units:
//! measured where the weights are rounded with compensation, otherwise `e = √K·rms` with `K` the fan-in
//! and `rms` the root mean square of the integer inputs. A phase has steps of `2^(k−p)` units; `k = p +
//! log2(e) − 1/2` keeps the first within half of the second, about as large as the noise of the phase
//! itself, and what is behind is solved for both.

pub mod bits;
mod lookup;
mod multiples;
mod open;
mod operators;
mod settle;
pub(crate) mod spread;
mod window;

pub use lookup::{Lookup, is_public};
pub(crate) use operators::{has_channel_scales, is_secret, uniform_factor};
pub use spread::Spread;

use bits::{Allocation, LayerBits, RingOptions};
use ir::graph::NodeId;
use ir::plan::{MOST_PHASE_BITS, Select, Table};
use std::collections::HashMap;

/// Bits of one deviation of the input; it is sent once.
const INPUT_BITS: f64 = 7.0;
/// Bits of one deviation of a pre-activation of a square or polynomial, before its slope counts.
const LINE_BITS: f64 = 5.0;
/// The most bits of a phase that nobody asked for.
const FINEST_PHASE: u32 = 12;

/// The scale of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Scale {
    /// One for all elements.
    Uniform(f64),
    /// One per channel: between a secret operator and the one phase that reads it.
    PerChannel(Vec<f64>),
}

/// What the truncation of a square's or polynomial's input needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Scale of the truncated input `ŷ`.
    pub scale: f64,
    /// Bits dropped.
    pub t: u32,
    /// Bits of `ŷ`, its sign and a spare bit.
    pub p: u32,
}

/// Scales, factors and rings of a network.
#[derive(Clone, Debug, Default)]
pub struct Scales {
    /// The options they are made with.
    pub options: RingOptions,
    /// Activations with bits of their own.
    pub allocation: Allocation,
    /// Scale per settled value.
    pub value: HashMap<NodeId, Scale>,
    /// Public integer factors other than 1, per reader and operand position.
    pub factor: HashMap<(NodeId, usize), i64>,
    /// Ring width of the circle, per phase.
    pub circle: HashMap<NodeId, u32>,
    /// Per phase, and for the output, the error of rounding the weights before it in units of its
    /// circle, times `√12`.
    pub units: HashMap<NodeId, f64>,
    /// Window and truncation per exact rectifier.
    pub select: HashMap<NodeId, Select>,
    /// What is looked up per function of a public table.
    pub lookup: HashMap<NodeId, Lookup>,
    /// Truncation per square and polynomial.
    pub line: HashMap<NodeId, Line>,
    /// Measured error of rounding an operator's weights, in units of its output times `√12`, per unit
    /// of its operand's scale; without an entry, `√K·rms`.
    pub rounding: HashMap<NodeId, f64>,
    /// Bits by which a few inputs make a phase's range wider than the others do.
    pub stretch: HashMap<NodeId, u32>,
}

type Spreads = HashMap<NodeId, Spread>;

impl Scales {
    /// Nothing settled yet.
    pub fn new(options: RingOptions, allocation: Allocation) -> Self {
        Self { options, allocation, ..Self::default() }
    }

    /// Bits of one deviation of the input.
    pub fn input_bits(&self, id: NodeId) -> f64 {
        self.allocation.get(&id).map_or(INPUT_BITS, |bits| bits.value)
    }

    /// Bits of one deviation of the output, before the rounding of its weights counts; `None` where
    /// nothing was allocated.
    fn output_bits(&self, id: NodeId) -> Option<f64> {
        self.allocation.get(&id).map(|bits| bits.value)
    }

    /// The bits of an activation.
    pub fn bits(&self, id: NodeId) -> LayerBits {
        let RingOptions {
            phase_bits,
            bucket_bits,
            same_buckets,
            table_bits,
            value_bits,
            rounding_bits,
            ..
        } = self.options;
        let stretch = self.stretch.get(&id).copied().unwrap_or(0);
        let uniform = LayerBits {
            phase: (phase_bits + stretch).min(FINEST_PHASE.max(phase_bits)),
            bucket: bucket_bits,
            same_buckets,
            table: (table_bits + stretch).min(*Table::OPENING_BITS.end()),
            value: value_bits,
            rounding: rounding_bits,
            harmonics: None,
        };
        self.allocation.get(&id).copied().unwrap_or(uniform)
    }

    /// Bits by which the phases of masks are finer than the openings of a phase whose circle is settled: as many as
    /// a phase and the circle have room for.
    pub fn spare_bits(&self, id: NodeId) -> u32 {
        let most = MOST_PHASE_BITS.min(self.circle.get(&id).copied().unwrap_or(MOST_PHASE_BITS));
        self.options.spare_bits().min(most.saturating_sub(self.bits(id).phase))
    }

    /// The scale of a value, if it is settled and uniform.
    pub fn uniform(&self, id: NodeId) -> Option<f64> {
        match self.value.get(&id) {
            Some(Scale::Uniform(scale)) => Some(*scale),
            _ => None,
        }
    }
}
