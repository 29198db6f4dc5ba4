//! The online phase: one loop over the plan's rounds, for a whole batch.
//!
//! Party 1 sends its masked inputs. In every round party 0 computes the local steps, sends the questions
//! of all activations, and computes its own shares while party 1 answers; then party 1 sends its answers.
//! At the end party 0 sends its side of the output, from which party 1 takes the mask off. Messages are
//! raw, of lengths that follow from plan and batch ([`ir::plan::Message::bytes`]).

use crate::Error;
use crate::net::Channel;
use crate::offline::{MaterialError, Party0Material, Party1Material, masks};
use crate::protocol::phase::PhaseCorrelation;
use crate::protocol::polynomial::PolynomialCorrelation;
use crate::protocol::square::SquareCorrelation;
use crate::protocol::{
    linear, pack_batch, phase, polynomial, question_widths, square, unpack_batch,
};
use crate::secret::{Elements, SecretTensor, WideElements};
use crate::tables::Tables;
use ir::Tensor;
use ir::plan::{Plan, Round, StepOp, StepWeights, Weights};
use ir::ring::low_mask;
use rayon::prelude::*;
use zeroize::Zeroizing;

/// Receives a batch of `step`'s elements as words of `widths`.
fn receive_batch(
    channel: &mut impl Channel,
    plan: &Plan,
    step: usize,
    batch: usize,
    widths: &[u32],
    what: &str,
) -> Result<Vec<Vec<u64>>, Error> {
    let of = &plan.steps[step];
    let elements = of.shape.elements();
    let bits: usize = widths.iter().map(|&w| w as usize).sum();
    let during = || format!("waiting for {what} v{step} ({})", of.name);
    let bytes = channel
        .receive((elements * batch * bits).div_ceil(8))
        .map_err(|e| Error::net(during(), e))?;
    let malformed = || Error::Peer(format!("{what} v{step} has padding bits that are set"));
    unpack_batch(&bytes, batch, elements, widths).ok_or_else(malformed)
}

/// Sends a batch of `step`'s elements.
fn send_batch<'a>(
    channel: &mut impl Channel,
    plan: &Plan,
    step: usize,
    items: impl IntoIterator<Item = &'a [u64]>,
    widths: &[u32],
    what: &str,
) -> Result<(), Error> {
    let during = || format!("sending {what} v{step} ({})", plan.steps[step].name);
    channel.send(&pack_batch(items, widths)).map_err(|e| Error::net(during(), e))
}

/// Party 0 before the online phase.
pub struct Party0<'a, M> {
    plan: &'a Plan,
    weights: &'a Weights,
    tables: Tables,
    materials: Vec<M>,
}

/// What party 0 keeps of one item between its question and its share.
enum Asked {
    Phase(PhaseCorrelation),
    Square(SquareCorrelation),
    Polynomial(PolynomialCorrelation, WideElements),
}

/// A batch of one value: party 0's sides.
type Batch = Vec<Tensor<u64>>;

impl<'a, M: Party0Material> Party0<'a, M> {
    pub(crate) fn new(
        plan: &'a Plan,
        weights: &'a Weights,
        tables: Tables,
        materials: Vec<M>,
    ) -> Self {
        Self { plan, weights, tables, materials }
    }

