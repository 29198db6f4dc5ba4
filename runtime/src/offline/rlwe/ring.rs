//! `Z_q[X]/(X^N+1)` with `q` a product of primes: the transforms are `tfhe-ntt`'s, and nothing else
//! knows of it.
//!
//! A polynomial is one vector of `L·N` residues, prime by prime. The inverse transform is not
//! normalised; [`Ring::fractions`] divides by `N` on the way.

use ir::plan::RingLwe;
use tfhe_ntt::prime64::Plan;

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
            let shoup = ((u128::from(inverse) << 64) / u128::from(p)) as u64;
            // p is odd, so ⌊2^192/p⌋ = ⌊(2^192 − 1)/p⌋.
            let (high, rest) = (u128::MAX / u128::from(p), u128::MAX % u128::from(p));
            let low = (rest << 64 | u128::from(u64::MAX)) / u128::from(p);
            Prime { p, plan, reciprocal: (high, low as u64), lift: (inverse, shoup) }
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

    /// `c/q` as a fraction of 128 bits, at most two units too small, for coefficient `at` of what
    /// [`Self::inverse`] returned.
    pub fn fraction(&self, polynomial: &[u64], at: usize) -> u128 {
        // c/q = Σ ((c·(q/p)^−1 mod p)/p) mod 1
        let (mut high, mut low) = (0u128, 0u128);
        for (i, prime) in self.primes.iter().enumerate() {
            let lifted = shoup(polynomial[i * self.degree + at], prime.lift, prime.p);
            high = high.wrapping_add(u128::from(lifted).wrapping_mul(prime.reciprocal.0));
            low += u128::from(lifted) * u128::from(prime.reciprocal.1);
        }
        high.wrapping_add(low >> 64)
    }

    /// Encodes plaintexts mod `2^k`: `round(q·m/2^k)` at given coefficients of a zero polynomial.
    pub fn encoder(&self, k: u32) -> Encoder {
        let q = self.primes.iter().fold(1u64, |q, prime| q.wrapping_mul(prime.p));
        let scale = |prime: &Prime| {
            let inverse = power(power(2, u64::from(k), prime.p), prime.p - 2, prime.p);
            let ratio = |v: u64| ((u128::from(v) << 64) / u128::from(prime.p)) as u64;
            Scale {
                p: prime.p,
                one: (1, ratio(1)),
                half: (1 << 63) % prime.p,
                inverse: (inverse, ratio(inverse)),
            }
        };
        Encoder { q, k, degree: self.degree, scales: self.primes.iter().map(scale).collect() }
    }
}

/// See [`Ring::encoder`].
pub struct Encoder {
    q: u64,
    k: u32,
    degree: usize,
    scales: Vec<Scale>,
}

/// Constants of one prime; pairs are a factor and `⌊2^64·factor/p⌋`.
struct Scale {
    p: u64,
    one: (u64, u64),
    /// `2^63 mod p`.
    half: u64,
    /// `2^−k mod p`.
    inverse: (u64, u64),
}

impl Encoder {
    /// Writes the residues of `round(q·m/2^k)` at coefficient `at`.
    pub fn put(&self, polynomial: &mut [u64], at: usize, m: u64) {
        // v = (q·m − r)/2^k with r the centred remainder, so v ≡ −r·2^−k mod p.
        let r = ir::ring::to_signed(self.q.wrapping_mul(m), self.k);
        let raised = (r.wrapping_neg() as u64).wrapping_add(1 << 63);
        for (i, scale) in self.scales.iter().enumerate() {
            let Scale { p, one, half, inverse } = *scale;
            let negative = reduce_once(shoup(raised, one, p) + p - half, p);
            polynomial[i * self.degree + at] = shoup(negative, inverse, p);
        }
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
    pub fn transform(&self, coefficients: impl Iterator<Item = i64>) -> Vec<u64> {
        let p = self.plan.modulus();
        let mut transformed: Vec<u64> = coefficients.map(|c| residue(c, p)).collect();
        self.plan.fwd(&mut transformed);
        transformed
    }

    /// The signed coefficients of the product of two transforms.
    pub fn product(&self, mut a: Vec<u64>, b: &[u64]) -> impl Iterator<Item = i64> {
        let p = self.plan.modulus();
        self.plan.mul_assign_normalize(&mut a, b);
        self.plan.inv(&mut a);
        // All ones where the representative is negative.
        let above = move |v: u64| ((p / 2).wrapping_sub(v) as i64 >> 63) as u64;
        a.into_iter().map(move |v| v.wrapping_sub(above(v) & p) as i64)
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

/// The residue of a signed number below `p` in magnitude, without a branch.
pub fn residue(value: i64, p: u64) -> u64 {
    (value as u64).wrapping_add((value >> 63) as u64 & p)
}

/// `value mod p` of a number below `2p`, without a branch.
fn reduce_once(value: u64, p: u64) -> u64 {
    let less = value.wrapping_sub(p);
    less.wrapping_add((less as i64 >> 63) as u64 & p)
}

/// `value·factor mod p` with `ratio = ⌊2^64·factor/p⌋` (Shoup), for any `value`.
fn shoup(value: u64, (factor, ratio): (u64, u64), p: u64) -> u64 {
    let quotient = ((u128::from(value) * u128::from(ratio)) >> 64) as u64;
    reduce_once(value.wrapping_mul(factor).wrapping_sub(quotient.wrapping_mul(p)), p)
}

fn multiply(a: u64, b: u64, p: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(p)) as u64
}

fn power(mut base: u64, mut exponent: u64, p: u64) -> u64 {
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
