//! Shares of `W·r` from ring-LWE encryption: party 1 encrypts its mask `r` under its own key, party 0
//! multiplies by its weights, keeps a share `s₀` and returns the rest.
//!
//! *Ciphertexts* are `(c₀, c₁) = (−a·s + e + q/2^k·r, a)` with `a` expanded from a public seed, so that
//! only `c₀` travels, transformed. [`Packing`] says where `r` and `W` stand, so that one product of
//! polynomials is a convolution or a matrix product; no rotations, no evaluation keys.
//!
//! *The answer.* Party 0 sums the products and adds an encryption of zero under party 1's public key
//! (`u·(b, a') + (0, e₁)`), so that the second component says nothing of the weights but under ring-LWE.
//! It rounds every wanted coefficient of the first one to `k` bits and takes `s₀` off mod `2^k`, rounds the
//! second one to a power of two ([`Packing::answer_bits`]), and sends both. Party 1 rounds the second
//! component's product with its secret and adds: two roundings of parts whose sum is next to a whole number,
//! so that one share in about 170 is a unit off ([`RingLwe::off_by_one`]). Bounds, parameters and their argument
//! stand in [`ir::plan::rlwe`].
//!
//! *What each sees.* Party 0: ring-LWE ciphertexts under a key that it does not have. Party 1: a second
//! component that is pseudorandom, and first components that are uniform whatever it sent, for they are padded
//! by `s₀` after all of their bits are fixed. No bit below is sent: a peer that sends no ciphertexts but numbers of
//! its choice would read the weights from it.

#[cfg(test)]
mod attack_tests;
mod ring;
mod sampling;
mod slots;
#[cfg(test)]
mod tests;

use super::expand::Seed;
use crate::secret::Elements;
use chacha20::cipher::StreamCipher;
use ir::plan::rlwe::{SEED_BYTES, key_bytes};
use ir::plan::{Packing, RingLwe};
use ir::ring::{Packer, Unpacker, low_mask, pack, packed_bytes, unpack};
use rayon::prelude::*;
use ring::{LIMB_BITS, Negacyclic, Ring};
use sampling::{Stream, errors, ternary, uniform};
use zeroize::Zeroizing;

