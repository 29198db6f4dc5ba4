//! Least squares per channel: trigonometric polynomials on a given period, and polynomials.
//!
//! The data are [samples](Samples). A uniform grid over the channel's range is added with a small total mass and the
//! exact function as target, so that the fit stays sensible where data are few.

use super::samples::{Channel, Samples};
use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use ir::op::{Activation, Polynomial, Trigonometric};
use rayon::prelude::*;
use std::f64::consts::TAU;

/// Points of the grid.
const GRID: usize = 201;
/// How far the grid of a trigonometric fit reaches beyond the channel's range.
const GRID_REACH: f64 = 1.2;
/// Ridge of polynomial fits, in range-normalised coordinates.
const RIDGE: f64 = 1e-6;

/// How many harmonics a fit has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Harmonics {
    /// This many.
    Fixed(usize),
    /// The fewest whose held-out error, relative to the deviation of the function's values, is within
    /// `tolerance` (in squares) of the best that `most` reach.
    Within {
        /// The tolerance.
        tolerance: f64,
        /// The most harmonics that a layer gets.
        most: usize,
    },
}

impl Default for Harmonics {
    fn default() -> Self {
        Self::Within { tolerance: 0.02, most: 6 }
    }
}

/// Fits `c0 + Σ a_n cos(2πn·x/period) + b_n sin(2πn·x/period)` per channel. `periods` has one entry, or
/// one per channel. Coefficients are regularised by the noise that a phase of `phase_bits` bits makes of
/// them: its rounding has variance about `n²(2π/2^p)²/8` per unit of amplitude. Where the number of harmonics
/// is chosen, the squared errors of every number, relative to the values' variance, come with the fit.
pub(super) fn fit_trigonometric(
    samples: &Samples,
    periods: &[f64],
    harmonics: Harmonics,
    phase_bits: u32,
    exact: &Activation,
) -> (Trigonometric, Vec<f64>) {
    let (least, most) = match harmonics {
        Harmonics::Fixed(n) => (n, n),
        Harmonics::Within { most, .. } => (1, most),
    };
    let ridge = ridges(most, phase_bits);
    let fits: Vec<ChannelFit> = samples
        .channels
        .par_iter()
        .enumerate()
        .map(|(c, channel)| {
            let period = if periods.len() == 1 { periods[0] } else { periods[c] };
            let grid = (GRID_REACH, samples.grid_mass);
            let exact = |x| exact.at(c, x);
            ChannelFit::new(channel, grid, &ridge, least, basis(period, most), exact)
        })
        .collect();
    let (chosen, errors) = match harmonics {
        Harmonics::Fixed(n) => (n, vec![]),
        Harmonics::Within { tolerance, .. } => {
            let variance: f64 = fits.iter().map(|f| f.variance).sum();
            let error = |n: usize| fits.iter().map(|f| f.errors[n - least]).sum::<f64>();
            let errors: Vec<f64> = (least..=most).map(|n| error(n) / variance.max(1e-30)).collect();
            let best = errors.iter().copied().fold(f64::INFINITY, f64::min);
            let allowed = best + tolerance * tolerance;
            let chosen = (least..=most).find(|&n| errors[n - least] <= allowed);
            (chosen.unwrap_or(most), errors)
        }
    };
    let rows: Vec<&Vec<f64>> = fits.iter().map(|f| &f.coefficients[chosen - least]).collect();
    let fit = Trigonometric {
        period: periods.to_vec(),
        constant: rows.iter().map(|r| r[0]).collect(),
        harmonics: rows
            .iter()
            .map(|r| r[1..].chunks_exact(2).map(|ab| [ab[0], ab[1]]).collect())
            .collect(),
    };
    (fit, errors)
}

/// How much wider than the values one turn of the circle is: per channel, or one for all, the one of
/// `candidates` with the smallest held-out error at `harmonics` harmonics. The ranges that are widened
/// here are those of the data that are not held out.
pub(super) fn choose_widening(
    samples: &Samples,
    candidates: &[f64],
    harmonics: usize,
    phase_bits: u32,
    exact: &Activation,
    per_channel: bool,
) -> Vec<f64> {
    let ridge = ridges(harmonics, phase_bits);
    let errors: Vec<Vec<f64>> = samples
        .channels
        .par_iter()
        .enumerate()
        .map(|(c, channel)| {
            let widest = samples.channels.iter().map(|c| c.fit_half).fold(0.0, f64::max);
            let half = if per_channel { channel.fit_half } else { widest };
            candidates
                .iter()
                .map(|widening| {
                    let grid = (GRID_REACH, samples.grid_mass);
                    let basis = basis(2.0 * widening * half, harmonics);
                    let exact = |x| exact.at(c, x);
                    ChannelFit::new(channel, grid, &ridge, harmonics, basis, exact).errors[0]
                })
                .collect()
        })
        .collect();
    let smallest = |errors: &mut dyn Iterator<Item = f64>| {
        let best = errors.zip(candidates).min_by(|a, b| a.0.total_cmp(&b.0));
        best.map_or(candidates[0], |(_, widening)| *widening)
    };
    if per_channel {
        return errors.iter().map(|e| smallest(&mut e.iter().copied())).collect();
    }
    let sums = (0..candidates.len()).map(|i| errors.iter().map(|e| e[i]).sum());
    vec![smallest(&mut sums.into_iter()); errors.len()]
}

