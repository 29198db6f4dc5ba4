//! Names every node that no pass could bring to a form that two parties compute.

use super::{MaxPool, PassOptions};
use crate::error::CompileError;
use crate::onnx::UnsupportedNode;
use ir::graph::{Graph, Op};

pub(super) fn run(graph: &mut Graph, options: &PassOptions) -> Result<(), CompileError> {
    let mut refused: Vec<UnsupportedNode> = Vec::new();
    for id in graph.order() {
        let node = graph.node(id);
        let (operator, reason, advice) = match &node.op {
            Op::Multiply => (
                "Mul",
                "a product of two different values",
                "polynomials of one value are supported; replace attention and gating by layers with constant weights",
            ),
            Op::Divide => (
                "Div",
                "a quotient of two different values",
                "functions of one value are supported; replace normalisation by its own input's statistics with BatchNormalization",
            ),
            // Stays in the teacher; the student averages.
            Op::MaxWindows { dilation: [1, 1], .. } if options.max_pool == MaxPool::Average => {
                continue;
            }
            Op::MaxWindows { .. } => (
                "MaxPool",
                "there are no averages over dilated windows",
                "compile with --max-pool exact or fit, or train with average pooling",
            ),
            Op::Softmax(_) => (
                "Softmax",
                "stands before other layers",
                "only a softmax at the output is supported (the client computes it)",
            ),
            Op::LogSoftmax(_) => (
                "LogSoftmax",
                "stands before other layers",
                "only a logarithm of a softmax at the output is supported (the client computes it)",
            ),
            Op::ArgMax(_) => (
                "ArgMax",
                "stands before other layers",
                "only an arg max at the output is supported (the client computes it)",
            ),
            Op::Integers(integers) => (
                if integers.truncates { "Cast" } else { "QuantizeLinear" },
                "a value is rounded to integers in front of other layers",
                "only integers at the output are supported (the client rounds); leave the rounding out of the model",
            ),
            _ => continue,
        };
        let entry = UnsupportedNode {
            name: node.name.clone(),
            operator: operator.into(),
            reason: reason.into(),
            advice: advice.into(),
        };
        if !refused.iter().any(|r| r.name == entry.name && r.operator == entry.operator) {
            refused.push(entry);
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(CompileError::Unsupported(refused)) }
}

#[cfg(test)]
#[path = "refuse_leftovers_tests.rs"]
mod tests;
