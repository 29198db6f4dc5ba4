//! Folds affine maps (batch normalisation, products and sums with constants) into convolutions and
//! matrix products, exactly, padded borders included.
//!
//! Behind a linear operator, `s·(W·x + b) + t = (s·W)·x + (s·b + t)` for factors per output. In front
//! of one, `W·(s·x + t) + b = (W·s)·x + (W·t + b)` for factors per input; with zero padding `W·t`
//! differs at the borders, so it is computed as the operator's own result on the constant `t` and kept
//! per position where it depends on it. An affine map in front of structural operators moves behind
//! them: they are applied to `s` and `t`.

use super::PassOptions;
use crate::constants::{along_axis, combine, compact, per_axis, scale_rows};
use crate::error::CompileError;
use ir::graph::{Graph, NodeId, Op, evaluate_node};
use ir::{Shape, Tensor};

/// Folds every affine map into the linear operator that makes its operand.
pub(super) fn into_producers(graph: &mut Graph, _: &PassOptions) -> Result<(), CompileError> {
    for id in graph.order() {
        let Op::Affine { scale, shift } = &graph.node(id).op else { continue };
        let producer = graph.operands(id)[0];
        if graph.only_user(producer) != Some(id) {
            continue;
        }
        let (scale, shift) = (scale.clone(), shift.clone());
        let shape = graph.node(id).shape.clone();
        let Some(op) = scaled_outputs(&graph.node(producer).op, &scale, &shift, &shape) else {
            continue;
        };
        let statistics = graph.node(id).statistics.clone();
        let node = graph.node_mut(producer);
        node.op = op;
        node.statistics = statistics;
        graph.bypass(id);
    }
    Ok(())
}

/// Moves every affine map behind structural operators and folds it into the linear operators that read
/// it, where each of them can take it.
pub(super) fn into_consumers(graph: &mut Graph, _: &PassOptions) -> Result<(), CompileError> {
    let mut waiting = graph.order();
    waiting.reverse();
    while let Some(id) = waiting.pop() {
        let Op::Affine { scale, shift } = &graph.node(id).op else { continue };
        let (scale, shift) = (scale.clone(), shift.clone());
        if graph.output() == id {
            continue;
        }
        let source = graph.operands(id)[0];
        for (user, _) in graph.uses(id) {
            if graph.operands(user).len() != 1 {
                continue;
            }
            let node = graph.node(user).clone();
            let input = graph.node(id).shape.clone();
            if let Some(op) = scaled_inputs(&node.op, &scale, &shift, &input, &node.shape) {
                graph.node_mut(user).op = op;
                graph.set_operands(user, &[source]);
            } else if let Some((scale, shift)) =
                moved(&node.op, &scale, &shift, &input, &node.shape)
            {
                let inner = graph.add(&node.name, node.op, node.shape.clone(), &[source]);
                graph.node_mut(user).op = Op::Affine { scale, shift };
                graph.set_operands(user, &[inner]);
                waiting.push(user);
            }
        }
    }
    Ok(())
}

/// The linear operator with factors and offsets applied to its outputs; `None` if they are not one
/// factor per output.
pub(super) fn scaled_outputs(
    op: &Op,
    scale: &Tensor<f32>,
    shift: &Tensor<f32>,
    shape: &Shape,
) -> Option<Op> {
    let affine = |bias: &Tensor<f32>| -> Tensor<f32> {
        compact(&combine(&combine(bias, scale, |b, s| b * s), shift, |b, t| b + t), shape)
    };
    match op {
        Op::Convolution { geometry, weights, bias } => {
            let factors = per_axis(scale, shape, 1)?;
            Some(Op::Convolution {
                geometry: *geometry,
                weights: scale_rows(weights, &factors),
                bias: affine(bias),
            })
        }
        Op::MatrixProduct { weights, bias } => {
            let factors = per_axis(scale, shape, shape.rank() - 1)?;
            Some(Op::MatrixProduct { weights: scale_rows(weights, &factors), bias: affine(bias) })
        }
        _ => None,
    }
}

