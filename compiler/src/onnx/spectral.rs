//! Discrete Fourier transforms: products with constant matrices.

use super::builder::Builder;
use super::linear_map::matrix;
use super::node::{Call, Refusal, axis_of, invalid, refuse};
use ir::graph::NodeId;
use ir::tensor::Tensor;
use std::f64::consts::TAU;

/// The transform of `taps` values of `parts` parts (real, or real and imaginary) to `bins` complex ones:
/// `[bins·2, taps·parts]`. `length` is the transform's, `window` weighs the taps.
fn transform(
    (bins, taps, parts): (usize, usize, usize),
    length: usize,
    inverse: bool,
    window: impl Fn(usize) -> f64,
) -> Result<Tensor<f32>, Refusal> {
    let turn = if inverse { TAU } else { -TAU } / length as f64;
    let scale = if inverse { 1.0 / length as f64 } else { 1.0 };
    matrix(bins * 2, taps * parts, |row, column| {
        let (bin, tap) = (row / 2, column / parts);
        // The product modulo the length keeps the angle exact.
        let (sin, cos) = (((bin as u128 * tap as u128) % length as u128) as f64 * turn).sin_cos();
        scale
            * window(tap)
            * match (row % 2, column % parts) {
                (0, 0) | (1, 1) => cos,
                (0, _) => -sin,
                _ => sin,
            }
    })
}

/// Real, or real and imaginary parts along the last axis.
fn parts(dims: &[usize]) -> Result<usize, Refusal> {
    match dims.last() {
        Some(&parts @ 1..=2) => Ok(parts),
        _ => Err(invalid(format!("its operand of shape {dims:?} ends in no complex axis"))),
    }
}

/// The axis is an attribute before operator set 20, an operand from then on.
pub(super) fn dft(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = b.dims(x);
    let parts = parts(&dims)?;
    let given = call.optional_integers(2)?.and_then(|axis| axis.first().copied());
    let default = if call.opset < 20 { 1 } else { -2 };
    let axis = axis_of(given.unwrap_or_else(|| call.int("axis", default)), dims.len())?;
    let last = dims.len() - 1;
    if axis == last {
        return Err(invalid("its axis is the complex one"));
    }
    let length = match call.optional_integers(1)?.and_then(|length| length.first().copied()) {
        None => dims[axis],
        Some(length) => {
            usize::try_from(length).ok().filter(|&l| l > 0).ok_or_else(|| invalid("dft_length"))?
        }
    };
    let (inverse, onesided) = (call.int("inverse", 0) != 0, call.int("onesided", 0) != 0);
    if onesided && (inverse || parts == 2) {
        return Err(refuse(
            "a one-sided transform that is inverse or of complex values is not supported",
            "expected a one-sided transform of real values, or a full one",
        ));
    }
    let bins = if onesided { length / 2 + 1 } else { length };
    // Beyond the transform's length values do not count; missing ones are zeros.
    let x = b.window(x, axis, 0, dims[axis].min(length) as i64)?;
    let taps = b.dims(x)[axis];
    let weights = transform((bins, taps, parts), length, inverse, |_| 1.0)?;
    let mut order: Vec<usize> = (0..last).filter(|&i| i != axis).collect();
    order.extend([axis, last]);
    let turned = b.transpose(x, &order)?;
    let lead: Vec<usize> = order[..last - 1].iter().map(|&i| dims[i]).collect();
    let rows = b.reshape(turned, &[lead.as_slice(), &[taps * parts]].concat())?;
    let y = b.matrix(rows, weights, Tensor::scalar(0.0))?;
    let y = b.reshape(y, &[lead.as_slice(), &[bins, 2]].concat())?;
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, &axis)| back[axis] = i);
    b.transpose(y, &back)
}

/// Transforms of windows along a signal: `[N, L, 1 or 2]` to `[N, windows, bins, 2]`.
pub(super) fn stft(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let mut dims = b.dims(x);
    if dims.len() == 2 {
        dims.push(1);
    }
    let &[batch, samples, _] = dims.as_slice() else {
        return Err(invalid(format!("its signal has shape {dims:?}, expected [N, L, 1]")));
    };
    let parts = parts(&dims)?;
    let size = |position: usize| -> Result<Option<usize>, Refusal> {
        let value = call.optional_integers(position)?.and_then(|v| v.first().copied());
        let size = value.map(|v| usize::try_from(v).ok().filter(|&v| v > 0));
        size.map(|s| s.ok_or_else(|| invalid("its step or length is not positive"))).transpose()
    };
    let step = size(1)?.ok_or_else(|| invalid("its step is missing"))?;
    let window = call.optional(2).map(|_| call.reals(2)).transpose()?;
    let of_window = window.as_ref().map(|w| w.data.len());
    let length = size(3)?.or(of_window).ok_or_else(|| invalid("its length is missing"))?;
    if of_window.is_some_and(|n| n != length) || length > samples {
        return Err(invalid(format!("frames of {length} do not fit its window or its signal")));
    }
    let onesided = call.int("onesided", 1) != 0;
    if onesided && parts == 2 {
        return Err(invalid("a complex signal has no one-sided transform"));
    }
    let bins = if onesided { length / 2 + 1 } else { length };
    let count = (samples - length) / step + 1;
    let weigh = |tap: usize| window.as_ref().map_or(1.0, |w| f64::from(w.data[tap]));
    let weights = transform((bins, length, parts), length, false, weigh)?;
    let x = b.reshape(x, &dims)?;
    let frames = super::geometry::Axis {
        length: samples,
        kernel: length,
        stride: step,
        ..super::geometry::Axis::trivial()
    };
    let framed = super::geometry::unfold(b, x, 1, &frames, count)?;
    let framed = b.reshape(framed, &[batch, count, length * parts])?;
    let y = b.matrix(framed, weights, Tensor::scalar(0.0))?;
    b.reshape(y, &[batch, count, bins, 2])
}
