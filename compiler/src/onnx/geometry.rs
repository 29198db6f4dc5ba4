//! Windows of convolutions and poolings: attributes, paddings and lengths, per spatial axis.

use super::MAX_VALUE;
use super::builder::{Builder, too_large};
use super::node::{Call, Refusal, invalid, refuse};
use ir::graph::NodeId;

/// The window along one spatial axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub length: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    /// Zeros before and after; negative ones crop.
    pub begin: i64,
    pub end: i64,
}

impl Axis {
    pub(super) fn trivial() -> Self {
        Self { length: 1, kernel: 1, stride: 1, dilation: 1, begin: 0, end: 0 }
    }

    /// The extent of a window.
    pub(super) fn reach(&self) -> i64 {
        (self.dilation * (self.kernel - 1) + 1) as i64
    }

    /// The padded length.
    pub(super) fn padded(&self) -> i64 {
        self.length as i64 + self.begin + self.end
    }

    /// The number of windows; the last may stick out where `ceil` is set.
    pub(super) fn windows(&self, ceil: bool) -> Result<usize, Refusal> {
        let free = self.padded() - self.reach();
        let stride = self.stride as i64;
        if free < 0 && !(ceil && free > -stride) {
            return Err(invalid("the window is larger than its padded operand"));
        }
        let mut windows = free.div_euclid(stride) + 1;
        if ceil && free.rem_euclid(stride) != 0 {
            windows += 1;
            if (windows - 1) * stride >= self.length as i64 + self.begin {
                windows -= 1;
            }
        }
        usize::try_from(windows).ok().filter(|&n| n > 0).ok_or_else(|| too_large("its result"))
    }
}

/// The spatial axes of an operand, given its kernel: from `strides`, `dilations`, `pads` and
/// `auto_pad`.
pub(super) fn axes(call: &Call, lengths: &[usize], kernel: &[usize]) -> Result<Vec<Axis>, Refusal> {
    let n = lengths.len();
    if kernel.len() != n {
        return Err(invalid(format!("its kernel {kernel:?} does not fit {n} spatial axes")));
    }
    let strides = positive(call, "strides", n)?;
    let dilations = positive(call, "dilations", n)?;
    let auto_pad = call.string("auto_pad", "NOTSET");
    let pads = call.ints("pads").filter(|p| !p.is_empty()).unwrap_or_else(|| vec![0; 2 * n]);
    if pads.len() != 2 * n || pads.iter().any(|p| p.unsigned_abs() > MAX_VALUE as u64) {
        return Err(invalid(format!("pads {pads:?} do not fit {n} spatial axes")));
    }
    (0..n)
        .map(|i| {
            let mut axis = Axis {
                length: lengths[i],
                kernel: kernel[i],
                stride: strides[i],
                dilation: dilations[i],
                begin: 0,
                end: 0,
            };
            if axis.kernel == 0 || axis.kernel.saturating_mul(axis.dilation) > MAX_VALUE {
                return Err(invalid(format!("its kernel {kernel:?} is empty or too large")));
            }
            match auto_pad.as_str() {
                "NOTSET" | "" => (axis.begin, axis.end) = (pads[i], pads[i + n]),
                "VALID" => {}
                "SAME_UPPER" | "SAME_LOWER" => {
                    let windows = axis.length.div_ceil(axis.stride) as i64;
                    let needed = (windows - 1) * axis.stride as i64 + axis.reach();
                    let total = (needed - axis.length as i64).max(0);
                    let (less, more) = (total / 2, total - total / 2);
                    (axis.begin, axis.end) =
                        if auto_pad == "SAME_UPPER" { (less, more) } else { (more, less) };
                }
                other => return Err(invalid(format!("auto_pad {other:?} is unknown"))),
            }
            Ok(axis)
        })
        .collect()
}

