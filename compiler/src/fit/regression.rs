//! Ridge regression towards old weights: by the normal equations where there are many rows, in the dual form where
//! there are fewer rows than columns.

use faer::linalg::solvers::Solve;
use faer::{Mat, MatRef, Side};
use ndarray::{ArrayView2, linalg::general_mat_mul, s};
use rayon::prelude::*;

/// Columns of a Gram matrix that are computed at once.
const BLOCK: usize = 256;
/// Ridge of the bias, relative likewise.
const BIAS_RIDGE: f64 = 1e-8;

/// Mean and covariance of the inputs of one group's outputs, over rows of the student's operand.
pub(super) struct InputMoments {
    /// Mean of every input.
    pub mean: Vec<f64>,
    /// Covariance matrix of the inputs.
    pub covariance: Mat<f64>,
}

/// Sums over rows of one side of the split: Gram matrix, right side, squares of the targets, weights.
pub(super) struct Moments {
    gram: Mat<f64>,
    right: Mat<f64>,
    squares: f64,
    pub rows: f64,
}

/// Rows and targets for the dual form, and what its regressions share.
pub(super) struct Rows {
    /// The last column is the one of the bias.
    pub rows: Mat<f64>,
    pub targets: Mat<f64>,
    means: Vec<f64>,
    centred: Mat<f64>,
    /// `centred·centredᵀ`
    kernel: Mat<f64>,
    /// Mean over rows of the residual of the old weights.
    shift: Vec<f64>,
    /// The residual less its mean.
    residual: Mat<f64>,
    /// Mean square of an input.
    square: f64,
    /// Sum of the rows' weights.
    mass: f64,
}

impl Rows {
    pub fn new(rows: Mat<f64>, targets: Mat<f64>, old: &Mat<f64>) -> Self {
        let (n, fan_in) = (rows.nrows(), rows.ncols() - 1);
        // The last column has the roots of the weights.
        let root = |i: usize| rows[(i, fan_in)];
        let mass = rows.col(fan_in).squared_norm_l2();
        let mean = |m: MatRef<'_, f64>| -> Vec<f64> {
            (0..m.ncols())
                .map(|j| (0..n).map(|i| root(i) * m[(i, j)]).sum::<f64>() / mass)
                .collect()
        };
        let mut means = mean(rows.as_ref());
        means.truncate(fan_in);
        let square = (rows.squared_norm_l2() / mass - 1.0) / fan_in as f64;
        let centred = Mat::from_fn(n, fan_in, |i, j| rows[(i, j)] - root(i) * means[j]);
        let residual = &targets - &rows * old;
        let shift = mean(residual.as_ref());
        let residual =
            Mat::from_fn(n, residual.ncols(), |i, j| residual[(i, j)] - root(i) * shift[j]);
        let kernel = &centred * centred.transpose();
        Self { rows, targets, means, centred, kernel, shift, residual, square, mass }
    }

    pub fn ridge_solution(&self, old: &Mat<f64>, ridge: f64) -> Option<Mat<f64>> {
        let (n, fan_in) = (self.rows.nrows(), self.means.len());
        let mut left = self.kernel.clone();
        (0..n).for_each(|i| left[(i, i)] += self.mass * ridge * self.square);
        let factor = left.llt(Side::Lower).ok()?;
        let change = self.centred.transpose() * factor.solve(&self.residual);
        Some(Mat::from_fn(fan_in + 1, old.ncols(), |i, o| {
            if i < fan_in {
                return old[(i, o)] + change[(i, o)];
            }
            let moved: f64 = (0..fan_in).map(|j| self.means[j] * change[(j, o)]).sum();
            old[(fan_in, o)] + self.shift[o] - moved
        }))
    }
}

impl Moments {
    pub fn zero(size: usize, outputs: usize) -> Self {
        Self {
            gram: Mat::zeros(size, size),
            right: Mat::zeros(size, outputs),
            squares: 0.0,
            rows: 0.0,
        }
    }

