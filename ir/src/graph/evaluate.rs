//! Evaluation of graphs over the reals (`f32`, functions in `f64`).

use super::{Graph, NodeId, Op};
use crate::op::matrix::multiply_reals;
use crate::tensor::{Shape, Tensor};
use rayon::prelude::*;
use std::collections::HashMap;

/// The value of one node from the values of its operands.
///
/// # Panics
/// If called for `Op::Input`, or with operands that the graph's verifier would refuse.
pub fn evaluate_node(op: &Op, shape: &Shape, operands: &[&Tensor<f32>]) -> Tensor<f32> {
    match op {
        Op::Input => unreachable!("the input has no operands to compute it from"),
        Op::Constant(value) => value.clone(),
        Op::Convolution { geometry, weights, bias } => {
            let x = operands[0];
            let mut y = geometry.apply_reals(&weights.data, &x.data, &x.shape, shape);
            add_broadcast(&mut y, bias, shape);
            Tensor::new(shape.clone(), y)
        }
        Op::MatrixProduct { weights, bias } => {
            let (outputs, inputs) = (weights.shape.0[0], weights.shape.0[1]);
            let mut y = vec![0.0; shape.elements()];
            for (row, out) in operands[0].data.chunks_exact(inputs).zip(y.chunks_exact_mut(outputs))
            {
                multiply_reals(&weights.data, row, out, inputs, 1);
            }
            add_broadcast(&mut y, bias, shape);
            Tensor::new(shape.clone(), y)
        }
        Op::Affine { scale, shift } => {
            let mut y = operands[0].data.clone();
            if scale.shape.elements() == 1 {
                y.iter_mut().for_each(|v| *v *= scale.data[0]);
            } else {
                let scale = scale.broadcast(shape);
                y.iter_mut().zip(&scale.data).for_each(|(v, s)| *v *= s);
            }
            add_broadcast(&mut y, shift, shape);
            Tensor::new(shape.clone(), y)
        }
        Op::Add => operands[0].add(operands[1]),
        Op::Multiply => zip(operands, |a, b| a * b),
        Op::Divide => zip(operands, |a, b| a / b),
        Op::Activation(activation) => {
            let x = operands[0];
            let stride = x.shape.channel_stride();
            let channels = x.shape.channels();
            let mut y = Vec::with_capacity(x.data.len());
            for (i, run) in x.data.chunks_exact(stride).enumerate() {
                y.extend(run.iter().map(|&v| activation.at(i % channels, v as f64) as f32));
            }
            Tensor::new(shape.clone(), y)
        }
        Op::SumWindows { kernel, stride } => operands[0].sum_windows(*kernel, *stride),
        Op::SumAxes(axes) => operands[0].sum_axes(axes),
        Op::MaxWindows { kernel, stride, dilation, padding } => {
            max_windows(operands[0], shape, *kernel, *stride, *dilation, *padding)
        }
        Op::AverageWindows { kernel, stride, padding } => {
            let mut x = operands[0].clone();
            for (axis, indices) in super::padding_takes(&operands[0].shape, *padding) {
                x = x.take(axis, &indices);
            }
            let factor = 1.0 / (kernel[0] * kernel[1]) as f32;
            x.sum_windows(*kernel, *stride).map(|v| v * factor)
        }
        Op::Reshape => operands[0].clone().reshape(shape.clone()),
        Op::Transpose(permutation) => operands[0].transpose(permutation),
        Op::Take { axis, indices } => operands[0].take(*axis, indices),
        Op::Concat(axis) => Tensor::concat(operands, *axis),
        Op::Softmax(axis) => softmax(operands[0], *axis),
        Op::LogSoftmax(axis) => log_softmax(operands[0], *axis),
        Op::ArgMax(axis) => arg_max(operands[0], *axis),
        Op::Integers(integers) => operands[0].map(|v| integers.at(v)),
    }
}

/// The outputs of a graph for a batch of inputs, in parallel over the inputs.
pub fn evaluate_batch(graph: &Graph, inputs: &[Tensor<f32>]) -> Vec<Tensor<f32>> {
    inputs.par_iter().map(|input| evaluate(graph, input, |_, _| ())).collect()
}

/// The output of a graph. `observe` sees every node's value as it is made; values are freed after their
/// last reader.
pub fn evaluate(
    graph: &Graph,
    input: &Tensor<f32>,
    mut observe: impl FnMut(NodeId, &Tensor<f32>),
) -> Tensor<f32> {
    let order = graph.order();
    let mut readers: HashMap<_, usize> =
        order.iter().map(|&id| (id, graph.uses(id).len())).collect();
    let mut values: HashMap<NodeId, Tensor<f32>> = HashMap::new();
    for &id in &order {
        let node = graph.node(id);
        let operands = graph.operands(id);
        let value = if id == graph.input() {
            input.clone()
        } else {
            let operands: Vec<&Tensor<f32>> = operands.iter().map(|o| &values[o]).collect();
            evaluate_node(&node.op, &node.shape, &operands)
        };
        observe(id, &value);
        values.insert(id, value);
        for operand in operands {
            if let Some(n) = readers.get_mut(&operand) {
                *n -= 1;
                if *n == 0 && operand != graph.output() {
                    values.remove(&operand);
                }
            }
        }
    }
    values.remove(&graph.output()).unwrap_or_else(|| input.clone())
}

