//! HOW it is computed: a list of steps over values in rings, the same for both parties and public. A
//! plan holds shapes, operator kinds, ring widths and fraction bits, and no weight, bias or
//! coefficient; those stand in [`Weights`].
//!
//! Notation is that of the protocol: a value `y` of ring width `k` is held masked, party 0 has
//! `Δ = y + m mod 2^k`, party 1 has `m`. Integers stand for reals by a scale, `integer = real·scale`.

mod cost;
mod encryption;
mod evaluate;
mod file;
pub mod formula;
pub mod offline;
mod packing;
mod port;
mod print;
mod reference;
pub mod rlwe;
mod schedule;
mod slots;
mod task;
mod verify;
mod weights;

pub use cost::{Correlation, Direction, Message, PART, Round};
pub use evaluate::{
    CarryNoise, Evaluator, NoiseTally, PhaseTables, Rounding, carry_noise, per_channel,
    phase_error, run_rounding,
};
pub use file::{Digest, FileError, MAX_FILE_BYTES, Magic, TOOL_VERSION, open, open_prefix, seal};
pub use packing::{Packing, Planes};
pub use port::{ClientStep, InputError, InputPort, OutputPort, join, scores_of, shape_after};
pub use reference::{LayerFit, Reference, ReferenceLayer, Source};
pub use rlwe::RingLwe;
pub use schedule::{Action, Exchange, MAX_GROUP, Schedule};
pub use slots::{PhaseProducts, SlotPacking};
pub use task::{Task, Verdict, class, five_digits};
pub use verify::PlanError;
pub use weights::{Commitment, StepWeights, Weights};

use crate::op::Convolution;
use crate::ring::to_signed;
use crate::tensor::{Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The index of a step and of the value that it makes; prints as `v7`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ValueId(pub u32);

impl ValueId {
    /// As an index into [`Plan::steps`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}
impl fmt::Debug for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A compiled network, as both parties know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// A name for people.
    pub name: String,
    /// The steps; operands stand before their readers, step 0 is the input.
    pub steps: Vec<Step>,
    /// The value that party 1 learns.
    pub output: ValueId,
    /// Integer = real·scale at the input.
    pub input_scale: f64,
    /// What the input value consists of.
    pub inputs: Vec<InputPort>,
    /// Integer = real·scale at the output.
    pub output_scale: f64,
    /// What the output value consists of.
    pub outputs: Vec<OutputPort>,
    /// Parameters of the encryption behind linear correlations and products of phases; a step uses the
    /// cheapest that has room for it ([`Packing::new`], [`SlotPacking::new`]).
    pub rlwe: Vec<RingLwe>,
}

/// One step and the value that it makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The name of the ONNX node that it comes from.
    pub name: String,
    /// What is done.
    pub op: StepOp,
    /// What it reads.
    pub operands: Vec<ValueId>,
    /// Shape of the value.
    pub shape: Shape,
    /// Ring width `k` of the value, 1 to 64.
    pub ring: u32,
    /// The binary logarithm of the value's scale, rounded; for people.
    pub fraction_bits: i32,
}

/// The kinds of steps. Parameters are the protocol's symbols.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StepOp {
    /// Party 1's input, masked: `k` bits to party 0.
    Input,
    /// A constant of party 0.
    Constant,
    /// Convolution with secret weights; local.
    Convolution {
        /// Geometry.
        geometry: Convolution,
        /// Bits of the signed weights: 8, 16 or 32.
        weight_bits: u32,
    },
    /// Product of the last axis with a secret matrix; local.
    MatrixProduct {
        /// Bits of the signed weights: 8, 16 or 32.
        weight_bits: u32,
    },
    /// Elementwise product with secret factors; local.
    Diagonal {
        /// Bits of the signed factors: 8, 16 or 32.
        weight_bits: u32,
    },
    /// Sum of two values; local.
    Add,
    /// Product with a public integer; local.
    Scale {
        /// The factor.
        factor: i64,
    },
    /// Sums over windows of the last two axes; local.
    SumWindows {
        /// Window size.
        kernel: [usize; 2],
        /// Step between windows.
        stride: [usize; 2],
    },
    /// Sums over axes, which stay with length 1; local.
    SumAxes {
        /// The axes.
        axes: Vec<usize>,
    },
    /// The same elements under another shape; local.
    Reshape,
    /// Permutation of the axes; local.
    Transpose {
        /// Axis `i` of the result is axis `permutation[i]`.
        permutation: Vec<usize>,
    },
    /// Selection along an axis, `None` is zero; local.
    Take {
        /// The axis.
        axis: usize,
        /// Source index of every entry.
        indices: Vec<Option<u32>>,
    },
    /// Joins values along an axis; local.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// Division by `2^shift`, to one unit: `k_in = k + shift`; local.
    Rescale {
        /// Bits dropped.
        shift: u32,
    },
    /// A trigonometric polynomial of the phase: one round trip.
    Phase(Phase),
    /// Truncation and square: one round trip.
    Square(Square),
    /// Truncation and a polynomial with secret coefficients: one round trip.
    Polynomial {
        /// Truncation, ring and degree.
        square: Square,
        /// Degree of the polynomial, at least 1.
        degree: u32,
    },
}

