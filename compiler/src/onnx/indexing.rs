//! Operators that pick and place single elements by constant indices.

use super::MAX_VALUE;
use super::builder::{Builder, too_large};
use super::constant::Constant;
use super::elementwise;
use super::node::{Call, Refusal, Value, axis_of, invalid, refuse};
use super::structure::join;
use ir::graph::NodeId;
use ir::tensor::{Shape, Tensor};

/// So many updates of one element are combined, one after the other.
const MOST_UPDATES: usize = 64;

/// The elements of a value at these places, `None` being zero, in the given shape.
pub(super) fn pick(
    b: &mut Builder,
    x: NodeId,
    dims: &[usize],
    places: Vec<Option<u32>>,
) -> Result<NodeId, Refusal> {
    let elements = b.shape(x).elements();
    let flat = b.reshape(x, &[elements])?;
    let picked = b.take(flat, 0, places)?;
    b.reshape(picked, dims)
}

/// All indices of a shape in row-major order.
pub(super) fn indices(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    (0..dims.iter().product()).map(move |mut flat: usize| {
        let mut index = vec![0; dims.len()];
        for (i, &d) in index.iter_mut().zip(dims).rev() {
            (*i, flat) = (flat % d, flat / d);
        }
        index
    })
}

fn place(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(i, s)| i * s).sum()
}

/// An index into an axis, counted from its end if negative.
fn counted(index: i64, length: usize) -> Result<usize, Refusal> {
    let from_front = if index < 0 { index.saturating_add(length as i64) } else { index };
    usize::try_from(from_front)
        .ok()
        .filter(|&i| i < length)
        .ok_or_else(|| invalid(format!("the index {index} is out of range of {length} entries")))
}

fn constant_indices<'a>(call: &'a Call, position: usize) -> Result<&'a Constant, Refusal> {
    match call.operand(position)? {
        Value::Constant(indices) => Ok(indices),
        _ => Err(refuse(
            "indices computed from the input are not supported",
            "expected constant indices; embeddings belong in front of the model, at the client",
        )),
    }
}

/// Where the elements lie that `GatherElements` and `ScatterElements` speak of, in the order of the indices.
fn element_places(call: &Call, dims: &[usize]) -> Result<(Vec<usize>, Vec<u32>), Refusal> {
    let shape = constant_indices(call, 1)?.dims().to_vec();
    let axis = axis_of(call.int("axis", 0), dims.len())?;
    let fits = |(i, (&n, &d)): (usize, (&usize, &usize))| i == axis || n <= d;
    if shape.len() != dims.len() || !shape.iter().zip(dims).enumerate().all(fits) {
        return Err(invalid(format!("indices of shape {shape:?} do not fit {dims:?}")));
    }
    let strides = Shape::new(dims).strides();
    let values = call.integers(1)?;
    let places = indices(&shape).zip(values).map(|(mut index, value)| {
        index[axis] = counted(value, dims[axis])?;
        Ok(place(&index, &strides) as u32)
    });
    let places = places.collect::<Result<Vec<u32>, Refusal>>()?;
    Ok((shape, places))
}

pub(super) fn gather_elements(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    constant_indices(call, 1)?;
    let x = call.value(0)?;
    let (shape, places) = element_places(call, &b.dims(x))?;
    pick(b, x, &shape, places.into_iter().map(Some).collect())
}

/// The elements that index tuples name, after `batch` axes that they share with the operand: the shape of
/// all of them, and their places.
fn tuple_places(
    call: &Call,
    dims: &[usize],
    batch: usize,
) -> Result<(Vec<usize>, Vec<u32>), Refusal> {
    let shape = constant_indices(call, 1)?.dims().to_vec();
    let Some((&length, lead)) = shape.split_last() else {
        return Err(invalid("its indices are a scalar"));
    };
    if batch > lead.len() || batch + length > dims.len() || lead[..batch] != dims[..batch] {
        return Err(invalid(format!("indices of shape {shape:?} do not fit {dims:?}")));
    }
    let run: usize = dims[batch + length..].iter().product();
    let result = [lead, &dims[batch + length..]].concat();
    if lead.iter().product::<usize>().checked_mul(run).is_none_or(|n| n > MAX_VALUE) {
        return Err(too_large("its result"));
    }
    let strides = Shape::new(dims).strides();
    let values = call.integers(1)?;
    let mut places = Vec::with_capacity(result.iter().product());
    for (n, index) in indices(lead).enumerate() {
        let mut start = place(&index[..batch], &strides);
        for i in 0..length {
            let axis = batch + i;
            start += counted(values[n * length + i], dims[axis])? * strides[axis];
        }
        places.extend((start..start + run).map(|p| p as u32));
    }
    Ok((result, places))
}

