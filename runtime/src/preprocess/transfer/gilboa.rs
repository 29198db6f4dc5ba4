//! Products of a bit of one party with scalars of the other, and sums of them: Gilboa's multiplication
//! ("Two party RSA key generation", CRYPTO 1999).
//!
//! In a transfer the *sender* has `q` and `Δ`, the *receiver* a random `b` and `t = q ⊕ b·Δ`. For its bit
//! `m` the receiver first sends `d = m ⊕ b`: with `q' = q ⊕ d·Δ` now `t = q' ⊕ m·Δ`. The sender takes
//! `−H(q')` and sends `c = s + H(q') − H(q' ⊕ Δ)`; the receiver takes `H(t) + m·c`. The shares sum to `m·s`.
//! To the receiver `c` is masked by the pad that it does not know ([`super::hash`]); to the sender `d` is
//! masked by `b`. One transfer serves several scalars, each with a pad of its own.
//!
//! A product of two numbers is the sum of `2^i·(m_i·s)` over the bits `m_i` of one of them; mod 2^Q the
//! share for bit `i` is needed mod `2^(Q − i)` only, so that every scalar has a width of its own and is
//! packed to it. How the shares of an element make up what is wanted is a linear map, the same for both
//! parties: the caller's `fold`.
//!
//! Elements are processed in groups of 64, whose messages end at whole bytes.

use super::hash::{Block, Hashes, select, xor};
use super::{TransferError, expect_length};
use ir::ring::{Packer, Unpacker, packed_bytes};
use rayon::prelude::*;
use zeroize::{Zeroize, Zeroizing};

/// Elements that are processed together, a multiple of 8.
const GROUP: usize = 64;

/// For every transfer of one element, the widths of its scalars: at most 127 bits each, and at most
/// [`PAD_BLOCKS`](super::hash::PAD_BLOCKS) of them.
pub struct Widths {
    widths: Vec<u32>,
    /// Scalars per transfer.
    scalars: Vec<usize>,
}

/// The sender's side of some transfers, as it comes from
/// [`CotSender::extend`](super::CotSender::extend).
pub struct Sending<'a> {
    /// The session's permutations.
    pub hashes: &'a Hashes,
    /// `Δ`.
    pub delta: &'a Block,
    /// `q`.
    pub blocks: &'a [Block],
}

/// The receiver's side of some transfers.
pub struct Receiving<'a> {
    /// The session's permutations.
    pub hashes: &'a Hashes,
    /// `t`.
    pub blocks: &'a [Block],
    /// The bits `m` that the transfers were turned to by [`flips`].
    pub bits: &'a [u8],
}

impl Widths {
    /// From the widths of every transfer's scalars.
    pub fn new(transfers: impl IntoIterator<Item = Vec<u32>>) -> Self {
        let transfers: Vec<Vec<u32>> = transfers.into_iter().collect();
        Self { scalars: transfers.iter().map(Vec::len).collect(), widths: transfers.concat() }
    }

    /// Transfers per element.
    pub fn transfers(&self) -> usize {
        self.scalars.len()
    }

    fn bits(&self) -> usize {
        self.widths.iter().map(|&w| w as usize).sum()
    }

    /// Bytes of the sender's message for `count` elements.
    pub fn bytes(&self, count: usize) -> usize {
        (count * self.bits()).div_ceil(8)
    }

    fn pack(&self, values: &[u128]) -> Vec<u8> {
        let mut packer = Packer::with_capacity(self.bytes(GROUP));
        for (value, &width) in values.iter().zip(self.widths.iter().cycle()) {
            packer.push(*value as u64, width.min(64));
            packer.push((*value >> 64) as u64, width.saturating_sub(64));
        }
        packer.finish()
    }

    fn unpack(&self, bytes: &[u8], count: usize) -> Result<Vec<u128>, TransferError> {
        let mut reader = Unpacker::new(bytes);
        let widths = self.widths.iter().cycle().take(count * self.widths.len());
        let values = widths.map(|&width| {
            let low = u128::from(reader.next(width.min(64)));
            low | u128::from(reader.next(width.saturating_sub(64))) << 64
        });
        let values = values.collect();
        if reader.is_exhausted() { Ok(values) } else { Err(TransferError::Padding) }
    }

    /// The pads of some elements' transfers, of whose blocks `inputs` are: a block per scalar.
    fn pads(&self, hashes: &Hashes, inputs: &[Block]) -> Zeroizing<Vec<u128>> {
        let elements = inputs.len() / self.transfers();
        let mut pads = Zeroizing::new(vec![0u128; elements * self.widths.len()]);
        let blocks = || Zeroizing::new(Vec::with_capacity(inputs.len()));
        let (mut chosen, mut hashed) = (blocks(), blocks());
        for index in 0..self.scalars.iter().copied().max().unwrap_or(0) {
            let counts = self.scalars.iter().cycle();
            chosen.clear();
            chosen.extend(inputs.iter().zip(counts).filter(|(_, c)| **c > index).map(|(b, _)| *b));
            hashed.resize(chosen.len(), Block::default());
            hashes.pad(index, &chosen, &mut hashed);
            let mut hashed = hashed.iter();
            let mut at = 0;
            for &count in self.scalars.iter().cycle().take(inputs.len()) {
                if count > index {
                    let block = hashed.next().copied().unwrap_or_default();
                    pads[at + index] = u128::from_le_bytes(block);
                }
                at += count;
            }
        }
        pads
    }
}

