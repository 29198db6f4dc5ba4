//! Products of a value and a constant over named axes: `Einsum`, and `MatMul` by several matrices.
//!
//! Every axis of the operands is of one kind. *Shared* axes stand in both and in the result: one
//! matrix each. *Summed* axes stand in both, *own* axes in one and in the result. With the shared and summed
//! axes as channels, in as many groups as there are shared entries, the product is a convolution by
//! 1×1 kernels.

use super::builder::Builder;
use super::indexing::{indices, pick};
use super::node::{Call, Refusal, Value, invalid, refuse};
use ir::graph::NodeId;
use ir::op::Convolution;
use ir::tensor::{Shape, Tensor};

/// A named axis: a letter of the equation, or a number where the equation has an ellipsis.
type Label = u32;

pub(super) fn einsum(b: &mut Builder, call: &Call) -> Result<NodeId, Refusal> {
    let operands: Vec<&Value> = call.operands.iter().flatten().collect();
    let ranks = operands.iter().map(|value| match value {
        Value::Node(id) => Ok(b.rank(*id)),
        Value::Constant(constant) => Ok(constant.dims().len()),
        _ => Err(invalid("an operand is no tensor")),
    });
    let ranks = ranks.collect::<Result<Vec<_>, Refusal>>()?;
    let (terms, result) = equation(&call.string("equation", ""), &ranks)?;
    match operands.as_slice() {
        [Value::Node(x)] => {
            let (y, labels) = reduced(b, *x, &terms[0], &result)?;
            arrange(b, y, &labels, &result)
        }
        [Value::Node(x), Value::Constant(_)] => {
            product(b, *x, &terms[0], call.reals(1)?, &terms[1], &result)
        }
        [Value::Constant(_), Value::Node(x)] => {
            product(b, *x, &terms[1], call.reals(0)?, &terms[0], &result)
        }
        _ => Err(refuse(
            "it multiplies several values computed from the input, or more than two operands",
            "expected one value and at most one constant",
        )),
    }
}

/// The labels of every operand and of the result.
fn equation(text: &str, ranks: &[usize]) -> Result<(Vec<Vec<Label>>, Vec<Label>), Refusal> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (text.as_str(), None),
    };
    let malformed = || invalid(format!("the equation {text:?} does not fit its operands"));
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != ranks.len() {
        return Err(malformed());
    }
    let labels = |part: &str, dots: usize| -> Result<Vec<Label>, Refusal> {
        let (before, after) = match part.split_once("...") {
            Some((before, after)) => (before, Some(after)),
            None => (part, None),
        };
        let letters = |s: &str| s.chars().map(|c| c as Label).collect::<Vec<_>>();
        if !part.replace("...", "").chars().all(|c| c.is_ascii_alphabetic()) {
            return Err(malformed());
        }
        let mut all = letters(before);
        if let Some(after) = after {
            // Counted from the last axis of the ellipsis, as axes broadcast.
            all.extend((0..dots as Label).rev());
            all.extend(letters(after));
        }
        Ok(all)
    };
    let mut terms = Vec::new();
    let mut longest = 0;
    for (part, &rank) in parts.iter().zip(ranks) {
        let named = part.replace("...", "").chars().count();
        let dots = rank.checked_sub(named).ok_or_else(malformed)?;
        if dots > 0 && !part.contains("...") {
            return Err(malformed());
        }
        longest = longest.max(dots);
        terms.push(labels(part, dots)?);
    }
    let result = match right {
        Some(right) => labels(right, longest)?,
        None => {
            let all: Vec<Label> = terms.concat();
            let once = |l: &Label| all.iter().filter(|other| *other == l).count() == 1;
            let mut named: Vec<Label> =
                all.iter().copied().filter(|l| *l >= 'A' as Label && once(l)).collect();
            named.sort_unstable();
            (0..longest as Label).rev().chain(named).collect()
        }
    };
    let repeats = result.iter().enumerate().any(|(i, l)| result[..i].contains(l));
    if repeats || result.iter().any(|l| !terms.iter().any(|term| term.contains(l))) {
        return Err(malformed());
    }
    Ok((terms, result))
}

