//! The accuracy that errors of the outputs cost, estimated finely enough for tenths of points on a few
//! hundred inputs.
//!
//! A count of changed classes moves in steps of one input, and whether the input was right before is
//! luck. Two things take the luck out. The difference between a plan's outputs and the network's in
//! float is noise that knows little of the input but how decided its outputs are: so every input is
//! tried with many differences, those of inputs of about its margin. And a change from one class to
//! another costs the difference of their probabilities, which the network's own outputs tell
//! ([`probabilities`]): near a margin of zero, a change loses as often as it wins. Differences are
//! measured on inputs that no fit has seen, where they are larger; the inputs that they are tried on
//! may be any.

use ir::plan::class;
use rayon::prelude::*;

/// Scores, per input or position: one per class, or one that is above zero for the second of two.
pub type Outputs = Vec<Vec<f32>>;

/// An input meets this share of the differences, and so many at least.
const NEIGHBOURS: f64 = 0.3;
const LEAST_NEIGHBOURS: usize = 20;

/// Temperatures that are tried: quarters of powers of two.
const TEMPERATURES: std::ops::RangeInclusive<i32> = -16..=24;

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

    /// The share of right classes to expect of outputs that differ so from the `exact` ones, with the
    /// probability of every class.
    pub fn expected_accuracy(&self, exact: &Outputs, probabilities: &Outputs) -> f64 {
        let all = self.differences.len();
        let count = ((NEIGHBOURS * all as f64) as usize).max(LEAST_NEIGHBOURS).min(all);
        let right = |(output, probabilities): (&Vec<f32>, &Vec<f32>)| -> f64 {
            let own = margin(output);
            let rank = self.margins.partition_point(|&margin| margin < own);
            let first = rank.saturating_sub(count / 2).min(all - count);
            let mut sum = output.clone();
            let right = |difference: &Vec<f32>| {
                let pairs = output.iter().zip(difference);
                sum.iter_mut().zip(pairs).for_each(|(sum, (o, d))| *sum = o + d);
                f64::from(probabilities[class(&sum)])
            };
            self.differences[first..first + count].iter().map(right).sum()
        };
        let right: f64 = exact.par_iter().zip(probabilities).map(right).sum();
        right / (exact.len() * count).max(1) as f64
    }
}

/// The probability of every class of every input. With labels, a softmax of the outputs at the
/// temperature that makes the labels likeliest (Guo et al. 2017); without, the output's class is right.
pub fn probabilities(outputs: &Outputs, labels: Option<&[usize]>) -> Outputs {
    let Some(labels) = labels else {
        let certain = |output: &Vec<f32>| {
            let mut row = vec![0.0; output.len().max(2)];
            row[class(output)] = 1.0;
            row
        };
        return outputs.iter().map(certain).collect();
    };
    let likelihood = |temperature: f32| -> f64 {
        let of = |(output, &label): (&Vec<f32>, &usize)| {
            f64::from(softmax(output, temperature)[label]).max(1e-30).ln()
        };
        outputs.iter().zip(labels).map(of).sum()
    };
    let temperatures = TEMPERATURES.map(|quarters| (quarters as f32 / 4.0).exp2());
    let best = temperatures.max_by(|&a, &b| likelihood(a).total_cmp(&likelihood(b)));
    outputs.iter().map(|output| softmax(output, best.unwrap_or(1.0))).collect()
}

fn softmax(output: &[f32], temperature: f32) -> Vec<f32> {
    // One output's classes are its sign's.
    let pair = [0.0, output[0]];
    let output = if output.len() == 1 { &pair } else { output };
    let top = output.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = output.iter().map(|v| ((v - top) / temperature).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|v| v / sum).collect()
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
        let certain = |class: fn(usize) -> usize| -> Outputs {
            (0..n).map(|i| vec![1.0 - class(i) as f32, class(i) as f32]).collect()
        };
        // A margin m < 0.1 flips with probability (0.1 − m)/0.2: 2.5% in all.
        let accuracy = differences.expected_accuracy(&exact, &certain(|_| 0));
        assert!((accuracy - 0.975).abs() < 0.004, "{accuracy}");
        assert_eq!(probabilities(&exact, None)[1..], certain(|_| 0)[1..]);
        let none = Differences::new(&exact, &exact);
        assert_eq!(none.expected_accuracy(&exact, &certain(|_| 0)), 1.0);
        // Where the right class is behind as often as not, noise wins what it loses.
        let accuracy = differences.expected_accuracy(&exact, &certain(|i| i % 2));
        assert!((accuracy - 0.5).abs() < 0.004, "{accuracy}");
        // Two rounds of the same inputs are twice the differences.
        let twice = Differences::new(&exact, &[noisy.clone(), noisy].concat());
        assert_eq!(twice.differences.len(), 2 * n);
    }

    #[test]
    fn temperatures_are_calibrated_by_labels() {
        // Of outputs (1, 0), three in four are of the first class: e^(1/T) = 3.
        let outputs: Outputs = vec![vec![1.0, 0.0]; 400];
        let labels: Vec<usize> = (0..400).map(|i| usize::from(i % 4 == 0)).collect();
        let found = probabilities(&outputs, Some(&labels));
        assert!((found[0][0] - 0.75).abs() < 0.03, "{:?}", found[0]);
        let single: Outputs = vec![vec![1.0]; 400];
        let labels: Vec<usize> = labels.iter().map(|l| 1 - l).collect();
        let found = probabilities(&single, Some(&labels));
        assert!((found[0][1] - 0.75).abs() < 0.03, "{:?}", found[0]);
    }
}