/// Bytes of the receiver's [`flips`] of `count` transfers.
pub const fn flip_bytes(count: usize) -> usize {
    packed_bytes(count, 1)
}

/// `d = m ⊕ b`, packed: the receiver's message, for its bits and the random choices of its transfers.
pub fn flips(bits: &[u8], choices: &[u8]) -> Vec<u8> {
    let mut packer = Packer::with_capacity(flip_bytes(bits.len()));
    bits.iter().zip(choices).for_each(|(m, b)| packer.push(u64::from(m ^ b), 1));
    packer.finish()
}

/// The sender's message and its folded shares, for `count` elements. `scalars` writes an element's scalars,
/// transfer by transfer; `fold` maps the shares of their products to the element's `outputs` shares, of
/// which the caller takes the low bits.
///
/// # Errors
/// If the receiver's [`flips`] have another length than theirs or set padding bits.
pub fn send<T: Zeroize + Default + Clone + Send>(
    widths: &Widths,
    sending: &Sending<'_>,
    flips: &[u8],
    (count, outputs): (usize, usize),
    scalars: impl Fn(usize, &mut [u128]) + Sync,
    fold: impl Fn(&[u128], &mut [T]) + Sync,
) -> Result<(Vec<u8>, Zeroizing<Vec<T>>), TransferError> {
    let transfers = widths.transfers();
    expect_length(flips, flip_bytes(count * transfers))?;
    let used = (count * transfers) % 8;
    if used != 0 && flips.last().is_some_and(|last| last >> used != 0) {
        return Err(TransferError::Padding);
    }
    let mut shares = Zeroizing::new(vec![T::default(); count * outputs]);
    let messages: Vec<Vec<u8>> = shares
        .par_chunks_mut(GROUP * outputs)
        .zip(sending.blocks.par_chunks(GROUP * transfers))
        .enumerate()
        .map(|(group, (shares, blocks))| {
            let bit = |i: usize| {
                let at = group * GROUP * transfers + i;
                flips[at / 8] >> (at % 8) & 1
            };
            let mut inputs: Zeroizing<Vec<Block>> = Zeroizing::new(
                blocks
                    .iter()
                    .enumerate()
                    .map(|(i, q)| xor(*q, select(*sending.delta, bit(i))))
                    .collect(),
            );
            let mut zero = widths.pads(sending.hashes, &inputs);
            inputs.iter_mut().for_each(|input| *input = xor(*input, *sending.delta));
            let one = widths.pads(sending.hashes, &inputs);
            let mut corrections = Zeroizing::new(vec![0u128; zero.len()]);
            let width = widths.widths.len();
            for (i, corrections) in corrections.chunks_exact_mut(width).enumerate() {
                scalars(group * GROUP + i, corrections);
            }
            for (c, (zero, one)) in corrections.iter_mut().zip(zero.iter_mut().zip(&*one)) {
                *c = c.wrapping_add(*zero).wrapping_sub(*one);
                *zero = zero.wrapping_neg();
            }
            for (own, shares) in zero.chunks_exact(width).zip(shares.chunks_exact_mut(outputs)) {
                fold(own, shares);
            }
            widths.pack(&corrections)
        })
        .collect();
    Ok((messages.concat(), shares))
}

/// The receiver's folded shares, from the sender's message.
///
/// # Errors
/// If the message has another length than its elements' or set padding bits.
pub fn receive<T: Zeroize + Default + Clone + Send>(
    widths: &Widths,
    receiving: &Receiving<'_>,
    message: &[u8],
    (count, outputs): (usize, usize),
    fold: impl Fn(&[u128], &mut [T]) + Sync,
) -> Result<Zeroizing<Vec<T>>, TransferError> {
    let transfers = widths.transfers();
    expect_length(message, widths.bytes(count))?;
    let mut shares = Zeroizing::new(vec![T::default(); count * outputs]);
    shares
        .par_chunks_mut(GROUP * outputs)
        .zip(receiving.blocks.par_chunks(GROUP * transfers))
        .zip(receiving.bits.par_chunks(GROUP * transfers))
        .enumerate()
        .try_for_each(|(group, ((shares, blocks), bits))| {
            let elements = blocks.len() / transfers;
            let start = widths.bytes(group * GROUP);
            let message = &message[start..start + widths.bytes(elements)];
            let corrections = widths.unpack(message, elements)?;
            let mut own = widths.pads(receiving.hashes, blocks);
            let mut at = 0;
            for (bit, &scalars) in bits.iter().zip(widths.scalars.iter().cycle()) {
                let chosen = u128::from(*bit).wrapping_neg();
                for (own, c) in own[at..at + scalars].iter_mut().zip(&corrections[at..]) {
                    *own = own.wrapping_add(c & chosen);
                }
                at += scalars;
            }
            let own = own.chunks_exact(widths.widths.len());
            own.zip(shares.chunks_exact_mut(outputs)).for_each(|(own, shares)| fold(own, shares));
            Ok(())
        })?;
    Ok(shares)
}

