//! A party 1 that sends no key and no ciphertexts, but numbers of its choice: a public key whose first component is
//! zero, and constant polynomials. Of those party 0's products have multiples of single weights as their
//! coefficients, with no secret and no noise around them; every check of lengths and residues passes. What such a
//! peer learns of the weights must be what a guess learns.
//!
//! Where the first component has a bit below those that `s₀` pads, that bit says on which side of a threshold the
//! multiple of the weight lies: with protocol version 2, which sent `k + 1` bits, flooded by a sixteenth of a step, the
//! attack below read every weight up to its sign.

use super::*;
use crate::preprocess::expand::Domain;
use crate::testing::{Random, assert_uniform, plans::Builder};

/// Weights that are probed at once: one for every output of a matrix product of one input.
const PROBED: usize = 64;
/// Magnitudes that a weight of 8 bits may have.
const MAGNITUDES: usize = 128;

/// The packing of a product of one input with [`PROBED`] weights.
fn probed() -> Packing {
    let mut builder = Builder::new([1, 1], 16);
    let product = builder.matrix(0, PROBED, 16, 127);
    let (plan, _) = builder.finish(product);
    plan.packing(1, 1).unwrap()
}

/// A constant polynomial, near `turn/2^64` of a turn, transformed and packed as a ciphertext is.
fn constant(ring: &Ring, lwe: &RingLwe, turn: u64) -> Vec<u8> {
    let q: u128 = ring.moduli().map(u128::from).product();
    let value = (q >> 64) * u128::from(turn) + (((q as u64 as u128) * u128::from(turn)) >> 64);
    // All evaluations of a constant are the constant.
    let residues = |p: u64| std::iter::repeat_n((value % u128::from(p)) as u64, ring.degree());
    let words: Vec<u64> = ring.moduli().flat_map(residues).collect();
    pack(&words, lwe.prime_bits)
}

/// One session: party 0 with fresh randomness answers a constant. The first components, in bits.
fn probe(packing: &Packing, ring: &Ring, weights: &[i32], session: u64, turn: u64) -> Vec<u64> {
    let lwe = packing.lwe;
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&session.to_le_bytes());
    let own = Seed::from_item(&seed).unwrap();
    let mut key = vec![7; SEED_BYTES];
    key.extend(vec![0; lwe.ciphertext_bytes()]);
    seed[31] = 1;
    let item = Seed::from_item(&seed).unwrap();
    let shares = item.elements(1, Domain::Field, PROBED, packing.ring());
    let party0 = PublicKeys::read(&[lwe], &key, own).unwrap();
    let down = party0.answer(packing, 0, weights, &constant(ring, &lwe, turn), &[shares]).unwrap();
    let (low, high) = packing.answer_bits();
    let mut reader = Unpacker::new(&down[packed_bytes(ring.degree(), high)..]);
    (0..PROBED).map(|_| reader.next(low)).collect()
}

#[test]
fn thresholds_of_weights_are_read_as_well_as_guessed() {
    let packing = probed();
    assert_eq!(packing.groups(), (1, 1, 1));
    let ring = Ring::new(&packing.lwe);
    let mut random = Random::new(3);
    let weights: Vec<i32> = (0..PROBED).map(|_| random.between(0, 254) as i32 - 127).collect();
    let low = packing.answer_bits().0;
    // How often the lowest bit was what a weight of this magnitude would make it.
    let mut votes = vec![[0u32; MAGNITUDES]; PROBED];
    for session in 0..1000 {
        // A multiple of the weight below two of the lowest bit's units.
        let turn = random.bits(64 - low + 1);
        let unit = 1u64 << (64 - low);
        let firsts = probe(&packing, &ring, &weights, session, turn);
        for (votes, first) in votes.iter_mut().zip(&firsts) {
            for (magnitude, votes) in votes.iter_mut().enumerate() {
                let rounded =
                    (magnitude as u128 * u128::from(turn) + u128::from(unit / 2)) >> (64 - low);
                *votes += u32::from(rounded as u64 & 1 == first & 1);
            }
        }
    }
    let read = |(votes, weight): (&[u32; MAGNITUDES], &i32)| {
        let best = (0..MAGNITUDES).max_by_key(|&magnitude| votes[magnitude]);
        best == Some(weight.unsigned_abs() as usize)
    };
    let right = votes.iter().zip(&weights).filter(|&pair| read(pair)).count();
    println!("{right} of {PROBED} weights were read");
    // One in 128 is right by chance: more than five of 64 with probability 10^−5.
    assert!(right <= 5, "{right} of {PROBED} weights were read");
}

/// All bits of the first component, not the lowest alone, for a constant that shows most of them.
#[test]
fn all_bits_of_an_answer_to_a_constant_are_fair() {
    let packing = probed();
    let ring = Ring::new(&packing.lwe);
    let weights = vec![77; PROBED];
    let bytes = |session| {
        let firsts = probe(&packing, &ring, &weights, session, 0x0123_4567_89ab_cdef);
        pack(&firsts, packing.answer_bits().0)
    };
    assert_uniform(&(0..400).map(bytes).collect::<Vec<_>>());
}
