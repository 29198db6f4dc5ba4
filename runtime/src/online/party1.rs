//! Party 1's loop. Its masks are known before its input is.

use super::feed::{Feed, Stream};
use super::known::{Known, StepMaterial};
use super::messages::{PackedMessage, parts, room};
use super::missing;
use super::sizes::{ELEMENT, Sizes};
use crate::Error;
use crate::kernel::cores;
use crate::layout::{to_online, to_row_major};
use crate::net::{Channel, Receiving, Sending};
use crate::preprocess::item::Party1Item;
use crate::steps::{Kept, Parts1, Responder, Responding, Tables, each_kind, kept};
use crate::words::{Words, WordsMut, each_width};
use ir::Tensor;
use ir::plan::{Field, Plan, Round, RoundTrip};
use ir::ring::{low_mask, packed_bytes};
use ir::word::Word;
use std::mem::take;
use std::ops::Range;
use zeroize::Zeroizing;

/// Party 1 before the online phase: its side of every value is computed, and no weight was needed.
pub struct Party1<'a> {
    plan: &'a Plan,
    tables: Tables,
    rounds: Vec<Round>,
    batch: usize,
    input: Option<Zeroizing<Words>>,
    output: Option<Zeroizing<Words>>,
    /// The correlations; after the phase, the used ones, to be wiped.
    feed: Option<Feed<'a, StepMaterial>>,
    /// By step: what is kept between two of its round trips.
    under_way: Vec<Option<UnderWay>>,
    sizes: Sizes,
    memory: Memory,
}

/// A step from its first opening to its last response.
struct UnderWay {
    material: StepMaterial,
    /// The responses of the earlier round trips.
    sent: Vec<Zeroizing<Words>>,
    /// The response of this round trip, unless it is the last, which is computed in the memory of the fresh masks.
    out: Option<Zeroizing<Words>>,
}