/// `Σ 2^i·share_i`.
pub fn weigh(shares: impl IntoIterator<Item = u128>) -> u128 {
    shares.into_iter().zip(0..).fold(0, |sum, (share, i)| sum.wrapping_add(share << i))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::transfer::softspoken::ideal;
    use crate::testing::{Random, assert_uniform};

    #[test]
    fn shares_sum_to_the_product_of_bit_and_scalar() {
        let mut random = Random::new(41);
        let hashes = Hashes::new(&[3; 32], 0);
        for count in [1, 7, 63, 64, 65, 200] {
            let pattern = [vec![9], vec![1, 127, 64], vec![65, 2], vec![0, 33]];
            let widths = Widths::new(pattern.clone());
            let all: Vec<u32> = pattern.concat();
            let delta = random.wide(127).to_le_bytes();
            let (q, b, t) = ideal(&mut random, &delta, 4 * count);
            let bits: Vec<u8> = (0..4 * count).map(|_| random.bits(1) as u8).collect();
            let scalars: Vec<u128> = (0..8 * count).map(|_| random.wide(127)).collect();
            let write = |element: usize, to: &mut [u128]| {
                to.copy_from_slice(&scalars[8 * element..8 * element + 8]);
            };
            let keep = |from: &[u128], to: &mut [u128]| to.copy_from_slice(from);
            let sending = Sending { hashes: &hashes, delta: &delta, blocks: &q };
            let flips = flips(&bits, &b);
            let (message, own) = send(&widths, &sending, &flips, (count, 8), write, keep).unwrap();
            assert_eq!(message.len(), (count * all.iter().sum::<u32>() as usize).div_ceil(8));
            let receiving = Receiving { hashes: &hashes, blocks: &t, bits: &bits };
            let other = receive(&widths, &receiving, &message, (count, 8), keep).unwrap();
            for i in 0..8 * count {
                let transfer = i / 8 * 4 + [0, 1, 1, 1, 2, 2, 3, 3][i % 8];
                let want = scalars[i] * u128::from(bits[transfer]);
                let difference = own[i].wrapping_add(other[i]).wrapping_sub(want);
                assert_eq!(difference & ((1 << all[i % 8]) - 1), 0);
            }
        }
    }

    #[test]
    fn messages_look_uniform_for_fixed_secrets() {
        let mut random = Random::new(43);
        let hashes = Hashes::new(&[4; 32], 0);
        let widths = Widths::new([vec![8], vec![64, 8]]);
        let (bits, scalars) = ([0, 1, 1, 0, 1, 1, 0, 0], [1, 0, 0, 0xff, u128::MAX, 3]);
        let keep = |from: &[u128], to: &mut [u128]| to.copy_from_slice(from);
        let write = |i: usize, to: &mut [u128]| to.copy_from_slice(&scalars[i % 2 * 3..][..3]);
        let runs = (0..2000).map(|_| {
            let delta = random.wide(127).to_le_bytes();
            let (q, b, _) = ideal(&mut random, &delta, bits.len());
            let sending = Sending { hashes: &hashes, delta: &delta, blocks: &q };
            let flips = flips(&bits, &b);
            let (message, _) = send(&widths, &sending, &flips, (4, 3), write, keep).unwrap();
            (flips, message)
        });
        let (flips, messages): (Vec<_>, Vec<_>) = runs.unzip();
        assert_uniform(&flips);
        assert_uniform(&messages);
    }

    #[test]
    fn set_padding_is_refused() {
        let mut random = Random::new(42);
        let hashes = Hashes::new(&[3; 32], 0);
        let (q, _, t) = ideal(&mut random, &[1; 16], 3);
        let sending = Sending { hashes: &hashes, delta: &[1; 16], blocks: &q };
        let widths = Widths::new([vec![3]]);
        let keep = |_: &[u128], _: &mut [u64]| {};
        let run = |flips: &[u8]| send(&widths, &sending, flips, (3, 1), |_, _| {}, keep).err();
        assert_eq!(run(&[7]), None);
        assert_eq!(run(&[8]), Some(TransferError::Padding));
        assert!(matches!(run(&[]), Some(TransferError::Length { .. })));
        let receiving = Receiving { hashes: &hashes, blocks: &t, bits: &[0, 1, 1] };
        let run = |message: &[u8]| receive(&widths, &receiving, message, (3, 1), keep).err();
        assert_eq!(run(&[0xff, 1]), None);
        assert_eq!(run(&[0xff, 2]), Some(TransferError::Padding));
    }
}
