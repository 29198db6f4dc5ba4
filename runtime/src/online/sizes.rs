//! How much of a layer is computed and sent at once.

use ir::plan::PART;

/// How much is computed, sent and loaded at once.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Elements that are computed at once, so that they stay in a core's cache.
    pub grain: usize,
    /// Elements that are sent at once.
    pub part: usize,
    /// Bytes of correlations that are loaded before the phase begins.
    pub preloaded: usize,
}

impl Sizes {
    /// A grain is about four hundred kilobytes of values and correlations; a part is large enough for a system call; a
    /// single inference of a large network has all correlations loaded.
    pub const DEFAULT: Self = Self { grain: 1 << 14, part: PART, preloaded: 1 << 28 };

    /// Whether a message of so many elements is sent in parts.
    pub fn cut(self, elements: usize) -> bool {
        elements >= 2 * self.part
    }
}

/// The cost of elementwise work per element, for either party, in products of a kernel.
pub const ELEMENT: usize = 32;
