//! Compares a plan with the network it came from: float, fitted float, and what runs of the plan answer,
//! side by side.

mod layers;
mod measures;
mod text;

pub use layers::LayerEvaluation;
pub use measures::Classes;
pub(crate) use measures::Errors;

use crate::task::Truth;
use ir::Tensor;
use ir::plan::{
    Evaluator, InputError, NoiseTally, OutputPort, Plan, Reference, Rounding, Task, Weights,
    run_rounding,
};
use layers::{LayerTally, Layers};
use measures::{Answer, Answers, ClassTally};
use rayon::prelude::*;
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Inputs that the carry noise is measured on, and simulated runs of each.
const NOISE_INPUTS: usize = 16;
const NOISE_ROUNDS: usize = 4;
/// Runs are simulated as often as this many in all need, and at most so often per input; of large networks as
/// often as so many multiplications afford, but once.
const RUNS: usize = 256;
const MOST_ROUNDS: usize = 8;
const RUNS_WORK: usize = 100_000_000_000;

/// Inputs and what is known of them.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// The inputs.
    pub inputs: &'a [Tensor<f32>],
    /// What is right, per output and input; empty where nothing is known.
    pub truths: &'a [Option<Vec<Truth>>],
    /// The outputs that the network in float makes, per input and output, after the client's steps; without
    /// them the imported graph is asked.
    pub float: Option<&'a [Vec<Tensor<f32>>]>,
}

/// What an evaluation found. Shares are between 0 and 1.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    /// Number of inputs.
    pub inputs: usize,
    /// Simulated runs in all.
    pub runs: usize,
    /// Inputs whose values leave the planned bounds of a fitted polynomial.
    pub escaped: usize,
    /// Largest standard deviation of an output over the masks' carries.
    pub carry_deviation: f64,
    /// What a run's output is expected to stay within, of the plan's.
    pub carry_bound: f64,
    /// Per activation.
    pub layers: Vec<LayerEvaluation>,
    /// Per output.
    pub outputs: Vec<Judged>,
    /// The plan's outputs without carries, per input.
    #[serde(skip)]
    pub logits: Vec<Vec<f32>>,
}

/// What was found of one output.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// The output's name.
    pub name: String,
    /// What it means: `classify`, `binary` or `regress`.
    pub task: &'static str,
    /// The axis of the classes.
    pub class_axis: Option<usize>,
    /// What a binary score must exceed.
    pub threshold: Option<f32>,
    /// Classes or numbers of one input.
    pub positions: usize,
    /// Share of correct classes, where labels were given.
    pub accuracy: Option<Accuracy>,
    /// Share of classes that are the float network's; absent without the reference graphs.
    pub agreement: Option<Agreement>,
    /// Errors against labels that are numbers.
    pub error: Option<NumberErrors>,
    /// Root mean square of the differences from the float network's outputs, over the spread of these.
    pub relative_error: Option<RelativeError>,
    /// What `--max-loss` is about: the accuracy lost against the float network, or the share of classes
    /// that change where labels are not known; of numbers the share of the labels' spread that the root mean
    /// square error grows by, or the relative error.
    pub loss: Option<f64>,
    /// Largest difference of a number between runs and float network.
    pub worst_difference: Option<f64>,
    /// Share of simulated runs whose class is that of the plan without carries.
    pub carry_agreement: Option<f64>,
    /// Inputs whose class differs between most runs and the float network.
    pub changed: Vec<Changed>,
    /// Per input, where it has one class.
    pub classes: Vec<Classes>,
    /// What the loss was counted on.
    #[serde(skip)]
    pub counted: Counted,
    /// What the output means.
    #[serde(skip)]
    pub meaning: Task,
}

/// An input that the plan does not take.
#[derive(Debug, thiserror::Error)]
#[error("input {input}: {reason}")]
pub struct RefusedInput {
    /// Its position among the inputs.
    pub input: usize,
    /// Why.
    pub reason: InputError,
}

/// Shares of correct classes.
#[derive(Debug, Serialize)]
pub struct Accuracy {
    /// The network as imported.
    pub float: Option<f64>,
    /// The network with fitted activations, in float.
    pub fitted: Option<f64>,
    /// Simulated runs of the plan.
    pub plan: f64,
    /// The plan with its truncations rounded to nearest.
    pub rounded: f64,
}