pub(super) fn gather_nd(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    constant_indices(call, 1)?;
    let x = call.value(0)?;
    let batch = usize::try_from(call.int("batch_dims", 0))
        .map_err(|_| invalid("batch_dims is negative"))?;
    let (shape, places) = tuple_places(call, &b.dims(x), batch)?;
    pick(b, x, &shape, places.into_iter().map(Some).collect())
}

pub(super) fn scatter_elements(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let dims = dims(b, call.operand(0)?)?;
    let (_, places) = element_places(call, &dims)?;
    scatter(b, call, &dims, &places)
}

pub(super) fn scatter_nd(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let dims = dims(b, call.operand(0)?)?;
    let (_, places) = tuple_places(call, &dims, 0)?;
    scatter(b, call, &dims, &places)
}

fn dims(b: &Builder, value: &Value) -> Result<Vec<usize>, Refusal> {
    match value {
        Value::Node(id) => Ok(b.dims(*id)),
        Value::Constant(constant) => Ok(constant.dims().to_vec()),
        _ => Err(invalid("an operand is no tensor")),
    }
}

/// Puts updates at places of an operand, or combines them with what stands there: the first update of
/// every element, then the second of those that have one, and so on.
fn scatter(
    b: &mut Builder,
    call: &Call,
    dims: &[usize],
    places: &[u32],
) -> Result<NodeId, Refusal> {
    let data = b.node(call.operand(0)?)?;
    let elements = b.shape(data).elements();
    let mut data = b.reshape(data, &[elements])?;
    let updates = b.node(call.operand(2)?)?;
    if b.shape(updates).elements() != places.len() {
        return Err(invalid(format!("{} updates have {} indices", b.shape(updates), places.len())));
    }
    let updates = b.reshape(updates, &[places.len()])?;
    let combine = match call.string("reduction", "none").as_str() {
        "none" => {
            // The last update of an element stays.
            let all = places.iter().enumerate().map(|(i, &p)| (p, i as u32)).collect::<Vec<_>>();
            let y = replace(b, data, updates, &all)?;
            return b.reshape(y, dims);
        }
        "add" => elementwise::add_values,
        "mul" => elementwise::multiply_values,
        "max" => elementwise::larger,
        "min" => elementwise::smaller,
        other => return Err(invalid(format!("the reduction {other:?} is unknown"))),
    };
    let mut rounds: Vec<Vec<(u32, u32)>> = Vec::new();
    let mut seen = vec![0usize; elements];
    for (i, &p) in places.iter().enumerate() {
        let round = &mut seen[p as usize];
        if *round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*round].push((p, i as u32));
        *round += 1;
    }
    if rounds.len() > MOST_UPDATES {
        return Err(refuse(
            format!("it updates one element {} times", rounds.len()),
            format!("expected at most {MOST_UPDATES} updates of an element"),
        ));
    }
    for round in rounds {
        let at = |of: fn(&(u32, u32)) -> u32| round.iter().map(|e| Some(of(e))).collect();
        let known = b.take(data, 0, at(|e| e.0))?;
        let update = match call.operand(2)? {
            Value::Constant(constant) => {
                let reals = constant.to_reals().ok_or_else(|| invalid("it is not numeric"))?;
                let picked = round.iter().map(|e| reals.data[e.1 as usize]).collect();
                let picked = Tensor::new(Shape::new([round.len()]), picked);
                Value::Constant(Constant::reals(&picked).map_err(invalid)?)
            }
            _ => Value::Node(b.take(updates, 0, at(|e| e.1))?),
        };
        let combined = combine(b, &Value::Node(known), &update)?;
        let moved: Vec<_> = round.iter().zip(0..).map(|(e, i)| (e.0, i)).collect();
        data = replace(b, data, combined, &moved)?;
    }
    b.reshape(data, dims)
}

