//! The rules that a graph keeps after the import and after every pass.

use super::{Graph, NodeId, Op};
use crate::op::{Activation, Elementary};
use crate::tensor::{Shape, Tensor, broadcasts_to};

/// A node that breaks a rule: an error of the compiler, not of its input.
#[derive(Debug, thiserror::Error)]
#[error("node {name} ({op}): {reason}")]
pub struct GraphError {
    /// The node's name.
    pub name: String,
    /// Its operator.
    pub op: &'static str,
    /// The rule it breaks.
    pub reason: String,
}

pub(super) fn verify(graph: &Graph) -> Result<(), GraphError> {
    let order = graph.order();
    if order.len() != graph.ids().count() {
        return Err(fail(graph, graph.output, "is part of a cycle".into()));
    }
    for &id in &order {
        let node = graph.node(id);
        if !node.shape.is_bounded() {
            return Err(fail(graph, id, format!("shape {} is out of bounds", node.shape)));
        }
        let operands: Vec<&Shape> =
            graph.operands(id).into_iter().map(|o| &graph.node(o).shape).collect();
        check(&node.op, &node.shape, &operands).map_err(|reason| fail(graph, id, reason))?;
        if let Some(s) = &node.statistics
            && (s.mean.len() != node.shape.channels() || s.deviation.len() != s.mean.len())
        {
            return Err(fail(graph, id, "statistics are not one per channel".into()));
        }
    }
    Ok(())
}

fn fail(graph: &Graph, id: NodeId, reason: String) -> GraphError {
    let node = graph.node(id);
    GraphError { name: node.name.clone(), op: node.op.name(), reason }
}

fn check(op: &Op, shape: &Shape, operands: &[&Shape]) -> Result<(), String> {
    let arity = match op {
        Op::Input | Op::Constant(_) => 0,
        Op::Add | Op::Multiply | Op::Divide => 2,
        Op::Concat(_) => operands.len().max(1),
        _ => 1,
    };
    if operands.len() != arity {
        return Err(format!("has {} operands, expected {arity}", operands.len()));
    }
    let expected = match op {
        Op::Input => shape.clone(),
        Op::Constant(value) => finite(value)?.shape.clone(),
        Op::Convolution { geometry, weights, bias } => {
            let &[outputs, inputs, kh, kw] = weights.shape.0.as_slice() else {
                return Err(format!("weights have shape {}", weights.shape));
            };
            let input = operands[0];
            if input.rank() != 4
                || [kh, kw] != geometry.kernel
                || inputs * geometry.groups != input.0[1]
            {
                return Err(format!("weights {} do not fit the input {input}", weights.shape));
            }
            let output = geometry.output_shape(input, outputs).ok_or("geometry does not fit")?;
            broadcasts(bias, &output, "bias")?;
            finite(weights)?;
            output
        }
        Op::MatrixProduct { weights, bias } => {
            let mut output = operands[0].clone();
            match (weights.shape.0.as_slice(), output.0.last_mut()) {
                (&[outputs, inputs], Some(last)) if *last == inputs => *last = outputs,
                _ => return Err(format!("weights {} do not fit {}", weights.shape, operands[0])),
            }
            broadcasts(bias, &output, "bias")?;
            finite(weights)?;
            output
        }
        Op::Affine { scale, shift } => {
            broadcasts(scale, operands[0], "scale")?;
            broadcasts(shift, operands[0], "shift")?;
            operands[0].clone()
        }
        Op::Add | Op::Multiply | Op::Divide => {
            if operands[0] != operands[1] {
                return Err(format!("operands have shapes {} and {}", operands[0], operands[1]));
            }
            operands[0].clone()
        }
        Op::Activation(activation) => {
            check_activation(activation, operands[0].channels())?;
            operands[0].clone()
        }
        Op::SumWindows { kernel, stride } => windows(operands[0], *kernel, *stride)?,
        Op::MaxWindows { kernel, stride, dilation, padding } => {
            max_windows_shape(operands[0], *kernel, *stride, *dilation, *padding)
                .ok_or("windows do not fit")?
        }
        Op::AverageWindows { kernel, stride, padding } => {
            max_windows_shape(operands[0], *kernel, *stride, [1, 1], *padding)
                .ok_or("windows do not fit")?
        }
        Op::SumAxes(axes) => {
            let mut dims = operands[0].0.clone();
            for &axis in axes {
                *dims.get_mut(axis).ok_or("axis out of range")? = 1;
            }
            Shape(dims)
        }
        Op::Reshape => {
            if shape.elements() != operands[0].elements() {
                return Err(format!("cannot reshape {} to {shape}", operands[0]));
            }
            shape.clone()
        }
        Op::Transpose(permutation) => {
            let mut sorted = permutation.clone();
            sorted.sort_unstable();
            if sorted != (0..operands[0].rank()).collect::<Vec<_>>() {
                return Err(format!("{permutation:?} is no permutation of the axes"));
            }
            Shape(permutation.iter().map(|&axis| operands[0].0[axis]).collect())
        }
        Op::Take { axis, indices } => {
            let mut dims = operands[0].0.clone();
            let length = dims.get_mut(*axis).ok_or("axis out of range")?;
            if indices.iter().flatten().any(|&i| i as usize >= *length) {
                return Err("index out of range".into());
            }
            *length = indices.len();
            Shape(dims)
        }
        Op::Concat(axis) => {
            let mut dims = operands[0].0.clone();
            let mut total = 0;
            for operand in operands {
                total += operand.0.get(*axis).ok_or("axis out of range")?;
                let mut other = operand.0.clone();
                other[*axis] = dims[*axis];
                if other != dims {
                    return Err(format!("cannot join {operand} to {}", operands[0]));
                }
            }
            dims[*axis] = total;
            Shape(dims)
        }
        Op::Integers(_) => operands[0].clone(),
        Op::Softmax(axis) | Op::LogSoftmax(axis) => {
            operands[0].0.get(*axis).ok_or("axis out of range")?;
            operands[0].clone()
        }
        Op::ArgMax(axis) => {
            let mut dims = operands[0].0.clone();
            *dims.get_mut(*axis).ok_or("axis out of range")? = 1;
            Shape(dims)
        }
    };
    if expected == *shape { Ok(()) } else { Err(format!("has shape {shape}, expected {expected}")) }
}