/// The ridge of every coefficient: the noise of a phase of `phase_bits` bits, and of the tables.
fn ridges(harmonics: usize, phase_bits: u32) -> Vec<f64> {
    let step = TAU / f64::from(phase_bits).exp2();
    (0..=2 * harmonics)
        .map(|i| if i == 0 { 1e-9 } else { ((i.div_ceil(2)) as f64 * step).powi(2) / 8.0 + 5e-6 })
        .collect()
}

/// `1, cos θ, sin θ, cos 2θ, …` with `θ = 2πx/period`.
fn basis(period: f64, harmonics: usize) -> impl Fn(f64, &mut Vec<f64>) {
    move |x, row| {
        row.push(1.0);
        let (sin, cos) = (TAU * x / period).sin_cos();
        let (mut sin_n, mut cos_n) = (sin, cos);
        for _ in 0..harmonics {
            row.extend([cos_n, sin_n]);
            (cos_n, sin_n) = (cos_n * cos - sin_n * sin, sin_n * cos + cos_n * sin);
        }
    }
}

/// The fits of one channel with different numbers of harmonics.
struct ChannelFit {
    /// Solved on all data, from the fewest harmonics on.
    coefficients: Vec<Vec<f64>>,
    /// Mean squared error on the held-out data of the fits without them, with the noise of the phase.
    errors: Vec<f64>,
    /// Variance of the function's values.
    variance: f64,
}

impl ChannelFit {
    fn new(
        channel: &Channel,
        (reach, grid_mass): (f64, f64),
        ridge: &[f64],
        least: usize,
        basis: impl Fn(f64, &mut Vec<f64>),
        exact: impl Fn(f64) -> f64,
    ) -> Self {
        let sums = |rows: &[(f64, f64, f64)]| Sums::of(rows.iter().copied(), ridge.len(), &basis);
        let (fit, held_out) =
            (sums(&channel.rows[..channel.held_out]), sums(&channel.rows[channel.held_out..]));
        let grid = Sums::of(channel.grid(reach, &exact), ridge.len(), &basis);
        let all = Sums::weighted(&[(&fit, 1.0), (&held_out, 1.0)]).mean();
        let (fit, held_out) =
            (fit.mean(), if held_out.mass > 0.0 { held_out.mean() } else { fit.mean() });
        let grid = grid.mean();
        let solve = |data: &Sums, n: usize| {
            Sums::weighted(&[(data, 1.0), (&grid, grid_mass)]).solve(&ridge[..=2 * n])
        };
        let most = ridge.len() / 2;
        let errors = (least..=most)
            .map(|n| {
                let coefficients = solve(&fit, n);
                let noise: f64 =
                    coefficients.iter().zip(ridge).skip(1).map(|(c, r)| c * c * r).sum();
                held_out.error(&coefficients) + noise
            })
            .collect();
        let coefficients = (least..=most).map(|n| solve(&all, n)).collect();
        let variance = (all.squares - all.right[0].powi(2)).max(0.0);
        Self { coefficients, errors, variance }
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
            let sums = |rows: &mut dyn Iterator<Item = (f64, f64, f64)>| {
                Sums::of(rows, degree + 1, &basis).mean()
            };
            let data = sums(&mut channel.rows.iter().copied());
            let grid = sums(&mut channel.grid(1.0, &|x| exact.at(c, x)));
            let normalised =
                Sums::weighted(&[(&data, 1.0), (&grid, samples.grid_mass)]).solve(&ridge);
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

impl Channel {
    /// A uniform grid over `reach` times the range, with the exact function's values.
    fn grid<'a>(
        &'a self,
        reach: f64,
        exact: &'a impl Fn(f64) -> f64,
    ) -> impl Iterator<Item = (f64, f64, f64)> + 'a {
        (0..GRID)
            .map(move |i| {
                let at = 2.0 * i as f64 / (GRID - 1) as f64 - 1.0;
                let x = self.middle + reach * self.half * at;
                (x, exact(x), 1.0)
            })
            .filter(|(_, y, _)| y.is_finite())
    }
}

/// Sums (or means) of products of basis functions and values: the normal equations.
struct Sums {
    size: usize,
    /// Row-major, lower triangle.
    gram: Vec<f64>,
    right: Vec<f64>,
    squares: f64,
    mass: f64,
}

