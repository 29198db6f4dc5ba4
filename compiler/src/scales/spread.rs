//! What the values of a node look like over the calibration inputs.
//!
//! A few inputs may have values many times the others'. Every range covers them, but they say nothing
//! about how finely the others are to be computed: where squared values are averaged, such an input
//! counts as if it were [`USUAL`] times as large as most. A fit then weighs its error there against its
//! size there.

use ir::Tensor;
use rayon::prelude::*;
use std::collections::BTreeSet;

/// This share of the inputs are the usual ones.
const MOST: f64 = 0.9;
/// An input counts in full up to so many times the size of the usual ones.
const USUAL: f64 = 2.5;
/// An input explodes if its largest value is this many times the median input's.
const EXPLODES: f64 = 8.0;
/// At most this share of the inputs can explode; more are how the node is.
const MOST_EXPLODING: f64 = 0.05;

/// Moments and extremes over all elements and inputs but those that explode.
///
/// Networks that come with polynomials explode on rare inputs, in float already. No ring holds such
/// values; they are named and left out, so that they do not coarsen everybody else's.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// Arithmetic mean, rare inputs held back.
    pub mean: f64,
    /// Standard deviation, likewise.
    pub deviation: f64,
    /// Root mean square, likewise.
    pub rms: f64,
    /// Largest magnitude.
    pub largest: f64,
    /// Largest magnitude of the inputs that count in full.
    pub usual: f64,
    /// Inputs left out.
    pub outliers: BTreeSet<usize>,
    /// Inputs that do not count in full.
    pub rare: Vec<usize>,
}

/// Sums over the values of one input.
#[derive(Clone, Copy, Default)]
struct Sums {
    sum: f64,
    squares: f64,
    largest: f64,
}

impl Sums {
    fn of(values: &Tensor<f32>) -> Self {
        values.data.iter().fold(Self::default(), |mut sums, &v| {
            let v = f64::from(v);
            sums.sum += v;
            sums.squares += v * v;
            if v.abs() > sums.largest || v.is_nan() {
                sums.largest = v.abs();
            }
            sums
        })
    }
}

impl Spread {
    /// Measures a list of values; inputs that are `known` to explode stay left out. `may_explode` says
    /// whether others can.
    pub fn of(values: &[Tensor<f32>], known: &BTreeSet<usize>, may_explode: bool) -> Self {
        let inputs: Vec<Sums> = values.par_iter().map(Sums::of).collect();
        let mut outliers = known.clone();
        if may_explode {
            outliers.extend(exploding(&inputs, known));
        }
        let elements = values.first().map_or(1, |t| t.data.len().max(1)) as f64;
        let weights = weights_of(&inputs, elements, &outliers);
        let kept = || inputs.iter().zip(&weights).filter(|(_, w)| **w > 0.0);
        let n = (weights.iter().sum::<f64>() * elements).max(1e-300);
        let mean = kept().map(|(i, w)| w * i.sum).sum::<f64>() / n;
        let square = kept().map(|(i, w)| w * i.squares).sum::<f64>() / n;
        let largest = |least: f64| {
            let of = kept().filter(|(_, w)| **w >= least).map(|(i, _)| i.largest);
            of.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
        };
        let deviation = (square - mean * mean).max(0.0).sqrt();
        let (largest, usual) = (largest(0.0), largest(1.0));
        let is_rare = |&i: &usize| weights[i] > 0.0 && weights[i] < 1.0;
        let rare = (0..inputs.len()).filter(is_rare).collect();
        Self { mean, deviation, rms: square.sqrt(), largest, usual, outliers, rare }
    }

    /// Whether every value was finite.
    pub fn is_finite(&self) -> bool {
        self.rms.is_finite() && self.largest.is_finite()
    }

    /// The deviation, or a stand-in that is positive where values do not vary.
    pub fn width(&self) -> f64 {
        self.deviation.max(self.usual * 1e-3).max(1e-9)
    }
}

/// How much every input counts where squares of these values are averaged: 1 for usual ones, less for
/// larger ones, 0 for those that are left out.
pub(crate) fn weights(values: &[Tensor<f32>], outliers: &BTreeSet<usize>) -> Vec<f64> {
    let inputs: Vec<Sums> = values.par_iter().map(Sums::of).collect();
    weights_of(&inputs, values.first().map_or(1, |t| t.data.len().max(1)) as f64, outliers)
}

