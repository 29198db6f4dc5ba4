//! Party 0's computation on this machine's cores.
//!
//! A part of a round trip is computed while it is in the cache: the products with the weights, the rest of the fusion
//! chain, the opening and its packing. Several cores may share a part.

mod parts;

pub use parts::{HostPart, HostPartMaker};

use super::device::Device;
use super::local;
use super::messages::{PackedMessage, add_elements};
use super::schedule::{Interaction, Schedule, is_in_rows};
use super::{Model, missing};
use crate::Error;
use crate::kernel::Scratch;
use crate::layout::{to_online, to_row_major};
use crate::steps::{Kept, Opener, Parts0, Record0, Tables};
use crate::words::{Words, each_width};
use ir::plan::Step;
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The values of a batch in this machine's memory.
pub struct Host<'a> {
    model: Arc<Model<'a>>,
    tables: Tables,
    batch: usize,
    memory: Memory,
    /// By step: what is kept between two of its round trips.
    under_way: Vec<Option<UnderWay>>,
}

/// What is kept of a step between two of its round trips.
struct UnderWay {
    record: Record0,
    opened: Vec<Zeroizing<Words>>,
}

/// Memory of the loop, reused from session to session.
#[derive(Default)]
pub struct Memory {
    /// The free buffers, by their index in the schedule; those in use are empty here.
    free: Vec<Words>,
    /// The values, by step; empty where there is none.
    values: Vec<Words>,
    kept: Kept,
    scratch: Scratch,
    /// Bytes of a part that is sent, and of one that is received.
    pub messages: [Vec<u8>; 2],
}

impl Memory {
    /// Makes room for a batch.
    pub fn fit(&mut self, schedule: &Schedule, batch: usize) {
        self.values.resize_with(schedule.buffer.len(), Words::default);
        for (buffer, &(bits, elements)) in schedule.buffers.iter().enumerate() {
            let count = elements * batch;
            if buffer == self.free.len() {
                self.free.push(Words::default());
            }
            let words = &mut self.free[buffer];
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

    /// The loop's memory for messages.
    pub fn message_buffers(&mut self) -> [Vec<u8>; 2] {
        take(&mut self.memory.messages)
    }

    /// Gives the memory back to the model, for the next session.
    pub fn end(&mut self, buffers: [Vec<u8>; 2]) {
        self.memory.messages = buffers;
        self.model.keep(take(&mut self.memory));
    }

    /// Party 0's side of a step's value, where it was computed as a whole.
    pub fn value(&self, step: usize) -> &Words {
        &self.memory.values[step]
    }

    fn elements(&self, index: usize) -> usize {
        self.model.plan.steps[index].shape.elements() * self.batch
    }

    /// Takes the buffer of a step's value.
    fn take(&mut self, index: usize) -> Result<Words, Error> {
        let buffer = self.model.schedule.buffer[index].ok_or_else(|| missing(index))?;
        let mut words = take(&mut self.memory.free[buffer]);
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

/// The low bits of the value that the response leaves out.
fn guard_of(step: &Step, interaction: &Interaction) -> u32 {
    if interaction.trip.is_last { step.op.guard() } else { 0 }
}

/// A round trip that has begun.
pub struct Open {
    /// The operand that the fusion chain computes, in the memory of the linear step's correlation.
    fused: Option<Zeroizing<Words>>,
    record: Record0,
    /// The results of the earlier round trips.
    opened: Vec<Zeroizing<Words>>,
    /// Shares, then, with the responses added, values.
    out: Words,
}

impl Device for Host<'_> {
    type Open = Open;
    type PartMaker<'s, 'o: 's>
        = HostPartMaker<'s, 'o>
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
        let message = PackedMessage::value(&model.plan, 0, "the input");
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
        interaction: &Interaction,
        fused: Option<Record0>,
        record: Option<Record0>,
    ) -> Result<Open, Error> {
        let trip = &interaction.trip;
        let fused = match fused {
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
        Ok(Open { fused, record, opened, out })
    }

    fn part_maker<'s, 'o: 's>(
        &'s mut self,
        interaction: &'s Interaction,
        open: &'o mut Open,
    ) -> Result<HostPartMaker<'s, 'o>, Error>
    where
        Self: 's + 'o,
    {
        let (model, tables) = (&*self.model, &self.tables);
        let index = interaction.trip.step;
        let (plan, step) = (&*model.plan, &model.plan.steps[index]);
        let Memory { values, kept, scratch, .. } = &mut self.memory;
        let Open { fused, record, opened, out } = open;
        let opener = Opener::new(&Parts0 {
            plan,
            index,
            trip: interaction.trip.number,
            secrets: &model.weights.steps[index],
            prepared: model.prepared(index).ok_or_else(|| missing(index))?,
            tables,
            record,
            opened,
        })?;
        let mut sizes = model.sizes;
        let mut running = None;
        if let Some(first) = interaction.chain.first() {
            let operand = plan.steps[first.step].operands[0].index();
            let linear = model.linear(first.step).ok_or_else(|| missing(first.step))?;
            running = Some(linear.over(values[operand].whole(), scratch));
            // Whole output positions, and whole bytes of their bits.
            let unit = lcm(linear.outputs(), 8);
            sizes.grain = sizes.grain.max(linear.least_part()).next_multiple_of(unit);
            sizes.part = sizes.part.max(sizes.grain).next_multiple_of(unit);
        }
        let fused = fused.as_mut().map(|fused| {
            let all = 0..fused.len();
            fused.part_mut(all)
        });
        let all = 0..out.len();
        let left = Some(out.part_mut(all));
        let all = step.shape.elements() * self.batch;
        let guard = guard_of(step, interaction);
        Ok(HostPartMaker {
            plan,
            step,
            interaction,
            values,
            running,
            opener,
            fused,
            left,
            kept,
            sizes,
            all,
            guard,
        })
    }

    fn add_response(&mut self, interaction: &Interaction, open: &mut Open, bytes: &[u8]) -> bool {
        let guard = guard_of(&self.model.plan.steps[interaction.trip.step], interaction);
        let all = 0..open.out.len();
        add_elements(bytes, interaction.trip.messages.response.bits, guard, open.out.part_mut(all))
    }

    fn close(&mut self, interaction: &Interaction, open: Open, spent: &mut dyn FnMut(Record0)) {
        let Open { fused, record, mut opened, out } = open;
        fused.map(Record0::Linear).into_iter().for_each(&mut *spent);
        if interaction.trip.is_last {
            self.memory.values[interaction.trip.step] = out;
            spent(record);
            opened.into_iter().map(Record0::Linear).for_each(spent);
        } else {
            opened.push(Zeroizing::new(out));
            self.under_way[interaction.trip.step] = Some(UnderWay { record, opened });
        }
    }

    fn release(&mut self, steps: &[usize], spent: &mut dyn FnMut(Record0)) {
        for &step in steps {
            let words = take(&mut self.memory.values[step]);
            if words.is_empty() {
                continue;
            }
            match self.model.schedule.buffer[step] {
                Some(buffer) => self.memory.free[buffer] = words,
                None => spent(Record0::Linear(Zeroizing::new(words))),
            }
        }
    }

    fn output(&mut self, range: Range<usize>, bytes: &mut [u8]) -> Result<(), Error> {
        let output = self.model.plan.output.index();
        let message = PackedMessage::value(&self.model.plan, output, "the output");
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