/// Memory of the loop.
#[derive(Default)]
struct Memory {
    /// The openings of a round, by round trip; the first one is also used for parts.
    kept: Vec<Kept>,
    /// Bytes of a part that is received, and of one that is sent.
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl<'a> Party1<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        tables: Tables,
        items: Vec<Party1Item<'a>>,
    ) -> Result<Self, Error> {
        Self::cut(plan, tables, items, Sizes::DEFAULT)
    }

    /// With parts of other sizes.
    pub(super) fn cut(
        plan: &'a Plan,
        tables: Tables,
        mut items: Vec<Party1Item<'a>>,
        sizes: Sizes,
    ) -> Result<Self, Error> {
        let batch = items.len();
        let Known { input, output, mut steps } = Known::new(plan, &mut items)?;
        let rounds = plan.rounds();
        let trips = rounds.iter().flat_map(|r| &r.trips);
        let order = trips.filter(|t| t.number == 0).map(|t| t.step).collect();
        let make = move |index: usize| {
            let kind = plan.steps[index].op.interactive().ok_or_else(|| missing(index))?;
            StepMaterial::take(plan, kind, index, &mut items, take(&mut steps[index]))
        };
        let feed = Some(Feed::new(plan, batch, sizes.preloaded, order, make)?);
        let mut party = Self {
            plan,
            tables,
            rounds,
            batch,
            input: Some(input),
            output: Some(output),
            feed,
            under_way: plan.steps.iter().map(|_| None).collect(),
            sizes,
            memory: Memory::default(),
        };
        party.make_room();
        Ok(party)
    }

    /// Allocates memory for the longest part and for the longest round of whole messages.
    fn make_room(&mut self) {
        let Self { plan, rounds, batch, sizes, memory, .. } = self;
        let most = rounds.iter().map(|r| r.trips.len()).max().unwrap_or(0);
        memory.kept.resize_with(most, Kept::default);
        for round in rounds {
            for (at, trip) in round.trips.iter().enumerate() {
                let step = &plan.steps[trip.step];
                let part = (step.shape.elements() * *batch).min(2 * sizes.part);
                let bytes = |field: Field| match trip.is_elementwise {
                    true => packed_bytes(part, field.bits),
                    false => packed_bytes(field.elements * *batch, field.bits),
                };
                room(&mut memory.incoming, bytes(trip.messages.opening));
                room(&mut memory.outgoing, bytes(trip.messages.response));
                if let Some(kind) = step.op.interactive() {
                    memory.kept[at].reserve(kind, step.ring, part);
                }
            }
        }
    }

    fn elements(&self, index: usize) -> usize {
        self.plan.steps[index].shape.elements() * self.batch
    }

    /// Runs the online phase for encoded inputs.
    pub(crate) fn run(
        &mut self,
        channel: &mut impl Channel,
        inputs: &[Tensor<u64>],
    ) -> Result<Vec<Tensor<u64>>, Error> {
        let (plan, batch) = (self.plan, self.batch);
        if inputs.len() != batch || inputs.iter().any(|x| x.shape != *plan.input_shape()) {
            return Err(Error::Internal(format!("{} inputs, agreed on {batch}", inputs.len())));
        }
        let mut feed = self.feed.take().ok_or_else(|| missing(0))?;
        let (mut sending, mut receiving) = channel.halves();
        let ended = feed.during(|records| {
            self.send_input(&mut *sending, inputs)?;
            let rounds = take(&mut self.rounds);
            for round in &rounds {
                let is_cut = |t: &RoundTrip| self.sizes.cut(self.elements(t.step));
                if round.trips.iter().any(is_cut) {
                    self.respond_by_parts(round, records, &mut *sending, &mut *receiving)?;
                } else {
                    self.respond(round, records, &mut *sending, &mut *receiving)?;
                }
            }
            self.receive_output(&mut *receiving)
        });
        self.feed = Some(feed);
        ended
    }

    fn send_input(
        &mut self,
        sending: &mut dyn Sending,
        inputs: &[Tensor<u64>],
    ) -> Result<(), Error> {
        let step = &self.plan.steps[0];
        let mut masked = self.input.take().ok_or_else(|| missing(0))?;
        let elements = step.shape.elements();
        each_width!(&mut *masked, words => {
            for (words, x) in words.chunks_exact_mut(elements).zip(inputs) {
                for (word, v) in words.iter_mut().zip(to_online(&step.shape, 1, &x.data)) {
                    *word = Word::low(word.element().wrapping_add(v) & low_mask(step.ring));
                }
            }
        });
        let message = PackedMessage::value(self.plan, 0, "the input");
        message.send(sending, &masked, self.sizes.part, &mut self.memory.outgoing)
    }

    /// Round trips whose messages are received and sent whole: all openings are read before a response is sent.
    fn respond(
        &mut self,
        round: &Round,
        records: &mut Stream<'_, StepMaterial>,
        sending: &mut dyn Sending,
        receiving: &mut dyn Receiving,
    ) -> Result<(), Error> {
        // One opening alone needs no list of the steps under way.
        if let [trip] = round.trips.as_slice() {
            let mut step = self.begin(trip, records)?;
            let all = 0..self.elements(trip.step);
            self.read(trip, &step, all.len(), true, 0, receiving)?;
            self.compute(trip, &mut step, all.clone(), 0)?;
            self.send(trip, &step, all, true, sending)?;
            self.end(trip, step, records);
            return Ok(());
        }
        let mut steps = Vec::with_capacity(round.trips.len());
        for (at, trip) in round.trips.iter().enumerate() {
            let step = self.begin(trip, records)?;
            self.read(trip, &step, self.elements(trip.step), true, at, receiving)?;
            steps.push(step);
        }
        for (at, (trip, mut step)) in round.trips.iter().zip(steps).enumerate() {
            let all = 0..self.elements(trip.step);
            self.compute(trip, &mut step, all.clone(), at)?;
            self.send(trip, &step, all, true, sending)?;
            self.end(trip, step, records);
        }
        Ok(())
    }

    /// Round trips whose messages are received and sent in parts: the response to each part follows at once.
    fn respond_by_parts(
        &mut self,
        round: &Round,
        records: &mut Stream<'_, StepMaterial>,
        sending: &mut dyn Sending,
        receiving: &mut dyn Receiving,
    ) -> Result<(), Error> {
        for trip in &round.trips {
            let mut step = self.begin(trip, records)?;
            let all = self.elements(trip.step);
            let part = if trip.is_elementwise { self.sizes.part } else { all };
            for range in parts(all, part) {
                let ends = range.end == all;
                self.read(trip, &step, range.len(), ends, 0, receiving)?;
                self.compute(trip, &mut step, range.clone(), 0)?;
                self.send(trip, &step, range, ends, sending)?;
            }
            self.end(trip, step, records);
        }
        Ok(())
    }

    fn begin(
        &mut self,
        trip: &RoundTrip,
        records: &mut Stream<'_, StepMaterial>,
    ) -> Result<UnderWay, Error> {
        let mut step = match self.under_way[trip.step].take() {
            Some(step) => step,
            None => UnderWay { material: records.next(trip.step)?, sent: vec![], out: None },
        };
        let response = trip.messages.response;
        step.out = (!trip.is_last)
            .then(|| Zeroizing::new(Words::zeros(response.bits, response.elements * self.batch)));
        Ok(step)
    }

    fn end(
        &mut self,
        trip: &RoundTrip,
        mut step: UnderWay,
        records: &mut Stream<'_, StepMaterial>,
    ) {
        match step.out.take() {
            None => records.spent(step.material),
            Some(out) => {
                step.sent.push(out);
                self.under_way[trip.step] = Some(step);
            }
        }
    }

    fn responder<'s>(
        &'s self,
        trip: &RoundTrip,
        step: &'s UnderWay,
    ) -> Result<Responder<'s>, Error> {
        Responder::new(&Parts1 {
            plan: self.plan,
            index: trip.step,
            trip: trip.number,
            tables: &self.tables,
            record: &step.material.record,
            masks: &step.material.masks,
            sent: &step.sent,
        })
    }

    /// Receives the opening of so many elements to memory `at`.
    fn read(
        &mut self,
        trip: &RoundTrip,
        step: &UnderWay,
        elements: usize,
        ends: bool,
        at: usize,
        receiving: &mut dyn Receiving,
    ) -> Result<(), Error> {
        let message = PackedMessage::opening(self.plan, trip);
        let opening = trip.messages.opening;
        let count = match trip.is_elementwise {
            true => message.bytes(elements),
            false => packed_bytes(opening.elements * self.batch, opening.bits),
        };
        let mut incoming = take(&mut self.memory.incoming);
        let mut memory = take(&mut self.memory.kept[at]);
        let bytes = message.receive_part(receiving, count, ends, &mut incoming)?;
        let responder = self.responder(trip, step)?;
        let is_sound = each_kind!(Responder, &responder, responder => {
            responder.read(bytes, kept(&mut memory, elements * responder.kept()))
        });
        (self.memory.incoming, self.memory.kept[at]) = (incoming, memory);
        if is_sound { Ok(()) } else { Err(message.padding()) }
    }

    /// Computes the response to a range of elements, whose opening is in memory `at`.
    fn compute(
        &mut self,
        trip: &RoundTrip,
        step: &mut UnderWay,
        range: Range<usize>,
        at: usize,
    ) -> Result<(), Error> {
        let mut memory = take(&mut self.memory.kept[at]);
        let (mut out, mut fresh) = (step.out.take(), take(&mut step.material.fresh));
        let words = out.as_mut().unwrap_or(&mut fresh);
        let of = self.within(trip, &range);
        let responder = self.responder(trip, step)?;
        let cores = if trip.is_elementwise { cores(range.len() * ELEMENT) } else { 1 };
        each_kind!(Responder, &responder, responder => {
            let kept = kept(&mut memory, range.len() * responder.kept());
            responding(responder, cores, range.start, kept, words.part_mut(of));
        });
        (step.out, step.material.fresh) = (out, fresh);
        self.memory.kept[at] = memory;
        Ok(())
    }

    /// The elements of the response that belong to a range.
    fn within(&self, trip: &RoundTrip, range: &Range<usize>) -> Range<usize> {
        match trip.is_elementwise {
            true => range.clone(),
            false => 0..trip.messages.response.elements * self.batch,
        }
    }

    fn send(
        &mut self,
        trip: &RoundTrip,
        step: &UnderWay,
        range: Range<usize>,
        ends: bool,
        sending: &mut dyn Sending,
    ) -> Result<(), Error> {
        let message = PackedMessage::response(self.plan, trip);
        let of = self.within(trip, &range);
        let bytes = room(&mut self.memory.outgoing, message.bytes(of.len()));
        let words = step.out.as_ref().unwrap_or(&step.material.fresh);
        each_width!(&**words, words => message.pack(&words[of], bytes));
        message.send_part(sending, bytes, ends)
    }

    fn receive_output(&mut self, receiving: &mut dyn Receiving) -> Result<Vec<Tensor<u64>>, Error> {
        let output = self.plan.output.index();
        let step = &self.plan.steps[output];
        let mut value = self.output.take().ok_or_else(|| missing(output))?;
        let message = PackedMessage::value(self.plan, output, "the output");
        let (part, buffer) = (self.sizes.part, &mut self.memory.incoming);
        each_width!(&mut *value, words => {
            let ring = Word::low(low_mask(step.ring));
            let unmask = |mask, word| Word::and(Word::minus(word, mask), ring);
            message.receive(receiving, words, part, buffer, unmask)?;
        });
        let items = to_row_major(&step.shape, &value.elements());
        let item = |data: &[u64]| Tensor::new(step.shape.clone(), data.to_vec());
        Ok(items.chunks_exact(step.shape.elements()).map(item).collect())
    }
}

/// Computes the responses to elements from `first` on, on so many cores.
fn responding<R: Responding>(
    responder: &R,
    cores: usize,
    first: usize,
    kept: &[R::Kept],
    out: WordsMut<'_>,
) {
    let count = out.len();
    if cores > 1 && count > 1 {
        let half = count / 2;
        let (left, right) = out.split_at(half);
        let (now, next) = kept.split_at(half * responder.kept());
        rayon::join(
            || responding(responder, cores / 2, first, now, left),
            || responding(responder, cores - cores / 2, first + half, next, right),
        );
        return;
    }
    responder.respond(first..first + count, kept, out);
}
