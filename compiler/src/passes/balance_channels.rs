//! Gives the channels of a value scales that suit what reads them.
//!
//! A value has one unit for all of its channels, so a channel that is a hundred times smaller than the
//! others is computed a hundred times more coarsely, however large the weights behind it are. Rectifiers,
//! absolute values, maxima and sums commute with positive factors: every channel that a linear operator
//! makes is multiplied by a factor, and the weights that read it are divided by it. Factors are powers of
//! two, so the network stays the same to the bit.
//!
//! With `σ` the root mean squares of the channels and `w` the norms of the weights that read them, units
//! of `u/f` make an error of `u²·Σ w²/f²` behind values of energy `Σ f²·σ²`. The product of both is
//! smallest, `(Σ w·σ)²`, for `f = √(w/σ)` (the equalisation across layers of Nagel et al. 2019).

use super::fold_normalization::{scaled_inputs, scaled_outputs};
use crate::constants::{along_axis, compact, per_axis};
use ir::graph::{Graph, NodeId, Op, evaluate};
use ir::op::{Activation, Elementary, Function};
use ir::{Shape, Tensor};
use rayon::prelude::*;
use std::collections::HashMap;

/// Sizes are measured on at most this many inputs.
const INPUTS: usize = 64;
/// Channels get factors if that takes off at least this much of error times energy: one bit.
const LEAST_GAIN: f64 = 4.0;
/// The part of a channel in front of a rectifier that counts as if it came through.
const SHUT: f32 = 0.5;
/// Factors are within so many bits of the middle one.
const MOST_BITS: f64 = 12.0;

/// Balances every linear operator whose channels reach nothing but operators that commute with positive
/// factors, and then linear ones. The inputs are real ones. What the values of activations are multiplied
/// by now, where it is not 1.
pub fn balance_channels(graph: &mut Graph, inputs: &[Tensor<f32>]) -> HashMap<NodeId, Tensor<f32>> {
    let mut scales = HashMap::new();
    let found: Vec<Stretch> =
        graph.order().into_iter().filter_map(|id| Stretch::behind(graph, id)).collect();
    if found.is_empty() {
        return scales;
    }
    let squares = squares(graph, &found, &inputs[..inputs.len().min(INPUTS)]);
    for (stretch, squares) in found.into_iter().zip(squares) {
        let mut weights = vec![0.0; squares.len()];
        stretch.readers.iter().for_each(|reader| reader.add_squares(graph, &mut weights));
        let Some(factors) = factors(&weights, &squares) else { continue };
        multiply(graph, stretch.producer, &factors);
        stretch.readers.iter().for_each(|reader| reader.divide(graph, &factors));
        for (id, channels) in stretch.activations {
            let scale = channels.map(|channel| factors[channel as usize] as f32);
            scales.insert(id, compact(&scale, &graph.node(id).shape));
        }
    }
    scales
}

/// A linear operator, what stands behind it up to the next ones, and those.
struct Stretch {
    producer: NodeId,
    channels: usize,
    /// With the producer's channel of every element.
    activations: Vec<(NodeId, Tensor<f32>)>,
    readers: Vec<Reader>,
}

/// A linear operator behind a producer.
struct Reader {
    node: NodeId,
    /// The producer's channel of every entry of the axis that its weights read.
    channels: Vec<usize>,
    axis: usize,
}

impl Reader {
    fn operand(&self, graph: &Graph) -> NodeId {
        graph.operands(self.node)[0]
    }

    /// Adds the squares of the weights that read every channel.
    fn add_squares(&self, graph: &Graph, sums: &mut [f64]) {
        let (columns, groups, taps, weights) = match &graph.node(self.node).op {
            Op::Convolution { geometry, weights, .. } => {
                let taps = geometry.kernel[0] * geometry.kernel[1];
                (weights.shape.0[1], geometry.groups, taps, weights)
            }
            Op::MatrixProduct { weights, .. } => (weights.shape.0[1], 1, 1, weights),
            _ => return,
        };
        let rows = weights.shape.0[0] / groups;
        for (i, &w) in weights.data.iter().enumerate() {
            let (row, column) = (i / (columns * taps), i / taps % columns);
            sums[self.channels[row / rows * columns + column]] += f64::from(w).powi(2);
        }
    }

    /// Adds the mean squares of what is read of every channel.
    fn add_values(&self, value: &Tensor<f32>, sums: &mut [f64]) {
        let stride: usize = value.shape.0[self.axis + 1..].iter().product();
        let runs = value.data.chunks_exact(stride).zip(self.channels.iter().cycle());
        for (run, &channel) in runs {
            let squares: f64 = run.iter().map(|&v| f64::from(v).powi(2)).sum();
            sums[channel] += squares / value.data.len() as f64;
        }
    }

