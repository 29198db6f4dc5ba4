//! The products of activations, made by the two parties alone from [`Transfers`]: one file per kind of
//! step. Each is an exchange about a chunk of a step's elements: party 1 asks, party 0 answers, party 1
//! finishes. Where party 0 chooses in transfers of its own, party 1 sends once more and party 0 finishes
//! last. The products of phases are made by trees ([`phase`]) or by encryption ([`slots`]), as
//! [`ir::plan::PhaseProducts`] says. Shares and their order are those of [`crate::protocol`], whose `products` are the ideal
//! functionality; lengths are those of [`ir::plan::offline`].

pub mod diagonal;
mod exchange;
pub mod phase;
pub mod polynomial;
pub mod slots;
pub mod square;

pub use exchange::{Begun, Open, Shares, Tools, answer, begin};

use super::transfer::gilboa::{self, Receiving};
use super::transfer::{Received, Transfers};
use zeroize::Zeroizing;

/// Party 0 between its message and party 1's last one.
pub struct Answered<S> {
    /// Its shares of what party 1's choices made.
    shares: S,
    received: Received,
    /// What it chose.
    bits: Zeroizing<Vec<u8>>,
}

impl<S> Answered<S> {
    /// Makes party 0's own choices; what party 1 needs follows its corrections.
    fn new(transfers: &mut Transfers, shares: S, bits: Zeroizing<Vec<u8>>) -> (Self, Vec<u8>) {
        let mut received = transfers.receiver.extend(bits.len());
        let mut message = std::mem::take(&mut received.message);
        message.extend(gilboa::flips(&bits, &received.choices));
        (Self { shares, received, bits }, message)
    }

    fn receiving<'a>(&'a self, transfers: &'a Transfers) -> Receiving<'a> {
        Receiving { hashes: &transfers.hashes, blocks: &self.received.blocks, bits: &self.bits }
    }
}

/// The lowest `count` bits of a number, from the lowest on.
fn bits_below(number: u128, count: u32) -> impl Iterator<Item = u8> {
    (0..count).map(move |i| (number >> i) as u8 & 1)
}