/// Shares of classes that are the float network's.
#[derive(Debug, Serialize)]
pub struct Agreement {
    /// The network with fitted activations, in float.
    pub fitted: f64,
    /// Simulated runs of the plan.
    pub plan: f64,
    /// The plan with its truncations rounded to nearest.
    pub rounded: f64,
}

/// Errors against labels, in the outputs' unit.
#[derive(Debug, Serialize)]
pub struct NumberErrors {
    /// Root mean square.
    pub rmse: Columns,
    /// Share of the labels' variance that is explained; absent where all labels are the same.
    pub r2: Columns,
    /// The largest.
    pub largest: Columns,
}

/// A measure of three networks.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Columns {
    /// The network as imported.
    pub float: Option<f64>,
    /// The network with fitted activations, in float.
    pub fitted: Option<f64>,
    /// Simulated runs of the plan.
    pub plan: Option<f64>,
}

/// Root mean square errors against the float network.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RelativeError {
    /// The network with fitted activations, in the outputs' unit.
    pub fitted_rms: f64,
    /// Simulated runs of the plan, in the outputs' unit.
    pub plan_rms: f64,
    /// The former over the spread; absent where outputs are all the same.
    pub fitted: Option<f64>,
    /// The latter over the spread.
    pub plan: Option<f64>,
}

/// What a loss was counted on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Classes or numbers in all.
    pub count: f64,
    /// Classes that float has right and runs have not.
    pub lost: f64,
    /// The other way round.
    pub gained: f64,
}

/// An input whose class differs between plan and float network.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Changed {
    /// Its position among the inputs.
    pub input: usize,
    /// The float network's class.
    pub float: usize,
    /// The plan's.
    pub plan: usize,
}

/// What is known of one input.
struct OfInput {
    /// Per output.
    outputs: Vec<OfOutput>,
    rounded: Vec<f32>,
    runs: usize,
    layers: Vec<LayerTally>,
    noise: Option<NoiseTally>,
}

/// What is known of one output of one input.
struct OfOutput {
    positions: usize,
    classes: Option<(ClassTally, Option<Classes>)>,
    against_float: Option<Errors>,
    against_truth: Option<Errors>,
}

/// Evaluates a plan on inputs; `tasks` are what its outputs mean. `progress` is told the share of the work
/// that is done, from any thread.
///
/// # Errors
/// If an input does not fit the plan.
pub fn run(
    plan: &Plan,
    weights: &Weights,
    reference: Option<&Reference>,
    tasks: &[Task],
    sample: Sample<'_>,
    progress: &(dyn Fn(f64) + Sync),
) -> Result<Evaluation, RefusedInput> {
    let Sample { inputs, truths, float: given } = sample;
    let encode = |(input, x)| plan.encode_input(x).map_err(|reason| RefusedInput { input, reason });
    let encoded = inputs.iter().enumerate().map(encode).collect::<Result<Vec<_>, _>>()?;
    let evaluator = Evaluator::new(plan, weights);
    let layers = reference.map(|reference| Layers::new(reference, plan));
    let done = AtomicUsize::new(0);
    let evaluate_one = |(i, (x, encoded)): (usize, (&Tensor<f32>, &Tensor<u64>))| {
        let (rounded, runs, noise) = simulate(plan, &evaluator, encoded, i, inputs.len());
        let in_float = layers.as_ref().map(|layers| layers.evaluate(x));
        let float = in_float.as_ref().map(|of| plan.scores(&of.original));
        let fitted = in_float.as_ref().map(|of| plan.scores(&of.fitted));
        let scores =
            (plan.scores(&rounded), runs.iter().map(|y| plan.scores(y)).collect::<Vec<_>>());
        let output = |(o, port): (usize, &OutputPort)| {
            let task = tasks[o];
            let answer = |scores: &Tensor<f32>| Answer {
                classes: task.classes(&port.judged(task, scores)),
                // What users have, if that is what there is to compare with.
                numbers: match given {
                    Some(_) => port.finish(scores),
                    None => port.judged(task, scores),
                },
            };
            let float = match given {
                Some(given) => Some(Answer {
                    classes: port.classes_of_finished(task, &given[i][o]),
                    numbers: given[i][o].clone(),
                }),
                None => float.as_ref().map(|y| answer(&y[o])),
            };
            let answers = Answers {
                float,
                fitted: fitted.as_ref().map(|y| answer(&y[o])),
                rounded: answer(&scores.0[o]),
                runs: scores.1.iter().map(|y| answer(&y[o])).collect(),
            };
            let truth = truths.get(o).and_then(Option::as_ref).map(|t| &t[i]);
            measure(task, &answers, truth, inputs.len())
        };
        let outputs = plan.outputs.iter().enumerate().map(output).collect();
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        progress(done as f64 / inputs.len() as f64);
        let layers = in_float.map(|of| of.layers).unwrap_or_default();
        OfInput { outputs, rounded: rounded.data, runs: runs.len(), layers, noise }
    };
    let mut found: Vec<OfInput> =
        inputs.par_iter().zip(&encoded).enumerate().map(evaluate_one).collect();
    let noise: Vec<NoiseTally> = found.iter_mut().filter_map(|f| f.noise.take()).collect();
    let noise = NoiseTally::finish(plan, &noise);
    let layers = layers.as_ref().map_or(Vec::new(), |layers| {
        layers.finish(found.iter().map(|f| f.layers.as_slice()), &noise)
    });
    let judged = |(o, port): (usize, &OutputPort)| {
        let of_inputs: Vec<&OfOutput> = found.iter().map(|f| &f.outputs[o]).collect();
        judged(port, tasks[o], &of_inputs, truths.get(o).is_some_and(Option::is_some))
    };
    Ok(Evaluation {
        inputs: found.len(),
        runs: found.iter().map(|f| f.runs).sum(),
        escaped: found.iter().filter(|f| f.layers.iter().any(|l| l.escaped > 0)).count(),
        carry_deviation: noise.deviation,
        carry_bound: noise.bound,
        layers,
        outputs: plan.outputs.iter().enumerate().map(judged).collect(),
        logits: found.into_iter().map(|f| f.rounded).collect(),
    })
}

