//! Multiplies neighbouring matrix products into one where that saves work: multiplications, ring bits and a
//! correlation.

use super::PassOptions;
use crate::error::CompileError;
use ir::Tensor;
use ir::graph::{Graph, NodeId, Op};
use ir::op::matrix::multiply_reals;

/// Two products in a row need a ring wide enough for both roundings, and a correlation each: one product
/// with this many times their multiplications is still cheaper.
const WORTH: usize = 4;

pub(super) fn run(graph: &mut Graph, _: &PassOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        let Some(&first) = graph.operands(id).first() else { continue };
        if graph.only_user(first) == Some(id) {
            merge(graph, first, id);
        }
    }
    Ok(())
}

fn merge(graph: &mut Graph, first: NodeId, second: NodeId) {
    let (Op::MatrixProduct { weights: w1, bias: b1 }, Op::MatrixProduct { weights: w2, bias: b2 }) =
        (&graph.node(first).op, &graph.node(second).op)
    else {
        return;
    };
    let (inputs, middle, outputs) = (w1.shape.0[1], w1.shape.0[0], w2.shape.0[0]);
    if outputs * inputs > WORTH * (outputs * middle + middle * inputs) {
        return;
    }
    let mut product = vec![0.0; outputs * inputs];
    multiply_reals(&w2.data, &w1.data, &mut product, middle, inputs);
    let row = b1.broadcast(&graph.node(first).shape);
    let mut bias = b2.broadcast(&graph.node(second).shape);
    for (x, y) in row.data.chunks_exact(middle).zip(bias.data.chunks_exact_mut(outputs)) {
        let mut moved = vec![0.0; outputs];
        multiply_reals(&w2.data, x, &mut moved, middle, 1);
        y.iter_mut().zip(moved).for_each(|(y, m)| *y += m);
    }
    let weights = Tensor::new(ir::Shape::new([outputs, inputs]), product);
    let operand = graph.operands(first);
    graph.node_mut(second).op = Op::MatrixProduct { weights, bias };
    graph.set_operands(second, &operand);
}

#[cfg(test)]
#[path = "merge_linear_tests.rs"]
mod tests;
