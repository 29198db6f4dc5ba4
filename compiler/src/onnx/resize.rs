//! `Resize` and `Upsample`: nearest as a selection, interpolations as a matrix per axis.
//!
//! Sizes and coordinates are computed in `f32` as ONNX Runtime does, since ties and the last entry depend
//! on their rounding.

use super::MAX_VALUE;
use super::builder::{Builder, too_large};
use super::linear_map::{Row, combine};
use super::node::{Call, Refusal, axis_of, invalid, refuse};
use ir::graph::NodeId;
use ir::tensor::Tensor;

/// The scaling of one axis.
#[derive(Clone, Copy)]
struct Scaling {
    from: usize,
    to: usize,
    scale: f32,
    /// The part of the axis that is resized, by `tf_crop_and_resize`.
    region: (f32, f32),
}

impl Scaling {
    fn is_identity(&self) -> bool {
        self.from == self.to && self.scale == 1.0 && self.region == (0.0, 1.0)
    }

    /// Whether the scaled length is no whole number, beyond rounding.
    fn has_rest(&self) -> bool {
        (self.from as f64 * f64::from(self.scale) / self.to as f64 - 1.0).abs() > 1e-5
    }
}

/// What lies at the coordinate of an entry of the result.
enum Filter {
    /// One entry, by `nearest_mode`.
    Nearest(String),
    /// All entries within `radius`, by their distance.
    Kernel { kernel: fn(f64, f64) -> f64, radius: f64, a: f64, antialias: bool, inside_only: bool },
}

pub(super) fn upsample(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let scales = match call.floats("scales") {
        Some(scales) => scales,
        None => call.reals(1)?.data,
    };
    let x = call.value(0)?;
    let scalings = by_scales(&b.dims(x), &scales)?;
    // Before operator set 11: up to the next entry where an axis shrinks.
    let filter = filter(call, "simple")?;
    apply(b, x, &scalings, "asymmetric", &filter, 0.0)
}

pub(super) fn resize(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    if call.opset < 11 {
        return upsample(b, call);
    }
    let x = call.value(0)?;
    let given = |position: usize| call.optional(position).map(|_| call.reals(position)).transpose();
    let scales = given(2)?.map(|t| t.data).filter(|s| !s.is_empty());
    let sizes = call.optional_integers(3)?.filter(|s| !s.is_empty());
    let dims = b.dims(x);
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|&a| axis_of(a, dims.len())).collect::<Result<_, _>>()?,
        None => (0..dims.len()).collect::<Vec<_>>(),
    };
    if axes.iter().enumerate().any(|(i, axis)| axes[..i].contains(axis)) {
        return Err(invalid("it names one axis twice"));
    }
    let mut scalings = match (scales, sizes) {
        (Some(scales), None) if scales.len() == axes.len() => {
            let mut all = vec![1.0; dims.len()];
            axes.iter().zip(&scales).for_each(|(&axis, &s)| all[axis] = s);
            by_scales(&dims, &all)?
        }
        (None, Some(sizes)) if sizes.len() == axes.len() => {
            by_sizes(&dims, &axes, &sizes, &call.string("keep_aspect_ratio_policy", "stretch"))?
        }
        _ => return Err(invalid("its scales or sizes do not fit its operand")),
    };
    let transformation = call.string("coordinate_transformation_mode", "half_pixel");
    if transformation == "tf_crop_and_resize" {
        let regions = given(1)?.map(|t| t.data).unwrap_or_default();
        if regions.len() != 2 * axes.len() {
            return Err(invalid("its region does not fit its operand"));
        }
        for (i, &axis) in axes.iter().enumerate() {
            scalings[axis].region = (regions[i], regions[i + axes.len()]);
        }
    }
    let filter = filter(call, &call.string("nearest_mode", "round_prefer_floor"))?;
    let outside = call.float("extrapolation_value", 0.0);
    apply(b, x, &scalings, &transformation, &filter, outside)
}

