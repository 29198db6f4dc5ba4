//! Leaves out the bounds of clips that no calibration input reaches.
//!
//! A quantiser writes a clip behind every value, with bounds that it found on inputs of its own. A clip that
//! never clips would cost two parties an activation, or keep them from seeing the ReLU that it is on one
//! side. A fit knows the range of the calibration inputs and no other, so nothing is promised beyond it
//! anyway. The network that plans are compared with keeps its clips.

use ir::Tensor;
use ir::graph::{Graph, NodeId, Op, evaluate};
use ir::op::{Activation, Elementary, Function};
use rayon::prelude::*;
use std::collections::HashMap;

/// A bound counts as reached where values pass it by more than this share of the distance between both (of a
/// single one, to the values' other end), about four steps of 8 bits. Weights that are rounded after the
/// quantiser has found the bounds bring less, and a fitted activation in the clip's place would be off by
/// more.
const SLACK: f64 = 1.0 / 64.0;

/// Opens clips; the names of those that change.
pub fn open_clips(graph: &mut Graph, inputs: &[Tensor<f32>]) -> Vec<String> {
    let clips: Vec<(NodeId, NodeId, [f64; 2])> = graph
        .order()
        .into_iter()
        .filter_map(|id| {
            Some((id, graph.operands(id).first().copied()?, bounds(&graph.node(id).op)?))
        })
        .collect();
    if clips.is_empty() || inputs.is_empty() {
        return Vec::new();
    }
    let ranges = ranges(graph, clips.iter().map(|&(_, operand, _)| operand), inputs);
    let mut names = Vec::new();
    for (id, operand, [low, high]) in clips {
        let Some(&(least, most)) = ranges.get(&operand) else { continue };
        let (least, most) = (f64::from(least), f64::from(most));
        let bottom = if is_bound(low) { low } else { least };
        let top = if is_bound(high) { high } else { most };
        let slack = SLACK * (top - bottom).max(0.0);
        let keeps_low = is_bound(low) && least < low - slack;
        let keeps_high = is_bound(high) && most > high + slack;
        if keeps_low == is_bound(low) && keeps_high == is_bound(high) {
            continue;
        }
        names.push(graph.node(id).name.clone());
        let function = match (keeps_low, keeps_high) {
            (false, false) => {
                graph.bypass(id);
                continue;
            }
            (true, false) if low == 0.0 => Function::Relu,
            (true, _) => Function::Clip { low, high: f64::from(f32::MAX) },
            (false, true) => Function::Clip { low: f64::from(f32::MIN), high },
        };
        graph.node_mut(id).op = Op::Activation(Activation::function(function));
    }
    names
}

fn bounds(op: &Op) -> Option<[f64; 2]> {
    let Op::Activation(Activation::Exact(expression)) = op else { return None };
    match expression.operations.as_slice() {
        &[Elementary::Apply { function: Function::Clip { low, high }, operand: 0 }]
            if low < high =>
        {
            Some([low, high])
        }
        _ => None,
    }
}

/// Whether an `f32` can pass it.
fn is_bound(value: f64) -> bool {
    value > f64::from(f32::MIN) && value < f64::from(f32::MAX)
}

/// Smallest and largest value of some nodes.
fn ranges(
    graph: &Graph,
    nodes: impl Iterator<Item = NodeId>,
    inputs: &[Tensor<f32>],
) -> HashMap<NodeId, (f32, f32)> {
    let empty: HashMap<NodeId, (f32, f32)> =
        nodes.map(|id| (id, (f32::INFINITY, f32::NEG_INFINITY))).collect();
    let of_input = |mut ranges: HashMap<NodeId, (f32, f32)>, input: &Tensor<f32>| {
        evaluate(graph, input, |id, value| {
            if let Some((low, high)) = ranges.get_mut(&id) {
                value.data.iter().for_each(|&v| (*low, *high) = (low.min(v), high.max(v)));
            }
        });
        ranges
    };
    let join = |mut a: HashMap<NodeId, (f32, f32)>, b: HashMap<NodeId, (f32, f32)>| {
        for (id, (low, high)) in &mut a {
            let other = b[id];
            (*low, *high) = (low.min(other.0), high.max(other.1));
        }
        a
    };
    inputs.par_iter().fold(|| empty.clone(), of_input).reduce(|| empty.clone(), join)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Shape;

    /// The functions that are left of a clip for inputs between −1 and 2.
    fn opened(low: f64, high: f64) -> Vec<Function> {
        let shape = Shape::new([1, 2]);
        let mut graph = Graph::new("x", shape.clone());
        let clip = Op::Activation(Activation::function(Function::Clip { low, high }));
        let id = graph.add("clip", clip, shape.clone(), &[graph.input()]);
        graph.set_output(id);
        let names = open_clips(&mut graph, &[Tensor::new(shape, vec![-1.0, 2.0])]);
        graph.verify().unwrap();
        let functions: Vec<Function> = graph
            .order()
            .iter()
            .filter_map(|&id| match &graph.node(id).op {
                Op::Activation(Activation::Exact(e)) => match e.operations[0] {
                    Elementary::Apply { function, .. } => Some(function),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        assert_eq!(names.is_empty(), functions == [Function::Clip { low, high }]);
        functions
    }

    #[test]
    fn bounds_that_are_not_reached_go() {
        let (lowest, highest) = (f64::from(f32::MIN), f64::from(f32::MAX));
        assert_eq!(opened(-0.5, 1.5), [Function::Clip { low: -0.5, high: 1.5 }]);
        assert_eq!(opened(0.0, 2.5), [Function::Relu]);
        assert_eq!(opened(-0.5, 2.5), [Function::Clip { low: -0.5, high: highest }]);
        assert_eq!(opened(-1.5, 1.5), [Function::Clip { low: lowest, high: 1.5 }]);
        assert_eq!(opened(-1.0, 2.0), []);
        // Passed by a little.
        assert_eq!(opened(-0.98, 1.98), []);
        assert_eq!(opened(-0.9, 1.98), [Function::Clip { low: -0.9, high: highest }]);
    }
}
