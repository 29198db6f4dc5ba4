//! Ring elements in words no wider than their ring asks for: 16, 32 or 64 bits.

use ir::op::matrix::Word;
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

    /// Makes them `count` zeros, in the same memory if it is enough.
    pub fn clear(&mut self, count: usize) {
        each_width!(self, v => {
            v.clear();
            v.resize(count, Word::low(0));
        });
    }

    /// Elements for which there is memory.
    pub fn capacity(&self) -> usize {
        each_width!(self, v => v.capacity())
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

impl Zeroize for Words {
    fn zeroize(&mut self) {
        each_width!(self, v => v.zeroize());
    }
}

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