/// Parameters of a phase step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Bits of the phase that party 0 asks with.
    pub p: u32,
    /// Bits of the phase `M` of party 1's mask, at least `p`: see [`Phase::spare_bits`].
    pub mask_bits: u32,
    /// Ring width `Q` of the shares before truncation: `k' + shift`, at most 64.
    pub q: u32,
    /// Bits that the local truncation drops: `t₂`.
    pub shift: u32,
    /// Scale of party 1's cosines: `2^g2`.
    pub g2: u32,
    /// Scale of the public cosines: `2^h`.
    pub h: u32,
    /// The low bits of the value that party 0 alone keeps of its share: party 1's masks and answers have
    /// none of them.
    pub guard: u32,
    /// Number of harmonics.
    pub harmonics: u32,
    /// The amplitude `√(a_n² + b_n²)` of every harmonic is at most `2^amplitude` units of the step's value.
    pub amplitude: u32,
}

/// The most bits of a phase.
pub const MOST_PHASE_BITS: u32 = 14;

/// The highest degree of a polynomial step.
pub const MOST_DEGREE: u32 = 16;

/// Parameters of a square or polynomial step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Square {
    /// Bits dropped from the input.
    pub t: u32,
    /// Bits of the truncated input, its sign and a spare bit.
    pub p: u32,
    /// Ring width `Q` of the shares before truncation: `k' + shift`; at most 64, for polynomials 127.
    pub q: u32,
    /// Bits that the local truncation drops: `t₂`.
    pub shift: u32,
}

impl StepOp {
    /// The step's name as reports show it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Constant => "constant",
            Self::Convolution { .. } => "convolution",
            Self::MatrixProduct { .. } => "matrix product",
            Self::Diagonal { .. } => "diagonal",
            Self::Add => "add",
            Self::Scale { .. } => "scale",
            Self::SumWindows { .. } => "sum windows",
            Self::SumAxes { .. } => "sum axes",
            Self::Reshape => "reshape",
            Self::Transpose { .. } => "transpose",
            Self::Take { .. } => "take",
            Self::Concat { .. } => "concat",
            Self::Rescale { .. } => "rescale",
            Self::Phase(_) => "phase",
            Self::Square(_) => "square",
            Self::Polynomial { .. } => "polynomial",
        }
    }

    /// The bits that a linear step needs of its operands for `k` bits of its result: all of them, but
    /// for those that the twos of a factor push out at the top.
    pub fn operand_bits(&self, k: u32) -> u32 {
        match self {
            Self::Scale { factor } => k.saturating_sub(factor.trailing_zeros()).max(1),
            _ => k,
        }
    }

    /// [`Phase::guard`]; 0 for other steps.
    pub fn guard(&self) -> u32 {
        if let Self::Phase(phase) = self { phase.guard } else { 0 }
    }

    /// Whether the step exchanges a message each way.
    pub fn is_activation(&self) -> bool {
        matches!(self, Self::Phase(_) | Self::Square(_) | Self::Polynomial { .. })
    }

    /// Whether the step multiplies with party 0's weights, and so uses a linear correlation.
    pub fn is_secret_linear(&self) -> bool {
        matches!(
            self,
            Self::Convolution { .. } | Self::MatrixProduct { .. } | Self::Diagonal { .. }
        )
    }
}

impl Plan {
    /// A plan of one input and one output, both of reals, without encryption parameters: the input's limit
    /// in reals, and the scales of both.
    pub fn of_steps(
        name: &str,
        steps: Vec<Step>,
        output: ValueId,
        (limit, input_scale): (f64, f64),
        output_scale: f64,
    ) -> Self {
        let shape = |index: usize| steps.get(index).map(|s| s.shape.clone()).unwrap_or_default();
        let inputs = InputPort::whole("x", shape(0), limit);
        let outputs = OutputPort::whole("y", shape(output.index()));
        let (name, rlwe) = (name.to_owned(), vec![]);
        Self { name, steps, output, input_scale, inputs, output_scale, outputs, rlwe }
    }

    /// The step of a value.
    pub fn step(&self, id: ValueId) -> &Step {
        &self.steps[id.index()]
    }

    /// The reals that the output value's ring elements stand for, in the units of the outputs.
    pub fn decode_output(&self, y: &Tensor<u64>) -> Tensor<f32> {
        let ring = self.step(self.output).ring;
        y.map(|v| (to_signed(v, ring) as f64 / self.output_scale) as f32)
    }

    /// The number of values that pass through an activation.
    pub fn activations(&self) -> usize {
        self.steps.iter().filter(|s| s.op.is_activation()).map(|s| s.shape.elements()).sum()
    }
}
