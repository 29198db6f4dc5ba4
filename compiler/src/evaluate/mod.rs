//! Compares a plan with the network it came from: float, fitted float and exact integers side by side.

mod layers;
mod text;

pub use ir::plan::class;
pub use layers::LayerEvaluation;
pub(crate) use text::tail;

use ir::graph::evaluate;
use ir::plan::{Evaluator, InputError, NoiseTally, Plan, Reference, Rounding, Weights};
use ir::{Shape, Tensor};
use layers::{LayerTally, Layers};
use rayon::prelude::*;
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Inputs that the carry noise is measured on.
const NOISE_INPUTS: usize = 16;
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
    /// Inputs whose values leave the planned bounds of a fitted polynomial.
    pub escaped: usize,
    /// Largest standard deviation of an output over the masks' carries.
    pub carry_deviation: f64,
    /// What a run's output is expected to stay within, of the plan's.
    pub carry_bound: f64,
    /// Share of simulated runs, on a few of the inputs, whose class is the plan's.
    pub carry_agreement: f64,
    /// Inputs whose class differs between plan and float network.
    pub changed: Vec<Changed>,
    /// Per activation.
    pub layers: Vec<LayerEvaluation>,
    /// Per input.
    pub classes: Vec<Classes>,
    /// The plan's outputs, per input.
    #[serde(skip)]
    pub logits: Vec<Vec<f32>>,
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

/// The classes of one input.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Classes {
    /// The network as imported; absent without the reference graphs.
    pub float: Option<usize>,
    /// The network with fitted activations, in float.
    pub fitted: Option<usize>,
    /// The plan's integers.
    pub plan: usize,
}

/// What is known of one input.
struct OfInput {
    plan: Tensor<f32>,
    float: Option<Tensor<f32>>,
    fitted: Option<Tensor<f32>>,
    layers: Vec<LayerTally>,
}

/// Evaluates a plan on inputs. `progress` is told the share of the work that is done, from any thread.
///
/// # Errors
/// If an input does not fit the plan.
pub fn run(
    plan: &Plan,
    weights: &Weights,
    reference: Option<&Reference>,
    inputs: &[Tensor<f32>],
    labels: Option<&[usize]>,
    progress: &(dyn Fn(f64) + Sync),
) -> Result<Evaluation, InputError> {
    let encoded = inputs.iter().map(|x| plan.encode_input(x)).collect::<Result<Vec<_>, _>>()?;
    let evaluator = Evaluator::new(plan, weights);
    let noisy = encoded.len().min(NOISE_INPUTS);
    // In evaluations of the plan; one of the network in float takes about as long.
    let of_noise = NOISE_ROUNDS as usize + 1;
    let of_input = if reference.is_some() { 4 } else { 1 };
    let (done, all) = (AtomicUsize::new(0), noisy * of_noise + inputs.len() * of_input);
    let work = |units: usize| {
        let before = done.fetch_add(units, Ordering::Relaxed);
        progress((before + units) as f64 / all as f64);
    };
    let tallies: Vec<NoiseTally> = encoded[..noisy]
        .par_iter()
        .enumerate()
        .map(|(i, x)| {
            let tally = NoiseTally::of(&evaluator, x, i as u64, NOISE_ROUNDS);
            work(of_noise);
            tally
        })
        .collect();
    let noise = NoiseTally::finish(plan, &tallies);
    let layers = reference.map(|reference| Layers::new(reference, plan));
    let evaluate_one = |(x, encoded): (&Tensor<f32>, &Tensor<u64>)| {
        let plan = plan.decode_output(&evaluator.run(encoded, Rounding::Nearest, |_, _| ()));
        let float = reference.map(|r| evaluate(&r.original, x, |_, _| ()));
        let (fitted, layers) = layers.as_ref().map(|l| l.evaluate(x)).unzip();
        work(of_input);
        OfInput { plan, float, fitted, layers: layers.unwrap_or_default() }
    };
    let found: Vec<OfInput> = inputs.par_iter().zip(&encoded).map(evaluate_one).collect::<Vec<_>>();
    let classes: Vec<Classes> = found
        .iter()
        .map(|f| Classes {
            float: f.float.as_ref().map(|y| class(&y.data)),
            fitted: f.fitted.as_ref().map(|y| class(&y.data)),
            plan: class(&f.plan.data),
        })
        .collect();
    let share = |is_right: &dyn Fn(usize, &Classes) -> bool| {
        let right = classes.iter().enumerate().filter(|(i, c)| is_right(*i, c)).count();
        right as f64 / classes.len().max(1) as f64
    };
    let accuracy = labels.map(|labels| Accuracy {
        float: reference.map(|_| share(&|i, c| c.float == Some(labels[i]))),
        fitted: reference.map(|_| share(&|i, c| c.fitted == Some(labels[i]))),
        plan: share(&|i, c| c.plan == labels[i]),
    });
    let agreement = reference.map(|_| Agreement {
        fitted: share(&|_, c| c.fitted == c.float),
        plan: share(&|_, c| Some(c.plan) == c.float),
    });
    let changed = classes.iter().enumerate().filter_map(|(input, c)| {
        let float = c.float.filter(|&float| float != c.plan)?;
        Some(Changed { input, float, plan: c.plan })
    });
    let differences = found.iter().filter_map(|f| {
        let pairs = f.float.as_ref()?.data.iter().zip(&f.plan.data);
        Some(pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max))
    });
    let layers = layers.as_ref().map_or(Vec::new(), |layers| {
        layers.finish(found.iter().map(|f| f.layers.as_slice()), &noise)
    });
    let escaped = found.iter().filter(|f| f.layers.iter().any(|l| l.escaped > 0)).count();
    Ok(Evaluation {
        inputs: inputs.len(),
        escaped,
        accuracy,
        agreement,
        worst_difference: reference.map(|_| differences.fold(0.0, f64::max)),
        carry_deviation: noise.deviation,
        carry_bound: noise.bound,
        carry_agreement: noise.same_class,
        changed: changed.collect(),
        layers,
        classes,
        logits: found.into_iter().map(|f| f.plan.data).collect(),
    })
}

/// The number of classes that an output stands for.
pub fn class_count(output: &Shape) -> usize {
    output.elements().max(2)
}

/// The classes of outputs.
pub fn classes(outputs: &[Tensor<f32>]) -> Vec<usize> {
    outputs.iter().map(|output| class(&output.data)).collect()
}
