//! What operators do with scales.

use ir::graph::{Graph, NodeId, Op};

/// Whether an operator's outputs may have any scale: it multiplies with secret weights, or is a
/// constant of party 0.
pub(crate) fn is_secret(graph: &Graph, id: NodeId) -> bool {
    match &graph.node(id).op {
        Op::Convolution { .. } | Op::MatrixProduct { .. } | Op::Constant(_) => true,
        Op::Affine { .. } => uniform_factor(graph, id).is_none(),
        // All of them: whoever adds an operator decides here how scales pass it.
        Op::Input
        | Op::Add
        | Op::Multiply
        | Op::Divide
        | Op::Activation(_)
        | Op::SumWindows { .. }
        | Op::SumAxes(_)
        | Op::MaxWindows { .. }
        | Op::AverageWindows { .. }
        | Op::Reshape
        | Op::Transpose(_)
        | Op::Take { .. }
        | Op::Concat(_)
        | Op::Softmax(_)
        | Op::LogSoftmax(_)
        | Op::ArgMax(_)
        | Op::Integers(_) => false,
    }
}

/// The magnitude of the factor of an affine map that is one number for all elements but zero, or of an
/// average: it costs nothing, the integers stay, up to their sign, and their scale changes.
pub(crate) fn uniform_factor(graph: &Graph, id: NodeId) -> Option<f64> {
    match &graph.node(id).op {
        Op::Affine { scale, .. } if scale.data.len() == 1 && scale.data[0] != 0.0 => {
            Some(f64::from(scale.data[0].abs()))
        }
        Op::AverageWindows { kernel, .. } => Some(1.0 / (kernel[0] * kernel[1]) as f64),
        _ => None,
    }
}

/// How many elements of its operand a value is the sum of. One weight's error is in all of them, so their
/// errors add up.
pub(super) fn summands(graph: &Graph, id: NodeId) -> f64 {
    let window = |kernel: &[usize; 2]| (kernel[0] * kernel[1]) as f64;
    match &graph.node(id).op {
        Op::AverageWindows { kernel, .. } | Op::SumWindows { kernel, .. } => window(kernel),
        Op::SumAxes(axes) => {
            let shape = &graph.node(graph.operands(id)[0]).shape;
            axes.iter().map(|&axis| shape.0[axis] as f64).product()
        }
        _ => 1.0,
    }
}

/// Whether all that is done with a value is summing over windows of it, padded perhaps.
pub(super) fn is_summed(graph: &Graph, id: NodeId) -> bool {
    let uses = graph.uses(id);
    !uses.is_empty()
        && uses.iter().all(|&(user, _)| match graph.node(user).op {
            Op::AverageWindows { .. }
            | Op::MaxWindows { .. }
            | Op::SumWindows { .. }
            | Op::SumAxes(_) => true,
            Op::Take { .. } => is_summed(graph, user),
            _ => false,
        })
}

/// Whether an operator can scale every channel of its output by itself.
pub(crate) fn has_channel_scales(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    match &node.op {
        Op::Convolution { .. } => true,
        Op::MatrixProduct { .. } => node.shape.rank() == 2,
        _ => false,
    }
}
