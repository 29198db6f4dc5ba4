//! The noise of carries, measured.

use super::coins::mix;
use super::{Evaluator, Rounding};
use crate::plan::Plan;
use crate::ring::{low_mask, to_signed};
use crate::tensor::Tensor;
use rayon::prelude::*;

/// How far carries move the values of a plan.
#[derive(Clone, Debug)]
pub struct CarryNoise {
    /// The largest standard deviation of any output over the inputs tried, in units of the output.
    pub deviation: f64,
    /// What a run's output is expected to stay within, of the evaluator's: eight deviations and one
    /// unit in the last place.
    pub bound: f64,
    /// Per interactive step: its index, and the deviation of a sampled value from the rounded one over
    /// the standard deviation of the step's values.
    pub steps: Vec<(usize, f64)>,
}

/// Measures the noise of carries on a few inputs with `rounds` sampled evaluations each.
pub fn carry_noise(evaluator: &Evaluator<'_>, inputs: &[Tensor<u64>], rounds: usize) -> CarryNoise {
    let tallies: Vec<NoiseTally> = inputs
        .par_iter()
        .enumerate()
        .map(|(i, x)| NoiseTally::of(evaluator, x, i, rounds))
        .collect();
    NoiseTally::finish(evaluator.plan, &tallies)
}

/// Ring elements in as few bytes as their ring needs: those of all interactive steps are kept at once.
enum Kept {
    Narrow(Vec<u16>),
    Middle(Vec<u32>),
    Wide(Vec<u64>),
}

impl Kept {
    fn new(elements: &[u64], ring: u32) -> Self {
        match ring {
            0..=16 => Self::Narrow(elements.iter().map(|&v| v as u16).collect()),
            17..=32 => Self::Middle(elements.iter().map(|&v| v as u32).collect()),
            _ => Self::Wide(elements.to_vec()),
        }
    }

    fn elements(&self) -> Box<dyn Iterator<Item = u64> + '_> {
        match self {
            Self::Narrow(elements) => Box::new(elements.iter().map(|&v| u64::from(v))),
            Self::Middle(elements) => Box::new(elements.iter().map(|&v| u64::from(v))),
            Self::Wide(elements) => Box::new(elements.iter().copied()),
        }
    }
}

/// The coins of a simulated run: others for every input and every round.
pub fn run_rounding(input: usize, round: usize) -> Rounding {
    Rounding::Sampled(mix(round as u64 ^ mix(input as u64)))
}

/// What carries did to the evaluations of one input.
pub struct NoiseTally {
    /// The decoded output of the rounded evaluation.
    pub rounded: Tensor<f32>,
    /// Those of the sampled ones.
    pub sampled: Vec<Tensor<f32>>,
    /// The largest mean square of an output's error.
    worst: f64,
    steps: Vec<StepTally>,
}

/// Sums over the values of one interactive step.
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
    /// Evaluates an input once rounded and `rounds` times sampled, by [`run_rounding`] of `index`.
    pub fn of(evaluator: &Evaluator<'_>, input: &Tensor<u64>, index: usize, rounds: usize) -> Self {
        let plan = evaluator.plan;
        let mut rounded: Vec<(usize, Kept)> = Vec::new();
        let nearest =
            plan.decode_output(&evaluator.run(input, Rounding::Nearest, |step, value| {
                if plan.steps[step].op.is_interactive() {
                    rounded.push((step, Kept::new(&value.data, plan.steps[step].ring)));
                }
            }));
        let tally = |(step, value): &(usize, Kept)| {
            let ring = plan.steps[*step].ring;
            let mut tally = StepTally { step: *step, ..StepTally::default() };
            for v in value.elements() {
                let v = to_signed(v, ring) as f64;
                tally.count += 1.0;
                tally.sum += v;
                tally.squares += v * v;
            }
            tally
        };
        let mut steps: Vec<StepTally> = rounded.iter().map(tally).collect();
        let mut squares = vec![0.0; nearest.data.len()];
        let mut outputs = Vec::with_capacity(rounds);
        for round in 0..rounds {
            let mut position = 0;
            let coins = run_rounding(index, round);
            let sampled = plan.decode_output(&evaluator.run(input, coins, |step, value| {
                if !plan.steps[step].op.is_interactive() {
                    return;
                }
                let (ring, before) = (plan.steps[step].ring, &rounded[position].1);
                let errors = value.data.iter().zip(before.elements()).map(|(a, b)| {
                    let error = to_signed(a.wrapping_sub(b) & low_mask(ring), ring) as f64;
                    error * error / rounds as f64
                });
                steps[position].errors += errors.sum::<f64>();
                position += 1;
            }));
            for ((s, a), b) in squares.iter_mut().zip(&sampled.data).zip(&nearest.data) {
                *s += f64::from(a - b).powi(2);
            }
            outputs.push(sampled);
        }
        let worst = squares.into_iter().fold(0.0, f64::max) / rounds.max(1) as f64;
        Self { rounded: nearest, sampled: outputs, worst, steps }
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
