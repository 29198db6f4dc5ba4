//! Parameters of batched ring-LWE, the second way to make the products of phases, and the choice between
//! the two ways.
//!
//! *Notation.* An element and a harmonic are a *pair* `(cos nM, sin nM)` of party 1 and `(α_n, β_n)` of
//! party 0, and two *values* `G = α·cos + β·sin`, `H = α·sin − β·cos`. The plaintext ring is
//! `Z_T[X]/(X^N+1)`, `T = t_1⋯t_k` a product of primes that are 1 mod 2N: it is `k·N` independent *slots*,
//! `N` for each prime. Party 1 encrypts slots of cosines and of sines, party 0 multiplies by slots of `α` and
//! of `β`, sums, and takes its shares mod `t_i` off. Uniform shares hide everything, so that `t` need not
//! have room for statistical masks.
//!
//! *Shares mod 2^Q.* [`Phase::product_bound`] is a public `B ≥ |G|, |H|`. With `v = G + B`, `0 ≤ v ≤ 2B`, and
//! shares `a + d ≡ v mod t`, `0 ≤ a, d < t`, let `w = 1` where `a + d = v + t` and 0 where `a + d = v`.
//! *For `t ≥ 4B + 1`, `w = [a > 2B] or [d > 2B]`*: if `w = 0` then `a, d ≤ v ≤ 2B`; if `w = 1` and both were at
//! most `2B`, then `t ≤ a + d ≤ 4B`. So `G = a + d − B − t + t·[a ≤ 2B]·[d ≤ 2B]` over the integers, a product
//! of a bit of each party: one oblivious transfer in which party 0 chooses. Nothing fails and nothing is
//! rounded.
//!
//! *Noise.* Coefficients of party 0's polynomials are `Σ (T/t_i)·d_i` with centred `d_i`, at most `k·T/2` in
//! magnitude whatever the coefficients of the activation are; `2N` of them meet errors of variance `σ²`, and
//! roundings of the encoding of at most `k/2`, which add `k/4`. Re-randomising as in [`super::rlwe`]. Flooding
//! and decryption are those of a plaintext modulus of `⌈log₂ T⌉` bits there.
//!
//! *Cost* per value: `log q/k` bits up with `log q ≈ 2·log T + 57`, `2·log T/k` and `13/k` bits down; transfers
//! of `16·(128/8 − 1)/128` bytes and a bit, and `Q` bits up. More primes share the 57 bits, so `k` is as large as
//! the elements at hand fill.

use super::Cost;
use super::rlwe::{Demand, ERROR_VARIANCE, Hiding, RingLwe};
use super::transfers::{self, extension_bytes};
use crate::plan::Phase;
use crate::ring::packed_bytes;

/// The largest `k`.
const MAX_PRIMES: usize = 4;
/// The largest `⌈log₂ T⌉`: fractions of 128 bits have room for flooding below it.
const MAX_PLAIN_BITS: u32 = 76;
/// Plaintext primes stay below the primes of `q`.
const MAX_PLAIN_PRIME: u64 = 1 << 32;
/// `log₂ N` of the sets that [`SlotPacking::candidates`] considers.
const LOG_DEGREES: [u32; 2] = [12, 13];

impl Phase {
    /// `B`: `|G|` and `|H|` are at most this, for all coefficients that
    /// [`Weights`](crate::plan::Weights) of a plan may have. `α` and `β` are the coordinates of a vector of length
    /// `2^amplitude` at most, at their scale, rounded; so are cosine and sine.
    pub fn product_bound(&self) -> f64 {
        // Rounding two coordinates by a half moves a vector by √½ at most.
        let length = |bits: u32| f64::from(bits).exp2() + 0.71;
        (length(self.amplitude + self.shift - self.g2 - self.h) * length(self.g2)).ceil()
    }
}

/// The method for the products of some elements of a phase step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PhaseProducts {
    /// Punctured GGM trees from oblivious transfers.
    Trees,
    /// Batched ring-LWE encryption.
    Slots(SlotPacking),
}

