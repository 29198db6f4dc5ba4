//! Party 0's weights, packed for this machine once for all sessions.

use super::asking::Sizes;
use super::party0::Memory;
use super::schedule::Schedule;
use crate::kernel::{InstructionSet, PackedLinear};
use crate::layout::to_online;
use crate::protocol::phase;
use crate::words::Words;
use ir::plan::{Plan, StepOp, StepWeights, Weights};
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// A plan and its weights, ready to serve any number of sessions.
pub struct Model<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) weights: &'a Weights,
    pub(super) schedule: Schedule,
    pub(super) sizes: Sizes,
    steps: Vec<Packed>,
    /// Memory of sessions that ended, for those to come.
    memories: Mutex<Vec<Memory>>,
}

/// What a step needs of the weights online, beyond what the weights say themselves.
enum Packed {
    Nothing,
    Linear(Box<PackedLinear>),
    /// The elements, in the order online.
    Constant(Zeroizing<Words>),
    /// `c₀` at the scale before the truncation, per element of a period.
    Phase(Zeroizing<Words>),
}

impl<'a> Model<'a> {
    /// Packs the weights, which must be those of the plan.
    pub fn new(plan: &'a Plan, weights: &'a Weights) -> Self {
        Self::with(InstructionSet::best(), plan, weights)
    }

    /// As [`Self::new`] for a given set of instructions, which this machine must have.
    pub fn with(set: InstructionSet, plan: &'a Plan, weights: &'a Weights) -> Self {
        let steps = (0..plan.steps.len()).into_par_iter();
        Self {
            plan,
            weights,
            schedule: Schedule::new(plan, true),
            sizes: Sizes::DEFAULT,
            steps: steps.map(|i| pack(set, plan, weights, i)).collect(),
            memories: Mutex::default(),
        }
    }

    /// With parts of other sizes, and tails only if `fused`.
    #[cfg(test)]
    pub(super) fn cut(self, sizes: Sizes, fused: bool) -> Self {
        Self { sizes, schedule: Schedule::new(self.plan, fused), ..self }
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
            _ => None,
        }
    }

    pub(super) fn constant(&self, step: usize) -> Option<&Words> {
        match &self.steps[step] {
            Packed::Constant(words) => Some(words),
            _ => None,
        }
    }

    pub(super) fn phase_constants(&self, step: usize) -> Option<&Words> {
        match &self.steps[step] {
            Packed::Phase(words) => Some(words),
            _ => None,
        }
    }
}

fn pack(set: InstructionSet, plan: &Plan, weights: &Weights, index: usize) -> Packed {
    let step = &plan.steps[index];
    match (&step.op, &weights.steps[index]) {
        (StepOp::Diagonal { .. }, StepWeights::Linear { weights, .. }) => {
            let factors = Zeroizing::new(to_online(&step.shape, 1, weights));
            packed_linear(set, plan, index, &factors)
        }
        (_, StepWeights::Linear { weights, .. }) => packed_linear(set, plan, index, weights),
        (StepOp::Constant, StepWeights::Constant(values)) => {
            let online = Zeroizing::new(to_online(&step.shape, 1, values));
            let reduced = online.iter().map(|v| v & ir::ring::low_mask(step.ring));
            Packed::Constant(Zeroizing::new(Words::new(step.ring, reduced)))
        }
        (StepOp::Phase(parameters), StepWeights::Phase { constant, .. }) => {
            let constants = Zeroizing::new(phase::constants(parameters, constant));
            let period = Zeroizing::new(crate::layout::pattern(&step.shape, &constants));
            Packed::Phase(Zeroizing::new(Words::new(parameters.q, period.iter().copied())))
        }
        _ => Packed::Nothing,
    }
}

fn packed_linear(set: InstructionSet, plan: &Plan, index: usize, weights: &[i32]) -> Packed {
    let step = &plan.steps[index];
    let Some(operand) = step.operands.first() else { return Packed::Nothing };
    let operand = &plan.step(*operand).shape;
    PackedLinear::new(set, step, operand, weights)
        .map_or(Packed::Nothing, |l| Packed::Linear(Box::new(l)))
}