    /// Runs the online phase; `observe` sees party 0's side of every value as it is made.
    pub(crate) fn run(
        &mut self,
        channel: &mut impl Channel,
        mut observe: impl FnMut(usize, &Batch),
    ) -> Result<(), Error> {
        let (plan, weights) = (self.plan, self.weights);
        let batch = self.materials.len();
        let rounds = plan.rounds();
        let last_use = last_uses(plan, &rounds);
        let mut values: Vec<Option<Batch>> = plan.steps.iter().map(|_| None).collect();
        let mut moment = 0;
        for round in &rounds {
            for &index in &round.local {
                let value = if matches!(plan.steps[index].op, StepOp::Input) {
                    let ring = plan.steps[index].ring;
                    let words = receive_batch(channel, plan, index, batch, &[ring], "the input")?;
                    self.tensors(index, words)
                } else {
                    self.local(index, &values)?
                };
                observe(index, &value);
                values[index] = Some(value);
                release(plan, index, moment, &last_use, &mut values);
                moment += 1;
            }
            let mut asked = Vec::with_capacity(round.activations.len());
            for &index in &round.activations {
                let deltas = operand(plan, index, &values)?;
                let (words, kept): (Vec<Vec<u64>>, Vec<Asked>) = self
                    .materials
                    .par_iter_mut()
                    .zip(deltas)
                    .map(|(material, delta)| ask(plan, weights, index, material, delta))
                    .collect::<Result<Vec<_>, _>>()?
                    .into_iter()
                    .unzip();
                let widths = question_widths(&plan.steps[index].op);
                let items = words.iter().map(Vec::as_slice);
                send_batch(channel, plan, index, items, &widths, "the question of")?;
                asked.push((words, kept));
            }
            let tables = &self.tables;
            let mut shares = Vec::with_capacity(asked.len());
            for (&index, (words, kept)) in round.activations.iter().zip(asked) {
                let deltas = operand(plan, index, &values)?;
                let shares_of: Vec<Elements> = kept
                    .into_par_iter()
                    .zip(&words)
                    .zip(deltas)
                    .map(|((kept, words), delta)| {
                        share(plan, weights, tables, index, kept, words, delta)
                    })
                    .collect::<Result<_, _>>()?;
                shares.push(shares_of);
            }
            for (&index, shares) in round.activations.iter().zip(shares) {
                let ring = plan.steps[index].ring;
                let mut words =
                    receive_batch(channel, plan, index, batch, &[ring], "the answer to")?;
                for (words, share) in words.iter_mut().zip(&shares) {
                    add(words, share, ring);
                }
                let value = self.tensors(index, words);
                observe(index, &value);
                values[index] = Some(value);
                release(plan, index, moment, &last_use, &mut values);
                moment += 1;
            }
        }
        let output = plan.output.index();
        let value = values[output].as_ref().ok_or_else(|| missing(output))?;
        let items = value.iter().map(|t| t.data.as_slice());
        send_batch(channel, plan, output, items, &[plan.steps[output].ring], "the output")
    }

    fn tensors(&self, index: usize, words: Vec<Vec<u64>>) -> Batch {
        let shape = &self.plan.steps[index].shape;
        words.into_iter().map(|data| Tensor::new(shape.clone(), data)).collect()
    }

    fn local(&mut self, index: usize, values: &[Option<Batch>]) -> Result<Batch, Error> {
        let step = &self.plan.steps[index];
        let secrets = &self.weights.steps[index];
        let operands: Vec<&Batch> = step
            .operands
            .iter()
            .map(|o| values[o.index()].as_ref().ok_or_else(|| missing(o.index())))
            .collect::<Result<_, _>>()?;
        let of_item =
            |item: usize| operands.iter().map(|batch| &batch[item]).collect::<Vec<&Tensor<u64>>>();
        let compute = |(item, material): (usize, &mut M)| {
            Ok(match &step.op {
                StepOp::Constant => linear::constant(step, secrets),
                op if op.is_secret_linear() => {
                    let share = material.linear(index)?;
                    linear::masked_result(step, secrets, &of_item(item), share)
                }
                _ => linear::public(step, &of_item(item)),
            })
        };
        self.materials.par_iter_mut().enumerate().map(compute).collect()
    }
}

