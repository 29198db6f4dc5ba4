//! Party 0: holds the masked value of every step.

use super::asking::{Asking, Kept};
use super::messages::{Message, parts, room};
use super::schedule::{Ask, Schedule, Turn, is_in_rows};
use super::stock::{Feed, Stock0, Stream, stock0};
use super::{Model, local, missing, no_thread};
use crate::Error;
use crate::kernel::Scratch;
use crate::layout::{to_online, to_row_major};
use crate::net::{Channel, Receiving, Sending};
use crate::offline::Party0Material;
use crate::tables::Tables;
use crate::words::{Words, WordsMut, each_width};
use ir::plan::{Plan, StepOp};

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::Builder;
use zeroize::Zeroizing;

/// Party 0 before the online phase.
pub struct Party0<'a> {
    model: Arc<Model<'a>>,
    tables: Tables,
    batch: usize,
    /// The correlations; after the phase, what is to be wiped of them.
    feed: Option<Feed<'a, Stock0>>,
    memory: Memory,
}

/// Memory of the loop, which one session after the other uses.
#[derive(Default)]
pub struct Memory {
    /// Memory of values that are not there.
    slots: Vec<Words>,
    /// The values that are there, by step.
    values: Vec<Words>,
    kept: Kept,
    scratch: Scratch,
    /// Bytes of a part that leaves, and of one that comes.
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Memory {
    /// Makes room for a batch.
    pub fn fit(&mut self, schedule: &Schedule, batch: usize) {
        self.values.resize_with(schedule.slot.len(), Words::default);
        for (slot, &(bits, elements)) in schedule.slots.iter().enumerate() {
            let count = elements * batch;
            if slot == self.slots.len() {
                self.slots.push(Words::default());
            }
            let words = &mut self.slots[slot];
            if words.width() != bits {
                *words = Words::zeros(bits, count);
            }
            if words.len() < count {
                words.resize(count);
            }
        }
    }
}

impl<'a> Party0<'a> {
    pub(crate) fn new<M: Party0Material + 'a>(
        model: Arc<Model<'a>>,
        tables: Tables,
        mut materials: Vec<M>,
    ) -> Result<Self, Error> {
        let (plan, weights, batch) = (model.plan, model.weights, materials.len());
        let make = move |index| stock0(plan, weights, index, &mut materials);
        let feed =
            Feed::new(plan, batch, model.sizes.ahead, model.schedule.correlations(plan), make)?;
        let memory = model.memory(batch);
        Ok(Self { model, tables, batch, feed: Some(feed), memory })
    }

    /// Runs the online phase; `observe` sees party 0's side of every value that is made as a whole.
    pub(crate) fn run(
        &mut self,
        channel: &mut impl Channel,
        mut observe: impl FnMut(usize, &Words),
    ) -> Result<(), Error> {
        let model = self.model.clone();
        let mut feed = self.feed.take().ok_or_else(|| missing(0))?;
        let (mut sending, mut receiving) = channel.halves();
        let ended = feed.during(|stock| {
            for turn in &model.schedule.turns {
                for (index, released) in &turn.local {
                    let value = self.local(stock, &mut *receiving, *index)?;
                    observe(*index, &value);
                    self.memory.values[*index] = value;
                    self.release(released, stock);
                }
                if turn.asks.iter().any(|ask| model.sizes.cut(self.elements(ask.index))) {
                    self.ask_by_parts(turn, stock, &mut *sending, &mut *receiving)?;
                } else {
                    self.ask(turn, stock, &mut *sending, &mut *receiving)?;
                }
                turn.asks.iter().for_each(|ask| observe(ask.index, &self.memory.values[ask.index]));
                self.release(&turn.released, stock);
            }
            let output = model.plan.output.index();
            let Memory { values, outgoing, .. } = &mut self.memory;
            let message = Message::value(model.plan, output, "the output");
            message.send(&mut *sending, &values[output], model.sizes.part, outgoing)?;
            // That one, and whatever nothing reads.
            for step in 0..model.plan.steps.len() {
                if !self.memory.values[step].is_empty() {
                    self.release(&[step], stock);
                }
            }
            model.keep(std::mem::take(&mut self.memory));
            Ok(())
        });
        self.feed = Some(feed);
        ended
    }

    fn elements(&self, index: usize) -> usize {
        self.model.plan.steps[index].shape.elements() * self.batch
    }

    /// Memory for a step's value.
    fn take(&mut self, index: usize) -> Result<Words, Error> {
        let slot = self.model.schedule.slot[index].ok_or_else(|| missing(index))?;
        let mut words = std::mem::take(&mut self.memory.slots[slot]);
        words.resize(self.elements(index));
        Ok(words)
    }

