//! Linear maps with constant coefficients along one axis of a value.

use super::MAX_VALUE;
use super::builder::{Builder, too_large};
use super::node::Refusal;
use ir::graph::NodeId;
use ir::tensor::{Shape, Tensor};

/// Maps with at most this many coefficients, zeros among them, are matrices.
const DENSE: usize = 1 << 22;

/// What one entry of a result is: the entries of the operand that it sums, with their factors.
pub(super) type Row = Vec<(u32, f32)>;

/// The product of a matrix `[outputs, inputs]` with a value along an axis.
pub(super) fn along(
    b: &mut Builder,
    x: NodeId,
    axis: usize,
    matrix: Tensor<f32>,
) -> Result<NodeId, Refusal> {
    let last = b.rank(x) - 1;
    let mut permutation: Vec<usize> = (0..=last).collect();
    permutation.swap(axis, last);
    let turned = b.transpose(x, &permutation)?;
    let y = b.matrix(turned, matrix, Tensor::scalar(0.0))?;
    b.transpose(y, &permutation)
}

/// The matrix of this many rows and columns, if it is small enough.
pub(super) fn matrix(
    rows: usize,
    columns: usize,
    entry: impl Fn(usize, usize) -> f64,
) -> Result<Tensor<f32>, Refusal> {
    if rows.checked_mul(columns).is_none_or(|n| n > MAX_VALUE) {
        return Err(too_large("the matrix that it is"));
    }
    let entries = (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c)));
    let data = entries.map(|(r, c)| entry(r, c) as f32).collect();
    Ok(Tensor::new(Shape::new([rows, columns]), data))
}

/// Sums of entries along an axis: a selection where they are single entries, a matrix where that is small,
/// otherwise the entries laid side by side, times their factors, and summed.
pub(super) fn combine(
    b: &mut Builder,
    x: NodeId,
    axis: usize,
    rows: &[Row],
) -> Result<NodeId, Refusal> {
    let is_single = |row: &Row| matches!(row.as_slice(), [] | [(_, 1.0)]);
    if rows.iter().all(is_single) {
        return b.take(x, axis, rows.iter().map(|row| row.first().map(|tap| tap.0)).collect());
    }
    let dims = b.dims(x);
    let length = dims[axis];
    if rows.len().saturating_mul(length) <= DENSE {
        let mut matrix = Tensor::zeros(Shape::new([rows.len(), length]));
        for (i, row) in rows.iter().enumerate() {
            row.iter().for_each(|&(j, factor)| matrix.data[i * length + j as usize] += factor);
        }
        return along(b, x, axis, matrix);
    }
    let taps = rows.iter().map(Vec::len).max().unwrap_or(0);
    let (before, after) = (dims[..axis].iter().product(), dims[axis + 1..].iter().product());
    let laid = [before, rows.len(), taps, after];
    if laid.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).is_none_or(|n| n > MAX_VALUE) {
        return Err(too_large("the sums that it is"));
    }
    let tap = |i: usize| rows[i / taps].get(i % taps);
    let all = 0..rows.len() * taps;
    let flat = b.reshape(x, &[before, length, after])?;
    let side = b.take(flat, 1, all.clone().map(|i| tap(i).map(|tap| tap.0)).collect())?;
    let side = b.reshape(side, &laid)?;
    let products = if rows.iter().flatten().all(|tap| tap.1 == 1.0) {
        side
    } else {
        let factors = all.map(|i| tap(i).map_or(0.0, |tap| tap.1)).collect();
        let factors = Tensor::new(Shape::new([rows.len(), taps, 1]), factors);
        b.affine(side, factors, Tensor::scalar(0.0))?
    };
    let sums = b.sum_axes(products, &[2])?;
    let mut result = dims;
    result[axis] = rows.len();
    b.reshape(sums, &result)
}
