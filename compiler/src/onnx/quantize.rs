//! `QuantizeLinear` and `DequantizeLinear`. Constants are quantised and dequantised exactly. Of values the
//! scale, the zero point and the saturation are kept, as a clip where it can be reached; rounding to steps
//! is left out. A quantised value is `x/scale + zero point` of its type, not rounded.

use super::activation::clipped;
use super::builder::Builder;
use super::constant::Constant;
use super::kind::{Kind, REAL, UINT8, element_of};
use super::node::{Call, Refusal, Typed, Value, axis_of, invalid, refuse};
use ir::graph::{NodeId, Op};
use ir::op::Function;
use ir::tensor::{Shape, Tensor, broadcasts_to};
use ir::{ElementType, Integers};

/// The steps of quantised values, for a note on what rounding is left out.
#[derive(Default)]
pub(super) struct Steps {
    values: usize,
    smallest: f32,
    largest: f32,
    dynamic: usize,
}

impl Steps {
    fn add(&mut self, scale: &Tensor<f32>) {
        let (low, high) = scale
            .data
            .iter()
            .fold((f32::INFINITY, 0.0f32), |(low, high), s| (low.min(s.abs()), high.max(s.abs())));
        self.smallest = if self.values == 0 { low } else { self.smallest.min(low) };
        self.largest = self.largest.max(high);
        self.values += 1;
    }

    /// Counts a value that is quantised by its own range.
    pub(super) fn add_dynamic(&mut self) {
        self.dynamic += 1;
    }

    /// What is left out, and how large it is.
    pub(super) fn note(&self) -> Option<String> {
        let fixed = (self.values > 0).then(|| {
            let size = if self.smallest == self.largest {
                format!("{}", self.smallest)
            } else {
                format!("{} to {}", self.smallest, self.largest)
            };
            format!(
                "{} quantised values is left out: half a step at most, of steps of {size}",
                self.values
            )
        });
        let dynamic = (self.dynamic > 0).then(|| {
            format!(
                "{} dynamically quantised values is left out: at most 1/510 of a value's range",
                self.dynamic
            )
        });
        let parts: Vec<String> = fixed.into_iter().chain(dynamic).collect();
        (!parts.is_empty()).then(|| format!("the rounding of {}", parts.join(", of ")))
    }
}

/// Scales and zero points in shapes that broadcast to a value.
pub(super) struct Parameters {
    pub scale: Tensor<f32>,
    pub zero: Tensor<f32>,
}

impl Parameters {
    /// Those at two operands, per tensor, per entry of `axis`, or per block along it.
    pub(super) fn of(
        call: &Call,
        shape: &Shape,
        [scale, zero]: [usize; 2],
        axis: i64,
        block: i64,
    ) -> Result<Self, Refusal> {
        let scale = call.reals(scale)?;
        if scale.data.is_empty() || scale.data.iter().any(|s| !s.is_finite() || *s == 0.0) {
            return Err(invalid("a scale is 0 or not a number"));
        }
        let zero = match call.optional(zero) {
            Some(_) => call.reals(zero)?,
            None => Tensor::scalar(0.0),
        };
        if zero.data.len() != 1 && zero.shape != scale.shape {
            return Err(invalid("its scales and zero points are not of one shape"));
        }
        let fit = |t| spread(t, shape, axis, block);
        Ok(Self { scale: fit(scale)?, zero: fit(zero)? })
    }

    /// A zero point, and 1 as the scale.
    pub(super) fn without_scale(
        call: &Call,
        shape: &Shape,
        zero: usize,
        axis: i64,
    ) -> Result<Self, Refusal> {
        let zero = match call.optional(zero) {
            Some(_) => spread(call.reals(zero)?, shape, axis, 0)?,
            None => Tensor::scalar(0.0),
        };
        Ok(Self { scale: Tensor::scalar(1.0), zero })
    }

    fn is_single(&self) -> bool {
        self.scale.data.len() == 1 && self.zero.data.len() == 1
    }
}

