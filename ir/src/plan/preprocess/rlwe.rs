//! Parameters of the ring-LWE encryption that makes linear correlations and products of phases, with the
//! argument for each.
//!
//! Party 1 encrypts its mask `r` under its own key, plaintext modulus `2^k`; party 0 multiplies by its
//! weights, re-randomises, and sends what remains of both components in fewer bits. Notation: ring
//! `Z_q[X]/(X^N+1)`, ternary secret, errors from a centred binomial distribution of variance
//! [`ERROR_VARIANCE`], weights below `W` in magnitude of which `n` meet in one coefficient.
//!
//! *Security.* [`RingLwe::is_secure`] is the table of the security guidelines for homomorphic encryption
//! (Bossuat et al. 2024, classical, ternary secrets): at most 106, 214, 430 bits of `q` for `N` = 4096, 8192,
//! 16384 give 128 bits.
//!
//! *Noise.* A coefficient of the product carries `Σ w·e` (variance `n·W²·σ²`, encoding errors of at most
//! a half included) and, from re-randomising, `u·e' + e''·s` (variance `2·N·⅔·σ²`). Their sum is below
//! `B` = [`TAIL`] standard deviations but with probability `2·exp(−TAIL²/2)` = 2^−57.
//!
//! *Linear answers are rounded.* Party 0 rounds every wanted coefficient of the first component to `k` bits
//! and takes its share off mod `2^k`: a one-time pad, whatever key and ciphertexts were. What is left to bound is
//! that the rounding, and with it the sum of the shares, depends on the noise: it does where the coefficient lies
//! within `B` of a boundary between two steps of `q/2^k`. For a uniform second component that happens with
//! probability `2B·2^k/q`, which `q` keeps below `2^−`[`HIDING`].
//!
//! *Answers of slots are flooded.* One wrong coefficient would ruin all slots of a plaintext, so these keep bits
//! below the plaintext's: party 0 adds a uniform integer of `±2^f`, `2^f ≥ 2^40·B`, so that what party 1 sees is
//! within `B/2^(f+1) ≤ 2^−41` of a distribution that does not depend on party 0's numbers, per coefficient.
//! Decryption needs the error below half of `q/2^k`: flooding and noise take at most an eighth, so
//! `q ≥ 2^(k + 3)·(2^f + B)`. The first component keeps `j₀ = k + 1` bits, whose rounding costs a fourth.
//!
//! *The second component* keeps `j₁` bits: rounding it costs, times the secret, `√(N/18)` units of `2^−(j₁−k)`
//! steps in standard deviation, and at most an eighth of a step within [`TAIL`] deviations. For slots, flooding
//! fills a sixteenth, so that the sum stays below seven sixteenths and the noise. For linear answers it is the rate
//! at which two rounded shares are one unit off their sum: [`RingLwe::off_by_one`].

use serde::{Deserialize, Serialize};

/// Variance of an error: a centred binomial distribution of 42 coins.
pub const ERROR_VARIANCE: f64 = 10.5;
/// Statistical security of what hides the noise, in bits per coefficient.
pub const HIDING: u32 = 40;
/// Standard deviations within which a sum of errors is taken to lie.
pub const TAIL: f64 = 9.0;
/// `(log₂ N, largest log₂ q)` for 128 bits of security.
const SECURE: [(u32, u32); 3] = [(12, 106), (13, 214), (14, 430)];
/// The most bits by which a product of the largest primes of given widths is shorter than the sum of the widths.
const PRIME_LOSS: f64 = 0.1;
/// The widest prime for which the transforms run at full speed.
const MAX_PRIME_BITS: u32 = 50;
/// The narrowest prime: weights of 32 bits stay below it.
const MIN_PRIME_BITS: u32 = 33;
/// The largest number of primes.
const MAX_PRIMES: u32 = 5;

