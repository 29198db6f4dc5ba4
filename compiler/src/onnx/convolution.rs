//! `Conv` and `ConvTranspose`.

use super::MAX_VALUE;
use super::builder::{Builder, too_large};
use super::geometry::{Axis, axes, crop, image, lift, lower, positive, unfold};
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
    convolve(b, x, axes, groups(call)?, weights, bias)
}

/// As a convolution of the image with zeros between its entries, by the turned kernel.
pub(super) fn conv_transpose(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let mut x = call.value(0)?;
    let dims = image(b, x)?;
    let (weights, bias) = (weights(call, dims.len())?, bias(call)?);
    let groups = groups(call)?;
    let kernel = kernel(call, &weights)?;
    let mut axes = transposed_axes(call, &dims[2..], &kernel)?;
    for (i, axis) in axes.iter_mut().enumerate() {
        if axis.stride > 1 || axis.begin < 0 || axis.end < 0 {
            x = spread(b, x, 2 + i, axis)?;
        }
    }
    let turned = turn(&weights, groups)?;
    convolve(b, x, axes, groups, turned, bias)
}

/// A convolution over any number of spatial axes as one over the last two: the taps of the axes before
/// them become channels, and their windows slabs of one image, below each other. `weights` are
/// `[M, C/groups, kernel…]`.
fn convolve(
    b: &mut Builder,
    x: NodeId,
    mut axes: Vec<Axis>,
    groups: usize,
    weights: Tensor<f32>,
    bias: Option<Tensor<f32>>,
) -> Result<NodeId, Refusal> {
    let spatial = axes.len();
    let mut x = lift(b, x, &mut axes)?;
    let outputs = weights.shape.0[0];
    let (batch, channels) = (b.dims(x)[0], b.dims(x)[1]);
    if weights.shape.0[1].checked_mul(groups) != Some(channels) {
        let (weights, x) = (&weights.shape, b.shape(x));
        return Err(invalid(format!("weights of shape {weights} do not fit {x}")));
    }
    let last = axes.len();
    let (leading, image) = axes.split_at_mut(last - 2);
    let [rows, columns] = image else { return Err(invalid("its operand is no image")) };
    let (mut windows, mut taps) = (Vec::new(), Vec::new());
    for (i, axis) in leading.iter().enumerate() {
        let count = axis.windows(false)?;
        x = unfold(b, x, 2 + i, axis, count)?;
        windows.push(count);
        taps.push(axis.kernel);
    }
    x = crop(b, x, last + 1, columns)?;
    let slabs = windows.iter().product::<usize>();
    let (high, step) = (rows.windows(false)?, rows.stride);
    let slab = if slabs == 1 {
        x = crop(b, x, last, rows)?;
        rows.length
    } else {
        // Windows begin at multiples of the step: so do slabs, and no window that counts leaves its own.
        let slab = (high - 1 + (rows.reach() as usize).div_ceil(step)) * step;
        x = b.window(x, last, -rows.begin, slab as i64 - rows.begin)?;
        (rows.begin, rows.end) = (0, 0);
        slab
    };
    let depth = taps.iter().product::<usize>();
    let stacked = stack(b, x, &windows, &taps)?;
    let stacked = b.reshape(stacked, &[batch, channels * depth, slabs * slab, columns.length])?;
    let geometry = Convolution {
        groups,
        kernel: [rows.kernel, columns.kernel],
        stride: [rows.stride, columns.stride],
        dilation: [rows.dilation, columns.dilation],
        padding: [rows.begin, columns.begin, rows.end, columns.end].map(|p| p as usize),
    };
    let per_group = weights.shape.0[1] * depth;
    let shape = Shape::new([outputs, per_group, rows.kernel, columns.kernel]);
    let mut y = b.convolution(stacked, geometry, weights.reshape(shape), bias)?;
    if slabs > 1 {
        let starts = (0..slabs).map(|s| s * slab / step);
        let inside = starts.flat_map(|s| (s..s + high).map(|row| Some(row as u32))).collect();
        y = b.take(y, 2, inside)?;
    }
    let wide = b.dims(y)[3];
    let y = b.reshape(y, &[&[batch, outputs], windows.as_slice(), &[high, wide]].concat())?;
    lower(b, y, spatial)
}

