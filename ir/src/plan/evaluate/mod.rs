//! The exact evaluator: the plan's integer arithmetic in the clear.
//!
//! In activations each truncation of the protocol is exact to one unit: it adds a carry that depends on the
//! masks. A linear result is what the two parties compute, or in less than one case of a hundred a unit beside
//! it, if no dealer made their correlations. [`Rounding::Nearest`] rounds instead, which is within one unit of
//! either outcome of the carry, and moves nothing; [`Rounding::Sampled`] draws the masks' low bits, the rounding of
//! the cosine tables and the linear results that are off as the protocol does, which shows the noise that a run has.

mod coins;
mod noise;
mod phase;

pub use noise::{CarryNoise, NoiseTally, carry_noise, run_rounding};
pub use phase::{PhaseTables, phase_error};

use super::formula::truncated;
use super::{Plan, Square, Step, StepOp, StepWeights, Weights};
use crate::op::convolution::matrix_product_ring;
use crate::ring::{low_mask, to_signed};
use crate::tensor::Tensor;
use coins::{Coins, mix};
use phase::{SampledPhase, phase_index, phase_row};
use rayon::prelude::*;
use std::sync::OnceLock;

/// What becomes of the bits that a truncation drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Round to nearest: deterministic.
    Nearest,
    /// Draw carries from this seed, as a run would from its masks. A simulation: nothing secret.
    Sampled(u64),
}

/// A plan with its weights, ready to evaluate.
pub struct Evaluator<'a> {
    plan: &'a Plan,
    weights: &'a Weights,
    /// Per phase step: the value of every phase, a row per channel or one for all.
    phases: Vec<Option<Vec<Vec<u64>>>>,
    /// Per phase step: the protocol's tables, made when carries are first drawn.
    sampled: Vec<OnceLock<SampledPhase>>,
    /// Per step the share of results that are a unit off, found when carries are first drawn.
    off_by_one: Vec<OnceLock<f64>>,
    last_use: Vec<usize>,
}

impl<'a> Evaluator<'a> {
    /// Prepares the tables.
    pub fn new(plan: &'a Plan, weights: &'a Weights) -> Self {
        let phases = plan.steps.iter().zip(&weights.steps).map(|(step, secrets)| {
            let (StepOp::Phase(phase), StepWeights::Phase { constant, harmonics }) =
                (&step.op, secrets)
            else {
                return None;
            };
            let rows = constant.len().max(harmonics.len());
            Some(
                (0..rows)
                    .map(|row| phase_row(phase, step.ring, constant, harmonics, row))
                    .collect(),
            )
        });
        let sampled = plan.steps.iter().map(|_| OnceLock::new()).collect();
        let off_by_one = plan.steps.iter().map(|_| OnceLock::new()).collect();
        let mut last_use = vec![0; plan.steps.len()];
        for (index, step) in plan.steps.iter().enumerate() {
            for operand in &step.operands {
                last_use[operand.index()] = index;
            }
        }
        last_use[plan.output.index()] = usize::MAX;
        Self { plan, weights, phases: phases.collect(), sampled, off_by_one, last_use }
    }

    /// The output's ring elements for an encoded input. `observe` sees the index and the value of every
    /// step as it is made.
    pub fn run(
        &self,
        input: &Tensor<u64>,
        rounding: Rounding,
        mut observe: impl FnMut(usize, &Tensor<u64>),
    ) -> Tensor<u64> {
        let mut coins = Coins::new(rounding);
        let mut values: Vec<Option<Tensor<u64>>> = vec![None; self.plan.steps.len()];
        for (index, step) in self.plan.steps.iter().enumerate() {
            let value = if index == 0 {
                input.clone()
            } else {
                let operands: Vec<&Tensor<u64>> =
                    step.operands.iter().filter_map(|o| values[o.index()].as_ref()).collect();
                self.step(index, step, &operands, &mut coins)
            };
            observe(index, &value);
            values[index] = Some(value);
            for operand in &step.operands {
                if self.last_use[operand.index()] == index {
                    values[operand.index()] = None;
                }
            }
        }
        values[self.plan.output.index()].take().unwrap_or_else(|| input.clone())
    }

