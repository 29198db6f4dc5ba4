//! `z = c₀ + Σ a_n cos(nθ) + b_n sin(nθ)` with `θ = 2π·y/2^k`: the ring is the circle.
//!
//! *Offline.* `M` is the phase of party 1's mask, its top `mask_bits` bits, at least `p`; `u` is party 0's,
//! uniform, of `p` bits. With `x₀ = u − M` as angles, the parties share mod 2^Q `G_n = a_n cos nx₀ + b_n sin nx₀` and
//! `H_n = b_n cos nx₀ − a_n sin nx₀`, by the addition theorem four products of a factor of party 0
//! (`α_n = a_n cos nu + b_n sin nu`, `β_n = a_n sin nu − b_n cos nu`) and one of party 1 (`cos nM`,
//! `sin nM`).
//!
//! *Online.* `D` is the top `p` bits of `Δ`; party 0 sends `e = D − u mod 2^p`. Both compute
//! `Σ cos(ne)·G_n + sin(ne)·H_n` on their shares. What is evaluated is the phase `e + u − M = D − M`.
//! With as many bits in `M` as in `D` that is `⌊(y + m mod 2^(k−p)) / 2^(k−p)⌋ mod 2^p`: `y` rounded down or
//! up, without bias, because the low bits of the mask are uniform. With more it is `y` less what `D` left
//! out of `Δ`, which is uniform and, but for what `M` left out, all the error; party 0 adds its mean to `u`
//! ([`Phase::centre`]), that is, to the angle of its factors.
//!
//! *Scales.* `α, β` have scale `2^(shift−g2−h)`, `cos nM` has `2^g2`, `cos ne` has `2^h`; the sum has
//! `2^shift` per unit of the step's value, and the truncation drops `shift` bits. Cost: `p` bits to
//! party 1, `k' − guard` bits back, per element.
//!
//! *Guard bits.* Party 1 cuts its share `guard` bits higher, to multiples of `2^guard`, and its masks are such;
//! party 0 cuts its own at `shift`. The value is then off by what party 1's share loses alone, uniform in
//! `2^guard` units, where cutting both alike would make an error of two of them; its mean is taken off `c₀`
//! ([`Phase::value_centre`]). The low bits that party 0 holds come from its own share: it learns nothing.

mod ideal;
pub(super) mod online;
mod record;
pub mod slots;
mod tables;
pub mod trees;

pub use ideal::{deal, products};
pub use online::{Opening, Responding};
pub use record::{Record0, Record1};
pub use tables::{TableDigest, Tables};

use ir::plan::Phase;
use ir::ring::low_mask;
use ir::word::Word;
use std::f64::consts::TAU;

/// `D`: the phase of one party's side of a value of `ring` bits.
#[inline(always)]
pub fn phase_of<W: Word>(side: W, ring: u32, p: u32) -> W {
    side.and(W::low(low_mask(ring))).shift_right(ring - p)
}

/// `c₀` of every channel (units of the step's value), centred, at the scale before the truncation, mod 2^64.
pub fn constants(phase: &Phase, constant: &[f64]) -> Vec<u64> {
    let scale = f64::from(phase.shift).exp2();
    let centre = phase.value_centre();
    constant.iter().map(|c| ((c + centre) * scale).round() as i64 as u64).collect()
}

/// Party 0's factors `α_n`, `β_n` of the products, at scale `2^(shift−g2−h)`.
pub struct Factors {
    /// Sine and cosine of every harmonic at every `u`, harmonic by harmonic.
    angles: Vec<(f64, f64)>,
    scale: f64,
    p: u32,
}

impl Factors {
    /// The sines and cosines of a step's phases.
    pub fn new(phase: &Phase) -> Self {
        let step = TAU / f64::from(phase.p).exp2();
        let angle = |n: u32, u: u64| step * f64::from(n) * (u as f64 + phase.centre());
        let of_harmonic = |n| (0..1u64 << phase.p).map(move |u| angle(n, u).sin_cos());
        Self {
            angles: (1..=phase.harmonics).flat_map(of_harmonic).collect(),
            scale: f64::from(phase.shift - phase.g2 - phase.h).exp2(),
            p: phase.p,
        }
    }

    /// `[α_n, β_n]` for every harmonic's coefficients `[a_n, b_n]`, from n = 1 on.
    pub fn of(&self, coefficients: &[[f64; 2]], u: u64) -> impl Iterator<Item = [i64; 2]> {
        let of_u = self.angles[u as usize..].iter().step_by(1 << self.p);
        coefficients.iter().zip(of_u).map(move |([a, b], (sin_u, cos_u))| {
            let alpha = ((a * cos_u + b * sin_u) * self.scale).round() as i64;
            let beta = ((a * sin_u - b * cos_u) * self.scale).round() as i64;
            [alpha, beta]
        })
    }
}
