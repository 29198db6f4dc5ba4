//! `ŷ²` mod 2^Q, exactly, where `ŷ` is `y >> t` or one more, for `|y| < 2^(p−2+t) − 2^t` masked in a
//! ring of at least `t + p` bits.
//!
//! *Offline.* Party 1 has `M = (m >> t) mod 2^p` and `c`, the top bit of `M`; party 0 draws `u` of `p`
//! bits and bits `β`, `β'`. They share mod 2^Q `u·M, u·c, uβ·c, β·c, β'·c, ββ'·c,
//! β·cM, β'·M`, in this order.
//!
//! *Online.* With the offset `o = 2^(p−2)`, `D = ((Δ + o·2^t) >> t) mod 2^p`. As `0 ≤ ŷ + o < 2^(p−1)`,
//! `ŷ + o = D − M + 2^p·a·c` with `a` = not the top bit of `D`: the spare bit makes the wrap a product
//! of one bit of each party. Party 0 sends `e = (D − u) mod 2^p`, `g = a ⊕ β` and `d = v ⊕ β'` with
//! `v = (e + u) >> p`, so that `D = e + u − 2^p·v` over the integers. Then every product of an online
//! value of party 0 (`D, a, D·a`) with one of party 1 (`M, c, c·M`) is linear in the correlations, for
//! `a·x = g·x + (1 − 2g)·β·x`. Nothing in it can fail. Cost: `p + 2` bits to party 1, `k'` bits back.

mod ideal;
pub mod offline;
mod online;
mod record;

pub use ideal::{deal, products};
pub use online::{Opening, Responding};
pub use record::{Record0, Record1};

use ir::plan::Square;
use ir::ring::low_mask;

/// Products shared per element.
pub const PRODUCTS: usize = 8;

/// `D`: party 0's truncated value of `p` bits, offset added.
pub fn offset_truncated(square: &Square, delta: u64) -> u64 {
    (delta.wrapping_add(1 << (square.p - 2 + square.t)) >> square.t) & low_mask(square.p)
}

/// Party 1's `M` and `c`.
pub fn mask_and_top_bit(square: &Square, m: u64) -> (u64, u64) {
    let mask = (m >> square.t) & low_mask(square.p);
    (mask, mask >> (square.p - 1))
}

/// `a`: whether the top bit of `D` is not set.
pub fn not_top_bit(square: &Square, truncated: u64) -> u64 {
    1 - (truncated >> (square.p - 1))
}
