//! Maximum pooling as a tree of maxima of two values: `b + relu(a − b)` where rectifiers are computed exactly, or
//! `½·(a + b + |a − b|)`, where `|·|` is an activation that the fit replaces like any other. An even function closes the
//! circle without a jump, so few harmonics do.
//!
//! Windows are taken along the width, then along the height. Along an axis, the maxima over windows of
//! `n` taps come from those over the first `2^i` (the largest power below `n`) and those over the rest;
//! windows of one length are computed once, whoever asks for them. A 2×2 window with stride 2 takes three
//! `|·|` per result, a 3×3 one with stride 1 four. Taps in the padding are replaced by the nearest tap of
//! their window inside the image.
//!
//! A function that never falls commutes with the maximum: an activation that only a maximum reads moves
//! behind it, where it applies to fewer values.

use super::{MaxPool, PassOptions};
use crate::error::CompileError;
use ir::graph::{Graph, NodeId, Op};
use ir::op::{Activation, Function};
use ir::{Shape, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// The source indices of a window along an axis.
type Taps = Vec<u32>;

pub(super) fn run(graph: &mut Graph, options: &PassOptions) -> Result<(), CompileError> {
    if options.max_pool == MaxPool::Average {
        return Ok(());
    }
    for id in graph.order() {
        let Op::MaxWindows { kernel, stride, dilation, padding } = graph.node(id).op.clone() else {
            continue;
        };
        let name = graph.node(id).name.clone();
        let shape = graph.node(id).shape.clone();
        let operand = graph.operands(id)[0];
        let moved = is_movable(graph, operand, id).then(|| graph.node(operand).op.clone());
        let image = if moved.is_some() { graph.operands(operand)[0] } else { operand };
        let windows = |axis: usize| -> Vec<Taps> {
            let length = graph.node(image).shape.0[2 + axis];
            let first = |i: usize| (i * stride[axis]) as i64 - padding[axis] as i64;
            (0..shape.0[2 + axis])
                .map(|i| taps(first(i), dilation[axis] as i64, kernel[axis], length))
                .collect()
        };
        let (columns, mut rows) = (windows(1), windows(0));
        let image = drop_unused(graph, &name, image, &mut rows);
        let by = (name.as_str(), options.max_pool);
        let value = maxima(graph, by, image, 3, &columns);
        let value = maxima(graph, by, value, 2, &rows);
        match moved {
            // The activation's values are now those that the pool had, and so is its id.
            Some(op) => {
                let name = graph.node(operand).name.clone();
                let node = graph.node_mut(id);
                (node.name, node.op) = (name, op);
                graph.set_operands(id, &[value]);
            }
            None => graph.replace_uses(id, value),
        }
    }
    Ok(())
}

/// Whether a node is an activation that never falls and that `reader` alone reads.
fn is_movable(graph: &Graph, id: NodeId, reader: NodeId) -> bool {
    let rises = match &graph.node(id).op {
        Op::Activation(Activation::Exact(expression)) => expression.is_non_decreasing(),
        _ => false,
    };
    rises && graph.only_user(id) == Some(reader)
}

/// The taps of a window that starts at `first`; those outside `0..length` become the window's nearest
/// tap inside.
fn taps(first: i64, dilation: i64, kernel: usize, length: usize) -> Taps {
    let all: Vec<i64> = (0..kernel as i64).map(|j| first + j * dilation).collect();
    let inside = |&tap: &i64| (0..length as i64).contains(&tap);
    let low = all.iter().copied().find(inside).unwrap_or(0);
    let high = all.iter().copied().rfind(inside).unwrap_or(0);
    all.into_iter().map(|tap| tap.clamp(low, high) as u32).collect()
}

/// The image without the rows that no window reads; the windows are renumbered.
fn drop_unused(graph: &mut Graph, name: &str, image: NodeId, rows: &mut [Taps]) -> NodeId {
    let all = (0..graph.node(image).shape.0[2] as u32).map(|row| vec![row]).collect();
    let used = BTreeSet::from_iter(rows.iter().flatten().copied());
    let used: Vec<Taps> = used.into_iter().map(|row| vec![row]).collect();
    for tap in rows.iter_mut().flatten() {
        *tap = used.partition_point(|row| row[0] < *tap) as u32;
    }
    select(graph, name, 2, &(image, all), &used)
}

/// The maxima over windows of one length along an axis, one entry per window.
fn maxima(
    graph: &mut Graph,
    (name, by): (&str, MaxPool),
    x: NodeId,
    axis: usize,
    windows: &[Taps],
) -> NodeId {
    // Which windows are needed of every length, from the longest down.
    let kernel = windows.first().map_or(1, Vec::len);
    let mut needed = BTreeMap::from([(kernel, BTreeSet::from_iter(windows.iter().cloned()))]);
    for length in (2..=kernel).rev() {
        for window in needed.get(&length).cloned().unwrap_or_default() {
            let (first, rest) = window.split_at(half(length));
            for part in [first, rest] {
                needed.entry(part.len()).or_default().insert(part.to_vec());
            }
        }
    }
    // Their maxima, from the shortest up: single taps are the image itself.
    let single = (0..graph.node(x).shape.0[axis] as u32).map(|i| vec![i]).collect();
    let mut known: BTreeMap<usize, (NodeId, Vec<Taps>)> = BTreeMap::from([(1, (x, single))]);
    for (length, windows) in needed.into_iter().filter(|(length, _)| *length > 1) {
        let windows: Vec<Taps> = windows.into_iter().collect();
        let part = |range: std::ops::Range<usize>| -> Vec<Taps> {
            windows.iter().map(|w| w[range.clone()].to_vec()).collect()
        };
        let middle = half(length);
        let first = select(graph, name, axis, &known[&middle], &part(0..middle));
        let rest = select(graph, name, axis, &known[&(length - middle)], &part(middle..length));
        let value = match by {
            MaxPool::Fit => fitted_maximum(graph, name, first, rest),
            MaxPool::Exact | MaxPool::Average => exact_maximum(graph, name, first, rest),
        };
        known.insert(length, (value, windows));
    }
    select(graph, name, axis, &known[&kernel], windows)
}

/// The largest power of two below `length`.
fn half(length: usize) -> usize {
    length.next_power_of_two() / 2
}

/// The entries of `known` that stand for `windows`, in their order.
fn select(
    graph: &mut Graph,
    name: &str,
    axis: usize,
    (node, known): &(NodeId, Vec<Taps>),
    windows: &[Taps],
) -> NodeId {
    if known == windows {
        return *node;
    }
    let position: BTreeMap<&Taps, u32> = known.iter().zip(0..).collect();
    let indices: Vec<Option<u32>> = windows.iter().map(|w| Some(position[w])).collect();
    let mut shape = graph.node(*node).shape.clone();
    shape.0[axis] = indices.len();
    graph.add(name, Op::Take { axis, indices }, shape, &[*node])
}

/// `b + relu(a − b)`
fn exact_maximum(graph: &mut Graph, name: &str, a: NodeId, b: NodeId) -> NodeId {
    let shape: Shape = graph.node(a).shape.clone();
    let mut add = |op, operands: &[NodeId]| graph.add(name, op, shape.clone(), operands);
    let times = |factor| Op::Affine { scale: Tensor::scalar(factor), shift: Tensor::scalar(0.0) };
    let negative = add(times(-1.0), &[b]);
    let difference = add(Op::Add, &[a, negative]);
    let excess = add(Op::Activation(Activation::function(Function::Relu)), &[difference]);
    add(Op::Add, &[b, excess])
}

/// `½·(a + (b + |a − b|))`: both sums stand behind the distance, whose circle settles what `a` and `b` are
/// scaled by.
fn fitted_maximum(graph: &mut Graph, name: &str, a: NodeId, b: NodeId) -> NodeId {
    let shape: Shape = graph.node(a).shape.clone();
    let mut add = |op, operands: &[NodeId]| graph.add(name, op, shape.clone(), operands);
    let times = |factor| Op::Affine { scale: Tensor::scalar(factor), shift: Tensor::scalar(0.0) };
    let negative = add(times(-1.0), &[b]);
    let difference = add(Op::Add, &[a, negative]);
    let distance = add(Op::Activation(Activation::function(Function::Abs)), &[difference]);
    let sum = add(Op::Add, &[b, distance]);
    let twice = add(Op::Add, &[a, sum]);
    add(times(0.5), &[twice])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::graph::evaluate;
    use ir::op::{Convolution, Elementary, Expression};

    /// Values of both signs without a pattern, no two alike.
    fn image(dims: [usize; 4]) -> Tensor<f32> {
        let shape = Shape::new(dims);
        let n = shape.elements() as u32;
        let values = (0..n).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e6 - 8.0);
        Tensor::new(shape, values.collect())
    }

    fn pool(geometry: Convolution, dims: [usize; 4], activation: Option<Activation>) -> Graph {
        let shape = Shape::new(dims);
        let mut graph = Graph::new("x", shape.clone());
        let mut value = graph.input();
        if let Some(activation) = activation {
            value = graph.add("activation", Op::Activation(activation), shape.clone(), &[value]);
        }
        let Convolution { kernel, stride, dilation, padding, .. } = geometry;
        let output = geometry.output_shape(&shape, dims[1]).unwrap();
        let op = Op::MaxWindows { kernel, stride, dilation, padding };
        value = graph.add("pool", op, output, &[value]);
        graph.set_output(value);
        graph.verify().unwrap();
        graph
    }

    /// Expands either way, checks the values, and returns the number of absolute values and the graph that has them.
    fn check(graph: &Graph) -> (usize, Graph) {
        check_by(graph, MaxPool::Exact);
        check_by(graph, MaxPool::Fit)
    }

    fn check_by(graph: &Graph, max_pool: MaxPool) -> (usize, Graph) {
        let mut expanded = graph.clone();
        run(&mut expanded, &PassOptions { max_pool }).unwrap();
        expanded.remove_dead();
        expanded.verify().unwrap();
        let shape = &graph.node(graph.input()).shape.0;
        let input = image([shape[0], shape[1], shape[2], shape[3]]);
        let want = evaluate(graph, &input, |_, _| ());
        let got = evaluate(&expanded, &input, |_, _| ());
        assert_eq!(want.shape, got.shape);
        for (a, b) in got.data.iter().zip(&want.data) {
            assert!((a - b).abs() < 1e-4, "{a} instead of {b}");
        }
        let is_abs = |op: &Op| *op == Op::Activation(Activation::function(Function::Abs));
        let mut nodes = expanded.order().into_iter().map(|id| expanded.node(id));
        assert!(nodes.clone().all(|n| !matches!(n.op, Op::MaxWindows { .. })));
        let distances = nodes.by_ref().filter(|n| is_abs(&n.op)).map(|n| n.shape.elements()).sum();
        (distances, expanded)
    }

    fn geometry(kernel: [usize; 2], stride: [usize; 2]) -> Convolution {
        Convolution { groups: 1, kernel, stride, dilation: [1, 1], padding: [0; 4] }
    }

    #[test]
    fn trees_compute_the_maximum() {
        for kernel in [[1, 1], [2, 2], [3, 3], [3, 2], [1, 4], [5, 7]] {
            for stride in [[1, 1], [2, 2], [3, 3], [1, 3]] {
                for dilation in [[1, 1], [2, 1]] {
                    let pads = [kernel[0] / 2, kernel[1] / 2, (kernel[0] - 1) / 2, 0];
                    for padding in [[0; 4], pads] {
                        let geometry = Convolution { groups: 1, kernel, stride, dilation, padding };
                        check(&pool(geometry, [1, 3, 11, 9], None));
                    }
                }
            }
        }
    }

    #[test]
    fn windows_share_what_they_have_in_common() {
        let count = |geometry, dims| check(&pool(geometry, dims, None)).0;
        // Three per result; rows that no window reads cost nothing.
        assert_eq!(count(geometry([2, 2], [2, 2]), [1, 2, 8, 8]), 2 * 16 * 3);
        assert_eq!(count(geometry([2, 2], [2, 2]), [1, 2, 9, 9]), 2 * 16 * 3);
        // Pairs, then quadruples, per direction: 10 + 8 per row, then as many per column.
        assert_eq!(count(geometry([1, 4], [1, 1]), [1, 1, 6, 11]), 6 * (10 + 8));
        assert_eq!(count(geometry([3, 3], [1, 1]), [1, 1, 6, 6]), 6 * (4 + 4) + 4 * (4 + 4));
    }

    #[test]
    fn activations_that_never_fall_move_behind() {
        let window = geometry([2, 2], [2, 2]);
        let elements = |activation: Activation| {
            let (_, graph) = check(&pool(window, [1, 2, 8, 8], Some(activation.clone())));
            let mut nodes = graph.order().into_iter().map(|id| graph.node(id));
            nodes.find(|n| n.op == Op::Activation(activation.clone())).unwrap().shape.elements()
        };
        assert_eq!(elements(Activation::function(Function::Relu)), 32);
        assert_eq!(elements(Activation::function(Function::LeakyRelu { alpha: 0.1 })), 32);
        assert_eq!(elements(Activation::function(Function::LeakyRelu { alpha: -0.1 })), 128);
        assert_eq!(elements(Activation::function(Function::Silu)), 128);
        let scaled = |scale| {
            Activation::Exact(Expression::new(vec![
                Elementary::Apply { function: Function::Relu, operand: 0 },
                Elementary::Affine { operand: 1, scale, shift: vec![0.5] },
            ]))
        };
        assert_eq!(elements(scaled(vec![2.0, 0.5])), 32);
        assert_eq!(elements(scaled(vec![2.0, -0.5])), 128);
    }

    #[test]
    fn activations_with_other_readers_stay() {
        let relu = Activation::function(Function::Relu);
        let mut graph = pool(geometry([2, 2], [1, 1]), [1, 2, 3, 3], Some(relu));
        let pool = graph.output();
        let relu = graph.operands(pool)[0];
        let corner = |axis| Op::Take { axis, indices: vec![Some(0), Some(1)] };
        let rows = graph.add("rows", corner(2), Shape::new([1, 2, 2, 3]), &[relu]);
        let corner = graph.add("corner", corner(3), Shape::new([1, 2, 2, 2]), &[rows]);
        let sum = graph.add("sum", Op::Add, Shape::new([1, 2, 2, 2]), &[pool, corner]);
        graph.set_output(sum);
        let (_, expanded) = check(&graph);
        let mut nodes = expanded.order().into_iter().map(|id| expanded.node(id));
        assert_eq!(nodes.find(|n| n.name == "activation").unwrap().shape.elements(), 18);
    }

    #[test]
    fn averages_leave_pools_alone() {
        let mut graph = pool(geometry([2, 2], [2, 2]), [1, 1, 4, 4], None);
        run(&mut graph, &PassOptions { max_pool: MaxPool::Average }).unwrap();
        assert_eq!(graph.order().len(), 2);
    }
}
