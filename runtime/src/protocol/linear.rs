//! Steps without a message: linear ones with secret weights, and public ones.
//!
//! Offline the parties share `W·r` of the operand's mask `r`: party 0 has `s₀`, party 1 has
//! `m = W·r − s₀`, which is its mask of the result. Online party 0 computes `Δ_y = W·Δ_z + b − s₀`.
//! Public steps are applied by each party to what it holds.

use super::truncate;
use crate::secret::Elements;
use ir::Tensor;
use ir::plan::{Step, StepOp, StepWeights};
use ir::ring::low_mask;
use zeroize::Zeroizing;

/// The ideal functionality: `s₀ = W·r − m` for the operands' masks `r` and party 1's share `m`.
pub fn share(
    step: &Step,
    weights: &StepWeights,
    masks: &[&Tensor<u64>],
    m: &Tensor<u64>,
) -> Elements {
    let mut s0 = Zeroizing::new(step.apply_linear(weights, masks).data);
    let ring = low_mask(step.ring);
    s0.iter_mut().zip(&m.data).for_each(|(s, m)| *s = s.wrapping_sub(*m) & ring);
    s0
}

/// A public local step on one party's side, masked values or masks alike.
pub fn public(step: &Step, sides: &[&Tensor<u64>]) -> Tensor<u64> {
    match step.op {
        StepOp::Rescale { shift } => sides[0].map(|v| truncate::masked(v, step.ring, shift)),
        _ => step.apply_linear(&StepWeights::None, sides),
    }
}
