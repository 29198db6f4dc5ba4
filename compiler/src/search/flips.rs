//! The accuracy that errors of the outputs cost, estimated finely enough for tenths of points on a few
//! hundred inputs.
//!
//! A count of changed classes moves in steps of one input, and two plans that are fitted alike disagree on
//! more inputs than either loses. The difference between a plan's outputs and the network's in float is
//! noise that knows little of the input but how decided its outputs are. So every input is tried with many
//! differences, those of inputs of about its margin: the share of right classes over all pairs depends on how
//! large differences are, and not on which input met which. Differences are measured on inputs that no fit has
//! seen, where they are larger; the inputs that they are tried on may be any.

use crate::evaluate::class;
use rayon::prelude::*;

/// Outputs, per input.
pub type Outputs = Vec<Vec<f32>>;

/// An input meets this share of the differences, and so many at least.
const NEIGHBOURS: f64 = 0.2;
const LEAST_NEIGHBOURS: usize = 20;

/// Differences between outputs, by the margin of the exact ones.
pub struct Differences {
    /// Margins, rising.
    margins: Vec<f32>,
    differences: Outputs,
}

impl Differences {
    /// Of some inputs' `noisy` outputs from their `exact` ones; the former may be several rounds of the
    /// latter's inputs.
    pub fn new(exact: &Outputs, noisy: &Outputs) -> Self {
        let mut all: Vec<(f32, Vec<f32>)> = exact
            .iter()
            .cycle()
            .zip(noisy)
            .map(|(exact, noisy)| {
                (margin(exact), noisy.iter().zip(exact).map(|(n, e)| n - e).collect())
            })
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (margins, differences) = all.into_iter().unzip();
        Self { margins, differences }
    }

    /// The share of right classes to expect of outputs that differ so from the `exact` ones; `targets` are the
    /// right classes.
    pub fn expected_accuracy(&self, exact: &Outputs, targets: &[usize]) -> f64 {
        let all = self.differences.len();
        let count = ((NEIGHBOURS * all as f64) as usize).max(LEAST_NEIGHBOURS).min(all);
        let right = |(output, &target): (&Vec<f32>, &usize)| {
            let own = margin(output);
            let rank = self.margins.partition_point(|&margin| margin < own);
            let first = rank.saturating_sub(count / 2).min(all - count);
            let mut sum = output.clone();
            let is_right = |difference: &&Vec<f32>| {
                let pairs = output.iter().zip(*difference);
                sum.iter_mut().zip(pairs).for_each(|(sum, (o, d))| *sum = o + d);
                class(&sum) == target
            };
            self.differences[first..first + count].iter().filter(is_right).count()
        };
        let right: usize = exact.par_iter().zip(targets).map(right).sum();
        right as f64 / (exact.len() * count).max(1) as f64
    }
}

/// By how much an output's class is ahead of the next.
fn margin(output: &[f32]) -> f32 {
    let top = class(output);
    match output {
        [single] => single.abs(),
        many => {
            let others = many.iter().enumerate().filter(|(i, _)| *i != top);
            many[top] - others.fold(f32::NEG_INFINITY, |most, (_, &v)| most.max(v))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Margins are uniform, noise is uniform: the share of flips is known.
    #[test]
    fn the_estimate_is_the_expectation() {
        let n = 400;
        let margin = |i: usize| i as f32 / n as f32;
        let exact: Outputs = (0..n).map(|i| vec![margin(i), 0.0]).collect();
        let shuffled = |i: usize| ((i * 157) % n) as f32 / n as f32;
        let noisy: Outputs =
            (0..n).map(|i| vec![margin(i), 0.1 * (2.0 * shuffled(i) - 1.0)]).collect();
        let differences = Differences::new(&exact, &noisy);
        // A margin m < 0.1 flips with probability (0.1 − m)/0.2: 2.5% in all.
        let accuracy = differences.expected_accuracy(&exact, &vec![0; n]);
        assert!((accuracy - 0.975).abs() < 0.004, "{accuracy}");
        let none = Differences::new(&exact, &exact);
        assert_eq!(none.expected_accuracy(&exact, &vec![0; n]), 1.0);
        // Where the right class is behind as often as not, noise wins what it loses.
        let targets: Vec<usize> = (0..n).map(|i| i % 2).collect();
        let accuracy = differences.expected_accuracy(&exact, &targets);
        assert!((accuracy - 0.5).abs() < 0.004, "{accuracy}");
        // Two rounds of the same inputs are twice the differences.
        let twice = Differences::new(&exact, &noisy.repeat(2));
        assert_eq!(twice.differences.len(), 2 * n);
    }
}