    fn release(&mut self, steps: &[usize], stock: &mut Stream<'_, Stock0>) {
        for &step in steps {
            let words = std::mem::take(&mut self.memory.values[step]);
            match self.model.schedule.slot[step] {
                Some(slot) => self.memory.slots[slot] = words,
                None => stock.spent(Stock0::Linear(words)),
            }
        }
    }

    fn local(
        &mut self,
        stock: &mut Stream<'_, Stock0>,
        receiving: &mut dyn Receiving,
        index: usize,
    ) -> Result<Words, Error> {
        let model = self.model.clone();
        let (plan, step) = (model.plan, &model.plan.steps[index]);
        let operand = |i: usize| step.operands[i].index();
        if let Some(linear) = model.linear(index) {
            let mut value = linear_stock(stock, index)?;
            let Memory { values, scratch, .. } = &mut self.memory;
            let x = &values[operand(0)];
            if !is_in_rows(step) {
                linear.apply(x, &mut value, scratch);
                return Ok(std::mem::take(&mut *value));
            }
            let shape = &plan.step(step.operands[0]).shape;
            let rows = each_width!(x, x => to_row_major(shape, x).into());
            linear.apply(&rows, &mut value, scratch);
            return Ok(each_width!(&*value, y => to_online(&step.shape, 1, y).into()));
        }
        let mut value = self.take(index)?;
        let Memory { values, incoming, .. } = &mut self.memory;
        if matches!(step.op, StepOp::Input) {
            let message = Message::value(plan, index, "the input");
            let part = model.sizes.part;
            each_width!(&mut value, words => {
                message.receive(receiving, words, part, incoming, #[inline(always)] |_, v| v)
            })?;
        } else if let Some(constant) = model.constant(index) {
            value.fill(constant);
        } else {
            let shape = |i: usize| &plan.step(step.operands[i]).shape;
            let form = &model.schedule.forms[index];
            local::public(step, form, shape, |i| &values[operand(i)], &mut value);
        }
        Ok(value)
    }

    /// Activations whose messages leave and come whole.
    fn ask(
        &mut self,
        turn: &Turn,
        stocks: &mut Stream<'_, Stock0>,
        sending: &mut dyn Sending,
        receiving: &mut dyn Receiving,
    ) -> Result<(), Error> {
        let model = self.model.clone();
        for ask in &turn.asks {
            let (mut made, stock) = correlations(stocks, ask)?;
            let mut shares = self.take(ask.index)?;
            let all = 0..shares.len();
            let Memory { values, kept, scratch, outgoing, .. } = &mut self.memory;
            let mut asking = Asking::new(&model, &self.tables, ask, values, &stock, scratch)?;
            kept.reserve(all.len());
            let bytes = room(outgoing, asking.bytes(all.len()));
            let operand = made.as_mut().map(|made| made.part_mut(all.clone()));
            asking.question(all.clone(), operand, kept, bytes);
            question(model.plan, ask.index).send_part(sending, bytes, true)?;
            asking.share(all.clone(), kept, shares.part_mut(all));
            self.memory.values[ask.index] = shares;
            give_back(stocks, made, stock);
        }
        for ask in &turn.asks {
            let Memory { values, incoming, .. } = &mut self.memory;
            let shares = &mut values[ask.index];
            let message = Message::answer(model.plan, ask.index);
            let count = message.bytes(shares.len());
            let bytes = message.receive_part(receiving, count, true, incoming)?;
            message.add(bytes, shares.part_mut(0..shares.len()))?;
        }
        Ok(())
    }

    /// Activations whose messages leave and come in parts: answers are taken by a thread of their own, so
    /// that neither party waits for the other to read.
    fn ask_by_parts(
        &mut self,
        turn: &Turn,
        stocks: &mut Stream<'_, Stock0>,
        sending: &mut dyn Sending,
        receiving: &mut dyn Receiving,
    ) -> Result<(), Error> {
        let model = self.model.clone();
        let mut work = Vec::with_capacity(turn.asks.len());
        for ask in &turn.asks {
            work.push((ask, correlations(stocks, ask)?, self.take(ask.index)?));
        }
        let Memory { values, kept, scratch, outgoing, incoming, .. } = &mut self.memory;
        let tables = &self.tables;
        std::thread::scope(|scope| {
            let (parts_to_come, queue) = channel();
            let plan = model.plan;
            let take = move || take_answers(plan, &queue, receiving, incoming);
            let receiver = Builder::new().spawn_scoped(scope, take).map_err(no_thread)?;
            let model = &model;
            let jobs = &mut work;
            let ask_all = move || {
                for (ask, (made, stock), shares) in jobs {
                    let mut asking = Asking::new(model, tables, ask, values, stock, scratch)?;
                    let all = shares.len();
                    let mut left = shares.part_mut(0..all);
                    for range in parts(all, asking.part()) {
                        let ends = range.end == all;
                        let (index, elements) = (ask.index, range.len());
                        if Message::answer(plan, index).bytes(elements) > UNREAD {
                            let _ = parts_to_come.send(Coming::Bytes { index, elements, ends });
                        }
                        kept.reserve(range.len());
                        let bytes = room(outgoing, asking.bytes(range.len()));
                        let operand = made.as_mut().map(|made| made.part_mut(range.clone()));
                        asking.question(range.clone(), operand, kept, bytes);
                        question(plan, index).send_part(sending, bytes, ends)?;
                        let mut now;
                        (now, left) = left.split_at(elements);
                        asking.share(range, kept, now.borrow());
                        if parts_to_come.send(Coming::Shares { index, ends, shares: now }).is_err()
                        {
                            // The receiver knows why.
                            return Ok(());
                        }
                    }
                }
                Ok(())
            };
            let asked: Result<(), Error> = ask_all();
            let received = receiver.join();
            let received =
                received.map_err(|_| Error::Internal("the receiving thread stopped".into()))?;
            match (asked, received) {
                // Why nothing more can be sent may be what the peer sent last.
                (Ok(()) | Err(Error::Net { .. }), Err(cause)) | (Err(cause), _) => Err(cause),
                (Ok(()), Ok(())) => Ok(()),
            }
        })?;
        for (ask, (made, stock), shares) in work {
            self.memory.values[ask.index] = shares;
            give_back(stocks, made, stock);
        }
        Ok(())
    }
}

/// The correlation of a linear step, which becomes its value.
fn linear_stock(stocks: &mut Stream<'_, Stock0>, index: usize) -> Result<Zeroizing<Words>, Error> {
    match &mut stocks.next(index)? {
        Stock0::Linear(words) => Ok(Zeroizing::new(std::mem::take(words))),
        _ => Err(missing(index)),
    }
}

/// Gives back what was used of an activation.
fn give_back(stocks: &mut Stream<'_, Stock0>, made: Option<Zeroizing<Words>>, stock: Stock0) {
    if let Some(mut made) = made {
        stocks.spent(Stock0::Linear(std::mem::take(&mut *made)));
    }
    stocks.spent(stock);
}

/// An activation's correlation, and that of the linear step which begins its tail.
fn correlations(
    stocks: &mut Stream<'_, Stock0>,
    ask: &Ask,
) -> Result<(Option<Zeroizing<Words>>, Stock0), Error> {
    let made = ask.tail.first().map(|first| linear_stock(stocks, first.step)).transpose()?;
    Ok((made, stocks.next(ask.index)?))
}

fn question(plan: &Plan, index: usize) -> Message<'_> {
    Message::new(plan, index, plan.question_bits(index), "the question of")
}