/// Positive numbers, one per spatial axis, by default 1.
pub(super) fn positive(call: &Call, name: &str, n: usize) -> Result<Vec<usize>, Refusal> {
    let values = call.ints(name).filter(|v| !v.is_empty()).unwrap_or_else(|| vec![1; n]);
    let sizes: Option<Vec<usize>> = values
        .iter()
        .map(|&v| usize::try_from(v).ok().filter(|v| (1..=MAX_VALUE).contains(v)))
        .collect();
    sizes
        .filter(|s| s.len() == n)
        .ok_or_else(|| invalid(format!("{name} {values:?} do not fit {n} spatial axes")))
}

/// The kernel from the attribute `kernel_shape`.
pub(super) fn kernel_shape(call: &Call, n: usize) -> Result<Vec<usize>, Refusal> {
    if !call.has("kernel_shape") {
        return Err(invalid("kernel_shape is missing"));
    }
    positive(call, "kernel_shape", n)
}

/// The dimensions of an image operand, `[N, C, spatial…]`.
pub(super) fn image(builder: &Builder, x: NodeId) -> Result<Vec<usize>, Refusal> {
    let dims = builder.dims(x);
    match dims.len() {
        0..=2 => Err(invalid(format!("its operand has shape {dims:?}, expected [1, C, H, W]"))),
        rank if rank - 2 <= MAX_SPATIAL => Ok(dims),
        rank => Err(refuse(
            format!("{} spatial axes are not supported", rank - 2),
            format!("expected at most {MAX_SPATIAL}"),
        )),
    }
}

/// Images have no more spatial axes: with one tap axis each, two of them go beyond the largest rank.
pub(super) const MAX_SPATIAL: usize = 4;

/// Gives an image of one spatial axis height 1.
pub(super) fn lift(
    builder: &mut Builder,
    x: NodeId,
    axes: &mut Vec<Axis>,
) -> Result<NodeId, Refusal> {
    match builder.dims(x).as_slice() {
        &[n, c, l] => {
            axes.insert(0, Axis::trivial());
            builder.reshape(x, &[n, c, 1, l])
        }
        _ => Ok(x),
    }
}

/// Takes the height away again that [`lift`] gave an image of `spatial` axes.
pub(super) fn lower(b: &mut Builder, y: NodeId, spatial: usize) -> Result<NodeId, Refusal> {
    let dims = b.dims(y);
    if spatial == 1 { b.reshape(y, &[dims[0], dims[1], dims[3]]) } else { Ok(y) }
}

/// Crops an axis where its paddings are negative, which become 0.
pub(super) fn crop(
    builder: &mut Builder,
    x: NodeId,
    position: usize,
    axis: &mut Axis,
) -> Result<NodeId, Refusal> {
    let (from, to) = ((-axis.begin).max(0), axis.length as i64 + axis.end.min(0));
    let x = builder.window(x, position, from, to)?;
    axis.length = (to - from) as usize;
    (axis.begin, axis.end) = (axis.begin.max(0), axis.end.max(0));
    Ok(x)
}

/// Lays the taps of `windows` windows along an axis one after the other, zeros where they are padding.
pub(super) fn unfold(
    builder: &mut Builder,
    x: NodeId,
    position: usize,
    axis: &Axis,
    windows: usize,
) -> Result<NodeId, Refusal> {
    let dims = builder.dims(x);
    let others = dims.iter().product::<usize>() / dims[position].max(1);
    let taps = windows.checked_mul(axis.kernel);
    if taps.and_then(|n| n.checked_mul(others)).is_none_or(|n| n > MAX_VALUE) {
        return Err(too_large("the taps of its windows"));
    }
    let tap = |window: usize, tap: usize| {
        let at = (window * axis.stride + tap * axis.dilation) as i64 - axis.begin;
        (0..axis.length as i64).contains(&at).then_some(at as u32)
    };
    let all = (0..windows).flat_map(|w| (0..axis.kernel).map(move |t| (w, t)));
    builder.take(x, position, all.map(|(w, t)| tap(w, t)).collect())
}