/// One set of parameters: degree `N`, and `q` as a product of the largest primes of
/// [`Self::prime_bits`] bits that are 1 mod `2N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RingLwe {
    /// `log₂ N`.
    pub log_degree: u32,
    /// Bits of each prime.
    pub prime_bits: u32,
    /// Number of primes.
    pub primes: u32,
}

/// What a product needs of the parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Ring width `k` of the result: the plaintext modulus is `2^k` at most.
    pub ring: u32,
    /// Variance of a coefficient of the product's noise, before it is re-randomised.
    pub variance: f64,
    /// What hides that noise.
    pub hiding: Hiding,
}

/// What hides the noise of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hiding {
    /// The first component is rounded to the plaintext's bits.
    Rounding,
    /// Noise that is much larger.
    Flooding,
}

/// Bytes of a seed that expands into all second components of a session.
pub const SEED_BYTES: usize = 32;

/// Bytes of party 1's public keys: the seed, and a first component for every set of parameters.
pub fn key_bytes(sets: &[RingLwe]) -> usize {
    SEED_BYTES + sets.iter().map(RingLwe::ciphertext_bytes).sum::<usize>()
}

impl Demand {
    /// Of sums of `terms` products with signed weights of `weight_bits` bits.
    pub fn linear(ring: u32, weight_bits: u32, terms: usize) -> Self {
        let weight = f64::from(weight_bits - 1).exp2();
        let variance = terms as f64 * weight * weight * (ERROR_VARIANCE + 0.25);
        Self { ring, variance, hiding: Hiding::Rounding }
    }

    /// `f`: flooding is uniform in `±2^f`.
    pub fn flooding_bits(&self, log_degree: u32) -> u32 {
        self.noise_bound(log_degree).log2().ceil() as u32 + HIDING
    }

    /// `B`: the bound of the noise.
    pub fn noise_bound(&self, log_degree: u32) -> f64 {
        let degree = f64::from(log_degree).exp2();
        let refreshed = 2.0 * degree * 2.0 / 3.0 * ERROR_VARIANCE;
        TAIL * (self.variance + refreshed).sqrt()
    }

    /// Bits that the widths of the primes must sum to.
    fn modulus_bits(&self, log_degree: u32) -> u32 {
        let exact = match self.hiding {
            Hiding::Rounding => {
                f64::from(self.ring + 1 + HIDING) + self.noise_bound(log_degree).log2()
            }
            Hiding::Flooding => f64::from(self.ring + 3 + self.flooding_bits(log_degree) + 1),
        };
        (exact + PRIME_LOSS).ceil() as u32
    }
}

impl RingLwe {
    /// The cheapest secure parameters; `None` if there are none for such wide weights.
    pub fn cheapest(demand: &Demand) -> Option<Self> {
        SECURE.iter().find_map(|s| Self::cheapest_of_degree(demand, s.0))
    }

    /// The cheapest secure parameters of every degree that has some, from the smallest on.
    pub fn of_all_degrees(demand: &Demand) -> impl Iterator<Item = Self> {
        SECURE.iter().filter_map(|s| Self::cheapest_of_degree(demand, s.0))
    }

    /// The cheapest secure parameters of one degree.
    pub fn cheapest_of_degree(demand: &Demand, log_degree: u32) -> Option<Self> {
        let bits = demand.modulus_bits(log_degree);
        let primes = bits.div_ceil(MAX_PRIME_BITS).max(2);
        let prime_bits = bits.div_ceil(primes).max(MIN_PRIME_BITS);
        let found = Self { log_degree, prime_bits, primes };
        found.is_secure().then_some(found)
    }

    /// `N`.
    pub fn degree(&self) -> usize {
        1 << self.log_degree
    }

    /// An upper bound of `log₂ q`.
    pub fn modulus_bits(&self) -> u32 {
        self.primes * self.prime_bits
    }

    /// Whether the parameters give 128 bits of security and primes exist for them.
    pub fn is_secure(&self) -> bool {
        let most = SECURE.iter().find(|s| s.0 == self.log_degree).map_or(0, |s| s.1);
        (1..=MAX_PRIMES).contains(&self.primes)
            && (MIN_PRIME_BITS..=MAX_PRIME_BITS).contains(&self.prime_bits)
            && self.modulus_bits() <= most
    }