/// The linear operator that takes `scale·x + shift` of its operand `x` upon itself.
pub(super) fn scaled_inputs(
    op: &Op,
    scale: &Tensor<f32>,
    shift: &Tensor<f32>,
    input: &Shape,
    output: &Shape,
) -> Option<Op> {
    let moved = |op: &Op| evaluate_node(op, output, &[&shift.broadcast(input)]);
    match op {
        Op::Convolution { geometry, weights, .. } => {
            let factors = per_axis(scale, input, 1)?;
            let bias = compact(&moved(op), output);
            let per_group = input.0[1] / geometry.groups;
            let rows_per_group = output.0[1] / geometry.groups;
            let taps = geometry.kernel[0] * geometry.kernel[1];
            let mut weights = weights.clone();
            for (i, w) in weights.data.iter_mut().enumerate() {
                let (row, column) = (i / (per_group * taps), i / taps % per_group);
                *w *= factors[row / rows_per_group * per_group + column];
            }
            Some(Op::Convolution { geometry: *geometry, weights, bias })
        }
        Op::MatrixProduct { weights, .. } => {
            let factors = per_axis(scale, input, input.rank() - 1)?;
            let bias = compact(&moved(op), output);
            let mut weights = weights.clone();
            for row in weights.data.chunks_exact_mut(factors.len()) {
                row.iter_mut().zip(&factors).for_each(|(w, s)| *w *= s);
            }
            Some(Op::MatrixProduct { weights, bias })
        }
        _ => None,
    }
}

/// Factors and offsets behind a structural operator or a sum, where they are not mixed.
fn moved(
    op: &Op,
    scale: &Tensor<f32>,
    shift: &Tensor<f32>,
    input: &Shape,
    output: &Shape,
) -> Option<(Tensor<f32>, Tensor<f32>)> {
    let through =
        |t: &Tensor<f32>| compact(&evaluate_node(op, output, &[&t.broadcast(input)]), output);
    match op {
        Op::Reshape | Op::Transpose(_) => Some((through(scale), through(shift))),
        Op::Take { axis, indices } => {
            let kept: Vec<Option<u32>> = indices.iter().map(|i| Some(i.unwrap_or(0))).collect();
            let scale = compact(&scale.broadcast(input).take(*axis, &kept), output);
            Some((scale, through(shift)))
        }
        Op::SumWindows { .. } => {
            let factors = per_axis(scale, input, 1)?;
            Some((along_axis(&factors, output, 1), through(shift)))
        }
        Op::SumAxes(axes) if !axes.contains(&1) => {
            let factors = per_axis(scale, input, 1)?;
            Some((along_axis(&factors, output, 1), through(shift)))
        }
        _ => None,
    }
}

