//! Arithmetic on two or more operands, with broadcasting.

use super::activation::{clipped, inverse};
use super::builder::Builder;
use super::node::{Call, Refusal, Value, invalid, refuse};
use super::structure::join;
use ir::graph::{NodeId, Op};
use ir::op::{Elementary, Function};
use ir::tensor::{Shape, Tensor};
use std::collections::BTreeMap;

/// Two operands that broadcast: a value and a constant either way round, or two values of one shape.
enum Pair {
    ValueConstant(NodeId, Tensor<f32>),
    ConstantValue(Tensor<f32>, NodeId),
    Values(NodeId, NodeId),
}

fn pair(b: &mut Builder, left: &Value, right: &Value) -> Result<Pair, Refusal> {
    let reals = |value: &Value| match value {
        Value::Constant(c) => c.to_reals().ok_or_else(|| invalid("an operand is not numeric")),
        _ => Err(invalid("an operand is not known")),
    };
    match (left, right) {
        (Value::Node(x), Value::Node(y)) => {
            let target = common(&b.shape(*x), &b.shape(*y))?;
            Ok(Pair::Values(b.broadcast(*x, &target)?, b.broadcast(*y, &target)?))
        }
        (Value::Node(x), constant) => {
            let constant = reals(constant)?;
            Ok(Pair::ValueConstant(widened(b, *x, &constant)?, constant))
        }
        (constant, Value::Node(x)) => {
            let constant = reals(constant)?;
            let x = widened(b, *x, &constant)?;
            Ok(Pair::ConstantValue(constant, x))
        }
        _ => Err(invalid("no operand is computed from the input")),
    }
}

/// A value repeated to the shape that it has after broadcasting with a constant.
fn widened(b: &mut Builder, x: NodeId, constant: &Tensor<f32>) -> Result<NodeId, Refusal> {
    let target = common(&b.shape(x), &constant.shape)?;
    b.broadcast(x, &target)
}

/// The shape that two shapes broadcast to.
pub(super) fn common(a: &Shape, b: &Shape) -> Result<Shape, Refusal> {
    let rank = a.rank().max(b.rank());
    let dim = |s: &Shape, i: usize| (i + s.rank()).checked_sub(rank).map_or(1, |j| s.0[j]);
    (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (1, d) | (d, 1) => Ok(d),
            (c, d) if c == d => Ok(d),
            _ => Err(invalid(format!("shapes {a} and {b} do not broadcast"))),
        })
        .collect::<Result<Vec<_>, _>>()
        .map(Shape)
}

pub(super) fn add_constant(
    b: &mut Builder,
    x: NodeId,
    constant: Tensor<f32>,
) -> Result<NodeId, Refusal> {
    let x = widened(b, x, &constant)?;
    b.affine(x, Tensor::scalar(1.0), constant)
}

fn multiply_constant(b: &mut Builder, x: NodeId, c: Tensor<f32>) -> Result<NodeId, Refusal> {
    b.affine(x, c, Tensor::scalar(0.0))
}

pub(super) fn add_values(b: &mut Builder, left: &Value, right: &Value) -> Result<NodeId, Refusal> {
    match pair(b, left, right)? {
        Pair::ValueConstant(x, c) | Pair::ConstantValue(c, x) => add_constant(b, x, c),
        Pair::Values(x, y) => b.sum(x, y),
    }
}

pub(super) fn add(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    add_values(b, call.operand(0)?, call.operand(1)?)
}

pub(super) fn sub(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    match pair(b, call.operand(0)?, call.operand(1)?)? {
        Pair::ValueConstant(x, c) => add_constant(b, x, c.map(|v| -v)),
        Pair::ConstantValue(c, x) => b.affine(x, Tensor::scalar(-1.0), c),
        Pair::Values(x, y) => difference(b, x, y),
    }
}

fn difference(b: &mut Builder, x: NodeId, y: NodeId) -> Result<NodeId, Refusal> {
    let negative = b.scaled(y, -1.0, 0.0)?;
    b.sum(x, negative)
}

