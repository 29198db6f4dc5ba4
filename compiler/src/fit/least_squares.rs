//! Least squares per channel: trigonometric polynomials on a given period, and polynomials.
//!
//! The data are (student's pre-activation, teacher's activation). A uniform grid over the channel's
//! range joins them with a small total mass and the exact function as target, so that the fit stays
//! sane where few data lie.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use ir::Tensor;
use ir::op::{Activation, Polynomial, Trigonometric};
use rayon::prelude::*;
use std::f64::consts::TAU;

/// Rows per channel at most; more are thinned out evenly.
const MAX_ROWS: usize = 6000;
/// Points of the grid.
const GRID: usize = 201;
/// Mass of the grid beside the data's mass of one.
const GRID_MASS: f64 = 0.005;
/// Mass of the grid where the data are made up.
const WIDE_GRID_MASS: f64 = 0.3;
/// How far the grid of a trigonometric fit reaches beyond the channel's range.
const GRID_REACH: f64 = 1.2;
/// Ridge of polynomial fits, in range-normalised coordinates.
const RIDGE: f64 = 1e-6;

/// The data of one channel.
pub(super) struct Channel {
    rows: Vec<(f64, f64)>,
    /// Middle of the student's range.
    pub middle: f64,
    /// Half of the student's range, positive.
    pub half: f64,
}

/// The data of all channels.
pub(super) struct Samples {
    /// Per channel.
    pub channels: Vec<Channel>,
    /// Mass of the grid beside the data's mass of one.
    grid_mass: f64,
}

impl Samples {
    /// Gathers pairs (student's `x`, `exact(teacher's x)`) and ranges, per channel.
    pub fn gather(teacher: &[Tensor<f32>], student: &[Tensor<f32>], exact: &Activation) -> Self {
        let shape = &student[0].shape;
        let (stride, count) = (shape.channel_stride(), shape.channels());
        let blocks = shape.elements() / (stride * count);
        let total = student.len() * stride * blocks;
        let step = total.div_ceil(MAX_ROWS);
        // A step that shares no factor with the width of an image sees every column.
        let step = if step > 1 { step | 1 } else { 1 };
        let mut channels: Vec<Channel> = (0..count)
            .into_par_iter()
            .map(|channel| {
                let mut rows = Vec::with_capacity(total / step + 1);
                let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
                let mut position = 0usize;
                for (t, s) in teacher.iter().zip(student) {
                    for block in 0..blocks {
                        let start = (block * count + channel) * stride;
                        let pairs = s.data[start..start + stride]
                            .iter()
                            .zip(&t.data[start..start + stride]);
                        for (&x, &z) in pairs {
                            let x = f64::from(x);
                            (low, high) = (low.min(x), high.max(x));
                            if position.is_multiple_of(step) {
                                rows.push((x, exact.at(channel, f64::from(z))));
                            }
                            position += 1;
                        }
                    }
                }
                rows.retain(|(_, y)| y.is_finite());
                Channel { rows, middle: 0.5 * (low + high), half: 0.5 * (high - low) }
            })
            .collect();
        let widest = channels.iter().map(|c| c.half).fold(0.0, f64::max).max(1e-6);
        channels.iter_mut().for_each(|c| c.half = c.half.max(1e-2 * widest));
        Self { channels, grid_mass: GRID_MASS }
    }

    /// Trusts the data less: every range becomes `margin` times wider, and the grid over it weighs as
    /// much as the data.
    pub fn widen(&mut self, margin: f64) {
        self.channels.iter_mut().for_each(|c| c.half *= margin);
        self.grid_mass = WIDE_GRID_MASS;
    }

    /// Smallest and largest pre-activation over all channels.
    pub fn interval(&self) -> (f64, f64) {
        let low = self.channels.iter().map(|c| c.middle - c.half).fold(f64::INFINITY, f64::min);
        let high =
            self.channels.iter().map(|c| c.middle + c.half).fold(f64::NEG_INFINITY, f64::max);
        (low, high)
    }
}

/// Fits `c0 + Σ a_n cos(2πn·x/period) + b_n sin(2πn·x/period)` per channel. `periods` has one entry, or
/// one per channel. Coefficients are held back by the noise that a phase of `phase_bits` bits makes of
/// them: its rounding has variance about `n²(2π/2^p)²/8` per unit of amplitude.
pub(super) fn fit_trigonometric(
    samples: &Samples,
    periods: &[f64],
    harmonics: usize,
    phase_bits: u32,
    exact: &Activation,
) -> Trigonometric {
    let step = TAU / f64::from(phase_bits).exp2();
    let ridge: Vec<f64> = (0..=2 * harmonics)
        .map(|i| if i == 0 { 1e-9 } else { ((i.div_ceil(2)) as f64 * step).powi(2) / 8.0 + 5e-6 })
        .collect();
    let rows: Vec<Vec<f64>> = samples
        .channels
        .par_iter()
        .enumerate()
        .map(|(c, channel)| {
            let period = if periods.len() == 1 { periods[0] } else { periods[c] };
            let basis = |x: f64, row: &mut Vec<f64>| {
                row.push(1.0);
                for n in 1..=harmonics {
                    let (sin, cos) = (TAU * n as f64 * x / period).sin_cos();
                    row.extend([cos, sin]);
                }
            };
            solve(channel, (GRID_REACH, samples.grid_mass), &ridge, basis, |x| exact.at(c, x))
        })
        .collect();
    Trigonometric {
        period: periods.to_vec(),
        constant: rows.iter().map(|r| r[0]).collect(),
        harmonics: rows
            .iter()
            .map(|r| r[1..].chunks_exact(2).map(|ab| [ab[0], ab[1]]).collect())
            .collect(),
    }
}

