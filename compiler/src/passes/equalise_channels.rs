//! Gives the channels of a convolution one range where maxima of them are taken.
//!
//! A phase whose operand is a sum has one period for all channels, so channels of small range see little
//! of the circle. A maximum, `|·|` and sums commute with positive factors: every channel of the
//! convolution is multiplied to the widest one's range, and the activations behind divide again. Both are
//! exact and fold into secret weights and coefficients.

use super::balance_channels::multiply;
use super::recognise_activations::append;
use crate::constants::along_axis;
use ir::Tensor;
use ir::graph::{Graph, NodeId, Op, evaluate};
use ir::op::{Activation, Elementary, Expression, Function};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Ranges are measured on at most this many inputs.
const INPUTS: usize = 256;
/// A channel counts as no narrower than this share of the widest.
const NARROWEST: f64 = 1e-2;

/// Equalises every convolution whose channels reach nothing but absolute values, sums and then
/// activations that may hold secrets, none that `is_public`. The inputs are real ones. What the values of activations are multiplied by now, where it is
/// not 1.
pub fn equalise_channels(
    graph: &mut Graph,
    inputs: &[Tensor<f32>],
    is_public: impl Fn(NodeId) -> bool,
) -> HashMap<NodeId, Tensor<f32>> {
    let mut scales = HashMap::new();
    let mut found: Vec<(NodeId, Behind)> =
        graph.order().into_iter().filter_map(|id| Some((id, behind(graph, id)?))).collect();
    found.retain(|(_, behind)| !behind.activations.iter().any(|&id| is_public(id)));
    if found.is_empty() {
        return scales;
    }
    let convolutions: Vec<NodeId> = found.iter().map(|(id, _)| *id).collect();
    let ranges = ranges(graph, &convolutions, &inputs[..inputs.len().min(INPUTS)]);
    for ((convolution, behind), ranges) in found.into_iter().zip(ranges) {
        let widest = ranges.iter().copied().fold(0.0, f64::max);
        if !(widest.is_finite() && widest > 0.0) {
            continue;
        }
        let factors: Vec<f64> =
            ranges.iter().map(|range| widest / range.max(NARROWEST * widest)).collect();
        multiply(graph, convolution, &factors);
        let scale: Vec<f32> = factors.iter().map(|&factor| factor as f32).collect();
        for id in behind.absolutes {
            scales.insert(id, along_axis(&scale, &graph.node(id).shape, 1));
        }
        for activation in behind.activations {
            divide(graph, activation, &factors);
        }
    }
    scales
}

/// What stands behind a convolution.
struct Behind {
    /// Absolute values of its channels, or of sums of them.
    absolutes: Vec<NodeId>,
    /// The activations that read those, or the channels.
    activations: Vec<NodeId>,
}

/// `None` where something but activations reads the channels, or where there is no absolute value.
fn behind(graph: &Graph, convolution: NodeId) -> Option<Behind> {
    if !matches!(graph.node(convolution).op, Op::Convolution { .. }) {
        return None;
    }
    let absolute = Op::Activation(Activation::function(Function::Abs));
    let mut inside = HashSet::from([convolution]);
    let mut activations = Vec::new();
    for id in graph.order() {
        let operands = graph.operands(id);
        if !operands.iter().any(|operand| inside.contains(operand)) {
            continue;
        }
        let node = graph.node(id);
        let is_homogeneous = match &node.op {
            Op::Add | Op::SumWindows { .. } | Op::AverageWindows { .. } => true,
            Op::Take { axis, .. } => *axis != 1,
            Op::Affine { scale, shift } => {
                scale.data.len() == 1 && shift.data.iter().all(|&t| t == 0.0)
            }
            op => *op == absolute,
        };
        if is_homogeneous && node.statistics.is_none() {
            if !operands.iter().all(|operand| inside.contains(operand)) {
                return None;
            }
            inside.insert(id);
        } else if matches!(node.op, Op::Activation(Activation::Exact(_))) {
            activations.push(id);
        } else {
            return None;
        }
    }
    let is_open = inside.contains(&graph.output());
    let absolutes: Vec<NodeId> =
        inside.into_iter().filter(|&id| graph.node(id).op == absolute).collect();
    (!absolutes.is_empty() && !is_open).then_some(Behind { absolutes, activations })
}

