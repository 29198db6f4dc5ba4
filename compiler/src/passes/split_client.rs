//! Takes what the client does in the clear off the end of the graph: softmax, arg max, integers, a clip with
//! two bounds, and shapes and numbers' scales in between, of every output.

use ir::graph::{Graph, Node, NodeId, Op};
use ir::op::{Activation, Elementary, Function};
use ir::plan::ClientStep;
use ir::tensor::{Shape, Tensor};

/// One of a graph's outputs without the client's steps.
pub struct Scores {
    /// The node whose value they are.
    pub node: NodeId,
    /// The client's steps, in order.
    pub client: Vec<ClientStep>,
}

/// Removes the client's steps from the end of the graph and returns what is left of each of its outputs,
/// which have these shapes: where there are several, the graph's output is the join of their rows.
pub fn split_client(graph: &mut Graph, outputs: &[Shape]) -> Vec<Scores> {
    let joined = graph.output();
    if outputs.len() == 1 {
        let scores = scores(graph, joined);
        graph.set_output(scores.node);
        graph.remove_dead();
        return vec![scores];
    }
    let rows = graph.operands(joined);
    let split: Vec<Scores> = rows
        .iter()
        .zip(outputs)
        .map(|(&row, shape)| match graph.node(row).shape == *shape {
            true => scores(graph, row),
            // What made a row of the output is no part of it.
            false => scores(graph, graph.operands(row)[0]),
        })
        .collect();
    let rows: Vec<NodeId> = split.iter().map(|s| row(graph, s.node)).collect();
    graph.set_operands(joined, &rows);
    graph.remove_dead();
    split
}

/// The value of a node as a row.
fn row(graph: &mut Graph, id: NodeId) -> NodeId {
    let node = graph.node(id);
    let shape = Shape::new([1, node.shape.elements()]);
    if node.shape == shape {
        return id;
    }
    let name = node.name.clone();
    graph.add(name, Op::Reshape, shape, &[id])
}

fn scores(graph: &Graph, output: NodeId) -> Scores {
    let (mut id, mut client) = (output, Vec::new());
    let (mut taken, mut node) = (0, id);
    while let Some(step) = client_step(graph.node(id)) {
        // Neither shapes nor scales are worth a step of their own: two parties compute them for nothing.
        let is_reason = !matches!(step, ClientStep::Reshape(_) | ClientStep::Affine { .. });
        id = graph.operands(id)[0];
        client.push(step);
        if is_reason {
            (taken, node) = (client.len(), id);
        }
    }
    client.truncate(taken);
    client.reverse();
    Scores { node, client }
}

fn client_step(node: &Node) -> Option<ClientStep> {
    let number = |t: &Tensor<f32>| (t.data.len() == 1).then(|| t.data[0]);
    match &node.op {
        Op::Softmax(axis) => Some(ClientStep::Softmax(*axis)),
        Op::LogSoftmax(axis) => Some(ClientStep::LogSoftmax(*axis)),
        Op::ArgMax(axis) => Some(ClientStep::ArgMax(*axis)),
        Op::Integers(integers) => Some(ClientStep::Integers(*integers)),
        Op::Reshape => Some(ClientStep::Reshape(node.shape.clone())),
        Op::Affine { scale, shift } => {
            Some(ClientStep::Affine { scale: number(scale)?, shift: number(shift)? })
        }
        Op::Activation(Activation::Exact(expression)) => match expression.operations.as_slice() {
            &[Elementary::Apply { function: Function::Clip { low, high }, operand: 0 }] => {
                let (low, high) = (low as f32, high as f32);
                // A bound that no value exceeds is none: what is left is a ReLU, which hides what it drops.
                (low > f32::MIN && low <= high && high < f32::MAX)
                    .then_some(ClientStep::Clip { low, high })
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::{ElementType, Integers};

    fn graph(ops: Vec<Op>) -> Graph {
        let shape = Shape::new([1, 4]);
        let mut graph = Graph::new("x", shape.clone());
        let mut value = graph.input();
        for op in ops {
            value = graph.add("node", op, shape.clone(), &[value]);
        }
        graph.set_output(value);
        graph
    }

    fn affine(scale: f32, shift: f32) -> Op {
        Op::Affine { scale: Tensor::scalar(scale), shift: Tensor::scalar(shift) }
    }

    fn clip(low: f64, high: f64) -> Op {
        Op::Activation(Activation::function(Function::Clip { low, high }))
    }

    #[test]
    fn a_quantised_output_is_clipped_scaled_and_rounded_by_the_client() {
        let integers =
            Integers { element: ElementType::Integer { bits: 8, signed: false }, truncates: false };
        let relu = Op::Activation(Activation::function(Function::Relu));
        let ops = vec![relu.clone(), clip(-2.0, 2.0), affine(64.0, 128.0), Op::Integers(integers)];
        let mut graph = graph(ops);
        let steps = split_client(&mut graph, &[Shape::new([1, 4])]).remove(0).client;
        assert_eq!(
            steps,
            [
                ClientStep::Clip { low: -2.0, high: 2.0 },
                ClientStep::Affine { scale: 64.0, shift: 128.0 },
                ClientStep::Integers(integers),
            ]
        );
        assert!(graph.node(graph.output()).op == relu);
    }

    #[test]
    fn scales_and_one_sided_clips_stay_with_the_parties() {
        for op in [affine(2.0, 0.0), clip(0.0, f64::from(f32::MAX)), Op::Reshape] {
            let mut graph = graph(vec![op]);
            assert!(split_client(&mut graph, &[Shape::new([1, 4])])[0].client.is_empty());
            assert_eq!(graph.order().len(), 2);
        }
    }
}