/// A message of the peer that is not one of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {0} is malformed")]
pub struct Malformed(pub &'static str);

/// Party 1's keys, one for every set of parameters of a plan.
pub struct SecretKeys {
    /// Expands into the second components of everything that party 1 sends.
    public: Seed,
    /// Expands into secrets and errors.
    own: Seed,
    keys: Vec<SecretKey>,
}

struct SecretKey {
    ring: Ring,
    lwe: RingLwe,
    /// The transformed secret.
    secret: Zeroizing<Vec<u64>>,
    exact: Negacyclic,
    /// The secret, transformed for exact products.
    exact_secret: Zeroizing<Vec<u64>>,
}

/// Party 0's view of the keys.
pub struct PublicKeys {
    public: Seed,
    own: Seed,
    keys: Vec<PublicKey>,
}

struct PublicKey {
    ring: Ring,
    lwe: RingLwe,
    /// `−a'·s + e` and `a'`, transformed.
    zero: [Vec<u64>; 2],
}

/// The number of a key in place of an exchange.
const KEY: u32 = u32::MAX;

impl SecretKeys {
    /// Fresh keys, and the message with the public ones.
    ///
    /// # Errors
    /// If the operating system has no randomness.
    pub fn generate(sets: &[RingLwe]) -> Result<(Self, Vec<u8>), getrandom::Error> {
        Ok(Self::from_seeds(sets, Seed::from_system()?, Seed::from_system()?))
    }

    fn from_seeds(sets: &[RingLwe], public: Seed, own: Seed) -> (Self, Vec<u8>) {
        let mut message = public.expose().to_vec();
        let mut keys = Vec::with_capacity(sets.len());
        for (set, lwe) in sets.iter().enumerate() {
            let ring = Ring::new(lwe);
            let exact = Negacyclic::new(lwe.degree());
            let ternary = ternary(&own, Stream::Secret, KEY, set, lwe.degree());
            let mut secret = Zeroizing::new(vec![0; ring.words()]);
            ring.add_small(&mut secret, &ternary, 1);
            ring.forward(&mut secret);
            let exact_secret = exact.transform(ternary.iter().copied());
            let mut zero = Zeroizing::new(vec![0; ring.words()]);
            ring.add_small(&mut zero, &errors(&own, Stream::Error, KEY, set, lwe.degree()), 1);
            mask(&ring, &public, KEY, set, &secret, &mut zero);
            pack_residues(&zero, lwe, &mut message);
            keys.push(SecretKey { ring, lwe: *lwe, secret, exact, exact_secret });
        }
        (Self { public, own, keys }, message)
    }

    /// Encrypts the masks of one step's operand, item by item, for exchange `number`. Every exchange of
    /// a session has another number.
    pub fn encrypt(&self, packing: &Packing, number: u32, masks: &[&[u64]]) -> Vec<u8> {
        let key = &self.keys[packing.set];
        let encoder = key.ring.encoder(packing.ring());
        let ring_mask = low_mask(packing.ring());
        let (images, channels, _) = packing.groups();
        let encrypt = |index: usize| {
            let mut c0 = Zeroizing::new(vec![0; key.ring.words()]);
            packing.operands((index / channels, index % channels), |at, item, element| {
                encoder.add(&mut c0, at, masks[item][element] & ring_mask);
            });
            let errors = errors(&self.own, Stream::Error, number, index, key.ring.degree());
            key.ring.add_small(&mut c0, &errors, 1);
            mask(&key.ring, &self.public, number, index, &key.secret, &mut c0);
            let mut bytes = Vec::with_capacity(key.lwe.ciphertext_bytes());
            pack_residues(&c0, &key.lwe, &mut bytes);
            bytes
        };
        let parts: Vec<Vec<u8>> = (0..images * channels).into_par_iter().map(encrypt).collect();
        parts.concat()
    }

    /// Decrypts the answer: per item party 1's share `W·r − s₀`.
    ///
    /// # Errors
    /// If the message is not one of party 0's.
    pub fn decrypt(&self, packing: &Packing, message: &[u8]) -> Result<Vec<Elements>, Malformed> {
        let malformed = Malformed("answer to a linear step");
        if message.len() != packing.bytes().1 {
            return Err(malformed);
        }
        let key = &self.keys[packing.set];
        let degree = key.ring.degree();
        let (k, high) = packing.answer_bits();
        let (images, _, outputs) = packing.groups();
        let second_bytes = packed_bytes(degree, high);
        let (seconds, firsts) = message.split_at(images * outputs * second_bytes);
        let mut reader = Unpacker::new(firsts);
        let elements = packing.planes().result_elements();
        let mut shares: Vec<Elements> =
            (0..packing.items()).map(|_| Zeroizing::new(vec![0; elements])).collect();
        let products: Vec<Zeroizing<Vec<u128>>> = seconds
            .par_chunks_exact(second_bytes)
            .map(|bytes| key.times_secret(bytes, high))
            .collect();
        let half = 1u128 << (high - k - 1);
        for (index, products) in products.iter().enumerate() {
            packing.results((index / outputs, index % outputs), |at, item, element| {
                let own = (products[at].wrapping_add(half) >> (high - k)) as u64;
                shares[item][element] = reader.next(k).wrapping_add(own) & low_mask(k);
            });
        }
        if !reader.is_exhausted() {
            return Err(malformed);
        }
        Ok(shares)
    }
}

impl SecretKey {
    /// `c₁·s` of an answer's packed second component, mod 2^128.
    fn times_secret(&self, bytes: &[u8], bits: u32) -> Zeroizing<Vec<u128>> {
        let mut reader = Unpacker::new(bytes);
        let second: Vec<u128> =
            (0..self.ring.degree()).map(|_| read_wide(&mut reader, bits)).collect();
        let mut sum = Zeroizing::new(vec![0u128; self.ring.degree()]);
        for shift in (0..bits).step_by(LIMB_BITS as usize) {
            let limb = second.iter().map(|v| (v >> shift) as i64 & low_mask(LIMB_BITS) as i64);
            let limb = self.exact.transform(limb);
            let product = self.exact.product(limb, &self.exact_secret);
            for (sum, v) in sum.iter_mut().zip(product) {
                *sum = sum.wrapping_add((i128::from(v) as u128) << shift);
            }
        }
        sum
    }
}

impl PublicKeys {
    /// Reads party 1's key message.
    ///
    /// # Errors
    /// If it is not one. `own` is fresh.
    pub fn read(sets: &[RingLwe], message: &[u8], own: Seed) -> Result<Self, Malformed> {
        let malformed = Malformed("public key");
        if message.len() != key_bytes(sets) {
            return Err(malformed);
        }
        let (seed, mut rest) = message.split_at(SEED_BYTES);
        let public = Seed::from_item(seed).ok_or(malformed)?;
        let mut keys = Vec::with_capacity(sets.len());
        for (set, lwe) in sets.iter().enumerate() {
            let ring = Ring::new(lwe);
            let (bytes, others) = rest.split_at(lwe.ciphertext_bytes());
            let first = unpack_residues(bytes, &ring, lwe).ok_or(malformed)?;
            let second = uniform(&ring, &public, KEY, set);
            rest = others;
            keys.push(PublicKey { ring, lwe: *lwe, zero: [first, second] });
        }
        Ok(Self { public, own, keys })
    }

    /// Answers party 1's ciphertexts of exchange `number`: the step's weights are applied, and each
    /// item's `s₀` is taken off.
    ///
    /// # Errors
    /// If the message is not one of party 1's.
    pub fn answer(
        &self,
        packing: &Packing,
        number: u32,
        weights: &[i32],
        message: &[u8],
        shares: &[Elements],
    ) -> Result<Vec<u8>, Malformed> {
        let key = &self.keys[packing.set];
        let (ring, lwe) = (&key.ring, &key.lwe);
        let (images, channels, outputs) = packing.groups();
        let malformed = Malformed("ciphertext of a linear step");
        if message.len() != packing.bytes().0 {
            return Err(malformed);
        }
        let read = |(index, bytes): (usize, &[u8])| {
            let first = unpack_residues(bytes, ring, lwe).ok_or(malformed)?;
            Ok([first, uniform(ring, &self.public, number, index)])
        };
        let ciphertexts: Vec<[Vec<u64>; 2]> = message
            .par_chunks_exact(lwe.ciphertext_bytes())
            .enumerate()
            .map(read)
            .collect::<Result<_, Malformed>>()?;
        let answer = |output: usize| {
            let mut sums = Zeroizing::new(vec![vec![0u64; ring.words()]; 2 * images]);
            let mut polynomial = Zeroizing::new(vec![0; ring.words()]);
            for channel in 0..channels {
                if !self.put_weights(packing, (output, channel), weights, &mut polynomial) {
                    continue;
                }
                ring.forward(&mut polynomial);
                for (image, sums) in sums.chunks_exact_mut(2).enumerate() {
                    let ciphertext = &ciphertexts[image * channels + channel];
                    for (sum, component) in sums.iter_mut().zip(ciphertext) {
                        ring.multiply_add(sum, &polynomial, component);
                    }
                }
            }
            let finish = |(image, sums): (usize, &mut [Vec<u64>])| {
                self.finish(packing, number, (image, output), sums, shares)
            };
            sums.chunks_exact_mut(2).enumerate().map(finish).collect::<Vec<_>>()
        };
        let answers: Vec<Vec<Answer>> = (0..outputs).into_par_iter().map(answer).collect();
        let mut bytes = Vec::with_capacity(packing.bytes().1);
        for image in 0..images {
            answers.iter().for_each(|of_output| bytes.extend_from_slice(&of_output[image].second));
        }
        let mut packer = Packer::with_capacity(packing.bytes().1 - bytes.len());
        for image in 0..images {
            let firsts = answers.iter().flat_map(|of_output| of_output[image].firsts.iter());
            firsts.for_each(|&first| packer.push(first, packing.ring()));
        }
        bytes.extend(packer.finish());
        Ok(bytes)
    }

    /// The weights' polynomial of an output and a channel group, not transformed; `false` if it is zero
    /// by structure.
    fn put_weights(
        &self,
        packing: &Packing,
        groups: (usize, usize),
        weights: &[i32],
        polynomial: &mut [u64],
    ) -> bool {
        let ring = &self.keys[packing.set].ring;
        let mut is_used = false;
        polynomial.fill(0);
        packing.weights(groups, |at, index| {
            is_used = true;
            for (i, p) in ring.moduli().enumerate() {
                polynomial[i * ring.degree() + at] = ring::residue(i64::from(weights[index]), p);
            }
        });
        is_used
    }

    /// Adds an encryption of zero to an answer's sums and transforms them back.
    fn refresh(&self, set: usize, number: u32, index: usize, sums: &mut [Vec<u64>]) {
        let key = &self.keys[set];
        let (ring, degree) = (&key.ring, key.ring.degree());
        let mut u = Zeroizing::new(vec![0; ring.words()]);
        ring.add_small(&mut u, &ternary(&self.own, Stream::Refresh, number, index, degree), 1);
        ring.forward(&mut u);
        for (sum, zero) in sums.iter_mut().zip(&key.zero) {
            ring.multiply_add(sum, &u, zero);
            ring.inverse(sum);
        }
        // The inverse transform left a factor of N.
        let errors = errors(&self.own, Stream::RefreshError, number, index, degree);
        ring.add_small(&mut sums[1], &errors, degree as i64);
    }

    /// Re-randomises, rounds, and takes off the shares.
    fn finish(
        &self,
        packing: &Packing,
        number: u32,
        (image, output): (usize, usize),
        sums: &mut [Vec<u64>],
        shares: &[Elements],
    ) -> Answer {
        let key = &self.keys[packing.set];
        let ring = &key.ring;
        let (k, high) = packing.answer_bits();
        let index = image * packing.groups().2 + output;
        self.refresh(packing.set, number, index, sums);
        let mut wanted = vec![];
        packing.results((image, output), |at, item, element| wanted.push((at, item, element)));
        // The order matters: what is taken off a rounded number is a one-time pad for all of it.
        let first = |&(at, item, element): &(usize, usize, usize)| {
            let rounded = round_fraction(ring.fraction(&sums[0], at), k) as u64;
            rounded.wrapping_sub(shares[item][element]) & low_mask(k)
        };
        let firsts = wanted.iter().map(first).collect();
        Answer { second: pack_fractions(ring, &sums[1], high), firsts }
    }

    /// The flooding of an answer to slots with a plaintext modulus of `k` bits, coefficient by coefficient: uniform
    /// in `±2^−(k+4)` of a turn, which is `2^f` errors or more.
    fn flood(&self, number: u32, index: usize, k: u32) -> impl FnMut() -> u128 {
        let room = 128 - k - 3;
        let mut stream = self.own.keystream(Stream::Flood as u8, number, index as u32);
        move || {
            let mut flood = Zeroizing::new([0; 16]);
            stream.apply_keystream(&mut *flood);
            (u128::from_le_bytes(*flood) >> (128 - room)).wrapping_sub(1 << (room - 1))
        }
    }
}

/// An answer's packed second component, and the wanted coefficients of the first.
struct Answer {
    second: Vec<u8>,
    firsts: Vec<u64>,
}

/// `c₀ = c₀ − a·s`, transformed; `c₀` comes in coefficients.
fn mask(ring: &Ring, public: &Seed, number: u32, index: usize, secret: &[u64], c0: &mut [u64]) {
    ring.forward(c0);
    let a = uniform(ring, public, number, index);
    let mut product = Zeroizing::new(vec![0; ring.words()]);
    ring.multiply_add(&mut product, &a, secret);
    ring.subtract(c0, &product);
}

/// The nearest multiple of `2^−bits` to a fraction, in that unit.
fn round_fraction(fraction: u128, bits: u32) -> u128 {
    fraction.wrapping_add(1 << (127 - bits)) >> (128 - bits)
}

/// All coefficients of what [`Ring::inverse`] returned as fractions of `bits` bits.
fn pack_fractions(ring: &Ring, polynomial: &[u64], bits: u32) -> Vec<u8> {
    let mut packer = Packer::with_capacity(packed_bytes(ring.degree(), bits));
    for at in 0..ring.degree() {
        push_wide(&mut packer, round_fraction(ring.fraction(polynomial, at), bits), bits);
    }
    packer.finish()
}

fn pack_residues(polynomial: &[u64], lwe: &RingLwe, bytes: &mut Vec<u8>) {
    bytes.extend(pack(polynomial, lwe.prime_bits));
}

/// `None` if a residue is not below its prime.
fn unpack_residues(bytes: &[u8], ring: &Ring, lwe: &RingLwe) -> Option<Vec<u64>> {
    let words = unpack(bytes, ring.words(), lwe.prime_bits)?;
    let parts = words.chunks_exact(ring.degree()).zip(ring.moduli());
    parts.into_iter().all(|(part, p)| part.iter().all(|&v| v < p)).then_some(words)
}

/// Packed polynomials in the other form: their coefficients, times the degree, if they were transformed.
#[cfg(test)]
pub fn transformed(lwe: &RingLwe, bytes: &[u8], is_inverse: bool) -> Vec<u8> {
    let ring = Ring::new(lwe);
    let mut all = vec![];
    for bytes in bytes.chunks_exact(lwe.ciphertext_bytes()) {
        let mut words = unpack_residues(bytes, &ring, lwe).unwrap();
        if is_inverse {
            ring.inverse(&mut words)
        } else {
            ring.forward(&mut words)
        }
        pack_residues(&words, lwe, &mut all);
    }
    all
}

fn push_wide(packer: &mut Packer, value: u128, bits: u32) {
    packer.push(value as u64, bits.min(64));
    if bits > 64 {
        packer.push((value >> 64) as u64, bits - 64);
    }
}

fn read_wide(reader: &mut Unpacker, bits: u32) -> u128 {
    let low = u128::from(reader.next(bits.min(64)));
    if bits > 64 { low | u128::from(reader.next(bits - 64)) << 64 } else { low }
}
