//! Party 1: its masks are known before its input is.

use super::asking::{ELEMENT, Sizes};
use super::messages::{Message, parts, room};
use super::missing;
use super::stock::{Activation, Feed, Kind1, Known, Stream, stock1};
use crate::Error;
use crate::kernel::cores;
use crate::layout::{to_online, to_row_major};
use crate::net::{Channel, Receiving, Sending};
use crate::offline::Party1Material;
use crate::protocol::{phase, polynomial, question_widths, square, unpack_wide};
use crate::tables::Tables;
use crate::words::{Words, WordsMut, each_slice, each_width};
use ir::Tensor;
use ir::op::matrix::Word;
use ir::plan::{Phase, Plan, Round, StepOp};
use ir::ring::{low_mask, packed_bytes};
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
    /// The correlations; after the phase, what is to be wiped of them.
    feed: Option<Feed<'a, Activation>>,
    sizes: Sizes,
    memory: Memory,
}

/// Memory of the loop.
#[derive(Default)]
struct Memory {
    /// Questions about phases: of a part, or of a round.
    phases: Vec<u16>,
    /// Questions about other activations, as many.
    words: Vec<u64>,
    /// Bytes of a part that comes, and of one that leaves.
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

/// What party 0 asked about elements of an activation.
enum Question {
    /// Where it stands in memory.
    Phases(Range<usize>),
    Words(Range<usize>),
}

impl<'a> Party1<'a> {
    pub(crate) fn new<M: Party1Material + 'a>(
        plan: &'a Plan,
        tables: Tables,
        materials: Vec<M>,
    ) -> Result<Self, Error> {
        Self::cut(plan, tables, materials, Sizes::DEFAULT)
    }