fn weights_of(inputs: &[Sums], elements: f64, outliers: &BTreeSet<usize>) -> Vec<f64> {
    let kept = || (0..inputs.len()).filter(|i| !outliers.contains(i));
    let quantile = |of: &dyn Fn(&Sums) -> f64, share: f64| {
        let mut sorted: Vec<f64> = kept().map(|i| of(&inputs[i])).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).floor() as usize).copied().unwrap_or(0.0)
    };
    // Sizes are about the middle: a mean that all inputs share hides nothing.
    let middle = quantile(&|i| i.sum / elements, 0.5);
    let square =
        |i: &Sums| ((i.squares - 2.0 * middle * i.sum) / elements + middle * middle).max(0.0);
    let limit = USUAL * USUAL * quantile(&square, MOST);
    let weight = |i: &Sums| match square(i) {
        square if limit > 0.0 && square > limit && square.is_finite() => limit / square,
        _ => 1.0,
    };
    let all = inputs.iter().enumerate();
    all.map(|(i, sums)| if outliers.contains(&i) { 0.0 } else { weight(sums) }).collect()
}

/// Further inputs whose values explode.
fn exploding(inputs: &[Sums], known: &BTreeSet<usize>) -> BTreeSet<usize> {
    let usual = || (0..inputs.len()).filter(|i| !known.contains(i));
    let mut sorted: Vec<f64> = usual().map(|i| inputs[i].largest).collect();
    sorted.sort_by(f64::total_cmp);
    let limit = EXPLODES * sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    let found: BTreeSet<usize> =
        usual().filter(|&i| limit > 0.0 && inputs[i].largest > limit).collect();
    let most = (inputs.len() as f64 * MOST_EXPLODING).max(1.0);
    if found.len() as f64 > most { BTreeSet::new() } else { found }
}

/// Root mean square of the difference over the deviation of `want`, inputs [weighted](weights).
pub(crate) fn relative_error(got: &[Tensor<f32>], want: &[Tensor<f32>], weights: &[f64]) -> f64 {
    let (n, sum, squares, errors) = got
        .par_iter()
        .zip(want)
        .zip(weights)
        .filter(|(_, weight)| **weight > 0.0)
        .map(|((got, want), weight)| {
            let of = Sums::of(want);
            let differences = got.data.iter().zip(&want.data);
            let errors: f64 = differences.map(|(a, b)| f64::from(a - b).powi(2)).sum();
            (weight * want.data.len() as f64, weight * of.sum, weight * of.squares, weight * errors)
        })
        .reduce(|| (0.0, 0.0, 0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2, a.3 + b.3));
    let n = n.max(1e-300);
    let variance = squares / n - (sum / n).powi(2);
    (errors / n / variance.max(1e-18)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Shape;

    fn values(scales: impl Iterator<Item = f32>) -> Vec<Tensor<f32>> {
        let shape = Shape::new([1, 8]);
        let row = |s: f32| (0..8).map(|i| s * (i as f32 - 3.5)).collect();
        scales.map(|s| Tensor::new(shape.clone(), row(s))).collect()
    }

    #[test]
    fn rare_inputs_widen_the_range_and_not_the_deviation() {
        let none = BTreeSet::new();
        let usual = Spread::of(&values((0..200).map(|_| 1.0)), &none, false);
        let rare = |i: usize| if i.is_multiple_of(50) { 1000.0 } else { 1.0 };
        let values = values((0..200).map(rare));
        let spread = Spread::of(&values, &none, false);
        assert_eq!((spread.largest, spread.usual), (3500.0, 3.5));
        assert!(spread.outliers.is_empty());
        assert!(spread.deviation < 1.3 * usual.deviation, "{}", spread.deviation);
        // Only behind a polynomial can they explode: then they count nowhere.
        let spread = Spread::of(&values, &none, true);
        assert_eq!((spread.largest, spread.outliers.len()), (3.5, 4));
        assert!(weights(&values, &spread.outliers).iter().all(|&w| w == 0.0 || w == 1.0));
    }
}
