//! Both parties' computation online.

use super::{PRODUCTS, Record0, Record1, mask_and_top_bit, not_top_bit, offset_truncated};
use crate::steps::{self, add_shares, online_row, put_shares, shift_left, sign, truncate};
use crate::wire;
use crate::words::{WordsMut, WordsRef, each_slice};
use ir::plan::{Square, Step};
use ir::ring::low_mask;
use ir::word::Word;
use std::ops::Range;

/// Party 0's side.
pub struct Opening<'a> {
    /// Parameters.
    pub square: &'a Square,
    /// The step.
    pub step: &'a Step,
    /// Its correlations.
    pub record: &'a Record0,
    /// What is added to the square, in units of `ŷ²`: per channel, or one for all.
    pub constant: &'a [i64],
}

impl steps::Opening for Opening<'_> {
    /// The opening and `Δ`.
    type Kept = u64;

    fn kept(&self) -> usize {
        2
    }

    fn open(
        &self,
        range: Range<usize>,
        operands: &[WordsRef<'_>],
        kept: &mut [u64],
        bytes: &mut [u8],
    ) {
        let Record0 { u, bits, .. } = self.record;
        let (u, bits) = (&u[range.clone()], &bits[range]);
        let mut to = wire::Writer::new(bytes);
        each_slice!(WordsRef, operands[0], delta => {
            let delta = delta.iter().map(|delta| delta.element());
            let asked = delta.clone().zip(u).zip(bits).map(|((d, u), b)| opening(self.square, d, *u, *b));
            for (kept, (asked, delta)) in kept.chunks_exact_mut(2).zip(asked.zip(delta)) {
                kept.copy_from_slice(&[asked, delta]);
                to.push(asked, self.square.p + 2);
            }
        });
        to.finish();
    }

    fn share(&self, range: Range<usize>, kept: &[u64], out: WordsMut<'_>) {
        let of = |i| *online_row(self.constant, self.step, range.start + i);
        let products = self.record.products(range.clone());
        put_shares(out, party0_share(self.square, of, kept, products));
    }
}

/// Party 1's side.
pub struct Responding<'a> {
    /// Parameters.
    pub square: &'a Square,
    /// Its correlations.
    pub record: &'a Record1,
    /// Its masks of the operand.
    pub masks: &'a [u64],
    /// Bits of the value.
    pub ring: u32,
}

impl steps::Responding for Responding<'_> {
    /// The opening.
    type Kept = u64;

    fn kept(&self) -> usize {
        1
    }

    fn read(&self, bytes: &[u8], kept: &mut [u64]) -> bool {
        wire::unpack(bytes, self.square.p + 2, kept, |_, v| v)
    }

    fn respond(&self, range: Range<usize>, kept: &[u64], out: WordsMut<'_>) {
        let products = self.record.products(range.clone());
        let shares = party1_share(self.square, &self.masks[range], kept, products);
        add_shares(out, self.ring, shares);
    }
}

/// Party 0's opening for a masked value: `e + 2^p·g + 2^(p+1)·d`.
pub(in crate::steps) fn opening(square: &Square, delta: u64, u: u64, bits: u64) -> u64 {
    let p = square.p;
    let truncated = offset_truncated(square, delta);
    let e = truncated.wrapping_sub(u) & low_mask(p);
    let g = not_top_bit(square, truncated) ^ (bits & 1);
    let d = ((e + u) >> p) ^ (bits >> 1);
    e | g << p | d << (p + 1)
}

/// Party 0's truncated share of `ŷ² + constant`; the constant of an element is in units of `ŷ²`; of
/// every element its opening and `Δ` are kept.
pub(in crate::steps) fn party0_share(
    square: &Square,
    constant: impl Fn(usize) -> i64,
    kept: &[u64],
    products: &[u64],
) -> impl Iterator<Item = u64> {
    let offset = 1u64 << (square.p - 2);
    let products = products.chunks_exact(PRODUCTS);
    let shares = kept.chunks_exact(2).zip(products).enumerate();
    shares.map(move |(i, (kept, products))| {
        let (opening, delta) = (kept[0], kept[1]);
        let own = offset_truncated(square, delta).wrapping_sub(offset);
        let z = combine(square, opening, products, 0, 0)
            .wrapping_add(own.wrapping_mul(own))
            .wrapping_add(constant(i) as u64);
        truncate::party0(z, square.q, square.shift)
    })
}

/// Party 1's truncated share for the operand's masks `m`, from its shares of the products.
pub(in crate::steps) fn party1_share(
    square: &Square,
    m: &[u64],
    opening: &[u64],
    shares: &[u64],
) -> impl Iterator<Item = u64> {
    let products = shares.chunks_exact(PRODUCTS);
    m.iter().zip(opening).zip(products).map(|((&m, &opening), products)| {
        let (mask, top) = mask_and_top_bit(square, m);
        truncate::party1(combine(square, opening, products, mask, top), square.q, square.shift)
    })
}

/// One party's share of `ŷ² − (D − o)²`; terms in `M` and `c` alone are party 1's, party 0 passes zeros.
fn combine(square: &Square, opening: u64, products: &[u64], mask: u64, top: u64) -> u64 {
    let p = square.p;
    let (e, g, d) = (opening & low_mask(p), opening >> p & 1, opening >> (p + 1));
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
