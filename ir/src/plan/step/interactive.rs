//! Steps with messages, and what every kind of them must define.
//!
//! A step takes one or more *round trips*. In each party 0 sends a masked *opening* and party 1 a *response*; the
//! last response is party 1's share of the value under a fresh mask, so that party 0 holds the value masked again.

use super::{Phase, Polynomial, Select, Square, Step, Table};
use crate::plan::evaluate::Coins;
use crate::plan::preprocess::{Cost, Method};
use crate::plan::{RingLwe, StepWeights};
use crate::ring::packed_bytes;
use crate::tensor::{Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The kinds of interactive steps. Parameters are the protocol's symbols.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Interactive {
    /// A trigonometric polynomial of the phase: one round trip.
    Phase(Phase),
    /// Truncation and square: one round trip.
    Square(Square),
    /// Truncation and a polynomial with secret coefficients: one round trip.
    Polynomial(Polynomial),
    /// The positive part, truncated: two round trips.
    Select(Select),
    /// A public function by its table: one round trip.
    Table(Table),
}

impl Interactive {
    /// The kind's protocol.
    pub fn protocol(&self) -> &dyn Protocol {
        match self {
            Self::Phase(kind) => kind,
            Self::Square(kind) => kind,
            Self::Polynomial(kind) => kind,
            Self::Select(kind) => kind,
            Self::Table(kind) => kind,
        }
    }
}

impl From<Phase> for Interactive {
    fn from(kind: Phase) -> Self {
        Self::Phase(kind)
    }
}
impl From<Square> for Interactive {
    fn from(kind: Square) -> Self {
        Self::Square(kind)
    }
}
impl From<Polynomial> for Interactive {
    fn from(kind: Polynomial) -> Self {
        Self::Polynomial(kind)
    }
}

impl From<Select> for Interactive {
    fn from(kind: Select) -> Self {
        Self::Select(kind)
    }
}

impl From<Table> for Interactive {
    fn from(kind: Table) -> Self {
        Self::Table(kind)
    }
}

/// Ring elements, or other words of so many bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// How many.
    pub elements: usize,
    /// Bits of each, up to 127 in a correlation, up to 64 in a response.
    pub bits: u32,
}

impl Field {
    /// Bytes, packed to the bit.
    pub fn bytes(&self) -> usize {
        packed_bytes(self.elements, self.bits)
    }
}

/// The messages of one round trip, of one inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// From party 0 to party 1.
    pub opening: Field,
    /// From party 1 to party 0.
    pub response: Field,
}

/// What a kind of interactive step must define. Counts are those of one inference.
pub trait Protocol {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Its parameters for people.
    fn parameters(&self) -> String;

    /// How many operands it has.
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    /// The shape of its value; by default that of its operand.
    ///
    /// # Errors
    /// If the operands' shapes do not fit.
    fn shape(&self, _step: &Step, operands: &[&Step]) -> Result<Shape, String> {
        Ok(operands[0].shape.clone())
    }

    /// Whether every element of the value depends on the same element of the operands alone. Long messages of
    /// such steps are sent in parts.
    fn is_elementwise(&self) -> bool {
        true
    }

    /// Bits that it needs of an operand's ring.
    fn operand_bits(&self) -> u32;

    /// Checks parameters and rings; `k` is that of the value.
    ///
    /// # Errors
    /// The first rule that is broken.
    fn check_rings(&self, k: u32, operands: &[&Step]) -> Result<(), String>;

    /// The low bits of the value that party 0 alone keeps of its share.
    fn guard(&self) -> u32 {
        0
    }

    /// Its round trips, at least one.
    fn trips(&self, step: &Step) -> Vec<Trip>;

    /// What the correlation holds beside what each party draws from its own seed: party 0's part, and
    /// party 1's.
    fn correlation(&self, step: &Step) -> [Vec<Field>; 2];

    /// Whether party 1's part of a dealt correlation expands from its seed: what a dealer gives it is uniform then. If
    /// not, its fields stand in its item, as those of party 0 do.
    fn expands(&self) -> bool {
        true
    }

    /// The most elements of one exchange of the offline phase.
    fn elements_at_once(&self) -> usize {
        1 << 14
    }

    /// The exchanges, one or more, that preprocess the correlations of `count` elements of its value, with one of these
    /// sets of encryption parameters. Both parties know them from the plan.
    fn exchanges(&self, step: &Step, count: usize, sets: &[RingLwe]) -> Vec<(Method, Cost)>;

    /// Sets of encryption parameters that would serve it; none if it needs none.
    fn encryption(&self, _count: usize) -> Vec<RingLwe> {
        vec![]
    }

    /// The cost of an element online, for both parties together, in sums of two products.
    fn online_work(&self) -> u32;

    /// Whether these are secrets that the step may have.
    fn fits(&self, step: &Step, secrets: &StepWeights) -> bool;

    /// Its exact meaning, for operands of these rings.
    ///
    /// # Panics
    /// If these are secrets of another step.
    fn exact<'a>(
        &'a self,
        step: &'a Step,
        rings: &[u32],
        secrets: &'a StepWeights,
    ) -> Box<dyn Exact + 'a>;
}

/// The exact meaning of an interactive step: what two parties compute, to one unit.
pub trait Exact: Send + Sync {
    /// The value of these operands, with carries of `coins`.
    fn value(&self, operands: &[&Tensor<u64>], coins: &mut Coins) -> Tensor<u64>;
}
