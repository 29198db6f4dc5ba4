//! Batched encryption: slots of party 1 times slots of party 0, for the products of phases. Parameters,
//! notation and the argument for them stand in [`ir::plan::SlotPacking`].
//!
//! *Plaintexts* mod `T = t_1⋯t_k` are never put together: with `m_i` the polynomial of the slots of `t_i` and
//! `m'_i = m_i·(T/t_i)^−1 mod t_i`, `m/T ≡ Σ m'_i/t_i mod 1`, so that party 1 encrypts the sum of
//! `round(q·m'_i/t_i)` and party 0 takes `Σ a'_i/t_i` of a turn off. Party 0's polynomial is
//! `Σ (T/t_i)·m'_i` with centred `m'_i`. Only the decryption has the whole `m`, as a number of 76 bits.
//!
//! *Ciphertexts and answers* are those of [`super`], each answer with all of its coefficients. Chunk `c` has
//! ciphertexts `2c` of cosines and `2c + 1` of sines, and answers `2c` for `G` and `2c + 1` for `H`. What party 1
//! decrypts are uniform slots.

use super::ring::{
    Encoder, Ring, centred, multiply, power, ratio, reciprocal, reduce_once, residue, shoup,
    sum_of_fractions,
};
use super::sampling::{Stream, errors, uniform};
use super::{
    Malformed, PublicKeys, SecretKeys, mask, pack_fractions, pack_residues, push_wide, read_wide,
    round_fraction, unpack_residues,
};
use crate::secret::Elements;
use chacha20::cipher::StreamCipher;
use ir::plan::SlotPacking;
use ir::ring::{Packer, Unpacker, low_mask, packed_bytes};
use rayon::prelude::*;
use tfhe_ntt::prime64::Plan;
use zeroize::Zeroizing;

/// Bits to which a decrypted fraction is padded, in two halves.
const HALF: u32 = 44;

/// The plaintext ring of a packing.
struct Slots<'a> {
    packing: &'a SlotPacking,
    primes: Vec<Prime>,
}

/// Constants of one `t`; pairs are a factor and `⌊2^64·factor/p⌋` for its modulus `p`.
struct Prime {
    t: u64,
    plan: Plan,
    encoder: Encoder,
    reciprocal: (u128, u64),
    /// `N^−1·(T/t)^−1 mod t`.
    lift: (u64, u64),
    /// `T/t` for each prime of `q`.
    cofactors: Vec<(u64, u64)>,
    /// 1 and `2^HALF mod t`.
    one: (u64, u64),
    high: (u64, u64),
}

impl<'a> Slots<'a> {
    #[allow(clippy::expect_used)] // The moduli of a packing are primes with transforms of its degree.
    fn new(ring: &Ring, packing: &'a SlotPacking) -> Self {
        let prime = |&t: &u64| {
            let others = || packing.moduli.iter().filter(move |&&o| o != t);
            let cofactor = |p: u64| others().fold(1, |product, o| multiply(product, o % p, p));
            let inverse = power(multiply(cofactor(t), ring.degree() as u64 % t, t), t - 2, t);
            let with_ratio = |v: u64, p: u64| (v, ratio(v, p));
            Prime {
                t,
                plan: Plan::try_new(ring.degree(), t).expect("a plaintext prime"),
                encoder: ring.prime_encoder(t),
                reciprocal: reciprocal(t),
                lift: with_ratio(inverse, t),
                cofactors: ring.moduli().map(|p| with_ratio(cofactor(p), p)).collect(),
                one: with_ratio(1, t),
                high: with_ratio((1 << HALF) % t, t),
            }
        };
        Self { packing, primes: packing.moduli.iter().map(prime).collect() }
    }

    /// `m'_i` per prime, for a chunk's values: `value` of a pair's number.
    fn coefficients(&self, chunk: usize, value: impl Fn(usize, u64) -> u64) -> Vec<Elements> {
        let degree = self.packing.lwe.degree();
        let of_prime = |(i, prime): (usize, &Prime)| {
            let start = chunk * self.packing.slots() + i * degree;
            let end = (start + degree).clamp(start, self.packing.pairs.max(start));
            let mut values = Zeroizing::new(vec![0; degree]);
            for (slot, pair) in values.iter_mut().zip(start..end) {
                *slot = value(pair, prime.t);
            }
            prime.plan.inv(&mut values);
            values.iter_mut().for_each(|v| *v = shoup(*v, prime.lift, prime.t));
            values
        };
        self.primes.iter().enumerate().map(of_prime).collect()
    }

