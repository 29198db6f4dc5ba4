//! Machine words that ring elements are computed in, and loops over them for the widest vectors of this machine.

use crate::tensor::Element;

/// An unsigned machine word whose arithmetic wraps; rings of up to its width are computed in it.
pub trait Word: Element + Default {
    /// Bits of the word.
    const BITS: u32;
    /// The low bits of a ring element.
    fn low(element: u64) -> Self;
    /// The low bits of a signed weight, two's complement.
    fn weight(weight: i32) -> Self;
    /// `self + a·b`, wrapping.
    fn multiply_add(self, a: Self, b: Self) -> Self;
    /// `self − other`, wrapping.
    fn minus(self, other: Self) -> Self;
    /// `self · other`, wrapping.
    fn times(self, other: Self) -> Self;
    /// The bits that are set in both.
    fn and(self, other: Self) -> Self;
    /// `⌊self / 2^by⌋`; `by` below the word's bits.
    fn shift_right(self, by: u32) -> Self;
    /// `self · 2^by`, wrapping; `by` below the word's bits.
    fn shift_left(self, by: u32) -> Self;
    /// The word as a ring element.
    fn element(self) -> u64;
}

macro_rules! word {
    ($t:ty) => {
        impl Word for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn low(element: u64) -> Self {
                element as $t
            }
            #[inline(always)]
            fn weight(weight: i32) -> Self {
                weight as $t
            }
            #[inline(always)]
            fn multiply_add(self, a: Self, b: Self) -> Self {
                self.wrapping_add(a.wrapping_mul(b))
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }
            #[inline(always)]
            fn shift_right(self, by: u32) -> Self {
                self >> by
            }
            #[inline(always)]
            fn shift_left(self, by: u32) -> Self {
                self << by
            }
            #[inline(always)]
            fn element(self) -> u64 {
                self as u64
            }
        }
    };
}
word!(u16);
word!(u32);
word!(u64);

/// Runs loops compiled for the widest vectors that this machine has; mark the closure and what it calls
/// `#[inline(always)]`.
#[inline(always)]
pub fn vectorized<R>(run: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(run)
}