    /// The decoded outputs of a batch of encoded inputs, in parallel.
    pub fn run_batch(&self, inputs: &[Tensor<u64>], rounding: Rounding) -> Vec<Tensor<f32>> {
        let run = |(i, x): (usize, &Tensor<u64>)| {
            let rounding = match rounding {
                Rounding::Nearest => Rounding::Nearest,
                Rounding::Sampled(seed) => Rounding::Sampled(mix(seed ^ mix(i as u64))),
            };
            self.plan.decode_output(&self.run(x, rounding, |_, _| ()))
        };
        inputs.par_iter().enumerate().map(run).collect()
    }

    fn step(
        &self,
        index: usize,
        step: &Step,
        operands: &[&Tensor<u64>],
        coins: &mut Coins,
    ) -> Tensor<u64> {
        let mask = low_mask(step.ring);
        let secrets = &self.weights.steps[index];
        match &step.op {
            StepOp::Phase(phase) => {
                let Some(tables) = &self.phases[index] else { unreachable!("checked at load") };
                let y = operands[0];
                let k = self.plan.step(step.operands[0]).ring;
                let sampled = coins
                    .sampled()
                    .then(|| self.sampled[index].get_or_init(|| SampledPhase::new(phase, secrets)));
                let stride = step.shape.channel_stride();
                let mut data = Vec::with_capacity(y.data.len());
                for (block, run) in y.data.chunks_exact(stride).enumerate() {
                    let channel = block % step.shape.channels();
                    let table = per_channel(tables, channel);
                    data.extend(run.iter().map(|&y| {
                        let phase_index = phase_index(y, k, phase, coins);
                        match sampled {
                            Some(sampled) => sampled.value(channel, phase_index, coins) & mask,
                            None => table[phase_index as usize],
                        }
                    }));
                }
                Tensor::new(step.shape.clone(), data)
            }
            StepOp::Square(square) => {
                let k = self.plan.step(step.operands[0]).ring;
                let StepWeights::Square { constant } = secrets else {
                    unreachable!("checked at load")
                };
                let data = operands[0].data.iter().enumerate().map(|(i, &y)| {
                    let y = truncate_signed(y, k, square.t, coins);
                    let c = *per_channel(constant, step.shape.channel_of(i));
                    let z = (y as i128 * y as i128 + c as i128) as u128;
                    shift_ring(z, square, coins)
                });
                Tensor::new(step.shape.clone(), data.collect())
            }
            StepOp::Polynomial { square, .. } => {
                let k = self.plan.step(step.operands[0]).ring;
                let StepWeights::Polynomial { coefficients } = secrets else {
                    unreachable!("checked at load")
                };
                let data = operands[0].data.iter().enumerate().map(|(i, &y)| {
                    let y = truncate_signed(y, k, square.t, coins) as i128;
                    let coefficients = per_channel(coefficients, step.shape.channel_of(i));
                    let z = coefficients
                        .iter()
                        .rev()
                        .fold(0i128, |acc, &c| acc.wrapping_mul(y).wrapping_add(c));
                    shift_ring(z as u128, square, coins)
                });
                Tensor::new(step.shape.clone(), data.collect())
            }
            StepOp::Rescale { shift } => {
                let k = step.ring + shift;
                let data = operands[0]
                    .data
                    .iter()
                    .map(|&y| truncate_signed(y, k, *shift, coins) as u64 & mask);
                Tensor::new(step.shape.clone(), data.collect())
            }
            StepOp::Constant => {
                let StepWeights::Constant(v) = secrets else { unreachable!("checked at load") };
                Tensor::new(step.shape.clone(), v.iter().map(|v| v & mask).collect())
            }
            _ => {
                let mut y = step.apply_linear(secrets, operands);
                step.add_bias(secrets, &mut y);
                if coins.sampled() {
                    self.move_some(index, &mut y, coins.apart(index));
                }
                y
            }
        }
    }

    /// Moves as many results of a linear step by a unit as the parties' roundings do.
    fn move_some(&self, index: usize, y: &mut Tensor<u64>, mut coins: Coins) {
        let rate = *self.off_by_one[index].get_or_init(|| self.plan.off_by_one(index));
        if rate == 0.0 {
            return;
        }
        let mask = low_mask(self.plan.steps[index].ring);
        let half = (rate / 2.0 * 64f64.exp2()) as u64;
        for v in &mut y.data {
            let draw = coins.draw();
            let up = u64::from(draw < half);
            let down = u64::from(draw > u64::MAX - half);
            *v = v.wrapping_add(up).wrapping_sub(down) & mask;
        }
    }
}