    /// Party 0's polynomial for a chunk's signed values, transformed.
    fn factor(&self, ring: &Ring, chunk: usize, value: impl Fn(usize) -> i64) -> Elements {
        let digits = self.coefficients(chunk, |pair, t| residue(value(pair), t));
        let mut polynomial = Zeroizing::new(vec![0; ring.words()]);
        for (prime, digits) in self.primes.iter().zip(&digits) {
            let parts = polynomial.chunks_exact_mut(ring.degree()).zip(ring.moduli());
            for ((part, p), &cofactor) in parts.zip(&prime.cofactors) {
                for (to, &digit) in part.iter_mut().zip(digits.iter()) {
                    let digit = shoup(residue(centred(digit, prime.t), p), cofactor, p);
                    *to = reduce_once(*to + digit, p);
                }
            }
        }
        ring.forward(&mut polynomial);
        polynomial
    }

    /// The slots of what decrypts to `fractions` of a turn of `bits` bits, prime by prime.
    fn decode(&self, fractions: &[u128], bits: u32) -> Elements {
        let modulus = self.packing.plain_modulus();
        let rounded = fractions.iter().map(|fraction| {
            // round(x·T/2^88) with x in two halves; what is dropped is below 2^−44.
            let padded = fraction << (2 * HALF - bits);
            let (high, low) = (padded >> HALF, padded & u128::from(low_mask(HALF)));
            (high * modulus + ((low * modulus) >> HALF) + (1 << (HALF - 1))) >> HALF
        });
        let rounded: Zeroizing<Vec<u128>> = Zeroizing::new(rounded.collect());
        let mut slots = Zeroizing::new(Vec::with_capacity(self.packing.slots()));
        for Prime { t, plan, one, high, .. } in &self.primes {
            let part = rounded.iter().map(|m| {
                let (upper, lower) = ((m >> HALF) as u64, *m as u64 & low_mask(HALF));
                reduce_once(shoup(upper, *high, *t) + shoup(lower, *one, *t), *t)
            });
            let mut part: Elements = Zeroizing::new(part.collect());
            plan.fwd(&mut part);
            slots.extend_from_slice(&part);
        }
        slots
    }
}

impl SecretKeys {
    /// Encrypts cosine and sine of every pair, for exchange `number`. Every exchange of a session has
    /// another number.
    pub fn encrypt_slots(&self, packing: &SlotPacking, number: u32, pairs: &[[i32; 2]]) -> Vec<u8> {
        let key = &self.keys[packing.set];
        let (ring, slots) = (&key.ring, Slots::new(&key.ring, packing));
        let encrypt = |index: usize| {
            let value = |pair: usize, t| residue(i64::from(pairs[pair][index % 2]), t);
            let mut c0 = Zeroizing::new(vec![0; ring.words()]);
            let coefficients = slots.coefficients(index / 2, value);
            for (prime, coefficients) in slots.primes.iter().zip(&coefficients) {
                for (at, &m) in coefficients.iter().enumerate() {
                    prime.encoder.add(&mut c0, at, m);
                }
            }
            let errors = errors(&self.own, Stream::Error, number, index, ring.degree());
            ring.add_small(&mut c0, &errors, 1);
            mask(ring, &self.public, number, index, &key.secret, &mut c0);
            let mut bytes = Vec::with_capacity(key.lwe.ciphertext_bytes());
            pack_residues(&c0, &key.lwe, &mut bytes);
            bytes
        };
        let parts: Vec<Vec<u8>> = (0..2 * packing.chunks()).into_par_iter().map(encrypt).collect();
        parts.concat()
    }

    /// Decrypts the answer: `G, H` of every pair, less party 0's shares, mod the pair's `t`.
    ///
    /// # Errors
    /// If the message has another length.
    pub fn decrypt_slots(
        &self,
        packing: &SlotPacking,
        message: &[u8],
    ) -> Result<Elements, Malformed> {
        if message.len() != packing.answer_bytes() {
            return Err(Malformed("answer to a phase step"));
        }
        let key = &self.keys[packing.set];
        let (degree, slots) = (key.ring.degree(), Slots::new(&key.ring, packing));
        let (low, high) = packing.answer_bits();
        let (first_bytes, second_bytes) = (packed_bytes(degree, low), packed_bytes(degree, high));
        let decrypt = |answer: &[u8]| {
            let (second, first) = answer.split_at(second_bytes);
            let mut reader = Unpacker::new(first);
            let mut fractions = key.times_secret(second, high);
            for fraction in fractions.iter_mut() {
                let first = read_wide(&mut reader, low) << (high - low);
                *fraction = fraction.wrapping_add(first) & ((1 << high) - 1);
            }
            slots.decode(&fractions, high)
        };
        let parts: Vec<Elements> =
            message.par_chunks_exact(first_bytes + second_bytes).map(decrypt).collect();
        let pairs = parts.chunks_exact(2).flat_map(|p| p[0].iter().zip(p[1].iter()));
        let mut values = Zeroizing::new(Vec::with_capacity(2 * packing.pairs));
        values.extend(pairs.take(packing.pairs).flat_map(|(g, h)| [*g, *h]));
        Ok(values)
    }
}

