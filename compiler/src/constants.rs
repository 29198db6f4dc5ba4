//! Constants that broadcast: one value, one per channel, one per element.

use ir::{Shape, Tensor};

/// One value per entry of `axis`, if a constant depends on nothing else.
pub(crate) fn per_axis(constant: &Tensor<f32>, shape: &Shape, axis: usize) -> Option<Vec<f32>> {
    let length = *shape.0.get(axis)?;
    if constant.data.len() == 1 {
        return Some(vec![constant.data[0]; length]);
    }
    let full = constant.broadcast(shape);
    let stride: usize = shape.0[axis + 1..].iter().product();
    let mut values: Vec<Option<f32>> = vec![None; length];
    for (i, &v) in full.data.iter().enumerate() {
        let slot = &mut values[i / stride % length];
        match slot {
            Some(known) if *known != v => return None,
            _ => *slot = Some(v),
        }
    }
    values.into_iter().collect()
}

/// A constant with one value per entry of `axis`, in a shape that broadcasts to `shape`.
pub(crate) fn along_axis(values: &[f32], shape: &Shape, axis: usize) -> Tensor<f32> {
    let mut dims = vec![1; shape.rank() - axis];
    dims[0] = values.len();
    Tensor::new(Shape(dims), values.to_vec())
}

/// The smallest of: one value, one per channel, one per element.
pub(crate) fn compact(constant: &Tensor<f32>, shape: &Shape) -> Tensor<f32> {
    if constant.data.iter().all(|&v| v == constant.data[0]) {
        return Tensor::scalar(constant.data[0]);
    }
    let last = shape.rank() - 1;
    for axis in [shape.channel_axis(), last] {
        if let Some(values) = per_axis(constant, shape, axis) {
            return along_axis(&values, shape, axis);
        }
    }
    constant.broadcast(shape)
}

/// Elementwise combination of two constants in the smallest shape that both broadcast to.
pub(crate) fn combine(
    a: &Tensor<f32>,
    b: &Tensor<f32>,
    f: impl Fn(f32, f32) -> f32,
) -> Tensor<f32> {
    let rank = a.shape.rank().max(b.shape.rank());
    let dim = |t: &Tensor<f32>, axis: usize| {
        (axis + t.shape.rank()).checked_sub(rank).map_or(1, |i| t.shape.0[i])
    };
    let shape = Shape((0..rank).map(|axis| dim(a, axis).max(dim(b, axis))).collect());
    let (a, b) = (a.broadcast(&shape), b.broadcast(&shape));
    Tensor::new(shape, a.data.iter().zip(&b.data).map(|(&x, &y)| f(x, y)).collect())
}

/// Multiplies row `i` of a weight tensor (its first axis) by `factors[i]`.
pub(crate) fn scale_rows(weights: &Tensor<f32>, factors: &[f32]) -> Tensor<f32> {
    let length = weights.data.len() / factors.len().max(1);
    let rows = weights.data.chunks_exact(length).zip(factors);
    Tensor::new(
        weights.shape.clone(),
        rows.flat_map(|(row, f)| row.iter().map(move |w| w * f)).collect(),
    )
}
