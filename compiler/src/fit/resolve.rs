//! Re-solving a linear operator: weights that bring the student's outputs to the teacher's.
//!
//! Once an activation upstream was replaced, the student's operand `x` is not the teacher's, and the
//! operator's own weights are not the best ones for it any more. With `A` the rows of the student's
//! operand (patches of a convolution) and a column of ones, and `Y` the teacher's outputs at the same
//! positions, the ridge regression towards the old weights is
//! `[W; b] = (G + D)⁻¹ (R + D·[W0; b0])`, `G = AᵀA/rows`, `R = AᵀY/rows`, `D = λ·mean(diag G)` on the weights
//! and next to nothing on the bias. Where there are fewer rows than columns, the same solution comes from
//! the dual form: `W = W0 + Aᵀ(AAᵀ + rows·D)⁻¹(Y − A·W0)` with centred rows. `λ` is the one of a grid
//! (keeping the old weights included) with the smallest error on a held-out fifth of the inputs; the
//! weights are then solved for on all of them.

use super::regression::{InputMoments, Moments, Rows};
use crate::constants::{along_axis, combine};
use faer::Mat;
use ir::graph::Op;
use ir::{Shape, Tensor};
use rayon::prelude::*;

/// The most rows of the regression.
const MAX_ROWS: usize = 40_000;
/// Operators with more inputs per output get no Gram matrix: they are solved in the dual form if
/// there are few rows, or keep their weights.
pub(super) const MAX_FAN_IN: usize = 4608;
/// The most rows of a solve in the dual form.
const MAX_DUAL_ROWS: usize = 4096;
/// Rows of a chunk that is added to the sums at once.
const CHUNK_ROWS: usize = 4096;
/// Ridges tried, relative to the mean diagonal of the Gram matrix.
const RIDGES: [f64; 7] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0];
/// Wider systems than this, where a factorisation takes a second and more, try every second ridge.
const WIDE: usize = 2400;
/// The held-out error must fall by this share before weights change.
const LEAST_GAIN: f64 = 0.01;

/// What is found out about an operator once its operand is known.
pub(super) struct Resolved {
    /// The operator with re-solved weights, or `None` if its own are as good.
    pub op: Option<Op>,
    /// Moments of the inputs per group; none where the operator is too wide for them.
    pub moments: Vec<InputMoments>,
}

/// Measures the operator's inputs and, given `targets` (what its outputs should be), re-solves its
/// weights. `inputs` are the student's operands; the squared errors of each count by its weight.
pub(super) fn resolve(
    op: &Op,
    shape: &Shape,
    inputs: &[&Tensor<f32>],
    targets: Option<&[&Tensor<f32>]>,
    weights: &[f64],
) -> Resolved {
    let nothing = Resolved { op: None, moments: Vec::new() };
    let Some(problem) = Problem::new(op, shape, inputs, weights) else { return nothing };
    let groups: Vec<Group> =
        (0..problem.groups).into_par_iter().map(|g| problem.group(g, inputs, targets)).collect();
    let (mut solutions, mut moments) = (Vec::new(), Vec::new());
    for group in groups {
        solutions.extend(group.solution);
        moments.extend(group.moments);
    }
    if moments.len() < problem.groups {
        moments.clear();
    }
    Resolved { op: problem.assemble(&solutions), moments }
}

struct Problem<'a> {
    op: &'a Op,
    shape: &'a Shape,
    weights: &'a Tensor<f32>,
    bias: &'a Tensor<f32>,
    full_bias: Tensor<f32>,
    groups: usize,
    /// Outputs per group.
    outputs: usize,
    fan_in: usize,
    output_axis: usize,
    /// Positions of one input at which an output is computed.
    positions: usize,
    /// One in this many positions is used.
    step: usize,
    /// Square roots of the inputs' weights: what their rows are multiplied by.
    roots: Vec<f32>,
}

struct Group {
    solution: Option<Solution>,
    moments: Option<InputMoments>,
}

struct Solution {
    weights: Vec<f32>,
    bias: Vec<f32>,
    is_new: bool,
}

impl<'a> Problem<'a> {
    fn new(
        op: &'a Op,
        shape: &'a Shape,
        inputs: &[&Tensor<f32>],
        of_inputs: &[f64],
    ) -> Option<Self> {
        let input = &inputs.first()?.shape;
        let (weights, bias, groups, fan_in, output_axis, positions) = match op {
            Op::Convolution { geometry, weights, bias } => {
                let positions = shape.0[2] * shape.0[3];
                (weights, bias, geometry.groups, geometry.fan_in(input), 1, positions)
            }
            Op::MatrixProduct { weights, bias } => {
                let fan_in = weights.shape.0[1];
                (weights, bias, 1, fan_in, shape.rank() - 1, input.elements() / fan_in)
            }
            _ => return None,
        };
        if inputs.len() < 10 {
            return None;
        }
        let step = (positions * inputs.len()).div_ceil(MAX_ROWS);
        // A step that shares no factor with the width of an image sees every column.
        let step = if step > 1 { step | 1 } else { 1 };
        let outputs = weights.shape.0[0] / groups;
        let full_bias = bias.broadcast(shape);
        Some(Self {
            op,
            shape,
            weights,
            bias,
            full_bias,
            groups,
            outputs,
            fan_in,
            output_axis,
            positions,
            step,
            roots: of_inputs.iter().map(|w| w.sqrt() as f32).collect(),
        })
    }