impl PublicKeys {
    /// Answers party 1's ciphertexts of exchange `number` for the factors `α, β` of every pair. What party 1
    /// decrypts and the shares that come back here, uniform, sum to `G + B, H + B` mod the pair's `t`.
    ///
    /// # Errors
    /// If the message is not one of party 1's.
    pub fn answer_slots(
        &self,
        packing: &SlotPacking,
        number: u32,
        factors: &[[i64; 2]],
        message: &[u8],
    ) -> Result<(Vec<u8>, Elements), Malformed> {
        let key = &self.keys[packing.set];
        let ring = &key.ring;
        let malformed = Malformed("ciphertext of a phase step");
        if message.len() != packing.ciphertext_bytes() {
            return Err(malformed);
        }
        let slots = Slots::new(ring, packing);
        let read = |(index, bytes): (usize, &[u8])| {
            let first = unpack_residues(bytes, ring, &key.lwe).ok_or(malformed)?;
            Ok([first, uniform(ring, &self.public, number, index)])
        };
        let ciphertexts: Vec<[Vec<u64>; 2]> = message
            .par_chunks_exact(key.lwe.ciphertext_bytes())
            .enumerate()
            .map(read)
            .collect::<Result<_, Malformed>>()?;
        let shares = self.draw_shares(packing, number);
        let answer = |chunk: usize| {
            let factor = |side: usize| slots.factor(ring, chunk, |pair| factors[pair][side]);
            let (alpha, beta) = rayon::join(|| factor(0), || factor(1));
            let sums = |side: usize| {
                let sum = |component: usize| {
                    let [cos, sin] = [0, 1].map(|i| &ciphertexts[2 * chunk + i][component]);
                    let mut sum = vec![0; ring.words()];
                    if side == 0 {
                        ring.multiply_add(&mut sum, &alpha, cos);
                        ring.multiply_add(&mut sum, &beta, sin);
                    } else {
                        let mut minus = Zeroizing::new(vec![0; ring.words()]);
                        ring.multiply_add(&mut sum, &alpha, sin);
                        ring.multiply_add(&mut minus, &beta, cos);
                        ring.subtract(&mut sum, &minus);
                    }
                    sum
                };
                let mut sums = Zeroizing::new([sum(0), sum(1)]);
                self.finish_slots(&slots, number, (chunk, side), &mut *sums, &shares)
            };
            let (mut first, second) = rayon::join(|| sums(0), || sums(1));
            first.extend(second);
            first
        };
        let parts: Vec<Vec<u8>> = (0..packing.chunks()).into_par_iter().map(answer).collect();
        Ok((parts.concat(), shares))
    }

    /// Uniform shares of both values of every pair, below the pair's `t` and within 2^−96 of uniform.
    fn draw_shares(&self, packing: &SlotPacking, number: u32) -> Elements {
        let mut stream = self.own.keystream(Stream::Share as u8, number, 0);
        let mut draw = Zeroizing::new([0; 16]);
        let mut shares = Zeroizing::new(Vec::with_capacity(2 * packing.pairs));
        for value in 0..2 * packing.pairs {
            draw.fill(0);
            stream.apply_keystream(&mut *draw);
            let (draw, t) = (u128::from_le_bytes(*draw), u128::from(packing.modulus(value / 2)));
            shares.push((((draw >> 64) * t + ((u128::from(draw as u64) * t) >> 64)) >> 64) as u64);
        }
        shares
    }

    /// Re-randomises, puts the shares off, floods, and switches the modulus.
    fn finish_slots(
        &self,
        slots: &Slots<'_>,
        number: u32,
        (chunk, side): (usize, usize),
        sums: &mut [Vec<u64>],
        shares: &[u64],
    ) -> Vec<u8> {
        let packing = slots.packing;
        let key = &self.keys[packing.set];
        let (ring, k, index) = (&key.ring, packing.plain_bits(), 2 * chunk + side);
        let (low, high) = packing.answer_bits();
        self.refresh(packing.set, number, index, sums);
        let mut bytes = pack_fractions(ring, &sums[1], high);
        // B less party 0's shares.
        let rest = |pair: usize, t| reduce_once(packing.bound + t - shares[2 * pair + side], t);
        let rest = slots.coefficients(chunk, rest);
        let mut flood = self.flood(number, index, k);
        let mut packer = Packer::with_capacity(packed_bytes(ring.degree(), low));
        for at in 0..ring.degree() {
            let parts = slots.primes.iter().zip(&rest).map(|(p, rest)| (rest[at], p.reciprocal));
            let plain = ring.fraction(&sums[0], at).wrapping_add(sum_of_fractions(parts));
            push_wide(&mut packer, round_fraction(plain.wrapping_add(flood()), low), low);
        }
        bytes.extend(packer.finish());
        bytes
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
