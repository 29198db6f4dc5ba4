//! Functions of straight pieces as sums of rectifiers, which two parties compute exactly.
//!
//! A function with knots `x_1 < x_2 < …` is its value at one of them, the *centre*, and sums of `relu(x − x_j)` from the
//! centre to the right and of `relu(x_j − x)` from it to the left, with the changes of the slope as factors; a line without
//! knots gets one at zero. So nothing but rectifiers reads the operand in its narrow ring. Factors go in front of a
//! rectifier, into the weights of the operator that made the operand: they stay secret, and every rectifier has a scale of
//! its own.

use super::fold_normalization::scaled_outputs;
use crate::constants::{along_axis, compact};
use crate::piecewise::Piecewise;
use ir::Tensor;
use ir::graph::{Graph, NodeId, Op};
use ir::op::{Activation, Expression, Function};

/// The function of a rectifier.
fn relu() -> Activation {
    Activation::function(Function::Relu)
}

/// How many rectifiers an activation is, if its function has straight pieces in all channels.
pub fn rectifiers(graph: &Graph, id: NodeId) -> Option<usize> {
    let node = graph.node(id);
    let Op::Activation(Activation::Exact(expression)) = &node.op else { return None };
    Some(terms(expression, node.shape.channels())?.rectifiers.len())
}

/// Splits an activation whose function has straight pieces in all channels; the rectifiers, or `None` if it has not.
/// The node keeps its id and values.
pub fn split_rectifiers(graph: &mut Graph, id: NodeId) -> Option<Vec<NodeId>> {
    let Op::Activation(Activation::Exact(expression)) = &graph.node(id).op else { return None };
    if Op::Activation(relu()) == graph.node(id).op {
        return Some(vec![id]);
    }
    let terms = terms(expression, graph.node(id).shape.channels())?;
    let operand = graph.operands(id)[0];
    let name = graph.node(id).name.clone();
    let shape = graph.node(id).shape.clone();
    let tensor = |values: &[f64]| {
        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        match values.as_slice() {
            [only] => Tensor::scalar(*only),
            all => compact(&along_axis(all, &shape, shape.channel_axis()), &shape),
        }
    };
    let mut rectifiers = Vec::new();
    let mut sum: Option<NodeId> = None;
    for term in &terms.rectifiers {
        let argument = line(graph, operand, &tensor(&term.scale), &tensor(&term.shift));
        let op = Op::Activation(relu());
        let mut value = graph.add(&name, op, shape.clone(), &[argument]);
        rectifiers.push(value);
        if term.is_negative {
            let op = Op::Affine { scale: Tensor::scalar(-1.0), shift: Tensor::scalar(0.0) };
            value = graph.add(&name, op, shape.clone(), &[value]);
        }
        sum = Some(match sum {
            None => value,
            Some(before) => graph.add(&name, Op::Add, shape.clone(), &[before, value]),
        });
    }
    let constant = tensor(&terms.constant);
    let (op, operand) = match sum {
        // A constant: the operand is still read, times zero.
        None => (Op::Affine { scale: Tensor::scalar(0.0), shift: constant }, operand),
        Some(sum) => (Op::Affine { scale: Tensor::scalar(1.0), shift: constant }, sum),
    };
    graph.node_mut(id).op = op;
    graph.set_operands(id, &[operand]);
    Some(rectifiers)
}