/// Parameters in a shape that broadcasts to `shape`.
fn spread(
    parameters: Tensor<f32>,
    shape: &Shape,
    axis: i64,
    block: i64,
) -> Result<Tensor<f32>, Refusal> {
    let misfit = || invalid(format!("its scales do not fit the shape {shape}"));
    if parameters.data.len() == 1 {
        return Ok(Tensor::scalar(parameters.data[0]));
    }
    if block == 0
        && parameters.shape.rank() == shape.rank()
        && broadcasts_to(&parameters.shape, shape)
    {
        return Ok(parameters);
    }
    let axis = axis_of(axis, shape.rank())?;
    if parameters.shape.rank() == 1 && block == 0 {
        let mut dims = vec![1; shape.rank() - axis];
        dims[0] = parameters.data.len();
        return if dims[0] == shape.0[axis] {
            Ok(Tensor::new(Shape(dims), parameters.data))
        } else {
            Err(misfit())
        };
    }
    let block = usize::try_from(block).ok().filter(|&b| b > 0).ok_or_else(misfit)?;
    let mut dims = shape.0.clone();
    dims[axis] = dims[axis].div_ceil(block);
    if parameters.shape.0 != dims {
        return Err(misfit());
    }
    let entries: Vec<Option<u32>> = (0..shape.0[axis]).map(|i| Some((i / block) as u32)).collect();
    Ok(parameters.take(axis, &entries))
}

/// The type that a `QuantizeLinear` makes: that of its zero point or of an attribute, or uint8.
fn target(call: &Call, zero: usize) -> Result<ElementType, Refusal> {
    let stated = match call.int("output_dtype", 0) {
        0 => None,
        stated => Some(element_of(i32::try_from(stated).unwrap_or(-1)).map_err(small_float)?),
    };
    let kind = match (call.optional(zero), stated) {
        (Some(_), _) => call.kind(zero),
        (None, Some(stated)) => Kind::Of(stated),
        (None, None) => UINT8,
    };
    match kind.element() {
        Some(element) if element.range().is_some() => Ok(element),
        _ => Err(small_float("float".into())),
    }
}

fn small_float(name: String) -> Refusal {
    refuse(
        format!("it quantises to {name}, whose steps grow with the number"),
        "quantise to integers of 4, 8 or 16 bits",
    )
}

pub(super) fn quantize(b: &mut Builder, call: &Call) -> Typed {
    let element = target(call, 2)?;
    let (axis, block) = (call.int("axis", 1), call.int("block_size", 0));
    if let Value::Node(x) = call.operand(0)? {
        let parameters = Parameters::of(call, &b.shape(*x), [1, 2], axis, block)?;
        let y = quantized(b, *x, &parameters, element)?;
        return Ok(vec![(Value::Node(y), Kind::Of(element))]);
    }
    let x = call.reals(0)?;
    let parameters = Parameters::of(call, &x.shape, [1, 2], axis, block)?;
    let (scale, zero) = (parameters.scale.broadcast(&x.shape), parameters.zero.broadcast(&x.shape));
    let (low, high) = element.range().unwrap_or_default();
    let integer = |((v, s), z): ((&f32, &f32), &f32)| {
        ((v / s).round_ties_even() + z).clamp(low as f32, high as f32)
    };
    let data = x.data.iter().zip(&scale.data).zip(&zero.data).map(integer).collect();
    let y = Constant::whole(&Tensor { shape: x.shape, data }, element).map_err(invalid)?;
    Ok(vec![(Value::Constant(y), Kind::Of(element))])
}

/// `(x − zero point)·scale`
pub(super) fn dequantize(b: &mut Builder, call: &Call) -> Typed {
    let (axis, block) = (call.int("axis", 1), call.int("block_size", 0));
    if let Value::Node(x) = call.operand(0)? {
        let parameters = Parameters::of(call, &b.shape(*x), [1, 2], axis, block)?;
        return Ok(vec![(Value::Node(dequantized(b, *x, &parameters)?), REAL)]);
    }
    let x = call.reals(0)?;
    let parameters = Parameters::of(call, &x.shape, [1, 2], axis, block)?;
    let y = dequantized_constant(&x, &parameters);
    Ok(vec![(Value::Constant(Constant::reals(&y).map_err(invalid)?), REAL)])
}

