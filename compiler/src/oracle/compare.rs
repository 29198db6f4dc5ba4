//! The import's outputs beside the oracle's.

use super::{Oracle, Stacked};
use crate::error::CompileError;
use crate::onnx::{Batch, Imported};
use crate::passes::split_client;
use ir::graph::{Graph, NodeId, evaluate};
use ir::plan::ClientStep;
use ir::tensor::{Shape, Tensor};
use std::collections::HashMap;
use std::fmt;

/// Float rounding: the largest difference over the largest entry of an output.
const ROUNDING: f64 = 1e-3;
/// The same where a model computes in 16 bits.
const HALF_ROUNDING: f64 = 2e-2;
/// Where rounding to quantisation steps is left out: the root mean square of the differences over the
/// deviation of the output.
const STEPS: f64 = 0.15;
/// How far a channel's entries reach at least, over the largest entry of an output.
const LEAST_REACH: f64 = 1.0 / 32.0;
/// Values that the node of a disagreement is looked for among, at once.
const TRACED: usize = 4000;

/// What was found about an import.
#[derive(Clone, Debug, PartialEq)]
pub enum Agreement {
    /// The oracle gives the same.
    Checked {
        /// Who gave the outputs: tract, or the user.
        by: &'static str,
        /// On how many inputs.
        inputs: usize,
        /// The largest difference over the largest entry.
        difference: f64,
    },
    /// There is no oracle.
    Unchecked {
        /// Why.
        why: String,
    },
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checked { by, inputs, difference } => write!(
                f,
                "import checked against {by} on {inputs} inputs: outputs differ by {difference:.1e} of the largest"
            ),
            Self::Unchecked { why } => write!(
                f,
                "NOTHING HAS CHECKED THE IMPORT: tract cannot run the file ({why}); give outputs of your own \
                 runtime by --expect"
            ),
        }
    }
}

/// Compares the import with tract's evaluation of the file on about `count` inputs.
///
/// # Errors
/// If they disagree beyond float rounding: with the first node whose value differs.
pub fn compare(
    imported: &Imported,
    parts: &[Vec<Tensor<f32>>],
    oracle: &Oracle,
    count: usize,
) -> Result<Agreement, CompileError> {
    let stacked = Stacked::new(imported, parts, count);
    let names = imported.outputs.iter().map(|o| o.name.clone()).collect();
    let answers = oracle.run(stacked.rows, Some(names), &stacked.cases);
    let usable = answers.cases.iter().all(|values| {
        values.len() == imported.outputs.len()
            && values.iter().flat_map(|v| &v.data).all(|v| v.is_finite())
    });
    if answers.cases.is_empty() || !usable {
        let why = answers.stopped.unwrap_or_else(|| "its outputs are not finite".into());
        return Ok(Agreement::Unchecked { why });
    }
    let positions = &stacked.positions[..answers.cases.len()];
    let inputs: Vec<Tensor<f32>> =
        positions.iter().flatten().map(|&p| joined(parts, p, imported)).collect();
    let theirs = (0..imported.outputs.len())
        .map(|i| answers.cases.iter().flat_map(|values| values[i].data.iter().copied()).collect())
        .collect();
    let failed = match outputs_differ(imported, &inputs, theirs) {
        Ok(difference) => {
            let inputs = inputs.len();
            return Ok(Agreement::Checked { by: "tract", inputs, difference });
        }
        Err(failed) => failed,
    };
    let at = match failed.is_traceable {
        true => first_difference(imported, parts, oracle),
        false => None,
    };
    let at = at.map_or(String::new(), |(node, operator)| {
        format!("; the first node whose value differs is {node} ({operator})")
    });
    Err(CompileError::Disagreement(format!(
        "the import disagrees with tract's evaluation of the file: {}{at}; one of the two is wrong: give the \
         outputs of your own runtime by --expect, and report it",
        failed.reason
    )))
}

