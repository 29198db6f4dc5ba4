//! The exact evaluator: the plan's integer arithmetic in the clear.
//!
//! Linear steps are what the two parties compute, bit for bit. In activations each truncation of the
//! protocol is exact to one unit: it adds a carry that depends on the masks. [`Rounding::Nearest`]
//! rounds instead, which is within one unit of either outcome of the carry; [`Rounding::Sampled`]
//! draws the masks' low bits and the rounding of the cosine tables as the protocol does, which shows
//! the noise that a run has.

use super::{Phase, Plan, Square, Step, StepOp, StepWeights, Weights};
use crate::op::convolution::matrix_product_ring;
use crate::ring::{low_mask, to_signed};
use crate::tensor::Tensor;
use rayon::prelude::*;
use std::f64::consts::TAU;
use std::sync::OnceLock;

/// What becomes of the bits that a truncation drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Round to nearest: deterministic.
    Nearest,
    /// Draw carries from this seed, as a run would from its masks. A simulation: nothing secret.
    Sampled(u64),
}

/// Cosines and sines of the `2^p` phases at a power-of-two scale.
pub struct PhaseTables {
    /// `round(cos(2πn·i/2^p)·2^bits)` for harmonic n − 1 and phase i.
    pub cos: Vec<Vec<i64>>,
    /// Likewise for the sine.
    pub sin: Vec<Vec<i64>>,
}

impl PhaseTables {
    /// Tables for `harmonics` harmonics of `p`-bit phases at scale `2^bits`.
    pub fn new(p: u32, harmonics: u32, bits: u32) -> Self {
        let scale = f64::from(bits).exp2();
        let table = |f: fn(f64) -> f64| {
            (1..=u64::from(harmonics))
                .map(|n| {
                    (0..1u64 << p)
                        .map(|i| {
                            let phase = (n * i) & low_mask(p);
                            (f(TAU * phase as f64 / f64::from(p).exp2()) * scale).round() as i64
                        })
                        .collect()
                })
                .collect()
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }
}

/// A plan with its weights, ready to evaluate.
pub struct Evaluator<'a> {
    plan: &'a Plan,
    weights: &'a Weights,
    /// Per phase step: the value of every phase, a row per channel or one for all.
    phases: Vec<Option<Vec<Vec<u64>>>>,
    /// Per phase step: the protocol's tables, made when carries are first drawn.
    sampled: Vec<OnceLock<SampledPhase>>,
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
        let mut last_use = vec![0; plan.steps.len()];
        for (index, step) in plan.steps.iter().enumerate() {
            for operand in &step.operands {
                last_use[operand.index()] = index;
            }
        }
        last_use[plan.output.index()] = usize::MAX;
        Self { plan, weights, phases: phases.collect(), sampled, last_use }
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
                        let phase_index = phase_index(y, k, phase.p, coins);
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
                y
            }
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

/// How far carries move the values of a plan.
#[derive(Clone, Debug)]
pub struct CarryNoise {
    /// The largest standard deviation of any output over the inputs tried, in units of the output.
    pub deviation: f64,
    /// What a run's output is expected to stay within, of the evaluator's: eight deviations and one
    /// unit in the last place.
    pub bound: f64,
    /// Per activation step: its index, and the deviation of a sampled value from the rounded one over
    /// the standard deviation of the step's values.
    pub steps: Vec<(usize, f64)>,
}

/// Measures the noise of carries on a few inputs with `rounds` sampled evaluations each.
pub fn carry_noise(evaluator: &Evaluator<'_>, inputs: &[Tensor<u64>], rounds: u64) -> CarryNoise {
    let tallies: Vec<NoiseTally> = inputs
        .par_iter()
        .enumerate()
        .map(|(i, x)| NoiseTally::of(evaluator, x, i as u64, rounds))
        .collect();
    NoiseTally::finish(evaluator.plan, &tallies)
}

/// What carries did to the evaluations of one input.
pub struct NoiseTally {
    /// The largest mean square of an output's error.
    worst: f64,
    steps: Vec<StepTally>,
}

/// Sums over the values of one activation step.
#[derive(Clone, Copy, Default)]
struct StepTally {
    step: usize,
    count: f64,
    sum: f64,
    squares: f64,
    /// Squared errors, a mean over the sampled evaluations.
    errors: f64,
}

