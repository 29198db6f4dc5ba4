//! The scales of the tables of a phase: as small as accuracy allows.
//!
//! Party 1's cosines stand at scale `2^g2`, the public ones at `2^h`, party 0's coefficients between
//! them at `2^a`. Rounding them adds an error to that of the phase and of the truncation; every bit of
//! them widens `Q` and the plaintexts of the products. The exact evaluator says how large the error is,
//! and bits are taken off, the one that matters least first, as long as it stays a small share of what
//! is there anyway.

use super::scales::CARRY;
use ir::plan::{Phase, StepWeights, per_channel, phase_error};

/// Tables may add this share to the squared error of a phase.
const ADDED: f64 = 0.08;
/// The online phase computes in words of so many bits where `Q` has no more; tables may add twice as
/// much for that.
const WORD: u32 = 32;
/// Samples of an error.
const SAMPLES: usize = 3000;
/// Channels that are looked at.
const CHANNELS: usize = 8;
/// A ring with room for every value; the real one is planned later.
const ROOM: u32 = 40;
/// Bits of the finest tables: `a`, and `g2` and `h` beyond those of the phase.
const FINEST: (u32, u32) = (3, 3);

/// Sets `g2`, `h`, `shift` and `Q` of a phase with values in a ring of `ring` bits, whose other errors
/// have the variance `other` in units of its value.
pub(super) fn choose(phase: Phase, secrets: &StepWeights, ring: u32, other: f64) -> Phase {
    let some = some_channels(secrets);
    let with = |[a, g2, h]: [u32; 3]| {
        let shift = a + g2 + h;
        Phase { g2, h, shift, q: shift + ROOM, ..phase }
    };
    let rows =
        if let StepWeights::Phase { harmonics, .. } = &some { harmonics.len().max(1) } else { 1 };
    let error = |bits| phase_error(&with(bits), &some, SAMPLES / rows);
    let mut bits = [FINEST.0, phase.p + FINEST.1, phase.p + FINEST.1];
    let (exact, unit) = (error(bits), ADDED * (CARRY + other));
    loop {
        let fewer = (0..3).filter(|&i| bits[i] > u32::from(i > 0)).map(|i| {
            let mut next = bits;
            next[i] -= 1;
            (error(next), next)
        });
        match fewer.min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((error, next)) => {
                let is_wide = ring + bits.iter().sum::<u32>() > WORD;
                let allowed = if is_wide { 2.0 * unit } else { unit };
                if error > exact + allowed {
                    break;
                }
                bits = next;
            }
            None => break,
        }
    }
    let chosen = with(bits);
    Phase { q: chosen.shift + ring, ..chosen }
}

/// The coefficients of a few channels, evenly from the flattest to the steepest: what a plan tells does not
/// depend on their order.
fn some_channels(secrets: &StepWeights) -> StepWeights {
    let StepWeights::Phase { constant, harmonics } = secrets else { return StepWeights::None };
    let rows = constant.len().max(harmonics.len());
    let energy = |row: usize| -> f64 {
        per_channel(harmonics, row).iter().map(|[a, b]| a * a + b * b).sum()
    };
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by(|&i, &j| energy(i).total_cmp(&energy(j)));
    let count = rows.clamp(1, CHANNELS);
    let chosen = || (0..count).map(|i| order[i * rows / count]);
    StepWeights::Phase {
        constant: chosen().map(|row| *per_channel(constant, row)).collect(),
        harmonics: chosen().map(|row| per_channel(harmonics, row).clone()).collect(),
    }
}