/// The elements of `data` with those at the first of every pair replaced by the second's of `updates`.
fn replace(
    b: &mut Builder,
    data: NodeId,
    updates: NodeId,
    pairs: &[(u32, u32)],
) -> Result<NodeId, Refusal> {
    let elements = b.shape(data).elements();
    let mut source: Vec<Option<u32>> = (0..elements as u32).map(Some).collect();
    for &(place, update) in pairs {
        source[place as usize] = Some(elements as u32 + update);
    }
    let joined = join(b, &[data, updates], 0)?;
    b.take(joined, 0, source)
}

/// Entries of an axis, or elements, where a constant condition holds.
pub(super) fn compress(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let mut x = call.value(0)?;
    let Value::Constant(_) = call.operand(1)? else {
        return Err(refuse(
            "a condition computed from the input is not supported",
            "remove it and let the client select among the outputs",
        ));
    };
    let condition = call.integers(1)?;
    let axis = if call.has("axis") {
        axis_of(call.int("axis", 0), b.rank(x))?
    } else {
        let elements = b.shape(x).elements();
        x = b.reshape(x, &[elements])?;
        0
    };
    if condition.len() > b.dims(x)[axis] {
        return Err(invalid("its condition is longer than its operand"));
    }
    let kept = condition.iter().zip(0..).filter(|(c, _)| **c != 0).map(|(_, i)| Some(i)).collect();
    b.take(x, axis, kept)
}

/// The beginning of every sequence reversed, by constant lengths.
pub(super) fn reverse_sequence(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = b.dims(x);
    let batch = axis_of(call.int("batch_axis", 1), dims.len())?;
    let time = axis_of(call.int("time_axis", 0), dims.len())?;
    let lengths = call.integers(1)?;
    if batch == time || lengths.len() != dims[batch] {
        return Err(invalid("its lengths do not fit its operand"));
    }
    let longest = dims[time] as i64;
    if lengths.iter().any(|l| !(0..=longest).contains(l)) {
        return Err(invalid(format!("its lengths are not within its {longest} steps")));
    }
    let strides = Shape::new(dims.as_slice()).strides();
    let places = indices(&dims).map(|mut index| {
        let length = lengths[index[batch]] as usize;
        if index[time] < length {
            index[time] = length - 1 - index[time];
        }
        Some(place(&index, &strides) as u32)
    });
    let places = places.collect();
    pick(b, x, &dims, places)
}

/// Elements placed by constant indices into the image that a maximum pooling read.
pub(super) fn max_unpool(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    constant_indices(call, 1)?;
    let x = call.value(0)?;
    let dims = super::geometry::image(b, x)?;
    let spatial = dims.len() - 2;
    let kernel = super::geometry::kernel_shape(call, spatial)?;
    let axes = super::geometry::axes(call, &dims[2..], &kernel)?;
    let lengths = axes.iter().map(|a| {
        let length = (a.length as i64 - 1) * a.stride as i64 + a.kernel as i64 - a.begin - a.end;
        usize::try_from(length).ok().filter(|l| (1..=MAX_VALUE).contains(l))
    });
    let lengths: Option<Vec<usize>> = lengths.collect();
    let result = [&dims[..2], &lengths.ok_or_else(|| too_large("its result"))?].concat();
    if let Some(stated) = call.optional_integers(2)?
        && !stated.iter().copied().eq(result.iter().map(|&d| d as i64))
    {
        return Err(refuse(
            format!("its output shape {stated:?} is not that of its windows"),
            "runtimes differ in what its indices mean then: leave the output shape out",
        ));
    }
    let elements = result.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let elements = elements.filter(|&n| n <= MAX_VALUE).ok_or_else(|| too_large("its result"))?;
    let mut source = vec![None; elements];
    let places = call.integers(1)?;
    if places.len() != b.shape(x).elements() {
        return Err(invalid("it has not one index per element"));
    }
    for (i, &place) in places.iter().enumerate() {
        source[counted(place, elements)?] = Some(i as u32);
    }
    pick(b, x, &result, source)
}
