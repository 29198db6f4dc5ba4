//! Party 0's weights, packed for this machine once for all sessions.

use super::host::Memory;
use super::schedule::Schedule;
use super::sizes::Sizes;
use crate::kernel::{InstructionSet, PackedLinear};
use crate::layout::to_online;
use crate::steps::Prepared;
use crate::words::Words;
use ir::plan::{Linear, Plan, StepOp, StepWeights, Weights};
use rayon::prelude::*;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// A value that is borrowed, or owned together with others.
pub(crate) enum Handle<'a, T> {
    Borrowed(&'a T),
    Shared(Arc<T>),
}

impl<T> Deref for Handle<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        match self {
            Self::Borrowed(borrowed) => borrowed,
            Self::Shared(shared) => shared,
        }
    }
}

/// A plan and its weights, ready to serve any number of sessions.
pub struct Model<'a> {
    pub(crate) plan: Handle<'a, Plan>,
    pub(crate) weights: Handle<'a, Weights>,
    pub(super) schedule: Schedule,
    pub(super) sizes: Sizes,
    steps: Vec<Packed>,
    /// Memory of ended sessions, for later ones.
    memories: Mutex<Vec<Memory>>,
}

/// What is precomputed of a step's weights for the online phase.
enum Packed {
    Nothing,
    Linear(Box<PackedLinear>),
    /// The elements, in the order online.
    Constant(Zeroizing<Words>),
    /// Of an interactive step.
    Interactive(Prepared),
}

impl Model<'static> {
    /// A model that shares the ownership of its plan and its weights, as in a server.
    pub fn shared(plan: Arc<Plan>, weights: Arc<Weights>) -> Self {
        let best = InstructionSet::best();
        Self::from_handles(best, Handle::Shared(plan), Handle::Shared(weights))
    }
}

impl<'a> Model<'a> {
    /// Packs the weights, which must be those of the plan.
    pub fn new(plan: &'a Plan, weights: &'a Weights) -> Self {
        Self::with(InstructionSet::best(), plan, weights)
    }

    /// As [`Self::new`] for a given set of instructions, which this machine must have.
    pub fn with(set: InstructionSet, plan: &'a Plan, weights: &'a Weights) -> Self {
        Self::from_handles(set, Handle::Borrowed(plan), Handle::Borrowed(weights))
    }

    fn from_handles(
        set: InstructionSet,
        plan: Handle<'a, Plan>,
        weights: Handle<'a, Weights>,
    ) -> Self {
        let steps = (0..plan.steps.len()).into_par_iter();
        let steps = steps.map(|i| pack(set, &plan, &weights, i)).collect();
        let (schedule, memories) = (Schedule::new(&plan, true), Mutex::default());
        Self { plan, weights, schedule, sizes: Sizes::DEFAULT, steps, memories }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// With parts of other sizes, and with fusion chains only if `fused`.
    #[cfg(test)]
    pub(super) fn cut(self, sizes: Sizes, fused: bool) -> Self {
        Self { sizes, schedule: Schedule::new(&self.plan, fused), ..self }
    }

    /// Memory for a session, that of an earlier one if there is any.
    pub(super) fn memory(&self, batch: usize) -> Memory {
        let earlier = self.memories.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut memory = earlier.unwrap_or_default();
        memory.fit(&self.schedule, batch);
        memory
    }

    /// Takes back the memory of a session that ended well.
    pub(super) fn keep(&self, memory: Memory) {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }

    pub(super) fn linear(&self, step: usize) -> Option<&PackedLinear> {
        match &self.steps[step] {
            Packed::Linear(linear) => Some(linear),
            Packed::Nothing | Packed::Constant(_) | Packed::Interactive(_) => None,
        }
    }

    pub(super) fn constant(&self, step: usize) -> Option<&Words> {
        match &self.steps[step] {
            Packed::Constant(words) => Some(words),
            Packed::Nothing | Packed::Linear(_) | Packed::Interactive(_) => None,
        }
    }

    pub(super) fn prepared(&self, step: usize) -> Option<&Prepared> {
        match &self.steps[step] {
            Packed::Interactive(prepared) => Some(prepared),
            Packed::Nothing | Packed::Linear(_) | Packed::Constant(_) => None,
        }
    }
}

fn pack(set: InstructionSet, plan: &Plan, weights: &Weights, index: usize) -> Packed {
    let step = &plan.steps[index];
    match (&step.op, &weights.steps[index]) {
        (StepOp::Linear(Linear::Hadamard { .. }), StepWeights::Linear { weights, .. }) => {
            let factors = Zeroizing::new(to_online(&step.shape, 1, weights));
            packed_linear(set, plan, index, &factors)
        }
        (StepOp::Linear(_), StepWeights::Linear { weights, .. }) => {
            packed_linear(set, plan, index, weights)
        }
        (StepOp::Constant, StepWeights::Constant(values)) => {
            let online = Zeroizing::new(to_online(&step.shape, 1, values));
            let reduced = online.iter().map(|v| v & ir::ring::low_mask(step.ring));
            Packed::Constant(Zeroizing::new(Words::new(step.ring, reduced)))
        }
        (StepOp::Interactive(kind), secrets) => {
            Packed::Interactive(Prepared::new(kind, step, secrets))
        }
        (StepOp::Input | StepOp::Constant | StepOp::Local(_) | StepOp::Linear(_), _) => {
            Packed::Nothing
        }
    }
}

fn packed_linear(set: InstructionSet, plan: &Plan, index: usize, weights: &[i32]) -> Packed {
    let step = &plan.steps[index];
    let Some(operand) = step.operands.first() else { return Packed::Nothing };
    let operand = &plan.step(*operand).shape;
    PackedLinear::new(set, step, operand, weights)
        .map_or(Packed::Nothing, |l| Packed::Linear(Box::new(l)))
}