fn ask<M: Party0Material>(
    plan: &Plan,
    weights: &Weights,
    index: usize,
    material: &mut M,
    delta: &Tensor<u64>,
) -> Result<(Vec<u64>, Asked), Error> {
    let step = &plan.steps[index];
    match (&step.op, &weights.steps[index]) {
        (StepOp::Phase(phase), _) => {
            let correlation = material.phase(index)?;
            let ring = plan.step(step.operands[0]).ring;
            let words = phase::question(phase, ring, &delta.data, &correlation);
            Ok((words, Asked::Phase(correlation)))
        }
        (StepOp::Square(square), _) => {
            let correlation = material.square(index)?;
            let words = square::question(square, &delta.data, &correlation);
            Ok((words, Asked::Square(correlation)))
        }
        (StepOp::Polynomial { square, .. }, StepWeights::Polynomial { coefficients }) => {
            let correlation = material.polynomial(index)?;
            let (words, constants) =
                polynomial::question(square, step, coefficients, &delta.data, &correlation);
            Ok((words, Asked::Polynomial(correlation, constants)))
        }
        _ => Err(Error::Internal(format!("step v{index} has other weights"))),
    }
}

fn share(
    plan: &Plan,
    weights: &Weights,
    tables: &Tables,
    index: usize,
    kept: Asked,
    question: &[u64],
    delta: &Tensor<u64>,
) -> Result<Elements, Error> {
    let step = &plan.steps[index];
    let share = match (&step.op, &weights.steps[index], kept) {
        (StepOp::Phase(phase), StepWeights::Phase { constant, .. }, Asked::Phase(kept)) => {
            let tables = tables.of(index).ok_or_else(|| missing(index))?;
            phase::party0_share(phase, step, constant, tables, question, kept)
        }
        (StepOp::Square(square), StepWeights::Square { constant }, Asked::Square(kept)) => {
            square::party0_share(square, step, constant, &delta.data, question, kept)
        }
        (StepOp::Polynomial { square, degree }, _, Asked::Polynomial(kept, constants)) => {
            polynomial::party0_share(square, *degree, question, constants, kept)
        }
        _ => return Err(Error::Internal(format!("step v{index} has other weights"))),
    };
    Ok(Zeroizing::new(share))
}

/// Party 1 before the online phase: its side of every value is computed, and no weight was needed.
pub struct Party1<'a, M> {
    plan: &'a Plan,
    tables: Tables,
    items: Vec<Item<M>>,
}

/// One inference at party 1.
struct Item<M> {
    material: M,
    input: Option<SecretTensor>,
    output: Option<SecretTensor>,
    /// Per activation step the operand's mask and the fresh mask of its value.
    activations: Vec<Option<(SecretTensor, SecretTensor)>>,
}

impl<'a, M: Party1Material> Party1<'a, M> {
    pub(crate) fn new(plan: &'a Plan, tables: Tables, materials: Vec<M>) -> Result<Self, Error> {
        let items = materials.into_par_iter().map(|material| Item::new(plan, material));
        Ok(Self { plan, tables, items: items.collect::<Result<_, _>>()? })
    }

