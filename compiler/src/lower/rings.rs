//! Ring planning, backwards from the output: every step says how many bits its operands need, and a
//! value has as many as its most demanding reader.

use crate::error::CompileError;
use ir::plan::{Interactive, Polynomial, Step, StepOp, StepWeights, ValueId};
use ir::ring::low_mask;
use std::collections::HashMap;

/// The ring of every step's value. `wanted` are rings that a value must have exactly; `phase_bits` says how
/// many bits a phase step asks of its operand.
///
/// # Errors
/// If a value has more bits than a ring holds, or more than are wanted of it.
pub(crate) fn rings(
    steps: &[Step],
    wanted: &HashMap<ValueId, u32>,
    (output, output_ring): (ValueId, u32),
    phase_bits: impl Fn(usize, u32) -> u32,
) -> Result<Vec<u32>, CompileError> {
    let mut rings = vec![1u32; steps.len()];
    rings[output.index()] = output_ring;
    for (index, step) in steps.iter().enumerate().rev() {
        match wanted.get(&ValueId(index as u32)) {
            Some(&k) if k < rings[index] => {
                return Err(CompileError::Internal {
                    stage: "ring planning",
                    reason: format!("node {}: a circle of {k} bits has other readers", step.name),
                });
            }
            Some(&k) => rings[index] = k,
            None => {}
        }
        let k = rings[index];
        let of_operand = match &step.op {
            // Its mask's phase has as many bits as there is room for, later.
            StepOp::Interactive(Interactive::Phase(phase)) => phase_bits(index, phase.p),
            op => op.operand_bits(k),
        };
        if k > 64 || of_operand > 64 {
            return Err(CompileError::Range(format!(
                "node {}: needs a ring of {k} bits, more than 64",
                step.name
            )));
        }
        for operand in &step.operands {
            let of = &mut rings[operand.index()];
            *of = (*of).max(of_operand);
        }
    }
    Ok(rings)
}

/// Sets the ring of every step and `Q` of squares and polynomials, and reduces secrets and the entries of tables to their
/// rings.
///
/// # Errors
/// Those of [`rings`].
pub(super) fn plan_rings(
    steps: &mut [Step],
    secrets: &mut [StepWeights],
    wanted: &HashMap<ValueId, u32>,
    output: (ValueId, u32),
) -> Result<(), CompileError> {
    let rings = rings(steps, wanted, output, |_, p| p)?;
    for ((step, secrets), k) in steps.iter_mut().zip(secrets).zip(rings) {
        step.ring = k;
        match &mut step.op {
            StepOp::Interactive(
                Interactive::Square(square) | Interactive::Polynomial(Polynomial { square, .. }),
            ) => square.q = square.shift + k,
            StepOp::Interactive(Interactive::Table(table)) => *table = table.in_ring(k),
            // Its tables come later, and with them Q.
            StepOp::Interactive(Interactive::Phase(_) | Interactive::Select(_))
            | StepOp::Input
            | StepOp::Constant
            | StepOp::Local(_)
            | StepOp::Linear(_) => {}
        }
        match secrets {
            StepWeights::Constant(values) | StepWeights::Linear { bias: values, .. } => {
                values.iter_mut().for_each(|v| *v &= low_mask(k));
            }
            StepWeights::None
            | StepWeights::Phase { .. }
            | StepWeights::Square { .. }
            | StepWeights::Polynomial { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "rings_tests.rs"]
mod tests;