/// Whether an affine map of a node's value could be folded into every reader, through structural
/// operators: what completing the square relies on.
pub(super) fn consumers_take_channels(graph: &Graph, id: NodeId) -> bool {
    graph.output() != id
        && !graph.uses(id).is_empty()
        && graph.uses(id).iter().all(|&(user, _)| match &graph.node(user).op {
            Op::Convolution { .. } | Op::MatrixProduct { .. } => true,
            Op::SumWindows { .. } | Op::Reshape | Op::Transpose(_) | Op::Take { .. } => {
                consumers_take_channels(graph, user)
            }
            Op::SumAxes(axes) => !axes.contains(&1) && consumers_take_channels(graph, user),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::graph::evaluate_batch;
    use ir::op::Convolution;

    fn ramp(dims: &[usize], step: f32) -> Tensor<f32> {
        let shape = Shape::new(dims);
        let n = shape.elements();
        Tensor::new(shape, (0..n).map(|i| ((i * 7919 % 23) as f32 - 11.0) * step).collect())
    }

    fn check(build: impl Fn(&mut Graph) -> NodeId, survivors: usize) {
        let mut graph = Graph::new("x", Shape::new([1, 4, 6, 6]));
        let output = build(&mut graph);
        graph.set_output(output);
        graph.verify().unwrap();
        let input = ramp(&[1, 4, 6, 6], 0.1);
        let before = evaluate_batch(&graph, std::slice::from_ref(&input));
        into_producers(&mut graph, &PassOptions::default()).unwrap();
        into_consumers(&mut graph, &PassOptions::default()).unwrap();
        graph.remove_dead();
        graph.verify().unwrap();
        let after = evaluate_batch(&graph, &[input]);
        for (a, b) in before[0].data.iter().zip(&after[0].data) {
            assert!((a - b).abs() < 1e-3 * (1.0 + a.abs()), "{a} became {b}");
        }
        let affine = graph
            .order()
            .iter()
            .filter(|&&id| matches!(graph.node(id).op, Op::Affine { .. }))
            .count();
        assert_eq!(affine, survivors);
    }

    fn convolution(graph: &mut Graph, x: NodeId, groups: usize, padding: [usize; 4]) -> NodeId {
        let geometry =
            Convolution { groups, kernel: [3, 3], stride: [1, 2], dilation: [1, 1], padding };
        let shape = geometry.output_shape(&graph.node(x).shape, 8).unwrap();
        let weights = ramp(&[8, 4 / groups, 3, 3], 0.05);
        graph.add(
            "conv",
            Op::Convolution { geometry, weights, bias: ramp(&[8, 1, 1], 0.1) },
            shape,
            &[x],
        )
    }

    fn affine(graph: &mut Graph, x: NodeId) -> NodeId {
        let shape = graph.node(x).shape.clone();
        let c = shape.0[1];
        graph.add(
            "bn",
            Op::Affine { scale: ramp(&[c, 1, 1], 0.2), shift: ramp(&[c, 1, 1], 0.3) },
            shape,
            &[x],
        )
    }

    #[test]
    fn folds_in_front_of_padded_grouped_convolutions_exactly() {
        for groups in [1, 2] {
            check(
                |g| {
                    let x = affine(g, g.input());
                    convolution(g, x, groups, [1, 2, 0, 1])
                },
                0,
            );
        }
    }

    #[test]
    fn folds_behind_convolutions() {
        check(
            |g| {
                let x = convolution(g, g.input(), 2, [1; 4]);
                affine(g, x)
            },
            0,
        );
    }

    #[test]
    fn moves_through_pooling_padding_and_flattening() {
        check(
            |g| {
                let x = affine(g, g.input());
                let indices =
                    [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), None].to_vec();
                let x = g.add("pad", Op::Take { axis: 2, indices }, Shape::new([1, 4, 8, 6]), &[x]);
                let op = Op::SumWindows { kernel: [2, 2], stride: [2, 2] };
                let x = g.add("pool", op, Shape::new([1, 4, 4, 3]), &[x]);
                let x = g.add("flat", Op::Reshape, Shape::new([1, 48]), &[x]);
                let op = Op::MatrixProduct { weights: ramp(&[5, 48], 0.02), bias: ramp(&[5], 1.0) };
                g.add("fc", op, Shape::new([1, 5]), &[x])
            },
            0,
        );
    }

    #[test]
    fn keeps_what_a_shortcut_still_needs() {
        check(
            |g| {
                let x = affine(g, g.input());
                let geometry = Convolution {
                    groups: 1,
                    kernel: [3, 3],
                    stride: [1, 1],
                    dilation: [1, 1],
                    padding: [1; 4],
                };
                let op = Op::Convolution {
                    geometry,
                    weights: ramp(&[4, 4, 3, 3], 0.1),
                    bias: ramp(&[4, 1, 1], 0.1),
                };
                let y = g.add("conv", op, Shape::new([1, 4, 6, 6]), &[x]);
                g.add("add", Op::Add, Shape::new([1, 4, 6, 6]), &[x, y])
            },
            1,
        );
    }
}
