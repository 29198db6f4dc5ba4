//! The products of a phase step by batched encryption: `G_n = α_n·cos nM + β_n·sin nM` and
//! `H_n = α_n·sin nM − β_n·cos nM`, as in [`super::trees`], in three messages.
//!
//! Party 1 encrypts its cosines and sines, party 0 answers; that makes shares `a`, `d` of `G + B` mod `t`, which
//! are uniform. Then `G = a + d − B − t + t·[a ≤ 2B]·[d ≤ 2B]` over the integers, as [`ir::plan::SlotPacking`]
//! shows: one transfer per value, in which party 0 chooses by its bit and party 1's scalar is `t` or nothing.
//! Party 0's choices travel with its answer.

use super::phase_of;
use crate::preprocess::rlwe::{PublicKeys, SecretKeys};
use crate::preprocess::transfer::gilboa::{self, Sending, Widths, flip_bytes};
use crate::preprocess::transfer::{TransferError, Transfers, expect_length};
use crate::secret::Elements;
use crate::steps::reverse::Answered;
use ir::plan::preprocess::transfers::extension_bytes;
use ir::plan::{Phase, PhaseTables, SlotPacking};
use ir::ring::low_mask;
use ir::word::vectorized;
use zeroize::Zeroizing;

/// Party 1's message of exchange `number` for elements with the masks `masks` of the operand, of `ring`
/// bits.
pub fn ask(
    keys: &SecretKeys,
    packing: &SlotPacking,
    number: u32,
    (phase, ring): (&Phase, u32),
    masks: &[u64],
) -> Vec<u8> {
    let tables = PhaseTables::new(phase.mask_bits, phase.harmonics, phase.g2);
    let narrow = |table: &Vec<i64>| table.iter().map(|&v| v as i32).collect::<Vec<i32>>();
    let cos: Vec<Vec<i32>> = tables.cos.iter().map(narrow).collect();
    let sin: Vec<Vec<i32>> = tables.sin.iter().map(narrow).collect();
    let mut pairs = Zeroizing::new(Vec::with_capacity(packing.pairs));
    vectorized(
        #[inline(always)]
        || {
            for &m in masks {
                let place = phase_of(m, ring, phase.mask_bits) as u32;
                pairs.extend(cos.iter().zip(&sin).map(|tables| look_up(tables, place)));
            }
        },
    );
    keys.encrypt_slots(packing, number, &pairs)
}

/// Entry `place` of both tables; all entries are read.
#[inline(always)]
fn look_up((cos, sin): (&Vec<i32>, &Vec<i32>), place: u32) -> [i32; 2] {
    let entries = (0u32..).zip(cos.iter().zip(sin));
    entries.fold([0; 2], |[c, s], (x, (cos, sin))| {
        // All ones where x is the place: both are below 2^31.
        let is_here = ((x ^ place).wrapping_sub(1) as i32) >> 31;
        [c | cos & is_here, s | sin & is_here]
    })
}

/// Party 0's answer for the factors `α, β` of every pair; its shares follow from party 1's last message.
///
/// # Errors
/// If party 1's message is none of this protocol.
pub fn answer(
    transfers: &mut Transfers,
    keys: &PublicKeys,
    packing: &SlotPacking,
    number: u32,
    factors: &[[i64; 2]],
    message: &[u8],
) -> Result<(Answered<Elements>, Vec<u8>), TransferError> {
    let (mut answer, mut shares) =
        keys.answer_slots(packing, number, factors, message).map_err(TransferError::Ciphertext)?;
    let bits = shares.iter().map(|&a| is_low(packing, a) as u8);
    let bits = Zeroizing::new(bits.collect::<Vec<u8>>());
    for (value, share) in shares.iter_mut().enumerate() {
        *share = share.wrapping_sub(packing.bound).wrapping_sub(packing.modulus(value / 2));
    }
    let (answered, message) = Answered::new(transfers, shares, bits);
    answer.extend(message);
    Ok((answered, answer))
}

/// Party 1's last message and its shares, from party 0's answer.
///
/// # Errors
/// If it has another length or set padding bits.
pub fn finish(
    transfers: &mut Transfers,
    keys: &SecretKeys,
    packing: &SlotPacking,
    message: &[u8],
) -> Result<(Vec<u8>, Elements), TransferError> {
    let (values, encrypted) = (2 * packing.pairs, packing.answer_bytes());
    let extension = extension_bytes(values);
    expect_length(message, encrypted + extension + flip_bytes(values))?;
    let (encrypted, rest) = message.split_at(encrypted);
    let (extension, flips) = rest.split_at(extension);
    let mut shares = keys.decrypt_slots(packing, encrypted).map_err(TransferError::Ciphertext)?;
    let blocks = transfers.sender.extend(values, extension)?;
    let (hashes, delta) = (&transfers.hashes, transfers.sender.delta());
    let sending = Sending { hashes, delta, blocks: &blocks };
    let scalars = |value: usize, to: &mut [u128]| {
        let chosen = is_low(packing, shares[value]).wrapping_neg();
        to[0] = u128::from(packing.modulus(value / 2) & chosen);
    };
    let (last, products) =
        gilboa::send(&width(packing), &sending, flips, (values, 1), scalars, low)?;
    add(packing, &mut shares, &products);
    Ok((last, shares))
}

impl Answered<Elements> {
    /// Party 0's shares of the products of a phase step, from party 1's last message.
    ///
    /// # Errors
    /// If it has another length or set padding bits.
    pub fn finish_slots(
        self,
        transfers: &Transfers,
        packing: &SlotPacking,
        message: &[u8],
    ) -> Result<Elements, TransferError> {
        let (receiving, sizes) = (self.receiving(transfers), (2 * packing.pairs, 1));
        let products = gilboa::receive(&width(packing), &receiving, message, sizes, low)?;
        let mut shares = self.shares;
        add(packing, &mut shares, &products);
        Ok(shares)
    }
}

/// 1 where a share mod `t` is at most `2B`.
fn is_low(packing: &SlotPacking, share: u64) -> u64 {
    share.wrapping_sub(2 * packing.bound + 1) >> 63
}

fn width(packing: &SlotPacking) -> Widths {
    Widths::new([vec![packing.q]])
}

fn low(shares: &[u128], out: &mut [u64]) {
    out[0] = shares[0] as u64;
}

fn add(packing: &SlotPacking, shares: &mut [u64], products: &[u64]) {
    for (share, product) in shares.iter_mut().zip(products) {
        *share = share.wrapping_add(*product) & low_mask(packing.q);
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
