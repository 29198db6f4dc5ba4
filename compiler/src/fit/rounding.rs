//! Rounding weights with compensation: the error of a rounded weight is compensated by the weights that are rounded
//! after it, as far as their inputs are correlated.
//!
//! With `C = U·diag(d)·Uᵀ` the covariance of the inputs, `U` unit upper triangular, the mean squared error
//! of rounded weights `q` is `Σ_j d_j·e_j²`, `e_j = (w_j − q_j) + Σ_{i<j} (w_i − q_i)·U_ij`, if the bias
//! absorbs the mean. Rounding `w_j + Σ_{i<j} (w_i − q_i)·U_ij` keeps every `e_j` within one half (GPTQ, Frantar
//! et al. 2022, in the form of LDLQ, Chee et al. 2023), so the error is `√(Σ d_j/12)` units of the output,
//! known before anything is rounded, against `√(Σ_j E[x_j²]/12)` for rounding to nearest.

use super::regression::InputMoments;
use super::resolve::with_weights;
use faer::{Mat, Side};
use ir::Shape;
use ir::graph::Op;
use rayon::prelude::*;

/// Added to the covariance's diagonal, relative to its mean: what is known of inputs has a limit.
const DAMPING: f64 = 0.01;

/// How the weights of one operator will be rounded.
pub(super) struct Compensation {
    groups: Vec<Group>,
}

struct Group {
    mean: Vec<f64>,
    /// The inputs in the order in which their weights are rounded: falling variance.
    order: Vec<usize>,
    /// `U` in that order, row `i` from column `i + 1` on, in `f32`: a feedback's last bits do not matter.
    feedback: Vec<Vec<f32>>,
    /// `Σ d_j`
    variance: f64,
}

impl Compensation {
    /// Factors the covariances; `None` if there are none, or one cannot be factored.
    pub fn new(moments: Vec<InputMoments>) -> Option<Self> {
        let groups: Option<Vec<Group>> = moments.into_par_iter().map(Group::new).collect();
        groups.filter(|g| !g.is_empty()).map(|groups| Self { groups })
    }

    /// Rounding to nearest, where nothing is known of the inputs.
    pub fn none(op: &Op) -> Self {
        let (groups, fan_in) = match op {
            Op::Convolution { geometry, weights, .. } => {
                (geometry.groups, weights.shape.0[1..].iter().product())
            }
            Op::MatrixProduct { weights, .. } => (1, weights.shape.0[1]),
            _ => (1, 1),
        };
        let group = || Group {
            mean: vec![0.0; fan_in],
            order: (0..fan_in).collect(),
            feedback: vec![Vec::new(); fan_in],
            variance: 0.0,
        };
        Self { groups: (0..groups).map(|_| group()).collect() }
    }

    /// Root mean square error in units of the output times `√12`, per unit of the operand's scale.
    pub fn rounding_units(&self) -> f64 {
        self.groups.iter().map(|g| g.variance).fold(0.0, f64::max).sqrt()
    }

    /// The operator with weights that are integers in units of `input_scale` to `output_scales` (one for
    /// every output).
    pub fn round(&self, op: &Op, shape: &Shape, input_scale: f64, output_scales: &[f64]) -> Op {
        let (weights, bias, axis) = match op {
            Op::Convolution { weights, bias, .. } => (weights, bias, 1),
            Op::MatrixProduct { weights, bias } => (weights, bias, shape.rank() - 1),
            other => return other.clone(),
        };
        let fan_in = self.groups[0].mean.len();
        let outputs = output_scales.len() / self.groups.len();
        let rows: Vec<(Vec<f32>, f32)> = weights
            .data
            .par_chunks_exact(fan_in)
            .zip(output_scales)
            .enumerate()
            .map(|(o, (row, scale))| self.groups[o / outputs].round(row, scale / input_scale))
            .collect();
        let moved: Vec<f32> = rows.iter().map(|(_, moved)| *moved).collect();
        let rounded = rows.into_iter().flat_map(|(row, _)| row).collect();
        with_weights(op, rounded, bias, &moved, shape, axis)
    }
}