    fn divide(&self, graph: &mut Graph, factors: &[f64]) {
        let input = graph.node(self.operand(graph)).shape.clone();
        let inverse: Vec<f32> =
            self.channels.iter().map(|&channel| (1.0 / factors[channel]) as f32).collect();
        let scale = along_axis(&inverse, &input, self.axis);
        let node = graph.node(self.node);
        let Some(op) = scaled_inputs(&node.op, &scale, &Tensor::scalar(0.0), &input, &node.shape)
        else {
            return;
        };
        graph.node_mut(self.node).op = op;
    }
}

/// The axis of a linear operator's outputs.
fn output_axis(op: &Op, shape: &Shape) -> Option<usize> {
    match op {
        Op::Convolution { .. } => Some(1),
        Op::MatrixProduct { .. } => Some(shape.rank() - 1),
        _ => None,
    }
}

impl Stretch {
    /// Reads the producer's value itself.
    fn made(&self, graph: &Graph) -> Option<Reader> {
        let node = graph.node(self.producer);
        let axis = output_axis(&node.op, &node.shape)?;
        Some(Reader { node: self.producer, channels: (0..self.channels).collect(), axis })
    }

    /// `None` where something else reads the producer's channels, or no activation stands between.
    fn behind(graph: &Graph, producer: NodeId) -> Option<Self> {
        let node = graph.node(producer);
        let axis = output_axis(&node.op, &node.shape)?;
        let numbers: Vec<f32> = (0..node.shape.0[axis]).map(|i| i as f32).collect();
        let own = along_axis(&numbers, &node.shape, axis).broadcast(&node.shape);
        let mut found =
            Self { producer, channels: numbers.len(), activations: vec![], readers: vec![] };
        // The channel of every element, of the values behind the producer.
        let mut inside = HashMap::from([(producer, own)]);
        for id in graph.order() {
            let operands = graph.operands(id);
            let Some(channels) = operands.iter().find_map(|operand| inside.get(operand)) else {
                continue;
            };
            let node = graph.node(id);
            let input = &graph.node(operands[0]).shape;
            if let Some(axis) = output_axis(&node.op, input) {
                let channels = per_axis(channels, input, axis)?.into_iter().map(|c| c as usize);
                found.readers.push(Reader { node: id, channels: channels.collect(), axis });
                continue;
            }
            let is_whole = operands.iter().all(|o| inside.get(o) == Some(channels));
            if node.statistics.is_some() || !is_whole {
                return None;
            }
            let behind = channels_behind(&node.op, channels, &node.shape)?;
            if let Op::Activation(_) = node.op {
                found.activations.push((id, behind.clone()));
            }
            inside.insert(id, behind);
        }
        let is_whole = !found.activations.is_empty() && !inside.contains_key(&graph.output());
        is_whole.then_some(found)
    }
}

/// The channel of every element of an operator's result; `None` where it mixes channels or does not
/// commute with positive factors.
fn channels_behind(op: &Op, channels: &Tensor<f32>, shape: &Shape) -> Option<Tensor<f32>> {
    match op {
        Op::Add => Some(channels.clone()),
        Op::Affine { shift, .. } if shift.data.iter().all(|&t| t == 0.0) => Some(channels.clone()),
        Op::Activation(Activation::Exact(f)) if is_homogeneous(&f.operations) => {
            Some(channels.clone())
        }
        Op::Reshape => Some(channels.clone().reshape(shape.clone())),
        Op::Transpose(permutation) => Some(channels.transpose(permutation)),
        // Zeros may belong to any channel.
        Op::Take { axis, indices } => {
            let kept: Vec<Option<u32>> = indices.iter().map(|i| Some(i.unwrap_or(0))).collect();
            Some(channels.take(*axis, &kept))
        }
        Op::SumWindows { .. } | Op::AverageWindows { .. } | Op::MaxWindows { .. } => {
            let rank = channels.shape.rank();
            Some(constant_along(channels, &[rank - 2, rank - 1])?.broadcast(shape))
        }
        Op::SumAxes(axes) => constant_along(channels, axes),
        _ => None,
    }
}

/// The tensor with length 1 along axes on which it does not depend.
fn constant_along(tensor: &Tensor<f32>, axes: &[usize]) -> Option<Tensor<f32>> {
    let first = axes.iter().fold(tensor.clone(), |first, &axis| first.take(axis, &[Some(0)]));
    (first.broadcast(&tensor.shape) == *tensor).then_some(first)
}