impl Step {
    /// The linear part of a local step on ring elements, shares or masks, all alike: no bias, reduced
    /// to the step's ring. `Rescale`, constants and activations are not linear.
    ///
    /// # Panics
    /// If called for a step that is not linear, or with secrets of another step.
    pub fn apply_linear(&self, secrets: &StepWeights, operands: &[&Tensor<u64>]) -> Tensor<u64> {
        let mask = low_mask(self.ring);
        let weights = match secrets {
            StepWeights::Linear { weights, .. } => weights.as_slice(),
            _ => &[],
        };
        let x = operands[0];
        let mut y = match &self.op {
            StepOp::Convolution { geometry, .. } => {
                let data = geometry.apply_ring(weights, &x.data, &x.shape, &self.shape, self.ring);
                return Tensor::new(self.shape.clone(), data);
            }
            StepOp::MatrixProduct { .. } => {
                let inputs = x.shape.0.last().copied().unwrap_or(1);
                let data = matrix_product_ring(weights, &x.data, inputs, self.ring);
                return Tensor::new(self.shape.clone(), data);
            }
            StepOp::Diagonal { .. } => {
                let products =
                    x.data.iter().zip(weights).map(|(&v, &w)| v.wrapping_mul(w as i64 as u64));
                Tensor::new(self.shape.clone(), products.collect())
            }
            StepOp::Add => x.add(operands[1]),
            StepOp::Scale { factor } => x.map(|v| v.wrapping_mul(*factor as u64)),
            StepOp::SumWindows { kernel, stride } => x.sum_windows(*kernel, *stride),
            StepOp::SumAxes { axes } => x.sum_axes(axes),
            StepOp::Reshape => x.clone().reshape(self.shape.clone()),
            StepOp::Transpose { permutation } => x.transpose(permutation),
            StepOp::Take { axis, indices } => x.take(*axis, indices),
            StepOp::Concat { axis } => Tensor::concat(operands, *axis),
            StepOp::Input
            | StepOp::Constant
            | StepOp::Rescale { .. }
            | StepOp::Phase(_)
            | StepOp::Square(_)
            | StepOp::Polynomial { .. } => unreachable!("{} is not linear", self.op.name()),
        };
        y.data.iter_mut().for_each(|v| *v &= mask);
        y
    }

    /// Adds the bias of a step with secret weights; nothing for other steps.
    pub fn add_bias(&self, secrets: &StepWeights, y: &mut Tensor<u64>) {
        let StepWeights::Linear { bias, .. } = secrets else { return };
        let mask = low_mask(self.ring);
        if bias.len() == y.data.len() {
            y.data.iter_mut().zip(bias).for_each(|(v, b)| *v = v.wrapping_add(*b) & mask);
            return;
        }
        let run = match self.op {
            StepOp::MatrixProduct { .. } => 1,
            _ => self.shape.channel_stride(),
        };
        for (i, chunk) in y.data.chunks_exact_mut(run).enumerate() {
            let b = bias[i % bias.len()];
            chunk.iter_mut().for_each(|v| *v = v.wrapping_add(b) & mask);
        }
    }
}

/// `y >> t` with a carry, for a signed `y` of `k` bits.
fn truncate_signed(y: u64, k: u32, t: u32, coins: &mut Coins) -> i64 {
    let y = to_signed(y, k);
    if t == 0 { y } else { truncated(y, coins.low(t) as i64, t) }
}

/// `z >> shift` with a carry, mod `2^(q − shift)`.
fn shift_ring(z: u128, square: &Square, coins: &mut Coins) -> u64 {
    let low = if square.shift == 0 {
        0
    } else if square.shift > 63 {
        u128::from(coins.low(63)) << (square.shift - 63)
    } else {
        u128::from(coins.low(square.shift))
    };
    (z.wrapping_add(low) >> square.shift) as u64 & low_mask(square.q - square.shift)
}

/// The entry of a channel, where one entry stands for all.
pub fn per_channel<T>(rows: &[T], channel: usize) -> &T {
    if rows.len() == 1 { &rows[0] } else { &rows[channel] }
}
