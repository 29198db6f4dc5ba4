//! Functions of one variable.

use super::builder::Builder;
use super::node::{Call, Refusal, invalid, refuse};
use ir::graph::NodeId;
use ir::op::{Elementary, Function};
use ir::tensor::{Tensor, broadcasts_to};

/// Translations of operators that are one function without attributes.
macro_rules! functions {
    ($($name:ident => $function:expr;)*) => {
        $(pub(super) fn $name(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
            b.function(call.value(0)?, $function)
        })*
    };
}

functions! {
    abs => Function::Abs;
    acos => Function::Acos;
    acosh => Function::Acosh;
    asin => Function::Asin;
    asinh => Function::Asinh;
    atan => Function::Atan;
    atanh => Function::Atanh;
    cos => Function::Cos;
    cosh => Function::Cosh;
    erf => Function::Erf;
    exp => Function::Exp;
    hard_swish => Function::HardSwish;
    log => Function::Log;
    mish => Function::Mish;
    relu => Function::Relu;
    sigmoid => Function::Sigmoid;
    sign => Function::Sign;
    sin => Function::Sin;
    sinh => Function::Sinh;
    softplus => Function::Softplus;
    softsign => Function::Softsign;
    sqrt => Function::Sqrt;
    tan => Function::Tan;
    tanh => Function::Tanh;
}

/// A coefficient as it is written in the file: the shortest decimal of its `f32`.
fn coefficient(call: &Call, name: &str, default: f32) -> f64 {
    decimal(call.float(name, default))
}

fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

pub(super) fn neg(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    b.scaled(call.value(0)?, -1.0, 0.0)
}

pub(super) fn reciprocal(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    inverse(b, call.value(0)?)
}

/// `1/x`
pub(super) fn inverse(b: &mut Builder, x: NodeId) -> Result<NodeId, Refusal> {
    b.expression(x, vec![Elementary::Power { operand: 0, exponent: -1.0 }])
}

pub(super) fn leaky_relu(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let alpha = coefficient(call, "alpha", 0.01);
    b.function(call.value(0)?, Function::LeakyRelu { alpha })
}

pub(super) fn elu(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let alpha = coefficient(call, "alpha", 1.0);
    b.function(call.value(0)?, Function::Elu { alpha })
}

/// `alpha·elu(x/alpha)`
pub(super) fn celu(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let alpha = coefficient(call, "alpha", 1.0);
    if alpha == 0.0 {
        return Err(invalid("alpha is 0"));
    }
    let scaled =
        |operand, factor| Elementary::Affine { operand, scale: vec![factor], shift: vec![0.0] };
    let inner = Elementary::Apply { function: Function::Elu { alpha: 1.0 }, operand: 1 };
    b.expression(call.value(0)?, vec![scaled(0, 1.0 / alpha), inner, scaled(2, alpha)])
}

pub(super) fn selu(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let alpha = coefficient(call, "alpha", 1.673_263_2);
    let gamma = coefficient(call, "gamma", 1.050_701);
    b.function(call.value(0)?, Function::Selu { alpha, gamma })
}

pub(super) fn hard_sigmoid(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let alpha = coefficient(call, "alpha", 0.2);
    let beta = coefficient(call, "beta", 0.5);
    b.function(call.value(0)?, Function::HardSigmoid { alpha, beta })
}

pub(super) fn gelu(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let function = match call.string("approximate", "none").as_str() {
        "none" => Function::Gelu,
        "tanh" => Function::GeluTanh,
        other => return Err(invalid(format!("approximate {other:?} is unknown"))),
    };
    b.function(call.value(0)?, function)
}

pub(super) fn swish(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let alpha = coefficient(call, "alpha", 1.0);
    let x = call.value(0)?;
    if alpha == 1.0 {
        return b.function(x, Function::Silu);
    }
    let inner = Elementary::Affine { operand: 0, scale: vec![alpha], shift: vec![0.0] };
    let gate = Elementary::Apply { function: Function::Sigmoid, operand: 1 };
    b.expression(x, vec![inner, gate, Elementary::Product(0, 2)])
}

