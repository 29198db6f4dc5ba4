//! Re-solving a linear operator: weights that bring the student's outputs to the teacher's.
//!
//! Once an activation upstream was replaced, the student's operand `x` is not the teacher's, and the
//! operator's own weights are not the best ones for it any more. With `A` the rows of the student's
//! operand (patches of a convolution) and a column of ones, and `Y` the teacher's outputs at the same
//! places, the ridge regression towards the old weights is
//! `[W; b] = (G + D)⁻¹ (R + D·[W0; b0])`, `G = AᵀA/rows`, `R = AᵀY/rows`, `D = λ·mean(diag G)` on the weights
//! and next to nothing on the bias. `λ` is the one of a grid (keeping the old weights included) with the
//! smallest error on a held-out fifth of the inputs.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use ir::graph::Op;
use ir::{Shape, Tensor};
use ndarray::{ArrayView2, linalg::general_mat_mul};
use rayon::prelude::*;

/// Rows of the regression at most.
const MAX_ROWS: usize = 40_000;
/// Operators with more inputs per output keep their weights.
const MAX_FAN_IN: usize = 3072;
/// Ridges tried, relative to the mean diagonal of the Gram matrix.
const RIDGES: [f64; 6] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0];
/// Ridge of the bias, relative likewise.
const BIAS_RIDGE: f64 = 1e-8;
/// The held-out error must fall by this share before weights change.
const LEAST_GAIN: f64 = 0.01;

/// The operator with re-solved weights, or `None` if its own are as good. `inputs` are the student's
/// operands, `targets` what the outputs should be.
pub(super) fn resolve(
    op: &Op,
    shape: &Shape,
    inputs: &[&Tensor<f32>],
    targets: &[Tensor<f32>],
) -> Option<Op> {
    let problem = Problem::new(op, shape, inputs)?;
    let groups: Option<Vec<Solution>> =
        (0..problem.groups).into_par_iter().map(|g| problem.solve(g, inputs, targets)).collect();
    let groups = groups?;
    let (before, after) = groups.iter().fold((0.0, 0.0), |(b, a), s| (b + s.before, a + s.after));
    if after > (1.0 - LEAST_GAIN) * before {
        return None;
    }
    let weights: Vec<f32> = groups.iter().flat_map(|s| s.weights.iter().copied()).collect();
    let moved: Vec<f32> = groups.iter().flat_map(|s| s.bias.iter().copied()).collect();
    let axis = problem.output_axis;
    let moved = crate::passes::fold_normalization::along_axis(&moved, shape, axis);
    let sum =
        |bias: &Tensor<f32>| crate::passes::fold_normalization::combine(bias, &moved, |a, b| a + b);
    Some(match op {
        Op::Convolution { geometry, weights: old, bias } => Op::Convolution {
            geometry: *geometry,
            weights: Tensor::new(old.shape.clone(), weights),
            bias: sum(bias),
        },
        Op::MatrixProduct { weights: old, bias } => {
            Op::MatrixProduct { weights: Tensor::new(old.shape.clone(), weights), bias: sum(bias) }
        }
        _ => return None,
    })
}

struct Problem<'a> {
    op: &'a Op,
    shape: &'a Shape,
    weights: &'a Tensor<f32>,
    bias: Tensor<f32>,
    groups: usize,
    /// Outputs per group.
    outputs: usize,
    fan_in: usize,
    output_axis: usize,
    /// Places of one input at which an output is computed.
    places: usize,
    /// One in this many places is used.
    step: usize,
}

struct Solution {
    weights: Vec<f32>,
    bias: Vec<f32>,
    before: f64,
    after: f64,
}

/// Sums over rows of one side of the split: Gram matrix, right side, and squares of the targets.
struct Moments {
    gram: Mat<f64>,
    right: Mat<f64>,
    squares: f64,
    rows: f64,
}

impl<'a> Problem<'a> {
    fn new(op: &'a Op, shape: &'a Shape, inputs: &[&Tensor<f32>]) -> Option<Self> {
        let input = &inputs.first()?.shape;
        let (weights, bias, groups, fan_in, output_axis, places) = match op {
            Op::Convolution { geometry, weights, bias } => {
                let places = shape.0[2] * shape.0[3];
                (weights, bias, geometry.groups, geometry.fan_in(input), 1, places)
            }
            Op::MatrixProduct { weights, bias } => {
                let fan_in = weights.shape.0[1];
                (weights, bias, 1, fan_in, shape.rank() - 1, input.elements() / fan_in)
            }
            _ => return None,
        };
        if fan_in > MAX_FAN_IN || inputs.len() < 10 {
            return None;
        }
        let step = (places * inputs.len()).div_ceil(MAX_ROWS);
        // A step that shares no factor with the width of an image sees every column.
        let step = if step > 1 { step | 1 } else { 1 };
        let outputs = weights.shape.0[0] / groups;
        let bias = bias.broadcast(shape);
        Some(Self { op, shape, weights, bias, groups, outputs, fan_in, output_axis, places, step })
    }

