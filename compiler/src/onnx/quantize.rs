//! `QuantizeLinear` and `DequantizeLinear`: constants are dequantised, values stay real, since this
//! compiler chooses its own quantisation.

use super::builder::Builder;
use super::constant::Constant;
use super::node::{Call, Refusal, Value, axis_of, invalid, refuse};
use ir::tensor::Tensor;

pub(super) fn quantize(b: &mut Builder, call: &Call) -> Result<Vec<Value>, Refusal> {
    match call.operand(0)? {
        Value::Node(id) => {
            b.warn("QuantizeLinear and DequantizeLinear of values are left out: values stay real");
            Ok(vec![Value::Node(*id)])
        }
        _ => Err(refuse("it quantises a constant", "store the quantised constant instead")),
    }
}

/// `(x − zero point)·scale`, per tensor or along an axis.
pub(super) fn dequantize(_: &mut Builder, call: &Call) -> Result<Vec<Value>, Refusal> {
    if let Value::Node(id) = call.operand(0)? {
        return Ok(vec![Value::Node(*id)]);
    }
    let x = call.reals(0)?;
    let scale = call.reals(1)?;
    let zero = match call.optional(2) {
        Some(_) => call.reals(2)?,
        None => scale.map(|_| 0.0),
    };
    if call.int("block_size", 0) != 0 {
        return Err(refuse("block_size is not supported", "expected scales per tensor or axis"));
    }
    if zero.data.len() != scale.data.len() || scale.data.is_empty() {
        return Err(invalid("its scales and zero points are not of one length"));
    }
    let (length, stride) = if scale.data.len() == 1 {
        (1, 1)
    } else {
        let axis = axis_of(call.int("axis", 1), x.shape.rank())?;
        (x.shape.0[axis], x.shape.strides()[axis])
    };
    if scale.data.len() != length {
        return Err(invalid(format!("its scales do not fit the shape {}", x.shape)));
    }
    let real = |(i, &v): (usize, &f32)| {
        let entry = if length == 1 { 0 } else { i / stride % length };
        (v - zero.data[entry]) * scale.data[entry]
    };
    let data = x.data.iter().enumerate().map(real).collect();
    let real = Tensor { shape: x.shape, data };
    Ok(vec![Value::Constant(Constant::reals(&real).map_err(invalid)?)])
}
