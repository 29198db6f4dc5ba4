//! Guard bits: where rings are narrower than the words that they are computed in anyway, party 0 keeps what
//! its own share has below a unit.
//!
//! Party 1's response in a phase cuts its share to units of the value. Party 0 cuts its own as well only because
//! its ring ends there. In a ring that is `g` bits wider, all integers times `2^g`, it need not: half of the
//! error is gone, and no message is longer, since party 1's masks and responses have no bits there.
//!
//! Rings are widened by *stretches*: values that linear steps connect, secret ones included, so that no weight
//! changes. A stretch is left alone if a value in it comes from or goes to anything but phases, or is wider
//! than a word.

use crate::scales::bits::WORD;
use ir::plan::{Interactive, Local, Step, StepOp, StepWeights, ValueId};
use ir::ring::low_mask;

/// More guard bits take nothing off that would show.
const MOST: u32 = 3;

/// Gives the phases in front of every stretch as many guard bits as it has room for. Rings are planned, tables
/// not yet chosen.
pub(super) fn add_guard_bits(steps: &mut [Step], secrets: &mut [StepWeights], output: ValueId) {
    let stretches = stretches(steps);
    let mut guards = vec![MOST; steps.len()];
    for (index, step) in steps.iter().enumerate() {
        // Whether the value may be stretched, and whether that of the operand may.
        let (is_stretched, stretches_operand) = match &step.op {
            StepOp::Input | StepOp::Local(Local::Truncate { .. }) => (false, true),
            StepOp::Interactive(Interactive::Phase(_)) => (true, true),
            StepOp::Interactive(
                Interactive::Square(_)
                | Interactive::Polynomial(_)
                | Interactive::Select(_)
                | Interactive::Table(_),
            ) => (false, false),
            StepOp::Constant | StepOp::Linear(_) | StepOp::Local(_) => (true, true),
        };
        let is_free = is_stretched && index != output.index();
        let room = if is_free { WORD.saturating_sub(step.ring) } else { 0 };
        let guard = &mut guards[stretches[index]];
        *guard = room.min(*guard);
        if !stretches_operand {
            step.operands.iter().for_each(|o| guards[stretches[o.index()]] = 0);
        }
    }
    for ((step, secrets), stretch) in steps.iter_mut().zip(secrets).zip(stretches) {
        widen(step, secrets, guards[stretch]);
    }
}

/// The stretch of every value, by the number of its first.
fn stretches(steps: &[Step]) -> Vec<usize> {
    let mut stretches: Vec<usize> = (0..steps.len()).collect();
    for (index, step) in steps.iter().enumerate().filter(|(_, step)| !step.op.is_interactive()) {
        for operand in &step.operands {
            let (a, b) = (stretches[index], stretches[operand.index()]);
            stretches.iter_mut().filter(|s| **s == a.max(b)).for_each(|s| *s = a.min(b));
        }
    }
    stretches
}

/// The same step on integers that are `2^guard` times as large.
fn widen(step: &mut Step, secrets: &mut StepWeights, guard: u32) {
    step.ring += guard;
    step.fraction_bits += guard as i32;
    match secrets {
        StepWeights::Constant(values) | StepWeights::Linear { bias: values, .. } => {
            values.iter_mut().for_each(|v| *v = *v << guard & low_mask(step.ring));
        }
        StepWeights::Phase { constant, harmonics } => {
            let factor = f64::from(guard).exp2();
            let coefficients = harmonics.iter_mut().flatten().flatten();
            constant.iter_mut().chain(coefficients).for_each(|v| *v *= factor);
        }
        StepWeights::None | StepWeights::Square { .. } | StepWeights::Polynomial { .. } => {}
    }
    if let StepOp::Interactive(Interactive::Phase(phase)) = &mut step.op {
        phase.guard = guard;
        phase.amplitude += guard;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Shape;
    use ir::plan::{Linear, Phase, Square};

    fn step(op: StepOp, operands: &[u32], ring: u32) -> Step {
        let operands = operands.iter().map(|&v| ValueId(v)).collect();
        let shape = Shape::new([1, 2]);
        Step { name: String::new(), op, operands, shape, ring, fraction_bits: 4 }
    }

    fn phase(operand: u32, ring: u32) -> Step {
        let (shift, g2, h) = (17, 7, 7);
        let phase =
            Phase { p: 6, mask_bits: 8, q: 0, shift, g2, h, guard: 0, harmonics: 1, amplitude: 8 };
        step(StepOp::Interactive(Interactive::Phase(phase)), &[operand], ring)
    }

    fn product(operand: u32, ring: u32) -> Step {
        step(StepOp::Linear(Linear::MatrixProduct { weight_bits: 8 }), &[operand], ring)
    }

    /// input → product → phase → product and a sum beside it → phase → product → square → output.
    #[test]
    fn stretches_between_phases_are_widened_as_far_as_all_their_values_allow() {
        let square = Square { t: 2, p: 9, q: 20, shift: 9 };
        let mut steps = vec![
            step(StepOp::Input, &[], 11),
            product(0, 11),
            phase(1, 14),
            product(2, 13),
            step(StepOp::Local(Local::Scale { factor: 4 }), &[2], 14),
            step(StepOp::Local(Local::Add), &[3, 4], 13),
            phase(5, 12),
            product(6, 12),
            step(StepOp::Interactive(Interactive::Square(square)), &[7], 11),
        ];
        let linear = |b| StepWeights::Linear { weights: vec![1; 4], bias: vec![b, 0] };
        let of_phase =
            || StepWeights::Phase { constant: vec![3.0], harmonics: vec![vec![[1.5, -2.0]]] };
        let mut secrets = vec![
            StepWeights::None,
            linear(5),
            of_phase(),
            linear(0x1fff),
            StepWeights::None,
            StepWeights::None,
            of_phase(),
            linear(7),
            StepWeights::Square { constant: vec![0] },
        ];
        add_guard_bits(&mut steps, &mut secrets, ValueId(8));
        let rings: Vec<u32> = steps.iter().map(|step| step.ring).collect();
        // The first stretch has the input in it, the last goes to a square; the one between has a value of
        // 14 bits.
        assert_eq!(rings, [11, 11, 16, 15, 16, 15, 12, 12, 11]);
        let guards: Vec<u32> = steps.iter().map(|step| step.op.guard()).collect();
        assert_eq!(guards, [0, 0, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(steps[3].fraction_bits, 6);
        let StepOp::Interactive(Interactive::Phase(phase)) = &steps[2].op else { unreachable!() };
        assert_eq!(phase.amplitude, 10);
        let StepWeights::Linear { bias, weights } = &secrets[3] else { unreachable!() };
        assert_eq!((bias[0], weights[0]), (0x7ffc, 1));
        let StepWeights::Phase { constant, harmonics } = &secrets[2] else { unreachable!() };
        assert_eq!((constant[0], harmonics[0][0]), (12.0, [6.0, -8.0]));
        let StepWeights::Linear { bias, .. } = &secrets[1] else { unreachable!() };
        assert_eq!(bias[0], 5);
    }
}
