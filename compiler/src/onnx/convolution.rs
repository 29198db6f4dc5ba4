//! `Conv` and `ConvTranspose`.

use super::MAX_VALUE;
use super::builder::{Builder, too_large};
use super::geometry::{Axis, axes, crop, image, lift, lower, positive};
use super::node::{Call, Refusal, invalid, refuse};
use ir::graph::NodeId;
use ir::op::Convolution;
use ir::tensor::{Shape, Tensor};

pub(super) fn conv(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = image(b, x)?;
    let (weights, bias) = (weights(call, dims.len())?, bias(call)?);
    let kernel = kernel(call, &weights)?;
    let axes = axes(call, &dims[2..], &kernel)?;
    let (x, mut lifted) = lift(b, x, &axes)?;
    let x = crop(b, x, &mut lifted)?;
    let geometry = Convolution {
        groups: groups(call)?,
        kernel: lifted.map(|a| a.kernel),
        stride: lifted.map(|a| a.stride),
        dilation: lifted.map(|a| a.dilation),
        padding: padding(lifted.map(|a| (a.begin, a.end))),
    };
    let [rows, columns] = lifted.map(|a| a.kernel);
    let shape = Shape::new([weights.shape.0[0], weights.shape.0[1], rows, columns]);
    let y = b.convolution(x, geometry, weights.reshape(shape), bias)?;
    lower(b, y, axes.len())
}

/// As a convolution of the image with zeros between its entries, by the turned kernel.
pub(super) fn conv_transpose(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = image(b, x)?;
    let (weights, bias) = (weights(call, dims.len())?, bias(call)?);
    let groups = groups(call)?;
    let kernel = kernel(call, &weights)?;
    let axes = transposed_axes(call, &dims[2..], &kernel)?;
    let (mut x, lifted) = lift(b, x, &axes)?;
    let mut padding = [0usize; 4];
    for (i, axis) in lifted.iter().enumerate() {
        let (begin, end) = (axis.begin, axis.end);
        if axis.stride == 1 && begin >= 0 && end >= 0 {
            (padding[i], padding[i + 2]) = (begin as usize, end as usize);
        } else {
            x = spread(b, x, 2 + i, axis)?;
        }
    }
    let geometry = Convolution {
        groups,
        kernel: lifted.map(|a| a.kernel),
        stride: [1, 1],
        dilation: lifted.map(|a| a.dilation),
        padding,
    };
    let [rows, columns] = geometry.kernel;
    let turned = turn(&weights, groups, rows, columns)?;
    let y = b.convolution(x, geometry, turned, bias)?;
    lower(b, y, axes.len())
}

/// Windows over the spread image; `begin` and `end` are the paddings of that convolution.
fn transposed_axes(call: &Call, lengths: &[usize], kernel: &[usize]) -> Result<Vec<Axis>, Refusal> {
    let n = lengths.len();
    let mut axes = axes(call, lengths, kernel)?;
    let extra = call.ints("output_padding").filter(|v| !v.is_empty()).unwrap_or(vec![0; n]);
    if extra.len() != n || extra.iter().any(|v| !(0..=MAX_VALUE as i64).contains(v)) {
        return Err(invalid(format!("output_padding {extra:?} does not fit {n} spatial axes")));
    }
    let output_shape = match call.ints("output_shape").filter(|v| !v.is_empty()) {
        Some(_) => Some(positive(call, "output_shape", n)?),
        None => None,
    };
    let auto_pad = call.string("auto_pad", "NOTSET");
    for (i, axis) in axes.iter_mut().enumerate() {
        let full = axis.stride as i64 * (axis.length as i64 - 1) + axis.reach();
        let wanted = match &output_shape {
            Some(shape) => Some(shape[i] as i64),
            None => auto_pad.starts_with("SAME").then_some((axis.length * axis.stride) as i64),
        };
        let (before, after) = match wanted {
            Some(wanted) => {
                let total = (full + extra[i] - wanted).max(0);
                let half = total / 2;
                if auto_pad == "SAME_UPPER" { (half, total - half) } else { (total - half, half) }
            }
            None => (axis.begin, axis.end),
        };
        (axis.begin, axis.end) = (axis.reach() - 1 - before, axis.reach() - 1 - after + extra[i]);
    }
    Ok(axes)
}

/// Puts `stride - 1` zeros between the entries along an axis, and pads or crops.
fn spread(b: &mut Builder, x: NodeId, position: usize, axis: &Axis) -> Result<NodeId, Refusal> {
    let stride = axis.stride as i64;
    let length = (axis.length as i64 - 1) * stride + 1;
    let total = length + axis.begin + axis.end;
    if !(1..=MAX_VALUE as i64).contains(&total) {
        return Err(too_large("its result"));
    }
    let entry = |p: i64| {
        let q = p - axis.begin;
        ((0..length).contains(&q) && q % stride == 0).then_some((q / stride) as u32)
    };
    b.take(x, position, (0..total).map(entry).collect())
}

/// Weights `[C, M/groups, kh, kw]` of a transposed convolution as those of a convolution,
/// `[M, C/groups, kh, kw]`, with the kernel turned by half a circle.
fn turn(
    weights: &Tensor<f32>,
    groups: usize,
    rows: usize,
    columns: usize,
) -> Result<Tensor<f32>, Refusal> {
    let (inputs, outputs) = (weights.shape.0[0], weights.shape.0[1]);
    if inputs % groups != 0 {
        return Err(invalid(format!("{groups} groups do not divide {inputs} channels")));
    }
    let (per_group, taps) = (inputs / groups, rows * columns);
    let mut data = Vec::with_capacity(weights.data.len());
    for group in 0..groups {
        for output in 0..outputs {
            for input in 0..per_group {
                let start = ((group * per_group + input) * outputs + output) * taps;
                data.extend(weights.data[start..start + taps].iter().rev());
            }
        }
    }
    Ok(Tensor::new(Shape::new([groups * outputs, per_group, rows, columns]), data))
}

fn weights(call: &Call, rank: usize) -> Result<Tensor<f32>, Refusal> {
    let weights = call.reals(1)?;
    if weights.shape.rank() != rank || weights.shape.0.contains(&0) {
        return Err(invalid(format!("weights of shape {} do not fit its operand", weights.shape)));
    }
    Ok(weights)
}

fn bias(call: &Call) -> Result<Option<Tensor<f32>>, Refusal> {
    call.optional(2).map(|_| call.reals(2)).transpose()
}

fn kernel(call: &Call, weights: &Tensor<f32>) -> Result<Vec<usize>, Refusal> {
    let kernel = weights.shape.0[2..].to_vec();
    match call.ints("kernel_shape") {
        Some(stated) if !stated.iter().copied().eq(kernel.iter().map(|&k| k as i64)) => {
            Err(invalid(format!("kernel_shape {stated:?} differs from the weights' {kernel:?}")))
        }
        _ => Ok(kernel),
    }
}

fn groups(call: &Call) -> Result<usize, Refusal> {
    let groups = call.int("group", 1);
    usize::try_from(groups)
        .ok()
        .filter(|g| (1..=MAX_VALUE).contains(g))
        .ok_or_else(|| refuse(format!("{groups} groups are impossible"), "expected at least 1"))
}

fn padding(axes: [(i64, i64); 2]) -> [usize; 4] {
    let [(top, bottom), (left, right)] = axes;
    [top, left, bottom, right].map(|p| p.max(0) as usize)
}
