//! The seam behind which party 0 computes: the loop moves bytes, and whoever holds the values makes them. Values
//! need not be in this machine's memory.

use super::schedule::Ask;
use crate::Error;
use crate::steps::Record0;
use std::ops::Range;

/// Party 0's computation over a batch. Ranges are of a step's elements in the batch, in the order online.
pub trait Device {
    /// An interactive step's round trip under way.
    type Open: Send;
    /// What makes its parts.
    type Asking<'s, 'o: 's>: Asking<Part = Self::Part<'o>>
    where
        Self: 's + 'o;
    /// A part whose response is to come.
    type Part<'o>: Part + Send
    where
        Self: 'o;

    /// Elements of a part of a message that is cut.
    fn part(&self) -> usize;

    /// Takes the next part of the masked input.
    ///
    /// # Errors
    /// If padding is set.
    fn input(&mut self, range: Range<usize>, bytes: &[u8]) -> Result<(), Error>;

    /// Computes a step without messages other than the input; one with secret weights gets its record.
    ///
    /// # Errors
    /// If an operand or the record is not there: a defect.
    fn local(&mut self, step: usize, record: Option<Record0>) -> Result<(), Error>;

    /// Takes up a round trip: with the record of the linear step that begins its tail, if it has one, and at the
    /// first round trip with the step's own.
    ///
    /// # Errors
    /// If a record is not there: a defect.
    fn open(
        &mut self,
        ask: &Ask,
        made: Option<Record0>,
        record: Option<Record0>,
    ) -> Result<Self::Open, Error>;

    /// What makes the parts of a round trip, from the first on.
    ///
    /// # Errors
    /// If weights, records or values are another step's: a defect.
    fn asking<'s, 'o: 's>(
        &'s mut self,
        ask: &'s Ask,
        open: &'o mut Self::Open,
    ) -> Result<Self::Asking<'s, 'o>, Error>
    where
        Self: 's + 'o;

    /// Adds a response that comes whole; `false` if padding is set.
    #[must_use]
    fn respond(&mut self, ask: &Ask, open: &mut Self::Open, bytes: &[u8]) -> bool;

    /// Ends a round trip: all responses are there. `spent` gets what was used up.
    fn close(&mut self, ask: &Ask, open: Self::Open, spent: &mut dyn FnMut(Record0));

    /// Lets values go that nothing reads any more. `spent` gets what was used up.
    fn release(&mut self, steps: &[usize], spent: &mut dyn FnMut(Record0));

    /// Writes a part of the masked output.
    ///
    /// # Errors
    /// If it is not there: a defect.
    fn output(&mut self, range: Range<usize>, bytes: &mut [u8]) -> Result<(), Error>;
}

/// Makes the parts of a round trip, one after the other.
pub trait Asking {
    /// A part whose response is to come.
    type Part;

    /// Elements of a part, whole output positions of a linear step that is made with it.
    fn part(&self) -> usize;

    /// Writes the opening of the next part.
    fn open(&mut self, range: Range<usize>, bytes: &mut [u8]);

    /// Party 0's share of the part whose opening was the last.
    fn share(&mut self, range: Range<usize>) -> Self::Part;
}

/// Party 0's share of some elements.
pub trait Part {
    /// How many they are.
    fn len(&self) -> usize;

    /// Adds the response; `false` if padding is set.
    #[must_use]
    fn respond(self, bytes: &[u8]) -> bool;
}