    fn solve(
        &self,
        group: usize,
        inputs: &[&Tensor<f32>],
        targets: &[Tensor<f32>],
    ) -> Option<Solution> {
        let split = inputs.len() - inputs.len() / 5;
        let fit = self.moments(group, 0, &inputs[..split], &targets[..split]);
        let held_out = self.moments(group, split, &inputs[split..], &targets[split..]);
        let size = self.fan_in + 1;
        let rows =
            &self.weights.data[group * self.outputs * self.fan_in..][..self.outputs * self.fan_in];
        let old = Mat::from_fn(size, self.outputs, |i, o| {
            if i < self.fan_in { f64::from(rows[o * self.fan_in + i]) } else { 0.0 }
        });
        let mean = (0..self.fan_in).map(|i| fit.gram[(i, i)]).sum::<f64>() / self.fan_in as f64;
        if !(mean.is_finite() && mean > 0.0) {
            return None;
        }
        let before = held_out.error(&old);
        let mut best = (before, old.clone());
        for ridge in RIDGES {
            let diagonal = |i: usize| mean * if i < self.fan_in { ridge } else { BIAS_RIDGE };
            let left = Mat::from_fn(size, size, |i, j| {
                fit.gram[(i, j)] + if i == j { diagonal(i) } else { 0.0 }
            });
            let right = Mat::from_fn(size, self.outputs, |i, o| {
                fit.right[(i, o)] + diagonal(i) * old[(i, o)]
            });
            let Ok(factor) = left.llt(Side::Lower) else { continue };
            let solution = factor.solve(&right);
            let error = held_out.error(&solution);
            if error < best.0 {
                best = (error, solution);
            }
        }
        let (after, solution) = best;
        let weights = (0..self.outputs)
            .flat_map(|o| (0..self.fan_in).map(move |i| (i, o)))
            .map(|(i, o)| solution[(i, o)] as f32)
            .collect();
        let bias = (0..self.outputs).map(|o| solution[(self.fan_in, o)] as f32).collect();
        Some(Solution { weights, bias, before, after })
    }

    /// Accumulates in parallel over chunks of inputs; `first` is the index of the first of them.
    fn moments(
        &self,
        group: usize,
        first: usize,
        inputs: &[&Tensor<f32>],
        targets: &[Tensor<f32>],
    ) -> Moments {
        const CHUNK: usize = 32;
        let size = self.fan_in + 1;
        let zero = || Moments {
            gram: Mat::zeros(size, size),
            right: Mat::zeros(size, self.outputs),
            squares: 0.0,
            rows: 0.0,
        };
        let sums = inputs
            .par_chunks(CHUNK)
            .zip(targets.par_chunks(CHUNK))
            .enumerate()
            .fold(zero, |mut sums, (chunk, (inputs, targets))| {
                let (mut a, mut y) = (Vec::new(), Vec::new());
                for (i, (x, t)) in inputs.iter().zip(targets).enumerate() {
                    self.rows(group, first + chunk * CHUNK + i, x, t, &mut a, &mut y);
                }
                sums.add(&a, &y, size, self.outputs);
                sums
            })
            .reduce(zero, |mut a, b| {
                a.gram += b.gram;
                a.right += b.right;
                a.squares += b.squares;
                a.rows += b.rows;
                a
            });
        sums.normalised()
    }

    /// Appends the rows of one input: its operands with a one, and its targets less the bias.
    fn rows(
        &self,
        group: usize,
        index: usize,
        x: &Tensor<f32>,
        target: &Tensor<f32>,
        a: &mut Vec<f32>,
        y: &mut Vec<f32>,
    ) {
        let start = (index * self.places).next_multiple_of(self.step) - index * self.places;
        let chosen = || (start..self.places).step_by(self.step);
        match self.op {
            Op::Convolution { geometry, .. } => {
                let patches = geometry.patches(&x.data, &x.shape, self.shape, group, 0.0, |v| v);
                for place in chosen() {
                    a.extend((0..self.fan_in).map(|i| patches[i * self.places + place]));
                    a.push(1.0);
                    y.extend((0..self.outputs).map(|o| {
                        let at = (group * self.outputs + o) * self.places + place;
                        target.data[at] - self.bias.data[at]
                    }));
                }
            }
            _ => {
                for place in chosen() {
                    a.extend_from_slice(&x.data[place * self.fan_in..(place + 1) * self.fan_in]);
                    a.push(1.0);
                    let range = place * self.outputs..(place + 1) * self.outputs;
                    let pairs = target.data[range.clone()].iter().zip(&self.bias.data[range]);
                    y.extend(pairs.map(|(t, b)| t - b));
                }
            }
        }
    }
}

impl Moments {
    fn add(&mut self, a: &[f32], y: &[f32], size: usize, outputs: usize) {
        let rows = a.len() / size;
        let shapes = "rows have one length";
        let a = ArrayView2::from_shape((rows, size), a).expect(shapes);
        let y = ArrayView2::from_shape((rows, outputs), y).expect(shapes);
        let mut gram = ndarray::Array2::<f32>::zeros((size, size));
        general_mat_mul(1.0, &a.t(), &a, 0.0, &mut gram);
        let mut right = ndarray::Array2::<f32>::zeros((size, outputs));
        general_mat_mul(1.0, &a.t(), &y, 0.0, &mut right);
        for j in 0..size {
            for i in 0..size {
                self.gram[(i, j)] += f64::from(gram[(i, j)]);
            }
        }
        for j in 0..outputs {
            for i in 0..size {
                self.right[(i, j)] += f64::from(right[(i, j)]);
            }
        }
        self.squares += y.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        self.rows += rows as f64;
    }

    fn normalised(mut self) -> Self {
        let factor = 1.0 / self.rows.max(1.0);
        self.gram *= faer::Scale(factor);
        self.right *= faer::Scale(factor);
        self.squares *= factor;
        self
    }

    /// Mean squared error of a solution on these rows: `Y² − 2·Wᵀ·R + Wᵀ·G·W`.
    fn error(&self, solution: &Mat<f64>) -> f64 {
        let product = &self.gram * solution;
        let mut error = self.squares;
        for o in 0..solution.ncols() {
            for i in 0..solution.nrows() {
                error += solution[(i, o)] * (product[(i, o)] - 2.0 * self.right[(i, o)]);
            }
        }
        error
    }
}
