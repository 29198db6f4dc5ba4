//! Party 1: its masks are known before its input is.

use super::stock::{self, Stock1, stock1};
use super::{in_parts, missing, receive_wide, receive_words, send_words};
use crate::Error;
use crate::layout::{to_online, to_row_major};
use crate::net::Channel;
use crate::offline::{MaterialError, Party1Material, masks};
use crate::protocol::{phase, polynomial, question_widths, square};
use crate::secret::Elements;
use crate::tables::Tables;
use crate::words::{Words, each_width};
use ir::Tensor;
use ir::op::matrix::Word;
use ir::plan::{Phase, Plan, StepOp};
use ir::ring::low_mask;
use rayon::prelude::*;
use zeroize::Zeroizing;

/// Party 1 before the online phase: its side of every value is computed, and no weight was needed.
pub struct Party1<'a, M> {
    plan: &'a Plan,
    tables: Tables,
    materials: Vec<M>,
    input: Option<Zeroizing<Words>>,
    output: Option<Zeroizing<Words>>,
    activations: Vec<Option<Activation>>,
    /// Words that were used, to be wiped after the phase.
    spent: Vec<Zeroizing<Words>>,
}

/// The masks of one activation step, for the whole batch.
struct Activation {
    /// The operand's; nothing for phases, which do not ask for it.
    operand: Option<Elements>,
    /// The fresh ones of its values.
    fresh: Zeroizing<Words>,
    /// Its correlations, unless they are taken when its time comes.
    stock: Option<Stock1>,
}

/// One item's masks as they are walked.
#[derive(Default)]
struct Masks {
    input: Elements,
    output: Elements,
    operands: Vec<Elements>,
    fresh: Vec<Elements>,
}

impl<'a, M: Party1Material> Party1<'a, M> {
    pub(crate) fn new(
        plan: &'a Plan,
        tables: Tables,
        mut materials: Vec<M>,
    ) -> Result<Self, Error> {
        let mut masks: Vec<Masks> = materials
            .par_iter_mut()
            .map(|material| Masks::new(plan, material))
            .collect::<Result<_, _>>()?;
        let mut of = |index: usize, mask: fn(&mut Masks, usize) -> &mut Elements| {
            let items: Vec<Elements> =
                masks.iter_mut().map(|m| std::mem::take(mask(m, index))).collect();
            let step = &plan.steps[index];
            Zeroizing::new(stock::words(&step.shape, 1, step.ring, &items))
        };
        let input = Some(of(0, |masks, _| &mut masks.input));
        let output = Some(of(plan.output.index(), |masks, _| &mut masks.output));
        let mut budget = stock::AHEAD;
        let mut activations = Vec::with_capacity(plan.steps.len());
        for (index, step) in plan.steps.iter().enumerate() {
            if !step.op.is_activation() {
                activations.push(None);
                continue;
            }
            let operand = (!matches!(step.op, StepOp::Phase(_))).then(|| {
                let items =
                    masks.iter().flat_map(|m| to_online(&step.shape, 1, &m.operands[index]));
                Zeroizing::new(items.collect())
            });
            let items: Vec<Elements> =
                masks.iter_mut().map(|m| std::mem::take(&mut m.fresh[index])).collect();
            let fresh = Zeroizing::new(stock::words(&step.shape, 1, step.ring, &items));
            let bytes = stock::bytes(plan, index) * materials.len();
            let stock = match budget.checked_sub(bytes) {
                Some(rest) => {
                    budget = rest;
                    stock1(plan, index, &mut materials)?
                }
                None => None,
            };
            activations.push(Some(Activation { operand, fresh, stock }));
        }
        Ok(Self { plan, tables, materials, input, output, activations, spent: vec![] })
    }

    /// Runs the online phase for encoded inputs.
    pub(crate) fn run(
        &mut self,
        channel: &mut impl Channel,
        inputs: &[Tensor<u64>],
    ) -> Result<Vec<Tensor<u64>>, Error> {
        let (plan, batch) = (self.plan, self.materials.len());
        if inputs.len() != batch || inputs.iter().any(|x| x.shape != *plan.input_shape()) {
            return Err(Error::Internal(format!("{} inputs, agreed on {batch}", inputs.len())));
        }
        self.send_input(channel, inputs)?;
        for round in plan.rounds() {
            let mut questions = Vec::with_capacity(round.activations.len());
            for &index in &round.activations {
                questions.push(self.question(channel, index)?);
            }
            for (&index, question) in round.activations.iter().zip(questions) {
                let answer = self.answer(index, question)?;
                let ring = plan.steps[index].ring;
                each_width!(&*answer, words => {
                    send_words(channel, plan, index, ring, words, "the answer to")?;
                });
                self.spent.push(answer);
            }
        }
        self.receive_output(channel)
    }