/// A constant's integers as reals.
pub(super) fn dequantized_constant(x: &Tensor<f32>, parameters: &Parameters) -> Tensor<f32> {
    let (scale, zero) = (parameters.scale.broadcast(&x.shape), parameters.zero.broadcast(&x.shape));
    let real = |((v, s), z): ((&f32, &f32), &f32)| (v - z) * s;
    let data = x.data.iter().zip(&scale.data).zip(&zero.data).map(real).collect();
    Tensor { shape: x.shape.clone(), data }
}

/// `x/scale + zero point`, saturated but not rounded unless that is asked for.
pub(super) fn quantized(
    b: &mut Builder,
    x: NodeId,
    parameters: &Parameters,
    element: ElementType,
) -> Result<NodeId, Refusal> {
    let Parameters { scale, zero } = parameters;
    let shape = b.shape(x);
    if !broadcasts_to(&scale.shape, &shape) || !broadcasts_to(&zero.shape, &shape) {
        return Err(invalid(format!("its scales do not fit the shape {shape}")));
    }
    let (low, high) = element.range().ok_or_else(|| invalid("it quantises to no integers"))?;
    let factor = scale.map(|s| 1.0 / s);
    if b.keeps_rounding {
        let q = b.affine(x, factor, zero.clone())?;
        return b.add(Op::Integers(Integers { element, truncates: false }), shape, &[q]);
    }
    b.steps.add(scale);
    if !(parameters.is_single() && scale.data[0] > 0.0) {
        let q = b.affine(x, factor, zero.clone())?;
        return saturated(b, q, (low, high), 1.0);
    }
    // Bounds in terms of the value itself: where one of them is 0, the clip is a ReLU to the fit.
    let (s, z) = (f64::from(scale.data[0]), f64::from(zero.data[0]));
    let x = saturated(b, x, ((low - z) * s, (high - z) * s), s)?;
    b.affine(x, factor, zero.clone())
}

/// Kept within bounds, where it can leave them by more than the rounding of floats.
fn saturated(
    b: &mut Builder,
    x: NodeId,
    (low, high): (f64, f64),
    step: f64,
) -> Result<NodeId, Refusal> {
    let slack = 1e-3 * step;
    let (least, most) = b.range(x);
    let low = (least < low - slack).then_some(low as f32);
    let high = (most > high + slack).then_some(high as f32);
    // The clip of a ReLU's result is one function with it.
    match (low, high, &b.graph.node(x).op) {
        (None, Some(high), Op::Activation(a)) if is_relu(a) => {
            clipped(b, b.graph.operands(x)[0], Some(0.0), Some(high))
        }
        _ => clipped(b, x, low, high),
    }
}

fn is_relu(activation: &ir::op::Activation) -> bool {
    *activation == ir::op::Activation::function(Function::Relu)
}

/// `(q − zero point)·scale`; of the result of a quantisation with the same parameters, what was quantised.
pub(super) fn dequantized(
    b: &mut Builder,
    q: NodeId,
    parameters: &Parameters,
) -> Result<NodeId, Refusal> {
    let Parameters { scale, zero } = parameters;
    let shape = b.shape(q);
    if !broadcasts_to(&scale.shape, &shape) || !broadcasts_to(&zero.shape, &shape) {
        return Err(invalid(format!("its scales do not fit the shape {shape}")));
    }
    if let (Op::Affine { scale: inner, shift }, true) =
        (&b.graph.node(q).op, parameters.is_single())
        && inner.data.len() == 1
        && shift.data.len() == 1
    {
        let (s, z) = (f64::from(scale.data[0]), f64::from(zero.data[0]));
        let factor = f64::from(inner.data[0]) * s;
        let offset = (f64::from(shift.data[0]) - z) * s;
        let x = b.graph.operands(q)[0];
        let is_one = (factor - 1.0).abs() < 1e-6;
        return if is_one && offset == 0.0 {
            Ok(x)
        } else {
            b.scaled(x, factor as f32, offset as f32)
        };
    }
    let shift = crate::constants::combine(zero, scale, |z, s| -z * s);
    b.affine(q, scale.clone(), shift)
}
