//! What a plan is made of: steps, each of a kind. Everything that a kind means to both programs (its rules,
//! its messages, what it costs, its exact value, its text) stands in the kind's own file; this one has the
//! only matches over all kinds.
//!
//! *Families.* A step is the input, a constant, [`Local`] (each party applies it to what it holds), [`Linear`]
//! (local online; offline the parties share `W·r` of the operand's mask `r`) or [`Interactive`] (messages online). Code
//! that walks over a plan knows families; kinds are known here and in the runtime's `steps`.

mod interactive;
mod linear;
mod local;
mod phase;
mod polynomial;
mod select;
mod square;
mod table;

pub use interactive::{Exact, Field, Interactive, Protocol, Trip};
pub use linear::Linear;
pub use local::Local;
pub use phase::{MOST_PHASE_BITS, Phase, PhaseTables, phase_error};
pub use polynomial::{MOST_DEGREE, Polynomial};
pub use select::Select;
pub use square::Square;
pub use table::Table;

use super::weights::StepWeights;
use crate::ring::low_mask;
use crate::tensor::{Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The index of a step and of the value that it makes; prints as `v7`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ValueId(pub u32);

impl ValueId {
    /// As an index into [`Plan::steps`](super::Plan::steps).
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

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StepOp {
    /// Party 1's input, masked: `k` bits to party 0.
    Input,
    /// A constant of party 0.
    Constant,
    /// A public step on one or several values; no message, no correlation.
    Local(Local),
    /// Products with secret weights; no message online.
    Linear(Linear),
    /// Messages online.
    Interactive(Interactive),
}

impl From<Local> for StepOp {
    fn from(kind: Local) -> Self {
        Self::Local(kind)
    }
}
impl From<Linear> for StepOp {
    fn from(kind: Linear) -> Self {
        Self::Linear(kind)
    }
}
impl<I: Into<Interactive>> From<I> for StepOp {
    fn from(kind: I) -> Self {
        Self::Interactive(kind.into())
    }
}

impl StepOp {
    /// The step's name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Constant => "constant",
            Self::Local(kind) => kind.name(),
            Self::Linear(kind) => kind.name(),
            Self::Interactive(kind) => kind.protocol().name(),
        }
    }

    /// The step's parameters for people; empty where its name says everything.
    pub fn parameters(&self) -> String {
        match self {
            Self::Input | Self::Constant => String::new(),
            Self::Local(kind) => kind.parameters(),
            Self::Linear(kind) => kind.parameters(),
            Self::Interactive(kind) => kind.protocol().parameters(),
        }
    }

    /// Bits that a step needs of an operand for `k` bits of its value.
    pub fn operand_bits(&self, k: u32) -> u32 {
        match self {
            Self::Input | Self::Constant => 0,
            Self::Local(kind) => kind.operand_bits(k),
            Self::Linear(_) => k,
            Self::Interactive(kind) => kind.protocol().operand_bits(),
        }
    }

    /// The low bits of the value that party 0 alone keeps of its share: party 1's masks and responses have
    /// none of them.
    pub fn guard(&self) -> u32 {
        self.interactive().map_or(0, |kind| kind.protocol().guard())
    }

    /// The kind of an interactive step.
    pub fn interactive(&self) -> Option<&Interactive> {
        match self {
            Self::Interactive(kind) => Some(kind),
            Self::Input | Self::Constant | Self::Local(_) | Self::Linear(_) => None,
        }
    }

    /// The parameters of a phase step.
    pub fn phase(&self) -> Option<&Phase> {
        match self {
            Self::Interactive(Interactive::Phase(phase)) => Some(phase),
            Self::Interactive(
                Interactive::Square(_)
                | Interactive::Polynomial(_)
                | Interactive::Select(_)
                | Interactive::Table(_),
            )
            | Self::Input
            | Self::Constant
            | Self::Local(_)
            | Self::Linear(_) => None,
        }
    }

    /// Whether the step exchanges messages online.
    pub fn is_interactive(&self) -> bool {
        self.interactive().is_some()
    }

    /// Whether the step multiplies with party 0's weights, and so uses a linear correlation.
    pub fn is_secret_linear(&self) -> bool {
        matches!(self, Self::Linear(_))
    }
}

