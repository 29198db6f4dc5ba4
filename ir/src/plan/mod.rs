//! HOW it is computed: a list of steps over values in rings, the same for both parties and public. A
//! plan holds shapes, operator kinds, ring widths and fraction bits, and no weight, bias or
//! coefficient; those stand in [`Weights`].
//!
//! Notation is that of the protocol: a value `y` of ring width `k` is held masked, party 0 has
//! `Δ = y + m mod 2^k`, party 1 has `m`. Integers stand for reals by a scale, `integer = real·scale`.

mod cost;
mod evaluate;
mod file;
pub mod formula;
mod port;
pub mod preprocess;
mod print;
mod reference;
mod step;
mod task;
mod verify;
mod weights;

pub use cost::{Correlation, Direction, Message, PART, Round, RoundTrip};
pub use evaluate::{
    CarryNoise, Coins, Evaluator, NoiseTally, Rounding, carry_noise, per_channel, run_rounding,
};
pub use file::{Digest, FileError, MAX_FILE_BYTES, Magic, TOOL_VERSION, open, open_prefix, seal};
pub use port::{ClientStep, InputError, InputPort, OutputPort, join, scores_of, shape_after};
pub use preprocess::rlwe::{self, RingLwe};
pub use preprocess::{
    Action, Cost, Exchange, MAX_GROUP, Method, OfflineSchedule, Packing, PhaseProducts, Planes,
    SlotPacking,
};
pub use reference::{LayerFit, Reference, ReferenceLayer, Source};
pub use step::{
    Exact, Field, Interactive, Linear, Local, MOST_DEGREE, MOST_PHASE_BITS, Phase, PhaseTables,
    Polynomial, Protocol, Select, Square, Step, StepOp, Table, Trip, ValueId, phase_error,
};
pub use task::{Task, Verdict, class, five_digits};
pub use verify::PlanError;
pub use weights::{Commitment, StepWeights, Weights};

use crate::ring::to_signed;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

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

    /// The number of elements that interactive steps make.
    pub fn interactive_elements(&self) -> usize {
        self.steps.iter().filter(|s| s.op.is_interactive()).map(|s| s.shape.elements()).sum()
    }
}