fn by_scales(dims: &[usize], scales: &[f32]) -> Result<Vec<Scaling>, Refusal> {
    if dims.len() != scales.len() {
        return Err(invalid(format!("scales {scales:?} do not fit the shape {dims:?}")));
    }
    let scaling = |(&from, &scale): (&usize, &f32)| {
        let to = (from as f32 * scale).floor();
        if !(1.0..=MAX_VALUE as f32).contains(&to) {
            return Err(too_large("its result"));
        }
        Ok(Scaling { from, to: to as usize, scale, region: (0.0, 1.0) })
    };
    dims.iter().zip(scales).map(scaling).collect()
}

/// Sizes as they are, or the largest within them, or the smallest around them, of one scale.
fn by_sizes(
    dims: &[usize],
    axes: &[usize],
    sizes: &[i64],
    policy: &str,
) -> Result<Vec<Scaling>, Refusal> {
    let of = |from: usize, to: f32, scale: Option<f32>| {
        if !(1.0..=MAX_VALUE as f32).contains(&to) {
            return Err(too_large("its result"));
        }
        let scale = scale.unwrap_or(to / from as f32);
        Ok(Scaling { from, to: to as usize, scale, region: (0.0, 1.0) })
    };
    let ratios = axes.iter().zip(sizes).map(|(&axis, &to)| to as f32 / dims[axis] as f32);
    let common = match policy {
        "stretch" => None,
        "not_larger" => Some(ratios.fold(f32::INFINITY, f32::min)),
        "not_smaller" => Some(ratios.fold(0.0, f32::max)),
        other => return Err(invalid(format!("keep_aspect_ratio_policy {other:?} is unknown"))),
    };
    let mut all = dims.iter().map(|&d| of(d, d as f32, None)).collect::<Result<Vec<_>, _>>()?;
    for (&axis, &size) in axes.iter().zip(sizes) {
        let to = common.map_or(size as f32, |scale| (scale * dims[axis] as f32).round());
        all[axis] = of(dims[axis], to, common)?;
    }
    Ok(all)
}

fn filter(call: &Call, nearest: &str) -> Result<Filter, Refusal> {
    let antialias = call.int("antialias", 0) != 0;
    let inside_only = call.int("exclude_outside", 0) != 0;
    let a = f64::from(call.float("cubic_coeff_a", -0.75));
    let filter = |kernel, radius| Filter::Kernel { kernel, radius, a, antialias, inside_only };
    match call.string("mode", "nearest").as_str() {
        "nearest" if antialias => Err(invalid("nearest has no antialias")),
        "nearest" => Ok(Filter::Nearest(nearest.to_owned())),
        "linear" | "bilinear" => Ok(filter(|d, _| (1.0 - d.abs()).max(0.0), 1.0)),
        "cubic" => Ok(filter(cubic, 2.0)),
        mode => Err(invalid(format!("the mode {mode:?} is unknown"))),
    }
}

/// Keys' cubic convolution kernel.
pub(super) fn cubic(distance: f64, a: f64) -> f64 {
    match distance.abs() {
        d if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
        d if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
        _ => 0.0,
    }
}

fn apply(
    b: &mut Builder,
    mut x: NodeId,
    scalings: &[Scaling],
    transformation: &str,
    filter: &Filter,
    outside: f32,
) -> Result<NodeId, Refusal> {
    let crops = transformation == "tf_crop_and_resize";
    let mut beyond = Vec::new();
    for (axis, scaling) in scalings.iter().enumerate() {
        if scaling.is_identity() {
            beyond.push(vec![false; scaling.to]);
            continue;
        }
        let by_length = crops || transformation == "align_corners";
        if by_length && scaling.has_rest() {
            return Err(refuse(
                format!("axis {axis} becomes {} times as long, no whole length", scaling.scale),
                "ONNX and its runtimes differ in what that means here: give sizes instead of scales",
            ));
        }
        let points = (0..scaling.to)
            .map(|i| coordinate(scaling, i, transformation))
            .collect::<Option<Vec<f32>>>()
            .ok_or_else(|| {
                invalid(format!("coordinate_transformation_mode {transformation:?} is unknown"))
            })?;
        let last = (scaling.from - 1) as f32;
        let is_beyond = |&p: &f32| crops && !(0.0..=last).contains(&p);
        let row = |p: &f32| match is_beyond(p) {
            true => Ok(Row::new()),
            false => taps(filter, *p, scaling),
        };
        let rows = points.iter().map(row).collect::<Result<Vec<Row>, _>>()?;
        beyond.push(points.iter().map(is_beyond).collect());
        x = combine(b, x, axis, &rows)?;
    }
    if outside == 0.0 || beyond.iter().flatten().all(|&is_beyond| !is_beyond) {
        return Ok(x);
    }
    let shape = b.shape(x);
    let shift = super::indexing::indices(&shape.0).map(|index| {
        let is_beyond = index.iter().zip(&beyond).any(|(&i, beyond)| beyond[i]);
        if is_beyond { outside } else { 0.0 }
    });
    let shift = Tensor::new(shape.clone(), shift.collect());
    b.affine(x, Tensor::scalar(1.0), shift)
}

