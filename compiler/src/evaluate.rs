//! Compares a plan with the network it came from: float, fitted float and exact integers side by side.

use ir::Tensor;
use ir::graph::{Graph, NodeId, evaluate, evaluate_batch};
use ir::plan::{Evaluator, Plan, Reference, Rounding, Weights, carry_noise};
use rayon::prelude::*;
use serde::Serialize;

/// Inputs that the carry noise is measured on.
const NOISE_INPUTS: usize = 32;
/// Sampled evaluations per input.
const NOISE_ROUNDS: u64 = 4;

/// What an evaluation found. Shares are between 0 and 1.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    /// Number of inputs.
    pub inputs: usize,
    /// Share of correct classes, where labels were given.
    pub accuracy: Option<Accuracy>,
    /// Share of inputs whose class is the float network's; absent without the reference graphs.
    pub agreement: Option<Agreement>,
    /// Largest difference of any output between plan and float network.
    pub worst_difference: Option<f64>,
    /// Largest standard deviation of an output over the masks' carries.
    pub carry_deviation: f64,
    /// What a run's output is expected to stay within, of the plan's.
    pub carry_bound: f64,
    /// Inputs whose class differs between plan and float network.
    pub changed: Vec<usize>,
    /// Per fitted layer.
    pub layers: Vec<LayerEvaluation>,
}

/// Shares of correct classes.
#[derive(Debug, Serialize)]
pub struct Accuracy {
    /// The network as imported.
    pub float: Option<f64>,
    /// The network with fitted activations, in float.
    pub fitted: Option<f64>,
    /// The plan's integers.
    pub plan: f64,
}

/// Shares of inputs with the float network's class.
#[derive(Debug, Serialize)]
pub struct Agreement {
    /// The network with fitted activations, in float.
    pub fitted: f64,
    /// The plan's integers.
    pub plan: f64,
}

/// One fitted activation on the given inputs.
#[derive(Debug, Serialize)]
pub struct LayerEvaluation {
    /// The node's name.
    pub name: String,
    /// What it was fitted with.
    pub fit: String,
    /// The interval of pre-activations that it was fitted on.
    pub interval: (f64, f64),
    /// Share of pre-activations outside it.
    pub outside: f64,
    /// Largest magnitude of a pre-activation.
    pub largest: f64,
    /// Largest difference between the fit and the function.
    pub largest_error: f64,
}

/// Evaluates a plan on inputs.
///
/// # Errors
/// If an input does not fit the plan.
pub fn run(
    plan: &Plan,
    weights: &Weights,
    reference: Option<&Reference>,
    inputs: &[Tensor<f32>],
    labels: Option<&[usize]>,
) -> Result<Evaluation, ir::plan::InputError> {
    let encoded = inputs.iter().map(|x| plan.encode_input(x)).collect::<Result<Vec<_>, _>>()?;
    let evaluator = Evaluator::new(plan, weights);
    let outputs = evaluator.run_batch(&encoded, Rounding::Nearest);
    let noise = carry_noise(&evaluator, &encoded[..encoded.len().min(NOISE_INPUTS)], NOISE_ROUNDS);
    let of_plan = classes(&outputs);
    let float = reference.map(|r| evaluate_batch(&r.original, inputs));
    let fitted = reference.map(|r| classes(&evaluate_batch(&r.fitted, inputs)));
    let of_float = float.as_ref().map(|f| classes(f));
    let share = |a: &[usize], b: &[usize]| {
        a.iter().zip(b).filter(|(x, y)| x == y).count() as f64 / a.len().max(1) as f64
    };
    let accuracy = labels.map(|labels| Accuracy {
        float: of_float.as_ref().map(|c| share(c, labels)),
        fitted: fitted.as_ref().map(|c| share(c, labels)),
        plan: share(&of_plan, labels),
    });
    let agreement = of_float.as_ref().zip(fitted.as_ref()).map(|(float, fitted)| Agreement {
        fitted: share(fitted, float),
        plan: share(&of_plan, float),
    });
    let changed = of_float
        .map_or(Vec::new(), |float| (0..float.len()).filter(|&i| float[i] != of_plan[i]).collect());
    let worst_difference = float.map(|float| {
        let pairs = float.iter().zip(&outputs).flat_map(|(f, p)| f.data.iter().zip(&p.data));
        pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
    });
    Ok(Evaluation {
        inputs: inputs.len(),
        accuracy,
        agreement,
        worst_difference,
        carry_deviation: noise.deviation,
        carry_bound: noise.bound,
        changed,
        layers: reference.map_or(Vec::new(), |r| layers(r, inputs)),
    })
}

