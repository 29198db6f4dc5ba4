//! The products of a square step, in the order of [`super::products`].
//!
//! Party 1's bits of `M` choose among party 0's scalars: those below the top bit `u`, and the top one, `c`,
//! all of `u, uβ, β, β', ββ'`, which makes five of the products and what `u·M` lacks. Party 0's bits `β` and
//! `β'` then choose among party 1's `c·M` and `M`. That makes `p + 2` transfers and three messages.

use super::{PRODUCTS, mask_and_top_bit};
use crate::preprocess::transfer::gilboa::{self, Receiving, Sending, Widths, flip_bytes, weigh};
use crate::preprocess::transfer::{Received, TransferError, Transfers, expect_length};
use crate::secret::Elements;
use crate::steps::reverse::{Answered, bits_below};
use ir::plan::Square;
use ir::plan::preprocess::transfers::extension_bytes;
use ir::ring::low_mask;
use zeroize::Zeroizing;

/// Products made by party 1's choices.
const FORWARD: usize = 6;
/// Products made by party 0's choices.
const REVERSE: usize = PRODUCTS - FORWARD;

/// Party 1 between its message and party 0's.
pub struct Asked {
    square: Square,
    masks: Elements,
    bits: Zeroizing<Vec<u8>>,
    received: Received,
}

/// Party 1's message for elements with the operand's masks `masks`.
pub fn ask(transfers: &mut Transfers, square: &Square, masks: &[u64]) -> (Asked, Vec<u8>) {
    let low = square.low_bits();
    let mut bits = Zeroizing::new(Vec::with_capacity(masks.len() * (low as usize + 1)));
    let mut own = Zeroizing::new(Vec::with_capacity(masks.len()));
    for &m in masks {
        let (mask, top) = mask_and_top_bit(square, m);
        bits.extend(bits_below(mask.into(), low));
        bits.push(top as u8);
        own.push(m);
    }
    let mut received = transfers.receiver.extend(bits.len());
    let mut message = std::mem::take(&mut received.message);
    message.extend(gilboa::flips(&bits, &received.choices));
    (Asked { square: *square, masks: own, bits, received }, message)
}

/// Party 0's message for its `u` and `β + 2β'` of the same elements; its shares follow from party 1's next.
///
/// # Errors
/// If party 1's message has another length or set padding bits.
pub fn answer(
    transfers: &mut Transfers,
    square: &Square,
    u: &[u64],
    bits: &[u64],
    message: &[u8],
) -> Result<(Answered<Elements>, Vec<u8>), TransferError> {
    let (widths, count) = (widths(square), u.len());
    let chosen = count * widths.transfers();
    expect_length(message, extension_bytes(chosen) + flip_bytes(chosen))?;
    let (extension, flips) = message.split_at(extension_bytes(chosen));
    let blocks = transfers.sender.extend(chosen, extension)?;
    let (hashes, delta) = (&transfers.hashes, transfers.sender.delta());
    let sending = Sending { hashes, delta, blocks: &blocks };
    let scalars = |element: usize, to: &mut [u128]| {
        let (u, bits) = (u128::from(u[element]), u128::from(bits[element]));
        let (b, b2) = (bits & 1, bits >> 1);
        let (below, at_top) = to.split_at_mut(to.len() - 5);
        below.fill(u);
        at_top.copy_from_slice(&[u, u * b, b, b2, b * b2]);
    };
    let fold = |shares: &[u128], out: &mut [u64]| forward(square, shares, out);
    let sizes = (count, FORWARD);
    let (mut answer, shares) = gilboa::send(&widths, &sending, flips, sizes, scalars, fold)?;
    let mut chosen = Zeroizing::new(Vec::with_capacity(2 * count));
    chosen.extend(bits.iter().flat_map(|bits| [(bits & 1) as u8, (bits >> 1) as u8]));
    let (answered, message) = Answered::new(transfers, shares, chosen);
    answer.extend(message);
    Ok((answered, answer))
}

impl Asked {
    /// Party 1's last message and its shares, from party 0's message.
    ///
    /// # Errors
    /// If it has another length or set padding bits.
    pub fn finish(
        self,
        transfers: &mut Transfers,
        message: &[u8],
    ) -> Result<(Vec<u8>, Elements), TransferError> {
        let Self { square, masks, bits, received } = self;
        let (widths, count) = (widths(&square), masks.len());
        let (reverse, corrections) = (count * REVERSE, widths.bytes(count));
        let extension = extension_bytes(reverse);
        expect_length(message, corrections + extension + flip_bytes(reverse))?;
        let (corrections, rest) = message.split_at(corrections);
        let (extension, flips) = rest.split_at(extension);
        let receiving =
            Receiving { hashes: &transfers.hashes, blocks: &received.blocks, bits: &bits };
        let fold = |shares: &[u128], out: &mut [u64]| forward(&square, shares, out);
        let sizes = (count, FORWARD);
        let made = gilboa::receive(&widths, &receiving, corrections, sizes, fold)?;
        let blocks = transfers.sender.extend(reverse, extension)?;
        let (hashes, delta) = (&transfers.hashes, transfers.sender.delta());
        let sending = Sending { hashes, delta, blocks: &blocks };
        let scalars = |element: usize, to: &mut [u128]| {
            let (mask, top) = mask_and_top_bit(&square, masks[element]);
            to.copy_from_slice(&[u128::from(top * mask), u128::from(mask)]);
        };
        let (widths, sizes) = (reverse_widths(&square), (count, REVERSE));
        let (last, also) = gilboa::send(&widths, &sending, flips, sizes, scalars, low)?;
        Ok((last, join(&square, &made, &also)))
    }
}

