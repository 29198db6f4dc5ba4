//! The ports of a model: its inputs and outputs, each in a unit of its own, so that values of different
//! sizes share one ring. Units are powers of two: multiplying by them is exact, and costs no step.

use crate::onnx::{Declared, Imported};
use crate::passes::Scores;
use crate::task;
use ir::graph::{Graph, NodeId, Op, evaluate};
use ir::input::Preprocessing;
use ir::plan::{InputPort, OutputPort};
use ir::tensor::Tensor;
use std::collections::HashMap;

/// Inputs on which the sizes of outputs are measured.
const MEASURED: usize = 32;

/// The ports of a model's inputs, in units of 1, with the preprocessing that each is read by.
pub fn inputs(declared: &[Declared], preprocessing: &[Preprocessing]) -> Vec<InputPort> {
    let port = |(declared, preprocessing): (&Declared, &Preprocessing)| InputPort {
        name: declared.name.clone(),
        shape: declared.shape.clone(),
        element: declared.element,
        unit: 1.0,
        limit: 1.0,
        preprocessing: preprocessing.clone(),
    };
    declared.iter().zip(preprocessing).map(port).collect()
}

/// Where there are several inputs, gives each a unit of about the root mean square of its values, so that
/// an element of the plan's input value is about 1, and tells the graph. `values` are lists per input.
pub fn settle_inputs(
    imported: &mut Imported,
    ports: &mut [InputPort],
    values: &[Vec<Tensor<f32>>],
) {
    if ports.len() < 2 {
        return;
    }
    for (port, values) in ports.iter_mut().zip(values) {
        port.unit = unit(values.iter().flat_map(|v| &v.data));
        if let Some(id) = imported.node_of(&port.name) {
            times(&mut imported.graph, id, port.unit);
        }
    }
}

/// The ports of a graph's outputs without the client's steps. Where there are several, each gets a unit of
/// about the root mean square of its values on some inputs, and the graph is told.
pub fn outputs(
    graph: &mut Graph,
    declared: &[Declared],
    scores: Vec<Scores>,
    inputs: (&[InputPort], &[Tensor<f32>]),
) -> Vec<OutputPort> {
    let units = if scores.len() > 1 { sizes(graph, &scores, inputs.1) } else { vec![1.0] };
    let mut ports = Vec::new();
    for ((declared, scores), unit) in declared.iter().zip(scores).zip(units) {
        let shape = graph.node(scores.node).shape.clone();
        let is_probability = task::is_probability(graph, scores.node);
        let shapes = (inputs.0, &shape);
        let output = task::Output::new(&declared.name, shapes, &scores.client, is_probability);
        let task = task::of_network(&output).task;
        times_at_output(graph, scores.node, 1.0 / unit);
        ports.push(OutputPort {
            name: declared.name.clone(),
            shape,
            element: declared.element,
            unit,
            client: scores.client,
            task,
            classes: vec![],
        });
    }
    ports
}

fn sizes(graph: &Graph, scores: &[Scores], inputs: &[Tensor<f32>]) -> Vec<f64> {
    let mut values: HashMap<NodeId, Vec<f32>> = HashMap::new();
    for input in inputs.iter().take(MEASURED) {
        evaluate(graph, input, |id, value| {
            if scores.iter().any(|s| s.node == id) {
                values.entry(id).or_default().extend(&value.data);
            }
        });
    }
    scores.iter().map(|s| unit(values.get(&s.node).into_iter().flatten())).collect()
}

/// The power of two next to the root mean square; 1 where there is nothing but zeros.
fn unit<'a>(values: impl Iterator<Item = &'a f32>) -> f64 {
    let finite = values.map(|&v| f64::from(v)).filter(|v| v.is_finite());
    let (count, squares) = finite.fold((0.0, 0.0), |(n, sum), v| (n + 1.0, sum + v * v));
    let exponent = (squares / f64::max(count, 1.0)).sqrt().log2().round();
    if exponent.is_finite() { exponent.clamp(-60.0, 60.0).exp2() } else { 1.0 }
}

/// Lets all readers of a node read `factor` times its value.
fn times(graph: &mut Graph, id: NodeId, factor: f64) {
    let node = graph.node(id);
    let (name, shape) = (node.name.clone(), node.shape.clone());
    let op = Op::Affine { scale: Tensor::scalar(factor as f32), shift: Tensor::scalar(0.0) };
    let scaled = graph.add(name, op, shape, &[id]);
    graph.replace_uses(id, scaled);
}

/// Joins `factor` times the value of a node to the output instead of the value.
fn times_at_output(graph: &mut Graph, id: NodeId, factor: f64) {
    if factor == 1.0 {
        return;
    }
    let output = graph.output();
    let mut rows = graph.operands(output);
    let is_row = |graph: &Graph, row: NodeId| {
        row == id || matches!(graph.node(row).op, Op::Reshape) && graph.operands(row) == [id]
    };
    for row in &mut rows {
        if is_row(graph, *row) {
            let (name, shape) = (graph.node(*row).name.clone(), graph.node(*row).shape.clone());
            let op =
                Op::Affine { scale: Tensor::scalar(factor as f32), shift: Tensor::scalar(0.0) };
            *row = graph.add(name, op, shape, &[*row]);
        }
    }
    graph.set_operands(output, &rows);
}