/// The index of the largest output of each; outputs of one element are classes by their sign.
pub fn classes(outputs: &[Tensor<f32>]) -> Vec<usize> {
    let class = |y: &Tensor<f32>| match y.data.as_slice() {
        [single] => usize::from(*single > 0.0),
        many => (0..many.len()).fold(0, |best, i| if many[i] > many[best] { i } else { best }),
    };
    outputs.iter().map(class).collect()
}

fn layers(reference: &Reference, inputs: &[Tensor<f32>]) -> Vec<LayerEvaluation> {
    let graph: &Graph = &reference.fitted;
    let order = graph.order();
    let nodes: Vec<NodeId> = reference.layers.iter().map(|l| order[l.position as usize]).collect();
    let operands: Vec<NodeId> = nodes.iter().map(|&id| graph.operands(id)[0]).collect();
    type Tally = Vec<(usize, usize, f64, f64)>;
    let empty = || -> Tally { vec![(0, 0, 0.0, 0.0); nodes.len()] };
    let tallies = inputs
        .par_iter()
        .map(|input| {
            let mut tally = empty();
            evaluate(graph, input, |id, value| {
                for (layer, _) in operands.iter().enumerate().filter(|(_, o)| **o == id) {
                    let known = &reference.layers[layer];
                    let ir::graph::Op::Activation(fit) = &graph.node(nodes[layer]).op else {
                        continue;
                    };
                    let entry = &mut tally[layer];
                    for (i, &x) in value.data.iter().enumerate() {
                        let (x, channel) = (f64::from(x), value.shape.channel_of(i));
                        entry.0 += 1;
                        entry.1 += usize::from(x < known.interval.0 || x > known.interval.1);
                        entry.2 = entry.2.max(x.abs());
                        entry.3 =
                            entry.3.max((fit.at(channel, x) - known.exact.at(channel, x)).abs());
                    }
                }
            });
            tally
        })
        .reduce(empty, |a, b| {
            let sum =
                a.iter().zip(&b).map(|(x, y)| (x.0 + y.0, x.1 + y.1, x.2.max(y.2), x.3.max(y.3)));
            sum.collect()
        });
    tallies
        .iter()
        .enumerate()
        .map(|(layer, &(count, outside, largest, largest_error))| {
            let node = graph.node(nodes[layer]);
            let fit = match &node.op {
                ir::graph::Op::Activation(fit) => fit.name(),
                _ => String::new(),
            };
            LayerEvaluation {
                name: node.name.clone(),
                fit: format!("{} by {fit}", reference.layers[layer].exact.name()),
                interval: reference.layers[layer].interval,
                outside: outside as f64 / count.max(1) as f64,
                largest,
                largest_error,
            }
        })
        .collect()
}

impl Evaluation {
    /// The table that people read.
    pub fn to_text(&self) -> String {
        let percent = |x: Option<f64>| x.map_or("-".into(), |x| format!("{:.2}%", 100.0 * x));
        let mut lines = vec![format!("{} inputs         float    fitted      plan", self.inputs)];
        if let Some(a) = &self.accuracy {
            lines.push(format!(
                "  accuracy     {:>8}  {:>8}  {:>8}",
                percent(a.float),
                percent(a.fitted),
                percent(Some(a.plan))
            ));
        }
        match &self.agreement {
            Some(a) => lines.push(format!(
                "  same class          -  {:>8}  {:>8}",
                percent(Some(a.fitted)),
                percent(Some(a.plan))
            )),
            None => lines.push("  (the weights file holds no reference graphs: plan only)".into()),
        }
        if let Some(worst) = self.worst_difference {
            lines
                .push(format!("  largest difference of an output, plan against float: {worst:.4}"));
        }
        lines.push(format!(
            "  carries move an output by {:.5} (deviation); a run stays within {:.5} of the plan",
            self.carry_deviation, self.carry_bound
        ));
        if !self.changed.is_empty() {
            let shown: Vec<String> = self.changed.iter().take(20).map(|i| i.to_string()).collect();
            let more = self.changed.len().saturating_sub(20);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines
                .push(format!("  inputs with another class than float: {}{more}", shown.join(" ")));
        }
        if !self.layers.is_empty() {
            lines.push(format!(
                "  {:<34} {:<24} {:>19} {:>9} {:>9} {:>9}",
                "layer", "fit", "interval", "outside", "largest", "error"
            ));
        }
        for l in &self.layers {
            lines.push(format!(
                "  {:<34} {:<24} {:>9.3} {:>9.3} {:>8.3}% {:>9.3} {:>9.3}",
                tail(&l.name, 34),
                l.fit,
                l.interval.0,
                l.interval.1,
                100.0 * l.outside,
                l.largest,
                l.largest_error
            ));
        }
        lines.join("\n")
    }
}

/// The last characters of a name that is too long for its column.
pub fn tail(name: &str, width: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_owned();
    }
    let end: String = name.chars().skip(count - width + 1).collect();
    format!("…{end}")
}
