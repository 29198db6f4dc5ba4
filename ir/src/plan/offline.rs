//! What the making of product correlations by the two parties alone costs, exactly: oblivious transfers
//! and the bytes of every message. The runtime's messages have these lengths.

use super::{Phase, PhaseProducts, Plan, Square, StepOp};
use crate::ring::packed_bytes;

/// `k` of SoftSpokenOT: its seeds are the leaves of trees of `2^k`, and every transfer costs
/// `128/k − 1` bits of its receiver and `2·2^k/k` block cipher calls of both parties in all.
pub const FIELD_BITS: usize = 8;

/// Bytes of the messages by which a session's transfers are set up, the same in both directions: a nonce
/// and a point; 128 points; a tree of seeds per [`FIELD_BITS`] of `Δ`, two blocks per level.
pub const SETUP_BYTES: [usize; 3] = [64, 4096, 128 / FIELD_BITS * FIELD_BITS * 32];

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
pub struct ProductCost {
    /// Transfers in which party 1 chooses.
    pub transfers: usize,
    /// Transfers in which party 0 chooses.
    pub reverse_transfers: usize,
    /// Bytes from party 1 to party 0, back, and from party 1 to party 0 again; 0 where there is no message.
    pub messages: [usize; 3],
}

/// The products of `count` elements of a phase step by trees, one per element.
pub const fn trees(phase: &Phase, count: usize) -> ProductCost {
    let transfers = count * phase.mask_bits as usize;
    let first = extension_bytes(transfers) + packed_bytes(count, phase.mask_bits);
    let second = tree_bytes(count, phase.mask_bits, 2 * phase.harmonics as usize, phase.q);
    ProductCost { transfers, reverse_transfers: 0, messages: [first, second, 0] }
}

/// The products of `count` elements of a square step: `u` is multiplied with the bits of `M` that stand
/// below its top bit `c` and below `2^Q`; then five scalars with `c`; party 0's two bits with a number each.
pub fn square(square: &Square, count: usize) -> ProductCost {
    let low = square_low_bits(square);
    let widths: u32 = (0..low).map(|i| square.q - i).sum::<u32>() + 5 * square.q;
    let transfers = count * (low as usize + 1);
    ProductCost {
        transfers,
        reverse_transfers: 2 * count,
        messages: [
            extension_bytes(transfers) + packed_bytes(transfers, 1),
            packed_bytes(count, widths) + extension_bytes(2 * count) + packed_bytes(2 * count, 1),
            packed_bytes(count, 2 * square.q),
        ],
    }
}

/// The bits of `M` below its top bit that matter mod 2^Q.
pub fn square_low_bits(square: &Square) -> u32 {
    (square.p - 1).min(square.q)
}

/// The products of `count` elements of a diagonal step whose operand has a ring of `ring` bits: one
/// transfer per bit.
pub fn diagonal(ring: u32, count: usize) -> ProductCost {
    let transfers = count * ring as usize;
    let first = extension_bytes(transfers) + packed_bytes(transfers, 1);
    let second = packed_bytes(count, ring * (ring + 1) / 2);
    ProductCost { transfers, reverse_transfers: 0, messages: [first, second, 0] }
}

/// The products of `count` elements of a polynomial step: for every power, one transfer per bit of `N_j` for
/// `u_j` and one per bit of `−w_j/2^p` for `u_j` and `u_j·β`; party 0's bit with all `w_j`.
pub fn polynomial(square: &Square, degree: u32, count: usize) -> ProductCost {
    let (mut per_element, mut bits) = (0, 0);
    for power in 1..=degree {
        let (n, w) = polynomial_bits(square, power);
        per_element += n as usize + w as usize;
        bits += (0..n).map(|i| (square.q - i) as usize).sum::<usize>();
        bits += (0..w).map(|i| 2 * (square.q - square.p - i) as usize).sum::<usize>();
    }
    let transfers = count * per_element;
    ProductCost {
        transfers,
        reverse_transfers: count,
        messages: [
            extension_bytes(transfers) + packed_bytes(transfers, 1),
            (count * bits).div_ceil(8) + extension_bytes(count) + packed_bytes(count, 1),
            packed_bytes(count * degree as usize, square.q),
        ],
    }
}

/// The bits of `N_j = M^j` and of `−w_j/2^p` that matter mod 2^Q. The latter is
/// `c·(M^j − (M − 2^p)^j)/2^p`, which is 1 at most for `j = 1` and below `2^((j−1)p)` for others, because
/// `2^p − M ≤ M < 2^p` where `c` is set.
pub fn polynomial_bits(square: &Square, power: u32) -> (u32, u32) {
    let n = (power * square.p).min(square.q);
    let w = ((power - 1) * square.p).max(1).min(square.q.saturating_sub(square.p));
    (n, w)
}

impl Plan {
    /// What the making of a step's product correlations costs for `count` of its elements; `None` if it has
    /// none. Steps with secret weights other than diagonal ones take no transfers.
    pub fn product_cost(&self, step: usize, count: usize) -> Option<ProductCost> {
        match &self.steps[step].op {
            StepOp::Phase(phase) => {
                Some(PhaseProducts::cheapest(phase, count, &self.rlwe).cost(phase, count))
            }
            StepOp::Square(s) => Some(square(s, count)),
            StepOp::Polynomial { square, degree } => Some(polynomial(square, *degree, count)),
            StepOp::Diagonal { .. } => Some(diagonal(self.steps[step].ring, count)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!((cost.transfers, cost.reverse_transfers), (1024, 0));
        assert_eq!(cost.messages, [128 * 15 + 128, 128 * (7 * 16 + 16), 0]);
        let of_square = Square { t: 3, p: 10, q: 24, shift: 8 };
        let cost = square(&of_square, 128);
        let below: usize = (16..=24).sum();
        assert_eq!((cost.transfers, cost.reverse_transfers), (1280, 256));
        assert_eq!(cost.messages[0], 1280 * 16 / 8);
        assert_eq!(cost.messages[1], 16 * (below + 5 * 24) + 256 * 16 / 8);
        assert_eq!(cost.messages[2], 16 * 2 * 24);
        let cost = diagonal(16, 128);
        assert_eq!(cost.messages, [2048 * 16 / 8, 16 * 136, 0]);
        assert_eq!(polynomial_bits(&of_square, 1), (10, 1));
        assert_eq!(polynomial_bits(&of_square, 2), (20, 10));
        assert_eq!(polynomial_bits(&of_square, 3), (24, 14));
    }
}
