//! Replaces maxima over windows by averages over the same windows, where that was asked for.

use super::{MaxPool, PassOptions};
use crate::error::CompileError;
use ir::graph::{Graph, NodeId, Op};
use ir::{Shape, Tensor};

pub(super) fn run(graph: &mut Graph, options: &PassOptions) -> Result<(), CompileError> {
    if options.max_pool != MaxPool::Average {
        return Ok(());
    }
    for id in graph.order() {
        if let Op::MaxWindows { kernel, stride, dilation: [1, 1], padding } = graph.node(id).op {
            average(graph, id, kernel, stride, padding);
        }
    }
    Ok(())
}

/// Zeros around, sums over windows, and a factor per position: one over the pixels of the window that
/// are part of the image.
fn average(
    graph: &mut Graph,
    id: NodeId,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 4],
) {
    let name = graph.node(id).name.clone();
    let shape = graph.node(id).shape.clone();
    let mut value = graph.operands(id)[0];
    let image = graph.node(value).shape.clone();
    let mut padded = image.clone();
    let mut pixels = Tensor::full(Shape::new([1, 1, image.0[2], image.0[3]]), 1.0f32);
    for axis in 0..2 {
        if padding[axis] + padding[axis + 2] == 0 {
            continue;
        }
        let length = image.0[2 + axis] as u32;
        let indices: Vec<Option<u32>> = std::iter::repeat_n(None, padding[axis])
            .chain((0..length).map(Some))
            .chain(std::iter::repeat_n(None, padding[axis + 2]))
            .collect();
        padded.0[2 + axis] = indices.len();
        pixels = pixels.take(2 + axis, &indices);
        value = graph.add(&name, Op::Take { axis: 2 + axis, indices }, padded.clone(), &[value]);
    }
    let counts = pixels.sum_windows(kernel, stride);
    let scale = counts.map(|n| 1.0 / n.max(1.0));
    let uniform = scale.data.iter().all(|&v| v == scale.data[0]);
    let scale = if uniform { Tensor::scalar(scale.data[0]) } else { scale };
    let sums = graph.add(&name, Op::SumWindows { kernel, stride }, shape, &[value]);
    graph.node_mut(id).op = Op::Affine { scale, shift: Tensor::scalar(0.0) };
    graph.set_operands(id, &[sums]);
}
