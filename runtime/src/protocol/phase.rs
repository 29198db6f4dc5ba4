//! `z = c₀ + Σ a_n cos(nθ) + b_n sin(nθ)` with `θ = 2π·y/2^k`: the ring is the circle.
//!
//! *Offline.* `M` is the top `p` bits of party 1's mask, `u` is uniform of `p` bits and party 0's. With
//! `x₀ = u − M`, the parties share mod 2^Q `G_n = a_n cos nx₀ + b_n sin nx₀` and
//! `H_n = b_n cos nx₀ − a_n sin nx₀`, by the addition theorem four products of a factor of party 0
//! (`α_n = a_n cos nu + b_n sin nu`, `β_n = a_n sin nu − b_n cos nu`) and one of party 1 (`cos nM`,
//! `sin nM`).
//!
//! *Online.* `D` is the top `p` bits of `Δ`; party 0 sends `e = D − u mod 2^p`. Both compute
//! `Σ cos(ne)·G_n + sin(ne)·H_n` on their shares. What is evaluated is the phase `e + u − M = D − M`,
//! which is `⌊(y + m mod 2^(k−p)) / 2^(k−p)⌋ mod 2^p`: `y` rounded down or up, without bias, because
//! the low bits of the mask are uniform. Half a step added to `Δ` would add half a step of bias.
//!
//! *Scales.* `α, β` have scale `2^(shift−g2−h)`, `cos nM` has `2^g2`, `cos ne` has `2^h`; the sum has
//! `2^shift` per unit of the step's value, and the truncation drops `shift` bits. Cost: `p` bits to
//! party 1, `k'` bits back, per element.

use super::{row, truncate};
use crate::secret::Elements;
use ir::plan::{Phase, PhaseTables, Step};
use ir::ring::low_mask;
use std::f64::consts::TAU;
use zeroize::Zeroizing;

/// Party 0's one-time material of a phase step.
pub struct PhaseCorrelation {
    /// `u`, one per element, `p` bits.
    pub u: Elements,
    /// Its shares of `G_1, H_1, G_2, …` per element, mod 2^Q.
    pub products: Elements,
}

/// Party 1's one-time shares of `G_1, H_1, G_2, …` per element, mod 2^Q.
pub struct PhaseShares(pub Elements);

/// `D`: the phase of one party's side of a value of `ring` bits.
pub fn phase_of(side: u64, ring: u32, p: u32) -> u64 {
    (side & low_mask(ring)) >> (ring - p)
}

/// Party 0's question for the masked values `delta` of `ring` bits: `e`, one word per element.
pub fn question(
    phase: &Phase,
    ring: u32,
    delta: &[u64],
    correlation: &PhaseCorrelation,
) -> Vec<u64> {
    let wrap = low_mask(phase.p);
    let ask = |(&d, &u): (&u64, &u64)| phase_of(d, ring, phase.p).wrapping_sub(u) & wrap;
    delta.iter().zip(correlation.u.iter()).map(ask).collect()
}

/// Party 0's truncated share, `c₀` of `constant` (units of the step's value) added.
pub fn party0_share(
    phase: &Phase,
    step: &Step,
    constant: &[f64],
    tables: &PhaseTables,
    question: &[u64],
    correlation: PhaseCorrelation,
) -> Vec<u64> {
    let scale = f64::from(phase.shift).exp2();
    let constant: Vec<u64> = constant.iter().map(|c| (c * scale).round() as i64 as u64).collect();
    let products = correlation.products.chunks_exact(2 * phase.harmonics as usize);
    let shares = question.iter().zip(products).enumerate().map(|(i, (&e, products))| {
        let z = evaluate(tables, e, products).wrapping_add(*row(&constant, step, i));
        truncate::party0(z, phase.q, phase.shift)
    });
    shares.collect()
}

/// Party 1's truncated share.
pub fn party1_share(
    phase: &Phase,
    tables: &PhaseTables,
    question: &[u64],
    shares: PhaseShares,
) -> Elements {
    let products = shares.0.chunks_exact(2 * phase.harmonics as usize);
    let shares = question.iter().zip(products).map(|(&e, products)| {
        truncate::party1(evaluate(tables, e, products), phase.q, phase.shift)
    });
    Zeroizing::new(shares.collect())
}

/// `Σ cos(ne)·G_n + sin(ne)·H_n` on one party's shares; the tables are looked up by the public `e`.
fn evaluate(tables: &PhaseTables, e: u64, products: &[u64]) -> u64 {
    let harmonics = tables.cos.iter().zip(&tables.sin).zip(products.chunks_exact(2));
    harmonics.fold(0u64, |z, ((cos, sin), pair)| {
        z.wrapping_add((cos[e as usize] as u64).wrapping_mul(pair[0]))
            .wrapping_add((sin[e as usize] as u64).wrapping_mul(pair[1]))
    })
}

/// The ideal functionality: `G_1, H_1, G_2, …` per element, mod 2^64, for the operand's masks `m` of
/// `ring` bits and party 0's `u`.
pub fn products(
    phase: &Phase,
    step: &Step,
    harmonics: &[Vec<[f64; 2]>],
    ring: u32,
    m: &[u64],
    u: &[u64],
) -> Elements {
    let tables = PhaseTables::new(phase.p, phase.harmonics, phase.g2);
    let factors = Factors::new(phase);
    let mut products = Zeroizing::new(Vec::with_capacity(2 * harmonics[0].len() * m.len()));
    for (i, (&m, &u)) in m.iter().zip(u).enumerate() {
        let mask_phase = phase_of(m, ring, phase.p) as usize;
        for (n, [alpha, beta]) in factors.of(row::<Vec<_>>(harmonics, step, i), u).enumerate() {
            let (cos, sin) = (tables.cos[n][mask_phase], tables.sin[n][mask_phase]);
            let g = alpha.wrapping_mul(cos).wrapping_add(beta.wrapping_mul(sin));
            let h = alpha.wrapping_mul(sin).wrapping_sub(beta.wrapping_mul(cos));
            products.extend([g as u64, h as u64]);
        }
    }
    products
}

/// Party 0's factors `α_n`, `β_n` of the products, at scale `2^(shift−g2−h)`.
pub struct Factors {
    /// Sine and cosine of every phase.
    angles: Vec<(f64, f64)>,
    scale: f64,
    wrap: u64,
}

impl Factors {
    /// The sines and cosines of a step's phases.
    pub fn new(phase: &Phase) -> Self {
        let wrap = low_mask(phase.p);
        let turn = TAU / f64::from(phase.p).exp2();
        Self {
            angles: (0..=wrap).map(|i| (turn * i as f64).sin_cos()).collect(),
            scale: f64::from(phase.shift - phase.g2 - phase.h).exp2(),
            wrap,
        }
    }

    /// `[α_n, β_n]` for every harmonic's coefficients `[a_n, b_n]`, from n = 1 on.
    pub fn of(&self, coefficients: &[[f64; 2]], u: u64) -> impl Iterator<Item = [i64; 2]> {
        coefficients.iter().zip(1u64..).map(move |([a, b], n)| {
            let (sin_u, cos_u) = self.angles[((n * u) & self.wrap) as usize];
            let alpha = ((a * cos_u + b * sin_u) * self.scale).round() as i64;
            let beta = ((a * sin_u - b * cos_u) * self.scale).round() as i64;
            [alpha, beta]
        })
    }
}
