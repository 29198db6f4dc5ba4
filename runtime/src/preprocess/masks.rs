//! Party 1's side of every value, which is known before the input is: one walk over the plan, for party
//! 1 and for whoever deals.

use crate::secret::SecretTensor;
use ir::Tensor;
use ir::plan::{Plan, StepOp, StepWeights};

/// Visits every step with the masks of its operands and of its value. `source` supplies those that do
/// not follow from others ([`Party1Item::mask`](super::item::Party1Item::mask)); it needs no weights.
///
/// # Errors
/// The first error of `source` or `visit`.
pub fn walk<E>(
    plan: &Plan,
    source: impl FnMut(usize) -> Result<SecretTensor, E>,
    visit: impl FnMut(usize, &[&Tensor<u64>], &Tensor<u64>) -> Result<(), E>,
) -> Result<(), E> {
    walk_to(plan, &vec![true; plan.steps.len()], source, visit)
}

/// As [`walk`], past the steps that are `wanted` alone; every step whose mask follows from others must have
/// its operands among them ([`with_origins`]).
///
/// # Errors
/// As there.
pub fn walk_to<E>(
    plan: &Plan,
    wanted: &[bool],
    mut source: impl FnMut(usize) -> Result<SecretTensor, E>,
    mut visit: impl FnMut(usize, &[&Tensor<u64>], &Tensor<u64>) -> Result<(), E>,
) -> Result<(), E> {
    let last_use = last_uses(plan, wanted);
    let mut values: Vec<Option<SecretTensor>> = plan.steps.iter().map(|_| None).collect();
    for (index, step) in plan.steps.iter().enumerate().filter(|(index, _)| wanted[*index]) {
        let value = {
            let operands: Vec<&Tensor<u64>> =
                step.operands.iter().filter_map(|o| values[o.index()].as_deref()).collect();
            let value = match &step.op {
                StepOp::Constant => SecretTensor::new(Tensor::zeros(step.shape.clone())),
                StepOp::Local(_) => SecretTensor::new(step.apply(&StepWeights::None, &operands)),
                StepOp::Input | StepOp::Linear(_) | StepOp::Interactive(_) => source(index)?,
            };
            visit(index, &operands, &value)?;
            value
        };
        for operand in &step.operands {
            if last_use[operand.index()] == index {
                values[operand.index()] = None;
            }
        }
        values[index] = (last_use[index] > index).then_some(value);
    }
    Ok(())
}

/// These steps, and those that their masks follow from.
pub fn with_origins(plan: &Plan, steps: impl IntoIterator<Item = usize>) -> Vec<bool> {
    let mut wanted = vec![false; plan.steps.len()];
    steps.into_iter().for_each(|step| wanted[step] = true);
    for (index, step) in plan.steps.iter().enumerate().rev() {
        if wanted[index] && !has_own_mask(&step.op) {
            step.operands.iter().for_each(|o| wanted[o.index()] = true);
        }
    }
    wanted
}

/// Whether the value's mask is fresh or a share, rather than computed from other masks.
pub fn has_own_mask(op: &StepOp) -> bool {
    match op {
        StepOp::Input | StepOp::Linear(_) | StepOp::Interactive(_) => true,
        StepOp::Constant | StepOp::Local(_) => false,
    }
}

fn last_uses(plan: &Plan, wanted: &[bool]) -> Vec<usize> {
    let mut last_use = vec![0; plan.steps.len()];
    for (index, step) in plan.steps.iter().enumerate().filter(|(index, _)| wanted[*index]) {
        for operand in &step.operands {
            last_use[operand.index()] = index;
        }
    }
    last_use
}
