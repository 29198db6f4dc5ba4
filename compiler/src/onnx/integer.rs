//! Linear operators on integers: those of ONNX, and those that ONNX Runtime's quantiser writes in the domain
//! `com.microsoft`. Each is the operator on reals between a dequantisation and a quantisation.
//!
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>

use super::builder::Builder;
use super::constant::Constant;
use super::kind::{INT32, Kind, REAL};
use super::node::{Call, Refusal, Typed, Value, invalid, refuse};
use super::quantize::{Parameters, dequantized, dequantized_constant, quantized};
use super::{activation, convolution, elementwise, linear, normalization, pooling, structure};
use ir::ElementType;
use ir::graph::NodeId;
use ir::tensor::{Shape, Tensor};

fn shape_of(b: &Builder, call: &Call, position: usize) -> Result<Shape, Refusal> {
    match call.operand(position)? {
        Value::Node(id) => Ok(b.shape(*id)),
        _ => Ok(call.reals(position)?.shape),
    }
}

/// The reals that an operand stands for; scales and zero points along `axis`.
fn real(
    b: &mut Builder,
    call: &Call,
    position: usize,
    parameters: [usize; 2],
    axis: i64,
) -> Result<Option<Value>, Refusal> {
    let shape = shape_of(b, call, position)?;
    of_integers(b, call, position, &Parameters::of(call, &shape, parameters, axis, 0)?)
}

/// An operand minus its zero point.
fn centred(
    b: &mut Builder,
    call: &Call,
    position: usize,
    zero: usize,
    axis: i64,
) -> Result<Option<Value>, Refusal> {
    let shape = shape_of(b, call, position)?;
    of_integers(b, call, position, &Parameters::without_scale(call, &shape, zero, axis)?)
}

fn of_integers(
    b: &mut Builder,
    call: &Call,
    position: usize,
    parameters: &Parameters,
) -> Result<Option<Value>, Refusal> {
    Ok(Some(match call.operand(position)? {
        Value::Node(id) => Value::Node(dequantized(b, *id, parameters)?),
        _ => constant(&dequantized_constant(&call.reals(position)?, parameters))?,
    }))
}

fn constant(value: &Tensor<f32>) -> Result<Value, Refusal> {
    Constant::reals(value).map(Value::Constant).map_err(invalid)
}

/// A bias in units of the product of an operand's and the weights' scales, as reals.
fn bias(
    call: &Call,
    position: usize,
    [x, weights]: [usize; 2],
    factor: f32,
) -> Result<Option<Value>, Refusal> {
    if call.optional(position).is_none() {
        return Ok(None);
    }
    let (bias, x, weights) = (call.reals(position)?, call.reals(x)?, call.reals(weights)?);
    let &[x] = x.data.as_slice() else { return Err(invalid("its operand has several scales")) };
    let last = bias.shape.0.last().copied().unwrap_or(1);
    if ![1, last].contains(&weights.data.len()) {
        return Err(invalid("its bias does not fit its scales"));
    }
    let at = |i: usize| weights.data[if weights.data.len() == 1 { 0 } else { i % last }];
    let data = bias.data.iter().enumerate().map(|(i, v)| v * factor * x * at(i)).collect();
    constant(&Tensor { shape: bias.shape, data }).map(Some)
}

/// A result quantised by the scale and zero point at two operands; the type is that of the zero point, or
/// of `otherwise`.
fn result(
    b: &mut Builder,
    call: &Call,
    y: NodeId,
    [scale, zero]: [usize; 2],
    axis: i64,
    otherwise: Kind,
) -> Typed {
    let kind = if call.optional(zero).is_some() { call.kind(zero) } else { otherwise };
    let element = kind.element().filter(|e| *e != ElementType::Real);
    let element = element.ok_or_else(|| invalid("its zero point is no integer"))?;
    let parameters = Parameters::of(call, &b.shape(y), [scale, zero], axis, 0)?;
    let q = quantized(b, y, &parameters, element)?;
    Ok(vec![(Value::Node(q), Kind::Of(element))])
}

pub(super) fn qlinear_conv(b: &mut Builder, call: &Call) -> Typed {
    let x = real(b, call, 0, [1, 2], 1)?;
    let weights = real(b, call, 3, [4, 5], 0)?;
    let bias = bias(call, 8, [1, 4], 1.0)?;
    let y = convolution::conv(b, &call.with(vec![x, weights, bias]))?;
    result(b, call, y, [6, 7], 1, call.kind(0))
}

pub(super) fn qlinear_mat_mul(b: &mut Builder, call: &Call) -> Typed {
    let left = real(b, call, 0, [1, 2], -2)?;
    let right = real(b, call, 3, [4, 5], -1)?;
    let y = linear::mat_mul(b, &call.with(vec![left, right]))?;
    result(b, call, y, [6, 7], -2, call.kind(0))
}

pub(super) fn conv_integer(b: &mut Builder, call: &Call) -> Typed {
    let operands = vec![centred(b, call, 0, 2, 1)?, centred(b, call, 1, 3, 0)?];
    Ok(vec![(Value::Node(convolution::conv(b, &call.with(operands))?), INT32)])
}

