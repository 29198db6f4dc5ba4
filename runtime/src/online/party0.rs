//! Party 0: holds the masked value of every step.

use super::stock::{self, Stock0, stock0};
use super::{Model, in_parts, local, missing, receive_words, send_wide, send_words};
use crate::Error;
use crate::kernel::Ahead;
use crate::layout::{to_online, to_row_major};
use crate::net::Channel;
use crate::offline::Party0Material;
use crate::protocol::polynomial::PolynomialCorrelation;
use crate::protocol::square::SquareCorrelation;
use crate::protocol::{phase, polynomial, question_widths, square};
use crate::secret::WideElements;
use crate::tables::Tables;
use crate::words::{Words, each_width};
use ir::op::matrix::Word;
use ir::plan::{Plan, Round, StepOp, StepWeights};
use ir::ring::low_mask;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Party 0 before the online phase.
pub struct Party0<'a, M> {
    model: Arc<Model<'a>>,
    tables: Tables,
    materials: Vec<M>,
    /// What was taken from the materials so far.
    stock: Vec<Option<Stock0>>,
    /// Products that were used, to be wiped after the phase.
    spent: Vec<Zeroizing<Words>>,
    /// Likewise for `u`.
    asked_with: Vec<Zeroizing<Vec<u16>>>,
    /// Memory of values that are not read any more.
    free: Vec<Words>,
}

/// What party 0 keeps between its question and its share.
enum Asked {
    Phase(Vec<u16>, Zeroizing<Words>),
    Square(Vec<u64>, SquareCorrelation),
    Polynomial(Vec<u64>, PolynomialCorrelation, WideElements),
}

impl<'a, M: Party0Material> Party0<'a, M> {
    pub(crate) fn new(
        model: Arc<Model<'a>>,
        tables: Tables,
        mut materials: Vec<M>,
    ) -> Result<Self, Error> {
        let plan = model.plan;
        let mut budget = stock::AHEAD;
        let mut stock = Vec::with_capacity(plan.steps.len());
        for index in 0..plan.steps.len() {
            let bytes = stock::bytes(plan, index) * materials.len();
            let taken = match budget.checked_sub(bytes) {
                Some(rest) => {
                    budget = rest;
                    stock0(plan, model.weights, index, &mut materials)?
                }
                None => None,
            };
            stock.push(taken);
        }
        Ok(Self {
            model,
            tables,
            materials,
            stock,
            spent: vec![],
            asked_with: vec![],
            free: vec![],
        })
    }

    /// Runs the online phase; `observe` sees party 0's side of every value as it is made.
    pub(crate) fn run(
        &mut self,
        channel: &mut impl Channel,
        mut observe: impl FnMut(usize, &Words),
    ) -> Result<(), Error> {
        let model = self.model.clone();
        let plan = model.plan;
        let batch = self.materials.len();
        let rounds = plan.rounds();
        let last_use = last_uses(plan, &rounds);
        let mut values: Vec<Option<Words>> = plan.steps.iter().map(|_| None).collect();
        let mut moment = 0;
        for round in &rounds {
            let next = round.activations.first().copied();
            for &index in &round.local {
                let value = if matches!(plan.steps[index].op, StepOp::Input) {
                    let mut words = self.zeros(index);
                    add_received(channel, plan, index, &mut words, "the input")?;
                    words
                } else {
                    self.local(index, next, batch, &values)?
                };
                observe(index, &value);
                values[index] = Some(value);
                self.release(index, moment, &last_use, &mut values);
                moment += 1;
            }
            let mut asked = Vec::with_capacity(round.activations.len());
            for &index in &round.activations {
                asked.push(self.ask(channel, index, operand(plan, index, &values)?)?);
            }
            let mut shares = Vec::with_capacity(asked.len());
            for (&index, asked) in round.activations.iter().zip(asked) {
                shares.push(self.share(index, asked, operand(plan, index, &values)?)?);
            }
            for (&index, mut value) in round.activations.iter().zip(shares) {
                add_received(channel, plan, index, &mut value, "the answer to")?;
                observe(index, &value);
                values[index] = Some(value);
                self.release(index, moment, &last_use, &mut values);
                moment += 1;
            }
        }
        let output = plan.output.index();
        let value = values[output].as_ref().ok_or_else(|| missing(output))?;
        let ring = plan.steps[output].ring;
        each_width!(value, words => send_words(channel, plan, output, ring, words, "the output"))
    }

