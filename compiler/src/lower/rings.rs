//! Ring planning, backwards from the output: every step says how many bits its operands need, and a
//! value has as many as its most demanding reader.

use crate::error::CompileError;
use ir::plan::{Step, StepOp, StepWeights, ValueId};
use ir::ring::low_mask;
use std::collections::HashMap;

/// Sets the ring of every step and what follows from it (`Q` of activations), and reduces the secrets to
/// their rings. `wanted` are rings that a value must have exactly.
pub(super) fn plan_rings(
    steps: &mut [Step],
    secrets: &mut [StepWeights],
    wanted: &HashMap<ValueId, u32>,
    output: ValueId,
    output_ring: u32,
) -> Result<(), CompileError> {
    let mut needed = vec![1u32; steps.len()];
    needed[output.index()] = output_ring;
    for index in (0..steps.len()).rev() {
        let step = &mut steps[index];
        let k = match wanted.get(&ValueId(index as u32)) {
            Some(&k) if k < needed[index] => {
                return Err(CompileError::Internal {
                    stage: "ring planning",
                    reason: format!("node {}: a circle of {k} bits has other readers", step.name),
                });
            }
            Some(&k) => k,
            None => needed[index],
        };
        step.ring = k;
        let of_operand = match &mut step.op {
            StepOp::Phase(phase) => {
                phase.q = phase.shift + k;
                phase.p
            }
            StepOp::Square(square) | StepOp::Polynomial { square, .. } => {
                square.q = square.shift + k;
                square.t + square.p
            }
            StepOp::Rescale { shift } => k + *shift,
            linear => linear.operand_bits(k),
        };
        if k > 64 || of_operand > 64 {
            return Err(CompileError::Range(format!(
                "node {}: needs a ring of {k} bits, more than 64",
                step.name
            )));
        }
        for operand in step.operands.clone() {
            needed[operand.index()] = needed[operand.index()].max(of_operand);
        }
        match &mut secrets[index] {
            StepWeights::Constant(values) | StepWeights::Linear { bias: values, .. } => {
                values.iter_mut().for_each(|v| *v &= low_mask(k));
            }
            _ => {}
        }
    }
    Ok(())
}
