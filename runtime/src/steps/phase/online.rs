//! Both parties' computation online.

use super::{Record0, Record1};
use crate::kernel::Prefetch;
use crate::kernel::sums::row_sums;
use crate::steps::{self, truncate};
use crate::wire;
use crate::words::{Words, WordsMut, WordsRef, each_slice};
use ir::plan::Phase;
use ir::ring::low_mask;
use ir::word::{Word, vectorized};
use std::ops::Range;

/// Party 0's side.
pub struct Opening<'a> {
    /// Parameters.
    pub phase: &'a Phase,
    /// Bits of the operand.
    pub ring: u32,
    /// Its correlations.
    pub record: &'a Record0,
    /// The public table in words of `Q`.
    pub rows: &'a Words,
    /// `c₀` of [`super::constants`], per element of a period of channels.
    pub constants: &'a Words,
}

impl steps::Opening for Opening<'_> {
    /// `e`.
    type Kept = u16;

    fn kept(&self) -> usize {
        1
    }

    fn prefetch(&self, range: Range<usize>) -> Prefetch {
        let per = 2 * self.phase.harmonics as usize;
        Prefetch::of(self.record.products.part(range.start * per..range.end * per))
            .and(WordsRef::W16(&self.record.u[range]))
    }

    fn open(
        &self,
        range: Range<usize>,
        operands: &[WordsRef<'_>],
        kept: &mut [u16],
        bytes: &mut [u8],
    ) {
        let u = &self.record.u[range];
        each_slice!(WordsRef, operands[0], delta => opening(self.phase, self.ring, delta, u, kept));
        wire::pack_into(kept, self.phase.p, bytes);
    }

    fn share(&self, range: Range<usize>, kept: &[u16], out: WordsMut<'_>) {
        let Self { phase, rows, constants, record, .. } = self;
        let per = 2 * phase.harmonics as usize;
        let of = range.start * per..range.end * per;
        let at = range.start % constants.len();
        each_slice!(WordsMut, out, out => match (constants, rows, &*record.products) {
            (Words::W16(c), Words::W16(rows), Words::W16(p)) => {
                party0_share(phase, (c, at), rows, kept, &p[of], out);
            }
            (Words::W32(c), Words::W32(rows), Words::W32(p)) => {
                party0_share(phase, (c, at), rows, kept, &p[of], out);
            }
            (Words::W64(c), Words::W64(rows), Words::W64(p)) => {
                party0_share(phase, (c, at), rows, kept, &p[of], out);
            }
            _ => unreachable!("constants, tables and products of one phase have words of one width"),
        });
    }
}

/// Party 1's side.
pub struct Responding<'a> {
    /// Parameters.
    pub phase: &'a Phase,
    /// Its correlations.
    pub record: &'a Record1,
    /// The public table in words of `Q`.
    pub rows: &'a Words,
}

impl steps::Responding for Responding<'_> {
    /// `e`.
    type Kept = u16;

    fn kept(&self) -> usize {
        1
    }

    fn read(&self, bytes: &[u8], kept: &mut [u16]) -> bool {
        wire::unpack(bytes, self.phase.p, kept, |_, e| e)
    }

    fn respond(&self, range: Range<usize>, kept: &[u16], out: WordsMut<'_>) {
        let Self { phase, rows, record } = self;
        let per = 2 * phase.harmonics as usize;
        let of = range.start * per..range.end * per;
        each_slice!(WordsMut, out, out => match (rows, &*record.products) {
            (Words::W16(rows), Words::W16(p)) => party1_response(phase, rows, kept, &p[of], out),
            (Words::W32(rows), Words::W32(p)) => party1_response(phase, rows, kept, &p[of], out),
            (Words::W64(rows), Words::W64(p)) => party1_response(phase, rows, kept, &p[of], out),
            _ => unreachable!("tables and products of one phase have words of one width"),
        });
    }
}

/// Writes party 0's opening for the masked values `delta` of `ring` bits: `e`, one word per element.
pub(in crate::steps) fn opening<W: Word>(
    phase: &Phase,
    ring: u32,
    delta: &[W],
    u: &[u16],
    opening: &mut [u16],
) {
    let (shift, wrap) = (ring - phase.p, low_mask(phase.p) as u16);
    vectorized(
        #[inline(always)]
        || {
            // What lies above the ring wraps away with the rest.
            for (e, (&d, &u)) in opening.iter_mut().zip(delta.iter().zip(u)) {
                *e = (d.shift_right(shift).element() as u16).wrapping_sub(u) & wrap;
            }
        },
    );
}

/// Writes party 0's truncated shares of consecutive elements. `rows` are the interleaved tables,
/// `constants` the `c₀` of [`constants`](super::constants), a word per element of a period of channels, within which the
/// first element stands at `at`.
pub(in crate::steps) fn party0_share<Q: Word, W: Word>(
    phase: &Phase,
    (constants, mut at): (&[Q], usize),
    rows: &[Q],
    mut opening: &[u16],
    mut products: &[Q],
    mut out: &mut [W],
) {
    let per = 2 * phase.harmonics as usize;
    while !out.is_empty() {
        let constants = &constants[at..];
        let count = out.len().min(constants.len());
        let (now, later) = out.split_at_mut(count);
        evaluate(
            per,
            rows,
            &opening[..count],
            &products[..count * per],
            #[inline(always)]
            |at: usize, sums: &[Q]| {
                let now = &mut now[at..at + sums.len()];
                for ((out, &z), &c) in now.iter_mut().zip(sums).zip(&constants[at..]) {
                    let share = truncate::party0(z.plus(c), phase.q, phase.shift);
                    *out = W::low(share.element());
                }
            },
        );
        (opening, products, out, at) = (&opening[count..], &products[count * per..], later, 0);
    }
}

/// Adds party 1's truncated shares to `out`, its fresh masks, and reduces: its response, without guard bits.
pub(in crate::steps) fn party1_response<Q: Word, W: Word>(
    phase: &Phase,
    rows: &[Q],
    opening: &[u16],
    products: &[Q],
    out: &mut [W],
) {
    let cut = phase.shift + phase.guard;
    let ring = W::low(low_mask(phase.q - cut));

    evaluate(
        2 * phase.harmonics as usize,
        rows,
        opening,
        products,
        #[inline(always)]
        |at: usize, sums: &[Q]| {
            for (out, &z) in out[at..at + sums.len()].iter_mut().zip(sums) {
                let share = W::low(truncate::party1(z, phase.q, cut).element());
                *out = out.shift_right(phase.guard).plus(share).and(ring);
            }
        },
    );
}

/// Calls `each` with positions and `Σ cos(ne)·G_n + sin(ne)·H_n` of consecutive elements, on one party's
/// shares; the tables are looked up by the public `e`.
fn evaluate<Q: Word>(
    per: usize,
    rows: &[Q],
    opening: &[u16],
    products: &[Q],
    mut each: impl FnMut(usize, &[Q]),
) {
    const BLOCK: usize = 512;
    let mut sums = [Q::default(); BLOCK];
    let blocks = opening.chunks(BLOCK).zip(products.chunks(BLOCK * per));
    for (index, (opening, products)) in blocks.enumerate() {
        let sums = &mut sums[..opening.len()];
        row_sums(per, rows, opening, products, sums);
        vectorized(
            #[inline(always)]
            || each(index * BLOCK, sums),
        );
    }
}
