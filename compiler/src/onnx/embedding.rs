//! `RotaryEmbedding` with constant angles: pairs of entries turned, a linear map.

use super::builder::Builder;
use super::node::{Call, Refusal, invalid};
use ir::graph::NodeId;
use ir::tensor::{Shape, Tensor};

/// `[N, heads, steps, size]`, or `[N, steps, heads·size]`; the angles are those of the positions.
pub(super) fn rotary_embedding(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = b.dims(x);
    let (batch, heads, steps, size) = match *dims.as_slice() {
        [batch, heads, steps, size] => (batch, heads, steps, size),
        [batch, steps, width] => {
            let heads = usize::try_from(call.int("num_heads", 0)).unwrap_or(0);
            if heads == 0 || width % heads != 0 {
                return Err(invalid(format!("num_heads {heads} does not divide {width}")));
            }
            (batch, heads, steps, width / heads)
        }
        _ => return Err(invalid(format!("its operand has shape {dims:?}"))),
    };
    let turned = match call.int("rotary_embedding_dim", 0) {
        0 => size,
        turned => usize::try_from(turned).unwrap_or(usize::MAX),
    };
    if turned > size || turned % 2 != 0 {
        return Err(invalid(format!("rotary_embedding_dim {turned} does not fit {size} entries")));
    }
    let half = turned / 2;
    let (cos, sin) =
        (angles(call, 1, (batch, steps, half))?, angles(call, 2, (batch, steps, half))?);
    let is_interleaved = call.int("interleaved", 0) != 0;
    // Of the first and of the second entry of a pair: its place, and the pair's number.
    let pair = |i: usize| match is_interleaved {
        _ if i >= turned => None,
        true => Some((i.is_multiple_of(2), i / 2, i ^ 1)),
        false if i < half => Some((true, i, i + half)),
        false => Some((false, i - half, i - half)),
    };
    let swapped = (0..size).map(|i| Some(pair(i).map_or(i, |p| p.2) as u32)).collect();
    let by_head = dims.len() == 4;
    let per_step = |value: &dyn Fn(usize, usize) -> f32| {
        let places = (0..batch * steps).flat_map(|row| (0..size).map(move |i| (row, i)));
        let shape = match by_head {
            true => [batch, 1, steps, size],
            false => [batch, steps, 1, size],
        };
        Tensor::new(Shape::new(shape), places.map(|(row, i)| value(row, i)).collect())
    };
    let own = per_step(&|row, i| pair(i).map_or(1.0, |(_, n, _)| cos[row * half + n]));
    let other = per_step(&|row, i| match pair(i) {
        Some((true, n, _)) => -sin[row * half + n],
        Some((false, n, _)) => sin[row * half + n],
        None => 0.0,
    });
    let shape = match by_head {
        true => [batch, heads, steps, size],
        false => [batch, steps, heads, size],
    };
    let split = b.reshape(x, &shape)?;
    let partner = b.take(split, 3, swapped)?;
    let kept = b.affine(split, own, Tensor::scalar(0.0))?;
    let crossed = b.affine(partner, other, Tensor::scalar(0.0))?;
    let y = b.sum(kept, crossed)?;
    b.reshape(y, &dims)
}

/// The table's rows for every step of every sequence: the table itself, or its rows at the positions.
fn angles(
    call: &Call,
    position: usize,
    (batch, steps, half): (usize, usize, usize),
) -> Result<Vec<f32>, Refusal> {
    let table = call.reals(position)?;
    let misfit = || invalid(format!("angles of shape {} do not fit its operand", table.shape));
    let Some(ids) = call.optional_integers(3)? else {
        return if table.shape.0 == [batch, steps, half] { Ok(table.data) } else { Err(misfit()) };
    };
    let &[rows, width] = table.shape.0.as_slice() else { return Err(misfit()) };
    if width != half || ids.len() != batch * steps {
        return Err(misfit());
    }
    let mut all = Vec::with_capacity(ids.len() * half);
    for id in ids {
        let row = usize::try_from(id).ok().filter(|&row| row < rows);
        let row = row.ok_or_else(|| invalid(format!("position {id} is not in its table")))?;
        all.extend_from_slice(&table.data[row * half..(row + 1) * half]);
    }
    Ok(all)
}