impl Sums {
    fn zero(size: usize) -> Self {
        Self { size, gram: vec![0.0; size * size], right: vec![0.0; size], squares: 0.0, mass: 0.0 }
    }

    fn of(
        rows: impl Iterator<Item = (f64, f64, f64)>,
        size: usize,
        basis: &impl Fn(f64, &mut Vec<f64>),
    ) -> Self {
        let mut sums = Self::zero(size);
        let mut row = Vec::with_capacity(size);
        for (x, y, weight) in rows {
            row.clear();
            basis(x, &mut row);
            for i in 0..size {
                let weighted = weight * row[i];
                sums.right[i] += weighted * y;
                let line = &mut sums.gram[i * size..i * size + i + 1];
                line.iter_mut().zip(&row).for_each(|(g, r)| *g += weighted * r);
            }
            sums.squares += weight * y * y;
            sums.mass += weight;
        }
        sums
    }

    fn weighted(parts: &[(&Self, f64)]) -> Self {
        let mut sum = Self::zero(parts[0].0.size);
        for (part, weight) in parts {
            sum.gram.iter_mut().zip(&part.gram).for_each(|(s, p)| *s += weight * p);
            sum.right.iter_mut().zip(&part.right).for_each(|(s, p)| *s += weight * p);
            sum.squares += weight * part.squares;
            sum.mass += weight * part.mass;
        }
        sum
    }

    fn mean(&self) -> Self {
        Self::weighted(&[(self, 1.0 / self.mass.max(1e-300))])
    }

    /// The coefficients of the first basis functions, as many as there are ridges.
    fn solve(&self, ridge: &[f64]) -> Vec<f64> {
        let n = ridge.len();
        let gram = Mat::from_fn(n, n, |i, j| {
            let at = self.gram[i.max(j) * self.size + i.min(j)];
            at + if i == j { ridge[i] } else { 0.0 }
        });
        let right = Mat::from_fn(n, 1, |i, _| self.right[i]);
        match gram.llt(Side::Lower) {
            Ok(factor) => {
                let solution = factor.solve(&right);
                (0..n).map(|i| solution[(i, 0)]).collect()
            }
            Err(_) => vec![0.0; n],
        }
    }

    /// Mean squared error of coefficients of the first basis functions.
    fn error(&self, coefficients: &[f64]) -> f64 {
        let mut error = self.squares;
        for (i, c) in coefficients.iter().enumerate() {
            error -= 2.0 * c * self.right[i];
            let line = &self.gram[i * self.size..i * self.size + i + 1];
            let products = line.iter().zip(coefficients).enumerate();
            error += products
                .map(|(j, (g, d))| if j == i { c * c * g } else { 2.0 * c * d * g })
                .sum::<f64>();
        }
        error.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::op::Function;
    use ir::{Shape, Tensor};

    fn samples(exact: &Activation) -> Samples {
        let line = |n: usize| (0..n).map(|i| 8.0 * i as f32 / n as f32 - 3.0).collect();
        let values = vec![Tensor::new(Shape::new([1, 1, 40, 25]), line(1000))];
        Samples::gather(&values, &values, exact, &[1.0])
    }

    #[test]
    fn recovers_a_function_of_its_own_family() {
        let truth = Trigonometric {
            period: vec![10.0],
            constant: vec![0.3],
            harmonics: vec![vec![[1.0, -0.5], [0.2, 0.7]]],
        };
        let exact = Activation::Trigonometric(truth.clone());
        let (got, _) =
            fit_trigonometric(&samples(&exact), &[10.0], Harmonics::Fixed(2), 14, &exact);
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
            let (fit, _) =
                fit_trigonometric(&samples, &[10.0], Harmonics::Fixed(harmonics), 12, &exact);
            let squares: f64 =
                samples.channels[0].rows.iter().map(|(x, y, _)| (fit.at(0, *x) - y).powi(2)).sum();
            (squares / 1000.0).sqrt()
        };
        let errors = [error(1), error(2), error(3)];
        assert!(errors[0] > 1.5 * errors[1] && errors[1] > 2.0 * errors[2], "{errors:?}");
        assert!(errors[2] < 0.12, "{errors:?}");
    }

    #[test]
    fn harmonics_follow_the_tolerance() {
        let exact = Activation::function(Function::Relu);
        let samples = samples(&exact);
        let order = |tolerance| {
            let harmonics = Harmonics::Within { tolerance, most: 6 };
            fit_trigonometric(&samples, &[10.0], harmonics, 10, &exact).0.order()
        };
        let orders = [order(0.5), order(0.1), order(0.02), order(0.0)];
        assert_eq!(orders[0], 1);
        assert!(orders.is_sorted() && orders[2] > orders[1], "{orders:?}");
    }
}
