//! Products by party 0's own choices, which follow its answer: party 1 sends once more and party 0 finishes
//! last.

use crate::preprocess::transfer::gilboa::{self, Receiving};
use crate::preprocess::transfer::{Received, Transfers};
use zeroize::Zeroizing;

/// Party 0 between its message and party 1's last one.
pub struct Answered<S> {
    /// Its shares of what party 1's choices made.
    pub shares: S,
    received: Received,
    /// What it chose.
    bits: Zeroizing<Vec<u8>>,
}

impl<S> Answered<S> {
    /// Makes party 0's own choices; what party 1 needs follows its corrections.
    pub fn new(transfers: &mut Transfers, shares: S, bits: Zeroizing<Vec<u8>>) -> (Self, Vec<u8>) {
        let mut received = transfers.receiver.extend(bits.len());
        let mut message = std::mem::take(&mut received.message);
        message.extend(gilboa::flips(&bits, &received.choices));
        (Self { shares, received, bits }, message)
    }

    /// Its view of its own choices, for the peer's last message.
    pub fn receiving<'a>(&'a self, transfers: &'a Transfers) -> Receiving<'a> {
        Receiving { hashes: &transfers.hashes, blocks: &self.received.blocks, bits: &self.bits }
    }
}

/// The lowest `count` bits of a number, from the lowest on.
pub fn bits_below(number: u128, count: u32) -> impl Iterator<Item = u8> {
    (0..count).map(move |i| (number >> i) as u8 & 1)
}
