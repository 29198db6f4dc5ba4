//! The scales of the tables of a phase: as small as accuracy allows.
//!
//! Party 1's cosines stand at scale `2^g2`, the public ones at `2^h`, party 0's coefficients between
//! them at `2^a`. Rounding them adds an error to that of the phase and of the truncation; every bit of
//! them widens `Q` and the plaintexts of the products. The exact evaluator says how large the error is,
//! and bits are taken off, the one that matters least first, as long as it stays a small share of what
//! is there anyway.

use crate::scales::bits::CARRY;
use ir::op::mean_square_slope;
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

/// Sets `g2`, `h`, `shift` and `Q` of a phase with values in a ring of `ring` bits, whose angle is known to a
/// variance of `turns` squared turns. `is_fine`: as fine as a word holds.
pub(super) fn choose(
    phase: Phase,
    secrets: &StepWeights,
    ring: u32,
    turns: f64,
    is_fine: bool,
) -> Phase {
    let with = |[a, g2, h]: [u32; 3]| {
        let shift = a + g2 + h;
        Phase { g2, h, shift, q: shift + ROOM, ..phase }
    };
    // Every channel with the error that it has anyway: large coefficients have large errors of both kinds.
    let own = |row: StepWeights| (CARRY + turns * slope(&row), row);
    let rows: Vec<(f64, StepWeights)> = some_channels(secrets).into_iter().map(own).collect();
    let error = |bits| -> f64 {
        let samples = SAMPLES / rows.len();
        let of_row = |(own, row): &(f64, StepWeights)| phase_error(&with(bits), row, samples) / own;
        rows.iter().map(of_row).sum::<f64>() / rows.len() as f64
    };
    let mut bits = [FINEST.0, phase.mask_bits + FINEST.1, phase.p + FINEST.1];
    let exact = error(bits);
    loop {
        let fewer = (0..3).filter(|&i| bits[i] > u32::from(i > 0)).map(|i| {
            let mut next = bits;
            next[i] -= 1;
            (error(next), next)
        });
        match fewer.min_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((error, next)) => {
                let is_wide = ring + bits.iter().sum::<u32>() > WORD;
                let allowed = if is_wide { 2.0 * ADDED } else { ADDED };
                if error > exact + allowed || is_fine && !is_wide {
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

fn slope(secrets: &StepWeights) -> f64 {
    let StepWeights::Phase { harmonics, .. } = secrets else { return 0.0 };
    mean_square_slope(harmonics)
}

/// The coefficients of a few channels, one each, evenly from the flattest to the steepest: what a plan
/// tells does not depend on their order.
fn some_channels(secrets: &StepWeights) -> Vec<StepWeights> {
    let StepWeights::Phase { constant, harmonics } = secrets else { return vec![] };
    let rows = constant.len().max(harmonics.len());
    let energy = |row: usize| -> f64 {
        per_channel(harmonics, row).iter().map(|[a, b]| a * a + b * b).sum()
    };
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by(|&i, &j| energy(i).total_cmp(&energy(j)));
    let count = rows.min(CHANNELS);
    let chosen =
        (0..count).map(|i| order[if count > 1 { i * (rows - 1) / (count - 1) } else { 0 }]);
    chosen
        .map(|row| StepWeights::Phase {
            constant: vec![*per_channel(constant, row)],
            harmonics: vec![per_channel(harmonics, row).clone()],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One channel that is much steeper than the others does not cost them their tables.
    #[test]
    fn every_channel_has_tables_that_are_good_enough() {
        let p = 8;
        let row = |amplitude: f64| vec![[amplitude, 0.3 * amplitude], [0.2 * amplitude, 0.0]];
        let step = |steep: f64| {
            let mut harmonics: Vec<_> = (0..40).map(|i| row(20.0 + f64::from(i))).collect();
            harmonics.push(row(steep));
            StepWeights::Phase { constant: vec![0.0; 41], harmonics }
        };
        let phase = Phase {
            p,
            mask_bits: p,
            q: 0,
            shift: 0,
            g2: 0,
            h: 0,
            guard: 0,
            harmonics: 2,
            amplitude: 12,
        };
        let turns = (-2.0 * f64::from(p)).exp2() / 3.0;
        let chosen = |steep: f64| choose(phase, &step(steep), 16, turns, false);
        let (even, uneven) = (chosen(50.0), chosen(2000.0));
        assert_eq!(even.q, even.shift + 16);
        assert!(even.q <= WORD, "{even:?}");
        assert!(uneven.shift + 2 >= even.shift, "{even:?} {uneven:?}");
        // The usual channels' error stays near the one that they have with exact tables.
        let StepWeights::Phase { mut constant, mut harmonics } = step(2000.0) else {
            unreachable!()
        };
        constant.pop();
        harmonics.pop();
        let usual = StepWeights::Phase { constant, harmonics };
        let own = CARRY + slope(&usual) * turns;
        let error = phase_error(&Phase { q: uneven.shift + ROOM, ..uneven }, &usual, 500);
        assert!(error < CARRY + 0.5 * own, "{error} of {own}: {uneven:?}");
    }
}
