//! The products of a polynomial step, in the order of [`super::products`].
//!
//! For every power `j` party 1's bits choose: those of `N_j = M^j` the scalar `u_j`, and those of
//! `−w_j/2^p`, a natural number, the scalars `u_j` and `u_j·β`. Party 0's bit `β` then chooses among all
//! `w_j` at once. Widths are those that matter mod 2^Q ([`Square::power_bits`]).

use super::{PRODUCTS, Powers, top_factor};
use crate::preprocess::transfer::gilboa::{self, Receiving, Sending, Widths, flip_bytes, weigh};
use crate::preprocess::transfer::{Received, TransferError, Transfers, expect_length};
use crate::secret::{Elements, WideElements};
use crate::steps::reverse::{Answered, bits_below};
use crate::steps::row;
use crate::steps::truncate::wide_mask;
use ir::plan::preprocess::transfers::extension_bytes;
use ir::plan::{Square, Step};
use std::ops::Range;
use zeroize::Zeroizing;

/// Products per power made by party 1's choices.
const FORWARD: usize = 3;

/// Party 1 between its message and party 0's.
pub struct Asked {
    square: Square,
    degree: u32,
    masks: Elements,
    bits: Zeroizing<Vec<u8>>,
    received: Received,
}

/// Party 1's message for elements with the operand's masks `masks`.
pub fn ask(
    transfers: &mut Transfers,
    square: &Square,
    degree: u32,
    masks: &[u64],
) -> (Asked, Vec<u8>) {
    let per_element = widths(square, degree).transfers();
    let mut bits = Zeroizing::new(Vec::with_capacity(masks.len() * per_element));
    let mut own = Zeroizing::new(Vec::with_capacity(masks.len()));
    for &m in masks {
        let mut powers = Powers::new(square, m);
        for power in 1..=degree {
            let ((n, w), counts) = (powers.next_pair(), square.power_bits(power));
            bits.extend(bits_below(n, counts.0));
            bits.extend(bits_below(w.wrapping_neg() >> square.p, counts.1));
        }
        own.push(m);
    }
    let mut received = transfers.receiver.extend(bits.len());
    let mut message = std::mem::take(&mut received.message);
    message.extend(gilboa::flips(&bits, &received.choices));
    (Asked { square: *square, degree, masks: own, bits, received }, message)
}

/// Party 0's message for its `u_1 … u_(d−1)` and `β` of the same `elements` of the step, whose channels have
/// these coefficients; its shares follow from party 1's next message.
///
/// # Errors
/// If party 1's message has another length or set padding bits.
#[allow(clippy::too_many_arguments, reason = "a step's public and secret parameters, as they are")]
pub fn answer(
    transfers: &mut Transfers,
    square: &Square,
    step: &Step,
    coefficients: &[Vec<i128>],
    elements: Range<usize>,
    (u, bits): (&[u128], &[u64]),
    message: &[u8],
) -> Result<(Answered<WideElements>, Vec<u8>), TransferError> {
    let degree = coefficients[0].len() as u32 - 1;
    let (widths, count) = (widths(square, degree), elements.len());
    let chosen = count * widths.transfers();
    expect_length(message, extension_bytes(chosen) + flip_bytes(chosen))?;
    let (extension, flips) = message.split_at(extension_bytes(chosen));
    let blocks = transfers.sender.extend(chosen, extension)?;
    let (hashes, delta) = (&transfers.hashes, transfers.sender.delta());
    let sending = Sending { hashes, delta, blocks: &blocks };
    let own = degree as usize - 1;
    let scalars = |element: usize, to: &mut [u128]| {
        let top = top_factor(row::<Vec<i128>>(
            coefficients,
            step,
            (elements.start + element) % step.shape.elements(),
        ));
        let factors = u[element * own..(element + 1) * own].iter().chain([&top]);
        let mut rest = to;
        for (power, factor) in (1..=degree).zip(factors) {
            let (n, w) = square.power_bits(power);
            let (of_power, next) = rest.split_at_mut((n + 2 * w) as usize);
            let (of_n, of_w) = of_power.split_at_mut(n as usize);
            of_n.fill(*factor);
            of_w.as_chunks_mut::<2>().0.fill([*factor, factor * u128::from(bits[element])]);
            rest = next;
        }
    };
    let fold = |shares: &[u128], out: &mut [u128]| forward(square, degree, shares, out);
    let sizes = (count, FORWARD * degree as usize);
    let (mut answer, shares) = gilboa::send(&widths, &sending, flips, sizes, scalars, fold)?;
    let chosen = Zeroizing::new(bits.iter().map(|bit| *bit as u8).collect());
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
    ) -> Result<(Vec<u8>, WideElements), TransferError> {
        let Self { square, degree, masks, bits, received } = self;
        let (widths, count) = (widths(&square, degree), masks.len());
        let (corrections, extension) = (widths.bytes(count), extension_bytes(count));
        expect_length(message, corrections + extension + flip_bytes(count))?;
        let (corrections, rest) = message.split_at(corrections);
        let (extension, flips) = rest.split_at(extension);
        let receiving =
            Receiving { hashes: &transfers.hashes, blocks: &received.blocks, bits: &bits };
        let fold = |shares: &[u128], out: &mut [u128]| forward(&square, degree, shares, out);
        let sizes = (count, FORWARD * degree as usize);
        let made = gilboa::receive(&widths, &receiving, corrections, sizes, fold)?;
        let blocks = transfers.sender.extend(count, extension)?;
        let (hashes, delta) = (&transfers.hashes, transfers.sender.delta());
        let sending = Sending { hashes, delta, blocks: &blocks };
        let scalars = |element: usize, to: &mut [u128]| {
            let mut powers = Powers::new(&square, masks[element]);
            to.iter_mut().for_each(|to| *to = powers.next_pair().1);
        };
        let (widths, sizes) = (reverse_widths(&square, degree), (count, degree as usize));
        let (last, also) = gilboa::send(&widths, &sending, flips, sizes, scalars, all)?;
        Ok((last, join(&square, &made, &also)))
    }
}