    fn zeros(&mut self, index: usize) -> Words {
        let step = &self.model.plan.steps[index];
        let count = step.shape.elements() * self.materials.len();
        let fits = |w: &Words| w.width() == Words::bits(step.ring) && w.capacity() >= count;
        let Some(found) = self.free.iter().position(fits) else {
            return Words::zeros(step.ring, count);
        };
        let mut words = self.free.swap_remove(found);
        words.clear(count);
        words
    }

    fn release(
        &mut self,
        index: usize,
        moment: usize,
        last_use: &[usize],
        values: &mut [Option<Words>],
    ) {
        for operand in &self.model.plan.steps[index].operands {
            if last_use[operand.index()] == moment {
                self.free.extend(values[operand.index()].take());
            }
        }
    }

    fn stock(&mut self, index: usize) -> Result<Stock0, Error> {
        if let Some(stock) = self.stock[index].take() {
            return Ok(stock);
        }
        let stock = stock0(self.model.plan, self.model.weights, index, &mut self.materials)?;
        stock.ok_or_else(|| missing(index))
    }

    fn local(
        &mut self,
        index: usize,
        next: Option<usize>,
        batch: usize,
        values: &[Option<Words>],
    ) -> Result<Words, Error> {
        let model = self.model.clone();
        let step = &model.plan.steps[index];
        if let Some(constant) = model.constant(index) {
            let repeated = std::iter::repeat_n(constant, batch).flat_map(Words::elements);
            return Ok(Words::new(step.ring, repeated));
        }
        let operands: Vec<&Words> = step
            .operands
            .iter()
            .map(|o| values[o.index()].as_ref().ok_or_else(|| missing(o.index())))
            .collect::<Result<_, _>>()?;
        let shapes: Vec<_> = step.operands.iter().map(|o| &model.plan.step(*o).shape).collect();
        let Some(linear) = model.linear(index) else {
            return Ok(local::public(step, &shapes, &operands));
        };
        let Stock0::Linear(mut value) = self.stock(index)? else { return Err(missing(index)) };
        if matches!(step.op, StepOp::MatrixProduct { .. }) && step.shape.rank() == 4 {
            let words = each_width!(operands[0], x => to_row_major(shapes[0], x).into());
            linear.apply(&words, &mut value);
            return Ok(each_width!(&value, y => to_online(&step.shape, 1, y).into()));
        }
        let ahead = match next.and_then(|next| self.stock[next].as_ref()) {
            Some(Stock0::Phase(_, products)) => Ahead::of(products),
            _ => Ahead::default(),
        };
        linear.apply_and_fetch(operands[0], &mut value, ahead);
        Ok(value)
    }

    fn ask(
        &mut self,
        channel: &mut impl Channel,
        index: usize,
        delta: &Words,
    ) -> Result<Asked, Error> {
        let (plan, weights) = (self.model.plan, self.model.weights);
        let stock = self.stock(index)?;
        let step = &plan.steps[index];
        let what = "the question of";
        let widths = question_widths(&step.op);
        match (&step.op, &weights.steps[index], stock) {
            (StepOp::Phase(phase), _, Stock0::Phase(u, products)) => {
                let ring = plan.step(step.operands[0]).ring;
                let e = each_width!(delta, delta => phase::question(phase, ring, delta, &u));
                self.asked_with.push(u);
                send_words(channel, plan, index, phase.p, &e, what)?;
                Ok(Asked::Phase(e, products))
            }
            (StepOp::Square(square), _, Stock0::Square(correlation)) => {
                let words = square::question(square, &delta.elements(), &correlation);
                send_wide(channel, plan, index, &words, &widths, what)?;
                Ok(Asked::Square(words, correlation))
            }
            (
                StepOp::Polynomial { square, .. },
                StepWeights::Polynomial { coefficients },
                Stock0::Polynomial(correlation),
            ) => {
                let delta = delta.elements();
                let (words, constants) =
                    polynomial::question(square, step, coefficients, &delta, &correlation);
                send_wide(channel, plan, index, &words, &widths, what)?;
                Ok(Asked::Polynomial(words, correlation, constants))
            }
            _ => Err(Error::Internal(format!("step v{index} has other weights"))),
        }
    }

