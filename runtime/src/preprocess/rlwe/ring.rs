//! `Z_q[X]/(X^N+1)` with `q` a product of primes: the transforms are `tfhe-ntt`'s, and only this and
//! [`super::slots`] know of it.
//!
//! A polynomial is one vector of `L·N` residues, prime by prime. The inverse transform is not
//! normalised; whoever reads its result divides by `N` on the way.

use ir::plan::RingLwe;
use tfhe_ntt::prime64::Plan;
use zeroize::Zeroizing;

/// Bits of the prime of [`Negacyclic`]: products of 34-bit numbers and ternary ones stay below it.
const EXACT_PRIME_BITS: u32 = 50;
/// Bits of a limb whose product with a ternary polynomial is exact in [`Negacyclic`].
pub const LIMB_BITS: u32 = 34;

/// The ring of one set of parameters.
pub struct Ring {
    degree: usize,
    primes: Vec<Prime>,
}

struct Prime {
    p: u64,
    plan: Plan,
    /// `⌊2^192/p⌋`, high and low 64 bits apart.
    reciprocal: (u128, u64),
    /// `(q/p)^−1·N^−1 mod p`, and `⌊2^64·that/p⌋`.
    lift: (u64, u64),
}

impl Ring {
    /// The ring of secure parameters.
    ///
    /// # Panics
    /// If there are not as many primes of that size; parameters of a verified plan have them.
    pub fn new(lwe: &RingLwe) -> Self {
        let degree = lwe.degree();
        let mut plans = primes(degree, lwe.prime_bits);
        let plans: Vec<Plan> = plans.by_ref().take(lwe.primes as usize).collect();
        assert_eq!(plans.len(), lwe.primes as usize, "primes of the plan's parameters");
        let moduli: Vec<u64> = plans.iter().map(Plan::modulus).collect();
        let prime = |plan: Plan| {
            let p = plan.modulus();
            let others = moduli.iter().filter(|&&o| o != p);
            let product = others.fold(degree as u64 % p, |a, o| multiply(a, o % p, p));
            let inverse = power(product, p - 2, p);
            Prime { p, plan, reciprocal: reciprocal(p), lift: (inverse, ratio(inverse, p)) }
        };
        Self { degree, primes: plans.into_iter().map(prime).collect() }
    }

    /// `N`.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// The primes.
    pub fn moduli(&self) -> impl Iterator<Item = u64> {
        self.primes.iter().map(|p| p.p)
    }

    /// Residues of a polynomial: `L·N`.
    pub fn words(&self) -> usize {
        self.primes.len() * self.degree
    }

    /// Adds `factor` times small signed coefficients, which are below every prime.
    pub fn add_small(&self, to: &mut [u64], coefficients: &[i64], factor: i64) {
        for (prime, to) in self.primes.iter().zip(to.chunks_exact_mut(self.degree)) {
            for (to, &c) in to.iter_mut().zip(coefficients) {
                *to = reduce_once(*to + residue(c * factor, prime.p), prime.p);
            }
        }
    }

    /// Forward transform of every residue.
    pub fn forward(&self, polynomial: &mut [u64]) {
        for (prime, part) in self.primes.iter().zip(polynomial.chunks_exact_mut(self.degree)) {
            prime.plan.fwd(part);
        }
    }

    /// Inverse transform of every residue; the result is `N` times the polynomial.
    pub fn inverse(&self, polynomial: &mut [u64]) {
        for (prime, part) in self.primes.iter().zip(polynomial.chunks_exact_mut(self.degree)) {
            prime.plan.inv(part);
        }
    }

    /// `sum += a·b` of transformed polynomials.
    pub fn multiply_add(&self, sum: &mut [u64], a: &[u64], b: &[u64]) {
        let n = self.degree;
        let parts = sum.chunks_exact_mut(n).zip(a.chunks_exact(n)).zip(b.chunks_exact(n));
        for (prime, ((sum, a), b)) in self.primes.iter().zip(parts) {
            prime.plan.mul_accumulate(sum, a, b);
        }
    }

    /// `value −= subtrahend`.
    pub fn subtract(&self, value: &mut [u64], subtrahend: &[u64]) {
        let n = self.degree;
        let parts = value.chunks_exact_mut(n).zip(subtrahend.chunks_exact(n));
        for (prime, (value, subtrahend)) in self.primes.iter().zip(parts) {
            for (v, s) in value.iter_mut().zip(subtrahend) {
                *v = reduce_once(*v + prime.p - s, prime.p);
            }
        }
    }

