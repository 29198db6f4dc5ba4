//! Brings quadratics behind a linear operator to the form of one square:
//! `a·x² + b·x + c = s·(√|a|·x + s·b/(2√|a|))² + (c − b²/4a)` with `s` the sign of `a`.
//!
//! `√|a|` and the offset are folded into the operator before. With every `a` positive, the constant
//! stays with the square; otherwise sign and constant are folded into the operators behind, exactly at
//! padded borders too. Quadratics that would lose precision this way (a leading coefficient near zero
//! beside a large linear one) stay polynomials.

use super::fold_normalization::consumers_take_channels;
use crate::constants::{along_axis, combine, compact, scale_rows};
use ir::Tensor;
use ir::graph::{Graph, NodeId, Op};
use ir::op::{Activation, Polynomial};
use std::collections::HashMap;

/// How much larger than the values of the quadratic its completed square may become.
const MAX_GROWTH: f64 = 64.0;

/// Completes squares where that is exact and harmless. `spread` gives the root mean square of the
/// values of a node. What the values of activations are multiplied with now, and what is added then, where the
/// sign and the constant went to the operators behind.
pub fn complete_square(
    graph: &mut Graph,
    spread: impl Fn(NodeId) -> f64,
) -> HashMap<NodeId, (Tensor<f32>, Tensor<f32>)> {
    let mut moved = HashMap::new();
    for id in graph.order() {
        if let Some(operand) = candidate(graph, id)
            && let Some(change) = complete(graph, id, operand, spread(id), spread(operand))
        {
            moved.insert(id, change);
        }
    }
    let _ = super::fold_normalization::into_consumers(graph, &super::PassOptions::default());
    graph.remove_dead();
    moved
}

fn candidate(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let Op::Activation(Activation::Polynomial(p)) = &graph.node(id).op else { return None };
    let operand = graph.operands(id)[0];
    let node = graph.node(operand);
    let linear = match &node.op {
        Op::Convolution { .. } => true,
        Op::MatrixProduct { .. } => node.shape.rank() == 2,
        _ => false,
    };
    (p.degree() == 2 && linear && graph.only_user(operand) == Some(id)).then_some(operand)
}

/// Factors and summands that the activation's values have now, if it is not what it was.
fn complete(
    graph: &mut Graph,
    id: NodeId,
    operand: NodeId,
    spread: f64,
    operand_spread: f64,
) -> Option<(Tensor<f32>, Tensor<f32>)> {
    let Op::Activation(Activation::Polynomial(p)) = &graph.node(id).op else { return None };
    let shape = graph.node(id).shape.clone();
    let rows: Vec<&[f64]> = (0..shape.channels()).map(|c| p.channel(c)).collect();
    let harmless = rows.iter().all(|r| {
        let vertex = r[1] * r[1] / (4.0 * r[2].abs());
        r[2] != 0.0
            && (vertex + r[2].abs() * operand_spread.powi(2)) <= MAX_GROWTH * spread.max(1e-12)
    });
    let positive = rows.iter().all(|r| r[2] > 0.0);
    if !harmless || !(positive || consumers_take_channels(graph, id)) {
        return None;
    }
    let column =
        |f: &dyn Fn(&[f64]) -> f64| -> Vec<f32> { rows.iter().map(|r| f(r) as f32).collect() };
    let root = column(&|r| r[2].abs().sqrt());
    let offset = column(&|r| r[2].signum() * r[1] / (2.0 * r[2].abs().sqrt()));
    let sign = column(&|r| r[2].signum());
    let constants: Vec<f64> = rows.iter().map(|r| r[0] - r[1] * r[1] / (4.0 * r[2])).collect();
    let axis = shape.channel_axis();
    let (scale, shift) = (along_axis(&root, &shape, axis), along_axis(&offset, &shape, axis));
    let moved = |bias: &Tensor<f32>| {
        compact(&combine(&combine(bias, &scale, |b, s| b * s), &shift, |b, t| b + t), &shape)
    };
    match &mut graph.node_mut(operand).op {
        Op::Convolution { weights, bias, .. } | Op::MatrixProduct { weights, bias } => {
            *weights = scale_rows(weights, &root);
            *bias = moved(bias);
        }
        _ => return None,
    }
    graph.node_mut(operand).statistics = None;
    let constant = if positive { constants.clone() } else { vec![0.0; constants.len()] };
    let coefficients = constant.into_iter().map(|c| vec![c, 0.0, 1.0]).collect();
    graph.node_mut(id).op = Op::Activation(Activation::Polynomial(Polynomial { coefficients }));
    if positive {
        return None;
    }
    let shift: Vec<f32> = constants.iter().map(|&c| c as f32).collect();
    let op = Op::Affine {
        scale: along_axis(&sign, &shape, axis),
        shift: along_axis(&shift, &shape, axis),
    };
    let name = graph.node(id).name.clone();
    let (before, behind) = (sign.iter().zip(&shift), along_axis(&sign, &shape, axis));
    let subtracted: Vec<f32> = before.map(|(s, t)| -s * t).collect();
    let subtracted = along_axis(&subtracted, &shape, axis);
    let affine = graph.add(name, op, shape, &[]);
    graph.replace_uses(id, affine);
    graph.set_operands(affine, &[id]);
    Some((behind, subtracted))
}

#[cfg(test)]
#[path = "complete_square_tests.rs"]
mod tests;
