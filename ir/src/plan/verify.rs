//! The rules that every plan keeps; checked at every load, so that a loaded plan is a sound plan.

use super::packing::MAX_SETS;
use super::{MOST_PHASE_BITS, Plan, Planes, RingLwe, Square, Step, StepOp};
use crate::tensor::Shape;

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
    let arity = match &step.op {
        StepOp::Input | StepOp::Constant => 0,
        StepOp::Add => 2,
        StepOp::Concat { .. } => operands.len().max(1),
        _ => 1,
    };
    if operands.len() != arity {
        return err(format!("has {} operands, expected {arity}", operands.len()));
    }
    let expected = expected_shape(step, &operands)?;
    if expected != step.shape {
        return err(format!("has shape {}, expected {expected}", step.shape));
    }
    check_rings(step, &operands)
}

fn expected_shape(step: &Step, operands: &[&Step]) -> Result<Shape, String> {
    let Some(first) = operands.first() else { return Ok(step.shape.clone()) };
    let input = &first.shape;
    let weight_bits = |bits: &u32| {
        if matches!(bits, 8 | 16 | 32) { Ok(()) } else { err(format!("weights of {bits} bits")) }
    };
    Ok(match &step.op {
        StepOp::Input | StepOp::Constant => step.shape.clone(),
        StepOp::Convolution { geometry, weight_bits: bits } => {
            weight_bits(bits)?;
            if input.0.first() != Some(&1) {
                return err("several images");
            }
            let outputs = step.shape.0.get(1).copied().unwrap_or(0);
            geometry.output_shape(input, outputs).ok_or("geometry does not fit")?
        }
        StepOp::MatrixProduct { weight_bits: bits } => {
            weight_bits(bits)?;
            let mut shape = input.clone();
            match (shape.0.last_mut(), step.shape.0.last()) {
                (Some(last), Some(&outputs)) => *last = outputs,
                _ => return err("a scalar has no last axis"),
            }
            shape
        }
        StepOp::Diagonal { weight_bits: bits } => {
            weight_bits(bits)?;
            input.clone()
        }
        StepOp::Add => {
            if operands[1].shape != *input {
                return err("operands have different shapes");
            }
            input.clone()
        }
        StepOp::Scale { .. }
        | StepOp::Rescale { .. }
        | StepOp::Phase(_)
        | StepOp::Square(_)
        | StepOp::Polynomial { .. } => input.clone(),
        StepOp::SumWindows { kernel, stride } => {
            let mut shape = input.clone();
            let rank = shape.rank();
            if rank < 2 || kernel.contains(&0) || stride.contains(&0) {
                return err("windows need two axes");
            }
            for axis in 0..2 {
                let length = &mut shape.0[rank - 2 + axis];
                *length =
                    length.checked_sub(kernel[axis]).ok_or("window too large")? / stride[axis] + 1;
            }
            shape
        }
        StepOp::SumAxes { axes } => {
            let mut shape = input.clone();
            for &axis in axes {
                *shape.0.get_mut(axis).ok_or("axis out of range")? = 1;
            }
            shape
        }
        StepOp::Reshape => {
            if step.shape.elements() != input.elements() {
                return err("another number of elements");
            }
            step.shape.clone()
        }
        StepOp::Transpose { permutation } => {
            let mut sorted = permutation.clone();
            sorted.sort_unstable();
            if sorted != (0..input.rank()).collect::<Vec<_>>() {
                return err("no permutation of the axes");
            }
            Shape(permutation.iter().map(|&axis| input.0[axis]).collect())
        }
        StepOp::Take { axis, indices } => {
            let mut shape = input.clone();
            let length = shape.0.get_mut(*axis).ok_or("axis out of range")?;
            if indices.iter().flatten().any(|&i| i as usize >= *length) {
                return err("index out of range");
            }
            *length = indices.len();
            shape
        }
        StepOp::Concat { axis } => {
            let mut shape = input.clone();
            let mut sum = 0usize;
            for operand in operands {
                let mut other = operand.shape.clone();
                let length = other.0.get_mut(*axis).ok_or("axis out of range")?;
                sum = sum.checked_add(*length).ok_or("too long")?;
                *length = *input.0.get(*axis).ok_or("axis out of range")?;
                if other != *input {
                    return err("operands do not join");
                }
            }
            shape.0[*axis] = sum;
            shape
        }
    })
}

fn check_rings(step: &Step, operands: &[&Step]) -> Result<(), String> {
    let k = step.ring;
    let widest = |needed: u32| {
        if operands.iter().all(|o| o.ring >= needed) {
            return Ok(());
        }
        err(format!("an operand's ring is narrower than {needed} bits"))
    };
    let truncated = |s: &Square, most: u32| {
        if s.t > 63
            || !(3..=62).contains(&s.p)
            || s.shift >= s.q
            || s.q > most
            || s.q - s.shift != k
        {
            return err("t, p, Q and t₂ do not fit");
        }
        widest(s.t + s.p)
    };
    match &step.op {
        StepOp::Input | StepOp::Constant => Ok(()),
        StepOp::Rescale { shift } => {
            if *shift > 63 {
                return err("shift out of range");
            }
            widest(k + shift)
        }
        StepOp::Phase(phase) => {
            let sound = (2..=MOST_PHASE_BITS).contains(&phase.p)
                && (1..=16).contains(&phase.harmonics)
                && (phase.p..=MOST_PHASE_BITS).contains(&phase.mask_bits)
                && phase.g2 <= 24
                && phase.h <= 24
                && phase.g2 + phase.h <= phase.shift
                && phase.shift < phase.q
                && phase.guard < k.min(16)
                && phase.guard <= phase.shift
                && phase.amplitude <= 62
                && phase.q <= 64
                && phase.q - phase.shift == k;
            if !sound {
                return err("p, the mask's bits, Q, t₂, g2, h, guard and amplitude do not fit");
            }
            widest(phase.mask_bits)
        }
        StepOp::Square(square) => truncated(square, 64),
        StepOp::Polynomial { square, degree } => {
            if !(1..=super::MOST_DEGREE).contains(degree) {
                return err("degree out of range");
            }
            truncated(square, 127)
        }
        linear => widest(linear.operand_bits(k)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ValueId;

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
                vec![step(StepOp::Input, &[], 10), step(StepOp::Scale { factor }, &[0], ring)],
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
