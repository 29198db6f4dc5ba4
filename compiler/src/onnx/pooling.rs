//! Pooling over windows and over whole images.

use super::builder::Builder;
use super::geometry::{Axis, axes, image, kernel_shape, lift, lower, pad};
use super::node::{Call, Refusal, invalid, refuse};
use ir::graph::{NodeId, Op};
use ir::op::Convolution;
use ir::tensor::{Shape, Tensor};

pub(super) fn max_pool(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = image(b, x)?;
    let axes = axes(call, &dims[2..], &kernel_shape(call, dims.len() - 2)?)?;
    let (x, lifted) = lift(b, x, &axes)?;
    let ceil = call.int("ceil_mode", 0) != 0;
    let mut padding = [0; 4];
    for (i, axis) in lifted.iter().enumerate() {
        if axis.begin < 0 || axis.end < 0 || axis.begin.max(axis.end) >= axis.reach() {
            return Err(invalid("its padding is negative or not smaller than its window"));
        }
        let last = (axis.windows(ceil)? as i64 - 1) * axis.stride as i64;
        let needed = last + axis.reach() - axis.length as i64 - axis.begin;
        padding[i] = axis.begin as usize;
        padding[i + 2] = if ceil { needed.max(0) } else { axis.end } as usize;
    }
    let y = max_windows(
        b,
        x,
        Convolution {
            groups: 1,
            kernel: lifted.map(|a| a.kernel),
            stride: lifted.map(|a| a.stride),
            dilation: lifted.map(|a| a.dilation),
            padding,
        },
    )?;
    lower(b, y, axes.len())
}

/// Maxima over windows of `[N, C, H, W]`.
pub(super) fn max_windows(
    b: &mut Builder,
    x: NodeId,
    geometry: Convolution,
) -> Result<NodeId, Refusal> {
    let input = b.shape(x);
    let batch = input.0[0];
    let flat = b.reshape(x, &[1, batch * input.0[1], input.0[2], input.0[3]])?;
    let Convolution { kernel, stride, dilation, padding, .. } = geometry;
    let shape = geometry
        .output_shape(&b.shape(flat), batch * input.0[1])
        .ok_or_else(|| invalid("its windows do not fit its operand"))?;
    let (rows, columns) = (shape.0[2], shape.0[3]);
    let y = b.add(Op::MaxWindows { kernel, stride, dilation, padding }, shape, &[flat])?;
    b.reshape(y, &[batch, input.0[1], rows, columns])
}

/// Sums over windows of the zero-padded image, times one over the number of entries.
pub(super) fn average_pool(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = image(b, x)?;
    let axes = axes(call, &dims[2..], &kernel_shape(call, dims.len() - 2)?)?;
    if axes.iter().any(|a| a.dilation != 1) {
        return Err(refuse("dilations are not supported", "expected dilations of 1"));
    }
    let (x, mut lifted) = lift(b, x, &axes)?;
    let ceil = call.int("ceil_mode", 0) != 0;
    let counts_padding = call.int("count_include_pad", 0) != 0;
    let mut counts = Vec::new();
    for axis in &mut lifted {
        if axis.begin < 0 || axis.end < 0 || axis.begin.max(axis.end) >= axis.reach() {
            return Err(invalid("its padding is negative or not smaller than its window"));
        }
        let windows = axis.windows(ceil)?;
        counts.push(entries(axis, windows, counts_padding));
        let needed = (windows as i64 - 1) * axis.stride as i64 + axis.reach();
        axis.end = needed - axis.length as i64 - axis.begin;
    }
    let x = pad(b, x, &mut lifted)?;
    let mut shape = b.shape(x);
    (shape.0[2], shape.0[3]) = (counts[0].len(), counts[1].len());
    let (kernel, stride) = (lifted.map(|a| a.kernel), lifted.map(|a| a.stride));
    let sums = b.add(Op::SumWindows { kernel, stride }, shape, &[x])?;
    let is_uniform = counts.iter().all(|c| c.iter().all(|&n| n == c[0]));
    let scale = if is_uniform {
        Tensor::scalar(1.0 / (counts[0][0] * counts[1][0]) as f32)
    } else {
        let rows = counts[0].iter();
        let data = rows.flat_map(|&r| counts[1].iter().map(move |&c| 1.0 / (r * c) as f32));
        Tensor::new(Shape::new([counts[0].len(), counts[1].len()]), data.collect())
    };
    let y = b.affine(sums, scale, Tensor::scalar(0.0))?;
    lower(b, y, axes.len())
}

/// How many entries every window of an axis counts: those of the image, or of the padded image.
fn entries(axis: &Axis, windows: usize, counts_padding: bool) -> Vec<i64> {
    let (low, high) = if counts_padding {
        (0, axis.padded())
    } else {
        (axis.begin, axis.begin + axis.length as i64)
    };
    let starts = (0..windows as i64).map(|i| i * axis.stride as i64);
    starts.map(|s| ((s + axis.kernel as i64).min(high) - s.max(low)).max(1)).collect()
}

pub(super) fn global_average_pool(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let axes: Vec<usize> = (2..b.rank(x)).collect();
    let count: usize = b.dims(x).iter().skip(2).product();
    let sums = b.sum_axes(x, &axes)?;
    b.scaled(sums, 1.0 / count as f32, 0.0)
}

pub(super) fn global_max_pool(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let dims = b.dims(x);
    if dims.len() < 3 {
        return Err(invalid("its operand is no image"));
    }
    let count: usize = dims[2..].iter().product();
    let mut reduced = dims.clone();
    reduced[2..].fill(1);
    let y = maxima(b, x, dims[0] * dims[1], count)?;
    b.reshape(y, &reduced)
}

/// The maximum of every run of `count` elements, `[1, runs, 1, 1]`.
pub(super) fn maxima(
    b: &mut Builder,
    x: NodeId,
    runs: usize,
    count: usize,
) -> Result<NodeId, Refusal> {
    let flat = b.reshape(x, &[1, runs, 1, count])?;
    let geometry = Convolution {
        groups: 1,
        kernel: [1, count],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [0; 4],
    };
    max_windows(b, flat, geometry)
}
