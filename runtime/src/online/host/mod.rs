//! Party 0's computation by this machine's cores.
//!
//! Everything about a part of a round trip happens while it is in the cache: the products with the weights, the
//! additions behind them, the opening and its bits. A part may go to several cores.

mod parts;

pub use parts::{HostAsking, HostPart};

use super::device::Device;
use super::local;
use super::messages::{Message, add_elements};
use super::schedule::{Ask, Schedule, is_in_rows};
use super::{Model, missing};
use crate::Error;
use crate::kernel::Scratch;
use crate::layout::{to_online, to_row_major};
use crate::steps::{Kept, Opener, Parts0, Record0, Tables};
use crate::words::{Words, each_width};
use ir::plan::{PART, Step};
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What is done at once.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Elements that are computed at once, so that they stay in a core's cache.
    pub grain: usize,
    /// Elements that are sent at once.
    pub part: usize,
    /// Bytes of correlations that are taken before the phase begins.
    pub ahead: usize,
}

impl Sizes {
    /// Four hundred kilobytes of values and correlations; a part is worth a call of the system; a single
    /// inference of a large network waits for nothing.
    pub const DEFAULT: Self = Self { grain: 1 << 14, part: PART, ahead: 1 << 28 };

    /// Whether a message of so many elements is cut.
    pub fn cut(self, elements: usize) -> bool {
        elements >= 2 * self.part
    }
}

/// What elementwise work costs either party, in products of a kernel.
pub const ELEMENT: usize = 32;

/// The values of a batch in this machine's memory.
pub struct Host<'a> {
    model: Arc<Model<'a>>,
    tables: Tables,
    batch: usize,
    memory: Memory,
    /// By step: round trips that are done, of steps that have more.
    under_way: Vec<Option<UnderWay>>,
}

/// A step between two of its round trips.
struct UnderWay {
    record: Record0,
    opened: Vec<Zeroizing<Words>>,
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
    /// The loop's bytes of a part that leaves, and of one that comes.
    pub buffers: [Vec<u8>; 2],
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

impl<'a> Host<'a> {
    /// Memory for a batch, that of an earlier session of the model if there is any.
    pub fn new(model: Arc<Model<'a>>, tables: Tables, batch: usize) -> Self {
        let memory = model.memory(batch);
        let under_way = model.plan.steps.iter().map(|_| None).collect();
        Self { model, tables, batch, memory, under_way }
    }

    /// Memory of the loop's own.
    pub fn buffers(&mut self) -> [Vec<u8>; 2] {
        take(&mut self.memory.buffers)
    }

    /// Gives the memory back to the model, for the next session.
    pub fn end(&mut self, buffers: [Vec<u8>; 2]) {
        self.memory.buffers = buffers;
        self.model.keep(take(&mut self.memory));
    }

    /// Party 0's side of a step's value, where it was made as a whole.
    pub fn value(&self, step: usize) -> &Words {
        &self.memory.values[step]
    }

    fn elements(&self, index: usize) -> usize {
        self.model.plan.steps[index].shape.elements() * self.batch
    }

    /// Memory for a step's value.
    fn take(&mut self, index: usize) -> Result<Words, Error> {
        let slot = self.model.schedule.slot[index].ok_or_else(|| missing(index))?;
        let mut words = take(&mut self.memory.slots[slot]);
        words.resize(self.elements(index));
        Ok(words)
    }

    fn linear(&mut self, index: usize, record: Option<Record0>) -> Result<Words, Error> {
        let Some(Record0::Linear(mut value)) = record else { return Err(missing(index)) };
        let model = self.model.clone();
        let step = &model.plan.steps[index];
        let linear = model.linear(index).ok_or_else(|| missing(index))?;
        let Memory { values, scratch, .. } = &mut self.memory;
        let x = &values[step.operands[0].index()];
        if !is_in_rows(step) {
            linear.apply(x, &mut value, scratch);
            return Ok(take(&mut *value));
        }
        let shape = &model.plan.step(step.operands[0]).shape;
        let rows = each_width!(x, x => to_row_major(shape, x).into());
        linear.apply(&rows, &mut value, scratch);
        Ok(each_width!(&*value, y => to_online(&step.shape, 1, y).into()))
    }
}

/// Low bits of the value that a response has not.
fn guard_of(step: &Step, ask: &Ask) -> u32 {
    if ask.trip.is_last { step.op.guard() } else { 0 }
}

/// A round trip under way.
pub struct Open {
    /// The products that begin the tail stand where their correlation stood.
    made: Option<Zeroizing<Words>>,
    record: Record0,
    /// What came of the round trips before.
    opened: Vec<Zeroizing<Words>>,
    /// Shares, and then values.
    out: Words,
}

impl Device for Host<'_> {
    type Open = Open;
    type Asking<'s, 'o: 's>
        = HostAsking<'s, 'o>
    where
        Self: 's + 'o;
    type Part<'o>
        = HostPart<'o>
    where
        Self: 'o;

    fn part(&self) -> usize {
        self.model.sizes.part
    }

