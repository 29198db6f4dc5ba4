//! Pooling over windows and over whole images.

use super::builder::Builder;
use super::geometry::{Axis, axes, image, kernel_shape, lift, lower, unfold};
use super::node::{Call, Refusal, invalid, refuse};
use ir::graph::{NodeId, Op};
use ir::op::{Convolution, Elementary, Function};
use ir::tensor::{Shape, Tensor};

/// The operand of a pooling, with height 1 if it has one spatial axis, and its windows per axis.
struct Pool {
    x: NodeId,
    spatial: usize,
    axes: Vec<Axis>,
    windows: Vec<usize>,
}

fn pool(b: &mut Builder, call: &Call) -> Result<Pool, Refusal> {
    let x = call.value(0)?;
    let dims = image(b, x)?;
    let spatial = dims.len() - 2;
    let mut axes = axes(call, &dims[2..], &kernel_shape(call, spatial)?)?;
    let x = lift(b, x, &mut axes)?;
    let ceil = call.int("ceil_mode", 0) != 0;
    if axes.iter().any(|a| a.begin < 0 || a.end < 0 || a.begin.max(a.end) >= a.reach()) {
        return Err(invalid("its padding is negative or not smaller than its window"));
    }
    let windows = axes.iter().map(|a| a.windows(ceil)).collect::<Result<_, _>>()?;
    Ok(Pool { x, spatial, axes, windows })
}

impl Pool {
    /// Applies a reduction over windows of two axes of `[1, C, H, W]` to all spatial axes: to the last
    /// two together, then to those before them one by one.
    fn reduce(
        self,
        b: &mut Builder,
        reduce: impl Fn(&mut Builder, NodeId, [Axis; 2], [usize; 2]) -> Result<NodeId, Refusal>,
    ) -> Result<NodeId, Refusal> {
        let Self { mut x, spatial, axes, windows } = self;
        let mut dims = b.dims(x);
        let last = axes.len() - 2;
        for i in (0..=last).rev() {
            let behind = if i == last { dims[i + 3] } else { dims[i + 3..].iter().product() };
            let before = dims[..i + 2].iter().product();
            let flat = b.reshape(x, &[1, before, dims[i + 2], behind])?;
            let (second, count) = match i == last {
                true => (axes[i + 1], windows[i + 1]),
                false => (Axis { length: behind, ..Axis::trivial() }, behind),
            };
            x = reduce(b, flat, [axes[i], second], [windows[i], count])?;
            dims[i + 2] = windows[i];
            if i == last {
                dims[i + 3] = windows[i + 1];
            }
        }
        let y = b.reshape(x, &dims)?;
        lower(b, y, spatial)
    }

    /// Sums over the windows; padding counts as zeros.
    fn sums(self, b: &mut Builder) -> Result<NodeId, Refusal> {
        self.reduce(b, |b, mut x, axes, windows| {
            let (kernel, mut stride) = (axes.map(|a| a.kernel), axes.map(|a| a.stride));
            for (i, axis) in axes.iter().enumerate() {
                if axis.dilation > 1 {
                    x = unfold(b, x, 2 + i, axis, windows[i])?;
                    stride[i] = kernel[i];
                } else {
                    let end = ((windows[i] - 1) * axis.stride) as i64 + axis.reach();
                    x = b.window(x, 2 + i, -axis.begin, end - axis.begin)?;
                }
            }
            let mut shape = b.shape(x);
            shape.0[2..].copy_from_slice(&windows);
            b.add(Op::SumWindows { kernel, stride }, shape, &[x])
        })
    }
}

pub(super) fn max_pool(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    pool(b, call)?.reduce(b, |b, x, axes, windows| {
        let behind = |i: usize| {
            let reached = ((windows[i] - 1) * axes[i].stride) as i64 + axes[i].reach();
            (reached - axes[i].length as i64 - axes[i].begin).max(0) as usize
        };
        let [top, left] = axes.map(|a| a.begin as usize);
        let geometry = Convolution {
            groups: 1,
            kernel: axes.map(|a| a.kernel),
            stride: axes.map(|a| a.stride),
            dilation: axes.map(|a| a.dilation),
            padding: [top, left, behind(0), behind(1)],
        };
        max_windows(b, x, geometry)
    })
}

