//! Guard bits: where rings are narrower than the words that they are computed in anyway, party 0 keeps what
//! its own share has below a unit.
//!
//! Party 1's answer to a phase cuts its share to units of the value. Party 0 cuts its own as well only because
//! its ring ends there. In a ring that is `g` bits wider, all integers times `2^g`, it need not: half of the
//! error is gone, and no message is longer, since party 1's masks and answers have no bits there.
//!
//! Rings are widened by *stretches*: values that linear steps connect, secret ones included, so that no weight
//! changes. A stretch is left alone if a value in it comes from or goes to anything but phases, or is wider
//! than a word.

use super::bits::WORD;
use ir::plan::{Step, StepOp, StepWeights, ValueId};
use ir::ring::low_mask;

/// More guard bits take nothing off that would show.
const MOST: u32 = 3;

/// Gives the phases in front of every stretch as many guard bits as it has room for. Rings are planned, tables
/// not yet chosen.
pub(super) fn add_guard_bits(steps: &mut [Step], secrets: &mut [StepWeights], output: ValueId) {
    let stretches = stretches(steps);
    let mut guards = vec![MOST; steps.len()];
    for (index, step) in steps.iter().enumerate() {
        let room = match step.op {
            StepOp::Input
            | StepOp::Square(_)
            | StepOp::Polynomial { .. }
            | StepOp::Rescale { .. } => 0,
            _ if index == output.index() => 0,
            _ => WORD.saturating_sub(step.ring),
        };
        let guard = &mut guards[stretches[index]];
        *guard = room.min(*guard);
        if let StepOp::Square(_) | StepOp::Polynomial { .. } = step.op {
            guards[stretches[step.operands[0].index()]] = 0;
        }
    }
    for ((step, secrets), stretch) in steps.iter_mut().zip(secrets).zip(stretches) {
        widen(step, secrets, guards[stretch]);
    }
}

/// The stretch of every value, by the number of its first.
fn stretches(steps: &[Step]) -> Vec<usize> {
    let mut stretches: Vec<usize> = (0..steps.len()).collect();
    for (index, step) in steps.iter().enumerate().filter(|(_, step)| !step.op.is_activation()) {
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
        _ => {}
    }
    if let StepOp::Phase(phase) = &mut step.op {
        phase.guard = guard;
        phase.amplitude += guard;
    }
}