/// The product of a value and a constant whose axes have these labels.
pub(super) fn product(
    b: &mut Builder,
    x: NodeId,
    x_labels: &[Label],
    constant: Tensor<f32>,
    constant_labels: &[Label],
    result: &[Label],
) -> Result<NodeId, Refusal> {
    let (constant, mut w_labels) = diagonal_of_constant(constant, constant_labels)?;
    let mut w = constant;
    // Axes of length 1 of an ellipsis are repeated by the other operand.
    let kept: Vec<Label> = [x_labels, result].concat();
    let (x, mut x_labels) = reduced(b, x, x_labels, &[result, &w_labels].concat())?;
    drop_ones(&mut w_labels, &mut w.shape, &x_labels);
    let mut x_shape = b.shape(x);
    drop_ones(&mut x_labels, &mut x_shape, &w_labels);
    let x = b.reshape(x, &x_shape.0)?;
    let unused: Vec<usize> =
        (0..w_labels.len()).filter(|&i| !kept.contains(&w_labels[i])).collect();
    w = w.sum_axes(&unused);
    for &axis in unused.iter().rev() {
        w.shape.0.remove(axis);
        w_labels.remove(axis);
    }
    let length = |label: &Label| {
        let of = |labels: &[Label], shape: &Shape| {
            labels.iter().position(|l| l == label).map(|i| shape.0[i])
        };
        of(&x_labels, &x_shape).or(of(&w_labels, &w.shape)).unwrap_or(1)
    };
    let agree = |l: &Label| x_labels.iter().position(|m| m == l).map(|i| x_shape.0[i]);
    if w_labels.iter().zip(&w.shape.0).any(|(l, &d)| agree(l).is_some_and(|n| n != d)) {
        return Err(invalid(format!("shapes {x_shape} and {} do not fit its equation", w.shape)));
    }
    let in_x = |l: &&Label| x_labels.contains(l);
    let in_w = |l: &&Label| w_labels.contains(l);
    let pick = |labels: &[Label], keep: &dyn Fn(&&Label) -> bool| -> Vec<Label> {
        labels.iter().filter(keep).copied().collect()
    };
    let shared = pick(result, &|l| in_x(l) && in_w(l));
    let own_x = pick(result, &|l| in_x(l) && !in_w(l));
    let own_w = pick(result, &|l| in_w(l) && !in_x(l));
    let summed = pick(&x_labels, &|l| in_w(l) && !result.contains(l));
    let size = |labels: &[Label]| labels.iter().map(length).product::<usize>();
    let (groups, inputs, rows, outputs) =
        (size(&shared), size(&summed), size(&own_x), size(&own_w));
    let w = {
        let order = [shared.as_slice(), &own_w, &summed].concat();
        let at = |l: &Label| w_labels.iter().position(|m| m == l).unwrap_or(0);
        w.transpose(&order.iter().map(at).collect::<Vec<_>>())
    };
    let y = if groups == 1 {
        let x = arrange(b, x, &x_labels, &[own_x.as_slice(), &shared, &summed].concat())?;
        let x = b.reshape(x, &[rows, inputs])?;
        let y = b.matrix(x, w.reshape(Shape::new([outputs, inputs])), Tensor::scalar(0.0))?;
        let labels = [own_x.as_slice(), &shared, &own_w].concat();
        (b.reshape(y, &labels.iter().map(length).collect::<Vec<_>>())?, labels)
    } else {
        // The first axis, which may be a batch, counts the images.
        let (first, own_x) = own_x.split_at(usize::from(own_x.first() == x_labels.first()));
        let (first, images) = (first.to_vec(), size(first));
        let order = [first.as_slice(), &shared, &summed, own_x].concat();
        let x = arrange(b, x, &x_labels, &order)?;
        let x = b.reshape(x, &[images, groups * inputs, 1, rows / images])?;
        let geometry = Convolution {
            groups,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [0; 4],
        };
        let weights = w.reshape(Shape::new([groups * outputs, inputs, 1, 1]));
        let y = b.convolution(x, geometry, weights, None)?;
        let labels = [first.as_slice(), &shared, &own_w, own_x].concat();
        (b.reshape(y, &labels.iter().map(length).collect::<Vec<_>>())?, labels)
    };
    arrange(b, y.0, &y.1, result)
}

