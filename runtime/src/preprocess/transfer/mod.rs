//! Oblivious transfer (OT, here *transfers* for short), and what is built on it for any use.
//!
//! [`base`] runs the 128 base OTs with public keys, [`seeds`] turns them into seeds, and [`softspoken`] (OT extension)
//! expands these into as many correlated OTs as are wanted. [`tree`] builds secret-shared one-hot vectors from them by
//! punctured GGM trees, [`shared_tree`] those at places that no party knows, and [`gilboa`] products.
//! [`setup`] runs the first two in both directions at once; what comes out is [`Transfers`]. No message
//! is sent here: each function takes the peer's and returns its own.

pub mod base;
mod forest;
pub mod gilboa;
pub mod hash;
pub mod lanes;
pub mod seeds;
pub mod setup;
pub mod shared_tree;
pub mod softspoken;
mod transpose;
pub mod tree;
#[cfg(test)]
mod tree_tests;

pub use hash::{Block, Hashes};
pub use softspoken::{CotReceiver, CotSender, Received};

/// One party's transfers with its peer, in both directions.
pub struct Transfers {
    /// Names the session: both parties contributed to it.
    session: [u8; 32],
    /// The public permutations of the exchange that was entered last.
    pub hashes: Hashes,
    /// Those in which this party has `Δ`.
    pub sender: CotSender,
    /// Those in which this party has the choices.
    pub receiver: CotReceiver,
}

impl Transfers {
    /// Takes up an exchange: its permutations are its own, so that whoever searches for `Δ` through one of
    /// them has no more than that exchange's hashes to compare with.
    pub fn enter(&mut self, exchange: u32) {
        self.hashes = Hashes::new(&self.session, exchange);
    }
}

/// Why a message of the peer was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Another length than the protocol has.
    #[error("the peer sent {found} bytes of the offline phase, expected {expected}")]
    Length {
        /// What came.
        found: usize,
        /// What the protocol has.
        expected: usize,
    },
    /// The last byte holds bits beyond the last element.
    #[error("the peer sent a message of the offline phase with set padding bits")]
    Padding,
    /// Not an element of the group.
    #[error("the peer sent an invalid point")]
    Point,
    /// Openings of shared trees whose bits do not sum to an odd number.
    #[error("the peer sent openings that fit no tree")]
    Openings,
    /// A ciphertext is none.
    #[error(transparent)]
    Ciphertext(crate::preprocess::rlwe::Malformed),
}

/// Refuses a message of another length.
pub(crate) fn expect_length(message: &[u8], expected: usize) -> Result<(), TransferError> {
    let found = message.len();
    if found == expected { Ok(()) } else { Err(TransferError::Length { found, expected }) }
}

/// Unpacks `count` elements of `bits` bits.
pub(crate) fn unpack_exact(
    bytes: &[u8],
    count: usize,
    bits: u32,
) -> Result<Vec<u64>, TransferError> {
    expect_length(bytes, ir::ring::packed_bytes(count, bits))?;
    ir::ring::unpack(bytes, count, bits).ok_or(TransferError::Padding)
}