    fn send_input(
        &mut self,
        channel: &mut impl Channel,
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
            send_words(channel, self.plan, 0, step.ring, words, "the input")
        })
    }

    fn question(&self, channel: &mut impl Channel, index: usize) -> Result<Question, Error> {
        let (plan, step) = (self.plan, &self.plan.steps[index]);
        let elements = step.shape.elements() * self.materials.len();
        let what = "the question of";
        if let StepOp::Phase(phase) = &step.op {
            let mut e = vec![0u16; elements];
            receive_words(channel, plan, index, phase.p, &mut e, |_, e| e, what)?;
            return Ok(Question::Phases(e));
        }
        let widths = question_widths(&step.op);
        Ok(Question::Words(receive_wide(channel, plan, index, elements, &widths, what)?))
    }

    fn answer(&mut self, index: usize, question: Question) -> Result<Zeroizing<Words>, Error> {
        let step = &self.plan.steps[index];
        let activation = self.activations[index].take().ok_or_else(|| missing(index))?;
        let Activation { operand, mut fresh, stock } = activation;
        let stock = match stock {
            Some(stock) => stock,
            None => stock1(self.plan, index, &mut self.materials)?.ok_or_else(|| missing(index))?,
        };
        let mask = operand.unwrap_or_default();
        match (&step.op, stock, question) {
            (StepOp::Phase(phase), Stock1::Phase(products), Question::Phases(e)) => {
                let rows = self.tables.rows(index).ok_or_else(|| missing(index))?;
                each_width!(&mut *fresh, out => match (rows, &*products) {
                    (Words::W16(rows), Words::W16(p)) => phase_answers(phase, rows, &e, p, out),
                    (Words::W32(rows), Words::W32(p)) => phase_answers(phase, rows, &e, p, out),
                    (Words::W64(rows), Words::W64(p)) => phase_answers(phase, rows, &e, p, out),
                    _ => return Err(missing(index)),
                });
                self.spent.push(products);
            }
            (StepOp::Square(square), Stock1::Square(shares), Question::Words(question)) => {
                add(&mut fresh, &square::party1_share(square, &mask, &question, shares), step.ring);
            }
            (
                StepOp::Polynomial { square, degree },
                Stock1::Polynomial(shares),
                Question::Words(question),
            ) => {
                let shares = polynomial::party1_share(square, *degree, &mask, &question, shares);
                add(&mut fresh, &shares, step.ring);
            }
            _ => return Err(missing(index)),
        }
        Ok(fresh)
    }

    fn receive_output(&mut self, channel: &mut impl Channel) -> Result<Vec<Tensor<u64>>, Error> {
        let output = self.plan.output.index();
        let step = &self.plan.steps[output];
        let mut value = self.output.take().ok_or_else(|| missing(output))?;
        each_width!(&mut *value, words => {
            let ring = Word::low(low_mask(step.ring));
            let unmask = |mask, word| Word::and(Word::minus(word, mask), ring);
            receive_words(channel, self.plan, output, step.ring, words, unmask, "the output")?;
        });
        let items = to_row_major(&step.shape, &value.elements());
        let item = |data: &[u64]| Tensor::new(step.shape.clone(), data.to_vec());
        Ok(items.chunks_exact(step.shape.elements()).map(item).collect())
    }
}

/// What party 0 asked of an activation.
enum Question {
    Phases(Vec<u16>),
    Words(Vec<u64>),
}

impl Masks {
    fn new(plan: &Plan, material: &mut impl Party1Material) -> Result<Self, MaterialError> {
        let nothing = || plan.steps.iter().map(|_| Elements::default()).collect();
        let mut masks = Self { operands: nothing(), fresh: nothing(), ..Self::default() };
        let keep = |mask: &Tensor<u64>| Zeroizing::new(mask.data.clone());
        masks::walk(
            plan,
            |step| material.mask(step),
            |index, operands, mask| {
                if index == 0 {
                    masks.input = keep(mask);
                }
                let op = &plan.steps[index].op;
                if op.is_activation() {
                    masks.fresh[index] = keep(mask);
                    if !matches!(op, StepOp::Phase(_)) {
                        masks.operands[index] = keep(operands[0]);
                    }
                }
                if index == plan.output.index() {
                    masks.output = keep(mask);
                }
                Ok(())
            },
        )?;
        Ok(masks)
    }
}

fn phase_answers<Q: Word, W: Word>(
    phase: &Phase,
    rows: &[Q],
    question: &[u16],
    products: &[Q],
    out: &mut [W],
) {
    let per = 2 * phase.harmonics as usize;
    in_parts(1, per, question, products, out, |question, products, out| {
        phase::party1_answer(phase, rows, question, products, out);
    });
}

/// `words += summand` in the ring of `ring` bits.
fn add(words: &mut Words, summand: &[u64], ring: u32) {
    each_width!(words, words => {
        for (word, s) in words.iter_mut().zip(summand) {
            *word = Word::low(word.element().wrapping_add(*s) & low_mask(ring));
        }
    });
}