/// Which slots of which plaintexts hold the pairs of some elements, and the parameters of their encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotPacking {
    /// Which of the plan's parameter sets is used.
    pub set: usize,
    /// The encryption.
    pub lwe: RingLwe,
    /// `t_1 … t_k`.
    pub moduli: Vec<u64>,
    /// `B`.
    pub bound: u64,
    /// Pairs: elements times harmonics. Pair `i` is slot `i mod N` of prime `⌊i/N⌋ mod k` of chunk
    /// `⌊i/(kN)⌋`.
    pub pairs: usize,
    /// `Q`.
    pub q: u32,
}

impl SlotPacking {
    /// The packing of the fewest bytes for `count` elements of a phase step, among a plan's parameter sets;
    /// `None` if none of them has room.
    pub fn new(phase: &Phase, count: usize, sets: &[RingLwe]) -> Option<Self> {
        let of_set = |(set, lwe): (usize, &RingLwe)| {
            let moduli = plain_moduli(phase, lwe.log_degree);
            (1..=moduli.len())
                .map(|k| Self::with(phase, count, (set, *lwe), &moduli[..k]))
                .filter(|packing| {
                    packing.plain_bits() <= MAX_PLAIN_BITS && lwe.has_room_for(&packing.demand())
                })
                .min_by_key(Self::total_bytes)
        };
        sets.iter().enumerate().filter_map(of_set).min_by_key(Self::total_bytes)
    }

    /// Parameter sets that serve a phase step well: the cheapest for every degree and number of primes.
    pub fn candidates(phase: &Phase) -> Vec<RingLwe> {
        let of_degree = |log_degree: u32| {
            let moduli = plain_moduli(phase, log_degree);
            let lwe = RingLwe { log_degree, prime_bits: 0, primes: 0 };
            let cheapest = |k: usize| {
                let packing = Self::with(phase, 1, (0, lwe), &moduli[..k]);
                let fits = packing.plain_bits() <= MAX_PLAIN_BITS;
                fits.then(|| RingLwe::cheapest_of_degree(&packing.demand(), log_degree)).flatten()
            };
            (1..=moduli.len()).filter_map(cheapest).collect::<Vec<_>>()
        };
        LOG_DEGREES.into_iter().flat_map(of_degree).collect()
    }

    fn with(phase: &Phase, count: usize, (set, lwe): (usize, RingLwe), moduli: &[u64]) -> Self {
        Self {
            set,
            lwe,
            moduli: moduli.to_vec(),
            bound: phase.product_bound() as u64,
            pairs: count * phase.harmonics as usize,
            q: phase.q,
        }
    }

    /// `T`.
    pub fn plain_modulus(&self) -> u128 {
        self.moduli.iter().map(|&t| u128::from(t)).product()
    }

    /// `⌈log₂ T⌉`.
    pub fn plain_bits(&self) -> u32 {
        128 - self.plain_modulus().leading_zeros()
    }

    /// The `t` of a pair.
    pub fn modulus(&self, pair: usize) -> u64 {
        self.moduli[(pair >> self.lwe.log_degree) % self.moduli.len()]
    }

    /// Slots of a chunk: `k·N`.
    pub fn slots(&self) -> usize {
        self.moduli.len() * self.lwe.degree()
    }

    /// Chunks of pairs; each is two ciphertexts up and two down.
    pub fn chunks(&self) -> usize {
        self.pairs.div_ceil(self.slots())
    }

    /// What the encryption parameters must support.
    pub fn demand(&self) -> Demand {
        let (k, degree) = (self.moduli.len() as f64, self.lwe.degree() as f64);
        let factor = k * self.plain_modulus() as f64 / 2.0;
        let product = 2.0 * degree * factor * factor * (ERROR_VARIANCE + k / 4.0);
        Demand { ring: self.plain_bits(), variance: product, hiding: Hiding::Flooding }
    }

    /// The bound of the noise.
    pub fn noise_bound(&self) -> f64 {
        self.demand().noise_bound(self.lwe.log_degree)
    }

    /// Bytes of party 1's ciphertexts.
    pub fn ciphertext_bytes(&self) -> usize {
        2 * self.chunks() * self.lwe.ciphertext_bytes()
    }

    /// `(j₀, j₁)`: bits per coefficient of the two components of an answer.
    pub fn answer_bits(&self) -> (u32, u32) {
        (self.plain_bits() + 1, self.lwe.second_bits(self.plain_bits()))
    }