/// Compares the import with outputs that the user's runtime gave for the first inputs: per output of the
/// import, one row per input.
///
/// # Errors
/// If they disagree, or their shape is another.
pub fn expected(
    imported: &Imported,
    parts: &[Vec<Tensor<f32>>],
    outputs: Vec<Tensor<f32>>,
) -> Result<Agreement, CompileError> {
    let of_input: usize = imported.outputs.iter().map(|o| o.shape.elements()).sum();
    let given: usize = outputs.iter().map(|y| y.data.len()).sum();
    let (count, all) = (given / of_input.max(1), parts.first().map_or(0, Vec::len));
    let fits = outputs
        .iter()
        .zip(&imported.outputs)
        .all(|(y, o)| y.data.len() == count * o.shape.elements());
    if count == 0 || count > all || !fits {
        return Err(CompileError::Option(format!(
            "--expect: the outputs are not those of the first calibration inputs: {given} numbers, expected a \
             multiple of {of_input}, for at most {all} inputs"
        )));
    }
    let inputs: Vec<Tensor<f32>> = (0..count).map(|p| joined(parts, p, imported)).collect();
    let theirs = outputs.into_iter().map(|y| y.data).collect();
    match outputs_differ(imported, &inputs, theirs) {
        Ok(difference) => Ok(Agreement::Checked { by: "--expect", inputs: count, difference }),
        Err(failed) => Err(CompileError::Disagreement(format!(
            "the import disagrees with the outputs of --expect: {}",
            failed.reason
        ))),
    }
}

/// One input of the graph.
fn joined(parts: &[Vec<Tensor<f32>>], position: usize, imported: &Imported) -> Tensor<f32> {
    let data = parts.iter().flat_map(|part| part[position].data.iter().copied()).collect();
    Tensor::new(imported.input_shape().clone(), data)
}

struct Failed {
    reason: String,
    /// Whether values in between can be compared as well.
    is_traceable: bool,
}

/// The largest relative difference of any output.
fn outputs_differ(
    imported: &Imported,
    inputs: &[Tensor<f32>],
    theirs: Vec<Vec<f32>>,
) -> Result<f64, Failed> {
    let fail = |reason: String| Failed { reason, is_traceable: !imported.rounds };
    let mut ours: Vec<Vec<f32>> = vec![Vec::new(); imported.outputs.len()];
    let choices = Choices::of(imported);
    let mut scores: Vec<Vec<Tensor<f32>>> = vec![Vec::new(); imported.outputs.len()];
    for input in inputs {
        let mut rest =
            evaluate(&imported.graph, input, |id, value| choices.note(id, value, &mut scores)).data;
        for (own, output) in ours.iter_mut().zip(&imported.outputs) {
            let behind = rest.split_off(output.shape.elements().min(rest.len()));
            own.append(&mut rest);
            rest = behind;
        }
    }
    let mut largest: f64 = 0.0;
    for (i, (own, other)) in ours.iter().zip(&theirs).enumerate() {
        let name = &imported.outputs[i].name;
        if own.len() != other.len() {
            let (found, expected) = (own.len(), other.len());
            return Err(fail(format!("output {name} has {found} entries instead of {expected}")));
        }
        if let Some(axis) = choices.axes[i] {
            let (tie, most) = match imported.rounds {
                true => (ROUNDING, own.len() / 10),
                false if imported.is_half => (HALF_ROUNDING, 0),
                false => (ROUNDING, 0),
            };
            let wrong = wrong_choices((axis, tie as f32), &scores[i], own, other);
            if wrong > most {
                let all = own.len();
                return Err(fail(format!(
                    "{wrong} of {all} entries of output {name} are other choices"
                )));
            }
            continue;
        }
        let shape = &imported.outputs[i].shape;
        let (difference, allowed) = match imported.rounds {
            true => (deviation(own, other), STEPS),
            false if imported.is_half => (distance(shape, own, other), HALF_ROUNDING),
            false => (distance(shape, own, other), ROUNDING),
        };
        largest = largest.max(difference);
        if difference.is_nan() || difference > allowed {
            return Err(fail(format!(
                "output {name} differs by {:.2}% of its range",
                100.0 * difference
            )));
        }
    }
    Ok(largest)
}