    /// The operator with all groups' solutions, if they gain enough together.
    fn assemble(&self, groups: &[Solution]) -> Option<Op> {
        if groups.len() < self.groups || !groups.iter().any(|s| s.is_new) {
            return None;
        }
        let weights: Vec<f32> = groups.iter().flat_map(|s| s.weights.iter().copied()).collect();
        let moved: Vec<f32> = groups.iter().flat_map(|s| s.bias.iter().copied()).collect();
        Some(with_weights(self.op, weights, self.bias, &moved, self.shape, self.output_axis))
    }

    fn group(
        &self,
        group: usize,
        inputs: &[&Tensor<f32>],
        targets: Option<&[&Tensor<f32>]>,
    ) -> Group {
        let rows = self.positions * inputs.len() / self.step;
        let split = inputs.len() - inputs.len() / 5;
        let part = |from: usize, to: usize| {
            self.moments(group, from, &inputs[from..to], targets.map(|t| &t[from..to]))
        };
        if self.fan_in > MAX_FAN_IN {
            let targets = targets.filter(|_| rows <= MAX_DUAL_ROWS);
            let solution = targets.map(|t| self.solve_dual(group, split, inputs, t));
            return Group { solution, moments: None };
        }
        let (fit, held_out) = (part(0, split), part(split, inputs.len()));
        if let Some(targets) = targets.filter(|_| rows < self.fan_in && rows <= MAX_DUAL_ROWS) {
            let solution = Some(self.solve_dual(group, split, inputs, targets));
            return Group { solution, moments: Some(fit.plus(held_out).into_inputs()) };
        }
        let old = self.old(group);
        let ridge = targets.map(|_| {
            let solve = |ridge| fit.ridge_solution(&old, ridge);
            self.choose(self.fan_in, &old, solve, |solution| held_out.error(solution))
        });
        // The split is over: one matrix less while the weights are solved for on everything.
        let all = fit.plus(held_out);
        let solve = |ridge: Option<f64>| ridge.and_then(|ridge| all.ridge_solution(&old, ridge));
        let solution = ridge.map(|ridge| self.solution(&old, solve(ridge)));
        Group { solution, moments: Some(all.into_inputs()) }
    }

    /// The old weights of a group with a bias of zero (targets come without the bias): `[fan_in + 1, outputs]`.
    fn old(&self, group: usize) -> Mat<f64> {
        let rows =
            &self.weights.data[group * self.outputs * self.fan_in..][..self.outputs * self.fan_in];
        Mat::from_fn(self.fan_in + 1, self.outputs, |i, o| {
            if i < self.fan_in { f64::from(rows[o * self.fan_in + i]) } else { 0.0 }
        })
    }

    /// Solves in the dual form, for fewer rows than inputs.
    fn solve_dual(
        &self,
        group: usize,
        split: usize,
        inputs: &[&Tensor<f32>],
        targets: &[&Tensor<f32>],
    ) -> Solution {
        let rows = |from: usize, to: usize| {
            let (a, y) = self.matrices(group, from, &inputs[from..to], &targets[from..to]);
            Rows::new(a, y, &self.old(group))
        };
        let (fit, held_out) = (rows(0, split), rows(split, inputs.len()));
        let old = self.old(group);
        let ridge = self.choose(
            fit.rows.nrows(),
            &old,
            |ridge| fit.ridge_solution(&old, ridge),
            |solution| (&held_out.targets - &held_out.rows * solution).squared_norm_l2(),
        );
        let all = ridge.map(|ridge| (rows(0, inputs.len()), ridge));
        self.solution(&old, all.and_then(|(all, ridge)| all.ridge_solution(&old, ridge)))
    }

    /// The ridge with the smallest held-out error; `None` keeps the old weights.
    fn choose(
        &self,
        size: usize,
        old: &Mat<f64>,
        solve: impl Fn(f64) -> Option<Mat<f64>>,
        error: impl Fn(&Mat<f64>) -> f64,
    ) -> Option<f64> {
        let mut best = ((1.0 - LEAST_GAIN) * error(old), None);
        for ridge in RIDGES.into_iter().step_by(if size > WIDE { 2 } else { 1 }) {
            let Some(solution) = solve(ridge) else { continue };
            let error = error(&solution);
            if error < best.0 {
                best = (error, Some(ridge));
            }
        }
        best.1
    }

