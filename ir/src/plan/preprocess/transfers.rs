//! What correlations by oblivious transfer (OT, *transfers* for short) cost, exactly. The runtime's messages have these lengths.

use super::Cost;
use crate::plan::{Phase, Table};
use crate::ring::packed_bytes;

/// `k` of SoftSpokenOT: its seeds are the leaves of trees of `2^k`, and every transfer costs
/// `128/k − 1` bits of its receiver and `2·2^k/k` block cipher calls of both parties in all.
pub const FIELD_BITS: usize = 8;

/// Bytes of the messages by which a session's transfers are set up, the same in both directions: a nonce
/// and a point; 128 points; a tree of seeds per [`FIELD_BITS`] of `Δ`, two blocks per level.
pub const SETUP_BYTES: [usize; 3] = [64, 4096, 128 / FIELD_BITS * FIELD_BITS * 32];

/// Bytes of the message by which the receiver extends the session by `count` random correlated transfers, in
/// blocks of 128.
pub const fn extension_bytes(count: usize) -> usize {
    count.div_ceil(128) * 16 * (128 / FIELD_BITS - 1)
}

/// Bytes to party 1 for `count` trees of `2^p` leaves with `scalars` scalars of `q` bits each: a block per
/// level but the first, then the corrections, packed.
pub const fn tree_bytes(count: usize, p: u32, scalars: usize, q: u32) -> usize {
    count * 16 * (p as usize - 1) + packed_bytes(count * scalars, q)
}

/// The products of `count` elements of a phase step by trees, one per element.
pub fn trees(phase: &Phase, count: usize) -> Cost {
    let transfers = count * phase.mask_bits as usize;
    let first = extension_bytes(transfers) + packed_bytes(count, phase.mask_bits);
    let second = tree_bytes(count, phase.mask_bits, 2 * phase.harmonics as usize, phase.q);
    let leaves = count << phase.mask_bits;
    let lane = if phase.q <= 32 { 32 } else { 64 };
    let pads = leaves * (2 * phase.harmonics * lane).div_ceil(128) as usize;
    Cost { transfers, leaves, pads, bytes: vec![first, second], ..Cost::default() }
}

/// The shared trees of `count` elements of a table step, by the messages of either party: transfers; a block per level
/// but the first, beside the first of them party 0's products of bits of the place, and party 1's small tree; the
/// openings and the place.
pub fn shared_trees(table: &Table, count: usize) -> Cost {
    let (bits, levels) = (table.mask_bits, table.levels());
    let transfers = count * bits as usize;
    let extension = extension_bytes(transfers);
    let block = 16 * count;
    let small = tree_bytes(count, Table::NODE_BITS, Table::NODE, table.q);
    let products = packed_bytes(count, bits * (bits - 1) / 2);
    let last = packed_bytes(count * (Table::NODE + 1), table.q) + packed_bytes(count, bits);
    let mut bytes = vec![extension, extension, block + small, block + products];
    bytes.extend((0..2 * (levels - 2)).map(|_| block));
    bytes.extend([last, last]);
    let nodes = count << levels;
    Cost {
        transfers,
        reverse_transfers: transfers,
        // A tree is grown anew for every level.
        leaves: 2 * nodes,
        pads: nodes * table.pad_blocks() as usize,
        bytes,
        ..Cost::default()
    }
}

/// The products of `count` elements with secret factors, of an operand with a ring of `ring` bits: one transfer
/// per bit.
pub fn hadamard(ring: u32, count: usize) -> Cost {
    let transfers = count * ring as usize;
    let first = extension_bytes(transfers) + packed_bytes(transfers, 1);
    let second = packed_bytes(count, ring * (ring + 1) / 2);
    Cost { transfers, bytes: vec![first, second], ..Cost::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Square;

    #[test]
    fn exchanges_have_the_bytes_of_their_formulas() {
        assert_eq!(extension_bytes(129), 2 * 16 * 15);
        let of_phase = Phase {
            p: 8,
            mask_bits: 8,
            q: 32,
            shift: 16,
            g2: 7,
            h: 9,
            guard: 0,
            harmonics: 2,
            amplitude: 8,
        };
        let cost = trees(&of_phase, 128);
        assert_eq!(cost.transfers, 1024);
        assert_eq!(cost.bytes, [128 * 15 + 128, 128 * (7 * 16 + 16)]);
        let of_square = Square { t: 3, p: 10, q: 24, shift: 8 };
        let cost = of_square.cost(128);
        let below: usize = (16..=24).sum();
        assert_eq!((cost.transfers, cost.reverse_transfers), (1280, 256));
        assert_eq!(cost.bytes[0], 1280 * 16 / 8);
        assert_eq!(cost.bytes[1], 16 * (below + 5 * 24) + 256 * 16 / 8);
        assert_eq!(cost.bytes[2], 16 * 2 * 24);
        let cost = hadamard(16, 128);
        assert_eq!(cost.bytes, [2048 * 16 / 8, 16 * 136]);
        assert_eq!(of_square.power_bits(1), (10, 1));
        assert_eq!(of_square.power_bits(2), (20, 10));
        assert_eq!(of_square.power_bits(3), (24, 14));
    }
}
