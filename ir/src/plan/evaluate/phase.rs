//! Phases: their values, and what the protocol makes of them.

use super::super::{Phase, StepWeights};
use super::coins::Coins;
use super::{Rounding, per_channel};
use crate::ring::{low_mask, to_signed};
use std::f64::consts::TAU;

/// Cosines and sines of the `2^p` phases at a power-of-two scale.
pub struct PhaseTables {
    /// `round(cos(2πn·i/2^p)·2^bits)` for harmonic n − 1 and phase i.
    pub cos: Vec<Vec<i64>>,
    /// Likewise for the sine.
    pub sin: Vec<Vec<i64>>,
}

impl PhaseTables {
    /// Tables for `harmonics` harmonics of `p`-bit phases at scale `2^bits`.
    pub fn new(p: u32, harmonics: u32, bits: u32) -> Self {
        let scale = f64::from(bits).exp2();
        let table = |f: fn(f64) -> f64| {
            (1..=u64::from(harmonics))
                .map(|n| {
                    (0..1u64 << p)
                        .map(|i| {
                            let phase = (n * i) & low_mask(p);
                            (f(TAU * phase as f64 / f64::from(p).exp2()) * scale).round() as i64
                        })
                        .collect()
                })
                .collect()
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }
}

/// The values of every phase: `round(c0 + Σ a_n cos + b_n sin) mod 2^k'`.
pub(super) fn phase_row(
    phase: &Phase,
    ring: u32,
    constant: &[f64],
    harmonics: &[Vec<[f64; 2]>],
    channel: usize,
) -> Vec<u64> {
    let steps = f64::from(phase.p).exp2();
    (0..1u64 << phase.p)
        .map(|i| {
            let theta = TAU * i as f64 / steps;
            let terms = per_channel(harmonics, channel).iter().enumerate().map(|(n, [a, b])| {
                let (sin, cos) = (theta * (n + 1) as f64).sin_cos();
                a * cos + b * sin
            });
            let value = *per_channel(constant, channel) + terms.sum::<f64>();
            (value.round() as i64 as u64) & low_mask(ring)
        })
        .collect()
}

/// The phase that is evaluated: the top `p` bits of `y` plus what the dropped bits carry.
pub(super) fn phase_index(y: u64, k: u32, p: u32, coins: &mut Coins) -> u64 {
    let dropped = k - p;
    let low = if dropped == 0 { 0 } else { coins.low(dropped) };
    (y.wrapping_add(low) & low_mask(k)) >> dropped
}

/// What the protocol computes of phases, rounded tables and truncation included.
pub(super) struct SampledPhase {
    phase: Phase,
    /// Party 1's cosines and sines at scale `2^g2`, the public ones at `2^h`: per harmonic and phase.
    party1: Vec<Vec<(i64, i64)>>,
    public: Vec<Vec<(i64, i64)>>,
    /// `c0` before the truncation, per channel or one for all.
    constant: Vec<i64>,
    /// `α` and `β` per channel (or one for all), harmonic and party 0's mask.
    factors: Vec<Vec<Vec<(i64, i64)>>>,
}

impl SampledPhase {
    pub fn new(phase: &Phase, secrets: &StepWeights) -> Self {
        let StepWeights::Phase { constant, harmonics } = secrets else {
            unreachable!("checked at load")
        };
        let steps = 1u64 << phase.p;
        let turn = |n: usize, i: u64| {
            let turned = ((n as u64 + 1) * i) & low_mask(phase.p);
            (TAU * turned as f64 / steps as f64).sin_cos()
        };
        let table = |bits: u32| {
            let scale = f64::from(bits).exp2();
            let at = |n: usize, i: u64| {
                let (sin, cos) = turn(n, i);
                ((cos * scale).round() as i64, (sin * scale).round() as i64)
            };
            let orders = 0..phase.harmonics as usize;
            orders.map(|n| (0..steps).map(|i| at(n, i)).collect()).collect()
        };
        let scale = f64::from(phase.shift - phase.g2 - phase.h).exp2();
        let factors = |n: usize, [a, b]: [f64; 2]| {
            (0..steps)
                .map(|u| {
                    let (sin, cos) = turn(n, u);
                    let round = |v: f64| (v * scale).round() as i64;
                    (round(a * cos + b * sin), round(a * sin - b * cos))
                })
                .collect()
        };
        let row = |row: &Vec<[f64; 2]>| {
            row.iter().enumerate().map(|(n, pair)| factors(n, *pair)).collect()
        };
        let constant_scale = f64::from(phase.shift).exp2();
        Self {
            phase: *phase,
            party1: table(phase.g2),
            public: table(phase.h),
            constant: constant.iter().map(|c| (c * constant_scale).round() as i64).collect(),
            factors: harmonics.iter().map(row).collect(),
        }
    }

    pub fn value(&self, channel: usize, index: u64, coins: &mut Coins) -> u64 {
        let wrap = low_mask(self.phase.p);
        let (u, mask) = ((coins.draw() & wrap) as usize, (coins.draw() & wrap) as usize);
        let e = (index.wrapping_sub(u as u64).wrapping_add(mask as u64) & wrap) as usize;
        let mut z = *per_channel(&self.constant, channel);
        let orders = per_channel(&self.factors, channel).iter();
        for (factors, (party1, public)) in orders.zip(self.party1.iter().zip(&self.public)) {
            let ((alpha, beta), (c, s), (cos, sin)) = (factors[u], party1[mask], public[e]);
            let direct = alpha.wrapping_mul(c).wrapping_add(beta.wrapping_mul(s));
            let turned = alpha.wrapping_mul(s).wrapping_sub(beta.wrapping_mul(c));
            z = z.wrapping_add(cos.wrapping_mul(direct)).wrapping_add(sin.wrapping_mul(turned));
        }
        (z.wrapping_add(coins.low(self.phase.shift) as i64) >> self.phase.shift) as u64
    }
}

/// The mean squared error, in units of the value, of what the protocol computes of a phase that is
/// known exactly: that of its tables and of its truncation, which alone makes one of 1/6. Over
/// `samples` phases and masks of every channel.
///
/// # Panics
/// If `secrets` are not those of a phase.
pub fn phase_error(phase: &Phase, secrets: &StepWeights, samples: usize) -> f64 {
    let StepWeights::Phase { constant, harmonics } = secrets else {
        unreachable!("checked by the caller")
    };
    let sampled = SampledPhase::new(phase, secrets);
    let mut coins = Coins::new(Rounding::Sampled(0));
    let channels = constant.len().max(harmonics.len());
    let (ring, turn) = (phase.q - phase.shift, f64::from(phase.p).exp2());
    let mut sum = 0.0;
    for sample in 0..samples * channels {
        let channel = sample % channels;
        let index = coins.draw() & low_mask(phase.p);
        let theta = TAU * index as f64 / turn;
        let terms = per_channel(harmonics, channel).iter().enumerate().map(|(n, [a, b])| {
            let (sin, cos) = (theta * (n + 1) as f64).sin_cos();
            a * cos + b * sin
        });
        let exact = per_channel(constant, channel) + terms.sum::<f64>();
        let value = sampled.value(channel, index, &mut coins) & low_mask(ring);
        sum += (to_signed(value, ring) as f64 - exact).powi(2);
    }
    sum / (samples * channels).max(1) as f64
}
