//! `z = c₀ + Σ a_n cos(nθ) + b_n sin(nθ)` with `θ = 2π·y/2^k`: the ring is the circle. The protocol stands in the
//! runtime's `steps::phase`.

mod exact;

pub use exact::{PhaseTables, phase_error};

use super::{Exact, Field, Protocol, Step, Trip, err, widest};
use crate::plan::formula::{phase_angle, phase_centre, value_centre};
use crate::plan::preprocess::{Cost, Method, PhaseProducts};
use crate::plan::{RingLwe, StepWeights};
use serde::{Deserialize, Serialize};

/// Parameters of a phase step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Bits of the phase in party 0's opening.
    pub p: u32,
    /// Bits of the phase `M` of party 1's mask, at least `p`: see [`Phase::spare_bits`].
    pub mask_bits: u32,
    /// Ring width `Q` of the shares before truncation: `k' + shift`, at most 64.
    pub q: u32,
    /// Bits that the local truncation drops: `t₂`.
    pub shift: u32,
    /// Scale of party 1's cosines: `2^g2`.
    pub g2: u32,
    /// Scale of the public cosines: `2^h`.
    pub h: u32,
    /// The low bits of the value that party 0 alone keeps of its share: party 1's masks and responses have
    /// none of them.
    pub guard: u32,
    /// Number of harmonics.
    pub harmonics: u32,
    /// The amplitude `√(a_n² + b_n²)` of every harmonic is at most `2^amplitude` units of the step's value.
    pub amplitude: u32,
}

/// The most bits of a phase.
pub const MOST_PHASE_BITS: u32 = 14;

impl Phase {
    /// Bits by which party 1's phase is finer than party 0's opening. Without any, the phase that is
    /// evaluated is the operand's, rounded up or down to one of `2^p` steps: an error of variance 1/6 of a
    /// step squared. With `b`, party 0's part of it alone falls on steps, and the error's variance is
    /// `(1 + 4^−b)/12`: the mask is a subtractive dither (Roberts 1962; Schuchman 1964).
    pub fn spare_bits(&self) -> u32 {
        self.mask_bits - self.p
    }

    /// What party 0 adds to its phase so that the error has mean zero, in steps of `2^−p` turns: half of
    /// what the opening leaves out, less half of what party 1's phase does.
    pub fn centre(&self) -> f64 {
        phase_centre(self.spare_bits())
    }

    /// What party 0 adds to the value so that its error has mean zero, in units of it: party 1's share is
    /// rounded up to multiples of `2^guard`, party 0's down to units, together half the difference too much.
    pub fn value_centre(&self) -> f64 {
        value_centre(self.guard)
    }

    /// The angle of one of the `2^mask_bits` phases that may be evaluated.
    pub fn angle(&self, index: u64) -> f64 {
        phase_angle(index, self.p, self.spare_bits())
    }
}

impl Protocol for Phase {
    fn name(&self) -> &'static str {
        "phase"
    }

    fn parameters(&self) -> String {
        format!(
            "p {} mask {} t {} Q {} guard {} harmonics {} amplitude {}",
            self.p, self.mask_bits, self.shift, self.q, self.guard, self.harmonics, self.amplitude
        )
    }

    fn operand_bits(&self) -> u32 {
        self.mask_bits
    }

    fn check_rings(&self, k: u32, operands: &[&Step]) -> Result<(), String> {
        let sound = (2..=MOST_PHASE_BITS).contains(&self.p)
            && (1..=16).contains(&self.harmonics)
            && (self.p..=MOST_PHASE_BITS).contains(&self.mask_bits)
            && self.g2 <= 24
            && self.h <= 24
            && self.g2 + self.h <= self.shift
            && self.shift < self.q
            && self.guard < k.min(16)
            && self.guard <= self.shift
            && self.amplitude <= 62
            && self.q <= 64
            && self.q - self.shift == k;
        if !sound {
            return err("p, the mask's bits, Q, t₂, g2, h, guard and amplitude do not fit");
        }
        widest(operands, self.mask_bits)
    }

    fn guard(&self) -> u32 {
        self.guard
    }

    fn trips(&self, step: &Step) -> Vec<Trip> {
        let elements = step.shape.elements();
        let opening = Field { elements, bits: self.p };
        vec![Trip { opening, response: Field { elements, bits: step.ring - self.guard } }]
    }

    /// Shares of `G_1, H_1, G_2, …`.
    fn correlation(&self, step: &Step) -> [Vec<Field>; 2] {
        let elements = 2 * self.harmonics as usize * step.shape.elements();
        [(); 2].map(|()| vec![Field { elements, bits: self.q }])
    }

    /// With one harmonic they fill the slots of a ciphertext.
    fn elements_at_once(&self) -> usize {
        1 << 15
    }

    fn exchanges(&self, _: &Step, count: usize, sets: &[RingLwe]) -> Vec<(Method, Cost)> {
        let products = PhaseProducts::cheapest(self, count, sets);
        let cost = products.cost(self, count);
        vec![match products {
            PhaseProducts::Trees => (Method::Trees, cost),
            PhaseProducts::Slots(packing) => (Method::Slots(packing), cost),
        }]
    }

    fn encryption(&self, count: usize) -> Vec<RingLwe> {
        PhaseProducts::best_set(self, count).into_iter().collect()
    }

    fn online_work(&self) -> u32 {
        self.harmonics
    }

    fn fits(&self, step: &Step, secrets: &StepWeights) -> bool {
        let StepWeights::Phase { constant, harmonics } = secrets else { return false };
        let rows = |n: usize| n == 1 || n == step.shape.channels();
        let most = f64::from(self.amplitude).exp2();
        rows(constant.len())
            && rows(harmonics.len())
            && constant.iter().all(|c| c.is_finite())
            && harmonics.iter().all(|h| {
                h.len() == self.harmonics as usize && h.iter().all(|[a, b]| a.hypot(*b) <= most)
            })
    }

    fn exact<'a>(
        &'a self,
        step: &'a Step,
        rings: &[u32],
        secrets: &'a StepWeights,
    ) -> Box<dyn Exact + 'a> {
        Box::new(exact::ExactPhase::new(self, step, rings[0], secrets))
    }
}
