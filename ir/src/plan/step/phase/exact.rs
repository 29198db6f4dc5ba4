//! Phases: their exact values, and the values that the protocol computes.

use super::Phase;
use crate::plan::StepWeights;
use crate::plan::evaluate::{Coins, Rounding, evaluated_index, per_channel};
use crate::plan::formula::{trigonometric, truncated};
use crate::plan::step::{Exact, Step};
use crate::ring::{low_mask, to_signed};
use crate::tensor::Tensor;
use std::f64::consts::TAU;
use std::sync::OnceLock;

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

/// The exact meaning of a phase step.
pub(super) struct ExactPhase<'a> {
    phase: &'a Phase,
    step: &'a Step,
    /// Bits of the operand.
    ring: u32,
    secrets: &'a StepWeights,
    /// The value of every phase, a row per channel or one for all.
    rows: Vec<Vec<u64>>,
    /// The protocol's tables, made when carries are first drawn.
    sampled: OnceLock<SampledPhase>,
}

impl<'a> ExactPhase<'a> {
    pub fn new(phase: &'a Phase, step: &'a Step, ring: u32, secrets: &'a StepWeights) -> Self {
        let StepWeights::Phase { constant, harmonics } = secrets else {
            unreachable!("checked at load")
        };
        let rows = (0..constant.len().max(harmonics.len()))
            .map(|row| phase_row(phase, step.ring, constant, harmonics, row));
        Self { phase, step, ring, secrets, rows: rows.collect(), sampled: OnceLock::new() }
    }
}

impl Exact for ExactPhase<'_> {
    fn value(&self, operands: &[&Tensor<u64>], coins: &mut Coins) -> Tensor<u64> {
        let (y, shape, mask) = (operands[0], &self.step.shape, low_mask(self.step.ring));
        let make = || SampledPhase::new(self.phase, self.secrets);
        let sampled = coins.sampled().then(|| self.sampled.get_or_init(make));
        let mut data = Vec::with_capacity(y.data.len());
        for (block, run) in y.data.chunks_exact(shape.channel_stride()).enumerate() {
            let channel = block % shape.channels();
            let row = per_channel(&self.rows, channel);
            data.extend(run.iter().map(|&y| {
                let bits = (self.phase.p, self.phase.spare_bits());
                let index = evaluated_index(y, self.ring, bits, coins);
                match sampled {
                    Some(sampled) => sampled.value(channel, index, coins) & mask,
                    None => row[index as usize],
                }
            }));
        }
        Tensor::new(shape.clone(), data)
    }
}

/// The values of every phase: `round(c0 + Σ a_n cos + b_n sin) mod 2^k'`.
fn phase_row(
    phase: &Phase,
    ring: u32,
    constant: &[f64],
    harmonics: &[Vec<[f64; 2]>],
    channel: usize,
) -> Vec<u64> {
    (0..1u64 << phase.mask_bits)
        .map(|i| {
            let (constant, harmonics) =
                (*per_channel(constant, channel), per_channel(harmonics, channel));
            let value = trigonometric(constant, harmonics, phase.angle(i));
            (value.round() as i64 as u64) & low_mask(ring)
        })
        .collect()
}

/// What the protocol computes of phases, rounded tables and truncation included.
struct SampledPhase {
    phase: Phase,
    /// Party 1's cosines and sines at scale `2^g2`, per harmonic and phase of its mask; the public ones
    /// at `2^h`, per harmonic and opening.
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
        let table = |bits: u32, scale: u32| {
            let PhaseTables { cos, sin } = PhaseTables::new(bits, phase.harmonics, scale);
            let pairs = |(cos, sin): (Vec<i64>, Vec<i64>)| cos.into_iter().zip(sin).collect();
            cos.into_iter().zip(sin).map(pairs).collect()
        };
        let turn = f64::from(phase.p).exp2();
        let scale = f64::from(phase.shift - phase.g2 - phase.h).exp2();
        let factors = |n: usize, [a, b]: [f64; 2]| {
            (0..1u64 << phase.p)
                .map(|u| {
                    let angle = TAU * (n as f64 + 1.0) * (u as f64 + phase.centre()) / turn;
                    let (sin, cos) = angle.sin_cos();
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
            party1: table(phase.mask_bits, phase.g2),
            public: table(phase.p, phase.h),
            constant: constant
                .iter()
                .map(|c| ((c + phase.value_centre()) * constant_scale).round() as i64)
                .collect(),
            factors: harmonics.iter().map(row).collect(),
        }
    }

    pub fn value(&self, channel: usize, index: u64, coins: &mut Coins) -> u64 {
        let (wrap, spare) = (low_mask(self.phase.p), self.phase.spare_bits());
        let (u, drawn) = ((coins.draw() & wrap) as usize, coins.draw() & wrap);
        // The opening has none of the spare bits.
        let mask = (drawn << spare) | (index.wrapping_neg() & low_mask(spare));
        let sum = index.wrapping_add(mask) & low_mask(self.phase.mask_bits);
        let e = ((sum >> spare).wrapping_sub(u as u64) & wrap) as usize;
        let mask = mask as usize;
        let mut z = *per_channel(&self.constant, channel);
        let orders = per_channel(&self.factors, channel).iter();
        for (factors, (party1, public)) in orders.zip(self.party1.iter().zip(&self.public)) {
            let ((alpha, beta), (c, s), (cos, sin)) = (factors[u], party1[mask], public[e]);
            let direct = alpha.wrapping_mul(c).wrapping_add(beta.wrapping_mul(s));
            let turned = alpha.wrapping_mul(s).wrapping_sub(beta.wrapping_mul(c));
            z = z.wrapping_add(cos.wrapping_mul(direct)).wrapping_add(sin.wrapping_mul(turned));
        }
        let low = coins.low(self.phase.shift + self.phase.guard);
        truncated(z, low as i64, self.phase.shift) as u64
    }
}

/// The mean squared error, in units of the value, of what the protocol computes for a phase that is known exactly:
/// the error of the tables and that of the truncation, which alone is 1/6, or `(4^guard + 1)/12`. Over `samples`
/// phases and masks of every channel.
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
    let ring = phase.q - phase.shift;
    let mut sum = 0.0;
    for sample in 0..samples * channels {
        let channel = sample % channels;
        let index = coins.draw() & low_mask(phase.mask_bits);
        let (constant, harmonics) =
            (*per_channel(constant, channel), per_channel(harmonics, channel));
        let exact = trigonometric(constant, harmonics, phase.angle(index));
        let value = sampled.value(channel, index, &mut coins) & low_mask(ring);
        sum += (to_signed(value, ring) as f64 - exact).powi(2);
    }
    sum / (samples * channels).max(1) as f64
}
