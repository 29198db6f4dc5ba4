//! Operators that sample images at constant points, and put patches together.

use super::MAX_VALUE;
use super::builder::{Builder, too_large};
use super::geometry::{Axis, axes, image};
use super::indexing::indices;
use super::linear_map::{Row, combine};
use super::node::{Call, Refusal, Value, invalid, refuse};
use super::resize::cubic;
use ir::graph::NodeId;
use ir::tensor::{Shape, Tensor};

/// How a grid's points are read.
struct Sampling {
    mode: String,
    padding: String,
    align: bool,
}

/// Images sampled at the points of a constant grid, whose last axis counts from the innermost axis of the
/// image outwards, from −1 to 1.
pub(super) fn grid_sample(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let (Value::Node(x), Value::Constant(_)) = (call.operand(0)?, call.operand(1)?) else {
        return Err(refuse(
            "a grid computed from the input is not supported",
            "expected a constant grid and images computed from the input",
        ));
    };
    let dims = image(b, *x)?;
    let (batch, channels, lengths) = (dims[0], dims[1], &dims[2..]);
    let grid = call.reals(1)?;
    let spatial = lengths.len();
    let fits = grid.shape.rank() == dims.len()
        && grid.shape.0[0] == batch
        && grid.shape.0.last() == Some(&spatial);
    if !fits {
        return Err(invalid(format!("a grid of shape {} does not fit {dims:?}", grid.shape)));
    }
    let sampling = Sampling {
        mode: call.string("mode", if call.opset < 20 { "bilinear" } else { "linear" }),
        padding: call.string("padding_mode", "zeros"),
        align: call.int("align_corners", 0) != 0,
    };
    let pixels: usize = lengths.iter().product();
    let strides = Shape::new(lengths).strides();
    let points = grid.data.len() / spatial / batch;
    // A cubic filter has four taps per axis.
    if points == 0 || batch * points > MAX_VALUE >> (2 * spatial) {
        return Err(too_large("its grid"));
    }
    let mut rows = Vec::with_capacity(batch * points);
    for (i, point) in grid.data.chunks_exact(spatial).enumerate() {
        let mut row: Row = vec![((i / points * pixels) as u32, 1.0)];
        for (axis, &length) in lengths.iter().enumerate() {
            let taps = sampling.taps(point[spatial - 1 - axis], length)?;
            let with = |&(at, w): &(u32, f32)| {
                let stride = strides[axis];
                taps.iter().map(move |&(i, v)| (at + i as u32 * stride as u32, w * v))
            };
            row = row.iter().flat_map(with).collect();
        }
        rows.push(row);
    }
    let flat = b.reshape(*x, &[batch, channels, pixels])?;
    let flat = b.transpose(flat, &[1, 0, 2])?;
    let flat = b.reshape(flat, &[channels, batch * pixels])?;
    let y = combine(b, flat, 1, &rows)?;
    let y = b.reshape(y, &[channels, batch, points])?;
    let y = b.transpose(y, &[1, 0, 2])?;
    let inner = &grid.shape.0[1..dims.len() - 1];
    b.reshape(y, &[&[batch, channels], inner].concat())
}

impl Sampling {
    /// The entries of an axis that lie at a coordinate of the grid, with their weights.
    fn taps(&self, coordinate: f32, length: usize) -> Result<Vec<(usize, f32)>, Refusal> {
        let size = length as f32;
        let (low, high) = if self.align { (0.0, size - 1.0) } else { (-0.5, size - 0.5) };
        let mut x = match self.align {
            true => (coordinate + 1.0) / 2.0 * (size - 1.0),
            false => ((coordinate + 1.0) * size - 1.0) / 2.0,
        };
        if !x.is_finite() || x.abs() > MAX_VALUE as f32 {
            return Err(invalid("a point of its grid is not finite or far away"));
        }
        let nearest = self.mode == "nearest";
        if nearest {
            x = x.round_ties_even();
        }
        if x < low || x > high {
            x = match self.padding.as_str() {
                "zeros" => x,
                "border" => x.clamp(0.0, size - 1.0),
                "reflection" => reflect(x, low, high),
                other => return Err(invalid(format!("padding_mode {other:?} is unknown"))),
            };
        }
        let first = x.floor();
        let part = f64::from(x - first);
        let weights: Vec<(i64, f64)> = match self.mode.as_str() {
            "nearest" => vec![(0, 1.0)],
            "linear" | "bilinear" => vec![(0, 1.0 - part), (1, part)],
            "cubic" | "bicubic" => (-1..=2).map(|i| (i, cubic(i as f64 - part, -0.75))).collect(),
            other => return Err(invalid(format!("the mode {other:?} is unknown"))),
        };
        let mut taps = Vec::new();
        for (i, weight) in weights {
            let at = first as i64 + i;
            let inside = (0..length as i64).contains(&at);
            let at = match self.padding.as_str() {
                _ if inside => at,
                "zeros" => continue,
                "border" => at.clamp(0, length as i64 - 1),
                _ => (reflect(at as f32, low, high) as i64).clamp(0, length as i64 - 1),
            };
            if weight != 0.0 {
                taps.push((at as usize, weight as f32));
            }
        }
        Ok(taps)
    }
}