    fn input(&mut self, range: Range<usize>, bytes: &[u8]) -> Result<(), Error> {
        if range.start == 0 {
            self.memory.values[0] = self.take(0)?;
        }
        let model = self.model.clone();
        let message = Message::value(&model.plan, 0, "the input");
        each_width!(&mut self.memory.values[0], words => {
            message.take(bytes, &mut words[range], #[inline(always)] |_, v| v)
        })
    }

    fn local(&mut self, index: usize, record: Option<Record0>) -> Result<(), Error> {
        let model = self.model.clone();
        let (plan, step) = (&*model.plan, &model.plan.steps[index]);
        let value = if step.op.is_secret_linear() {
            self.linear(index, record)?
        } else {
            let mut value = self.take(index)?;
            if let Some(constant) = model.constant(index) {
                value.fill(constant);
            } else {
                let shape = |i: usize| &plan.step(step.operands[i]).shape;
                let form = &model.schedule.forms[index];
                let values = &self.memory.values;
                local::public(step, form, shape, |i| &values[step.operands[i].index()], &mut value);
            }
            value
        };
        self.memory.values[index] = value;
        Ok(())
    }

    fn open(
        &mut self,
        ask: &Ask,
        made: Option<Record0>,
        record: Option<Record0>,
    ) -> Result<Open, Error> {
        let trip = &ask.trip;
        let made = match made {
            None => None,
            Some(Record0::Linear(words)) => Some(words),
            Some(_) => return Err(missing(trip.step)),
        };
        let UnderWay { record, opened } = match self.under_way[trip.step].take() {
            Some(under_way) => under_way,
            None => {
                let record = record.ok_or_else(|| missing(trip.step))?;
                UnderWay { record, opened: vec![] }
            }
        };
        let out = if trip.is_last {
            self.take(trip.step)?
        } else {
            let response = trip.messages.response;
            Words::zeros(response.bits, response.elements * self.batch)
        };
        Ok(Open { made, record, opened, out })
    }

    fn asking<'s, 'o: 's>(
        &'s mut self,
        ask: &'s Ask,
        open: &'o mut Open,
    ) -> Result<HostAsking<'s, 'o>, Error>
    where
        Self: 's + 'o,
    {
        let (model, tables) = (&*self.model, &self.tables);
        let index = ask.trip.step;
        let (plan, step) = (&*model.plan, &model.plan.steps[index]);
        let Memory { values, kept, scratch, .. } = &mut self.memory;
        let Open { made, record, opened, out } = open;
        let opener = Opener::new(&Parts0 {
            plan,
            index,
            trip: ask.trip.number,
            secrets: &model.weights.steps[index],
            prepared: model.prepared(index).ok_or_else(|| missing(index))?,
            tables,
            record,
            opened,
        })?;
        let mut sizes = model.sizes;
        let mut running = None;
        if let Some(first) = ask.tail.first() {
            let operand = plan.steps[first.step].operands[0].index();
            let linear = model.linear(first.step).ok_or_else(|| missing(first.step))?;
            running = Some(linear.over(values[operand].whole(), scratch));
            // Whole output positions, and whole bytes of their bits.
            let unit = lcm(linear.outputs(), 8);
            sizes.grain = sizes.grain.max(linear.least_part()).next_multiple_of(unit);
            sizes.part = sizes.part.max(sizes.grain).next_multiple_of(unit);
        }
        let made = made.as_mut().map(|made| {
            let all = 0..made.len();
            made.part_mut(all)
        });
        let all = 0..out.len();
        let left = Some(out.part_mut(all));
        let all = step.shape.elements() * self.batch;
        let guard = guard_of(step, ask);
        Ok(HostAsking {
            plan,
            step,
            ask,
            values,
            running,
            opener,
            made,
            left,
            kept,
            sizes,
            all,
            guard,
        })
    }

    fn respond(&mut self, ask: &Ask, open: &mut Open, bytes: &[u8]) -> bool {
        let guard = guard_of(&self.model.plan.steps[ask.trip.step], ask);
        let all = 0..open.out.len();
        add_elements(bytes, ask.trip.messages.response.bits, guard, open.out.part_mut(all))
    }

    fn close(&mut self, ask: &Ask, open: Open, spent: &mut dyn FnMut(Record0)) {
        let Open { made, record, mut opened, out } = open;
        made.map(Record0::Linear).into_iter().for_each(&mut *spent);
        if ask.trip.is_last {
            self.memory.values[ask.trip.step] = out;
            spent(record);
            opened.into_iter().map(Record0::Linear).for_each(spent);
        } else {
            opened.push(Zeroizing::new(out));
            self.under_way[ask.trip.step] = Some(UnderWay { record, opened });
        }
    }

    fn release(&mut self, steps: &[usize], spent: &mut dyn FnMut(Record0)) {
        for &step in steps {
            let words = take(&mut self.memory.values[step]);
            if words.is_empty() {
                continue;
            }
            match self.model.schedule.slot[step] {
                Some(slot) => self.memory.slots[slot] = words,
                None => spent(Record0::Linear(Zeroizing::new(words))),
            }
        }
    }

    fn output(&mut self, range: Range<usize>, bytes: &mut [u8]) -> Result<(), Error> {
        let output = self.model.plan.output.index();
        let message = Message::value(&self.model.plan, output, "the output");
        each_width!(&self.memory.values[output], words => message.pack(&words[range], bytes));
        Ok(())
    }
}

fn lcm(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b) * b
}