    /// Bytes of party 0's answers to the ciphertexts.
    pub fn answer_bytes(&self) -> usize {
        let (low, high) = self.answer_bits();
        let degree = self.lwe.degree();
        2 * self.chunks() * (packed_bytes(degree, low) + packed_bytes(degree, high))
    }

    /// The cost of the exchange.
    pub fn cost(&self) -> Cost {
        let values = 2 * self.pairs;
        let transfers = extension_bytes(values) + packed_bytes(values, 1);
        Cost {
            reverse_transfers: values,
            slots: self.pairs,
            bytes: vec![
                self.ciphertext_bytes(),
                self.answer_bytes() + transfers,
                packed_bytes(values, self.q),
            ],
            ..Cost::default()
        }
    }

    fn total_bytes(&self) -> usize {
        self.cost().total_bytes()
    }
}

impl PhaseProducts {
    /// The method with the fewer bytes for `count` elements. Both parties know it from the plan.
    pub fn cheapest(phase: &Phase, count: usize, sets: &[RingLwe]) -> Self {
        let trees = transfers::trees(phase, count).total_bytes();
        SlotPacking::new(phase, count, sets)
            .filter(|packing| packing.total_bytes() < trees)
            .map_or(Self::Trees, Self::Slots)
    }

    /// The parameters of the fewest bytes for `count` elements, keys not included; `None` if trees take fewer.
    pub fn best_set(phase: &Phase, count: usize) -> Option<RingLwe> {
        match Self::cheapest(phase, count, &SlotPacking::candidates(phase)) {
            Self::Slots(packing) => Some(packing.lwe),
            Self::Trees => None,
        }
    }

    /// The cost of the exchange for `count` elements.
    pub fn cost(&self, phase: &Phase, count: usize) -> Cost {
        match self {
            Self::Trees => transfers::trees(phase, count),
            Self::Slots(packing) => packing.cost(),
        }
    }
}

/// The smallest primes from `4B + 1` on that are 1 mod `2N`, at most [`MAX_PRIMES`] of them.
fn plain_moduli(phase: &Phase, log_degree: u32) -> Vec<u64> {
    let least = 4.0 * phase.product_bound() + 1.0;
    if least >= MAX_PLAIN_PRIME as f64 {
        return vec![];
    }
    let step = 2u64 << log_degree;
    let first = (least as u64).div_ceil(step);
    (first..)
        .map(|i| i * step + 1)
        .take_while(|&t| t < MAX_PLAIN_PRIME)
        .filter(|&t| is_prime(t))
        .take(MAX_PRIMES)
        .collect()
}

