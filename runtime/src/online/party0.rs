//! Party 0: holds the masked value of every step.

use super::{Batch, add, missing, receive_batch, send_batch};
use crate::Error;
use crate::net::Channel;
use crate::offline::Party0Material;
use crate::protocol::phase::PhaseCorrelation;
use crate::protocol::polynomial::PolynomialCorrelation;
use crate::protocol::square::SquareCorrelation;
use crate::protocol::{linear, phase, polynomial, question_widths, square};
use crate::secret::{Elements, WideElements};
use crate::tables::Tables;
use ir::Tensor;
use ir::plan::{Plan, Round, StepOp, StepWeights, Weights};
use rayon::prelude::*;
use zeroize::Zeroizing;

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
