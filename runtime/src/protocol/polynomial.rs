//! `P(ŷ)` mod 2^Q, exactly, for a polynomial of degree `d` whose coefficients only party 0 knows; `ŷ`,
//! `D`, `M`, `a`, `c` and the bounds are those of [`super::square`].
//!
//! With `x = D − o` and `M_a = M − 2^p·a·c`, `P(ŷ) = P(x − M_a) = Σ_j s_j·M_a^j`, where
//! `s_j = (−1)^j·P^(j)(x)/j!` is known to party 0 online. `M_a^j = N_j + a·w_j` with `N_j = M^j` and
//! `w_j = c·((M − 2^p)^j − M^j)`, both known to party 1 offline. Party 0 sends `e_j = s_j − u_j` for
//! `j < d` and `g = a ⊕ β`; the top `s_d` is a constant and stands in for `u_d`. Shared offline, per
//! element and `j` from 1: `u_j·N_j, u_j·w_j, u_j·β·w_j, β·w_j`. Cost: `(d−1)·Q + 1` bits to party 1,
//! `k'` bits back. This is the single-round evaluation of powers that PILLAR's ESPN aims at.

use super::row;
use super::square::{mask_and_top_bit, not_top_bit, offset_truncated};
use super::truncate::{self, wide_mask};
use crate::secret::{Elements, WideElements};
use ir::plan::{MOST_DEGREE, Square, Step};
use std::ops::Range;
use zeroize::Zeroizing;

/// Products shared per element and power.
pub const PRODUCTS: usize = 4;

/// Party 0's one-time material of a polynomial step.
pub struct PolynomialCorrelation {
    /// `u_1 … u_(d−1)` per element, mod 2^Q.
    pub u: WideElements,
    /// `β`, one per element.
    pub bits: Elements,
    /// Its shares of [`PRODUCTS`] products per element and power, mod 2^Q.
    pub products: WideElements,
}

/// Party 1's one-time shares of [`PRODUCTS`] products per element and power, mod 2^Q.
pub struct PolynomialShares(pub WideElements);

/// Some elements of a [`PolynomialCorrelation`].
#[derive(Clone, Copy)]
pub struct PolynomialPart<'a> {
    u: &'a [u128],
    bits: &'a [u64],
    products: &'a [u128],
}

impl PolynomialCorrelation {
    /// The elements of a range, for a polynomial of this degree.
    pub fn part(&self, degree: u32, range: Range<usize>) -> PolynomialPart<'_> {
        let powers = degree as usize - 1;
        PolynomialPart {
            u: &self.u[range.start * powers..range.end * powers],
            bits: &self.bits[range.clone()],
            products: of_range(&self.products, degree, range),
        }
    }
}

impl PolynomialShares {
    /// The elements of a range, for a polynomial of this degree.
    pub fn part(&self, degree: u32, range: Range<usize>) -> &[u128] {
        of_range(&self.0, degree, range)
    }
}

fn of_range(products: &[u128], degree: u32, range: Range<usize>) -> &[u128] {
    let per = PRODUCTS * degree as usize;
    &products[range.start * per..range.end * per]
}

/// Writes party 0's question for the masked values `delta`, and the `s_0` of every element, which it keeps. The
/// words per element are those of [`super::question_widths`]: `e_1 … e_(d−1)`, each in one word or low
/// and high word, then `g`.
pub fn question<'c>(
    square: &Square,
    degree: u32,
    coefficients: impl Fn(usize) -> &'c [i128],
    delta: &[u64],
    correlation: PolynomialPart<'_>,
    words: &mut Vec<u64>,
    constants: &mut Vec<u128>,
) {
    let degree = degree as usize;
    words.clear();
    constants.clear();
    for (i, &delta) in delta.iter().enumerate() {
        let truncated = offset_truncated(square, delta);
        let x = i128::from(truncated) - (1 << (square.p - 2));
        let s = taylor(coefficients(i), x);
        for (j, s) in s.iter().enumerate().take(degree).skip(1) {
            let e = s.wrapping_sub(correlation.u[i * (degree - 1) + j - 1]) & wide_mask(square.q);
            words.push(e as u64);
            if square.q > 64 {
                words.push((e >> 64) as u64);
            }
        }
        words.push(not_top_bit(square, truncated) ^ correlation.bits[i]);
        constants.push(s[0]);
    }
}

/// Party 0's truncated share, from what [`question`] returned.
pub fn party0_share(
    square: &Square,
    degree: u32,
    question: &[u64],
    constants: &[u128],
    correlation: PolynomialPart<'_>,
) -> impl Iterator<Item = u64> {
    let products = correlation.products.chunks_exact(PRODUCTS * degree as usize);
    let elements = question.chunks_exact(words(square, degree)).zip(products).zip(constants.iter());
    elements.map(|((question, products), &constant)| {
        let z = combine(square, question, products, None).wrapping_add(constant);
        truncate::wide_party0(z, square.q, square.shift)
    })
}