/// The decoded output of a plan without carries, those of simulated runs, and of the first inputs what
/// carries do to the steps.
fn simulate(
    plan: &Plan,
    evaluator: &Evaluator<'_>,
    encoded: &Tensor<u64>,
    index: usize,
    inputs: usize,
) -> (Tensor<f32>, Vec<Tensor<f32>>, Option<NoiseTally>) {
    let affordable = RUNS_WORK / (plan.multiplications_in_all() * inputs).max(1);
    let rounds = |least: usize| {
        let wanted = RUNS.div_ceil(inputs.max(1)).min(MOST_ROUNDS).max(least);
        wanted.min(affordable.max(1))
    };
    if index < NOISE_INPUTS {
        let mut tally = NoiseTally::of(evaluator, encoded, index, rounds(NOISE_ROUNDS));
        let runs = std::mem::take(&mut tally.sampled);
        return (tally.rounded.clone(), runs, Some(tally));
    }
    let run = |rounding| plan.decode_output(&evaluator.run(encoded, rounding, |_, _| ()));
    let runs = (0..rounds(1)).map(|round| run(run_rounding(index, round))).collect();
    (run(Rounding::Nearest), runs, None)
}

fn measure(task: Task, answers: &Answers, truth: Option<&Truth>, inputs: usize) -> OfOutput {
    let numbers: fn(&Answer) -> &[f32] = |answer| &answer.numbers.data;
    let float: Vec<&[f32]> = answers.float.iter().map(numbers).collect();
    let fitted: Vec<&[f32]> = answers.fitted.iter().map(numbers).collect();
    let runs: Vec<&[f32]> = answers.runs.iter().map(numbers).collect();
    let against = |target: &[f32]| {
        let mut errors = Errors::new(&answers.rounded.numbers.shape, inputs);
        errors.take(target, [&float, &fitted, &runs]);
        errors
    };
    let numbers = truth.and_then(|t| if let Truth::Numbers(n) = t { Some(n) } else { None });
    let positions = match answers.rounded.classes.len() {
        0 => answers.rounded.numbers.data.len(),
        classes => classes,
    };
    OfOutput {
        positions,
        classes: ClassTally::of(task, answers, truth),
        against_float: float.first().map(|float| against(float)),
        against_truth: numbers.map(|numbers| against(numbers)),
    }
}