impl Answered<WideElements> {
    /// Party 0's shares of the products, from party 1's last message.
    ///
    /// # Errors
    /// If it has another length or set padding bits.
    pub fn finish(
        self,
        transfers: &Transfers,
        square: &Square,
        degree: u32,
        message: &[u8],
    ) -> Result<WideElements, TransferError> {
        let widths = reverse_widths(square, degree);
        let sizes = (self.shares.len() / (FORWARD * degree as usize), degree as usize);
        let also = gilboa::receive(&widths, &self.receiving(transfers), message, sizes, all)?;
        Ok(join(square, &self.shares, &also))
    }
}

fn widths(square: &Square, degree: u32) -> Widths {
    Widths::new((1..=degree).flat_map(|power| {
        let (n, w) = square.power_bits(power);
        let of_n = (0..n).map(|i| vec![square.q - i]);
        of_n.chain((0..w).map(|i| vec![square.q - square.p - i; 2]))
    }))
}

fn reverse_widths(square: &Square, degree: u32) -> Widths {
    Widths::new([vec![square.q; degree as usize]])
}

/// Shares of `u_j·N_j, u_j·w_j, u_j·β·w_j` per power from those of the transfers.
fn forward(square: &Square, degree: u32, shares: &[u128], out: &mut [u128]) {
    let mut rest = shares;
    for (power, out) in (1..=degree).zip(out.as_chunks_mut::<FORWARD>().0) {
        let (n, w) = square.power_bits(power);
        let (of_power, next) = rest.split_at((n + 2 * w) as usize);
        let (of_n, of_w) = of_power.split_at(n as usize);
        let pairs = of_w.as_chunks::<2>().0;
        let wrapped = |side: usize| weigh(pairs.iter().map(|pair| pair[side])) << square.p;
        *out = [weigh(of_n.iter().copied()), wrapped(0).wrapping_neg(), wrapped(1).wrapping_neg()];
        rest = next;
    }
}

fn all(shares: &[u128], out: &mut [u128]) {
    out.copy_from_slice(shares);
}

/// All products per element and power, mod 2^Q.
fn join(square: &Square, forward: &[u128], reverse: &[u128]) -> WideElements {
    let mut shares = Zeroizing::new(Vec::with_capacity(reverse.len() * PRODUCTS));
    for (forward, last) in forward.as_chunks::<FORWARD>().0.iter().zip(reverse) {
        shares.extend(forward.iter().chain([last]).map(|share| share & wide_mask(square.q)));
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::expand::Seed;
    use crate::preprocess::transfer::setup::both;
    use crate::steps::polynomial::products;
    use crate::testing::Random;
    use ir::Shape;
    use ir::plan::Polynomial;

    #[test]
    fn shares_sum_to_the_ideal_products() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(9), seed(10));
        let mut random = Random::new(71);
        for round in 0..60u64 {
            let p = random.between(3, if round % 4 == 0 { 62 } else { 16 }) as u32;
            let q = random.between(1, 127) as u32;
            let degree = random.between(1, if round % 10 == 0 { 16 } else { 5 }) as usize;
            let square = Square { t: 1, p, q, shift: 0 };
            let count = random.between(1, 80) as usize;
            let op = Polynomial { square, degree: degree as u32 }.into();
            let (name, shape) = (String::new(), Shape::new([1, 3, 40]));
            let step = Step { name, op, operands: vec![], shape, ring: q, fraction_bits: 0 };
            let coefficients: Vec<Vec<i128>> = (0..3)
                .map(|_| (0..=degree).map(|_| random.wide(40) as i128 - 999).collect())
                .collect();
            let masks: Vec<u64> = (0..120).map(|_| random.bits(p + 1)).collect();
            let u: Vec<u128> = (0..120 * (degree - 1)).map(|_| random.wide(q)).collect();
            let bits: Vec<u64> = (0..120).map(|_| random.bits(1)).collect();
            let ideal = products(&square, &step, &coefficients, &masks, &u, &bits);

            let elements = 120 - count..120;
            let ideal = &ideal[elements.start * degree * PRODUCTS..];
            let (masks, bits) = (&masks[elements.start..], &bits[elements.start..]);
            let u = &u[elements.start * (degree - 1)..];
            let cost = Polynomial { square, degree: degree as u32 }.cost(count);
            let (asked, first) = ask(&mut party1, &square, degree as u32, masks);
            assert_eq!(first.len(), cost.bytes[0]);
            let mut answer = |message| {
                let elements = elements.clone();
                answer(&mut party0, &square, &step, &coefficients, elements, (u, bits), message)
            };
            assert!(answer(&first[1..]).is_err());
            let (answered, second) = answer(&first).unwrap();
            assert_eq!(second.len(), cost.bytes[1]);
            let (third, share1) = asked.finish(&mut party1, &second).unwrap();
            assert_eq!(third.len(), cost.bytes[2]);
            let share0 = answered.finish(&party0, &square, degree as u32, &third).unwrap();
            assert_eq!((share0.len(), share1.len()), (ideal.len(), ideal.len()));
            for ((a, b), product) in share0.iter().zip(&*share1).zip(ideal) {
                assert_eq!(a.wrapping_add(*b) & wide_mask(q), product & wide_mask(q));
                assert!(a | b <= wide_mask(q));
            }
        }
    }
}