    /// Whether a product's noise is hidden, and the product can be decrypted.
    pub fn has_room_for(&self, demand: &Demand) -> bool {
        self.modulus_bits() >= demand.modulus_bits(self.log_degree)
    }

    /// Bytes of a fresh ciphertext: its second component is a seed, sent once for all.
    pub fn ciphertext_bytes(&self) -> usize {
        self.degree() * self.primes as usize * self.prime_bits as usize / 8
    }

    /// `j₁`: bits per coefficient of the second component of an answer.
    pub fn second_bits(&self, ring: u32) -> u32 {
        ring + 3 + (TAIL * self.second_deviation()).log2().ceil() as u32
    }

    /// The share of linear results whose two shares sum to a unit more or less than the result: those that lie
    /// between two roundings, the mean of what rounding the second component moves them by.
    pub fn off_by_one(&self, ring: u32) -> f64 {
        // The mean magnitude of a normal distribution.
        let mean = (2.0 / std::f64::consts::PI).sqrt() * self.second_deviation();
        mean * f64::from(self.second_bits(ring) - ring).exp2().recip()
    }

    /// Standard deviation of a coefficient of the secret's product with what rounding the second component drops, in
    /// the units to which it is rounded: variance ⅔·N of the secret times a twelfth.
    fn second_deviation(&self) -> f64 {
        (self.degree() as f64 / 18.0).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_of_16_bits_and_weights_of_8_fit_the_smallest_degree() {
        let demand = Demand::linear(16, 8, 576);
        let found = RingLwe::cheapest(&demand).unwrap();
        assert_eq!(found, RingLwe { log_degree: 12, prime_bits: 37, primes: 2 });
        assert!(found.is_secure() && found.has_room_for(&demand));
        assert!(!RingLwe { prime_bits: 36, ..found }.has_room_for(&demand));
    }

    #[test]
    fn every_plan_has_secure_parameters() {
        for ring in [1, 8, 16, 33, 64] {
            for weight_bits in [8, 16, 32] {
                for terms in [1, 1000, 1 << 24] {
                    let demand = Demand::linear(ring, weight_bits, terms);
                    let found = RingLwe::cheapest(&demand).unwrap();
                    assert!(found.is_secure() && found.has_room_for(&demand), "{demand:?}");
                    let q = f64::from(found.modulus_bits()) - PRIME_LOSS;
                    // Within the noise's bound of a boundary, on either side.
                    let near = 2.0 * demand.noise_bound(found.log_degree);
                    assert!(near.log2() + f64::from(ring) - q <= -40.0, "{demand:?}");
                }
            }
        }
    }

    /// A rounding differs from that without noise where a boundary lies between the two: for uniform places
    /// with the mean of the noise in steps, for any noise within a bound below twice that.
    #[test]
    fn roundings_differ_as_often_as_the_noise_is_wide() {
        let mut state = 1u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let lwe = RingLwe { log_degree: 12, prime_bits: 37, primes: 2 };
        let deviation = lwe.second_deviation() / f64::from(lwe.second_bits(16) - 16).exp2();
        let (count, mut differ) = (400_000, 0.0);
        for _ in 0..count {
            // Nearly normal: twelve uniform numbers.
            let noise = ((0..12).map(|_| uniform()).sum::<f64>() - 6.0) * deviation;
            let place = uniform();
            let sum = (place + 0.5).floor() + (0.5 - place + noise).floor();
            assert!(sum.abs() <= 1.0, "{sum}");
            differ += f64::from(u8::from(sum != 0.0));
        }
        let rate = lwe.off_by_one(16);
        assert!((0.0055..0.0062).contains(&rate), "{rate}");
        let spread = (rate * f64::from(count)).sqrt();
        assert!((differ - rate * f64::from(count)).abs() < 6.0 * spread, "{differ} {rate}");
    }
}
