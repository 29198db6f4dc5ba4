//! Types of the elements of a model's inputs and outputs, as its file states them. Both parties compute with
//! ring elements; the type says which numbers a user gives and gets.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The largest magnitude of integers that an `f32` tells from their neighbours.
pub const MOST_EXACT: f64 = ((1u32 << 24) - 1) as f64;

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

    /// The elements that an input can have: those of the type that an `f32` holds exactly.
    pub fn input_range(self) -> Option<(f64, f64)> {
        self.range().map(|(low, high)| (low.max(-MOST_EXACT), high.min(MOST_EXACT)))
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

/// Reals as elements of a type of whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integers {
    /// The type.
    pub element: ElementType,
    /// Whether fractions are cut off and the rest wraps around, as `Cast` does it in ONNX Runtime (ONNX leaves
    /// numbers outside the type's range open); otherwise numbers are rounded, halves to even, and saturate, as
    /// in `QuantizeLinear`.
    pub truncates: bool,
}

impl Integers {
    /// The integer for a real.
    pub fn at(self, x: f32) -> f32 {
        let (low, high) = self.element.range().unwrap_or((f64::MIN, f64::MAX));
        let x = f64::from(x);
        if !self.truncates {
            return x.round_ties_even().clamp(low, high) as f32;
        }
        let whole = x.trunc();
        if (low..=high).contains(&whole) {
            return whole as f32;
        }
        (low + (whole - low).rem_euclid(high - low + 1.0)) as f32
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
        assert_eq!(of(64, true).input_range(), Some((-MOST_EXACT, MOST_EXACT)));
    }

    #[test]
    fn integers_are_rounded_or_truncated_and_saturate() {
        let at = |bits, signed, truncates, x| {
            Integers { element: ElementType::Integer { bits, signed }, truncates }.at(x)
        };
        let rounded = [0.5, 1.5, 2.4, 300.0, -3.0].map(|x| at(8, false, false, x));
        assert_eq!(rounded, [0.0, 2.0, 2.0, 255.0, 0.0]);
        let truncated = [2.9, -2.9, 300.5].map(|x| at(64, true, true, x));
        assert_eq!(truncated, [2.0, -2.0, 300.0]);
        assert_eq!([-0.9, -3.2, 257.9].map(|x| at(8, false, true, x)), [0.0, 253.0, 1.0]);
        assert_eq!([-129.0, 128.0].map(|x| at(8, true, true, x)), [127.0, -128.0]);
    }
}
