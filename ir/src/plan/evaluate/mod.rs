//! The exact evaluator: the plan's integer arithmetic in the clear.
//!
//! In interactive steps each truncation of the protocol is exact to one unit: it adds a carry that depends on the
//! masks. A linear result is what the two parties compute, or in less than one case of a hundred a unit beside
//! it, if no dealer made their correlations. [`Rounding::Nearest`] rounds instead, which is within one unit of
//! either outcome of the carry, and moves nothing; [`Rounding::Sampled`] draws the masks' low bits, the rounding of
//! the cosine tables and the linear results that are off as the protocol does, which shows the noise that a run has.

mod coins;
mod noise;

pub use coins::Coins;
pub use noise::{CarryNoise, NoiseTally, carry_noise, run_rounding};

use super::formula::{evaluated_phase, truncated};
use super::{Exact, Plan, Step, StepOp, StepWeights, Weights};
use crate::ring::{low_mask, to_signed};
use crate::tensor::Tensor;
use coins::mix;
use rayon::prelude::*;
use std::sync::OnceLock;

/// How truncations round.
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
    /// Per interactive step its exact meaning.
    exact: Vec<Option<Box<dyn Exact + 'a>>>,
    /// Per step the share of results that are a unit off, found when carries are first drawn.
    off_by_one: Vec<OnceLock<f64>>,
    last_use: Vec<usize>,
}

impl<'a> Evaluator<'a> {
    /// Prepares the tables.
    pub fn new(plan: &'a Plan, weights: &'a Weights) -> Self {
        let exact = plan.steps.iter().zip(&weights.steps).map(|(step, secrets)| {
            let kind = step.op.interactive()?;
            let rings: Vec<u32> = step.operands.iter().map(|&o| plan.step(o).ring).collect();
            Some(kind.protocol().exact(step, &rings, secrets))
        });
        let exact = exact.collect();
        let off_by_one = plan.steps.iter().map(|_| OnceLock::new()).collect();
        let mut last_use = vec![0; plan.steps.len()];
        for (index, step) in plan.steps.iter().enumerate() {
            for operand in &step.operands {
                last_use[operand.index()] = index;
            }
        }
        last_use[plan.output.index()] = usize::MAX;
        Self { plan, weights, exact, off_by_one, last_use }
    }

    /// The output's ring elements for an encoded input. `observe` sees the index and the value of every
    /// step as it is computed.
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
        let secrets = &self.weights.steps[index];
        match (&step.op, secrets, &self.exact[index]) {
            (StepOp::Interactive(_), _, Some(exact)) => exact.value(operands, coins),
            (StepOp::Constant, StepWeights::Constant(values), _) => {
                let mask = low_mask(step.ring);
                Tensor::new(step.shape.clone(), values.iter().map(|v| v & mask).collect())
            }
            (StepOp::Local(kind), ..) => kind.value(step, operands, coins),
            (StepOp::Linear(_), ..) => {
                let mut y = step.apply(secrets, operands);
                step.add_bias(secrets, &mut y);
                if coins.sampled() {
                    self.move_some(index, &mut y, coins.apart(index));
                }
                y
            }
            (StepOp::Input | StepOp::Constant | StepOp::Interactive(_), ..) => {
                unreachable!("checked at load")
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

/// `y >> t` with a carry, for a signed `y` of `k` bits.
pub(super) fn truncate_signed(y: u64, k: u32, t: u32, coins: &mut Coins) -> i64 {
    let y = to_signed(y, k);
    if t == 0 { y } else { truncated(y, coins.low(t) as i64, t) }
}

/// The number, of `p + spare` bits, at which a function of the phase of a `y` of `k` bits is evaluated: the top `p` bits
/// of `y + m` less the top bits of a mask `m`; or the nearest one.
pub(super) fn evaluated_index(y: u64, k: u32, (p, spare): (u32, u32), coins: &mut Coins) -> u64 {
    let dropped = k - p;
    let finest = dropped - spare;
    let index = if dropped == 0 {
        y
    } else if coins.sampled() {
        evaluated_phase(y, coins.low(dropped), spare, finest)
    } else {
        // In halves of a step: half a step up, and what the centre adds down.
        let up = (2i128 << finest) - (1i128 << (spare + finest));
        ((2 * i128::from(y) + up) >> (finest + 1)) as u64
    };
    index & low_mask(p + spare)
}

/// The entry of a channel; a single entry is for all channels.
pub fn per_channel<T>(rows: &[T], channel: usize) -> &T {
    if rows.len() == 1 { &rows[0] } else { &rows[channel] }
}
