//! Operators that pick, repeat and pad entries along axes, all of them selections by constant indices.

use super::MAX_VALUE;
use super::builder::{Builder, too_large};
use super::constant::Constant;
use super::elementwise;
use super::node::{Call, Refusal, Value, axis_of, invalid, refuse};
use ir::graph::NodeId;
use ir::tensor::{Shape, Tensor};

/// Bounds are attributes before operator set 10, operands from then on.
pub(super) fn slice(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let mut x = call.value(0)?;
    let (starts, ends, axes, steps) = match call.ints("starts") {
        Some(starts) => (starts, call.ints("ends").unwrap_or_default(), call.ints("axes"), None),
        None => (
            call.integers(1)?,
            call.integers(2)?,
            call.optional_integers(3)?,
            call.optional_integers(4)?,
        ),
    };
    let n = starts.len();
    let axes = axes.unwrap_or_else(|| (0..n as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; n]);
    if ends.len() != n || axes.len() != n || steps.len() != n {
        return Err(invalid("its bounds are not of one length"));
    }
    for i in 0..n {
        let axis = axis_of(axes[i], b.rank(x))?;
        let indices = sliced(b.dims(x)[axis] as i64, starts[i], ends[i], steps[i])?;
        x = b.take(x, axis, indices)?;
    }
    Ok(x)
}

fn sliced(length: i64, start: i64, end: i64, step: i64) -> Result<Vec<Option<u32>>, Refusal> {
    let counted = |v: i64| if v < 0 { v.saturating_add(length) } else { v };
    let high = if step > 0 { length } else { length - 1 };
    let mut at = counted(start).clamp(0, high);
    let end = counted(end).clamp(if step > 0 { 0 } else { -1 }, high);
    if step == 0 {
        return Err(invalid("a step is 0"));
    }
    let mut indices = Vec::new();
    while (step > 0 && at < end) || (step < 0 && at > end) {
        indices.push(Some(at as u32));
        at = at.saturating_add(step);
    }
    Ok(indices)
}

pub(super) fn gather(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let (Value::Node(x), Value::Constant(indices)) = (call.operand(0)?, call.operand(1)?) else {
        return Err(refuse(
            "indices computed from the input are not supported",
            "expected constant indices; embeddings belong in front of the model, at the client",
        ));
    };
    let mut dims = b.dims(*x);
    let axis = axis_of(call.int("axis", 0), dims.len())?;
    let length = dims[axis] as i64;
    let taken: Option<Vec<Option<u32>>> = call
        .integers(1)?
        .iter()
        .map(|&i| if i < 0 { i.saturating_add(length) } else { i })
        .map(|i| (0..length).contains(&i).then_some(Some(i as u32)))
        .collect();
    let taken = taken.ok_or_else(|| invalid("an index is out of range"))?;
    dims.splice(axis..=axis, indices.dims().iter().copied());
    let y = b.take(*x, axis, taken)?;
    b.reshape(y, &dims)
}

/// Sizes are an attribute or, in newer files, an operand; none means equal parts.
pub(super) fn split(b: &mut Builder, call: &Call) -> Result<Vec<Value>, Refusal> {
    let x = call.value(0)?;
    let axis = axis_of(call.int("axis", 0), b.rank(x))?;
    let length = b.dims(x)[axis];
    let parts = call.proto.output.len();
    let sizes = match call.axes("split", 1)? {
        Some(sizes) => sizes,
        None if parts == 0 => return Err(invalid("it has no results")),
        None => {
            let part = length.div_ceil(parts);
            let part_of = |i: usize| length.saturating_sub(i * part).min(part) as i64;
            (0..parts).map(part_of).collect()
        }
    };
    let total = sizes.iter().try_fold(0i64, |n, &s| n.checked_add(s).filter(|_| s >= 0));
    if sizes.len() != parts || total != Some(length as i64) {
        return Err(invalid(format!("sizes {sizes:?} do not split {length} entries")));
    }
    let mut start = 0;
    sizes
        .iter()
        .map(|&size| {
            if size == 0 {
                let mut shape = b.shape(x);
                shape.0[axis] = 0;
                let empty = Tensor { shape, data: Vec::new() };
                return Ok(Value::Constant(Constant::reals(&empty).map_err(invalid)?));
            }
            let part = b.window(x, axis, start, start + size)?;
            start += size;
            Ok(Value::Node(part))
        })
        .collect()
}

pub(super) fn expand(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims: Option<Vec<usize>> =
        call.integers(1)?.iter().map(|&d| usize::try_from(d).ok()).collect();
    let target = Shape(dims.ok_or_else(|| invalid("its target shape is impossible"))?);
    let target = elementwise::common(&b.shape(x), &target)?;
    b.broadcast(x, &target)
}

pub(super) fn tile(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let mut x = call.value(0)?;
    let repeats = call.integers(1)?;
    let dims = b.dims(x);
    if repeats.len() != dims.len() {
        return Err(invalid(format!("repeats {repeats:?} do not fit the shape {dims:?}")));
    }
    for (axis, (&length, &count)) in dims.iter().zip(&repeats).enumerate() {
        let total = usize::try_from(count).ok().and_then(|c| c.checked_mul(length));
        match total {
            Some(total @ 1..=MAX_VALUE) => {
                let indices = (0..total).map(|i| Some((i % length) as u32)).collect();
                x = b.take(x, axis, indices)?;
            }
            _ => return Err(too_large("its result")),
        }
    }
    Ok(x)
}

