//! `z = f(y)` for a public function `f` of the top `p` bits of `y`, masked again, in one round trip.
//!
//! *Notation.* Party 0 holds `Δ = y + m`, party 1 holds `m`; their low `k` bits count. `D` is the top `p` of these bits of
//! `Δ`, `M` the top `mask_bits = p + b` of those of `m`, `u` party 0's, uniform, of `p` bits. The value has `q` bits, and sums of
//! entries are mod `2^q`. Numbers of entries are mod `2^mask_bits`.
//!
//! *Offline.* The parties get shares of the one-hot vector `E` at `u·2^b − M`, a place that neither knows: if party 1 knew
//! it, the opening would tell it `D − M`. They come of a tree that both generate together ([`offline`],
//! [`shared_tree`](crate::preprocess::transfer::shared_tree)), and are kept as its seeds: 16 bytes a level, beside `8q` bits.
//!
//! *Online.* Party 0 sends `e = D − u mod 2^p`. Both grow their trees and take `Σ_x f(e·2^b + x)·E_x` on their shares, which is
//! `f((e + u)·2^b − M) = f(D·2^b − M)`. Party 1 returns its share under its fresh mask. `D·2^b − M` is the operand's phase but for
//! what opening and mask leave out, as in a phase step; if `k = p`, it is `y`. There is nothing to truncate, so no
//! carry.
//!
//! *Order.* Entry `x` of a tree stands for place `x + δ`, `δ` known to both. So the sum is one of the entries in their
//! order and of as many consecutive ones of the table, laid out twice, from `e·2^b + δ` on.
//!
//! *Cost* per element: `p` bits to party 1, `q` back. `2^(mask_bits − 3)` leaves of a tree at both.

mod ideal;
pub mod offline;
mod online;
mod record;
#[cfg(test)]
mod tests;

pub use ideal::deal;
pub use online::{Opening, Responding};
pub use record::{Record0, Record1};

use crate::preprocess::transfer::shared_tree::ENTRIES;
use ir::plan::Table;
use ir::ring::low_mask;

/// Party 1's part of a number: `M`.
pub fn mask_number(table: &Table, m: u64) -> u64 {
    (m & low_mask(table.k)) >> (table.k - table.mask_bits)
}

/// Words per element and bits of the fields of a party's part, behind that of the whole step.
fn fields(table: &Table) -> [(usize, u32); 3] {
    [(2 * table.levels() as usize, 64), (ENTRIES, table.q), (1, table.mask_bits)]
}
