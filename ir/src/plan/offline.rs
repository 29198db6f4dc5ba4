//! What the making of product correlations by the two parties alone costs, exactly: oblivious transfers
//! and the bytes of every message. The runtime's messages have these lengths.

/// `k` of SoftSpokenOT: its seeds are the leaves of trees of `2^k`, and every transfer costs
/// `128/k − 1` bits of its receiver and `2·2^k/k` block cipher calls of both parties in all.
pub const FIELD_BITS: usize = 8;

/// Bytes of the message by which the receiver makes `count` random correlated transfers; they are made
/// in blocks of 128.
pub const fn extension_bytes(count: usize) -> usize {
    count.div_ceil(128) * 16 * (128 / FIELD_BITS - 1)
}