pub(super) fn mul(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    multiply_values(b, call.operand(0)?, call.operand(1)?)
}

pub(super) fn multiply_values(
    b: &mut Builder,
    left: &Value,
    right: &Value,
) -> Result<NodeId, Refusal> {
    match pair(b, left, right)? {
        Pair::ValueConstant(x, c) | Pair::ConstantValue(c, x) => multiply_constant(b, x, c),
        Pair::Values(x, y) => {
            let shape = b.shape(x);
            b.add(Op::Multiply, shape, &[x, y])
        }
    }
}

pub(super) fn div(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    match pair(b, call.operand(0)?, call.operand(1)?)? {
        Pair::ValueConstant(x, c) => multiply_constant(b, x, c.map(|v| 1.0 / v)),
        Pair::ConstantValue(c, x) => {
            let y = inverse(b, x)?;
            multiply_constant(b, y, c)
        }
        Pair::Values(x, y) => {
            let shape = b.shape(x);
            b.add(Op::Divide, shape, &[x, y])
        }
    }
}

/// A power with a constant exponent, or of a constant base: `c^x` is `e^(x·ln c)`.
pub(super) fn pow(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    match pair(b, call.operand(0)?, call.operand(1)?)? {
        Pair::ValueConstant(x, exponents) => powers(b, x, &exponents),
        Pair::ConstantValue(bases, x) => {
            if bases.data.iter().any(|&base| base <= 0.0) {
                return Err(refuse(
                    "a power of a base that is not positive is no function of reals",
                    "expected positive constant bases",
                ));
            }
            let inner = multiply_constant(b, x, bases.map(f32::ln))?;
            b.function(inner, Function::Exp)
        }
        Pair::Values(..) => Err(refuse(
            "base and exponent are computed from the input",
            "expected a constant exponent, or a constant base",
        )),
    }
}

/// Elements to constant powers: those of one exponent together.
fn powers(b: &mut Builder, x: NodeId, exponents: &Tensor<f32>) -> Result<NodeId, Refusal> {
    const MOST_EXPONENTS: usize = 64;
    let shape = b.shape(x);
    // The axes in front over which exponents do not differ stay apart: a batch among them.
    let lead = shape.rank() - exponents.shape.0.iter().skip_while(|&&d| d == 1).count();
    let inner = Shape(shape.0[lead..].to_vec());
    let exponents = Tensor::new(
        Shape(exponents.shape.0[exponents.shape.rank().saturating_sub(inner.rank())..].to_vec()),
        exponents.data.clone(),
    );
    let exponents = exponents.broadcast(&inner);
    let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (i, exponent) in exponents.data.iter().enumerate() {
        groups.entry(exponent.to_bits()).or_default().push(i as u32);
        if groups.len() > MOST_EXPONENTS {
            return Err(refuse(
                format!("its elements have more than {MOST_EXPONENTS} exponents"),
                "expected fewer different exponents",
            ));
        }
    }
    let power = |b: &mut Builder, x, bits| match f64::from(f32::from_bits(bits)) {
        1.0 => Ok(x),
        exponent => b.expression(x, vec![Elementary::Power { operand: 0, exponent }]),
    };
    if let (1, Some(&bits)) = (groups.len(), groups.keys().next()) {
        return power(b, x, bits);
    }
    let flat = b.reshape(x, &[&shape.0[..lead], &[inner.elements()]].concat())?;
    let mut source = vec![None; exponents.data.len()];
    let (mut parts, mut next) = (Vec::new(), 0);
    for (bits, places) in groups {
        let part = b.take(flat, lead, places.iter().map(|&p| Some(p)).collect())?;
        parts.push(power(b, part, bits)?);
        for place in places {
            source[place as usize] = Some(next);
            next += 1;
        }
    }
    let all = join(b, &parts, lead)?;
    let ordered = b.take(all, lead, source)?;
    b.reshape(ordered, &shape.0)
}