    /// `c/q` as a fraction of 128 bits, at most a unit per prime and one more too small, for coefficient `at` of what
    /// [`Self::inverse`] returned.
    pub fn fraction(&self, polynomial: &[u64], at: usize) -> u128 {
        // c/q = Σ ((c·(q/p)^−1 mod p)/p) mod 1
        let lifted = self.primes.iter().enumerate().map(|(i, prime)| {
            let lifted = shoup(polynomial[i * self.degree + at], prime.lift, prime.p);
            (lifted, prime.reciprocal)
        });
        sum_of_fractions(lifted)
    }

    /// Encodes plaintexts mod `2^k`: adds `round(q·m/2^k)` to given coefficients of a polynomial.
    pub fn encoder(&self, k: u32) -> Encoder {
        let q = self.primes.iter().fold(1u64, |q, prime| q.wrapping_mul(prime.p));
        self.encoder_of(Plain::Power { q, k }, |p| power(2, u64::from(k), p))
    }

    /// Encodes plaintexts mod a prime `t < 2^32` that does not divide `q`: adds `round(q·m/t)` to given
    /// coefficients of a polynomial, for `m < t`.
    pub fn prime_encoder(&self, t: u64) -> Encoder {
        let q = self.primes.iter().fold(1, |q, prime| multiply(q, prime.p % t, t));
        self.encoder_of(Plain::Prime { q: (q, ratio(q, t)), t }, |p| t % p)
    }

    fn encoder_of(&self, plain: Plain, modulus: impl Fn(u64) -> u64) -> Encoder {
        let scale = |prime: &Prime| {
            let inverse = power(modulus(prime.p), prime.p - 2, prime.p);
            Scale { wide: Wide::new(prime.p), inverse: (inverse, ratio(inverse, prime.p)) }
        };
        Encoder { plain, degree: self.degree, scales: self.primes.iter().map(scale).collect() }
    }
}

/// See [`Ring::encoder`].
pub struct Encoder {
    plain: Plain,
    degree: usize,
    scales: Vec<Scale>,
}

/// A plaintext modulus `M`, and `q mod M`.
enum Plain {
    /// `M = 2^k`.
    Power { q: u64, k: u32 },
    /// `M = t`.
    Prime { q: (u64, u64), t: u64 },
}

/// Constants of one prime.
struct Scale {
    wide: Wide,
    /// `1/M mod p`.
    inverse: (u64, u64),
}

impl Encoder {
    /// Adds the residues of `round(q·m/M)` to coefficient `at`.
    pub fn add(&self, polynomial: &mut [u64], at: usize, m: u64) {
        // v = (q·m − r)/M with r the centred remainder, so v ≡ −r/M mod p.
        let r = match self.plain {
            Plain::Power { q, k } => ir::ring::to_signed(q.wrapping_mul(m), k),
            Plain::Prime { q, t } => centred(shoup(m, q, t), t),
        };
        for (i, scale) in self.scales.iter().enumerate() {
            let value = shoup(scale.wide.residue(r.wrapping_neg()), scale.inverse, scale.wide.p);
            let to = &mut polynomial[i * self.degree + at];
            *to = reduce_once(*to + value, scale.wide.p);
        }
    }
}

/// Residues mod `p` of signed numbers of any magnitude.
#[derive(Clone, Copy)]
pub struct Wide {
    p: u64,
    one: (u64, u64),
    /// `2^63 mod p`.
    half: u64,
}

impl Wide {
    /// For a prime below 2^63.
    pub fn new(p: u64) -> Self {
        Self { p, one: (1, ratio(1, p)), half: (1 << 63) % p }
    }

    /// `value mod p`.
    pub fn residue(&self, value: i64) -> u64 {
        let raised = shoup((value as u64).wrapping_add(1 << 63), self.one, self.p);
        reduce_once(raised + self.p - self.half, self.p)
    }
}

/// Products of integer polynomials below `2^49` in magnitude mod `X^N+1`, exactly.
pub struct Negacyclic {
    plan: Plan,
}

