//! `Resize` and `Upsample`: nearest as a selection, linear as a matrix per axis.

use super::MAX_VALUE;
use super::builder::{Builder, too_large};
use super::node::{Call, Refusal, axis_of, invalid, refuse};
use ir::graph::NodeId;
use ir::tensor::{Shape, Tensor};

/// The scaling of one axis.
struct Scaling {
    from: usize,
    to: usize,
    scale: f64,
}

pub(super) fn upsample(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let scales = match call.floats("scales") {
        Some(scales) => scales,
        None => call.reals(1)?.data,
    };
    let x = call.value(0)?;
    let scalings = by_scales(&b.dims(x), &scales)?;
    apply(b, call, x, &scalings, "asymmetric", "floor")
}

pub(super) fn resize(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    if call.opset < 11 {
        return upsample(b, call);
    }
    let x = call.value(0)?;
    if call.int("antialias", 0) != 0 || call.int("exclude_outside", 0) != 0 {
        return Err(refuse("antialias and exclude_outside are not supported", "expected 0"));
    }
    let given = |position: usize| call.optional(position).map(|_| call.reals(position)).transpose();
    let scales = given(2)?.map(|t| t.data).filter(|s| !s.is_empty());
    let sizes = call.optional_integers(3)?.filter(|s| !s.is_empty());
    let dims = b.dims(x);
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|&a| axis_of(a, dims.len())).collect::<Result<_, _>>()?,
        None => (0..dims.len()).collect::<Vec<_>>(),
    };
    let scalings = match (scales, sizes) {
        (Some(scales), _) if scales.len() == axes.len() => {
            let mut all = vec![1.0; dims.len()];
            axes.iter().zip(&scales).for_each(|(&axis, &s)| all[axis] = s);
            by_scales(&dims, &all)?
        }
        (None, Some(sizes)) if sizes.len() == axes.len() => {
            if call.string("keep_aspect_ratio_policy", "stretch") != "stretch" {
                return Err(refuse(
                    "keep_aspect_ratio_policy is not supported",
                    "expected stretch",
                ));
            }
            let mut all: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
            axes.iter().zip(&sizes).for_each(|(&axis, &s)| all[axis] = s);
            by_sizes(&dims, &all)?
        }
        _ => return Err(invalid("its scales or sizes do not fit its operand")),
    };
    let transformation = call.string("coordinate_transformation_mode", "half_pixel");
    let rounding = call.string("nearest_mode", "round_prefer_floor");
    apply(b, call, x, &scalings, &transformation, &rounding)
}

fn by_scales(dims: &[usize], scales: &[f32]) -> Result<Vec<Scaling>, Refusal> {
    if dims.len() != scales.len() {
        return Err(invalid(format!("scales {scales:?} do not fit the shape {dims:?}")));
    }
    let scaling = |(&from, &scale): (&usize, &f32)| {
        let scale = f64::from(scale);
        let to = (from as f64 * scale).floor();
        if !(1.0..=MAX_VALUE as f64).contains(&to) {
            return Err(too_large("its result"));
        }
        Ok(Scaling { from, to: to as usize, scale })
    };
    dims.iter().zip(scales).map(scaling).collect()
}

fn by_sizes(dims: &[usize], sizes: &[i64]) -> Result<Vec<Scaling>, Refusal> {
    let scaling = |(&from, &to): (&usize, &i64)| {
        let to = usize::try_from(to).ok().filter(|n| (1..=MAX_VALUE).contains(n));
        let to = to.ok_or_else(|| too_large("its result"))?;
        Ok(Scaling { from, to, scale: to as f64 / from as f64 })
    };
    dims.iter().zip(sizes).map(scaling).collect()
}

fn apply(
    b: &mut Builder,
    call: &Call,
    mut x: NodeId,
    scalings: &[Scaling],
    transformation: &str,
    rounding: &str,
) -> Result<NodeId, Refusal> {
    let is_linear = match call.string("mode", "nearest").as_str() {
        "nearest" => false,
        "linear" | "bilinear" => true,
        mode => {
            return Err(refuse(
                format!("the mode {mode:?} is not supported"),
                "expected nearest or linear",
            ));
        }
    };
    for (axis, scaling) in scalings.iter().enumerate() {
        if scaling.from == scaling.to && scaling.scale == 1.0 {
            continue;
        }
        let points = (0..scaling.to)
            .map(|i| coordinate(scaling, i, transformation))
            .collect::<Option<Vec<f64>>>()
            .ok_or_else(|| {
                refuse(
                    format!("the coordinate transformation {transformation:?} is not supported"),
                    "expected half_pixel, asymmetric or align_corners",
                )
            })?;
        x = if is_linear {
            interpolate(b, x, axis, scaling, &points)?
        } else {
            let last = (scaling.from - 1) as f64;
            let nearest = |&p: &f64| Some(Some(rounded(p, rounding)?.clamp(0.0, last) as u32));
            let indices: Option<Vec<_>> = points.iter().map(nearest).collect();
            let indices =
                indices.ok_or_else(|| invalid(format!("nearest_mode {rounding:?} is unknown")))?;
            b.take(x, axis, indices)?
        };
    }
    Ok(x)
}

/// Where the entry `i` of the result lies in the operand.
fn coordinate(scaling: &Scaling, i: usize, transformation: &str) -> Option<f64> {
    let (i, scale) = (i as f64, scaling.scale);
    Some(match transformation {
        "asymmetric" => i / scale,
        "half_pixel" => (i + 0.5) / scale - 0.5,
        "pytorch_half_pixel" if scaling.to == 1 => 0.0,
        "pytorch_half_pixel" => (i + 0.5) / scale - 0.5,
        "tf_half_pixel_for_nn" => (i + 0.5) / scale,
        "align_corners" if scaling.to == 1 => 0.0,
        "align_corners" => i * (scaling.from - 1) as f64 / (scaling.to - 1) as f64,
        _ => return None,
    })
}

fn rounded(point: f64, rounding: &str) -> Option<f64> {
    Some(match rounding {
        "round_prefer_floor" | "" => (point - 0.5).ceil(),
        "round_prefer_ceil" => (point + 0.5).floor(),
        "floor" => point.floor(),
        "ceil" => point.ceil(),
        _ => return None,
    })
}

fn interpolate(
    b: &mut Builder,
    x: NodeId,
    axis: usize,
    scaling: &Scaling,
    points: &[f64],
) -> Result<NodeId, Refusal> {
    let from = scaling.from;
    if scaling.to.saturating_mul(from) > MAX_VALUE {
        return Err(too_large("its interpolation"));
    }
    let mut weights = Tensor::zeros(Shape::new([scaling.to, from]));
    for (row, &point) in points.iter().enumerate() {
        let point = point.clamp(0.0, (from - 1) as f64);
        let low = point.floor() as usize;
        let part = (point - low as f64) as f32;
        weights.data[row * from + low] += 1.0 - part;
        weights.data[row * from + (low + 1).min(from - 1)] += part;
    }
    let last = b.rank(x) - 1;
    let mut permutation: Vec<usize> = (0..=last).collect();
    permutation.swap(axis, last);
    let turned = b.transpose(x, &permutation)?;
    let y = b.matrix(turned, weights, Tensor::scalar(0.0))?;
    b.transpose(y, &permutation)
}