/// A coordinate mirrored at the ends of an interval until it lies inside.
fn reflect(x: f32, low: f32, high: f32) -> f32 {
    let range = high - low;
    if range <= 0.0 {
        return low;
    }
    let beyond = if x < low { low - x } else { x - high };
    if beyond <= 0.0 {
        return x;
    }
    let turns = (beyond / range) as i64;
    let rest = beyond - turns as f32 * range;
    if (turns % 2 == 0) == (x < low) { low + rest } else { high - rest }
}

/// The points that affine maps computed from the input send a constant grid to.
pub(super) fn affine_grid(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let theta = call.value(0)?;
    let size = call.integers(1)?;
    let lengths: Option<Vec<usize>> =
        size.iter().skip(2).map(|&d| usize::try_from(d).ok().filter(|&d| d > 0)).collect();
    let lengths = lengths.ok_or_else(|| invalid(format!("the size {size:?} is impossible")))?;
    let spatial = lengths.len();
    let batch = b.dims(theta)[0];
    if !(2..=3).contains(&spatial) || b.dims(theta) != [batch, spatial, spatial + 1] {
        return Err(invalid(format!("maps of shape {} do not fit it", b.shape(theta))));
    }
    let points = lengths.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let points = points.filter(|n| *n <= MAX_VALUE / 8).ok_or_else(|| too_large("its result"))?;
    let align = call.int("align_corners", 0) != 0;
    let at = |i: usize, length: usize| match align {
        true if length == 1 => 0.0,
        true => 2.0 * i as f64 / (length - 1) as f64 - 1.0,
        false => (2 * i + 1) as f64 / length as f64 - 1.0,
    };
    let mut grid = Vec::with_capacity(points * (spatial + 1));
    for index in indices(&lengths) {
        grid.extend(index.iter().zip(&lengths).rev().map(|(&i, &d)| at(i, d) as f32));
        grid.push(1.0);
    }
    let grid = Tensor::new(Shape::new([points, spatial + 1]), grid);
    let y = b.matrix(theta, grid, Tensor::scalar(0.0))?;
    let y = b.transpose(y, &[0, 2, 1])?;
    b.reshape(y, &[&[batch], lengths.as_slice(), &[spatial]].concat())
}

/// Patches `[N, C·taps, windows]` added where they lie in an image.
pub(super) fn col2im(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let positive = |position: usize| -> Result<Vec<usize>, Refusal> {
        let values = call.integers(position)?;
        let sizes = values.iter().map(|&v| usize::try_from(v).ok().filter(|&v| v > 0));
        let sizes: Option<Vec<usize>> = sizes.collect();
        sizes.ok_or_else(|| invalid(format!("the shape {values:?} is impossible")))
    };
    let (lengths, kernel) = (positive(1)?, positive(2)?);
    let axes = axes(call, &lengths, &kernel)?;
    let windows: Vec<usize> = axes.iter().map(|a| a.windows(false)).collect::<Result<_, _>>()?;
    let size = |dims: &[usize]| {
        let size = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        size.filter(|n| *n <= MAX_VALUE).ok_or_else(|| too_large("its image"))
    };
    let (pixels, taps, places) = (size(&lengths)?, size(&kernel)?, size(&windows)?);
    let dims = b.dims(x);
    let &[batch, depth, columns] = dims.as_slice() else {
        return Err(invalid(format!("its operand has shape {dims:?}, expected [N, C, L]")));
    };
    if columns != places || depth % taps != 0 {
        return Err(invalid(format!("patches of shape {dims:?} do not fit its image")));
    }
    let strides = Shape::new(lengths.as_slice()).strides();
    let mut rows = vec![Row::new(); pixels];
    for (k, tap) in indices(&kernel).enumerate() {
        for (l, window) in indices(&windows).enumerate() {
            let lies = |(i, a): (usize, &Axis)| {
                let at = (window[i] * a.stride + tap[i] * a.dilation) as i64 - a.begin;
                (0..a.length as i64).contains(&at).then_some(at as usize * strides[i])
            };
            let place: Option<usize> = axes.iter().enumerate().map(lies).sum();
            if let Some(place) = place {
                rows[place].push(((k * places + l) as u32, 1.0));
            }
        }
    }
    let channels = depth / taps;
    let flat = b.reshape(x, &[batch * channels, taps * places])?;
    let y = combine(b, flat, 1, &rows)?;
    b.reshape(y, &[&[batch, channels], lengths.as_slice()].concat())
}