/// Bounds are attributes before operator set 11, operands from then on.
pub(super) fn clip(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let bound = |name: &str, position: usize| match call.optional_scalar(position)? {
        Some(value) => Ok(Some(value)),
        None => Ok(call.has(name).then(|| call.float(name, 0.0))),
    };
    clipped(b, x, bound("min", 1)?, bound("max", 2)?)
}

/// `min(max(x, low), high)`; a bound that no `f32` exceeds is none.
pub(super) fn clipped(
    b: &mut Builder,
    x: NodeId,
    low: Option<f32>,
    high: Option<f32>,
) -> Result<NodeId, Refusal> {
    if low.is_some_and(f32::is_nan) || high.is_some_and(f32::is_nan) {
        return Err(invalid("a bound is not a number"));
    }
    match (low.filter(|&v| v > f32::MIN), high.filter(|&v| v < f32::MAX)) {
        (None, None) => Ok(x),
        (Some(0.0), None) => b.function(x, Function::Relu),
        (low, high) => {
            let low = decimal(low.unwrap_or(f32::MIN).min(f32::MAX));
            let high = decimal(high.unwrap_or(f32::MAX).max(f32::MIN));
            b.function(x, Function::Clip { low, high })
        }
    }
}

/// `relu(x) − slope·relu(−x)`
pub(super) fn prelu(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let slope = call.reals(1)?;
    if let [alpha] = slope.data.as_slice() {
        return b.function(x, Function::LeakyRelu { alpha: decimal(*alpha) });
    }
    let shape = b.shape(x);
    let channel_axis_from_end = shape.rank() - shape.channel_axis();
    let is_per_channel =
        slope.shape.rank() <= shape.rank()
            && slope.shape.0.iter().rev().enumerate().all(|(i, &d)| {
                d == if i + 1 == channel_axis_from_end { shape.channels() } else { 1 }
            });
    if !is_per_channel {
        // `slope·x + (1 − slope)·relu(x)`
        if !broadcasts_to(&slope.shape, &shape) {
            return Err(invalid(format!("a slope of shape {} does not fit {shape}", slope.shape)));
        }
        let relu = b.function(x, Function::Relu)?;
        let rest = b.affine(relu, slope.map(|s| 1.0 - s), Tensor::scalar(0.0))?;
        let line = b.affine(x, slope, Tensor::scalar(0.0))?;
        return b.sum(line, rest);
    }
    let scale = slope.data.iter().map(|&s| -decimal(s)).collect();
    let relu = |operand| Elementary::Apply { function: Function::Relu, operand };
    b.expression(
        x,
        vec![
            relu(0),
            Elementary::Affine { operand: 0, scale: vec![-1.0], shift: vec![0.0] },
            relu(2),
            Elementary::Affine { operand: 3, scale, shift: vec![0.0] },
            Elementary::Sum(1, 4),
        ],
    )
}

/// `x + bias` below `−lambd`, `x − bias` above `lambd`, 0 between: without a jump if both are one.
pub(super) fn shrink(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let (bias, lambd) = (coefficient(call, "bias", 0.0), coefficient(call, "lambd", 0.5));
    if bias != lambd || lambd < 0.0 {
        return Err(refuse(
            "the function has jumps, which have no good approximation",
            "expected a bias equal to lambd, a continuous function",
        ));
    }
    let clip = Function::Clip { low: -lambd, high: lambd };
    b.expression(
        call.value(0)?,
        vec![
            Elementary::Apply { function: clip, operand: 0 },
            Elementary::Affine { operand: 1, scale: vec![-1.0], shift: vec![0.0] },
            Elementary::Sum(0, 2),
        ],
    )
}

/// `x` above `alpha`, 0 elsewhere: without a jump if `alpha` is 0.
pub(super) fn thresholded_relu(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    match call.float("alpha", 1.0) {
        0.0 => b.function(call.value(0)?, Function::Relu),
        _ => Err(refuse(
            "the function has a jump, which has no good approximation",
            "expected an alpha of 0, or Relu",
        )),
    }
}
