//! Takes what the client does in the clear off the end of the graph: softmax, arg max, and shapes
//! around them.

use ir::graph::{Graph, Op};
use ir::plan::ClientStep;

/// Removes the client's steps from the end of the graph and returns them in order.
pub fn split_client(graph: &mut Graph) -> Vec<ClientStep> {
    let mut steps = Vec::new();
    loop {
        let output = graph.output();
        let node = graph.node(output);
        let step = match &node.op {
            Op::Softmax(axis) => ClientStep::Softmax(*axis),
            Op::ArgMax(axis) => ClientStep::ArgMax(*axis),
            Op::Reshape if reads_client_step(graph) => ClientStep::Reshape(node.shape.clone()),
            _ => break,
        };
        steps.push(step);
        let operand = graph.operands(output)[0];
        graph.set_output(operand);
    }
    graph.remove_dead();
    steps.reverse();
    steps
}

/// Whether the output's operand chain reaches a softmax or arg max through reshapes.
fn reads_client_step(graph: &Graph) -> bool {
    let mut id = graph.output();
    while matches!(graph.node(id).op, Op::Reshape) {
        id = graph.operands(id)[0];
    }
    matches!(graph.node(id).op, Op::Softmax(_) | Op::ArgMax(_))
}
