//! How much noise in an activation moves the output.

use crate::fit::simulate::Carries;
use crate::lower::phases::{PhaseLayer, Place};
use ir::Tensor;
use ir::graph::{Graph, NodeId, evaluate_node};
use rayon::prelude::*;
use std::collections::HashMap;

/// Deviation of the noise, over that of the activation's values.
const NOISE: f64 = 0.05;
/// Inputs at most.
const MOST_INPUTS: usize = 32;
/// Multiplications that may be spent on all inputs.
const WORK: f64 = 1e11;

/// Per layer, the squared change of the output (of scores of one class its mean over these aside, which the
/// class does not depend on) per unit of noise in the layer's values, relative to their variance.
pub fn sensitivities(
    graph: &Graph,
    layers: &[PhaseLayer],
    inputs: &[Tensor<f32>],
    is_one_class: bool,
) -> Vec<f64> {
    let work: f64 = graph.order().iter().map(|&id| multiplications(graph, id)).sum();
    let affordable = WORK / (work * (1.0 + layers.len() as f64 / 2.0));
    let count = (affordable as usize).clamp(2, MOST_INPUTS).min(inputs.len());
    // Evenly over the inputs, which may stand in the order of their classes.
    let chosen = (0..count).map(|i| &inputs[i * inputs.len() / count]).collect::<Vec<_>>();
    let of_input = |(i, input): (usize, &&Tensor<f32>)| -> Vec<f64> {
        let values = all_values(graph, input);
        let layers = layers.iter().enumerate();
        layers
            .map(|(j, l)| change(graph, &values, l, (i * 7919 + j) as u32, is_one_class))
            .collect()
    };
    let sums = chosen
        .par_iter()
        .enumerate()
        .map(of_input)
        .reduce(|| vec![0.0; layers.len()], |a, b| a.iter().zip(b).map(|(a, b)| a + b).collect());
    let of_layer = |(layer, sum): (&PhaseLayer, f64)| match layer.place {
        Place::Output => 1.0,
        Place::Input | Place::Phase => sum / (count as f64 * NOISE * NOISE),
    };
    layers.iter().zip(sums).map(of_layer).collect()
}

fn multiplications(graph: &Graph, id: NodeId) -> f64 {
    (graph.node(id).shape.elements() * graph.fan_in(id).unwrap_or(1)) as f64
}

fn all_values(graph: &Graph, input: &Tensor<f32>) -> HashMap<NodeId, Tensor<f32>> {
    let mut values = HashMap::new();
    ir::graph::evaluate(graph, input, |id, value| {
        values.insert(id, value.clone());
    });
    values
}

/// The squared change of one input's output by noise in one layer.
fn change(
    graph: &Graph,
    values: &HashMap<NodeId, Tensor<f32>>,
    layer: &PhaseLayer,
    seed: u32,
    is_one_class: bool,
) -> f64 {
    let mut noisy = values[&layer.node].clone();
    // Uniform noise of the wanted deviation.
    let (mut numbers, width) =
        (Carries(seed.wrapping_mul(0x9e37_79b9)), NOISE * layer.width * 12f64.sqrt());
    for v in &mut noisy.data {
        *v += (width * (f64::from(numbers.next()) - 0.5)) as f32;
    }
    let mut changed = HashMap::from([(layer.node, noisy)]);
    for id in graph.order() {
        let operands = graph.operands(id);
        if id == layer.node || !operands.iter().any(|o| changed.contains_key(o)) {
            continue;
        }
        let node = graph.node(id);
        let operands: Vec<&Tensor<f32>> =
            operands.iter().map(|o| changed.get(o).unwrap_or(&values[o])).collect();
        let value = evaluate_node(&node.op, &node.shape, &operands);
        changed.insert(id, value);
    }
    let Some(output) = changed.get(&graph.output()) else { return 0.0 };
    let pairs = output.data.iter().zip(&values[&graph.output()].data);
    let differences: Vec<f64> = pairs.map(|(a, b)| f64::from(a - b)).collect();
    let classes = differences.len() as f64;
    let mean = if is_one_class { differences.iter().sum::<f64>() / classes } else { 0.0 };
    differences.iter().map(|d| (d - mean).powi(2)).sum()
}
