//! Parameters of the ring-LWE encryption that makes linear correlations, with the argument for each.
//!
//! Party 1 encrypts its mask `r` under its own key, plaintext modulus `2^k`; party 0 multiplies by its
//! weights, subtracts its share and floods the noise. Notation: ring `Z_q[X]/(X^N+1)`, ternary secret,
//! errors from a centred binomial distribution of variance [`ERROR_VARIANCE`], weights below `W` in
//! magnitude of which `n` meet in one coefficient.
//!
//! *Security.* [`RingLwe::is_secure`] is the table of the homomorphic encryption standard (Albrecht et al.
//! 2018, table 1, classical, ternary secrets): at most 109, 218, 438 bits of `q` for `N` = 4096, 8192,
//! 16384 give 128 bits.
//!
//! *Noise.* A coefficient of the product carries `Σ w·e` (variance `n·W²·σ²`, encoding errors of at most
//! a half included) and, from re-randomising, `u·e' + e''·s` (variance `2·N·⅔·σ²`). Their sum is below
//! `B` = [`TAIL`] standard deviations but with probability `2·exp(−TAIL²/2)` = 2^−57.
//!
//! *Flooding.* Party 0 adds a uniform integer of `±2^f`, `2^f ≥ 2^40·B`: what party 1 sees is within
//! `B/2^(f+1) ≤ 2^−41` of a distribution that does not depend on the weights, per coefficient.
//!
//! *Decryption* needs the error below half of `q/2^k`: flooding and noise take at most an eighth, so
//! `q ≥ 2^(k + 3)·(2^f + B)`. Before it answers, party 0 switches the modulus down to `2^j`: rounding
//! the first component costs `2^−(j₀−k+1)` steps, a fourth, and the second, times the secret, at most
//! `TAIL·√(N/18)` units of `2^−(j₁−k)` steps, an eighth. Flooding fills a sixteenth, so that the sum stays
//! below seven sixteenths and the noise.

use serde::{Deserialize, Serialize};

/// Variance of an error: a centred binomial distribution of 42 coins.
pub const ERROR_VARIANCE: f64 = 10.5;
/// Statistical security of the flooding, in bits.
pub const FLOODING: u32 = 40;
/// Standard deviations within which a sum of errors is taken to lie.
pub const TAIL: f64 = 9.0;
/// `(log₂ N, largest log₂ q)` for 128 bits of security.
const SECURE: [(u32, u32); 3] = [(12, 109), (13, 218), (14, 438)];
/// The widest prime that the transforms take at full speed.
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
        Self { ring, variance: terms as f64 * weight * weight * (ERROR_VARIANCE + 0.25) }
    }

    /// `f`: flooding is uniform in `±2^f`.
    pub fn flooding_bits(&self, log_degree: u32) -> u32 {
        self.noise_bound(log_degree).log2().ceil() as u32 + FLOODING
    }

    /// `B`: what the noise does not exceed.
    pub fn noise_bound(&self, log_degree: u32) -> f64 {
        let degree = f64::from(log_degree).exp2();
        let refreshed = 2.0 * degree * 2.0 / 3.0 * ERROR_VARIANCE;
        TAIL * (self.variance + refreshed).sqrt()
    }

    fn modulus_bits(&self, log_degree: u32) -> u32 {
        self.ring + 3 + self.flooding_bits(log_degree) + 1
    }
}

impl RingLwe {
    /// The cheapest secure parameters; `None` if there are none for such wide weights.
    pub fn cheapest(demand: &Demand) -> Option<Self> {
        SECURE.iter().find_map(|s| Self::cheapest_of_degree(demand, s.0))
    }

    /// The cheapest secure parameters of one degree.
    pub fn cheapest_of_degree(demand: &Demand, log_degree: u32) -> Option<Self> {
        // A tenth of a bit for primes that are a little below their power of two.
        let bits = demand.modulus_bits(log_degree) + 1;
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

    /// Whether a product can be decrypted, flooding included.
    pub fn has_room_for(&self, demand: &Demand) -> bool {
        self.modulus_bits() > demand.modulus_bits(self.log_degree)
    }

    /// Bytes of a fresh ciphertext: its second component is a seed, sent once for all.
    pub fn ciphertext_bytes(&self) -> usize {
        self.degree() * self.primes as usize * self.prime_bits as usize / 8
    }

    /// `(j₀, j₁)`: bits per coefficient of the two components of an answer.
    pub fn answer_bits(&self, ring: u32) -> (u32, u32) {
        let rounding = TAIL * (self.degree() as f64 / 18.0).sqrt();
        (ring + 1, ring + 3 + rounding.log2().ceil() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_of_16_bits_and_weights_of_8_fit_the_smallest_degree() {
        let demand = Demand::linear(16, 8, 4608);
        let found = RingLwe::cheapest(&demand).unwrap();
        assert_eq!((found.log_degree, found.primes), (12, 2));
        assert!(found.prime_bits <= 41, "{found:?}");
        assert!(found.is_secure() && found.has_room_for(&demand));
    }

    #[test]
    fn every_plan_has_secure_parameters() {
        for ring in [1, 8, 16, 33, 64] {
            for weight_bits in [8, 16, 32] {
                for terms in [1, 1000, 1 << 24] {
                    let demand = Demand::linear(ring, weight_bits, terms);
                    let found = RingLwe::cheapest(&demand).unwrap();
                    assert!(found.is_secure() && found.has_room_for(&demand), "{demand:?}");
                    let q = f64::from(found.modulus_bits()) - 0.1;
                    let flood = f64::from(demand.flooding_bits(found.log_degree)).exp2();
                    let noise = demand.noise_bound(found.log_degree) + flood;
                    assert!(noise.log2() + f64::from(ring) + 3.0 <= q, "{demand:?}");
                }
            }
        }
    }
}