/// Combines operands from the left, the constants among them included.
fn fold(
    b: &mut Builder,
    call: &Call,
    combine: fn(&mut Builder, &Value, &Value) -> Result<NodeId, Refusal>,
) -> Result<NodeId, Refusal> {
    let is_value = |v: &&Value| matches!(v, Value::Node(_));
    let operands: Vec<&Value> = call.operands.iter().flatten().collect();
    let values = operands.iter().copied().filter(is_value);
    let constants = operands.iter().copied().filter(|v| !is_value(v));
    let mut ordered = values.chain(constants);
    let mut total = ordered.next().cloned().ok_or_else(|| invalid("it has no operands"))?;
    for operand in ordered {
        total = Value::Node(combine(b, &total, operand)?);
    }
    b.node(&total)
}

pub(super) fn sum(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    fold(b, call, add_values)
}

pub(super) fn mean(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let total = fold(b, call, add_values)?;
    let count = call.operands.iter().flatten().count();
    if count == 1 { Ok(total) } else { b.scaled(total, 1.0 / count as f32, 0.0) }
}

pub(super) fn max(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    fold(b, call, larger)
}

pub(super) fn larger(b: &mut Builder, left: &Value, right: &Value) -> Result<NodeId, Refusal> {
    match pair(b, left, right)? {
        Pair::ValueConstant(x, c) | Pair::ConstantValue(c, x) => match c.data.as_slice() {
            [bound] => clipped(b, x, Some(*bound), None),
            _ => {
                let above = add_constant(b, x, c.map(|v| -v))?;
                let excess = b.function(above, Function::Relu)?;
                add_constant(b, excess, c)
            }
        },
        Pair::Values(x, y) => {
            let difference = difference(b, x, y)?;
            let excess = b.function(difference, Function::Relu)?;
            b.sum(excess, y)
        }
    }
}

pub(super) fn min(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    fold(b, call, smaller)
}

pub(super) fn smaller(b: &mut Builder, left: &Value, right: &Value) -> Result<NodeId, Refusal> {
    match pair(b, left, right)? {
        Pair::ValueConstant(x, c) | Pair::ConstantValue(c, x) => match c.data.as_slice() {
            [bound] => clipped(b, x, None, Some(*bound)),
            _ => {
                let below = b.affine(x, Tensor::scalar(-1.0), c.clone())?;
                let excess = b.function(below, Function::Relu)?;
                b.affine(excess, Tensor::scalar(-1.0), c)
            }
        },
        Pair::Values(x, y) => {
            let below = difference(b, y, x)?;
            let excess = b.function(below, Function::Relu)?;
            difference(b, y, excess)
        }
    }
}

/// `Where` with a constant condition: both sides masked and added.
pub(super) fn select(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let Value::Constant(_) = call.operand(0)? else {
        return Err(refuse(
            "a condition computed from the input is not supported",
            "express the choice by Relu or Clip",
        ));
    };
    let mask = call.reals(0)?.map(|v| if v != 0.0 { 1.0 } else { 0.0 });
    let mut sides = Vec::new();
    for (position, mask) in [(1, mask.clone()), (2, mask.map(|v| 1.0 - v))] {
        let side = b.node(call.operand(position)?)?;
        let side = widened(b, side, &mask)?;
        sides.push(Value::Node(multiply_constant(b, side, mask)?));
    }
    add_values(b, &sides[0], &sides[1])
}

/// `Trilu`: one triangle of the last two axes, zeros elsewhere.
pub(super) fn trilu(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = b.dims(x);
    let &[.., rows, columns] = dims.as_slice() else {
        return Err(invalid("its operand is no matrix"));
    };
    let diagonal = call.optional_integers(1)?.and_then(|k| k.first().copied()).unwrap_or(0);
    let is_upper = call.int("upper", 1) != 0;
    let mut mask = Vec::with_capacity(rows * columns);
    for row in 0..rows as i64 {
        for column in 0..columns as i64 {
            let border = row.saturating_add(diagonal);
            let kept = if is_upper { column >= border } else { column <= border };
            mask.push(if kept { 1.0 } else { 0.0 });
        }
    }
    multiply_constant(b, x, Tensor::new(Shape::new([rows, columns]), mask))
}
