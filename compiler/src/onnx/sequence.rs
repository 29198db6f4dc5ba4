//! Sequences and optionals, whose lengths and positions are known at import: lists of values, without a trace in the
//! graph.

use super::builder::Builder;
use super::constant::Constant;
use super::kind::{INT64, Kind, REAL};
use super::node::{Call, Refusal, Typed, Value, axis_of, invalid, refuse};
use super::structure;
use ir::ElementType;

/// Operators on sequences and optionals, which are never folded as tensors.
pub(super) const OPERATORS: &[&str] = &[
    "ConcatFromSequence",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SplitToSequence",
];

fn sequence(call: &Call) -> Result<Vec<(Value, Kind)>, Refusal> {
    match call.operand(0)? {
        Value::Sequence(values) => Ok(values.clone()),
        _ => Err(invalid("its first operand is no sequence")),
    }
}

/// A sequence as a result; what its numbers are stands with each value.
fn of(values: Vec<(Value, Kind)>) -> Typed {
    Ok(vec![(Value::Sequence(values), REAL)])
}

/// The constant position in a sequence of this many places; the last one without an operand.
fn position(call: &Call, operand: usize, places: usize) -> Result<usize, Refusal> {
    match call.optional_integers(operand)?.as_deref() {
        None => places.checked_sub(1).ok_or_else(|| invalid("the sequence is empty")),
        Some(&[position]) => axis_of(position, places)
            .map_err(|_| invalid(format!("position {position} does not exist in its sequence"))),
        Some(_) => Err(invalid("its position is not one number")),
    }
}

pub(super) fn construct(_: &mut Builder, call: &Call) -> Typed {
    let values = call.operands.iter().zip(&call.kinds);
    of(values.filter_map(|(value, &kind)| Some((value.clone()?, kind))).collect())
}

pub(super) fn insert(_: &mut Builder, call: &Call) -> Typed {
    let mut values = sequence(call)?;
    // Counted from the end, it is in front of the last value; without a position, behind it.
    let at = match call.optional(2) {
        Some(_) => match call.integers(2)?.as_slice() {
            &[at] if at == values.len() as i64 => values.len(),
            _ => position(call, 2, values.len())?,
        },
        None => values.len(),
    };
    values.insert(at, (call.operand(1)?.clone(), call.kind(1)));
    of(values)
}

pub(super) fn erase(_: &mut Builder, call: &Call) -> Typed {
    let mut values = sequence(call)?;
    values.remove(position(call, 1, values.len())?);
    of(values)
}

pub(super) fn at(_: &mut Builder, call: &Call) -> Typed {
    let values = sequence(call)?;
    call.operand(1)?;
    Ok(vec![values[position(call, 1, values.len())?].clone()])
}

pub(super) fn length(_: &mut Builder, call: &Call) -> Typed {
    let length = sequence(call)?.len() as i64;
    Ok(vec![(Value::Constant(Constant::integers(&[], &[length]).map_err(invalid)?), INT64)])
}

/// `SplitToSequence`: pieces of a constant length, of constant lengths, or single entries.
pub(super) fn split(b: &mut Builder, call: &Call) -> Typed {
    let x = b.node(call.operand(0)?)?;
    let dims = b.dims(x);
    let axis = axis_of(call.int("axis", 0), dims.len())?;
    let total = dims[axis] as i64;
    let (lengths, keeps) = match call.optional_integers(1)? {
        None => (vec![1; dims[axis]], call.int("keepdims", 1) != 0),
        Some(lengths) if call.constant(1)?.dims().is_empty() => {
            let &[length] = lengths.as_slice() else { return Err(invalid("it has no length")) };
            if length < 1 {
                return Err(invalid(format!("it makes pieces of length {length}")));
            }
            let starts = (0..total).step_by(usize::try_from(length).unwrap_or(usize::MAX));
            (starts.map(|start| length.min(total - start)).collect(), true)
        }
        Some(lengths) => (lengths, true),
    };
    if lengths.iter().any(|&l| l < 1)
        || lengths.iter().try_fold(0i64, |n, &l| n.checked_add(l)) != Some(total)
    {
        return Err(refuse(
            format!("its pieces are empty or do not make up the {total} entries of axis {axis}"),
            "expected lengths above zero that add up",
        ));
    }
    let mut values = Vec::with_capacity(lengths.len());
    let mut start = 0;
    for length in lengths {
        let mut piece = b.window(x, axis, start, start + length)?;
        if !keeps {
            let mut dims = dims.clone();
            dims.remove(axis);
            piece = b.reshape(piece, &dims)?;
        }
        values.push((Value::Node(piece), call.kind(0)));
        start += length;
    }
    of(values)
}

/// `ConcatFromSequence`: joined along an axis, a new one if `new_axis`.
pub(super) fn concat(b: &mut Builder, call: &Call) -> Typed {
    let mut nodes = Vec::new();
    let values = sequence(call)?;
    for (value, _) in &values {
        nodes.push(b.node(value)?);
    }
    let Some(&first) = nodes.first() else { return Err(invalid("its sequence is empty")) };
    let is_new = call.int("new_axis", 0) != 0;
    let axis = axis_of(call.int("axis", 0), b.rank(first) + usize::from(is_new))?;
    if is_new {
        for node in &mut nodes {
            let mut dims = b.dims(*node);
            if axis > dims.len() {
                return Err(invalid("the values of its sequence differ in rank"));
            }
            dims.insert(axis, 1);
            *node = b.reshape(*node, &dims)?;
        }
    }
    let kind = values[0].1;
    if values.iter().any(|&(_, other)| other != kind) {
        return Err(invalid("the values of its sequence are of different types"));
    }
    Ok(vec![(Value::Node(structure::join(b, &nodes, axis)?), kind)])
}

/// `Optional` and `OptionalGetElement`: the value itself.
pub(super) fn optional(_: &mut Builder, call: &Call) -> Typed {
    match call.optional(0) {
        Some(value) => Ok(vec![(value.clone(), call.kind(0))]),
        None => Err(refuse("it has no element", "expected an optional that has one")),
    }
}

pub(super) fn has_element(_: &mut Builder, call: &Call) -> Typed {
    let is_there = call.optional(0).is_some();
    let constant = Constant::truth(is_there).map_err(invalid)?;
    Ok(vec![(Value::Constant(constant), Kind::Of(ElementType::Bool))])
}