/// `Err` with a reason.
fn err<T>(reason: impl Into<String>) -> Result<T, String> {
    Err(reason.into())
}

/// An operand of every ring is wide enough.
fn widest(operands: &[&Step], needed: u32) -> Result<(), String> {
    if operands.iter().all(|o| o.ring >= needed) {
        return Ok(());
    }
    err(format!("an operand's ring is narrower than {needed} bits"))
}

impl Step {
    /// Checks the step by the rules of its kind: operands, shape, rings.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub(super) fn check(&self, operands: &[&Step]) -> Result<(), String> {
        let arity = match &self.op {
            StepOp::Input | StepOp::Constant => 0..=0,
            StepOp::Local(kind) => kind.arity(),
            StepOp::Linear(_) => 1..=1,
            StepOp::Interactive(kind) => kind.protocol().arity(),
        };
        if !arity.contains(&operands.len()) {
            return err(format!("has {} operands, expected {}", operands.len(), arity.start()));
        }
        let expected = match &self.op {
            StepOp::Input | StepOp::Constant => self.shape.clone(),
            StepOp::Local(kind) => kind.shape(self, operands)?,
            StepOp::Linear(kind) => kind.shape(self, operands[0])?,
            StepOp::Interactive(kind) => kind.protocol().shape(self, operands)?,
        };
        if expected != self.shape {
            return err(format!("has shape {}, expected {expected}", self.shape));
        }
        match &self.op {
            StepOp::Input | StepOp::Constant => Ok(()),
            StepOp::Local(kind) => kind.check_rings(self.ring, operands),
            StepOp::Linear(_) => widest(operands, self.ring),
            StepOp::Interactive(kind) => kind.protocol().check_rings(self.ring, operands),
        }
    }

    /// Whether these are secrets that the step may have.
    pub(super) fn fits(&self, operands: &[&Step], secrets: &StepWeights) -> bool {
        match (&self.op, secrets) {
            (StepOp::Input | StepOp::Local(_), secrets) => matches!(secrets, StepWeights::None),
            (StepOp::Constant, StepWeights::Constant(v)) => v.len() == self.shape.elements(),
            (StepOp::Constant, _) => false,
            (StepOp::Linear(kind), StepWeights::Linear { weights, bias }) => {
                operands.first().is_some_and(|x| kind.fits(self, &x.shape, weights, bias))
            }
            (StepOp::Linear(_), _) => false,
            (StepOp::Interactive(kind), secrets) => kind.protocol().fits(self, secrets),
        }
    }

    /// Applies a local step, or the linear part of one with secret weights, to ring elements, shares or masks
    /// alike: without bias, reduced to the step's ring.
    ///
    /// # Panics
    /// If called for a step of another family, or with secrets of another step.
    pub fn apply(&self, secrets: &StepWeights, operands: &[&Tensor<u64>]) -> Tensor<u64> {
        match (&self.op, secrets) {
            (StepOp::Local(kind), _) => kind.apply(self, operands),
            (StepOp::Linear(kind), StepWeights::Linear { weights, .. }) => {
                kind.apply(self, weights, operands[0])
            }
            _ => unreachable!("{} is not applied to shares", self.op.name()),
        }
    }

    /// Adds the bias of a step with secret weights; nothing for other steps.
    pub fn add_bias(&self, secrets: &StepWeights, y: &mut Tensor<u64>) {
        let (StepOp::Linear(kind), StepWeights::Linear { bias, .. }) = (&self.op, secrets) else {
            return;
        };
        let mask = low_mask(self.ring);
        if bias.len() == y.data.len() {
            y.data.iter_mut().zip(bias).for_each(|(v, b)| *v = v.wrapping_add(*b) & mask);
            return;
        }
        let run = kind.bias_run(&self.shape);
        for (i, chunk) in y.data.chunks_exact_mut(run).enumerate() {
            let b = bias[i % bias.len()];
            chunk.iter_mut().for_each(|v| *v = v.wrapping_add(b) & mask);
        }
    }
}