impl Answered<Elements> {
    /// Party 0's shares of the products, from party 1's last message.
    ///
    /// # Errors
    /// If it has another length or set padding bits.
    pub fn finish(
        self,
        transfers: &Transfers,
        square: &Square,
        message: &[u8],
    ) -> Result<Elements, TransferError> {
        let (widths, sizes) = (reverse_widths(square), (self.shares.len() / FORWARD, REVERSE));
        let also = gilboa::receive(&widths, &self.receiving(transfers), message, sizes, low)?;
        Ok(join(square, &self.shares, &also))
    }
}

fn widths(square: &Square) -> Widths {
    let below = (0..square.low_bits()).map(|i| vec![square.q - i]);
    Widths::new(below.chain([vec![square.q; 5]]))
}

fn reverse_widths(square: &Square) -> Widths {
    Widths::new([vec![square.q], vec![square.q]])
}

/// Shares of `u·M, u·c, uβ·c, β·c, β'·c, ββ'·c` from those of the transfers.
fn forward(square: &Square, shares: &[u128], out: &mut [u64]) {
    let (below, at_top) = shares.split_at(shares.len() - 5);
    let top = (at_top[0] as u64) << (square.p - 1);
    out[0] = (weigh(below.iter().copied()) as u64).wrapping_add(top);
    out[1..].iter_mut().zip(at_top).for_each(|(out, share)| *out = *share as u64);
}

fn low(shares: &[u128], out: &mut [u64]) {
    out.iter_mut().zip(shares).for_each(|(out, share)| *out = *share as u64);
}

/// All products per element, mod 2^Q.
fn join(square: &Square, forward: &[u64], reverse: &[u64]) -> Elements {
    let pairs = forward.chunks_exact(FORWARD).zip(reverse.chunks_exact(REVERSE));
    let all = pairs.flat_map(|(forward, reverse)| forward.iter().chain(reverse));
    let mut shares = Zeroizing::new(Vec::with_capacity(forward.len() + reverse.len()));
    shares.extend(all.map(|share| share & low_mask(square.q)));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::expand::Seed;
    use crate::preprocess::transfer::setup::both;
    use crate::steps::square::products;
    use crate::testing::Random;

    #[test]
    fn shares_sum_to_the_ideal_products() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(5), seed(6));
        let mut random = Random::new(51);
        for round in 0..60u64 {
            let p = random.between(3, if round % 4 == 0 { 62 } else { 20 }) as u32;
            let q = random.between(1, 64) as u32;
            let square = Square { t: random.between(0, 2) as u32, p, q, shift: 0 };
            let count = random.between(1, 150) as usize;
            let masks: Vec<u64> = (0..count).map(|_| random.bits(p + square.t)).collect();
            let u: Vec<u64> = (0..count).map(|_| random.bits(p)).collect();
            let bits: Vec<u64> = (0..count).map(|_| random.bits(2)).collect();
            let ideal = products(&square, &masks, &u, &bits);

            let cost = square.cost(count);
            let (asked, first) = ask(&mut party1, &square, &masks);
            assert_eq!(first.len(), cost.bytes[0]);
            assert!(answer(&mut party0, &square, &u, &bits, &first[1..]).is_err());
            let (answered, second) = answer(&mut party0, &square, &u, &bits, &first).unwrap();
            assert_eq!(second.len(), cost.bytes[1]);
            let (third, share1) = asked.finish(&mut party1, &second).unwrap();
            assert_eq!(third.len(), cost.bytes[2]);
            let share0 = answered.finish(&party0, &square, &third).unwrap();
            assert_eq!((share0.len(), share1.len()), (ideal.len(), ideal.len()));
            for ((a, b), product) in share0.iter().zip(&*share1).zip(&*ideal) {
                assert_eq!(a.wrapping_add(*b) & low_mask(q), product & low_mask(q));
                assert!(a | b <= low_mask(q));
            }
        }
    }

    #[test]
    #[ignore = "prints timings"]
    fn throughput() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(5), seed(6));
        let mut random = Random::new(52);
        let square = Square { t: 4, p: 15, q: 40, shift: 17 };
        let masks: Vec<u64> = (0..50_000).map(|_| random.bits(19)).collect();
        let u: Vec<u64> = masks.iter().map(|_| random.bits(15)).collect();
        let bits: Vec<u64> = masks.iter().map(|_| random.bits(2)).collect();
        for _ in 0..3 {
            let started = std::time::Instant::now();
            let (asked, first) = ask(&mut party1, &square, &masks);
            let asking = started.elapsed();
            let (answered, second) = answer(&mut party0, &square, &u, &bits, &first).unwrap();
            let answering = started.elapsed() - asking;
            let (third, _) = asked.finish(&mut party1, &second).unwrap();
            let finishing = started.elapsed() - asking - answering;
            answered.finish(&party0, &square, &third).unwrap();
            let last = started.elapsed() - asking - answering - finishing;
            println!("squares: ask {asking:?}, answer {answering:?}");
            println!("squares: finish {finishing:?}, party 0 finish {last:?}");
            println!("squares: {} {} {} bytes", first.len(), second.len(), third.len());
        }
    }
}
