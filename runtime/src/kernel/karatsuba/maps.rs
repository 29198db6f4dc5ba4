//! The elementwise part: six inputs of a line to what is multiplied, eight products to four outputs.

// Vectors at offsets in slices, which were checked.
#![allow(unsafe_code)]

use super::{INPUTS, PRODUCTS, SIDE};
use ir::word::Word;

/// An elementwise map of `I` vectors to `O`.
pub trait Map<const I: usize, const O: usize> {
    /// The map of as many lanes as there are.
    fn map<W: Word, const L: usize>(x: [[W; L]; I]) -> [[W; L]; O];
}

/// What is multiplied with the sums of taps.
pub struct Operands;

impl Map<INPUTS, PRODUCTS> for Operands {
    #[inline(always)]
    fn map<W: Word, const L: usize>(x: [[W; L]; INPUTS]) -> [[W; L]; PRODUCTS] {
        let middle = minus(x[1], x[3]);
        let behind = minus(x[4], x[2]);
        [
            minus(minus(x[0], x[2]), middle),
            minus(minus(x[2], x[4]), middle),
            middle,
            behind,
            minus(x[5], x[3]),
            minus(x[2], x[3]),
            minus(x[4], x[3]),
            x[3],
        ]
    }
}

/// The outputs of the products.
pub struct Results;

impl Map<PRODUCTS, SIDE> for Results {
    #[inline(always)]
    fn map<W: Word, const L: usize>(m: [[W; L]; PRODUCTS]) -> [[W; L]; SIDE] {
        let (even, odd) = (plus(m[5], m[7]), plus(m[6], m[7]));
        [
            plus(plus(m[0], m[2]), even),
            plus(plus(m[1], m[2]), odd),
            plus(m[3], even),
            plus(m[4], odd),
        ]
    }
}

/// Sums of lanes.
#[inline(always)]
fn plus<W: Word, const L: usize>(a: [W; L], b: [W; L]) -> [W; L] {
    std::array::from_fn(|i| a[i].plus(b[i]))
}

/// Differences of lanes.
#[inline(always)]
fn minus<W: Word, const L: usize>(a: [W; L], b: [W; L]) -> [W; L] {
    std::array::from_fn(|i| a[i].minus(b[i]))
}

/// Elements of a vector.
const LANES: usize = 32;

/// Maps `count` elements from each offset in `from` to those in `to`.
///
/// # Panics
/// If there are not so many.
#[inline(always)]
pub fn map<W: Word, M: Map<I, O>, const I: usize, const O: usize>(
    from: &[W],
    at: [usize; I],
    to: &mut [W],
    offsets: [usize; O],
    count: usize,
) {
    let is_within = |&at: &usize, length: usize| at <= length && count <= length - at;
    assert!(at.iter().all(|at| is_within(at, from.len())));
    assert!(offsets.iter().all(|at| is_within(at, to.len())));
    let mut done = 0;
    // SAFETY: `done` and a block's elements are no more than `count`, which were found from every offset.
    unsafe {
        while done + LANES <= count {
            block::<W, M, I, O, LANES>(from.as_ptr(), at, to.as_mut_ptr(), offsets, done);
            done += LANES;
        }
        while done + 8 <= count {
            block::<W, M, I, O, 8>(from.as_ptr(), at, to.as_mut_ptr(), offsets, done);
            done += 8;
        }
        for i in done..count {
            block::<W, M, I, O, 1>(from.as_ptr(), at, to.as_mut_ptr(), offsets, i);
        }
    }
}

/// Maps `L` elements, `done` of them behind each offset.
#[inline(always)]
unsafe fn block<W: Word, M: Map<I, O>, const I: usize, const O: usize, const L: usize>(
    from: *const W,
    at: [usize; I],
    to: *mut W,
    offsets: [usize; O],
    done: usize,
) {
    let mut x = [[W::default(); L]; I];
    for (vector, at) in x.iter_mut().zip(at) {
        // SAFETY: the caller found the elements there; words have the alignment of words.
        *vector = unsafe { from.add(at + done).cast::<[W; L]>().read() };
    }
    for (vector, offset) in M::map(x).iter().zip(offsets) {
        // SAFETY: as above.
        unsafe { to.add(offset + done).cast::<[W; L]>().write(*vector) };
    }
}