/// Where the entry `i` of the result lies in the operand.
fn coordinate(scaling: &Scaling, i: usize, transformation: &str) -> Option<f32> {
    let &Scaling { from, to, scale, region: (start, end) } = scaling;
    let (i, from, length) = (i as f32, from as f32, to as f32);
    Some(match transformation {
        "asymmetric" => i / scale,
        "half_pixel" => (i + 0.5) / scale - 0.5,
        "half_pixel_symmetric" => {
            let adjustment = length / (scale * from);
            from / 2.0 * (1.0 - adjustment) + (i + 0.5) / scale - 0.5
        }
        "pytorch_half_pixel" | "align_corners" if to == 1 => 0.0,
        "pytorch_half_pixel" => (i + 0.5) / scale - 0.5,
        "tf_half_pixel_for_nn" => (i + 0.5) / scale,
        "align_corners" => i * (from - 1.0) / (length - 1.0),
        "tf_crop_and_resize" if to == 1 => 0.5 * (start + end) * (from - 1.0),
        "tf_crop_and_resize" => {
            start * (from - 1.0) + i * (end - start) * (from - 1.0) / (length - 1.0)
        }
        _ => return None,
    })
}

/// The entries of the operand that make up what lies at a point.
fn taps(filter: &Filter, point: f32, scaling: &Scaling) -> Result<Row, Refusal> {
    let last = scaling.from as i64 - 1;
    if !point.is_finite() {
        return Err(invalid("its scale is 0 or not finite"));
    }
    let inside = |i: i64| i.clamp(0, last) as u32;
    match filter {
        Filter::Nearest(mode) => Ok(vec![(inside(nearest(point, mode, scaling.scale)?), 1.0)]),
        &Filter::Kernel { kernel, radius, a, antialias, inside_only } => {
            let squeeze = if antialias { f64::from(scaling.scale.min(1.0)) } else { 1.0 };
            let (point, reach) = (f64::from(point), radius / squeeze);
            // Repeated entries beyond the ends count where they are not left out.
            let (low, high) = ((point - reach).ceil() as i64, (point + reach).floor() as i64);
            if high - low > MAX_VALUE as i64 {
                return Err(too_large("its filter"));
            }
            let all = (low..=high).map(|i| (i, kernel((i as f64 - point) * squeeze, a)));
            let kept: Vec<(i64, f64)> = all
                .filter(|&(i, w)| w != 0.0 && (!inside_only || (0..=last).contains(&i)))
                .collect();
            let total: f64 = match antialias || inside_only {
                true => kept.iter().map(|tap| tap.1).sum(),
                false => 1.0,
            };
            let mut row = Row::new();
            for (i, w) in kept {
                let (i, w) = (inside(i), (w / total) as f32);
                match row.last_mut() {
                    Some(tap) if tap.0 == i => tap.1 += w,
                    _ => row.push((i, w)),
                }
            }
            Ok(row)
        }
    }
}

fn nearest(point: f32, mode: &str, scale: f32) -> Result<i64, Refusal> {
    let tie_down = point.fract() == 0.5;
    Ok(match mode {
        "simple" if scale < 1.0 => point.ceil(),
        "round_prefer_floor" | "" if tie_down => point.floor(),
        "round_prefer_floor" | "" | "round_prefer_ceil" => point.round(),
        "floor" | "simple" => point.floor(),
        "ceil" => point.ceil(),
        other => return Err(invalid(format!("nearest_mode {other:?} is unknown"))),
    } as i64)
}
