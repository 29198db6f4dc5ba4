//! Ring elements in words no wider than their ring asks for: 16, 32 or 64 bits.

use ir::word::Word;
use std::ops::Range;
use zeroize::Zeroize;

/// A vector of ring elements; the width of the words follows from the ring. No `Debug`: it may hold a
/// mask or a share.
#[derive(Clone, PartialEq)]
pub enum Words {
    /// Rings of up to 16 bits.
    W16(Vec<u16>),
    /// Rings of 17 to 32 bits.
    W32(Vec<u32>),
    /// Rings of 33 to 64 bits.
    W64(Vec<u64>),
}

/// Runs an expression on the vector inside, whatever its words.
macro_rules! each_width {
    ($words:expr, $vector:ident => $body:expr) => {
        match $words {
            $crate::words::Words::W16($vector) => $body,
            $crate::words::Words::W32($vector) => $body,
            $crate::words::Words::W64($vector) => $body,
        }
    };
}
pub(crate) use each_width;

impl Words {
    /// Bits of the words for a ring of `ring` bits.
    pub fn bits(ring: u32) -> u32 {
        match ring {
            0..=16 => 16,
            17..=32 => 32,
            _ => 64,
        }
    }

    /// Zeros of a ring of `ring` bits.
    pub fn zeros(ring: u32, count: usize) -> Self {
        match ring {
            0..=16 => Self::W16(vec![0; count]),
            17..=32 => Self::W32(vec![0; count]),
            _ => Self::W64(vec![0; count]),
        }
    }

    /// Elements of a ring of `ring` bits.
    pub fn new(ring: u32, elements: impl Iterator<Item = u64>) -> Self {
        match ring {
            0..=16 => Self::W16(elements.map(|v| v as u16).collect()),
            17..=32 => Self::W32(elements.map(|v| v as u32).collect()),
            _ => Self::W64(elements.collect()),
        }
    }

    /// Makes them `count` elements, whatever they are, in the same memory if it is enough.
    pub fn resize(&mut self, count: usize) {
        each_width!(self, v => v.resize(count, Word::low(0)));
    }

    /// Copies the elements of another vector of these words, again and again.
    ///
    /// # Panics
    /// If it has words of another width.
    pub fn fill(&mut self, with: &Self) {
        match (self, with) {
            (Self::W16(to), Self::W16(from)) => repeat(to, from),
            (Self::W32(to), Self::W32(from)) => repeat(to, from),
            (Self::W64(to), Self::W64(from)) => repeat(to, from),
            _ => panic!("words of two widths"),
        }
    }