/// Whether `f(c·x) = c·f(x)` for every `c > 0`.
fn is_homogeneous(operations: &[Elementary]) -> bool {
    let mut values = vec![true];
    for operation in operations {
        let value = match operation {
            Elementary::Affine { operand, shift, .. } => {
                values[*operand] && shift.iter().all(|&t| t == 0.0)
            }
            Elementary::Sum(a, b) => values[*a] && values[*b],
            Elementary::Apply { function, operand } => {
                values[*operand]
                    && matches!(
                        function,
                        Function::Relu | Function::LeakyRelu { .. } | Function::Abs
                    )
            }
            Elementary::Product(..) | Elementary::Quotient(..) | Elementary::Power { .. } => false,
        };
        values.push(value);
    }
    values[operations.len()]
}

/// Sums of squares per channel of the producer, of what every reader sees and of what it makes.
type Squares = Vec<Vec<Vec<f64>>>;

/// Squares of every producer's channels where their readers see them, largest of all readers. Half of a
/// channel reaches a rectifier's readers at least: what it shuts has to be computed in front of it all the
/// same.
fn squares(graph: &Graph, found: &[Stretch], inputs: &[Tensor<f32>]) -> Vec<Vec<f64>> {
    let empty = || -> Squares {
        found.iter().map(|s| vec![vec![0.0; s.channels]; s.readers.len() + 1]).collect()
    };
    let made: Vec<Option<Reader>> = found.iter().map(|s| s.made(graph)).collect();
    let of_input = |mut sums: Squares, input: &Tensor<f32>| {
        evaluate(graph, input, |id, value| {
            for ((stretch, made), sums) in found.iter().zip(&made).zip(&mut sums) {
                let Some((of_producer, of_readers)) = sums.split_last_mut() else { continue };
                for (reader, sums) in stretch.readers.iter().zip(of_readers) {
                    if reader.operand(graph) == id {
                        reader.add_values(value, sums);
                    }
                }
                if let Some(made) = made.as_ref().filter(|_| stretch.producer == id) {
                    made.add_values(&value.map(|v| v * SHUT), of_producer);
                }
            }
        });
        sums
    };
    let join = |mut a: Squares, b: Squares| {
        for (a, b) in a.iter_mut().flatten().flatten().zip(b.iter().flatten().flatten()) {
            *a += b;
        }
        a
    };
    let sums = inputs.par_iter().fold(empty, of_input).reduce(empty, join);
    let largest = |readers: Vec<Vec<f64>>| {
        readers.into_iter().reduce(|a, b| a.iter().zip(&b).map(|(a, b)| a.max(*b)).collect())
    };
    sums.into_iter().map(|readers| largest(readers).unwrap_or_default()).collect()
}