impl NoiseTally {
    /// Evaluates an input once rounded and `rounds` times sampled; `index` sets the coins apart from
    /// those of other inputs.
    pub fn of(evaluator: &Evaluator<'_>, input: &Tensor<u64>, index: u64, rounds: u64) -> Self {
        let plan = evaluator.plan;
        let mut rounded: Vec<(usize, Tensor<u64>)> = Vec::new();
        let nearest =
            plan.decode_output(&evaluator.run(input, Rounding::Nearest, |step, value| {
                if plan.steps[step].op.is_activation() {
                    rounded.push((step, value.clone()));
                }
            }));
        let tally = |(step, value): &(usize, Tensor<u64>)| {
            let ring = plan.steps[*step].ring;
            let mut tally = StepTally { step: *step, ..StepTally::default() };
            for &v in &value.data {
                let v = to_signed(v, ring) as f64;
                tally.count += 1.0;
                tally.sum += v;
                tally.squares += v * v;
            }
            tally
        };
        let mut steps: Vec<StepTally> = rounded.iter().map(tally).collect();
        let mut squares = vec![0.0; nearest.data.len()];
        for round in 0..rounds {
            let mut position = 0;
            let coins = Rounding::Sampled(mix(round ^ mix(index)));
            let sampled = plan.decode_output(&evaluator.run(input, coins, |step, value| {
                if !plan.steps[step].op.is_activation() {
                    return;
                }
                let (ring, before) = (plan.steps[step].ring, &rounded[position].1);
                let errors = value.data.iter().zip(&before.data).map(|(a, b)| {
                    let error = to_signed(a.wrapping_sub(*b) & low_mask(ring), ring) as f64;
                    error * error / rounds as f64
                });
                steps[position].errors += errors.sum::<f64>();
                position += 1;
            }));
            for ((s, a), b) in squares.iter_mut().zip(&sampled.data).zip(&nearest.data) {
                *s += f64::from(a - b).powi(2);
            }
        }
        let worst = squares.into_iter().fold(0.0, f64::max) / rounds.max(1) as f64;
        Self { worst, steps }
    }

    /// What several inputs say together.
    pub fn finish(plan: &Plan, tallies: &[Self]) -> CarryNoise {
        let deviation = tallies.iter().map(|t| t.worst).fold(0.0, f64::max).sqrt();
        let mut steps: Vec<StepTally> = tallies.first().map_or(Vec::new(), |t| t.steps.clone());
        for tally in tallies.iter().skip(1) {
            for (sum, other) in steps.iter_mut().zip(&tally.steps) {
                sum.count += other.count;
                sum.sum += other.sum;
                sum.squares += other.squares;
                sum.errors += other.errors;
            }
        }
        let relative = |t: &StepTally| {
            let spread = (t.squares - t.sum * t.sum / t.count).max(0.0);
            (t.step, if spread > 0.0 { (t.errors / spread).sqrt() } else { 0.0 })
        };
        CarryNoise {
            deviation,
            bound: 8.0 * deviation + 1.0 / plan.output_scale,
            steps: steps.iter().map(relative).collect(),
        }
    }
}

/// The values of every phase: `round(c0 + Σ a_n cos + b_n sin) mod 2^k'`.
fn phase_row(
    phase: &Phase,
    ring: u32,
    constant: &[f64],
    harmonics: &[Vec<[f64; 2]>],
    channel: usize,
) -> Vec<u64> {
    let steps = f64::from(phase.p).exp2();
    (0..1u64 << phase.p)
        .map(|i| {
            let theta = TAU * i as f64 / steps;
            let terms = per_channel(harmonics, channel).iter().enumerate().map(|(n, [a, b])| {
                let (sin, cos) = (theta * (n + 1) as f64).sin_cos();
                a * cos + b * sin
            });
            let value = *per_channel(constant, channel) + terms.sum::<f64>();
            (value.round() as i64 as u64) & low_mask(ring)
        })
        .collect()
}

/// The phase that is evaluated: the top `p` bits of `y` plus what the dropped bits carry.
fn phase_index(y: u64, k: u32, p: u32, coins: &mut Coins) -> u64 {
    let dropped = k - p;
    let low = if dropped == 0 { 0 } else { coins.low(dropped) };
    (y.wrapping_add(low) & low_mask(k)) >> dropped
}