/// What all inputs say together of an output.
fn judged(port: &OutputPort, task: Task, found: &[&OfOutput], is_labelled: bool) -> Judged {
    let sum = |of: fn(&OfOutput) -> Option<&Errors>| {
        found.iter().filter_map(|m| of(m)).cloned().reduce(|mut a, b| {
            a.add(&b);
            a
        })
    };
    let against_float = sum(|m| m.against_float.as_ref());
    let against_truth = sum(|m| m.against_truth.as_ref());
    let tally = found.iter().filter_map(|m| m.classes.as_ref()).map(|c| c.0).reduce(|mut a, b| {
        a.add(&b);
        a
    });
    let columns = |e: &Errors, of: fn(&Errors, usize) -> Option<f64>| Columns {
        float: of(e, 0),
        fitted: of(e, 1),
        plan: of(e, 2),
    };
    let error = against_truth.as_ref().map(|e| NumberErrors {
        rmse: columns(e, Errors::rms),
        r2: columns(e, |e, column| e.unexplained(column).map(|u| 1.0 - u)),
        largest: columns(e, Errors::worst),
    });
    let relative_error = against_float.as_ref().and_then(|e| {
        Some(RelativeError {
            fitted_rms: e.rms(1)?,
            plan_rms: e.rms(2)?,
            fitted: e.unexplained(1).map(f64::sqrt),
            plan: e.unexplained(2).map(f64::sqrt),
        })
    });
    let has_float = against_float.is_some();
    let accuracy = tally.filter(|_| is_labelled).map(|t| Accuracy {
        float: has_float.then_some(t.right[0] / t.count),
        fitted: has_float.then_some(t.right[1] / t.count),
        plan: t.right[2] / t.count,
        rounded: t.right_rounded / t.count,
    });
    let agreement = tally.filter(|_| has_float).map(|t| Agreement {
        fitted: t.same[0] / t.count,
        plan: t.same[1] / t.count,
        rounded: t.same_rounded / t.count,
    });
    let loss = match (&tally, &error) {
        (Some(t), _) => has_float.then(|| (t.lost - t.gained) / t.count),
        (None, Some(_)) => against_truth.as_ref().and_then(|e| {
            let error = |column| e.unexplained(column).map(f64::sqrt);
            Some(error(2)? - error(0)?)
        }),
        (None, None) => relative_error.and_then(|e| e.plan),
    };
    let counted = match &tally {
        Some(t) => Counted { count: t.count, lost: t.lost, gained: t.gained },
        None => Counted {
            count: against_float.as_ref().map_or(0.0, Errors::count),
            ..Counted::default()
        },
    };
    let classes: Vec<Classes> =
        found.iter().filter_map(|m| m.classes.as_ref().and_then(|c| c.1)).collect();
    let changed = classes.iter().enumerate().filter_map(|(input, c)| {
        let float = c.float.filter(|&float| float != c.plan)?;
        Some(Changed { input, float, plan: c.plan })
    });
    let axis = if let Task::Classify { axis } = task { Some(axis) } else { None };
    Judged {
        name: port.name.clone(),
        task: task.name(),
        class_axis: axis,
        threshold: matches!(task, Task::Binary { .. }).then(|| task.threshold()),
        positions: found.first().map_or(1, |m| m.positions),
        accuracy,
        agreement,
        error,
        relative_error,
        loss,
        worst_difference: against_float.as_ref().and_then(|e| e.worst(2)),
        carry_agreement: tally.map(|t| t.kept / t.count),
        changed: changed.collect(),
        classes,
        counted,
        meaning: task,
    }
}

impl Evaluation {
    /// The largest [`Judged::loss`] of an output.
    pub fn loss(&self) -> Option<f64> {
        self.outputs.iter().filter_map(|o| o.loss).reduce(f64::max)
    }

    /// As JSON: what is known of the first output stands beside what is known of all.
    pub fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        let mut json = serde_json::to_value(self)?;
        let first = json["outputs"].get(0).and_then(|first| first.as_object()).cloned();
        if let (Some(json), Some(first)) = (json.as_object_mut(), first) {
            json.extend(first.into_iter().filter(|(key, _)| key != "name"));
        }
        Ok(json)
    }

    /// What may be said of a plan that was measured on made-up inputs: nothing about its accuracy.
    pub fn without_promises(mut self) -> Self {
        for o in &mut self.outputs {
            (o.accuracy, o.agreement, o.error, o.relative_error) = (None, None, None, None);
            (o.loss, o.worst_difference, o.carry_agreement) = (None, None, None);
            o.changed.clear();
            o.classes.clear();
        }
        for layer in &mut self.layers {
            (layer.outside, layer.beyond_half_turn) = (None, None);
            (layer.largest_error, layer.imitation, layer.noise) = (None, None, None);
        }
        self
    }
}

/// The class of every output whose elements are the scores of one input.
pub fn classes(outputs: &[Tensor<f32>]) -> Vec<usize> {
    outputs.iter().map(|output| ir::plan::class(&output.data)).collect()
}