    /// All elements, to be read.
    pub fn whole(&self) -> WordsRef<'_> {
        self.part(0..self.len())
    }

    /// Elements of a range, to be read.
    pub fn part(&self, range: Range<usize>) -> WordsRef<'_> {
        match self {
            Self::W16(v) => WordsRef::W16(&v[range]),
            Self::W32(v) => WordsRef::W32(&v[range]),
            Self::W64(v) => WordsRef::W64(&v[range]),
        }
    }

    /// Elements of a range, to be written.
    pub fn part_mut(&mut self, range: Range<usize>) -> WordsMut<'_> {
        match self {
            Self::W16(v) => WordsMut::W16(&mut v[range]),
            Self::W32(v) => WordsMut::W32(&mut v[range]),
            Self::W64(v) => WordsMut::W64(&mut v[range]),
        }
    }

    /// Bits of a word.
    pub fn width(&self) -> u32 {
        match self {
            Self::W16(_) => 16,
            Self::W32(_) => 32,
            Self::W64(_) => 64,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        each_width!(self, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as 64-bit words.
    pub fn elements(&self) -> Vec<u64> {
        each_width!(self, v => v.iter().map(|w| w.element()).collect())
    }
}

/// Some of the elements of [`Words`].
#[derive(Clone, Copy)]
pub enum WordsRef<'a> {
    /// Rings of up to 16 bits.
    W16(&'a [u16]),
    /// Rings of 17 to 32 bits.
    W32(&'a [u32]),
    /// Rings of 33 to 64 bits.
    W64(&'a [u64]),
}

/// Some of the elements of [`Words`], to be written.
pub enum WordsMut<'a> {
    /// Rings of up to 16 bits.
    W16(&'a mut [u16]),
    /// Rings of 17 to 32 bits.
    W32(&'a mut [u32]),
    /// Rings of 33 to 64 bits.
    W64(&'a mut [u64]),
}

/// As `each_width!`, for an enum of slices.
macro_rules! each_slice {
    ($kind:ident, $words:expr, $slice:ident => $body:expr) => {
        match $words {
            $crate::words::$kind::W16($slice) => $body,
            $crate::words::$kind::W32($slice) => $body,
            $crate::words::$kind::W64($slice) => $body,
        }
    };
}
pub(crate) use each_slice;

impl<'a> WordsMut<'a> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        each_slice!(WordsMut, self, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same elements for a while.
    pub fn borrow(&mut self) -> WordsMut<'_> {
        match self {
            Self::W16(v) => WordsMut::W16(v),
            Self::W32(v) => WordsMut::W32(v),
            Self::W64(v) => WordsMut::W64(v),
        }
    }

    /// The elements, to be read.
    pub fn as_ref(&self) -> WordsRef<'_> {
        match self {
            Self::W16(v) => WordsRef::W16(v),
            Self::W32(v) => WordsRef::W32(v),
            Self::W64(v) => WordsRef::W64(v),
        }
    }

    /// Parts of `count` elements.
    pub fn chunks(self, count: usize) -> impl Iterator<Item = Self> {
        let mut left = Some(self);
        std::iter::from_fn(move || {
            let all = left.take().filter(|words| !words.is_empty())?;
            let end = count.min(all.len());
            let (part, rest) = all.split_at(end);
            left = Some(rest);
            Some(part)
        })
    }

    /// The first `count` elements and the rest.
    pub fn split_at(self, count: usize) -> (Self, Self) {
        match self {
            Self::W16(v) => {
                let (a, b) = v.split_at_mut(count);
                (Self::W16(a), Self::W16(b))
            }
            Self::W32(v) => {
                let (a, b) = v.split_at_mut(count);
                (Self::W32(a), Self::W32(b))
            }
            Self::W64(v) => {
                let (a, b) = v.split_at_mut(count);
                (Self::W64(a), Self::W64(b))
            }
        }
    }
}

impl WordsRef<'_> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        each_slice!(WordsRef, self, v => v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for Words {
    fn default() -> Self {
        Self::W16(vec![])
    }
}

fn repeat<W: Copy>(to: &mut [W], from: &[W]) {
    to.chunks_exact_mut(from.len()).for_each(|to| to.copy_from_slice(from));
}

impl Zeroize for Words {
    fn zeroize(&mut self) {
        each_width!(self, v => v.zeroize());
    }
}

/// Words of one of the widths.
pub trait Width: Word + Zeroize {
    /// Elements, to be read.
    fn of(words: &[Self]) -> WordsRef<'_>;
    /// Elements, to be written.
    fn of_mut(words: &mut [Self]) -> WordsMut<'_>;
}

macro_rules! width {
    ($word:ty, $variant:ident) => {
        impl Width for $word {
            fn of(words: &[Self]) -> WordsRef<'_> {
                WordsRef::$variant(words)
            }
            fn of_mut(words: &mut [Self]) -> WordsMut<'_> {
                WordsMut::$variant(words)
            }
        }
    };
}
width!(u16, W16);
width!(u32, W32);
width!(u64, W64);

impl From<Vec<u16>> for Words {
    fn from(words: Vec<u16>) -> Self {
        Self::W16(words)
    }
}
impl From<Vec<u32>> for Words {
    fn from(words: Vec<u32>) -> Self {
        Self::W32(words)
    }
}
impl From<Vec<u64>> for Words {
    fn from(words: Vec<u64>) -> Self {
        Self::W64(words)
    }
}
