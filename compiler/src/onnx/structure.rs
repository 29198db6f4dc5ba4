//! Operators that rename, reshape and permute, and constants.

use super::builder::{Builder, too_large};
use super::constant::Constant;
use super::node::{Call, Refusal, Value, axes_of, axis_of, invalid, refuse};
use ir::graph::{NodeId, Op};
use ir::tensor::{Shape, Tensor};

pub(super) fn identity(_: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    call.value(0)
}

pub(super) fn dropout(_: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let ratio = call.optional_scalar(1)?.unwrap_or(call.float("ratio", 0.5));
    if ratio != 0.0 && call.optional_scalar(2)?.is_some_and(|training| training != 0.0) {
        return Err(refuse(
            "it is in training mode, where its result is random",
            "export the model in inference mode",
        ));
    }
    call.value(0)
}

/// `EyeLike`: ones on a diagonal of a matrix of its operand's shape.
pub(super) fn eye_like(b: &mut Builder, call: &Call) -> Result<Vec<Value>, Refusal> {
    let &[rows, columns] = b.dims(call.value(0)?).as_slice() else {
        return Err(invalid("its operand is no matrix"));
    };
    let diagonal = call.int("k", 0);
    let is_one = |i: usize| (i % columns) as i64 == ((i / columns) as i64).saturating_add(diagonal);
    let ones = (0..rows * columns).map(|i| if is_one(i) { 1.0 } else { 0.0 });
    let ones = Tensor::new(Shape::new([rows, columns]), ones.collect());
    Ok(vec![Value::Constant(Constant::reals(&ones).map_err(invalid)?)])
}

/// An operator that is understood of constants only, which are folded before.
pub(super) fn constant_only(_: &mut Builder, _: &Call) -> Result<NodeId, Refusal> {
    Err(refuse("a shape computed from the input is not supported", "expected a constant shape"))
}

pub(super) fn constant(_: &mut Builder, call: &Call) -> Result<Vec<Value>, Refusal> {
    let constant = if let Some(tensor) = call.tensor("value") {
        Constant::load(tensor)
    } else if call.has("value_float") {
        Constant::reals(&Tensor::scalar(call.float("value_float", 0.0)))
    } else if let Some(values) = call.floats("value_floats") {
        Constant::reals(&Tensor { shape: Shape::new([values.len()]), data: values })
    } else if call.has("value_int") {
        Constant::integers(&[], &[call.int("value_int", 0)])
    } else if let Some(values) = call.ints("value_ints") {
        Constant::integers(&[values.len()], &values)
    } else {
        return Err(refuse("its value is not a dense tensor", "expected numbers"));
    };
    Ok(vec![Value::Constant(constant.map_err(invalid)?)])
}