impl Negacyclic {
    /// For polynomials of `degree` coefficients.
    ///
    /// # Panics
    /// If the degree is no power of two between 16 and 2^20.
    #[allow(clippy::expect_used)] // A prime of 50 bits that is 1 mod 2^21 exists.
    pub fn new(degree: usize) -> Self {
        let plan = primes(degree, EXACT_PRIME_BITS).next();
        Self { plan: plan.expect("a prime of 50 bits for every degree") }
    }

    /// The transform of signed coefficients.
    pub fn transform(
        &self,
        coefficients: impl ExactSizeIterator<Item = i64>,
    ) -> Zeroizing<Vec<u64>> {
        let p = self.plan.modulus();
        let mut transformed: Zeroizing<Vec<u64>> =
            Zeroizing::new(coefficients.map(|c| residue(c, p)).collect());
        self.plan.fwd(&mut transformed);
        transformed
    }

    /// The signed coefficients of the product of two transforms.
    pub fn product(&self, mut a: Zeroizing<Vec<u64>>, b: &[u64]) -> impl Iterator<Item = i64> {
        let p = self.plan.modulus();
        self.plan.mul_assign_normalize(&mut a, b);
        self.plan.inv(&mut a);
        (0..a.len()).map(move |i| centred(a[i], p))
    }
}

/// Transforms for the primes of `bits` bits that are 1 mod `2·degree`, largest first.
fn primes(degree: usize, bits: u32) -> impl Iterator<Item = Plan> {
    let step = 2 * degree as u64;
    let first = ((1u64 << bits) - 2) / step;
    (1..=first)
        .rev()
        .map(move |i| i * step + 1)
        .take_while(move |p| *p >= 1 << (bits - 1))
        .filter_map(move |p| Plan::try_new(degree, p))
}

/// `Σ v/p mod 1` as a fraction of 128 bits, a unit per summand too small at most, for `v < p`.
pub fn sum_of_fractions(values: impl Iterator<Item = (u64, (u128, u64))>) -> u128 {
    let (high, low) = values.fold((0u128, 0u128), |(high, low), (value, reciprocal)| {
        let high = high.wrapping_add(u128::from(value).wrapping_mul(reciprocal.0));
        (high, low + u128::from(value) * u128::from(reciprocal.1))
    });
    high.wrapping_add(low >> 64)
}

/// `⌊2^192/p⌋` of an odd number, high and low 64 bits apart.
pub fn reciprocal(p: u64) -> (u128, u64) {
    // p is odd, so ⌊2^192/p⌋ = ⌊(2^192 − 1)/p⌋.
    let (high, rest) = (u128::MAX / u128::from(p), u128::MAX % u128::from(p));
    (high, ((rest << 64 | u128::from(u64::MAX)) / u128::from(p)) as u64)
}

/// `⌊2^64·factor/p⌋`, for [`shoup`].
pub fn ratio(factor: u64, p: u64) -> u64 {
    ((u128::from(factor) << 64) / u128::from(p)) as u64
}

/// The representative of a residue in `(−p/2, p/2)`, without a branch.
pub fn centred(v: u64, p: u64) -> i64 {
    // All ones where the representative is negative.
    let above = ((p / 2).wrapping_sub(v) as i64 >> 63) as u64;
    v.wrapping_sub(above & p) as i64
}

/// The residue of a signed number below `p` in magnitude, without a branch.
pub fn residue(value: i64, p: u64) -> u64 {
    (value as u64).wrapping_add((value >> 63) as u64 & p)
}

/// `value mod p` of a number below `2p`, without a branch.
pub fn reduce_once(value: u64, p: u64) -> u64 {
    let less = value.wrapping_sub(p);
    less.wrapping_add((less as i64 >> 63) as u64 & p)
}

/// `value·factor mod p` with `ratio = ⌊2^64·factor/p⌋` (Shoup), for any `value`.
pub fn shoup(value: u64, (factor, ratio): (u64, u64), p: u64) -> u64 {
    let quotient = ((u128::from(value) * u128::from(ratio)) >> 64) as u64;
    reduce_once(value.wrapping_mul(factor).wrapping_sub(quotient.wrapping_mul(p)), p)
}

pub fn multiply(a: u64, b: u64, p: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(p)) as u64
}

pub fn power(mut base: u64, mut exponent: u64, p: u64) -> u64 {
    let mut result = 1;
    base %= p;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, base, p);
        }
        base = multiply(base, base, p);
        exponent >>= 1;
    }
    result
}