/// Amounts are an attribute before operator set 11, an operand from then on; negative ones crop.
pub(super) fn pad(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let rank = b.rank(x);
    let given = match call.ints("pads") {
        Some(pads) => pads,
        None => call.integers(1)?,
    };
    let axes = match call.optional_integers(3)? {
        Some(axes) => axes.iter().map(|&a| axis_of(a, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    let is_repeated = |(i, axis): (usize, &usize)| axes[..i].contains(axis);
    if given.len() != 2 * axes.len()
        || axes.iter().enumerate().any(is_repeated)
        || given.iter().any(|p| p.unsigned_abs() > MAX_VALUE as u64)
    {
        return Err(invalid(format!("pads {given:?} do not fit {rank} axes")));
    }
    let mut amounts = Vec::with_capacity(axes.len());
    let mut x = x;
    for (i, &axis) in axes.iter().enumerate() {
        // Negative amounts crop first: what is repeated is what is left.
        let (before, after) = (given[i], given[i + axes.len()]);
        let length = b.dims(x)[axis] as i64;
        x = b.window(x, axis, (-before).max(0), length + after.min(0))?;
        amounts.push((axis, before.max(0), after.max(0)));
    }
    match call.string("mode", "constant").as_str() {
        "constant" => {
            let value = match call.optional_scalar(2)? {
                Some(value) => value,
                None => call.float("value", 0.0),
            };
            pad_constant(b, x, &amounts, value)
        }
        mode @ ("reflect" | "edge" | "wrap") => pad_copies(b, x, &amounts, mode),
        mode => Err(refuse(
            format!("the mode {mode:?} is not supported"),
            "expected constant, reflect, edge or wrap",
        )),
    }
}

fn pad_constant(
    b: &mut Builder,
    mut x: NodeId,
    amounts: &[(usize, i64, i64)],
    value: f32,
) -> Result<NodeId, Refusal> {
    let mut border = Tensor::zeros(Shape::new(vec![1; b.rank(x)]));
    for &(axis, before, after) in amounts {
        let length = b.dims(x)[axis] as i64;
        x = b.window(x, axis, -before, length.saturating_add(after))?;
        if value != 0.0 {
            let padded = b.dims(x)[axis];
            let mut shape = border.shape.clone();
            shape.0[axis] = padded;
            if shape.elements() > MAX_VALUE {
                return Err(too_large("its result"));
            }
            let mut inside = vec![1; shape.rank()];
            inside[axis] = padded;
            let is_border = |i: i64| i < before || i >= before + length;
            let line: Vec<f32> =
                (0..padded as i64).map(|i| if is_border(i) { value } else { 0.0 }).collect();
            let line = Tensor::new(Shape(inside), line).broadcast(&shape);
            let known = border.broadcast(&shape);
            let merged = known.data.iter().zip(&line.data);
            border =
                Tensor::new(shape, merged.map(|(&k, &l)| if k != 0.0 { k } else { l }).collect());
        }
    }
    if value == 0.0 { Ok(x) } else { b.affine(x, Tensor::scalar(1.0), border) }
}

fn pad_copies(
    b: &mut Builder,
    mut x: NodeId,
    amounts: &[(usize, i64, i64)],
    mode: &str,
) -> Result<NodeId, Refusal> {
    for &(axis, before, after) in amounts {
        let length = b.dims(x)[axis] as i64;
        let total = length + before + after;
        if !(1..=MAX_VALUE as i64).contains(&total) {
            return Err(too_large("its result"));
        }
        let period = (2 * (length - 1)).max(1);
        let source = |i: i64| match mode {
            "edge" => i.clamp(0, length - 1),
            "wrap" => i.rem_euclid(length),
            _ => {
                let folded = i.rem_euclid(period);
                folded.min(period - folded).min(length - 1)
            }
        };
        let indices = (-before..length + after).map(|i| Some(source(i) as u32)).collect();
        x = b.take(x, axis, indices)?;
    }
    Ok(x)
}

/// `CenterCropPad`: cropped, or padded with zeros, alike at both ends of every axis.
pub(super) fn center_crop_pad(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let mut x = call.value(0)?;
    let rank = b.rank(x);
    let wanted = call.integers(1)?;
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|&a| axis_of(a, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    let is_repeated = |(i, axis): (usize, &usize)| axes[..i].contains(axis);
    if wanted.len() != axes.len() || axes.iter().enumerate().any(is_repeated) {
        return Err(invalid(format!("the shape {wanted:?} does not fit its axes")));
    }
    for (&axis, &length) in axes.iter().zip(&wanted) {
        // What cannot be halved is cropped, or added, behind.
        let spare = (b.dims(x)[axis] as i64).saturating_sub(length);
        let start = if spare < 0 { -(spare.unsigned_abs() as i64 / 2) } else { spare / 2 };
        x = b.window(x, axis, start, start.saturating_add(length))?;
    }
    Ok(x)
}