/// The largest difference over how far a channel's entries reach from their mean, in values of `shape`; a
/// channel that hardly varies reaches a thirtieth of the largest entry.
fn distance(shape: &Shape, ours: &[f32], theirs: &[f32]) -> f64 {
    let (elements, channels) = (shape.elements().max(1), shape.channels());
    let channel = |i: usize| shape.channel_of(i % elements);
    let largest = theirs.iter().fold(1e-6f64, |m, &v| m.max(f64::from(v.abs())));
    let mut means = vec![(0.0, 0.0); channels];
    for (i, &v) in theirs.iter().enumerate() {
        let (count, sum) = &mut means[channel(i)];
        (*count, *sum) = (*count + 1.0, *sum + f64::from(v));
    }
    let mut reach = vec![LEAST_REACH * largest; channels];
    for (i, &v) in theirs.iter().enumerate() {
        let (count, sum) = means[channel(i)];
        let reach = &mut reach[channel(i)];
        *reach = reach.max((f64::from(v) - sum / count).abs());
    }
    ours.iter().zip(theirs).enumerate().fold(0.0, |m, (i, (&a, &b))| {
        let d = f64::from((a - b).abs()) / reach[channel(i)];
        if d.is_nan() { f64::INFINITY } else { d.max(m) }
    })
}

/// The root mean square of differences over the deviation of the entries.
fn deviation(ours: &[f32], theirs: &[f32]) -> f64 {
    let n = theirs.len() as f64;
    let mean = theirs.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let spread = theirs.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    let error = ours.iter().zip(theirs).map(|(&a, &b)| f64::from(a - b).powi(2)).sum::<f64>() / n;
    // Equal entries have no deviation: their size takes its place.
    let scale = spread.max((1e-3 * mean).powi(2)).max(1e-12);
    (error / scale).sqrt()
}

/// The outputs that choose among scores: a tie is decided by the last bits, so another choice is right
/// whose score is as large.
struct Choices {
    nodes: Vec<Option<NodeId>>,
    axes: Vec<Option<usize>>,
}

impl Choices {
    fn of(imported: &Imported) -> Self {
        let mut graph: Graph = imported.graph.clone();
        let shapes: Vec<Shape> = imported.outputs.iter().map(|o| o.shape.clone()).collect();
        let split = split_client(&mut graph, &shapes);
        let keeps = |s: &ClientStep| matches!(s, ClientStep::Reshape(_) | ClientStep::Integers(_));
        let chosen = |client: &[ClientStep]| match client.split_first() {
            Some((ClientStep::ArgMax(axis), rest)) if rest.iter().all(keeps) => Some(*axis),
            _ => None,
        };
        let axes: Vec<Option<usize>> = split.iter().map(|s| chosen(&s.client)).collect();
        let nodes = split.iter().zip(&axes).map(|(s, axis)| axis.map(|_| s.node)).collect();
        Self { nodes, axes }
    }

    fn note(&self, id: NodeId, value: &Tensor<f32>, scores: &mut [Vec<Tensor<f32>>]) {
        for (node, scores) in self.nodes.iter().zip(scores) {
            if *node == Some(id) {
                scores.push(value.clone());
            }
        }
    }
}

/// How many choices along an axis are wrong: of another score than ours, by more than `tie` of how far the
/// scores of a line reach.
fn wrong_choices(
    (axis, tie): (usize, f32),
    scores: &[Tensor<f32>],
    ours: &[f32],
    theirs: &[f32],
) -> usize {
    let Some(shape) = scores.first().map(|s| &s.shape) else { return theirs.len() };
    let inner: usize = shape.0[axis + 1..].iter().product();
    let (length, lines) = (shape.0[axis], shape.elements() / shape.0[axis]);
    let is_wrong = |(i, (&own, &other)): (usize, (&f32, &f32))| {
        if own == other {
            return false;
        }
        let (scores, line) = (&scores[i / lines].data, i % lines);
        let start = line / inner * length * inner + line % inner;
        let of_line: Vec<f32> = (0..length).map(|n| scores[start + n * inner]).collect();
        let low = of_line.iter().copied().fold(f32::INFINITY, f32::min);
        let high = of_line.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let reach = (high - low).max(1e-3 * high.abs().max(low.abs()));
        let at = |choice: f32| of_line.get(choice as usize).copied().filter(|_| choice >= 0.0);
        match (at(own), at(other)) {
            (Some(a), Some(b)) => (a - b).is_nan() || a - b > tie * reach,
            _ => true,
        }
    };
    ours.iter().zip(theirs).enumerate().filter(|&pair| is_wrong(pair)).count()
}