/// Maxima over windows of `[1, C, H, W]`.
fn max_windows(b: &mut Builder, x: NodeId, geometry: Convolution) -> Result<NodeId, Refusal> {
    let input = b.shape(x);
    let Convolution { kernel, stride, dilation, padding, .. } = geometry;
    let shape = geometry
        .output_shape(&input, input.0[1])
        .ok_or_else(|| invalid("its windows do not fit its operand"))?;
    b.add(Op::MaxWindows { kernel, stride, dilation, padding }, shape, &[x])
}

/// Sums over windows of the zero-padded image, times one over the number of entries.
pub(super) fn average_pool(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let pool = pool(b, call)?;
    let counts_padding = call.int("count_include_pad", 0) != 0;
    let all = pool.axes.iter().zip(&pool.windows);
    let all = all.map(|(axis, &windows)| entries(axis, windows, counts_padding));
    let counts: Vec<Vec<usize>> = all.skip(2 - pool.spatial.min(2)).collect();
    let sums = pool.sums(b)?;
    let scale = if counts.iter().all(|c| c.iter().all(|&n| n == c[0])) {
        Tensor::scalar(1.0 / counts.iter().map(|c| c[0]).product::<usize>() as f32)
    } else {
        let outer = |products: Vec<usize>, counts: &Vec<usize>| -> Vec<usize> {
            products.iter().flat_map(|&p| counts.iter().map(move |&n| p * n)).collect()
        };
        let counted = counts.iter().fold(vec![1], outer);
        let shape = Shape(counts.iter().map(Vec::len).collect());
        Tensor::new(shape, counted.into_iter().map(|n| 1.0 / n as f32).collect())
    };
    b.affine(sums, scale, Tensor::scalar(0.0))
}

/// How many entries every window of an axis counts: those of the image, or of the padded image.
fn entries(axis: &Axis, windows: usize, counts_padding: bool) -> Vec<usize> {
    let (low, high) = if counts_padding {
        (0, axis.padded())
    } else {
        (axis.begin, axis.begin + axis.length as i64)
    };
    let (dilation, kernel) = (axis.dilation as i64, axis.kernel as i64);
    // The first tap of a window from `start` on that is not before `bound`.
    let tap = |start: i64, bound: i64| {
        (bound - start + dilation - 1).div_euclid(dilation).clamp(0, kernel)
    };
    let starts = (0..windows).map(|i| (i * axis.stride) as i64);
    starts.map(|s| (tap(s, high) - tap(s, low)).max(1) as usize).collect()
}

/// The `p`-norm over windows, `(Σ |x|^p)^(1/p)`.
pub(super) fn lp_pool(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let p = exponent(call)?;
    let mut pool = pool(b, call)?;
    pool.x = power(b, pool.x, p)?;
    let sums = pool.sums(b)?;
    root(b, sums, p)
}

/// The `p`-norm over the image.
pub(super) fn global_lp_pool(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let p = exponent(call)?;
    let x = call.value(0)?;
    let axes: Vec<usize> = (2..b.rank(x)).collect();
    let powers = power(b, x, p)?;
    let sums = b.sum_axes(powers, &axes)?;
    root(b, sums, p)
}

fn exponent(call: &Call) -> Result<i64, Refusal> {
    match call.int("p", 2) {
        p @ 1..=64 => Ok(p),
        p => Err(refuse(format!("its norm has p {p}"), "expected 1 to 64")),
    }
}

/// `|x|^p`
fn power(b: &mut Builder, x: NodeId, p: i64) -> Result<NodeId, Refusal> {
    let exponent = p as f64;
    match p {
        2 => b.expression(x, vec![Elementary::Product(0, 0)]),
        p if p % 2 == 0 => b.expression(x, vec![Elementary::Power { operand: 0, exponent }]),
        _ => {
            let absolute = b.function(x, Function::Abs)?;
            if p == 1 {
                return Ok(absolute);
            }
            b.expression(absolute, vec![Elementary::Power { operand: 0, exponent }])
        }
    }
}

/// `x^(1/p)`
fn root(b: &mut Builder, x: NodeId, p: i64) -> Result<NodeId, Refusal> {
    match p {
        1 => Ok(x),
        2 => b.function(x, Function::Sqrt),
        p => b.expression(x, vec![Elementary::Power { operand: 0, exponent: 1.0 / p as f64 }]),
    }
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