pub(super) fn mat_mul_integer(b: &mut Builder, call: &Call) -> Typed {
    let operands = vec![centred(b, call, 0, 2, -2)?, centred(b, call, 1, 3, -1)?];
    Ok(vec![(Value::Node(linear::mat_mul(b, &call.with(operands))?), INT32)])
}

/// Operators of one quantised operand.
fn unary(
    b: &mut Builder,
    call: &Call,
    operator: fn(&mut Builder, &Call) -> Result<NodeId, Refusal>,
) -> Typed {
    if call.int("channels_last", 0) != 0 {
        return Err(refuse("channels_last is not supported", "expected channels first"));
    }
    let x = real(b, call, 0, [1, 2], 1)?;
    let y = operator(b, &call.with(vec![x]))?;
    result(b, call, y, [3, 4], 1, call.kind(0))
}

pub(super) fn qlinear_sigmoid(b: &mut Builder, call: &Call) -> Typed {
    unary(b, call, activation::sigmoid)
}

pub(super) fn qlinear_leaky_relu(b: &mut Builder, call: &Call) -> Typed {
    unary(b, call, activation::leaky_relu)
}

pub(super) fn qlinear_average_pool(b: &mut Builder, call: &Call) -> Typed {
    unary(b, call, pooling::average_pool)
}

pub(super) fn qlinear_global_average_pool(b: &mut Builder, call: &Call) -> Typed {
    unary(b, call, pooling::global_average_pool)
}

/// Its attribute `opset` says which Softmax is meant.
pub(super) fn qlinear_softmax(b: &mut Builder, call: &Call) -> Typed {
    let (operands, kinds) = (call.operands.clone(), call.kinds.clone());
    let meant = Call { opset: call.int("opset", 13), kinds, ..call.with(operands) };
    unary(b, &meant, normalization::softmax)
}

fn binary(
    b: &mut Builder,
    call: &Call,
    operator: fn(&mut Builder, &Call) -> Result<NodeId, Refusal>,
) -> Typed {
    let operands = vec![real(b, call, 0, [1, 2], 1)?, real(b, call, 3, [4, 5], 1)?];
    let y = operator(b, &call.with(operands))?;
    result(b, call, y, [6, 7], 1, call.kind(0))
}

pub(super) fn qlinear_add(b: &mut Builder, call: &Call) -> Typed {
    binary(b, call, elementwise::add)
}

pub(super) fn qlinear_mul(b: &mut Builder, call: &Call) -> Typed {
    binary(b, call, elementwise::mul)
}

pub(super) fn qlinear_where(b: &mut Builder, call: &Call) -> Typed {
    let condition = Some(call.operand(0)?.clone());
    let operands = vec![condition, real(b, call, 1, [2, 3], 1)?, real(b, call, 4, [5, 6], 1)?];
    let y = elementwise::select(b, &call.with(operands))?;
    result(b, call, y, [7, 8], 1, call.kind(1))
}

/// Scale and zero point of the result, then three operands for each part.
pub(super) fn qlinear_concat(b: &mut Builder, call: &Call) -> Typed {
    let parts = (2..call.operands.len()).step_by(3);
    let parts =
        parts.map(|i| real(b, call, i, [i + 1, i + 2], 1)).collect::<Result<Vec<_>, _>>()?;
    let y = structure::concat(b, &call.with(parts))?;
    result(b, call, y, [0, 1], 1, call.kind(2))
}

/// `alpha·A·B + C`, its bias in units of `alpha` times both scales; floats without a scale of the result.
pub(super) fn qgemm(b: &mut Builder, call: &Call) -> Typed {
    let outputs = if call.int("transB", 0) != 0 { 0 } else { 1 };
    let (a, weights) = (real(b, call, 0, [1, 2], 1)?, real(b, call, 3, [4, 5], outputs)?);
    let bias = bias(call, 6, [1, 4], call.float("alpha", 1.0))?;
    let y = linear::gemm(b, &call.with(vec![a, weights, bias]))?;
    if call.optional(7).is_none() {
        return Ok(vec![(Value::Node(y), REAL)]);
    }
    result(b, call, y, [7, 8], 1, call.kind(0))
}

/// The product of a float value, quantised by its own range, and quantised weights.
pub(super) fn dynamic_quantize_mat_mul(b: &mut Builder, call: &Call) -> Typed {
    b.steps.add_dynamic();
    let operands = vec![Some(call.operand(0)?.clone()), real(b, call, 1, [2, 3], -1)?];
    product_and_bias(b, call, operands, 4)
}

pub(super) fn mat_mul_integer_to_float(b: &mut Builder, call: &Call) -> Typed {
    let operands = vec![real(b, call, 0, [2, 4], -2)?, real(b, call, 1, [3, 5], -1)?];
    product_and_bias(b, call, operands, 6)
}

fn product_and_bias(
    b: &mut Builder,
    call: &Call,
    operands: Vec<Option<Value>>,
    bias: usize,
) -> Typed {
    let mut y = linear::mat_mul(b, &call.with(operands))?;
    if call.optional(bias).is_some() {
        y = elementwise::add_constant(b, y, call.reals(bias)?)?;
    }
    Ok(vec![(Value::Node(y), REAL)])
}
