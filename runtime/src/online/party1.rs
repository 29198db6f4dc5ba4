//! Party 1: its masks are known before its input is.

use super::{Batch, add, missing, receive_batch, send_batch};
use crate::Error;
use crate::net::Channel;
use crate::offline::{MaterialError, Party1Material, masks};
use crate::protocol::{phase, polynomial, question_widths, square};
use crate::secret::{Elements, SecretTensor};
use crate::tables::Tables;
use ir::Tensor;
use ir::plan::{Plan, StepOp};
use ir::ring::low_mask;
use rayon::prelude::*;

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