/// Fits a polynomial of the given degree per channel.
pub(super) fn fit_polynomial(samples: &Samples, degree: usize, exact: &Activation) -> Polynomial {
    let ridge = vec![RIDGE; degree + 1];
    let coefficients = samples
        .channels
        .par_iter()
        .enumerate()
        .map(|(c, channel)| {
            let (middle, half) = (channel.middle, channel.half);
            let basis = |x: f64, row: &mut Vec<f64>| {
                let x = (x - middle) / half;
                row.extend((0..=degree).map(|n| x.powi(n as i32)));
            };
            let normalised =
                solve(channel, (1.0, samples.grid_mass), &ridge, basis, |x| exact.at(c, x));
            expand(&normalised, middle, half)
        })
        .collect();
    Polynomial { coefficients }
}

/// The coefficients in `x` of a polynomial in `(x − middle)/half`.
fn expand(normalised: &[f64], middle: f64, half: f64) -> Vec<f64> {
    let mut out = vec![0.0; normalised.len()];
    let mut power = vec![1.0];
    for c in normalised {
        for (o, p) in out.iter_mut().zip(&power) {
            *o += c * p;
        }
        let mut next = vec![0.0; power.len() + 1];
        for (i, p) in power.iter().enumerate() {
            next[i] -= p * middle / half;
            next[i + 1] += p / half;
        }
        power = next;
    }
    out
}

fn solve(
    channel: &Channel,
    (reach, grid_mass): (f64, f64),
    ridge: &[f64],
    basis: impl Fn(f64, &mut Vec<f64>),
    exact: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let size = ridge.len();
    let mut gram = Mat::<f64>::zeros(size, size);
    let mut right = Mat::<f64>::zeros(size, 1);
    let mut row = Vec::with_capacity(size);
    let mut add = |x: f64, y: f64, weight: f64| {
        if !y.is_finite() {
            return;
        }
        row.clear();
        basis(x, &mut row);
        for i in 0..size {
            right[(i, 0)] += weight * row[i] * y;
            for j in 0..=i {
                gram[(i, j)] += weight * row[i] * row[j];
            }
        }
    };
    let weight = 1.0 / channel.rows.len().max(1) as f64;
    for &(x, y) in &channel.rows {
        add(x, y, weight);
    }
    for i in 0..GRID {
        let at = 2.0 * i as f64 / (GRID - 1) as f64 - 1.0;
        let x = channel.middle + reach * channel.half * at;
        add(x, exact(x), grid_mass / GRID as f64);
    }
    for i in 0..size {
        gram[(i, i)] += ridge[i];
        for j in 0..i {
            gram[(j, i)] = gram[(i, j)];
        }
    }
    match gram.llt(Side::Lower) {
        Ok(factor) => {
            let solution = factor.solve(&right);
            (0..size).map(|i| solution[(i, 0)]).collect()
        }
        Err(_) => vec![0.0; size],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Shape;
    use ir::op::Function;

    fn samples(exact: &Activation) -> Samples {
        let line = |n: usize| (0..n).map(|i| 8.0 * i as f32 / n as f32 - 3.0).collect();
        let values = vec![Tensor::new(Shape::new([1, 1, 40, 25]), line(1000))];
        Samples::gather(&values, &values, exact)
    }

    #[test]
    fn recovers_a_function_of_its_own_family() {
        let truth = Trigonometric {
            period: vec![10.0],
            constant: vec![0.3],
            harmonics: vec![vec![[1.0, -0.5], [0.2, 0.7]]],
        };
        let exact = Activation::Trigonometric(truth.clone());
        let got = fit_trigonometric(&samples(&exact), &[10.0], 2, 14, &exact);
        for (a, b) in got.harmonics[0].iter().flatten().zip(truth.harmonics[0].iter().flatten()) {
            assert!((a - b).abs() < 1e-3, "{a} instead of {b}");
        }
        let quadratic =
            Activation::Polynomial(Polynomial { coefficients: vec![vec![1.0, -2.0, 0.5]] });
        let got = fit_polynomial(&samples(&quadratic), 2, &quadratic);
        for (a, b) in got.coefficients[0].iter().zip([1.0, -2.0, 0.5]) {
            assert!((a - b).abs() < 1e-3, "{a} instead of {b}");
        }
    }

    #[test]
    fn more_harmonics_fit_relu_better() {
        let exact = Activation::function(Function::Relu);
        let samples = samples(&exact);
        let error = |harmonics| {
            let fit = fit_trigonometric(&samples, &[10.0], harmonics, 12, &exact);
            let squares: f64 =
                samples.channels[0].rows.iter().map(|(x, y)| (fit.at(0, *x) - y).powi(2)).sum();
            (squares / 1000.0).sqrt()
        };
        let errors = [error(1), error(2), error(3)];
        assert!(errors[0] > 1.5 * errors[1] && errors[1] > 2.0 * errors[2], "{errors:?}");
        assert!(errors[2] < 0.12, "{errors:?}");
    }
}
