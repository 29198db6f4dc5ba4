//! Vectors of ring elements as lanes of 32 or 64 bits, whichever holds `Q` bits: arithmetic mod 2^32 or
//! 2^64 is right in the low bits, so that nothing is masked on the way.

use super::hash::Block;
use zeroize::Zeroize;

/// An unsigned integer that wraps.
pub trait Lane: Copy + Default + Zeroize + Send + Sync + 'static {
    /// Lanes of a 128-bit block.
    const PER_BLOCK: usize;

    /// The low bits.
    fn from_u64(value: u64) -> Self;
    /// Zero above.
    fn to_u64(self) -> u64;
    /// Sum.
    fn add(self, other: Self) -> Self;
    /// Difference.
    fn sub(self, other: Self) -> Self;
    /// Product.
    fn mul(self, other: Self) -> Self;

    /// The one of two tables that has lanes like these.
    fn choose<'a>(narrow: &'a [u32], wide: &'a [u64]) -> &'a [Self];
    /// `self` where `mask` is zero, `−self` where all its bits are set.
    fn negate_if(self, mask: Self) -> Self;

    /// Exchanges two slices of the same length where `bit` is 1, and not where it is 0.
    fn exchange(a: &mut [Self], b: &mut [Self], bit: u64);

    /// Writes the lanes of block `x` to `vectors[(x ⊕ shift)·lanes + first ..]`.
    fn spread(blocks: &[Block], vectors: &mut [Self], lanes: usize, first: usize, shift: usize);
}

macro_rules! lane {
    ($lane:ty, $per_block:literal, |$narrow:ident, $wide:ident| $table:ident) => {
        impl Lane for $lane {
            const PER_BLOCK: usize = $per_block;

            #[inline(always)]
            fn from_u64(value: u64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn to_u64(self) -> u64 {
                u64::from(self)
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }

            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }

            #[inline(always)]
            fn choose<'a>($narrow: &'a [u32], $wide: &'a [u64]) -> &'a [Self] {
                $table
            }

            #[inline(always)]
            fn negate_if(self, mask: Self) -> Self {
                (self ^ mask).wrapping_sub(mask)
            }

            #[inline(always)]
            fn exchange(a: &mut [Self], b: &mut [Self], bit: u64) {
                let mask = (bit as Self).wrapping_neg();
                for (a, b) in a.iter_mut().zip(b) {
                    let difference = (*a ^ *b) & mask;
                    *a ^= difference;
                    *b ^= difference;
                }
            }

            fn spread(
                blocks: &[Block],
                vectors: &mut [Self],
                lanes: usize,
                first: usize,
                shift: usize,
            ) {
                const BYTES: usize = 16 / $per_block;
                for (x, block) in blocks.iter().enumerate() {
                    let words = block.as_chunks::<BYTES>().0;
                    let to = &mut vectors[(x ^ shift) * lanes + first..][..$per_block];
                    to.iter_mut().zip(words).for_each(|(to, w)| *to = Self::from_le_bytes(*w));
                }
            }
        }
    };
}

lane!(u32, 4, |narrow, _wide| narrow);
lane!(u64, 2, |_narrow, wide| wide);

/// The sum of all entries of `lanes` lanes, a power of two many, in the first of `sums`, which is
/// overwritten.
#[inline(always)]
pub fn add_all<L: Lane>(vectors: &[L], lanes: usize, sums: &mut Vec<L>) {
    let (first, second) = vectors.split_at(vectors.len() / 2);
    sums.clear();
    sums.extend(first.iter().zip(second).map(|(a, b)| a.add(*b)));
    add_up(sums, lanes);
}

/// As [`add_all`], in place. Halves are added to halves, which are vectors of any width.
#[inline(always)]
pub fn add_up<L: Lane>(vectors: &mut [L], lanes: usize) {
    let mut rest = vectors;
    while rest.len() > lanes {
        let (first, second) = rest.split_at_mut(rest.len() / 2);
        first.iter_mut().zip(second).for_each(|(a, b)| *a = a.add(*b));
        rest = first;
    }
}
