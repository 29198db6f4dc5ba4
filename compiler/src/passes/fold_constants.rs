//! Evaluates every node whose operands are all constants.

use super::PassOptions;
use crate::error::CompileError;
use ir::graph::{Graph, Op, evaluate_node};

pub(super) fn run(graph: &mut Graph, _: &PassOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        let operands = graph.operands(id);
        if operands.is_empty() {
            continue;
        }
        let values: Option<Vec<_>> = operands
            .iter()
            .map(|&o| match &graph.node(o).op {
                Op::Constant(value) => Some(value),
                _ => None,
            })
            .collect();
        let Some(values) = values else { continue };
        let node = graph.node(id);
        let value = evaluate_node(&node.op, &node.shape, &values);
        graph.node_mut(id).op = Op::Constant(value);
        graph.set_operands(id, &[]);
    }
    Ok(())
}

#[cfg(test)]
#[path = "fold_constants_tests.rs"]
mod tests;
