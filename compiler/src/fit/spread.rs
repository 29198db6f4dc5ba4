//! What the values of a node look like over the calibration inputs.

use ir::Tensor;
use rayon::prelude::*;

/// Moments and extremes over all elements and inputs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
    /// Root mean square.
    pub rms: f64,
    /// Largest magnitude.
    pub largest: f64,
}

impl Spread {
    /// Measures a list of values.
    pub fn of(values: &[Tensor<f32>]) -> Self {
        let (n, sum, squares, largest) = values
            .par_iter()
            .map(|t| {
                t.data.iter().fold((0usize, 0.0f64, 0.0f64, 0.0f64), |(n, s, q, m), &v| {
                    let v = f64::from(v);
                    (n + 1, s + v, q + v * v, if v.abs() > m || v.is_nan() { v.abs() } else { m })
                })
            })
            .reduce(|| (0, 0.0, 0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2, a.3.max(b.3)));
        let n = n.max(1) as f64;
        let (mean, square) = (sum / n, squares / n);
        let deviation = (square - mean * mean).max(0.0).sqrt();
        Self { mean, deviation, rms: square.sqrt(), largest }
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
    (squares / n.max(1) as f64).sqrt() / Spread::of(want).width()
}
