//! What the values of a node look like over the calibration inputs.

use ir::Tensor;
use rayon::prelude::*;
use std::collections::BTreeSet;

/// An input is an outlier of a node if its largest value is this many times the median input's.
const OUTLIER: f64 = 8.0;
/// At most this share of the inputs can be outliers; more are how the node is.
const MAX_OUTLIERS: f64 = 0.05;

/// Moments and extremes over all elements and inputs but outliers.
///
/// Networks that come with polynomials explode on rare inputs, in float already. No ring holds such
/// values; they are counted and left out, so that they do not coarsen everybody else's.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
    /// Root mean square.
    pub rms: f64,
    /// Largest magnitude.
    pub largest: f64,
    /// Inputs left out.
    pub outliers: BTreeSet<usize>,
}

impl Spread {
    /// Measures a list of values; inputs that are `known` to explode stay left out.
    pub fn of(values: &[Tensor<f32>], known: &BTreeSet<usize>) -> Self {
        let inputs: Vec<(f64, f64, f64)> = values
            .par_iter()
            .map(|t| {
                t.data.iter().fold((0.0, 0.0, 0.0f64), |(s, q, m), &v| {
                    let v = f64::from(v);
                    (s + v, q + v * v, if v.abs() > m || v.is_nan() { v.abs() } else { m })
                })
            })
            .collect();
        let usual = |i: &usize| !known.contains(i);
        let mut sorted: Vec<f64> = (0..inputs.len()).filter(usual).map(|i| inputs[i].2).collect();
        sorted.sort_by(f64::total_cmp);
        let limit = OUTLIER * sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
        let mut outliers: BTreeSet<usize> = (0..inputs.len())
            .filter(usual)
            .filter(|&i| limit > 0.0 && inputs[i].2 > limit)
            .collect();
        if outliers.len() as f64 > (inputs.len() as f64 * MAX_OUTLIERS).max(1.0) {
            outliers.clear();
        }
        outliers.extend(known);
        let kept =
            || inputs.iter().enumerate().filter(|(i, _)| !outliers.contains(i)).map(|(_, v)| v);
        let elements = values.first().map_or(1, |t| t.data.len().max(1));
        let n = (kept().count().max(1) * elements) as f64;
        let mean = kept().map(|i| i.0).sum::<f64>() / n;
        let square = kept().map(|i| i.1).sum::<f64>() / n;
        let largest = kept().map(|i| i.2).fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a });
        let deviation = (square - mean * mean).max(0.0).sqrt();
        Self { mean, deviation, rms: square.sqrt(), largest, outliers }
    }

    /// Whether every value was finite.
    pub fn is_finite(&self) -> bool {
        self.rms.is_finite() && self.largest.is_finite()
    }

    /// The deviation, or a stand-in that is positive where values do not vary.
    pub fn width(&self) -> f64 {
        self.deviation.max(self.largest * 1e-3).max(1e-9)
    }
}

/// Root mean square of the difference over the deviation of `want`.
pub(super) fn relative_error(got: &[Tensor<f32>], want: &[Tensor<f32>]) -> f64 {
    let (n, squares) = got
        .par_iter()
        .zip(want)
        .map(|(g, w)| {
            let differences = g.data.iter().zip(&w.data).map(|(a, b)| f64::from(a - b).powi(2));
            (g.data.len(), differences.sum::<f64>())
        })
        .reduce(|| (0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    (squares / n.max(1) as f64).sqrt() / Spread::of(want, &BTreeSet::new()).width()
}
