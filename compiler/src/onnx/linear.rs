//! `Gemm` and `MatMul`: products of a value and a constant matrix.

use super::builder::Builder;
use super::einsum::product;
use super::elementwise;
use super::node::{Call, Refusal, Value, invalid, refuse};
use ir::graph::NodeId;
use ir::tensor::{Shape, Tensor};

pub(super) fn gemm(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let (alpha, beta) = (call.float("alpha", 1.0), call.float("beta", 1.0));
    let (turn_a, turn_b) = (call.int("transA", 0) != 0, call.int("transB", 0) != 0);
    let addend = match call.optional(2) {
        Some(Value::Constant(_)) => Some(call.reals(2)?.map(|c| c * beta)),
        _ => None,
    };
    let y = match (call.operand(0)?, call.operand(1)?) {
        (Value::Node(x), Value::Constant(_)) => {
            let x = matrix_operand(b, *x, turn_a)?;
            let weights = matrix(call, 1, !turn_b)?.map(|w| w * alpha);
            let y = b.matrix(x, weights, addend.unwrap_or(Tensor::scalar(0.0)))?;
            return add_value(b, call, y, beta);
        }
        (Value::Constant(_), Value::Node(x)) => {
            let x = matrix_operand(b, *x, !turn_b)?;
            let weights = matrix(call, 0, turn_a)?.map(|w| w * alpha);
            let y = b.matrix(x, weights, Tensor::scalar(0.0))?;
            b.swap_last(y)?
        }
        _ => return Err(two_values()),
    };
    let y = match addend {
        Some(addend) => elementwise::add_constant(b, y, addend)?,
        None => y,
    };
    add_value(b, call, y, beta)
}

/// Adds `beta·C` where `C` is a value.
fn add_value(b: &mut Builder, call: &Call, y: NodeId, beta: f32) -> Result<NodeId, Refusal> {
    let Some(Value::Node(c)) = call.optional(2) else { return Ok(y) };
    let c = if beta == 1.0 { *c } else { b.scaled(*c, beta, 0.0)? };
    let c = b.broadcast(c, &b.shape(y))?;
    b.sum(y, c)
}

fn matrix_operand(b: &mut Builder, x: NodeId, turn: bool) -> Result<NodeId, Refusal> {
    if b.rank(x) != 2 {
        return Err(invalid(format!("its operand has shape {}, expected a matrix", b.shape(x))));
    }
    if turn { b.swap_last(x) } else { Ok(x) }
}

/// A constant matrix, turned on request.
fn matrix(call: &Call, position: usize, turn: bool) -> Result<Tensor<f32>, Refusal> {
    let matrix = call.reals(position)?;
    if matrix.shape.rank() != 2 {
        return Err(invalid(format!("its factor has shape {}, expected a matrix", matrix.shape)));
    }
    Ok(if turn { matrix.transpose(&[1, 0]) } else { matrix })
}

pub(super) fn mat_mul(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    match (call.operand(0)?, call.operand(1)?) {
        (Value::Node(x), Value::Constant(_)) => {
            let factor = call.reals(1)?;
            let rank = factor.shape.rank();
            if is_several(&factor) {
                return several(b, *x, factor, true);
            }
            let (factor, lead) = single_matrix(factor, |v| Shape::new([v, 1]))?;
            let x = lengthen(b, *x, lead)?;
            let y = b.matrix(x, factor.transpose(&[1, 0]), Tensor::scalar(0.0))?;
            if rank == 1 { drop_axis(b, y, 1) } else { Ok(y) }
        }
        (Value::Constant(_), Value::Node(x)) => {
            let factor = call.reals(0)?;
            let rank = factor.shape.rank();
            if is_several(&factor) {
                return several(b, *x, factor, false);
            }
            let (factor, lead) = single_matrix(factor, |v| Shape::new([1, v]))?;
            if b.rank(*x) == 1 {
                let y = b.matrix(*x, factor, Tensor::scalar(0.0))?;
                let mut dims = vec![1; lead];
                dims.extend(b.dims(y));
                return if rank == 1 { b.reshape(y, &[]) } else { b.reshape(y, &dims) };
            }
            let x = lengthen(b, *x, lead)?;
            let turned = b.swap_last(x)?;
            let y = b.matrix(turned, factor, Tensor::scalar(0.0))?;
            let y = b.swap_last(y)?;
            if rank == 1 { drop_axis(b, y, 2) } else { Ok(y) }
        }
        _ => Err(two_values()),
    }
}

/// A constant factor as one matrix, and the number of leading axes of length 1 that it had.
fn single_matrix(
    factor: Tensor<f32>,
    of_vector: impl Fn(usize) -> Shape,
) -> Result<(Tensor<f32>, usize), Refusal> {
    let dims = factor.shape.0.clone();
    match dims.as_slice() {
        [] => Err(invalid("its factor is a scalar")),
        [length] => Ok((factor.reshape(of_vector(*length)), 0)),
        [lead @ .., rows, columns] if lead.iter().all(|&d| d == 1) => {
            Ok((factor.reshape(Shape::new([*rows, *columns])), lead.len()))
        }
        _ => Err(invalid(format!("its factor has shape {}", factor.shape))),
    }
}

fn is_several(factor: &Tensor<f32>) -> bool {
    let lead = factor.shape.rank().saturating_sub(2);
    factor.shape.0[..lead].iter().any(|&d| d != 1)
}

/// The product with several constant matrices, which stand on the right or on the left.
fn several(
    b: &mut Builder,
    x: NodeId,
    factor: Tensor<f32>,
    is_right: bool,
) -> Result<NodeId, Refusal> {
    // Leading axes are numbered from the last one backwards, as they broadcast.
    let lead = |rank: usize| (0..rank.saturating_sub(2) as u32).rev().collect::<Vec<_>>();
    let [row, inner, column] = ['M', 'K', 'N'].map(u32::from);
    let (own, other) =
        if is_right { ([row, inner], [inner, column]) } else { ([inner, column], [row, inner]) };
    let rank = b.rank(x);
    let mut labels = [lead(rank), own.to_vec()].concat();
    let mut result = [lead(rank.max(factor.shape.rank())), vec![row, column]].concat();
    if rank == 1 {
        labels = vec![inner];
        result.retain(|label| *label != if is_right { row } else { column });
    }
    let factor_labels = [lead(factor.shape.rank()), other.to_vec()].concat();
    product(b, x, &labels, factor, &factor_labels, &result)
}

/// At least `lead + 2` axes, so that the leading axes of the factor are there.
fn lengthen(b: &mut Builder, x: NodeId, lead: usize) -> Result<NodeId, Refusal> {
    let dims = b.dims(x);
    if lead == 0 || dims.len() >= lead + 2 {
        return Ok(x);
    }
    let mut longer = vec![1; (lead + 2).saturating_sub(dims.len())];
    longer.extend(dims);
    b.reshape(x, &longer)
}

/// Drops the axis (of length 1) at `back` positions from the end.
fn drop_axis(b: &mut Builder, y: NodeId, back: usize) -> Result<NodeId, Refusal> {
    let mut dims = b.dims(y);
    dims.remove(dims.len() - back);
    b.reshape(y, &dims)
}

fn two_values() -> Refusal {
    refuse(
        "both factors are computed from the input",
        "expected a constant factor: attention and the like are not supported",
    )
}