/// Bytes of an answer that may lie unread while its question is still being sent: the system's buffers
/// hold them.
const UNREAD: usize = 1 << 16;

/// What the receiver of answers is told.
enum Coming<'a> {
    /// That a part of an answer comes, so long that it must be read before the peer goes on reading.
    Bytes { index: usize, elements: usize, ends: bool },
    /// What the next part of an answer is to be added to.
    Shares { index: usize, ends: bool, shares: WordsMut<'a> },
}

/// Takes answers part by part and adds them to their shares; those that are announced it reads before
/// their shares are there, so that the peer can go on.
fn take_answers(
    plan: &Plan,
    queue: &Receiver<Coming<'_>>,
    receiving: &mut dyn Receiving,
    buffer: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut is_read = false;
    while let Ok(coming) = queue.recv() {
        let (index, elements, ends) = match &coming {
            Coming::Bytes { index, elements, ends } => (*index, *elements, *ends),
            Coming::Shares { index, ends, shares } => (*index, shares.len(), *ends),
        };
        let message = Message::answer(plan, index);
        let count = message.bytes(elements);
        if !is_read {
            message.receive_part(receiving, count, ends, buffer)?;
        }
        is_read = matches!(coming, Coming::Bytes { .. });
        if let Coming::Shares { shares, .. } = coming {
            message.add(&buffer[..count], shares)?;
        }
    }
    Ok(())
}
