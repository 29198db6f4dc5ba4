//! Messages of the online phase: a step's elements, packed to a given number of bits each, sent and received in parts.

use crate::Error;
use crate::net::{NetError, Receiving, Sending};
use crate::wire;
use crate::words::{Words, WordsMut, each_slice, each_width};
use ir::plan::{Plan, RoundTrip, Step};
use ir::ring::{low_mask, packed_bytes};
use ir::word::Word;
use std::ops::Range;

/// The format of one message: elements of a step of the plan.
#[derive(Clone, Copy)]
pub struct PackedMessage<'a> {
    step: usize,
    name: &'a str,
    /// Bits of an element.
    bits: u32,
    what: &'static str,
}

impl<'a> PackedMessage<'a> {
    /// The message of a step, with so many bits per element.
    pub fn new(plan: &'a Plan, step: usize, bits: u32, what: &'static str) -> Self {
        Self { step, name: &plan.steps[step].name, bits, what }
    }

    /// One party's side of a step's value.
    pub fn value(plan: &'a Plan, step: usize, what: &'static str) -> Self {
        let Step { ring, .. } = plan.steps[step];
        Self::new(plan, step, ring, what)
    }

    /// Party 0's opening of a round trip.
    pub fn opening(plan: &'a Plan, trip: &RoundTrip) -> Self {
        Self::new(plan, trip.step, trip.messages.opening.bits, "the opening of")
    }

    /// Party 1's response of a round trip; the last one has the bits of the value without its guard bits.
    pub fn response(plan: &'a Plan, trip: &RoundTrip) -> Self {
        Self::new(plan, trip.step, trip.messages.response.bits, "the response to")
    }

    /// Bytes of so many elements.
    pub fn bytes(self, elements: usize) -> usize {
        packed_bytes(elements, self.bits)
    }

    /// Sends the next bytes.
    pub fn send_part(
        self,
        sending: &mut dyn Sending,
        bytes: &[u8],
        ends: bool,
    ) -> Result<(), Error> {
        sending.send_part(bytes, ends).map_err(|e| self.failed("sending", e))
    }

    /// Sends all elements of `words`, by parts of `part`.
    pub fn send(
        self,
        sending: &mut dyn Sending,
        words: &Words,
        part: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        each_width!(words, words => parts(words.len(), part).try_for_each(|range| {
            let bytes = room(buffer, packed_bytes(range.len(), self.bits));
            self.pack(&words[range.clone()], bytes);
            self.send_part(sending, bytes, range.end == words.len())
        }))
    }

    /// Packs elements into exactly the bytes that they take.
    pub fn pack<W: Word>(self, words: &[W], bytes: &mut [u8]) {
        wire::pack_into(words, self.bits, bytes);
    }

    /// Receives the next `count` bytes.
    pub fn receive_part<'b>(
        self,
        receiving: &mut dyn Receiving,
        count: usize,
        ends: bool,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], Error> {
        let bytes = room(buffer, count);
        receiving.receive_part(bytes, ends).map_err(|e| self.failed("waiting for", e))?;
        Ok(bytes)
    }

    /// Unpacks the elements in `bytes`, `word = combine(word, element)`.
    pub fn take<W: Word>(
        self,
        bytes: &[u8],
        words: &mut [W],
        combine: impl Fn(W, W) -> W,
    ) -> Result<(), Error> {
        if wire::unpack(bytes, self.bits, words, combine) { Ok(()) } else { Err(self.padding()) }
    }

    /// Receives all elements of `words` by parts of `part`, `word = combine(word, element)`.
    pub fn receive<W: Word>(
        self,
        receiving: &mut dyn Receiving,
        words: &mut [W],
        part: usize,
        buffer: &mut Vec<u8>,
        combine: impl Fn(W, W) -> W + Copy,
    ) -> Result<(), Error> {
        let all = words.len();
        parts(all, part).try_for_each(|range| {
            let count = packed_bytes(range.len(), self.bits);
            let bytes = self.receive_part(receiving, count, range.end == all, buffer)?;
            self.take(bytes, &mut words[range], combine)
        })
    }

    /// The error if padding bits are set.
    pub fn padding(self) -> Error {
        Error::Peer(format!("{} v{} has padding bits that are set", self.what, self.step))
    }

    fn failed(self, doing: &str, cause: NetError) -> Error {
        Error::net(format!("{doing} {} v{} ({})", self.what, self.step, self.name), cause)
    }
}

/// Adds the packed elements of `bits` bits in `bytes`, shifted left by `guard`, to words in a ring of `bits + guard`
/// bits; `false` if padding is set.
#[must_use]
pub fn add_elements(bytes: &[u8], bits: u32, guard: u32, words: WordsMut<'_>) -> bool {
    each_slice!(WordsMut, words, words => {
        let mask = Word::low(low_mask(bits + guard));
        wire::unpack(bytes, bits, words, #[inline(always)] |a, b| {
            Word::and(ir::Element::plus(a, Word::shift_left(b, guard)), mask)
        })
    })
}

/// Divides `all` elements into ranges of `part`; a single one if they are fewer than two parts.
pub fn parts(all: usize, part: usize) -> impl Iterator<Item = Range<usize>> {
    let part = if all < 2 * part { all.max(1) } else { part };
    (0..all).step_by(part).map(move |start| start..all.min(start + part))
}

/// The first `count` bytes of a buffer, which grows as needed.
pub fn room(buffer: &mut Vec<u8>, count: usize) -> &mut [u8] {
    if buffer.len() < count {
        buffer.resize(count, 0);
    }
    &mut buffer[..count]
}