/// Party 1's truncated share for the operand's masks `m`, from its shares of the products.
pub fn party1_share(
    square: &Square,
    degree: u32,
    m: &[u64],
    question: &[u64],
    shares: &[u128],
) -> impl Iterator<Item = u64> {
    let products = shares.chunks_exact(PRODUCTS * degree as usize);
    let elements = question.chunks_exact(words(square, degree)).zip(products).zip(m);
    elements.map(|((question, products), &m)| {
        truncate::wide_party1(combine(square, question, products, Some(m)), square.q, square.shift)
    })
}

/// Words of one element's question.
fn words(square: &Square, degree: u32) -> usize {
    (degree as usize - 1) * if square.q > 64 { 2 } else { 1 } + 1
}

/// One party's share of `P(ŷ) − s_0`; party 1 passes its mask.
fn combine(square: &Square, question: &[u64], products: &[u128], m: Option<u64>) -> u128 {
    let per_value = if square.q > 64 { 2 } else { 1 };
    let g = u128::from(question[question.len() - 1]);
    let sign = 1u128.wrapping_sub(g << 1);
    let mut powers = m.map(|m| Powers::new(square, m));
    let mut z = 0u128;
    for (j, shares) in products.chunks_exact(PRODUCTS).enumerate() {
        let &[u_n, u_w, ub_w, b_w] = shares else { continue };
        let (n, w) = powers.as_mut().map_or((0, 0), Powers::next_pair);
        let e = match question[..question.len() - 1].get(j * per_value..(j + 1) * per_value) {
            Some([low]) => u128::from(*low),
            Some([low, high]) => u128::from(*low) | u128::from(*high) << 64,
            _ => 0,
        };
        let aw = g.wrapping_mul(w).wrapping_add(sign.wrapping_mul(b_w));
        let uaw = g.wrapping_mul(u_w).wrapping_add(sign.wrapping_mul(ub_w));
        z = z.wrapping_add(e.wrapping_mul(n.wrapping_add(aw))).wrapping_add(u_n).wrapping_add(uaw);
    }
    z
}

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

/// Terms of a polynomial of the highest degree that a plan may have.
const MOST_TERMS: usize = MOST_DEGREE as usize + 1;

/// `s_j = (−1)^j·P^(j)(x)/j!` mod 2^128 by repeated synthetic division.
fn taylor(coefficients: &[i128], x: i128) -> Zeroizing<[u128; MOST_TERMS]> {
    let mut s = Zeroizing::new([0; MOST_TERMS]);
    s.iter_mut().zip(coefficients).for_each(|(s, &c)| *s = c as u128);
    let degree = coefficients.len() - 1;
    for j in 0..degree {
        for n in (j..degree).rev() {
            s[n] = s[n].wrapping_add((x as u128).wrapping_mul(s[n + 1]));
        }
    }
    s.iter_mut().skip(1).step_by(2).for_each(|s| *s = s.wrapping_neg());
    s
}

/// `s_d`, which stands in for `u_d`.
pub(crate) fn top_factor(coefficients: &[i128]) -> u128 {
    let top = coefficients[coefficients.len() - 1] as u128;
    if coefficients.len().is_multiple_of(2) { top.wrapping_neg() } else { top }
}

/// The ideal functionality: per element and power `u_j·N_j, u_j·w_j, u_j·β·w_j, β·w_j` mod 2^128, for
/// the operand's masks `m` and party 0's `u_j` and `β`.
pub fn products(
    square: &Square,
    step: &Step,
    coefficients: &[Vec<i128>],
    m: &[u64],
    u: &[u128],
    bits: &[u64],
) -> WideElements {
    let degree = coefficients[0].len() - 1;
    let mut products = Zeroizing::new(Vec::with_capacity(PRODUCTS * degree * m.len()));
    for (i, (&m, &bit)) in m.iter().zip(bits).enumerate() {
        let top = top_factor(row::<Vec<i128>>(coefficients, step, i));
        let mut powers = Powers::new(square, m);
        for j in 1..=degree {
            let (n, w) = powers.next_pair();
            let u = if j == degree { top } else { u[i * (degree - 1) + j - 1] };
            let (uw, bw) = (u.wrapping_mul(w), u128::from(bit).wrapping_mul(w));
            products.extend([u.wrapping_mul(n), uw, u.wrapping_mul(bw), bw]);
        }
    }
    products
}