/// The factors of the channels, from the squares of weights and values; `None` if they gain little.
fn factors(weights: &[f64], values: &[f64]) -> Option<Vec<f64>> {
    let pairs = || weights.iter().zip(values);
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    let best = pairs().map(|(w, v)| (w * v).sqrt()).sum::<f64>().powi(2);
    let gain = sum(weights) * sum(values) / best;
    if !gain.is_finite() || gain < LEAST_GAIN {
        return None;
    }
    // In bits; of a channel that is never read, or always zero, anything.
    let wanted: Vec<f64> = pairs().map(|(w, v)| 0.25 * (w / v).log2()).collect();
    let mut sorted: Vec<f64> = wanted.iter().copied().filter(|f| f.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = *sorted.get(sorted.len() / 2)?;
    let bits = |f: f64| if f.is_nan() { 0.0 } else { (f - middle).clamp(-MOST_BITS, MOST_BITS) };
    Some(wanted.into_iter().map(|f| bits(f).round().exp2()).collect())
}

/// Multiplies the channels of a linear operator.
pub(super) fn multiply(graph: &mut Graph, id: NodeId, factors: &[f64]) {
    let node = graph.node(id);
    let Some(axis) = output_axis(&node.op, &node.shape) else { return };
    let shape = node.shape.clone();
    let factors: Vec<f32> = factors.iter().map(|&f| f as f32).collect();
    let scale = along_axis(&factors, &shape, axis);
    let node = graph.node_mut(id);
    if let Some(op) = scaled_outputs(&node.op, &scale, &Tensor::scalar(0.0), &shape) {
        node.op = op;
    }
    // Statistics are per channel, which is not always the operator's output.
    if axis != shape.channel_axis() {
        return;
    }
    if let Some(statistics) = &mut node.statistics {
        let moments = statistics.mean.iter_mut().zip(&mut statistics.deviation);
        for ((mean, deviation), factor) in moments.zip(&factors) {
            *mean *= f64::from(*factor);
            *deviation *= f64::from(*factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_that_is_nearly_always_shut_is_not_blown_up() {
        let mut graph = Graph::new("x", Shape::new([1, 2]));
        let x = graph.input();
        let weights = |dims: &[usize], data: &[f32]| Tensor::new(Shape::new(dims), data.to_vec());
        let op = Op::MatrixProduct {
            weights: weights(&[2, 2], &[1.0, 0.5, 0.5, 1.0]),
            bias: weights(&[2], &[0.0, -2.9]),
        };
        let made = graph.add("made", op, Shape::new([1, 2]), &[x]);
        let relu = Op::Activation(Activation::function(Function::Relu));
        let shut = graph.add("relu", relu, Shape::new([1, 2]), &[made]);
        let op =
            Op::MatrixProduct { weights: weights(&[1, 2], &[1.0, 1.0]), bias: Tensor::scalar(0.0) };
        let read = graph.add("read", op, Shape::new([1, 1]), &[shut]);
        graph.set_output(read);
        let inputs: Vec<Tensor<f32>> = (0..100)
            .map(|i| weights(&[1, 2], &[(i % 10) as f32 / 4.5 - 1.0, (i / 10) as f32 / 4.5 - 1.0]))
            .collect();
        balance_channels(&mut graph, &inputs);
        let mut largest = [0.0f32; 2];
        for input in &inputs {
            evaluate(&graph, input, |id, value| {
                if id == made {
                    let sizes = largest.iter_mut().zip(&value.data);
                    sizes.for_each(|(most, v)| *most = most.max(v.abs()));
                }
            });
        }
        assert!(largest[1] < 16.0 * largest[0], "{largest:?}");
    }
    use ir::graph::evaluate_batch;
    use ir::op::Convolution;

    fn ramp(dims: &[usize], step: f32) -> Tensor<f32> {
        let shape = Shape::new(dims);
        let n = shape.elements();
        Tensor::new(shape, (0..n).map(|i| ((i * 7919 % 23) as f32 - 11.0) * step).collect())
    }

    /// A convolution, a rectifier, a pool and a matrix product; one of its channels a hundred times
    /// larger, and the weights that read it as much smaller.
    fn network(function: Function, factor: f32) -> Graph {
        let mut graph = Graph::new("x", Shape::new([1, 2, 6, 6]));
        let geometry = Convolution {
            groups: 1,
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [1; 4],
        };
        let mut weights = ramp(&[4, 2, 3, 3], 0.1);
        weights.data[18..36].iter_mut().for_each(|w| *w *= factor);
        let op = Op::Convolution { geometry, weights, bias: Tensor::scalar(0.0) };
        let x = graph.add("conv", op, Shape::new([1, 4, 6, 6]), &[graph.input()]);
        let op = Op::Activation(Activation::function(function));
        let x = graph.add("activation", op, Shape::new([1, 4, 6, 6]), &[x]);
        let op = Op::SumWindows { kernel: [2, 2], stride: [2, 2] };
        let x = graph.add("pool", op, Shape::new([1, 4, 3, 3]), &[x]);
        let x = graph.add("flat", Op::Reshape, Shape::new([1, 36]), &[x]);
        let mut weights = ramp(&[5, 36], 0.1);
        for (i, w) in weights.data.iter_mut().enumerate() {
            *w /= if i % 36 / 9 == 1 { factor } else { 1.0 };
        }
        let op = Op::MatrixProduct { weights, bias: ramp(&[5], 0.3) };
        let x = graph.add("fc", op, Shape::new([1, 5]), &[x]);
        graph.set_output(x);
        graph
    }

    fn inputs() -> Vec<Tensor<f32>> {
        (1..5).map(|i| ramp(&[1, 2, 6, 6], 0.1 * i as f32)).collect()
    }

    #[test]
    fn a_scale_moves_through_a_rectifier_and_a_pool() {
        for function in [Function::Relu, Function::LeakyRelu { alpha: 0.1 }] {
            let graph = network(function, 128.0);
            let mut balanced = graph.clone();
            let scales = balance_channels(&mut balanced, &inputs());
            balanced.verify().unwrap();
            let scale = scales.values().next().unwrap();
            let ratio = scale.data[0] / scale.data[1];
            assert!((64.0..=256.0).contains(&ratio), "{:?}", scale.data);
            let outputs = |g: &Graph| evaluate_batch(g, &inputs());
            for (a, b) in outputs(&graph).iter().zip(outputs(&balanced)) {
                assert_eq!(a.data, b.data, "powers of two change no bit");
            }
        }
    }

    #[test]
    fn even_channels_and_other_functions_stay() {
        assert!(balance_channels(&mut network(Function::Relu, 1.0), &inputs()).is_empty());
        assert!(balance_channels(&mut network(Function::Sigmoid, 128.0), &inputs()).is_empty());
        let mut graph = network(Function::Relu, 128.0);
        let pool = graph.order().into_iter().find(|&id| graph.node(id).name == "pool").unwrap();
        graph.set_output(pool);
        graph.remove_dead();
        assert!(balance_channels(&mut graph, &inputs()).is_empty(), "an output has its own scale");
    }
}
