//! Both parties' computation online.

use super::record::part;
use super::{PRODUCTS, Powers, Record0, Record1};
use crate::steps::square::{not_top_bit, offset_truncated};
use crate::steps::truncate::{self, wide_mask};
use crate::steps::{self, add_shares, online_row, put_shares};
use crate::wire;
use crate::words::{WordsMut, WordsRef, each_slice};
use ir::plan::{MOST_DEGREE, Polynomial, Square, Step};
use ir::ring::Unpacker;
use ir::word::Word;
use std::ops::Range;
use zeroize::Zeroizing;

/// Party 0's side.
pub struct Opening<'a> {
    /// Parameters.
    pub kind: &'a Polynomial,
    /// The step.
    pub step: &'a Step,
    /// Its correlations.
    pub record: &'a Record0,
    /// `p_n`, a row per channel or one for all.
    pub coefficients: &'a [Vec<i128>],
}

impl steps::Opening for Opening<'_> {
    /// The words of the opening, then the low and the high word of `s_0`.
    type Kept = u64;

    fn kept(&self) -> usize {
        words(self.kind) + 2
    }

    fn open(
        &self,
        range: Range<usize>,
        operands: &[WordsRef<'_>],
        kept: &mut [u64],
        bytes: &mut [u8],
    ) {
        let Self { kind, step, record, coefficients } = self;
        let own = kind.degree as usize - 1;
        let mut to = wire::Writer::new(bytes);
        each_slice!(WordsRef, operands[0], delta => {
            let elements = range.clone().zip(delta.iter().map(|delta| delta.element()));
            for ((i, delta), kept) in elements.zip(kept.chunks_exact_mut(self.kept())) {
                let row = online_row(coefficients, step, i);
                let u = &record.u[i * own..(i + 1) * own];
                opening(&kind.square, row, delta, (u, record.bits[i]), kept);
                push(kind, kept, &mut to);
            }
        });
        to.finish();
    }

    fn share(&self, range: Range<usize>, kept: &[u64], out: WordsMut<'_>) {
        let products = part(&self.record.products, self.kind.degree, range);
        put_shares(out, party0_share(self.kind, kept, products));
    }
}

/// Party 1's side.
pub struct Responding<'a> {
    /// Parameters.
    pub kind: &'a Polynomial,
    /// Its correlations.
    pub record: &'a Record1,
    /// Its masks of the operand.
    pub masks: &'a [u64],
    /// Bits of the value.
    pub ring: u32,
}

impl steps::Responding for Responding<'_> {
    /// The words of the opening.
    type Kept = u64;

    fn kept(&self) -> usize {
        words(self.kind)
    }

    fn read(&self, bytes: &[u8], kept: &mut [u64]) -> bool {
        let mut reader = Unpacker::new(bytes);
        for element in kept.chunks_exact_mut(self.kept()) {
            let Some((bit, values)) = element.split_last_mut() else { return false };
            let widths = value_widths(&self.kind.square);
            values.iter_mut().zip(widths).for_each(|(word, bits)| *word = reader.next(bits));
            *bit = reader.next(1);
        }
        reader.is_exhausted()
    }

    fn respond(&self, range: Range<usize>, kept: &[u64], out: WordsMut<'_>) {
        let products = part(&self.record.products, self.kind.degree, range.clone());
        let shares = party1_share(self.kind, &self.masks[range], kept, products);
        add_shares(out, self.ring, shares);
    }
}

/// Bits of the words of values mod 2^Q, each in one word or in low and high word.
fn value_widths(square: &Square) -> impl Iterator<Item = u32> + use<> {
    let (first, second) = match square.q.checked_sub(64) {
        Some(high @ 1..) => (64, high),
        _ => (square.q, square.q),
    };
    [first, second].into_iter().cycle()
}

/// Words of one element's opening: `e_1 … e_(d−1)`, each in one word or low and high word, then `g`.
pub(in crate::steps) fn words(kind: &Polynomial) -> usize {
    (kind.degree as usize - 1) * if kind.square.q > 64 { 2 } else { 1 } + 1
}

/// Writes an element's opening.
fn push(kind: &Polynomial, opening: &[u64], to: &mut wire::Writer<'_>) {
    let last = words(kind) - 1;
    let widths = value_widths(&kind.square);
    opening[..last].iter().zip(widths).for_each(|(&word, bits)| to.push(word, bits));
    to.push(opening[last], 1);
}

/// Writes party 0's opening for the masked value `delta` of an element with these coefficients, and the
/// `s_0` that it keeps; `u` are its `u_j` and `β`.
pub(in crate::steps) fn opening(
    square: &Square,
    coefficients: &[i128],
    delta: u64,
    (u, bit): (&[u128], u64),
    kept: &mut [u64],
) {
    let truncated = offset_truncated(square, delta);
    let x = i128::from(truncated) - (1 << (square.p - 2));
    let s = taylor(coefficients, x);
    let per_value = if square.q > 64 { 2 } else { 1 };
    for ((s, u), words) in s[1..].iter().zip(u).zip(kept.chunks_mut(per_value)) {
        let e = s.wrapping_sub(*u) & wide_mask(square.q);
        words.iter_mut().zip([e as u64, (e >> 64) as u64]).for_each(|(word, e)| *word = e);
    }
    let constant = [s[0] as u64, (s[0] >> 64) as u64];
    let [bit_at, rest @ ..] = &mut kept[u.len() * per_value..] else { return };
    *bit_at = not_top_bit(square, truncated) ^ bit;
    rest.copy_from_slice(&constant);
}

/// Party 0's truncated shares, from what [`opening`] kept.
pub(in crate::steps) fn party0_share(
    kind: &Polynomial,
    kept: &[u64],
    products: &[u128],
) -> impl Iterator<Item = u64> {
    let Polynomial { square, degree } = *kind;
    let products = products.chunks_exact(PRODUCTS * degree as usize);
    let words = words(kind);
    kept.chunks_exact(words + 2).zip(products).map(move |(kept, products)| {
        let constant = u128::from(kept[words]) | u128::from(kept[words + 1]) << 64;
        let z = combine(&square, &kept[..words], products, None).wrapping_add(constant);
        truncate::wide_party0(z, square.q, square.shift)
    })
}

/// Party 1's truncated shares for the operand's masks `m`, from its shares of the products.
pub(in crate::steps) fn party1_share(
    kind: &Polynomial,
    m: &[u64],
    opening: &[u64],
    products: &[u128],
) -> impl Iterator<Item = u64> {
    let Polynomial { square, degree } = *kind;
    let products = products.chunks_exact(PRODUCTS * degree as usize);
    let elements = opening.chunks_exact(words(kind)).zip(products).zip(m);
    elements.map(move |((opening, products), &m)| {
        let z = combine(&square, opening, products, Some(m));
        truncate::wide_party1(z, square.q, square.shift)
    })
}

/// One party's share of `P(ŷ) − s_0`; party 1 passes its mask.
fn combine(square: &Square, opening: &[u64], products: &[u128], m: Option<u64>) -> u128 {
    let per_value = if square.q > 64 { 2 } else { 1 };
    let g = u128::from(opening[opening.len() - 1]);
    let sign = 1u128.wrapping_sub(g << 1);
    let mut powers = m.map(|m| Powers::new(square, m));
    let mut z = 0u128;
    for (j, shares) in products.chunks_exact(PRODUCTS).enumerate() {
        let &[u_n, u_w, ub_w, b_w] = shares else { continue };
        let (n, w) = powers.as_mut().map_or((0, 0), Powers::next_pair);
        let e = match opening[..opening.len() - 1].get(j * per_value..(j + 1) * per_value) {
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