/// `[N, C, (windows·taps)…, H, W]` as `[N, C, taps…, windows…, H, W]`.
fn stack(b: &mut Builder, x: NodeId, windows: &[usize], taps: &[usize]) -> Result<NodeId, Refusal> {
    let (dims, n) = (b.dims(x), windows.len());
    let pairs = windows.iter().zip(taps).flat_map(|(&w, &t)| [w, t]).collect::<Vec<_>>();
    let split = b.reshape(x, &[&dims[..2], &pairs, &dims[2 + n..]].concat())?;
    let mut order = vec![0, 1];
    order.extend((0..n).map(|i| 3 + 2 * i));
    order.extend((0..n).map(|i| 2 + 2 * i));
    order.extend([2 + 2 * n, 3 + 2 * n]);
    b.transpose(split, &order)
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
                let total = full + extra[i] - wanted;
                if total < 0 && output_shape.is_none() {
                    return Err(refuse(
                        format!("auto_pad {auto_pad} would have to crop on axis {i}"),
                        "runtimes differ in what it means then: export with explicit pads",
                    ));
                }
                if total <= -(axis.stride as i64) {
                    return Err(invalid(format!(
                        "no image has the output_shape {wanted} on axis {i}"
                    )));
                }
                // What is missing is added behind, as `output_padding` is.
                let half = total.max(0) / 2;
                if auto_pad == "SAME_UPPER" || total < 0 {
                    (half, total - half)
                } else {
                    (total - half, half)
                }
            }
            None => (axis.begin, axis.end),
        };
        (axis.begin, axis.end) = (axis.reach() - 1 - before, axis.reach() - 1 - after + extra[i]);
    }
    Ok(axes)
}

/// Puts `stride - 1` zeros between the entries along an axis, and pads or crops.
fn spread(b: &mut Builder, x: NodeId, position: usize, axis: &mut Axis) -> Result<NodeId, Refusal> {
    let stride = axis.stride as i64;
    let length = (axis.length as i64 - 1) * stride + 1;
    let (begin, total) = (axis.begin, length + axis.begin + axis.end);
    if !(1..=MAX_VALUE as i64).contains(&total) {
        return Err(too_large("its result"));
    }
    let entry = |p: i64| {
        let q = p - begin;
        ((0..length).contains(&q) && q % stride == 0).then_some((q / stride) as u32)
    };
    *axis = Axis { length: total as usize, stride: 1, begin: 0, end: 0, ..*axis };
    b.take(x, position, (0..total).map(entry).collect())
}

/// Weights `[C, M/groups, kernel…]` of a transposed convolution as those of a convolution,
/// `[M, C/groups, kernel…]`, with the kernel turned around.
fn turn(weights: &Tensor<f32>, groups: usize) -> Result<Tensor<f32>, Refusal> {
    let (inputs, outputs) = (weights.shape.0[0], weights.shape.0[1]);
    if inputs % groups != 0 {
        return Err(invalid(format!("{groups} groups do not divide {inputs} channels")));
    }
    let kernel = &weights.shape.0[2..];
    let (per_group, taps) = (inputs / groups, kernel.iter().product::<usize>());
    let mut data = Vec::with_capacity(weights.data.len());
    for group in 0..groups {
        for output in 0..outputs {
            for input in 0..per_group {
                let start = ((group * per_group + input) * outputs + output) * taps;
                data.extend(weights.data[start..start + taps].iter().rev());
            }
        }
    }
    let shape = [&[groups * outputs, per_group], kernel].concat();
    Ok(Tensor::new(Shape(shape), data))
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