/// The first node of the file whose value differs, on one input.
fn first_difference(
    imported: &Imported,
    parts: &[Vec<Tensor<f32>>],
    oracle: &Oracle,
) -> Option<(String, String)> {
    let stacked = Stacked::new(imported, parts, 1);
    let mut ours: HashMap<NodeId, Tensor<f32>> = HashMap::new();
    let input = joined(parts, stacked.positions[0][0], imported);
    evaluate(&imported.graph, &input, |id, value| {
        ours.insert(id, value.clone());
    });
    let traced: Vec<_> =
        imported.trace().filter(|t| ours.contains_key(&t.id)).take(TRACED).collect();
    let names = traced.iter().map(|t| t.value.clone()).collect();
    let answers = oracle.run(stacked.rows, Some(names), &stacked.cases[..1]);
    let theirs = answers.cases.into_iter().next()?;
    let items = if imported.batch == Batch::None { 1 } else { stacked.rows };
    let differs = |own: &Tensor<f32>, other: &Tensor<f32>| {
        if other.data.len() != own.data.len() * items {
            return true;
        }
        // Where the batch is not the first axis, the parts of an item lie apart: not compared.
        let leads =
            items == 1 || other.shape.0.first() == own.shape.0.first().map(|d| d * items).as_ref();
        leads && distance(&own.shape, &own.data, &other.data[..own.data.len()]) > ROUNDING
    };
    let found = traced.iter().zip(&theirs).find(|(t, other)| differs(&ours[&t.id], other))?.0;
    Some((found.node.clone(), found.operator.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::graph::Op;

    #[test]
    fn distances_are_relative() {
        let off = |ours: &[f32], theirs: &[f32], dims: &[usize]| {
            distance(&Shape::new(dims), ours, theirs)
        };
        assert!((off(&[-10.0, 9.0], &[-10.0, 10.0], &[1, 1, 2]) - 0.1).abs() < 1e-9);
        assert_eq!(off(&[f32::NAN], &[1.0], &[1]), f64::INFINITY);
        // A channel of small entries beside one of large ones has its own scale.
        let (theirs, ours) = ([640.0, -640.0, 20.5, 21.5], [640.0, -640.0, 20.75, 21.25]);
        assert!(off(&ours, &theirs, &[1, 2, 2]) > 0.01);
        assert!(off(&[1000.0, 1000.2], &[1000.0, 1080.0], &[1, 1, 2]) > 1e-3);
        assert!((deviation(&[1.1, -0.9], &[1.0, -1.0]) - 0.1).abs() < 1e-6);
    }

    #[test]
    fn ties_may_be_chosen_either_way() {
        let graph = {
            let mut graph = Graph::new("x", Shape::new([1, 3]));
            let x = graph.input();
            let y = graph.add("choice", Op::ArgMax(1), Shape::new([1, 1]), &[x]);
            graph.set_output(y);
            graph
        };
        let imported = Imported::from(graph);
        let input = Tensor::new(Shape::new([1, 3]), vec![1.0, 5.0, 5.000_001]);
        let check = |choice: f32| {
            outputs_differ(&imported, std::slice::from_ref(&input), vec![vec![choice]])
        };
        assert!(check(1.0).is_ok() && check(2.0).is_ok());
        assert!(check(0.0).is_err() && check(3.0).is_err() && check(-1.0).is_err());
    }
}
