//! What the making of product correlations by the two parties alone costs, exactly: oblivious transfers
//! and the bytes of every message. The runtime's messages have these lengths.

use super::Phase;
use crate::ring::packed_bytes;

/// `k` of SoftSpokenOT: its seeds are the leaves of trees of `2^k`, and every transfer costs
/// `128/k − 1` bits of its receiver and `2·2^k/k` block cipher calls of both parties in all.
pub const FIELD_BITS: usize = 8;

/// Bytes of the message by which the receiver makes `count` random correlated transfers; they are made
/// in blocks of 128.
pub const fn extension_bytes(count: usize) -> usize {
    count.div_ceil(128) * 16 * (128 / FIELD_BITS - 1)
}

/// Bytes to party 1 for `count` trees of `2^p` leaves with `scalars` scalars of `q` bits each: a block per
/// level but the first, then the corrections, packed.
pub const fn tree_bytes(count: usize, p: u32, scalars: usize, q: u32) -> usize {
    count * 16 * (p as usize - 1) + packed_bytes(count * scalars, q)
}

/// What the making of some elements' product correlations costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Transfers in which party 1 chooses.
    pub transfers: usize,
    /// Transfers in which party 0 chooses.
    pub reverse_transfers: usize,
    /// Bytes from party 1 to party 0, back, and from party 1 to party 0 again; 0 where there is no message.
    pub messages: [usize; 3],
}

/// The products of `count` elements of a phase step: a tree per element.
pub const fn phase(phase: &Phase, count: usize) -> Exchange {
    let transfers = count * phase.p as usize;
    let first = extension_bytes(transfers) + packed_bytes(count, phase.p);
    let second = tree_bytes(count, phase.p, 2 * phase.harmonics as usize, phase.q);
    Exchange { transfers, reverse_transfers: 0, messages: [first, second, 0] }
}
