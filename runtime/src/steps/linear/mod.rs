//! Steps with secret weights.
//!
//! Offline the parties share `W·r` of the operand's mask `r`: party 0 has `s₀`, party 1 has
//! `m = W·r − s₀`, which is its mask of the result. Online party 0 computes `Δ_y = W·Δ_z + b − s₀`.
//! Convolutions and matrix products are made by encryption ([`crate::preprocess::rlwe`]), products with
//! factors by transfers ([`hadamard`]).

pub mod hadamard;

use super::Dealing;
use crate::Error;
use crate::layout::{computed, pattern, to_online};
use crate::preprocess::item::Party0Item;
use crate::secret::Elements;
use crate::words::{Words, WordsMut, each_slice};
use ir::Tensor;
use ir::plan::{Linear, Step, StepOp, StepWeights};
use ir::ring::{low_mask, pack};
use ir::word::Word;
use rayon::prelude::*;
use zeroize::Zeroizing;

/// The ideal functionality: `s₀ = W·r − m` for the operands' masks `r` and party 1's share `m`.
pub fn share(
    step: &Step,
    weights: &StepWeights,
    masks: &[&Tensor<u64>],
    m: &Tensor<u64>,
) -> Elements {
    let mut s0 = Zeroizing::new(step.apply(weights, masks).data);
    let ring = low_mask(step.ring);
    s0.iter_mut().zip(&m.data).for_each(|(s, m)| *s = s.wrapping_sub(*m) & ring);
    s0
}

/// Party 0's field of a dealt correlation, packed.
pub fn deal(dealing: &Dealing<'_>, masks: &[&Tensor<u64>], m: &Tensor<u64>) -> Vec<u8> {
    let step = &dealing.plan.steps[dealing.index];
    pack(&share(step, dealing.secrets, masks, m), step.ring)
}

/// Bias less the share `s₀` for a batch, to which the products are added, in the order in which the step is
/// computed ([`computed`]).
pub fn record0(
    step: &Step,
    secrets: &StepWeights,
    index: usize,
    items: &mut [Party0Item<'_>],
) -> Result<Zeroizing<Words>, Error> {
    let all = step.shape.elements() * items.len();
    let mut value = Zeroizing::new(Words::zeros(step.ring, all));
    let bias = bias(step, secrets);
    let rooms = value.part_mut(0..all).chunks(step.shape.elements());
    let mut work: Vec<(_, WordsMut<'_>)> = items.iter_mut().zip(rooms).collect();
    work.par_iter_mut().try_for_each(|(item, share)| {
        item.take(index)?.field(0, &computed(step), 1, share.borrow())?;
        each_slice!(WordsMut, share, share => {
            let mask = Word::low(low_mask(step.ring));
            share.chunks_mut(bias.len()).for_each(|share| {
                let pairs = share.iter_mut().zip(bias.iter());
                pairs.for_each(|(s, b)| *s = Word::and(Word::minus(Word::low(*b), *s), mask));
            });
        });
        Ok::<_, Error>(())
    })?;
    drop(work);
    Ok(value)
}

/// The bias in the order in which the step is computed; it repeats.
fn bias(step: &Step, secrets: &StepWeights) -> Zeroizing<Vec<u64>> {
    const SHORTEST: usize = 512;
    Zeroizing::new(match secrets {
        StepWeights::Linear { bias, .. } if bias.len() == step.shape.elements() => {
            to_online(&computed(step), 1, bias)
        }
        StepWeights::Linear { bias, .. } if !bias.is_empty() => match step.op {
            StepOp::Linear(Linear::MatrixProduct { .. }) => {
                bias.repeat(SHORTEST.div_ceil(bias.len()))
            }
            _ => pattern(&step.shape, bias),
        },
        _ => vec![0; SHORTEST],
    })
}
