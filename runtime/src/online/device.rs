//! The interface between party 0's loop, which sends and receives bytes, and the device that holds the values and
//! computes with them. Values need not be in this machine's memory.

use super::schedule::Interaction;
use crate::Error;
use crate::steps::Record0;
use std::ops::Range;

/// Party 0's computation for a batch. A range counts a step's elements over the whole batch, in the order online.
pub trait Device {
    /// A round trip that has begun.
    type Open: Send;
    /// Computes the parts of its opening.
    type PartMaker<'s, 'o: 's>: PartMaker<Part = Self::Part<'o>>
    where
        Self: 's + 'o;
    /// A part that waits for its response.
    type Part<'o>: Part + Send
    where
        Self: 'o;

    /// Elements of a part of a message that is sent in parts.
    fn part(&self) -> usize;

    /// Takes the next part of the masked input.
    ///
    /// # Errors
    /// If padding is set.
    fn input(&mut self, range: Range<usize>, bytes: &[u8]) -> Result<(), Error>;

    /// Computes a step without messages, other than the input; a step with secret weights gets its record.
    ///
    /// # Errors
    /// If an operand or the record is not there: a defect.
    fn local(&mut self, step: usize, record: Option<Record0>) -> Result<(), Error>;

    /// Begins a round trip, with the record of the linear step that begins its fusion chain, if it has one, and, at
    /// the step's first round trip, with the step's own record.
    ///
    /// # Errors
    /// If a record is not there: a defect.
    fn open(
        &mut self,
        interaction: &Interaction,
        fused: Option<Record0>,
        record: Option<Record0>,
    ) -> Result<Self::Open, Error>;

    /// Starts to compute the parts of a round trip.
    ///
    /// # Errors
    /// If weights, records or values are another step's: a defect.
    fn part_maker<'s, 'o: 's>(
        &'s mut self,
        interaction: &'s Interaction,
        open: &'o mut Self::Open,
    ) -> Result<Self::PartMaker<'s, 'o>, Error>
    where
        Self: 's + 'o;

    /// Adds a response that came as a whole; `false` if padding is set.
    #[must_use]
    fn add_response(
        &mut self,
        interaction: &Interaction,
        open: &mut Self::Open,
        bytes: &[u8],
    ) -> bool;

    /// Ends a round trip whose responses were all added. `spent` gets the used records.
    fn close(
        &mut self,
        interaction: &Interaction,
        open: Self::Open,
        spent: &mut dyn FnMut(Record0),
    );

    /// Releases every value that nothing reads any more. `spent` gets the used records.
    fn release(&mut self, steps: &[usize], spent: &mut dyn FnMut(Record0));

    /// Writes a part of the masked output.
    ///
    /// # Errors
    /// If it is not there: a defect.
    fn output(&mut self, range: Range<usize>, bytes: &mut [u8]) -> Result<(), Error>;
}

/// Computes the parts of a round trip, one after the other.
pub trait PartMaker {
    /// A part that waits for its response.
    type Part;

    /// Elements of a part: whole output positions of the fused linear step, if there is one.
    fn part(&self) -> usize;

    /// Writes the opening of the next part.
    fn open(&mut self, range: Range<usize>, bytes: &mut [u8]);

    /// Computes party 0's share of the part that was opened last.
    fn share(&mut self, range: Range<usize>) -> Self::Part;
}

/// Party 0's share of a part, which waits for the response.
pub trait Part {
    /// Its elements.
    fn len(&self) -> usize;

    /// Adds the response; `false` if padding is set.
    #[must_use]
    fn add_response(self, bytes: &[u8]) -> bool;
}
