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

use super::{shift_left, sign, truncate};
use crate::secret::Elements;
use ir::plan::Square;
use ir::ring::low_mask;
use std::ops::Range;
use zeroize::Zeroizing;

/// Products shared per element.
pub const PRODUCTS: usize = 8;

/// Party 0's one-time material of a square step.
pub struct SquareCorrelation {
    /// `u`, one per element, `p` bits.
    pub u: Elements,
    /// `β + 2β'`, one per element.
    pub bits: Elements,
    /// Its shares of [`PRODUCTS`] products per element, mod 2^Q.
    pub products: Elements,
}

/// Party 1's one-time shares of [`PRODUCTS`] products per element, mod 2^Q.
pub struct SquareShares(pub Elements);

/// Some elements of a [`SquareCorrelation`].
#[derive(Clone, Copy)]
pub struct SquarePart<'a> {
    u: &'a [u64],
    bits: &'a [u64],
    products: &'a [u64],
}

impl SquareCorrelation {
    /// The elements of a range.
    pub fn part(&self, range: Range<usize>) -> SquarePart<'_> {
        SquarePart {
            u: &self.u[range.clone()],
            bits: &self.bits[range.clone()],
            products: &self.products[range.start * PRODUCTS..range.end * PRODUCTS],
        }
    }
}

impl SquareShares {
    /// The elements of a range.
    pub fn part(&self, range: Range<usize>) -> &[u64] {
        &self.0[range.start * PRODUCTS..range.end * PRODUCTS]
    }
}

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

/// Party 0's question for the masked values `delta`: `e + 2^p·g + 2^(p+1)·d`, one word per element.
pub fn question(
    square: &Square,
    delta: &[u64],
    correlation: SquarePart<'_>,
) -> impl Iterator<Item = u64> {
    let p = square.p;
    let own = correlation.u.iter().zip(correlation.bits.iter());
    let ask = move |(&delta, (&u, &bits)): (&u64, (&u64, &u64))| {
        let truncated = offset_truncated(square, delta);
        let e = truncated.wrapping_sub(u) & low_mask(p);
        let g = not_top_bit(square, truncated) ^ (bits & 1);
        let d = ((e + u) >> p) ^ (bits >> 1);
        e | g << p | d << (p + 1)
    };
    delta.iter().zip(own).map(ask)
}

/// Party 0's truncated share of `ŷ² + constant`; the constant of an element is in units of `ŷ²`.
pub fn party0_share(
    square: &Square,
    constant: impl Fn(usize) -> i64,
    delta: &[u64],
    question: &[u64],
    correlation: SquarePart<'_>,
) -> impl Iterator<Item = u64> {
    let offset = 1u64 << (square.p - 2);
    let products = correlation.products.chunks_exact(PRODUCTS);
    let shares = delta.iter().zip(question).zip(products).enumerate();
    shares.map(move |(i, ((&delta, &question), products))| {
        let own = offset_truncated(square, delta).wrapping_sub(offset);
        let z = combine(square, question, products, 0, 0)
            .wrapping_add(own.wrapping_mul(own))
            .wrapping_add(constant(i) as u64);
        truncate::party0(z, square.q, square.shift)
    })
}

/// Party 1's truncated share for the operand's masks `m`, from its shares of the products.
pub fn party1_share(
    square: &Square,
    m: &[u64],
    question: &[u64],
    shares: &[u64],
) -> impl Iterator<Item = u64> {
    let products = shares.chunks_exact(PRODUCTS);
    m.iter().zip(question).zip(products).map(|((&m, &question), products)| {
        let (mask, top) = mask_and_top_bit(square, m);
        truncate::party1(combine(square, question, products, mask, top), square.q, square.shift)
    })
}

/// One party's share of `ŷ² − (D − o)²`; terms in `M` and `c` alone are party 1's, party 0 passes zeros.
fn combine(square: &Square, question: u64, products: &[u64], mask: u64, top: u64) -> u64 {
    let p = square.p;
    let (e, g, d) = (question & low_mask(p), question >> p & 1, question >> (p + 1));
    let &[u_m, u_c, ub_c, b_c, b2_c, bb2_c, b_cm, b2_m] = products else { return 0 };
    let (sg, sd) = (sign(g), sign(d));
    let mul = u64::wrapping_mul;
    let ac = mul(g, top).wrapping_add(mul(sg, b_c));
    let acm = mul(mul(g, top), mask).wrapping_add(mul(sg, b_cm));
    let uac = mul(g, u_c).wrapping_add(mul(sg, ub_c));
    let vm = mul(d, mask).wrapping_add(mul(sd, b2_m));
    let vac = mul(mul(d, g), top)
        .wrapping_add(mul(mul(d, sg), b_c))
        .wrapping_add(mul(mul(g, sd), b2_c))
        .wrapping_add(mul(mul(sd, sg), bb2_c));
    let dm = mul(e, mask).wrapping_add(u_m).wrapping_sub(shift_left(vm, p));
    let dac = mul(e, ac).wrapping_add(uac).wrapping_sub(shift_left(vac, p));
    let offset = 1u64 << (p - 2);
    mul(2 * offset, mask)
        .wrapping_sub(mul(2, dm))
        .wrapping_add(shift_left(dac.wrapping_sub(mul(offset, ac)), p + 1))
        .wrapping_add(mul(mask, mask))
        .wrapping_add(shift_left(ac, 2 * p))
        .wrapping_sub(shift_left(acm, p + 1))
}

/// The ideal functionality: per element `u·M, u·c, uβ·c, β·c, β'·c, ββ'·c, β·cM, β'·M` mod 2^64, for
/// the operand's masks `m` and party 0's `u` and `β + 2β'`.
pub fn products(square: &Square, m: &[u64], u: &[u64], bits: &[u64]) -> Elements {
    let mut products = Zeroizing::new(Vec::with_capacity(PRODUCTS * m.len()));
    for ((&m, &u), &bits) in m.iter().zip(u).zip(bits) {
        let (mask, c) = mask_and_top_bit(square, m);
        let (b, b2) = (bits & 1, bits >> 1);
        products.extend([
            u.wrapping_mul(mask),
            u * c,
            u * b * c,
            b * c,
            b2 * c,
            b * b2 * c,
            b * c * mask,
            b2 * mask,
        ]);
    }
    products
}