/// Largest minus smallest value of every channel of some nodes.
fn ranges(graph: &Graph, nodes: &[NodeId], inputs: &[Tensor<f32>]) -> Vec<Vec<f64>> {
    let empty = || -> Vec<Vec<(f32, f32)>> {
        let channels = |id: &NodeId| graph.node(*id).shape.channels();
        nodes.iter().map(|id| vec![(f32::INFINITY, f32::NEG_INFINITY); channels(id)]).collect()
    };
    let of_input = |mut extremes: Vec<Vec<(f32, f32)>>, input: &Tensor<f32>| {
        evaluate(graph, input, |id, value| {
            if let Some(position) = nodes.iter().position(|&node| node == id) {
                let channels = &mut extremes[position];
                let runs = value.data.chunks_exact(value.shape.channel_stride());
                for (i, run) in runs.enumerate() {
                    let (low, high) = &mut channels[i % value.shape.channels()];
                    run.iter().for_each(|&v| (*low, *high) = (low.min(v), high.max(v)));
                }
            }
        });
        extremes
    };
    let join = |mut a: Vec<Vec<(f32, f32)>>, b: Vec<Vec<(f32, f32)>>| {
        for (a, b) in a.iter_mut().flatten().zip(b.iter().flatten()) {
            *a = (a.0.min(b.0), a.1.max(b.1));
        }
        a
    };
    let extremes = inputs.par_iter().fold(empty, of_input).reduce(empty, join);
    let width = |(low, high): (f32, f32)| f64::from(high) - f64::from(low);
    extremes.into_iter().map(|channels| channels.into_iter().map(width).collect()).collect()
}

/// Lets an activation divide its operand's channels first.
fn divide(graph: &mut Graph, id: NodeId, factors: &[f64]) {
    let Op::Activation(Activation::Exact(function)) = &graph.node(id).op else { return };
    let scale = factors.iter().map(|f| 1.0 / f).collect();
    let mut operations = vec![Elementary::Affine { operand: 0, scale, shift: vec![0.0] }];
    append(&mut operations, function);
    graph.node_mut(id).op = Op::Activation(Activation::Exact(Expression::new(operations)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::{MaxPool, PassOptions, run_all};
    use ir::Shape;
    use ir::graph::evaluate_batch;
    use ir::op::Convolution;

    fn ramp(dims: &[usize], step: f32) -> Tensor<f32> {
        let shape = Shape::new(dims);
        let n = shape.elements();
        Tensor::new(shape, (0..n).map(|i| ((i * 7919 % 23) as f32 - 11.0) * step).collect())
    }

    /// A convolution whose channels have different ranges, a pool behind its activation.
    fn network(function: Function) -> Graph {
        let mut graph = Graph::new("x", Shape::new([1, 2, 6, 6]));
        let geometry = Convolution {
            groups: 1,
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [1; 4],
        };
        let mut weights = ramp(&[4, 2, 3, 3], 0.1);
        for (i, w) in weights.data.iter_mut().enumerate() {
            *w *= [0.1, 1.0, 5.0, 0.0][i / 18];
        }
        let op = Op::Convolution { geometry, weights, bias: ramp(&[4, 1, 1], 0.1) };
        let conv = graph.add("conv", op, Shape::new([1, 4, 6, 6]), &[graph.input()]);
        let op = Op::Activation(Activation::function(function));
        let activation = graph.add("activation", op, Shape::new([1, 4, 6, 6]), &[conv]);
        let op =
            Op::MaxWindows { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], padding: [0; 4] };
        let pool = graph.add("pool", op, Shape::new([1, 4, 3, 3]), &[activation]);
        graph.set_output(pool);
        run_all(&mut graph, &PassOptions { max_pool: MaxPool::Fit }).unwrap();
        graph
    }

    #[test]
    fn channels_get_one_range_and_the_network_stays() {
        let graph = network(Function::Sigmoid);
        let inputs: Vec<Tensor<f32>> =
            (1..5).map(|i| ramp(&[1, 2, 6, 6], 0.1 * i as f32)).collect();
        let mut equal = graph.clone();
        equalise_channels(&mut equal, &inputs, |_| false);
        equal.verify().unwrap();
        let conv = |g: &Graph| g.order().into_iter().find(|&id| g.node(id).name == "conv").unwrap();
        let ranges = &ranges(&equal, &[conv(&equal)], &inputs)[0];
        for range in &ranges[..3] {
            assert!((range / ranges[0] - 1.0).abs() < 1e-4, "{ranges:?}");
        }
        let (want, got) = (evaluate_batch(&graph, &inputs), evaluate_batch(&equal, &inputs));
        for (a, b) in want.iter().zip(&got).flat_map(|(a, b)| a.data.iter().zip(&b.data)) {
            assert!((a - b).abs() < 1e-4, "{b} instead of {a}");
        }
    }

    #[test]
    fn channels_that_something_else_reads_stay() {
        // This function falls somewhere, so it stays in front of the pool: no distances of channels.
        let graph = network(Function::Silu);
        assert!(graph.order().iter().all(|&id| behind(&graph, id).is_none()));
        // A reader that is no activation.
        let mut graph = network(Function::Relu);
        let pooled = graph.operands(graph.output())[0];
        graph.set_output(pooled);
        graph.remove_dead();
        assert!(graph.order().iter().all(|&id| behind(&graph, id).is_none()));
    }
}