    fn share(&mut self, index: usize, asked: Asked, delta: &Words) -> Result<Words, Error> {
        let model = self.model.clone();
        let step = &model.plan.steps[index];
        let other = || Error::Internal(format!("step v{index} has other weights"));
        match (&step.op, &model.weights.steps[index], asked) {
            (StepOp::Phase(phase), _, Asked::Phase(question, products)) => {
                let mut shares = self.zeros(index);
                let rows = self.tables.rows(index).ok_or_else(other)?;
                let constants = model.phase_constants(index).ok_or_else(other)?;
                each_width!(&mut shares, out => {
                    match (constants, rows, &*products) {
                        (Words::W16(c), Words::W16(rows), Words::W16(products)) => {
                            phase_shares(phase, c, rows, &question, products, out);
                        }
                        (Words::W32(c), Words::W32(rows), Words::W32(products)) => {
                            phase_shares(phase, c, rows, &question, products, out);
                        }
                        (Words::W64(c), Words::W64(rows), Words::W64(products)) => {
                            phase_shares(phase, c, rows, &question, products, out);
                        }
                        _ => return Err(other()),
                    }
                });
                self.spent.push(products);
                Ok(shares)
            }
            (
                StepOp::Square(square),
                StepWeights::Square { constant },
                Asked::Square(question, correlation),
            ) => {
                let delta = delta.elements();
                let shares =
                    square::party0_share(square, step, constant, &delta, &question, correlation);
                Ok(Words::new(step.ring, shares.into_iter()))
            }
            (
                StepOp::Polynomial { square, degree },
                _,
                Asked::Polynomial(question, correlation, constants),
            ) => {
                let shares =
                    polynomial::party0_share(square, *degree, &question, constants, correlation);
                Ok(Words::new(step.ring, shares.into_iter()))
            }
            _ => Err(other()),
        }
    }
}

fn phase_shares<Q: Word, W: Word>(
    phase: &ir::plan::Phase,
    constants: &[Q],
    rows: &[Q],
    question: &[u16],
    products: &[Q],
    out: &mut [W],
) {
    let per = 2 * phase.harmonics as usize;
    in_parts(constants.len(), per, question, products, out, |question, products, out| {
        phase::party0_share(phase, constants, rows, question, products, out);
    });
}

/// Receives a step's elements and adds them to `words`.
fn add_received(
    channel: &mut impl Channel,
    plan: &Plan,
    index: usize,
    words: &mut Words,
    what: &str,
) -> Result<(), Error> {
    let ring = plan.steps[index].ring;
    each_width!(words, words => {
            let mask = Word::low(low_mask(ring));

            receive_words(channel, plan, index, ring, words, #[inline(always)]
    |a, b| Word::and(ir::Element::plus(a, b), mask), what)
        })
}

fn operand<'v>(plan: &Plan, index: usize, values: &'v [Option<Words>]) -> Result<&'v Words, Error> {
    let id = plan.steps[index].operands[0].index();
    values[id].as_ref().ok_or_else(|| missing(id))
}

/// The moment of every value's last use, in the order of the rounds.
fn last_uses(plan: &Plan, rounds: &[Round]) -> Vec<usize> {
    let mut last_use = vec![0; plan.steps.len()];
    let order = rounds.iter().flat_map(|r| r.local.iter().chain(&r.activations));
    for (moment, &index) in order.enumerate() {
        for operand in &plan.steps[index].operands {
            last_use[operand.index()] = moment;
        }
    }
    last_use[plan.output.index()] = usize::MAX;
    last_use
}
