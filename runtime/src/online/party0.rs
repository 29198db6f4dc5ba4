//! Party 0's loop. A device holds the masked value of every step.

use super::device::{Device, Part, PartMaker};
use super::feed::{Feed, Stream};
use super::host::{Host, Open};
use super::messages::{PackedMessage, parts, room};
use super::schedule::{Interaction, Turn};
use super::sizes::Sizes;
use super::{Model, missing, no_thread};
use crate::Error;
use crate::net::{Channel, Receiving, Sending};
use crate::preprocess::item::Party0Item;
use crate::steps::{Record0, Tables, record0};
use crate::words::Words;
use ir::plan::{Plan, RoundTrip, StepOp};
use ir::ring::packed_bytes;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::Builder;

/// Party 0 before the online phase.
pub struct Party0<'a> {
    model: Arc<Model<'a>>,
    host: Host<'a>,
    /// Memory for the round trips of a turn.
    under_way: Vec<Open>,
    batch: usize,
    /// The correlations; after the phase, the used ones, to be wiped.
    feed: Option<Feed<'a, Record0>>,
}

impl<'a> Party0<'a> {
    pub(crate) fn new(
        model: Arc<Model<'a>>,
        tables: Tables,
        mut items: Vec<Party0Item<'a>>,
    ) -> Result<Self, Error> {
        let batch = items.len();
        let (preloaded, order) = (model.sizes.preloaded, model.schedule.correlations(&model.plan));
        let of = model.clone();
        let make = move |index: usize| {
            record0(&of.plan.steps[index], &of.weights.steps[index], index, &mut items)
        };
        let feed = Feed::new(&model.plan, batch, preloaded, order, make)?;
        let host = Host::new(model.clone(), tables, batch);
        let most = model.schedule.turns.iter().map(|turn| turn.interactions.len()).max();
        let under_way = Vec::with_capacity(most.unwrap_or(0));
        Ok(Self { model, host, under_way, batch, feed: Some(feed) })
    }

    /// Runs the online phase; `observe` sees party 0's side of every value that is computed as a whole.
    pub(crate) fn run(
        &mut self,
        channel: &mut impl Channel,
        mut observe: impl FnMut(usize, &Words),
    ) -> Result<(), Error> {
        let mut feed = self.feed.take().ok_or_else(|| missing(0))?;
        let (mut sending, mut receiving) = channel.halves();
        let model = self.model.clone();
        let ended = feed.during(|records| {
            let (plan, batch) = (&*model.plan, self.batch);
            let (turns, sizes) = (&model.schedule.turns, model.sizes);
            let [outgoing, incoming] = self.host.message_buffers();
            let mut run = Run {
                plan,
                batch,
                sizes,
                device: &mut self.host,
                records,
                sending: &mut *sending,
                receiving: &mut *receiving,
                under_way: &mut self.under_way,
                outgoing,
                incoming,
            };
            run.turns(turns, |host, step| observe(step, host.value(step)))?;
            let Run { outgoing, incoming, .. } = run;
            self.host.end([outgoing, incoming]);
            Ok(())
        });
        self.feed = Some(feed);
        ended
    }
}