pub(super) fn shape_of(b: &mut Builder, call: &Call) -> Result<Vec<Value>, Refusal> {
    let dims: Vec<i64> = b.dims(call.value(0)?).iter().map(|&d| d as i64).collect();
    let rank = dims.len() as i64;
    let position = |name: &str, default: i64| {
        let v = call.int(name, default);
        (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize
    };
    let (start, end) = (position("start", 0), position("end", rank));
    let part = dims.get(start..end).unwrap_or_default();
    Ok(vec![Value::Constant(Constant::integers(&[part.len()], part).map_err(invalid)?)])
}

pub(super) fn size_of(b: &mut Builder, call: &Call) -> Result<Vec<Value>, Refusal> {
    let elements = b.shape(call.value(0)?).elements() as i64;
    Ok(vec![Value::Constant(Constant::integers(&[], &[elements]).map_err(invalid)?)])
}

/// 0 keeps a dimension (unless `allowzero`), −1 takes what is left.
pub(super) fn reshape(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let from = b.shape(x);
    let target = match call.ints("shape") {
        Some(shape) => shape,
        None => call.integers(1)?,
    };
    let keeps_zero = call.int("allowzero", 0) != 0;
    let mut dims = Vec::with_capacity(target.len());
    let mut rest = None;
    for (axis, &d) in target.iter().enumerate() {
        dims.push(match d {
            -1 if rest.is_none() => {
                rest = Some(axis);
                1
            }
            0 if !keeps_zero => *from
                .0
                .get(axis)
                .ok_or_else(|| invalid(format!("the shape {target:?} copies a missing axis")))?,
            _ => usize::try_from(d)
                .map_err(|_| invalid(format!("the shape {target:?} is impossible")))?,
        });
    }
    if let Some(axis) = rest {
        let others = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(0);
        dims[axis] = from.elements().checked_div(others).unwrap_or(0);
    }
    b.reshape(x, &dims)
}

pub(super) fn flatten(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = b.dims(x);
    let axis = match call.int("axis", 1) {
        axis if axis == dims.len() as i64 => dims.len(),
        axis => axis_of(axis, dims.len())?,
    };
    b.reshape(x, &[dims[..axis].iter().product(), dims[axis..].iter().product()])
}

pub(super) fn squeeze(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = b.dims(x);
    let axes = match call.axes("axes", 1)? {
        Some(axes) => axes_of(&axes, dims.len())?,
        None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
    };
    if axes.iter().any(|&axis| dims[axis] != 1) {
        return Err(invalid(format!("cannot squeeze axes {axes:?} of shape {dims:?}")));
    }
    let rest = dims.iter().enumerate().filter(|(i, _)| !axes.contains(i));
    b.reshape(x, &rest.map(|(_, &d)| d).collect::<Vec<_>>())
}

pub(super) fn unsqueeze(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let mut dims = b.dims(x);
    let axes = call.axes("axes", 1)?.unwrap_or_default();
    let rank = dims.len() + axes.len();
    if rank > ir::tensor::MAX_RANK {
        return Err(too_large("its result"));
    }
    for axis in axes_of(&axes, rank)? {
        dims.insert(axis, 1);
    }
    b.reshape(x, &dims)
}

pub(super) fn transpose(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let rank = b.rank(x);
    let permutation = match call.ints("perm") {
        Some(perm) => perm.iter().map(|&a| axis_of(a, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).rev().collect::<Vec<_>>(),
    };
    b.transpose(x, &permutation)
}

pub(super) fn concat(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let operands: Vec<&Value> = call.operands.iter().flatten().collect();
    let nodes = operands.iter().filter(|v| !is_empty(v)).map(|v| b.node(v));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    let Some(&first) = nodes.first() else { return Err(invalid("it has no operands")) };
    let axis = axis_of(call.int("axis", 1), b.rank(first))?;
    join(b, &nodes, axis)
}

/// Values joined along an axis.
pub(super) fn join(b: &mut Builder, nodes: &[NodeId], axis: usize) -> Result<NodeId, Refusal> {
    let mut dims = nodes.first().map(|&first| b.dims(first)).unwrap_or_default();
    if axis >= dims.len() {
        return Err(invalid(format!("its operands have no axis {axis}")));
    }
    dims[axis] = 0;
    for &node in nodes {
        let mut other = b.dims(node);
        let length = other.get(axis).copied().unwrap_or(0);
        other.iter_mut().skip(axis).take(1).for_each(|d| *d = dims[axis]);
        if other != dims {
            return Err(invalid(format!("its operands differ in more than axis {axis}")));
        }
        dims[axis] += length;
    }
    if let &[only] = nodes {
        return Ok(only);
    }
    b.add(Op::Concat(axis), Shape(dims), nodes)
}

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::Constant(c) if c.elements() == 0)
}

pub(super) fn depth_to_space(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let (block, [n, c, h, w]) = blocks(b, call, x)?;
    if c % (block * block) != 0 {
        return Err(invalid(format!("blocks of {block} do not divide {c} channels")));
    }
    let depth = c / (block * block);
    let (dims, permutation) = match call.string("mode", "DCR").as_str() {
        "CRD" => ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3]),
        _ => ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2]),
    };
    let split = b.reshape(x, &dims)?;
    let turned = b.transpose(split, &permutation)?;
    b.reshape(turned, &[n, depth, h * block, w * block])
}

pub(super) fn space_to_depth(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let (block, [n, c, h, w]) = blocks(b, call, x)?;
    if h % block != 0 || w % block != 0 {
        return Err(invalid(format!("blocks of {block} do not divide an image of {h} by {w}")));
    }
    let split = b.reshape(x, &[n, c, h / block, block, w / block, block])?;
    let permutation = match call.string("mode", "DCR").as_str() {
        "CRD" => [0, 1, 3, 5, 2, 4],
        _ => [0, 3, 5, 1, 2, 4],
    };
    let turned = b.transpose(split, &permutation)?;
    b.reshape(turned, &[n, c * block * block, h / block, w / block])
}

fn blocks(b: &Builder, call: &Call, x: NodeId) -> Result<(usize, [usize; 4]), Refusal> {
    let block = usize::try_from(call.int("blocksize", 0)).ok().filter(|v| (1..=4096).contains(v));
    match (block, b.dims(x).try_into()) {
        (Some(block), Ok(dims)) => Ok((block, dims)),
        _ => Err(invalid("its blocks do not fit its operand")),
    }
}
