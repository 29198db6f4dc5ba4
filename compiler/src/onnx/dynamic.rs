//! Dynamic quantisation: a value is quantised by its own range, multiplied as integers, and the product
//! scaled back. What is left without the rounding is the product itself. Scale and zero point are never
//! known, so their three parts are recognised where they meet again, and refused elsewhere.

use super::builder::Builder;
use super::constant::Constant;
use super::kind::{Kind, REAL};
use super::node::{Call, Refusal, Typed, Value, invalid, refuse};
use ir::tensor::Tensor;

/// The refusal of a part without the others.
pub(super) fn alone() -> Refusal {
    refuse(
        "it needs the integers, the scale or the zero point of a DynamicQuantizeLinear, which depend on the \
         range of the input",
        "expected MatMulInteger or ConvInteger, and a product with the scale, behind it; or quantise statically",
    )
}

/// The integers as the value itself, in units of the scale.
pub(super) fn dynamic_quantize(b: &mut Builder, call: &Call) -> Typed {
    let x = call.value(0)?;
    b.steps.add_dynamic();
    let number = |v| Constant::reals(&Tensor::scalar(v)).map(Value::Constant).map_err(invalid);
    Ok(vec![
        (Value::Node(x), Kind::Quantized(x)),
        (number(1.0)?, Kind::Scale(x)),
        (number(0.0)?, Kind::ZeroPoint(x)),
    ])
}

/// The kind of the result of a node that reads parts of a dynamic quantisation.
pub(super) fn kind_of_result(call: &Call) -> Result<Kind, Refusal> {
    let is_known = |position: usize| match call.optional(position) {
        Some(Value::Constant(_)) => call.kind(position).element().is_some(),
        None => true,
        _ => false,
    };
    let kind = |position: usize| call.kind(position);
    let known = |positions: &[usize]| positions.iter().all(|&p| is_known(p));
    let meet = |value: usize, zero: usize, scale: Option<usize>| match kind(value) {
        Kind::Quantized(of) => {
            kind(zero) == Kind::ZeroPoint(of)
                && scale.is_none_or(|scale| kind(scale) == Kind::Scale(of))
        }
        _ => false,
    };
    match call.proto.op_type.as_str() {
        "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose"
            if known(&[1]) =>
        {
            return Ok(kind(0));
        }
        "Cast" => {
            let target = super::kind::element_of(i32::try_from(call.int("to", 0)).unwrap_or(-1));
            let is_real = target == Ok(ir::ElementType::Real);
            if is_real && matches!(kind(0), Kind::Steps(_) | Kind::Scale(_)) {
                return Ok(kind(0));
            }
        }
        "Mul" => match (kind(0), kind(1)) {
            (Kind::Steps(a), Kind::Scale(b)) | (Kind::Scale(b), Kind::Steps(a)) if a == b => {
                return Ok(REAL);
            }
            (part @ (Kind::Steps(_) | Kind::Scale(_)), REAL) if known(&[1]) => return Ok(part),
            (REAL, part @ (Kind::Steps(_) | Kind::Scale(_))) if known(&[0]) => return Ok(part),
            _ => {}
        },
        "ConvInteger" | "MatMulInteger" => match (kind(0), kind(1)) {
            (Kind::Quantized(of), _) if meet(0, 2, None) && known(&[1, 3]) => {
                return Ok(Kind::Steps(of));
            }
            (_, Kind::Quantized(of)) if meet(1, 3, None) && known(&[0, 2]) => {
                return Ok(Kind::Steps(of));
            }
            _ => {}
        },
        "DequantizeLinear" if meet(0, 2, Some(1)) => return Ok(REAL),
        "MatMulIntegerToFloat" if meet(0, 4, Some(2)) && known(&[1, 3, 5, 6]) => return Ok(REAL),
        _ => {}
    }
    Err(alone())
}