/// One run of the loop, which sends and receives; the device computes.
struct Run<'r, 'f, D: Device> {
    plan: &'r Plan,
    batch: usize,
    sizes: Sizes,
    device: &'r mut D,
    records: &'r mut Stream<'f, Record0>,
    sending: &'r mut dyn Sending,
    receiving: &'r mut dyn Receiving,
    /// Round trips of a turn.
    under_way: &'r mut Vec<D::Open>,
    /// Bytes of a part that is sent, and of one that is received.
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl<D: Device> Run<'_, '_, D> {
    fn turns(&mut self, turns: &[Turn], mut observe: impl FnMut(&D, usize)) -> Result<(), Error> {
        for turn in turns {
            for (step, released) in &turn.local {
                self.local(*step)?;
                observe(self.device, *step);
                self.release(released);
            }
            let is_cut =
                |interaction: &Interaction| interaction.is_cut(self.plan, self.batch, self.sizes);
            if turn.interactions.iter().any(is_cut) {
                self.interact_by_parts(turn)?;
            } else {
                self.interact(turn)?;
            }
            let ended = turn.interactions.iter().filter(|interaction| interaction.trip.is_last);
            ended.for_each(|interaction| observe(self.device, interaction.trip.step));
            self.release(&turn.released);
        }
        self.output()?;
        // The output, and values that nothing ever reads.
        (0..self.plan.steps.len()).for_each(|step| self.release(&[step]));
        Ok(())
    }

    fn release(&mut self, steps: &[usize]) {
        let Self { device, records, .. } = self;
        device.release(steps, &mut |record| records.spent(record));
    }

    fn local(&mut self, step: usize) -> Result<(), Error> {
        match &self.plan.steps[step].op {
            StepOp::Input => self.input(),
            StepOp::Linear(_) => {
                let record = self.records.next(step)?;
                self.device.local(step, Some(record))
            }
            StepOp::Constant | StepOp::Local(_) | StepOp::Interactive(_) => {
                self.device.local(step, None)
            }
        }
    }

    fn input(&mut self) -> Result<(), Error> {
        let message = PackedMessage::value(self.plan, 0, "the input");
        let all = self.plan.input_shape().elements() * self.batch;
        for range in parts(all, self.device.part()) {
            let (count, ends) = (message.bytes(range.len()), range.end == all);
            let bytes = message.receive_part(self.receiving, count, ends, &mut self.incoming)?;
            self.device.input(range, bytes)?;
        }
        Ok(())
    }

    fn output(&mut self) -> Result<(), Error> {
        let output = self.plan.output.index();
        let message = PackedMessage::value(self.plan, output, "the output");
        let all = self.plan.steps[output].shape.elements() * self.batch;
        for range in parts(all, self.device.part()) {
            let bytes = room(&mut self.outgoing, message.bytes(range.len()));
            let ends = range.end == all;
            self.device.output(range, bytes)?;
            message.send_part(self.sending, bytes, ends)?;
        }
        Ok(())
    }

    /// Begins the round trips of a turn with their records.
    fn open(&mut self, turn: &Turn) -> Result<(), Error> {
        for interaction in &turn.interactions {
            let fused =
                interaction.chain.first().map(|first| self.records.next(first.step)).transpose()?;
            let is_first = interaction.trip.number == 0;
            let record = is_first.then(|| self.records.next(interaction.trip.step)).transpose()?;
            self.under_way.push(self.device.open(interaction, fused, record)?);
        }
        Ok(())
    }

    fn close(&mut self, turn: &Turn) {
        let Self { device, records, under_way, .. } = self;
        for (interaction, open) in turn.interactions.iter().zip(under_way.drain(..)) {
            device.close(interaction, open, &mut |record| records.spent(record));
        }
    }

    /// Round trips whose messages are sent and received whole.
    fn interact(&mut self, turn: &Turn) -> Result<(), Error> {
        self.open(turn)?;
        for (interaction, open) in turn.interactions.iter().zip(self.under_way.iter_mut()) {
            let message = PackedMessage::opening(self.plan, &interaction.trip);
            let bytes = room(&mut self.outgoing, opening_bytes(&interaction.trip, self.batch));
            let mut maker = self.device.part_maker(interaction, open)?;
            let all = 0..self.plan.steps[interaction.trip.step].shape.elements() * self.batch;
            maker.open(all.clone(), bytes);
            message.send_part(self.sending, bytes, true)?;
            maker.share(all);
        }
        for (interaction, open) in turn.interactions.iter().zip(self.under_way.iter_mut()) {
            let message = PackedMessage::response(self.plan, &interaction.trip);
            let count = message.bytes(interaction.trip.messages.response.elements * self.batch);
            let bytes = message.receive_part(self.receiving, count, true, &mut self.incoming)?;
            if !self.device.add_response(interaction, open, bytes) {
                return Err(message.padding());
            }
        }
        self.close(turn);
        Ok(())
    }

    /// Round trips whose messages are sent and received in parts: a second thread receives the responses, so that
    /// neither party waits for the other to read.
    fn interact_by_parts(&mut self, turn: &Turn) -> Result<(), Error> {
        self.open(turn)?;
        let (plan, batch) = (self.plan, self.batch);
        let Self { device, sending, receiving, under_way, outgoing, incoming, .. } = self;
        std::thread::scope(|scope| {
            let (parts_to_come, queue) = channel();
            let take = || take_responses(plan, queue, *receiving, incoming);
            let receiver = Builder::new().spawn_scoped(scope, take).map_err(no_thread)?;
            let jobs = turn.interactions.iter().zip(under_way.iter_mut());
            let open_all = move || {
                for (interaction, open) in jobs {
                    let trip = &interaction.trip;
                    let mut maker = device.part_maker(interaction, open)?;
                    let message = PackedMessage::opening(plan, trip);
                    let all = plan.steps[trip.step].shape.elements() * batch;
                    let part = if trip.is_elementwise { maker.part() } else { all };
                    for range in parts(all, part) {
                        let ends = range.end == all;
                        let elements = match trip.is_elementwise {
                            true => range.len(),
                            false => trip.messages.response.elements * batch,
                        };
                        if PackedMessage::response(plan, trip).bytes(elements) > UNREAD {
                            let _ = parts_to_come.send(Coming::Bytes { trip, elements, ends });
                        }
                        let count = match trip.is_elementwise {
                            true => message.bytes(range.len()),
                            false => opening_bytes(trip, batch),
                        };
                        let bytes = room(outgoing, count);
                        maker.open(range.clone(), bytes);
                        message.send_part(*sending, bytes, ends)?;
                        let share = maker.share(range);
                        if parts_to_come.send(Coming::Share { trip, ends, share }).is_err() {
                            // The receiver knows why.
                            return Ok(());
                        }
                    }
                }
                Ok(())
            };
            let opened: Result<(), Error> = open_all();
            let received = receiver.join();
            let received =
                received.map_err(|_| Error::Internal("the receiving thread stopped".into()))?;
            match (opened, received) {
                // If sending failed, the peer's last message may say why.
                (Ok(()) | Err(Error::Net { .. }), Err(cause)) | (Err(cause), _) => Err(cause),
                (Ok(()), Ok(())) => Ok(()),
            }
        })?;
        self.close(turn);
        Ok(())
    }
}

/// Bytes of a whole opening.
fn opening_bytes(trip: &RoundTrip, batch: usize) -> usize {
    packed_bytes(trip.messages.opening.elements * batch, trip.messages.opening.bits)
}

/// Bytes of a response that may stay unread while its opening is still being sent: the system's buffers hold them.
const UNREAD: usize = 1 << 16;

/// What the thread that receives responses is told.
enum Coming<'a, P> {
    /// A part of a response will come that is so long that the peer goes on only when it is read.
    Bytes { trip: &'a RoundTrip, elements: usize, ends: bool },
    /// The share that the next part of a response is added to.
    Share { trip: &'a RoundTrip, ends: bool, share: P },
}

/// Receives responses part by part and adds them to their shares. Announced ones are read before their shares are
/// computed, so that the peer can go on.
fn take_responses<P: Part>(
    plan: &Plan,
    queue: Receiver<Coming<'_, P>>,
    receiving: &mut dyn Receiving,
    buffer: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut is_read = false;
    while let Ok(coming) = queue.recv() {
        let (trip, elements, ends) = match &coming {
            Coming::Bytes { trip, elements, ends } => (*trip, *elements, *ends),
            Coming::Share { trip, ends, share } => (*trip, share.len(), *ends),
        };
        let message = PackedMessage::response(plan, trip);
        let count = message.bytes(elements);
        if !is_read {
            message.receive_part(receiving, count, ends, buffer)?;
        }
        is_read = matches!(coming, Coming::Bytes { .. });
        if let Coming::Share { share, .. } = coming
            && !share.add_response(&buffer[..count])
        {
            return Err(message.padding());
        }
    }
    Ok(())
}