    /// With parts of other sizes.
    pub(super) fn cut<M: Party1Material + 'a>(
        plan: &'a Plan,
        tables: Tables,
        mut materials: Vec<M>,
        sizes: Sizes,
    ) -> Result<Self, Error> {
        let batch = materials.len();
        let Known { input, output, mut steps } = Known::new(plan, &mut materials)?;
        let rounds = plan.rounds();
        let order = rounds.iter().flat_map(|r| r.activations.iter().copied()).collect();
        let make = move |index: usize| {
            stock1(plan, index, &mut materials, std::mem::take(&mut steps[index]))
        };
        let feed = Some(Feed::new(plan, batch, sizes.ahead, order, make)?);
        let mut party = Self {
            plan,
            tables,
            rounds,
            batch,
            input: Some(input),
            output: Some(output),
            feed,
            sizes,
            memory: Memory::default(),
        };
        party.make_room();
        Ok(party)
    }

    /// Makes room for the longest part, and for the longest round of messages that come whole.
    fn make_room(&mut self) {
        let plan = self.plan;
        let longest = |of: &dyn Fn(usize) -> usize| {
            let rounds = self.rounds.iter().map(|r| r.activations.iter().map(|&i| of(i)).sum());
            rounds.max().unwrap_or(0)
        };
        let part = |index: usize| self.elements(index).min(2 * self.sizes.part);
        let phases = longest(&part);
        let incoming = longest(&|i| packed_bytes(part(i), plan.question_bits(i)));
        let outgoing = longest(&|i| Message::answer(plan, i).bytes(part(i)));
        let words = longest(&|i| match plan.steps[i].op {
            StepOp::Phase(_) => 0,
            _ => part(i) * question_widths(&plan.steps[i].op).len(),
        });
        self.memory.phases.resize(phases, 0);
        self.memory.words.reserve(words);
        room(&mut self.memory.incoming, incoming);
        room(&mut self.memory.outgoing, outgoing);
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
        let ended = feed.during(|stock| {
            self.send_input(&mut *sending, inputs)?;
            let rounds = std::mem::take(&mut self.rounds);
            for round in &rounds {
                let is_cut = |&i: &usize| self.sizes.cut(self.elements(i));
                if round.activations.iter().any(is_cut) {
                    self.answer_by_parts(round, stock, &mut *sending, &mut *receiving)?;
                } else {
                    self.answer(round, stock, &mut *sending, &mut *receiving)?;
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
        let message = Message::value(self.plan, 0, "the input");
        message.send(sending, &masked, self.sizes.part, &mut self.memory.outgoing)
    }

    /// Activations whose messages come and leave whole: all questions are read before an answer leaves.
    fn answer(
        &mut self,
        round: &Round,
        stock: &mut Stream<'_, Activation>,
        sending: &mut dyn Sending,
        receiving: &mut dyn Receiving,
    ) -> Result<(), Error> {
        if let &[index] = round.activations.as_slice() {
            let all = self.elements(index);
            let question = self.question(receiving, index, all, true, 0)?;
            return self.answer_one(index, question, stock, sending);
        }
        let mut questions = Vec::with_capacity(round.activations.len());
        let mut at = 0;
        for &index in &round.activations {
            let all = self.elements(index);
            questions.push(self.question(receiving, index, all, true, at)?);
            at += all;
        }
        for (&index, question) in round.activations.iter().zip(questions) {
            self.answer_one(index, question, stock, sending)?;
        }
        Ok(())
    }

    fn answer_one(
        &mut self,
        index: usize,
        question: Question,
        stock: &mut Stream<'_, Activation>,
        sending: &mut dyn Sending,
    ) -> Result<(), Error> {
        let mut activation = stock.next(index)?;
        let all = 0..self.elements(index);
        self.compute(index, &mut activation, all.clone(), &question)?;
        self.send_answer(index, &activation, all, true, sending)?;
        stock.spent(activation);
        Ok(())
    }

    /// Activations whose messages come and leave in parts: each is answered as it comes.
    fn answer_by_parts(
        &mut self,
        round: &Round,
        stock: &mut Stream<'_, Activation>,
        sending: &mut dyn Sending,
        receiving: &mut dyn Receiving,
    ) -> Result<(), Error> {
        for &index in &round.activations {
            let mut activation = stock.next(index)?;
            let all = self.elements(index);
            for range in parts(all, self.sizes.part) {
                let ends = range.end == all;
                let question = self.question(receiving, index, range.len(), ends, 0)?;
                self.compute(index, &mut activation, range.clone(), &question)?;
                self.send_answer(index, &activation, range, ends, sending)?;
            }
            stock.spent(activation);
        }
        Ok(())
    }

    /// Receives the question about so many elements to memory; `at` elements of it were asked before.
    fn question(
        &mut self,
        receiving: &mut dyn Receiving,
        index: usize,
        elements: usize,
        ends: bool,
        at: usize,
    ) -> Result<Question, Error> {
        let bits = self.plan.question_bits(index);
        let message = Message::new(self.plan, index, bits, "the question of");
        let count = packed_bytes(elements, bits);
        let Memory { phases, words, incoming, .. } = &mut self.memory;
        let bytes = message.receive_part(receiving, count, ends, incoming)?;
        if matches!(self.plan.steps[index].op, StepOp::Phase(_)) {
            message.take(bytes, &mut phases[at..at + elements], |_, e| e)?;
            return Ok(Question::Phases(at..at + elements));
        }
        let widths = question_widths(&self.plan.steps[index].op);
        if at == 0 {
            words.clear();
        }
        let start = words.len();
        let is_right = unpack_wide(bytes, elements, &widths, words);
        is_right.then_some(Question::Words(start..words.len())).ok_or_else(|| message.padding())
    }

    fn send_answer(
        &mut self,
        index: usize,
        activation: &Activation,
        range: Range<usize>,
        ends: bool,
        sending: &mut dyn Sending,
    ) -> Result<(), Error> {
        let message = Message::answer(self.plan, index);
        let bytes = room(&mut self.memory.outgoing, message.bytes(range.len()));
        each_width!(&*activation.fresh, words => message.pack(&words[range], bytes));
        message.send_part(sending, bytes, ends)
    }

    /// Adds party 1's shares to the fresh masks of a range of an activation's elements: its answer.
    fn compute(
        &self,
        index: usize,
        activation: &mut Activation,
        range: Range<usize>,
        question: &Question,
    ) -> Result<(), Error> {
        let step = &self.plan.steps[index];
        let other = || Error::Internal(format!("step v{index} has other correlations"));
        let Activation { operand, fresh, kind } = activation;
        let mask = |range: Range<usize>| operand.as_ref().map_or(&[][..], |o| &o[range]);
        let out = fresh.part_mut(range.clone());
        let asked = |at: &Range<usize>| &self.memory.words[at.clone()];
        match (&step.op, kind, question) {
            (StepOp::Phase(phase), Kind1::Phase(products), Question::Phases(at)) => {
                let rows = self.tables.rows(index).ok_or_else(other)?;
                let asked = &self.memory.phases[at.clone()];
                let cores = cores(asked.len() * ELEMENT);
                phase_answers(cores, phase, rows, products, (range.start, asked), out);
            }
            (StepOp::Square(square), Kind1::Square(shares), Question::Words(at)) => {
                let shares = shares.part(range.clone());
                let shares = square::party1_share(square, mask(range), asked(at), shares);
                add(out, step.ring, shares);
            }
            (
                StepOp::Polynomial { square, degree },
                Kind1::Polynomial(shares),
                Question::Words(at),
            ) => {
                let shares = shares.part(*degree, range.clone());
                let shares =
                    polynomial::party1_share(square, *degree, mask(range), asked(at), shares);
                add(out, step.ring, shares);
            }
            _ => return Err(other()),
        }
        Ok(())
    }

    fn receive_output(&mut self, receiving: &mut dyn Receiving) -> Result<Vec<Tensor<u64>>, Error> {
        let output = self.plan.output.index();
        let step = &self.plan.steps[output];
        let mut value = self.output.take().ok_or_else(|| missing(output))?;
        let message = Message::value(self.plan, output, "the output");
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

/// Adds shares of a ring of `ring` bits.
fn add(out: WordsMut<'_>, ring: u32, shares: impl Iterator<Item = u64>) {
    each_slice!(WordsMut, out, out => {
        for (word, share) in out.iter_mut().zip(shares) {
            *word = Word::low(word.element().wrapping_add(share) & low_mask(ring));
        }
    });
}

/// The answers to consecutive questions, the first about the element of this number, on so many cores.
fn phase_answers(
    cores: usize,
    phase: &Phase,
    rows: &Words,
    products: &Words,
    (first, question): (usize, &[u16]),
    out: WordsMut<'_>,
) {
    if cores > 1 && question.len() > 1 {
        let half = question.len() / 2;
        let (left, right) = out.split_at(half);
        let (now, next) = ((first, &question[..half]), (first + half, &question[half..]));
        rayon::join(
            || phase_answers(cores / 2, phase, rows, products, now, left),
            || phase_answers(cores - cores / 2, phase, rows, products, next, right),
        );
        return;
    }
    let per = 2 * phase.harmonics as usize;
    let of = first * per..(first + question.len()) * per;
    each_slice!(WordsMut, out, out => match (rows, products) {
        (Words::W16(rows), Words::W16(p)) => phase::party1_answer(phase, rows, question, &p[of], out),
        (Words::W32(rows), Words::W32(p)) => phase::party1_answer(phase, rows, question, &p[of], out),
        (Words::W64(rows), Words::W64(p)) => phase::party1_answer(phase, rows, question, &p[of], out),
        _ => unreachable!("tables and products of one phase have words of one width"),
    });
}
