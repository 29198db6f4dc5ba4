//! Shares of `w·r`, element by element, of party 0's factor `w` and party 1's `r` in a ring of `k` bits.
//!
//! The bits of `r` choose: `k` transfers, and for bit `i` a correction of `k − i` bits.

use crate::preprocess::transfer::gilboa::{self, Receiving, Sending, Widths, flip_bytes, weigh};
use crate::preprocess::transfer::{Received, TransferError, Transfers, expect_length};
use crate::secret::Elements;
use crate::steps::reverse::bits_below;
use ir::plan::preprocess::transfers::extension_bytes;
use ir::ring::low_mask;
use zeroize::Zeroizing;

/// Party 1 between its message and party 0's.
pub struct Asked {
    ring: u32,
    count: usize,
    bits: Zeroizing<Vec<u8>>,
    received: Received,
}

/// Party 1's message for its elements `r` of `ring` bits.
pub fn ask(transfers: &mut Transfers, ring: u32, r: &[u64]) -> (Asked, Vec<u8>) {
    let mut bits = Zeroizing::new(Vec::with_capacity(r.len() * ring as usize));
    bits.extend(r.iter().flat_map(|&r| bits_below(r.into(), ring)));
    let mut received = transfers.receiver.extend(bits.len());
    let mut message = std::mem::take(&mut received.message);
    message.extend(gilboa::flips(&bits, &received.choices));
    (Asked { ring, count: r.len(), bits, received }, message)
}

/// Party 0's message and its shares of `w·r` mod 2^`ring`, for its factors `w` of the same elements.
///
/// # Errors
/// If party 1's message has another length or set padding bits.
pub fn answer(
    transfers: &mut Transfers,
    ring: u32,
    w: &[i32],
    message: &[u8],
) -> Result<(Vec<u8>, Elements), TransferError> {
    let count = w.len();
    let chosen = count * ring as usize;
    expect_length(message, extension_bytes(chosen) + flip_bytes(chosen))?;
    let (extension, flips) = message.split_at(extension_bytes(chosen));
    let blocks = transfers.sender.extend(chosen, extension)?;
    let (hashes, delta) = (&transfers.hashes, transfers.sender.delta());
    let sending = Sending { hashes, delta, blocks: &blocks };
    let scalars = |element: usize, to: &mut [u128]| to.fill(w[element] as u128);
    gilboa::send(&widths(ring), &sending, flips, (count, 1), scalars, fold(ring))
}

impl Asked {
    /// Party 1's shares of `w·r`, from party 0's message.
    ///
    /// # Errors
    /// If it has another length or set padding bits.
    pub fn finish(self, transfers: &Transfers, message: &[u8]) -> Result<Elements, TransferError> {
        let Self { ring, count, bits, received } = self;
        let receiving =
            Receiving { hashes: &transfers.hashes, blocks: &received.blocks, bits: &bits };
        gilboa::receive(&widths(ring), &receiving, message, (count, 1), fold(ring))
    }
}

fn widths(ring: u32) -> Widths {
    Widths::new((0..ring).map(|i| vec![ring - i]))
}

fn fold(ring: u32) -> impl Fn(&[u128], &mut [u64]) + Sync {
    move |shares, out| out[0] = weigh(shares.iter().copied()) as u64 & low_mask(ring)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::expand::Seed;
    use crate::preprocess::transfer::setup::both;
    use crate::testing::Random;
    use ir::plan::preprocess::transfers;

    #[test]
    fn shares_sum_to_the_products() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(7), seed(8));
        let mut random = Random::new(61);
        for ring in [1, 2, 13, 16, 31, 32, 33, 63, 64] {
            let count = random.between(1, 150) as usize;
            let r: Vec<u64> = (0..count).map(|_| random.bits(ring)).collect();
            let w: Vec<i32> = (0..count).map(|_| random.next() as i32).collect();
            let cost = transfers::hadamard(ring, count);
            let (asked, first) = ask(&mut party1, ring, &r);
            assert_eq!(first.len(), cost.bytes[0]);
            assert!(answer(&mut party0, ring, &w, &first[1..]).is_err());
            let (second, share0) = answer(&mut party0, ring, &w, &first).unwrap();
            assert_eq!(second.len(), cost.bytes[1]);
            let share1 = asked.finish(&party1, &second).unwrap();
            for (i, (a, b)) in share0.iter().zip(&*share1).enumerate() {
                let want = r[i].wrapping_mul(w[i] as u64) & low_mask(ring);
                assert_eq!(a.wrapping_add(*b) & low_mask(ring), want);
                assert!(a | b <= low_mask(ring));
            }
        }
    }
}
