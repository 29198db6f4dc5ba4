//! `P(ŷ)` mod 2^Q, exactly, for a polynomial of degree `d` whose coefficients only party 0 knows; `ŷ`,
//! `D`, `M`, `a`, `c` and the bounds are those of [`super::square`].
//!
//! With `x = D − o` and `M_a = M − 2^p·a·c`, `P(ŷ) = P(x − M_a) = Σ_j s_j·M_a^j`, where
//! `s_j = (−1)^j·P^(j)(x)/j!` is known to party 0 online. `M_a^j = N_j + a·w_j` with `N_j = M^j` and
//! `w_j = c·((M − 2^p)^j − M^j)`, both known to party 1 offline. Party 0 sends `e_j = s_j − u_j` for
//! `j < d` and `g = a ⊕ β`; the top `s_d` is a constant and stands in for `u_d`. Shared offline, per
//! element and `j` from 1: `u_j·N_j, u_j·w_j, u_j·β·w_j, β·w_j`. Cost: `(d−1)·Q + 1` bits to party 1,
//! `k'` bits back. This is the single-round evaluation of powers that PILLAR's ESPN aims at.

mod ideal;
pub mod offline;
mod online;
mod record;

pub use ideal::{deal, products};
pub(in crate::steps) use online::words;
pub use online::{Opening, Responding};
pub use record::{Record0, Record1};

use super::square::mask_and_top_bit;
use ir::plan::Square;

/// Products shared per element and power.
pub const PRODUCTS: usize = 4;

/// `N_j` and `w_j` mod 2^128 for `j` = 1, 2, …
pub(crate) struct Powers {
    mask: u128,
    wrapped: u128,
    top: u128,
    n: u128,
    other: u128,
}

impl Powers {
    pub(crate) fn new(square: &Square, m: u64) -> Self {
        let (mask, top) = mask_and_top_bit(square, m);
        let mask = u128::from(mask);
        let wrapped = mask.wrapping_sub(1 << square.p);
        Self { mask, wrapped, top: top.into(), n: 1, other: 1 }
    }

    pub(crate) fn next_pair(&mut self) -> (u128, u128) {
        self.n = self.n.wrapping_mul(self.mask);
        self.other = self.other.wrapping_mul(self.wrapped);
        (self.n, self.top.wrapping_mul(self.other.wrapping_sub(self.n)))
    }
}

/// `s_d`, which stands in for `u_d`.
pub(crate) fn top_factor(coefficients: &[i128]) -> u128 {
    let top = coefficients[coefficients.len() - 1] as u128;
    if coefficients.len().is_multiple_of(2) { top.wrapping_neg() } else { top }
}