/// `scale·x + shift` as an operator that may have any scale: the one that made `x` again, with other weights, or a
/// product with a factor per channel. A sign and a constant alone are public steps.
fn line(graph: &mut Graph, x: NodeId, scale: &Tensor<f32>, shift: &Tensor<f32>) -> NodeId {
    let is_sign = scale.data.len() == 1 && scale.data[0].abs() == 1.0;
    if is_sign && scale.data[0] == 1.0 && shift.data.iter().all(|&t| t == 0.0) {
        return x;
    }
    let node = graph.node(x).clone();
    if !is_sign && let Some(op) = scaled_outputs(&node.op, scale, shift, &node.shape) {
        let operands = graph.operands(x);
        return graph.add(&node.name, op, node.shape, &operands);
    }
    let scale = match (is_sign, scale.data.as_slice()) {
        (false, &[factor]) => Tensor::new(node.shape.clone(), vec![factor; node.shape.elements()]),
        _ => scale.clone(),
    };
    graph.add(&node.name, Op::Affine { scale, shift: shift.clone() }, node.shape, &[x])
}

/// `constant + Σ ±relu(scale·x + shift)`, everything per channel.
struct Terms {
    constant: Vec<f64>,
    rectifiers: Vec<Rectifier>,
}

#[derive(Clone, Debug)]
struct Rectifier {
    scale: Vec<f64>,
    shift: Vec<f64>,
    is_negative: bool,
}

fn terms(expression: &Expression, channels: usize) -> Option<Terms> {
    if channels == 0 {
        return None;
    }
    let pieces: Option<Vec<Piecewise>> =
        (0..channels).map(|channel| Piecewise::of(expression, channel)).collect();
    let pieces = pieces?;
    let mut terms = Terms { constant: vec![0.0; channels], rectifiers: vec![] };
    for (channel, pieces) in pieces.into_iter().enumerate() {
        let mut pieces = pieces;
        if pieces.knots.is_empty() {
            // A line: a knot at zero that is none.
            pieces.knots.push((0.0, 0.0));
        }
        // From the first knot to the right if nothing rises left of it, from the last to the left likewise.
        let centre = match (pieces.slope, pieces.last_slope()) {
            (0.0, _) => 0,
            (_, last) if last.abs() < 1e-12 => pieces.knots.len() - 1,
            _ => pieces.knots.len() / 2,
        };
        let at = pieces.knots[centre].0;
        terms.constant[channel] = pieces.at(at);
        // Right of the centre, the slope of the piece that begins there; then what every knot adds.
        let mut slope = pieces.slope;
        slope += pieces.knots[..=centre].iter().map(|(_, by)| by).sum::<f64>();
        let right = [(at, slope)].into_iter().chain(pieces.knots[centre + 1..].iter().copied());
        let left = [(at, -(slope - pieces.knots[centre].1))]
            .into_iter()
            .chain(pieces.knots[..centre].iter().rev().copied());
        let mut own = vec![];
        own.extend(right.map(|(knot, gain)| (1.0, knot, gain)));
        own.extend(left.map(|(knot, gain)| (-1.0, knot, gain)));
        for (side, knot, gain) in own.into_iter().filter(|(.., gain)| gain.abs() > 1e-12) {
            terms.place(channel, (side * gain.abs(), -side * gain.abs() * knot), gain < 0.0);
        }
    }
    Some(terms)
}

impl Terms {
    /// Puts a rectifier into one of the same side and sign that the channel has not taken yet.
    fn place(&mut self, channel: usize, (scale, shift): (f64, f64), is_negative: bool) {
        let fits = |r: &Rectifier| {
            r.scale[channel] == 0.0
                && r.is_negative == is_negative
                && r.scale.iter().all(|&s| s == 0.0 || s.signum() == scale.signum())
        };
        let channels = self.constant.len();
        let empty = || {
            let (scale, shift) = (vec![0.0; channels], vec![0.0; channels]);
            Rectifier { scale, shift, is_negative }
        };
        let at = self.rectifiers.iter().position(fits).unwrap_or(self.rectifiers.len());
        if at == self.rectifiers.len() {
            self.rectifiers.push(empty());
        }
        let rectifier = &mut self.rectifiers[at];
        (rectifier.scale[channel], rectifier.shift[channel]) = (scale, shift);
    }
}

#[cfg(test)]
#[path = "split_rectifiers_tests.rs"]
mod tests;