    fn solution(&self, old: &Mat<f64>, new: Option<Mat<f64>>) -> Solution {
        let is_new = new.is_some();
        let solution = new.as_ref().unwrap_or(old);
        let weights = (0..self.outputs)
            .flat_map(|o| (0..self.fan_in).map(move |i| (i, o)))
            .map(|(i, o)| solution[(i, o)] as f32)
            .collect();
        let bias = (0..self.outputs).map(|o| solution[(self.fan_in, o)] as f32).collect();
        Solution { weights, bias, is_new }
    }

    /// Accumulates over chunks of inputs, each in parallel; `first` is the index of the first of them.
    fn moments(
        &self,
        group: usize,
        first: usize,
        inputs: &[&Tensor<f32>],
        targets: Option<&[&Tensor<f32>]>,
    ) -> Moments {
        // Chunks of some thousand rows: adding up the matrices must not cost more than making them.
        let chunk_size = (CHUNK_ROWS * self.step).div_ceil(self.positions);
        let size = self.fan_in + 1;
        let outputs = if targets.is_some() { self.outputs } else { 0 };
        let mut sums = Moments::zero(size, outputs);
        for (chunk, inputs) in inputs.chunks(chunk_size).enumerate() {
            let targets = targets.map(|t| &t[chunk * chunk_size..][..inputs.len()]);
            let (a, y) = self.gather(group, first + chunk * chunk_size, inputs, targets);
            sums.add(&a, &y, size, outputs);
        }
        sums
    }

    /// Rows and targets of a few inputs as matrices.
    fn matrices(
        &self,
        group: usize,
        first: usize,
        inputs: &[&Tensor<f32>],
        targets: &[&Tensor<f32>],
    ) -> (Mat<f64>, Mat<f64>) {
        let (a, y) = self.gather(group, first, inputs, Some(targets));
        let (size, rows) = (self.fan_in + 1, a.len() / (self.fan_in + 1));
        let matrix = |data: &[f32], columns: usize| {
            Mat::from_fn(rows, columns, |i, j| f64::from(data[i * columns + j]))
        };
        (matrix(&a, size), matrix(&y, self.outputs))
    }

    /// Rows (inputs and a one) and targets less the bias, row-major, times the roots of the weights.
    fn gather(
        &self,
        group: usize,
        first: usize,
        inputs: &[&Tensor<f32>],
        targets: Option<&[&Tensor<f32>]>,
    ) -> (Vec<f32>, Vec<f32>) {
        let of_input = |(i, x): (usize, &&Tensor<f32>)| {
            let (mut a, mut y) = (Vec::new(), Vec::new());
            let index = first + i;
            let start =
                (index * self.positions).next_multiple_of(self.step) - index * self.positions;
            let chosen = || (start..self.positions).step_by(self.step);
            match self.op {
                Op::Convolution { geometry, .. } => {
                    for place in chosen() {
                        geometry.patch(&x.data, &x.shape, self.shape, group, place, &mut a);
                        a.push(1.0);
                    }
                }
                _ => {
                    for place in chosen() {
                        let range = place * self.fan_in..(place + 1) * self.fan_in;
                        a.extend_from_slice(&x.data[range]);
                        a.push(1.0);
                    }
                }
            }
            if let Some(target) = targets.map(|t| t[i]) {
                for place in chosen() {
                    y.extend((0..self.outputs).map(|o| {
                        let at = match self.op {
                            Op::Convolution { .. } => {
                                (group * self.outputs + o) * self.positions + place
                            }
                            _ => place * self.outputs + o,
                        };
                        target.data[at] - self.full_bias.data[at]
                    }));
                }
            }
            let root = self.roots[index];
            if root != 1.0 {
                a.iter_mut().chain(&mut y).for_each(|v| *v *= root);
            }
            (a, y)
        };
        let parts: Vec<(Vec<f32>, Vec<f32>)> =
            inputs.par_iter().enumerate().map(of_input).collect();
        let (a, y): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        (a.concat(), y.concat())
    }
}

/// A linear operator with other weights, and `moved` added to its bias per output.
pub(super) fn with_weights(
    op: &Op,
    weights: Vec<f32>,
    bias: &Tensor<f32>,
    moved: &[f32],
    shape: &Shape,
    axis: usize,
) -> Op {
    let bias = combine(bias, &along_axis(moved, shape, axis), |a, b| a + b);
    match op {
        Op::Convolution { geometry, weights: old, .. } => Op::Convolution {
            geometry: *geometry,
            weights: Tensor::new(old.shape.clone(), weights),
            bias,
        },
        Op::MatrixProduct { weights: old, .. } => {
            Op::MatrixProduct { weights: Tensor::new(old.shape.clone(), weights), bias }
        }
        other => other.clone(),
    }
}
