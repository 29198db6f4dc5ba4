//! Party 0's computation by this machine's cores.
//!
//! Everything about a part of a round trip happens while it is in the cache: the products with the weights, the
//! additions behind them, the opening and its bits. A part may go to several cores.

use super::device::{Asking, Device, Part};
use super::local;
use super::messages::{Message, add_elements};
use super::schedule::{Ask, Schedule, is_in_rows};
use super::{Model, missing};
use crate::Error;
use crate::kernel::{Ahead, Running, Scratch, cores};
use crate::layout::{to_online, to_row_major};
use crate::steps::{Kept, Opener, Opening, Parts0, Record0, Tables, each_kind, kept};
use crate::words::{Words, WordsMut, WordsRef, each_width};
use ir::plan::{PART, Plan, Step};
use ir::ring::packed_bytes;
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
            // Whole places, and whole bytes of their bits.
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

/// Makes the parts of one round trip.
pub struct HostAsking<'s, 'o> {
    plan: &'s Plan,
    step: &'s Step,
    ask: &'s Ask,
    values: &'s [Words],
    /// The products that begin the tail.
    running: Option<Running<'s>>,
    opener: Opener<'s>,
    /// What is left to be made of the tail, and of the shares.
    made: Option<WordsMut<'o>>,
    left: Option<WordsMut<'o>>,
    kept: &'s mut Kept,
    sizes: Sizes,
    /// Elements of the value.
    all: usize,
    guard: u32,
}

/// Shares of a part, in memory.
pub struct HostPart<'o> {
    bits: u32,
    guard: u32,
    shares: WordsMut<'o>,
}

impl Part for HostPart<'_> {
    fn len(&self) -> usize {
        self.shares.len()
    }

    fn respond(self, bytes: &[u8]) -> bool {
        add_elements(bytes, self.bits, self.guard, self.shares)
    }
}

impl<'o> Asking for HostAsking<'_, 'o> {
    type Part = HostPart<'o>;

    fn part(&self) -> usize {
        self.sizes.part
    }

    fn open(&mut self, range: Range<usize>, bytes: &mut [u8]) {
        let mut work = range.len() * ELEMENT;
        if let Some(running) = &mut self.running {
            running.bring(range.clone());
            work += range.len() * running.linear().fan_in();
        }
        let made = self.made.take().map(|made| made.split_at(range.len()));
        let (made, rest) = made.unzip();
        self.made = rest;
        let cores = cores(work);
        let mut memory = take(self.kept);
        each_kind!(Opener, &self.opener, opener => {
            let kept = kept(&mut memory, range.len() * opener.kept());
            self.opening(opener, cores, Piece { first: range.start, made, kept, bytes });
        });
        *self.kept = memory;
    }

    fn share(&mut self, range: Range<usize>) -> HostPart<'o> {
        let left = self.left.take().unwrap_or(WordsMut::W64(&mut []));
        // Where elements are not the value's, all of them are one part.
        let count = if range.len() == self.all { left.len() } else { range.len() };
        let (mut shares, rest) = left.split_at(count);
        self.left = Some(rest);
        let cores = cores(range.len() * ELEMENT);
        let mut memory = take(self.kept);
        each_kind!(Opener, &self.opener, opener => {
            let kept = kept(&mut memory, range.len() * opener.kept());
            let cores = if self.ask.trip.is_elementwise { cores } else { 1 };
            sharing(opener, cores, range.start, kept, shares.borrow());
        });
        *self.kept = memory;
        let bits = self.ask.trip.messages.response.bits;
        HostPart { bits, guard: self.guard, shares }
    }
}

impl HostAsking<'_, '_> {
    /// Makes the operand's elements from `first` on, where the correlation of the linear step stands.
    fn make(&self, first: usize, mut made: WordsMut<'_>, ahead: Ahead) {
        if let Some(running) = &self.running {
            running.add(first, made.borrow(), ahead);
        }
        let range = first..first + made.len();
        for link in self.ask.tail.iter().skip(1) {
            let other = link.other.map(|other| self.values[other].part(range.clone()));
            local::in_place(&self.plan.steps[link.step], made.borrow(), other);
        }
    }