    /// Runs the online phase for encoded inputs.
    pub(crate) fn run(
        &mut self,
        channel: &mut impl Channel,
        inputs: &[Tensor<u64>],
    ) -> Result<Batch, Error> {
        let (plan, batch) = (self.plan, self.items.len());
        if inputs.len() != batch || inputs.iter().any(|x| x.shape != *plan.input_shape()) {
            return Err(Error::Internal(format!("{} inputs, agreed on {batch}", inputs.len())));
        }
        let ring = plan.steps[0].ring;
        let mut masked = Vec::with_capacity(batch);
        for (item, x) in self.items.iter_mut().zip(inputs) {
            let mask = item.input.take().ok_or_else(|| missing(0))?;
            let mut words = x.data.clone();
            add(&mut words, &mask.data, ring);
            masked.push(words);
        }
        let words = masked.iter().map(Vec::as_slice);
        send_batch(channel, plan, 0, words, &[ring], "the input")?;
        for round in plan.rounds() {
            let mut questions = Vec::with_capacity(round.activations.len());
            for &index in &round.activations {
                let widths = question_widths(&plan.steps[index].op);
                let what = "the question of";
                questions.push(receive_batch(channel, plan, index, batch, &widths, what)?);
            }
            for (&index, questions) in round.activations.iter().zip(&questions) {
                let tables = &self.tables;
                let answers: Vec<Elements> = self
                    .items
                    .par_iter_mut()
                    .zip(questions)
                    .map(|(item, question)| item.answer(plan, tables, index, question))
                    .collect::<Result<_, _>>()?;
                let ring = plan.steps[index].ring;
                let words = answers.iter().map(|a| a.as_slice());
                send_batch(channel, plan, index, words, &[ring], "the answer to")?;
            }
        }
        let output = plan.output.index();
        let ring = plan.steps[output].ring;
        let mut values = receive_batch(channel, plan, output, batch, &[ring], "the output")?;
        for (item, words) in self.items.iter_mut().zip(&mut values) {
            let mask = item.output.take().ok_or_else(|| missing(output))?;
            words
                .iter_mut()
                .zip(&mask.data)
                .for_each(|(w, m)| *w = w.wrapping_sub(*m) & low_mask(ring));
        }
        let shape = &plan.steps[output].shape;
        Ok(values.into_iter().map(|data| Tensor::new(shape.clone(), data)).collect())
    }
}

impl<M: Party1Material> Item<M> {
    fn new(plan: &Plan, mut material: M) -> Result<Self, Error> {
        let mut activations: Vec<_> = plan.steps.iter().map(|_| None).collect();
        let (mut input, mut output) = (None, None);
        let keep = |mask: &Tensor<u64>| SecretTensor::new(mask.clone());
        masks::walk(
            plan,
            |step| material.mask(step),
            |index, operands, mask| {
                if index == 0 {
                    input = Some(keep(mask));
                }
                if plan.steps[index].op.is_activation() {
                    activations[index] = Some((keep(operands[0]), keep(mask)));
                }
                if index == plan.output.index() {
                    output = Some(keep(mask));
                }
                Ok::<_, MaterialError>(())
            },
        )?;
        Ok(Self { material, input, output, activations })
    }

    fn answer(
        &mut self,
        plan: &Plan,
        tables: &Tables,
        index: usize,
        question: &[u64],
    ) -> Result<Elements, Error> {
        let step = &plan.steps[index];
        let (mask, fresh) = self.activations[index].take().ok_or_else(|| missing(index))?;
        let mut share = match &step.op {
            StepOp::Phase(phase) => {
                let tables = tables.of(index).ok_or_else(|| missing(index))?;
                phase::party1_share(phase, tables, question, self.material.phase(index)?)
            }
            StepOp::Square(square) => {
                square::party1_share(square, &mask.data, question, self.material.square(index)?)
            }
            StepOp::Polynomial { square, degree } => {
                let shares = self.material.polynomial(index)?;
                polynomial::party1_share(square, *degree, &mask.data, question, shares)
            }
            _ => return Err(missing(index)),
        };
        add(&mut share, &fresh.data, step.ring);
        Ok(share)
    }
}

/// `words += summand` in the ring of `ring` bits.
fn add(words: &mut [u64], summand: &[u64], ring: u32) {
    words.iter_mut().zip(summand).for_each(|(w, s)| *w = w.wrapping_add(*s) & low_mask(ring));
}

fn missing(step: usize) -> Error {
    Error::Internal(format!("the value of step v{step} is not there"))
}

fn operand<'v>(plan: &Plan, index: usize, values: &'v [Option<Batch>]) -> Result<&'v Batch, Error> {
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

fn release(
    plan: &Plan,
    index: usize,
    moment: usize,
    last_use: &[usize],
    values: &mut [Option<Batch>],
) {
    for operand in &plan.steps[index].operands {
        if last_use[operand.index()] == moment {
            values[operand.index()] = None;
        }
    }
}