impl Group {
    fn new(moments: InputMoments) -> Option<Self> {
        let InputMoments { mean, covariance } = moments;
        let n = mean.len();
        let damping = DAMPING * (0..n).map(|i| covariance[(i, i)]).sum::<f64>() / n as f64;
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| covariance[(b, b)].total_cmp(&covariance[(a, a)]));
        // The Cholesky factor of the matrix in reverse order is `U·√d` read backwards.
        let reversed = Mat::from_fn(n, n, |i, j| {
            let (a, b) = (order[n - 1 - i], order[n - 1 - j]);
            covariance[(a, b)] + if i == j { damping.max(1e-30) } else { 0.0 }
        });
        let factor = reversed.llt(Side::Lower).ok()?;
        let lower = factor.L();
        let diagonal: Vec<f64> = (0..n).map(|i| lower[(i, i)]).collect();
        let variance = diagonal.iter().map(|d| d * d).sum();
        let feedback = (0..n)
            .map(|i| {
                let at = |j: usize| lower[(n - 1 - i, n - 1 - j)] / diagonal[n - 1 - j];
                (i + 1..n).map(|j| at(j) as f32).collect()
            })
            .collect();
        Some(Self { mean, order, feedback, variance })
    }

    /// One output's weights, rounded to multiples of `1/factor`, and what its bias must compensate.
    fn round(&self, row: &[f32], factor: f64) -> (Vec<f32>, f32) {
        let mut wanted: Vec<f32> =
            self.order.iter().map(|&i| (f64::from(row[i]) * factor) as f32).collect();
        let mut rounded = vec![0.0; row.len()];
        let mut moved = 0.0;
        for (j, &input) in self.order.iter().enumerate() {
            let integer = wanted[j].round();
            rounded[input] = (f64::from(integer) / factor) as f32;
            let error = (f64::from(row[input]) * factor) as f32 - integer;
            moved += (f64::from(row[input]) - f64::from(rounded[input])) * self.mean[input];
            for (w, u) in wanted[j + 1..].iter_mut().zip(&self.feedback[j]) {
                *w += error * u;
            }
        }
        (rounded, moved as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Tensor;

    /// Correlated inputs: a few common factors, a mean, a little noise of their own.
    fn moments(n: usize) -> InputMoments {
        let load = |i: usize, f: usize| ((i * 7 + f * 13) % 11) as f64 / 11.0 - 0.3;
        let covariance = Mat::from_fn(n, n, |i, j| {
            let common: f64 = (0..5).map(|f| load(i, f) * load(j, f)).sum();
            common + if i == j { 0.01 } else { 0.0 }
        });
        InputMoments { mean: vec![0.8; n], covariance }
    }

    fn error(covariance: &Mat<f64>, old: &[f32], new: &[f32]) -> f64 {
        let n = old.len();
        let d: Vec<f64> = (0..n).map(|i| f64::from(old[i]) - f64::from(new[i])).collect();
        (0..n).map(|i| (0..n).map(|j| d[i] * d[j] * covariance[(i, j)]).sum::<f64>()).sum()
    }

    #[test]
    fn compensation_beats_rounding_to_nearest_and_keeps_the_mean() {
        let (n, outputs) = (64, 32);
        let shape = Shape::new([1, outputs]);
        let data: Vec<f32> =
            (0..outputs * n).map(|i| ((i * 37 % 1009) as f32 - 500.0) / 70.0).collect();
        let op = Op::MatrixProduct {
            weights: Tensor::new(Shape::new([outputs, n]), data.clone()),
            bias: Tensor::new(Shape::new([1]), vec![0.0]),
        };
        let compensation = Compensation::new(vec![moments(n)]).unwrap();
        let factor = |o: usize| if o < 16 { 1.0 } else { 2.0 };
        let scales: Vec<f64> = (0..outputs).map(|o| 2.0 * factor(o)).collect();
        let Op::MatrixProduct { weights, bias } = compensation.round(&op, &shape, 2.0, &scales)
        else {
            unreachable!()
        };
        let covariance = moments(n).covariance;
        let (mut ours, mut theirs) = (0.0, 0.0);
        for o in 0..outputs {
            let factor = factor(o) as f32;
            let (old, new) = (&data[o * n..(o + 1) * n], &weights.data[o * n..(o + 1) * n]);
            assert!(new.iter().all(|w| (w * factor).fract() == 0.0), "integers of the scale");
            let nearest: Vec<f32> = old.iter().map(|w| (w * factor).round() / factor).collect();
            let squared = f64::from(factor * factor);
            let own = squared * error(&covariance, old, new);
            let bound = compensation.rounding_units().powi(2) / 4.0;
            assert!(own <= bound, "{own} above {bound}");
            ours += own;
            theirs += squared * error(&covariance, old, &nearest);
            let mean: f64 =
                old.iter().zip(new).map(|(a, b)| 0.8 * (f64::from(*a) - f64::from(*b))).sum();
            assert!((f64::from(bias.broadcast(&shape).data[o]) - mean).abs() < 1e-4);
        }
        assert!(ours < 0.3 * theirs, "{ours} against {theirs}");
        let expected = outputs as f64 * compensation.rounding_units().powi(2) / 12.0;
        assert!(ours > 0.5 * expected && ours < 2.0 * expected, "{ours}, expected {expected}");
    }
}