    /// The opening of a piece, on so many cores.
    fn opening<O: Opening>(&self, opener: &O, cores: usize, piece: Piece<'_, O::Kept>) {
        let operand = |i: usize| &self.values[self.step.operands[i].index()];
        let operands = self.step.operands.len();
        if !self.ask.trip.is_elementwise {
            let whole: Vec<WordsRef<'_>> = (0..operands).map(|i| operand(i).whole()).collect();
            return opener.open(0..self.all, &whole, piece.kept, piece.bytes);
        }
        let (per, bits) = (opener.kept(), self.ask.trip.messages.opening.bits);
        let unit = self.running.as_ref().map_or(8, |r| lcm(r.linear().outputs(), 8));
        let count = piece.kept.len() / per;
        let half = (count / 2).next_multiple_of(unit);
        if cores > 1 && half < count {
            let (left, right) = piece.split(half, per, bits);
            rayon::join(
                || self.opening(opener, cores / 2, left),
                || self.opening(opener, cores - cores / 2, right),
            );
            return;
        }
        let mut rest = piece;
        while !rest.kept.is_empty() {
            let count = self.sizes.grain.min(rest.kept.len() / per);
            let (now, mut later) = rest.split(count, per, bits);
            let range = now.first..now.first + count;
            match now.made {
                Some(mut made) => {
                    let mut ahead = opener.ahead(range.clone());
                    if let Some(next) = &mut later.made {
                        let count = self.sizes.grain.min(next.len());
                        ahead = ahead.and(next.borrow().split_at(count).0.as_ref());
                    }
                    self.make(range.start, made.borrow(), ahead);
                    opener.open(range, &[made.as_ref()], now.kept, now.bytes);
                }
                None if operands == 1 => {
                    let part = [operand(0).part(range.clone())];
                    opener.open(range, &part, now.kept, now.bytes);
                }
                None => {
                    let of = |i| operand(i).part(range.clone());
                    let parts: Vec<WordsRef<'_>> = (0..operands).map(of).collect();
                    opener.open(range, &parts, now.kept, now.bytes);
                }
            }
            rest = later;
        }
    }
}

/// The shares of elements from `first` on, on so many cores.
fn sharing<O: Opening>(
    opener: &O,
    cores: usize,
    first: usize,
    kept: &[O::Kept],
    out: WordsMut<'_>,
) {
    let count = out.len();
    if cores > 1 && count > 1 {
        let half = count / 2;
        let (left, right) = out.split_at(half);
        let (now, next) = kept.split_at(half * opener.kept());
        rayon::join(
            || sharing(opener, cores / 2, first, now, left),
            || sharing(opener, cores - cores / 2, first + half, next, right),
        );
        return;
    }
    opener.share(first..first + count, kept, out);
}

/// Consecutive elements, and where their opening goes.
struct Piece<'a, K> {
    first: usize,
    made: Option<WordsMut<'a>>,
    kept: &'a mut [K],
    bytes: &'a mut [u8],
}

impl<K> Piece<'_, K> {
    /// The first `count` elements, whole bytes of `bits` bits each unless they are all, and the rest.
    fn split(self, count: usize, per: usize, bits: u32) -> (Self, Self) {
        let (kept, kept_rest) = self.kept.split_at_mut(count * per);
        let (bytes, bytes_rest) = self.bytes.split_at_mut(packed_bytes(count, bits));
        let (made, made_rest) = self.made.map(|made| made.split_at(count)).unzip();
        let first = self.first + count;
        (
            Self { first: self.first, made, kept, bytes },
            Self { first, made: made_rest, kept: kept_rest, bytes: bytes_rest },
        )
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
