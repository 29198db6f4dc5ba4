//! The rules that every plan keeps; checked at every load, so that a loaded plan is a sound plan.

use super::preprocess::MAX_SETS;
use super::{Plan, Planes, RingLwe, Step, StepOp};

/// The largest number of steps.
const MAX_STEPS: usize = 100_000;
/// The largest sum of elements over all values.
const MAX_TOTAL_ELEMENTS: usize = 1 << 36;

/// A rule that a plan breaks.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(String);

fn err<T>(reason: impl Into<String>) -> Result<T, String> {
    Err(reason.into())
}

pub(super) fn verify(plan: &Plan) -> Result<(), PlanError> {
    check(plan).map_err(PlanError)
}

impl Plan {
    /// Checks every rule; the compiler calls it on what it emits, [`Plan::from_bytes`] on what it reads.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn verify(&self) -> Result<(), PlanError> {
        verify(self)
    }
}

fn check(plan: &Plan) -> Result<(), String> {
    if plan.steps.is_empty() || plan.steps.len() > MAX_STEPS {
        return err(format!("has {} steps", plan.steps.len()));
    }
    let names = plan.steps.iter().map(|s| &s.name).chain([&plan.name]);
    if names.into_iter().any(|name| name.chars().any(char::is_control)) {
        return err("a name has control characters");
    }
    let positive = |x: f64| x.is_finite() && x > 0.0;
    if !positive(plan.input_scale) || !positive(plan.output_scale) {
        return err("a scale is not a positive number");
    }
    let mut total = 0usize;
    for (index, step) in plan.steps.iter().enumerate() {
        if !step.shape.is_bounded() || !(1..=64).contains(&step.ring) {
            return err(format!(
                "step v{index}: shape {} or ring {} is out of bounds",
                step.shape, step.ring
            ));
        }
        total = total.saturating_add(step.shape.elements());
        if step.operands.iter().any(|o| o.index() >= index) {
            return err(format!("step v{index} reads a later step"));
        }
        if matches!(step.op, StepOp::Input) != (index == 0) {
            return err(format!("step v{index}: the input is step v0 and no other"));
        }
        check_step(plan, step)
            .map_err(|reason| format!("step v{index} ({}): {reason}", step.name))?;
    }
    if total > MAX_TOTAL_ELEMENTS {
        return err("has too many elements");
    }
    if plan.rlwe.len() > MAX_SETS || !plan.rlwe.iter().all(RingLwe::is_secure) {
        return err("its encryption parameters are not secure");
    }
    for index in 0..plan.steps.len() {
        if Planes::of(plan, index).is_some() && plan.packing(index, 1).is_none() {
            return err(format!("step v{index}: no encryption parameters fit"));
        }
    }
    plan.check_ports()
}

fn check_step(plan: &Plan, step: &Step) -> Result<(), String> {
    let operands: Vec<&Step> = step.operands.iter().map(|&o| plan.step(o)).collect();
    step.check(&operands)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Local, ValueId};
    use crate::tensor::Shape;

    #[test]
    fn the_twos_of_a_factor_replace_bits_of_its_operand() {
        let step = |op, operands: &[u32], ring| Step {
            name: String::new(),
            op,
            operands: operands.iter().map(|&o| ValueId(o)).collect(),
            shape: Shape::new([1, 4]),
            ring,
            fraction_bits: 0,
        };
        let plan = |factor, ring| {
            Plan::of_steps(
                "",
                vec![
                    step(StepOp::Input, &[], 10),
                    step(Local::Scale { factor }.into(), &[0], ring),
                ],
                ValueId(1),
                (1.0, 1.0),
                1.0,
            )
        };
        for (factor, widest) in [(1, 10), (-1, 10), (3, 10), (12, 12), (-64, 16), (0, 64)] {
            plan(factor, widest).verify().unwrap();
            assert!(widest == 64 || plan(factor, widest + 1).verify().is_err(), "{factor}");
        }
    }
}