/// The shape of maxima over windows; `None` if none fits.
pub(crate) fn max_windows_shape(
    input: &Shape,
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    padding: [usize; 4],
) -> Option<Shape> {
    if input.rank() != 4 {
        return None;
    }
    let geometry = crate::op::Convolution { groups: 1, kernel, stride, dilation, padding };
    geometry.output_shape(input, input.0[1])
}

fn windows(input: &Shape, kernel: [usize; 2], stride: [usize; 2]) -> Result<Shape, String> {
    let rank = input.rank();
    if rank < 2 || kernel.contains(&0) || stride.contains(&0) {
        return Err("windows need two axes".into());
    }
    let mut dims = input.0.clone();
    for axis in 0..2 {
        let length = &mut dims[rank - 2 + axis];
        *length = length.checked_sub(kernel[axis]).ok_or("window larger than the image")?
            / stride[axis]
            + 1;
    }
    Ok(Shape(dims))
}

fn broadcasts(constant: &Tensor<f32>, shape: &Shape, what: &str) -> Result<(), String> {
    finite(constant)?;
    if broadcasts_to(&constant.shape, shape) {
        return Ok(());
    }
    Err(format!("{what} of shape {} does not broadcast to {shape}", constant.shape))
}

fn finite(constant: &Tensor<f32>) -> Result<&Tensor<f32>, String> {
    if constant.data.iter().all(|v| v.is_finite()) {
        return Ok(constant);
    }
    Err("has a constant that is infinite or not a number".into())
}

fn check_activation(activation: &Activation, channels: usize) -> Result<(), String> {
    let fits = |n: usize| n == 1 || n == channels;
    let sound = match activation {
        Activation::Exact(e) => {
            !e.operations.is_empty()
                && e.operations.iter().enumerate().all(|(i, operation)| match operation {
                    Elementary::Affine { operand, scale, shift } => {
                        *operand <= i && fits(scale.len()) && fits(shift.len())
                    }
                    Elementary::Sum(a, b)
                    | Elementary::Product(a, b)
                    | Elementary::Quotient(a, b) => *a <= i && *b <= i,
                    Elementary::Power { operand, .. } | Elementary::Apply { operand, .. } => {
                        *operand <= i
                    }
                })
        }
        Activation::Polynomial(p) => {
            fits(p.coefficients.len())
                && p.coefficients
                    .iter()
                    .all(|c| c.len() == p.degree() + 1 && c.iter().all(|v| v.is_finite()))
        }
        Activation::Trigonometric(t) => {
            fits(t.period.len())
                && fits(t.constant.len())
                && fits(t.harmonics.len())
                && t.order() > 0
                && t.period.iter().all(|&p| p.is_finite() && p > 0.0)
                && t.harmonics.iter().all(|h| h.len() == t.order())
        }
    };
    if sound { Ok(()) } else { Err("coefficients are not one row per channel".into()) }
}