/// What the protocol computes of phases, rounded tables and truncation included.
struct SampledPhase {
    phase: Phase,
    /// Party 1's cosines and sines at scale `2^g2`, the public ones at `2^h`: per harmonic and phase.
    party1: Vec<Vec<(i64, i64)>>,
    public: Vec<Vec<(i64, i64)>>,
    /// `c0` before the truncation, per channel or one for all.
    constant: Vec<i64>,
    /// `α` and `β` per channel (or one for all), harmonic and party 0's mask.
    factors: Vec<Vec<Vec<(i64, i64)>>>,
}

impl SampledPhase {
    fn new(phase: &Phase, secrets: &StepWeights) -> Self {
        let StepWeights::Phase { constant, harmonics } = secrets else {
            unreachable!("checked at load")
        };
        let steps = 1u64 << phase.p;
        let turn = |n: usize, i: u64| {
            let turned = ((n as u64 + 1) * i) & low_mask(phase.p);
            (TAU * turned as f64 / steps as f64).sin_cos()
        };
        let table = |bits: u32| {
            let scale = f64::from(bits).exp2();
            let at = |n: usize, i: u64| {
                let (sin, cos) = turn(n, i);
                ((cos * scale).round() as i64, (sin * scale).round() as i64)
            };
            let orders = 0..phase.harmonics as usize;
            orders.map(|n| (0..steps).map(|i| at(n, i)).collect()).collect()
        };
        let scale = f64::from(phase.shift - phase.g2 - phase.h).exp2();
        let factors = |n: usize, [a, b]: [f64; 2]| {
            (0..steps)
                .map(|u| {
                    let (sin, cos) = turn(n, u);
                    let round = |v: f64| (v * scale).round() as i64;
                    (round(a * cos + b * sin), round(a * sin - b * cos))
                })
                .collect()
        };
        let row = |row: &Vec<[f64; 2]>| {
            row.iter().enumerate().map(|(n, pair)| factors(n, *pair)).collect()
        };
        let constant_scale = f64::from(phase.shift).exp2();
        Self {
            phase: *phase,
            party1: table(phase.g2),
            public: table(phase.h),
            constant: constant.iter().map(|c| (c * constant_scale).round() as i64).collect(),
            factors: harmonics.iter().map(row).collect(),
        }
    }

    fn value(&self, channel: usize, index: u64, coins: &mut Coins) -> u64 {
        let wrap = low_mask(self.phase.p);
        let (u, mask) = ((coins.draw() & wrap) as usize, (coins.draw() & wrap) as usize);
        let e = (index.wrapping_sub(u as u64).wrapping_add(mask as u64) & wrap) as usize;
        let mut z = *per_channel(&self.constant, channel);
        let orders = per_channel(&self.factors, channel).iter();
        for (factors, (party1, public)) in orders.zip(self.party1.iter().zip(&self.public)) {
            let ((alpha, beta), (c, s), (cos, sin)) = (factors[u], party1[mask], public[e]);
            let direct = alpha.wrapping_mul(c).wrapping_add(beta.wrapping_mul(s));
            let turned = alpha.wrapping_mul(s).wrapping_sub(beta.wrapping_mul(c));
            z = z.wrapping_add(cos.wrapping_mul(direct)).wrapping_add(sin.wrapping_mul(turned));
        }
        (z.wrapping_add(coins.low(self.phase.shift) as i64) >> self.phase.shift) as u64
    }
}

/// `y >> t` with a carry, for a signed `y` of `k` bits.
fn truncate_signed(y: u64, k: u32, t: u32, coins: &mut Coins) -> i64 {
    let y = to_signed(y, k);
    if t == 0 { y } else { y.wrapping_add(coins.low(t) as i64) >> t }
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

/// What is added before bits are dropped: half of them, or uniform low bits.
struct Coins {
    state: Option<u64>,
}

impl Coins {
    fn new(rounding: Rounding) -> Self {
        match rounding {
            Rounding::Nearest => Self { state: None },
            Rounding::Sampled(seed) => Self { state: Some(seed) },
        }
    }

    fn sampled(&self) -> bool {
        self.state.is_some()
    }

    fn low(&mut self, bits: u32) -> u64 {
        match self.state {
            None => 1 << (bits - 1),
            Some(_) => self.draw() & low_mask(bits),
        }
    }

    fn draw(&mut self) -> u64 {
        let state = self.state.get_or_insert(0);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(*state)
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): a simulation's randomness, never a protocol's.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