/// Miller–Rabin with bases that decide all numbers below 2^32 (Jaeschke 1993).
fn is_prime(n: u64) -> bool {
    let power = |mut base: u64, mut exponent: u64| {
        let mut result = 1;
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result * base % n;
            }
            base = base * base % n;
            exponent >>= 1;
        }
        result
    };
    let twos = (n - 1).trailing_zeros();
    n.is_multiple_of(2) == (n == 2)
        && n > 1
        && [2u64, 7, 61].into_iter().filter(|a| a % n != 0).all(|a| {
            let mut x = power(a, (n - 1) >> twos);
            let start = x == 1 || x == n - 1;
            start
                || (1..twos).any(|_| {
                    x = x * x % n;
                    x == n - 1
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Plan, StepOp};

    fn phase(harmonics: u32, amplitude: u32) -> Phase {
        Phase { p: 8, mask_bits: 8, q: 32, shift: 16, g2: 7, h: 8, guard: 0, harmonics, amplitude }
    }

    #[test]
    fn primes_are_those_of_trial_division() {
        for n in (1..20_000).chain((1 << 32) - 2000..1 << 32) {
            let mut divisors = (2u64..).take_while(|d| d * d <= n);
            assert_eq!(is_prime(n), n > 1 && divisors.all(|d| n % d != 0), "{n}");
        }
    }

    #[test]
    fn candidates_are_secure_and_have_room() {
        for amplitude in 0..22 {
            for lwe in SlotPacking::candidates(&phase(1, amplitude)) {
                let packing = SlotPacking::new(&phase(1, amplitude), 9000, &[lwe]).unwrap();
                assert!(lwe.is_secure() && lwe.has_room_for(&packing.demand()));
                assert!(packing.moduli.iter().all(|&t| t > 4 * packing.bound));
                let q = f64::from(lwe.modulus_bits()) - 0.1;
                let bits = f64::from(packing.plain_bits());
                let flood = packing.noise_bound().log2() + f64::from(crate::plan::rlwe::HIDING);
                assert!(flood + bits + 4.0 <= q, "{lwe:?}");
            }
        }
    }

    #[test]
    fn one_harmonic_takes_less_than_ninety_bytes_and_many_take_trees() {
        let of = |harmonics, amplitude, count| {
            let phase = phase(harmonics, amplitude);
            let sets = SlotPacking::candidates(&phase);
            let products = PhaseProducts::cheapest(&phase, count, &sets);
            let bytes: usize = products.cost(&phase, count).total_bytes();
            (products != PhaseProducts::Trees, bytes as f64 / count as f64)
        };
        for (amplitude, count) in [(8, 4096), (8, 16384), (15, 16384)] {
            let (is_slots, bytes) = of(1, amplitude, count);
            assert!(is_slots && bytes < 60.0, "{bytes}");
        }
        assert!(!of(8, 8, 16384).0);
        assert!(!of(1, 8, 100).0);
        assert!(!of(1, 30, 16384).0);
    }

    #[test]
    #[ignore = "prints bytes"]
    fn bytes_per_element() {
        for harmonics in 1..=4 {
            for amplitude in [8, 10, 15] {
                for count in [4096, 8192, 16384, 32768] {
                    let phase = phase(harmonics, amplitude);
                    let trees: usize = transfers::trees(&phase, count).total_bytes();
                    let sets = SlotPacking::candidates(&phase);
                    let best = SlotPacking::new(&phase, count, &sets).unwrap();
                    let per = |bytes: usize| bytes as f64 / count as f64;
                    println!(
                        "H {harmonics} amplitude 2^{amplitude} count {count}: trees {:.1}, slots {:.1} {:?} {:?} {:?}",
                        per(trees),
                        per(best.total_bytes()),
                        best.cost().bytes.into_iter().map(per).collect::<Vec<f64>>(),
                        best.lwe,
                        best.moduli
                    );
                }
            }
        }
    }

    /// Interactive steps and convolutions of ResNet-20 on 32x32 images, one harmonic.
    #[test]
    fn a_small_resnet_is_made_with_few_bytes() {
        use crate::plan::{Interactive, Linear, Step, ValueId};
        let mut steps: Vec<Step> = vec![];
        let mut push = |op, shape: [usize; 4]| {
            let operands =
                if steps.is_empty() { vec![] } else { vec![ValueId(steps.len() as u32 - 1)] };
            let shape = crate::Shape::new(shape);
            steps.push(Step {
                name: String::new(),
                op,
                operands,
                shape,
                ring: 16,
                fraction_bits: 0,
            });
        };
        push(StepOp::Input, [1, 3, 32, 32]);
        for (layers, channels, size) in [(7, 16, 32), (6, 32, 16), (6, 64, 8)] {
            for layer in 0..layers {
                let stride = if layer == 0 && size < 32 { 2 } else { 1 };
                let geometry = crate::op::Convolution {
                    groups: 1,
                    kernel: [3, 3],
                    stride: [stride; 2],
                    dilation: [1, 1],
                    padding: [1; 4],
                };
                let shape = [1, channels, size, size];
                push(StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 }), shape);
                push(StepOp::Interactive(Interactive::Phase(phase(1, 8))), shape);
            }
        }
        let last = ValueId(steps.len() as u32 - 1);
        let mut plan = Plan::of_steps("", steps, last, (1.0, 1.0), 1.0);
        assert!(plan.choose_encryption());
        plan.verify().unwrap();
        assert_eq!(plan.interactive_elements(), 188_416);
        let (up, down, _) = plan.offline_traffic(1);
        let products: usize = plan
            .offline_schedule(1)
            .exchanges
            .iter()
            .filter(|e| plan.steps[e.step].op.phase().is_some())
            .map(|e| e.cost.total_bytes())
            .sum();
        println!("{up} + {down} bytes, {products} for phases; {:?}", plan.rlwe);
        assert!(products < 50 * 188_416, "{products}");
        assert!(up + down < 20_000_000, "{up} {down}");
    }
}
