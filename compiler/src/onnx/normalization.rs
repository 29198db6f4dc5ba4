//! `BatchNormalization`, and what stands at the output of classifiers: `Softmax`, `LogSoftmax`,
//! `ArgMax`.

use super::builder::Builder;
use super::node::{Call, Refusal, axis_of, invalid, refuse};
use ir::graph::{NodeId, Op, Statistics};
use ir::tensor::{Shape, Tensor};

pub(super) fn batch_normalization(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    if call.int("training_mode", 0) != 0 {
        return Err(refuse(
            "training_mode 1 normalises by statistics of the input itself",
            "export the model in evaluation mode, with its running statistics",
        ));
    }
    if call.int("spatial", 1) == 0 {
        return Err(refuse("spatial 0 is not supported", "expected statistics per channel"));
    }
    let shape = b.shape(x);
    let channels = shape.channels();
    let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|i| call.reals(i));
    let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
    if shape.rank() < 2
        || [&gamma, &beta, &mean, &variance].iter().any(|t| t.data.len() != channels)
    {
        return Err(invalid(format!("its statistics do not fit the {channels} channels")));
    }
    let epsilon = f64::from(call.float("epsilon", 1e-5));
    let factor =
        |c: usize| f64::from(gamma.data[c]) / (f64::from(variance.data[c]) + epsilon).sqrt();
    let mut dims = vec![channels];
    dims.resize(shape.rank() - 1, 1);
    let per_channel = |value: &dyn Fn(usize) -> f64| {
        Tensor::new(Shape::new(dims.clone()), (0..channels).map(|c| value(c) as f32).collect())
    };
    let scale = per_channel(&factor);
    let shift = per_channel(&|c| f64::from(beta.data[c]) - factor(c) * f64::from(mean.data[c]));
    let y = b.affine(x, scale, shift)?;
    let is_trained = mean.data.iter().any(|&m| m != 0.0) || variance.data.iter().any(|&v| v != 1.0);
    if is_trained {
        b.graph.node_mut(y).statistics = Some(Statistics {
            mean: beta.data.iter().map(|&v| f64::from(v)).collect(),
            deviation: gamma.data.iter().map(|&v| f64::from(v.abs())).collect(),
        });
    }
    Ok(y)
}

pub(super) fn softmax(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    along_axis(b, call, Op::Softmax)
}

pub(super) fn log_softmax(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    along_axis(b, call, Op::LogSoftmax)
}

/// Before operator set 13 the axes from `axis` on count as one.
fn along_axis(b: &mut Builder, call: &Call, op: fn(usize) -> Op) -> Result<NodeId, Refusal> {
    let x = call.value(0)?;
    let shape = b.shape(x);
    let is_flat = call.opset < 13;
    let axis = axis_of(call.int("axis", if is_flat { 1 } else { -1 }), shape.rank())?;
    if !is_flat || shape.0[axis + 1..].iter().all(|&d| d == 1) {
        return b.add(op(axis), shape, &[x]);
    }
    let rows: usize = shape.0[..axis].iter().product();
    let flat = b.reshape(x, &[rows, shape.elements() / rows])?;
    let flat_shape = b.shape(flat);
    let y = b.add(op(1), flat_shape, &[flat])?;
    b.reshape(y, &shape.0)
}

pub(super) fn arg_max(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    arg_best(b, call, call.value(0)?)
}

pub(super) fn arg_min(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let negative = b.scaled(call.value(0)?, -1.0, 0.0)?;
    arg_best(b, call, negative)
}

/// The first index of the maximum, or on request the last one: the first from behind.
fn arg_best(b: &mut Builder, call: &Call, mut x: NodeId) -> Result<NodeId, Refusal> {
    let mut dims = b.dims(x);
    let axis = axis_of(call.int("axis", 0), dims.len())?;
    let last = dims[axis] - 1;
    let from_behind = call.int("select_last_index", 0) != 0;
    if from_behind {
        x = b.take(x, axis, (0..=last as u32).rev().map(Some).collect())?;
    }
    dims[axis] = 1;
    let mut y = b.add(Op::ArgMax(axis), Shape::new(dims.clone()), &[x])?;
    if from_behind {
        y = b.scaled(y, -1.0, last as f32)?;
    }
    if call.int("keepdims", 1) != 0 {
        return Ok(y);
    }
    dims.remove(axis);
    b.reshape(y, &dims)
}
