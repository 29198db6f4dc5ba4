//! Types of the elements of a model's inputs and outputs, as its file states them. Both parties compute with
//! ring elements; the type says which numbers a user gives and gets.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The type of an element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ElementType {
    /// A real, whatever its precision in the file.
    #[default]
    Real,
    /// 0 or 1.
    Bool,
    /// An integer of 2 to 64 bits.
    Integer {
        /// Its bits.
        bits: u8,
        /// Whether it may be negative.
        signed: bool,
    },
}

impl ElementType {
    /// The smallest and the largest value; `None` for reals.
    pub fn range(self) -> Option<(f64, f64)> {
        match self {
            Self::Real => None,
            Self::Bool => Some((0.0, 1.0)),
            Self::Integer { bits, signed: false } => Some((0.0, f64::from(bits).exp2() - 1.0)),
            Self::Integer { bits, signed: true } => {
                let half = (f64::from(bits) - 1.0).exp2();
                Some((-half, half - 1.0))
            }
        }
    }

    /// Whether every element is a whole number.
    pub fn is_whole(self) -> bool {
        self != Self::Real
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real => f.write_str("float"),
            Self::Bool => f.write_str("bool"),
            Self::Integer { bits, signed: true } => write!(f, "int{bits}"),
            Self::Integer { bits, signed: false } => write!(f, "uint{bits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_types() {
        let of = |bits, signed| ElementType::Integer { bits, signed };
        assert_eq!(of(8, false).range(), Some((0.0, 255.0)));
        assert_eq!(of(8, true).range(), Some((-128.0, 127.0)));
        assert_eq!(of(4, true).range(), Some((-8.0, 7.0)));
        assert_eq!(ElementType::Real.range(), None);
        assert_eq!(of(16, true).to_string(), "int16");
    }
}