/// Removes axes of length 1 that the other operand has longer.
fn drop_ones(labels: &mut Vec<Label>, shape: &mut Shape, other: &[Label]) {
    for i in (0..labels.len()).rev() {
        let is_dot = labels[i] < 'A' as Label;
        if is_dot && shape.0[i] == 1 && other.contains(&labels[i]) {
            labels.remove(i);
            shape.0.remove(i);
        }
    }
}

/// A value with its axes in the order of the result; those of the result that it lacks have length 1.
fn arrange(
    b: &mut Builder,
    x: NodeId,
    labels: &[Label],
    result: &[Label],
) -> Result<NodeId, Refusal> {
    let order: Vec<usize> =
        result.iter().filter_map(|l| labels.iter().position(|m| m == l)).collect();
    let x = b.transpose(x, &order)?;
    let dims = b.dims(x);
    let mut present = dims.into_iter();
    let dims: Vec<usize> = result
        .iter()
        .map(|l| if labels.contains(l) { present.next().unwrap_or(1) } else { 1 })
        .collect();
    b.reshape(x, &dims)
}

/// A value with one axis per label, summed over those that nobody keeps.
fn reduced(
    b: &mut Builder,
    x: NodeId,
    labels: &[Label],
    kept: &[Label],
) -> Result<(NodeId, Vec<Label>), Refusal> {
    let (distinct, dims, places) = diagonal(labels, &b.dims(x))?;
    let x = if distinct.len() == labels.len() { x } else { pick(b, x, &dims, places)? };
    let gone: Vec<usize> = (0..distinct.len()).filter(|&i| !kept.contains(&distinct[i])).collect();
    let sums = b.sum_axes(x, &gone)?;
    let rest = |i: &usize| !gone.contains(i);
    let dims: Vec<usize> = (0..dims.len()).filter(rest).map(|i| dims[i]).collect();
    let labels = (0..distinct.len()).filter(rest).map(|i| distinct[i]).collect();
    Ok((b.reshape(sums, &dims)?, labels))
}

fn diagonal_of_constant(
    constant: Tensor<f32>,
    labels: &[Label],
) -> Result<(Tensor<f32>, Vec<Label>), Refusal> {
    let (distinct, dims, places) = diagonal(labels, &constant.shape.0)?;
    if distinct.len() == labels.len() {
        return Ok((constant, distinct));
    }
    let data = places.iter().flatten().map(|&p| constant.data[p as usize]).collect();
    Ok((Tensor::new(Shape(dims), data), distinct))
}

/// The elements whose indices agree where labels repeat: distinct labels, their lengths, the places.
#[allow(clippy::type_complexity)]
fn diagonal(
    labels: &[Label],
    dims: &[usize],
) -> Result<(Vec<Label>, Vec<usize>, Vec<Option<u32>>), Refusal> {
    let (mut distinct, mut lengths, mut strides) = (Vec::new(), Vec::new(), Vec::new());
    for ((&label, &length), stride) in labels.iter().zip(dims).zip(Shape::new(dims).strides()) {
        match distinct.iter().position(|&l| l == label) {
            None => {
                distinct.push(label);
                lengths.push(length);
                strides.push(stride);
            }
            Some(i) if lengths[i] == length => strides[i] += stride,
            Some(_) => return Err(invalid("an axis that it names twice has two lengths")),
        }
    }
    let mut places = Vec::new();
    if distinct.len() < labels.len() {
        let place =
            |index: Vec<usize>| -> usize { index.iter().zip(&strides).map(|(i, s)| i * s).sum() };
        places = indices(&lengths).map(|index| Some(place(index) as u32)).collect();
    }
    Ok((distinct, lengths, places))
}