    pub fn add(&mut self, a: &[f32], y: &[f32], size: usize, outputs: usize) {
        let rows = a.len() / size;
        let shapes = "rows have one length";
        let a = ArrayView2::from_shape((rows, size), a).expect(shapes);
        let y = ArrayView2::from_shape((rows, outputs), y).expect(shapes);
        // The lower triangle in blocks of columns; the rest of a block of the diagonal is its mirror image.
        let blocks: Vec<(usize, ndarray::Array2<f32>)> = (0..size)
            .into_par_iter()
            .step_by(BLOCK)
            .map(|from| {
                let to = (from + BLOCK).min(size);
                let mut block = ndarray::Array2::zeros((size - from, to - from));
                let (rows, columns) = (a.slice(s![.., from..]), a.slice(s![.., from..to]));
                general_mat_mul(1.0, &rows.t(), &columns, 0.0, &mut block);
                (from, block)
            })
            .collect();
        for (from, block) in blocks {
            for ((i, j), &v) in block.indexed_iter() {
                self.gram[(from + i, from + j)] += f64::from(v);
                if i >= BLOCK {
                    self.gram[(from + j, from + i)] += f64::from(v);
                }
            }
        }
        let mut right = ndarray::Array2::<f32>::zeros((size, outputs));
        general_mat_mul(1.0, &a.t(), &y, 0.0, &mut right);
        for j in 0..outputs {
            for i in 0..size {
                self.right[(i, j)] += f64::from(right[(i, j)]);
            }
        }
        self.squares += y.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        self.rows += a.column(size - 1).iter().map(|&root| f64::from(root).powi(2)).sum::<f64>();
    }

    pub fn plus(mut self, other: Self) -> Self {
        self.gram += other.gram;
        self.right += other.right;
        self.squares += other.squares;
        self.rows += other.rows;
        self
    }

    /// `(G + D)⁻¹ (R + D·old)`, `G` and `R` means over the rows.
    pub fn ridge_solution(&self, old: &Mat<f64>, ridge: f64) -> Option<Mat<f64>> {
        let (fan_in, share) = (self.gram.nrows() - 1, faer::Scale(1.0 / self.rows.max(1e-300)));
        let (mut left, mut right) = (&self.gram * share, &self.right * share);
        let mean = (0..fan_in).map(|i| left[(i, i)]).sum::<f64>() / fan_in as f64;
        if !(mean.is_finite() && mean > 0.0) {
            return None;
        }
        let diagonal = |i: usize| mean * if i < fan_in { ridge } else { BIAS_RIDGE };
        for i in 0..=fan_in {
            left[(i, i)] += diagonal(i);
            for o in 0..right.ncols() {
                right[(i, o)] += diagonal(i) * old[(i, o)];
            }
        }
        Some(left.llt(Side::Lower).ok()?.solve(&right))
    }

    /// Squared error of a solution on these rows: `Y² − 2·Wᵀ·R + Wᵀ·G·W`.
    pub fn error(&self, solution: &Mat<f64>) -> f64 {
        let product = &self.gram * solution;
        let mut error = self.squares;
        for o in 0..solution.ncols() {
            for i in 0..solution.nrows() {
                error += solution[(i, o)] * (product[(i, o)] - 2.0 * self.right[(i, o)]);
            }
        }
        error
    }

    pub fn into_inputs(self) -> InputMoments {
        let fan_in = self.gram.nrows() - 1;
        let n = self.rows.max(1.0);
        let mean: Vec<f64> = (0..fan_in).map(|i| self.gram[(i, fan_in)] / n).collect();
        let mut covariance = self.gram;
        for j in 0..fan_in {
            for i in 0..fan_in {
                covariance[(i, j)] = covariance[(i, j)] / n - mean[i] * mean[j];
            }
        }
        covariance.truncate(fan_in, fan_in);
        InputMoments { mean, covariance }
    }
}
