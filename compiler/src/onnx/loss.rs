//! Losses of scores against constant target classes: `NegativeLogLikelihoodLoss` and
//! `SoftmaxCrossEntropyLoss`.

use super::builder::Builder;
use super::indexing::pick;
use super::node::{Call, Refusal, Value, invalid};
use super::reduction::log_sum_exp;
use ir::graph::NodeId;
use ir::tensor::{Shape, Tensor};

pub(super) fn negative_log_likelihood(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    loss(b, call, call.value(0)?)
}

/// The loss of `ln softmax x` along the classes, and this itself: `x − ln Σ e^x`.
pub(super) fn softmax_cross_entropy(b: &mut Builder, call: &Call) -> Result<Vec<Value>, Refusal> {
    let x = call.value(0)?;
    if b.rank(x) < 2 {
        return Err(invalid(format!("its operand has shape {}, expected [N, C, …]", b.shape(x))));
    }
    let logarithm = log_sum_exp(b, x, 1)?;
    let negative = b.scaled(logarithm, -1.0, 0.0)?;
    let negative = b.broadcast(negative, &b.shape(x))?;
    let likelihood = b.sum(x, negative)?;
    Ok(vec![Value::Node(loss(b, call, likelihood)?), Value::Node(likelihood)])
}

/// The entries of the target classes, times the classes' weights.
fn loss(b: &mut Builder, call: &Call, x: NodeId) -> Result<NodeId, Refusal> {
    let dims = b.dims(x);
    if dims.len() < 2 {
        return Err(invalid(format!("its operand has shape {dims:?}, expected [N, C, …]")));
    }
    let (batch, classes) = (dims[0], dims[1]);
    let places: usize = dims[2..].iter().product();
    let targets = call.integers(1)?;
    let weights = call.optional(2).map(|_| call.reals(2)).transpose()?;
    if targets.len() != batch * places || weights.as_ref().is_some_and(|w| w.data.len() != classes)
    {
        return Err(invalid(format!("its targets or weights do not fit {dims:?}")));
    }
    let ignored = call.has("ignore_index").then(|| call.int("ignore_index", 0));
    let (mut source, mut factors) = (Vec::new(), Vec::new());
    for (i, &target) in targets.iter().enumerate() {
        if Some(target) == ignored {
            source.push(None);
            factors.push(0.0);
            continue;
        }
        let class = usize::try_from(target).ok().filter(|&c| c < classes);
        let class = class.ok_or_else(|| invalid(format!("the target {target} is no class")))?;
        source.push(Some(((i / places * classes + class) * places + i % places) as u32));
        factors.push(weights.as_ref().map_or(1.0, |w| w.data[class]));
    }
    let total: f32 = factors.iter().sum();
    let kept = [&dims[..1], &dims[2..]].concat();
    let picked = pick(b, x, &kept, source)?;
    let reduction = call.string("reduction", "mean");
    let divisor = if reduction == "mean" { total } else { 1.0 };
    let scale = factors.iter().map(|f| -f / divisor).collect();
    let scale = Tensor::new(Shape(kept.clone()), scale);
    let losses = b.affine(picked, scale, Tensor::scalar(0.0))?;
    match reduction.as_str() {
        "none" => Ok(losses),
        "mean" | "sum" => {
            let sum = b.sum_axes(losses, &(0..kept.len()).collect::<Vec<_>>())?;
            b.reshape(sum, &[])
        }
        other => Err(invalid(format!("the reduction {other:?} is unknown"))),
    }
}