/// Softmax along an axis.
pub fn softmax(x: &Tensor<f32>, axis: usize) -> Tensor<f32> {
    softmax_by(x, axis, |above_top, sum| above_top.exp() / sum)
}

/// Logarithm of the softmax along an axis.
pub fn log_softmax(x: &Tensor<f32>, axis: usize) -> Tensor<f32> {
    softmax_by(x, axis, |above_top, sum| above_top - sum.ln())
}

/// A function of every element's distance from the top of its line, and the line's sum of exponentials.
fn softmax_by(x: &Tensor<f32>, axis: usize, value: impl Fn(f32, f32) -> f32) -> Tensor<f32> {
    let mut y = x.clone();
    for_each_line(&x.shape, axis, |indices| {
        let top = indices.iter().map(|&i| x.data[i]).fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = indices.iter().map(|&i| (x.data[i] - top).exp()).sum();
        for &i in indices {
            y.data[i] = value(x.data[i] - top, sum);
        }
    });
    y
}

/// The first index of the maximum along an axis, which stays with length 1.
pub fn arg_max(x: &Tensor<f32>, axis: usize) -> Tensor<f32> {
    let mut dims = x.shape.0.clone();
    dims[axis] = 1;
    let mut best = Vec::with_capacity(dims.iter().product());
    for_each_line(&x.shape, axis, |indices| {
        let mut winner = 0;
        for (n, &i) in indices.iter().enumerate() {
            if x.data[i] > x.data[indices[winner]] {
                winner = n;
            }
        }
        best.push(winner as f32);
    });
    Tensor::new(Shape(dims), best)
}

fn for_each_line(shape: &Shape, axis: usize, mut visit: impl FnMut(&[usize])) {
    let inner: usize = shape.0[axis + 1..].iter().product();
    let length = shape.0[axis];
    for outer in 0..shape.0[..axis].iter().product::<usize>() {
        for i in 0..inner {
            let line: Vec<usize> = (0..length).map(|n| (outer * length + n) * inner + i).collect();
            visit(&line);
        }
    }
}

fn add_broadcast(y: &mut [f32], constant: &Tensor<f32>, shape: &Shape) {
    if constant.data.iter().all(|&v| v == 0.0) {
        return;
    }
    // One number for a run of elements, most often: per channel, or for all.
    let lead = constant.shape.0.iter().rev().take_while(|&&d| d == 1).count();
    let run: usize = shape.0[shape.rank() - lead..].iter().product();
    let is_per_axis = constant.shape.0.iter().filter(|&&d| d != 1).count() <= 1;
    let axis = constant.shape.rank().checked_sub(lead + 1).map(|i| constant.shape.0[i]);
    let matches = axis.is_none_or(|d| shape.0[shape.rank() - lead - 1] == d);
    if is_per_axis && matches {
        let constants = constant.data.iter().cycle();
        for (run, c) in y.chunks_exact_mut(run).zip(constants) {
            run.iter_mut().for_each(|v| *v += c);
        }
        return;
    }
    let constant = constant.broadcast(shape);
    for (v, c) in y.iter_mut().zip(&constant.data) {
        *v += c;
    }
}

fn zip(operands: &[&Tensor<f32>], f: impl Fn(f32, f32) -> f32) -> Tensor<f32> {
    let pairs = operands[0].data.iter().zip(&operands[1].data);
    Tensor::new(operands[0].shape.clone(), pairs.map(|(&a, &b)| f(a, b)).collect())
}

fn max_windows(
    x: &Tensor<f32>,
    shape: &Shape,
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    padding: [usize; 4],
) -> Tensor<f32> {
    let (h, w) = (x.shape.0[2], x.shape.0[3]);
    let (oh, ow) = (shape.0[2], shape.0[3]);
    let mut y = Vec::with_capacity(shape.elements());
    for plane in x.data.chunks_exact(h * w) {
        for oy in 0..oh {
            for ox in 0..ow {
                let mut best = f32::NEG_INFINITY;
                for ky in 0..kernel[0] {
                    let row = (oy * stride[0] + ky * dilation[0]).wrapping_sub(padding[0]);
                    for kx in 0..kernel[1] {
                        let column = (ox * stride[1] + kx * dilation[1]).wrapping_sub(padding[1]);
                        if row < h && column < w {
                            best = best.max(plane[row * w + column]);
                        }
                    }
                }
                y.push(best);
            }
        }
    }
    Tensor::new(shape.clone(), y)
}
