//! The values of every activation: the fitted network compared with the network in float.

use ir::Tensor;
use ir::graph::{NodeId, Op, evaluate};
use ir::op::Activation;
use ir::plan::{CarryNoise, Interactive, Plan, Reference, ReferenceLayer};
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// Values may be this many times larger than those that a polynomial was fitted on before they leave the
/// bounds that its step is planned for (the lowering's margin).
const ESCAPE: f64 = 2.0;

/// One activation on the given inputs.
#[derive(Debug, Serialize)]
pub struct LayerEvaluation {
    /// The node's name.
    pub name: String,
    /// What it was fitted with, or what it is.
    pub fit: String,
    /// The interval of pre-activations that it was fitted on; absent where nothing was fitted.
    pub interval: Option<(f64, f64)>,
    /// Share of pre-activations outside it.
    pub outside: Option<f64>,
    /// Share of pre-activations further than half a turn from the middle of their channel's circle:
    /// they wrap around. Absent where the fit is no trigonometric polynomial.
    pub beyond_half_turn: Option<f64>,
    /// Inputs with a pre-activation beyond twice the interval that a polynomial was fitted on.
    pub escaped: usize,
    /// Largest magnitude of a pre-activation.
    pub largest: f64,
    /// Largest difference between the fit and the function at a pre-activation.
    pub largest_error: Option<f64>,
    /// Root mean square of what the fitted network's values differ by from the float network's, over
    /// the standard deviation of the latter.
    pub imitation: Option<f64>,
    /// Standard deviation that truncations up to here add to the plan's values, over that of the values.
    pub noise: Option<f64>,
}

/// Sums over the values of one activation.
#[derive(Clone, Default)]
pub(super) struct LayerTally {
    count: usize,
    outside: usize,
    beyond: usize,
    pub(super) escaped: usize,
    largest: f64,
    largest_error: f64,
    /// Values that were compared with the float network's.
    compared: f64,
    sum: f64,
    squares: f64,
    errors: f64,
}

/// The activations of a network.
pub(super) struct Layers<'a> {
    reference: &'a Reference,
    layers: Vec<Layer<'a>>,
}

/// One activation of the fitted network.
struct Layer<'a> {
    of: &'a ReferenceLayer,
    name: &'a str,
    activation: &'a Activation,
    operand: NodeId,
    /// The plan's step.
    step: Option<usize>,
    /// Whether it is a table.
    is_table: bool,
}

/// What both networks in float make of an input.
pub(super) struct InFloat {
    /// The output of the network as imported.
    pub original: Tensor<f32>,
    /// The output of the fitted network.
    pub fitted: Tensor<f32>,
    /// What the activations of the latter do on the way.
    pub layers: Vec<LayerTally>,
}

impl<'a> Layers<'a> {
    pub fn new(reference: &'a Reference, plan: &Plan) -> Self {
        let fitted = &reference.fitted;
        let layer = |of: &'a ReferenceLayer| {
            let Op::Activation(activation) = &fitted.node(of.node).op else { return None };
            let step = reference.values.get(&of.node).map(|value| value.index());
            let op = step.and_then(|step| plan.steps.get(step)).and_then(|s| s.op.interactive());
            Some(Layer {
                of,
                name: &fitted.node(of.node).name,
                activation,
                operand: *fitted.operands(of.node).first()?,
                step,
                is_table: matches!(op, Some(Interactive::Table(_))),
            })
        };
        Self { reference, layers: reference.layers.iter().filter_map(layer).collect() }
    }

    /// Evaluates both networks.
    pub fn evaluate(&self, input: &Tensor<f32>) -> InFloat {
        let wanted: HashSet<NodeId> = self.layers.iter().filter_map(|l| l.of.original).collect();
        let mut values: HashMap<NodeId, Tensor<f32>> = HashMap::new();
        let original = evaluate(&self.reference.original, input, |id, value| {
            if wanted.contains(&id) {
                values.insert(id, value.clone());
            }
        });
        let mut tallies = vec![LayerTally::default(); self.layers.len()];
        let mut operands: HashMap<usize, Tensor<f32>> = HashMap::new();
        let fitted = evaluate(&self.reference.fitted, input, |id, value| {
            for (i, layer) in self.layers.iter().enumerate() {
                if layer.operand == id {
                    operands.insert(i, value.clone());
                }
                if layer.of.node == id {
                    if let Some(operand) = operands.remove(&i) {
                        tallies[i].arguments(layer, &operand, value);
                    }
                    if let Some(original) = layer.of.original.and_then(|id| values.remove(&id)) {
                        tallies[i].compare(layer.of, value, &original);
                    }
                }
            }
        });
        InFloat { original, fitted, layers: tallies }
    }

    /// What all inputs say together.
    pub fn finish<'t>(
        &self,
        tallies: impl Iterator<Item = &'t [LayerTally]>,
        noise: &CarryNoise,
    ) -> Vec<LayerEvaluation> {
        let mut sums = vec![LayerTally::default(); self.layers.len()];
        for of_input in tallies {
            sums.iter_mut().zip(of_input).for_each(|(sum, tally)| sum.add(tally));
        }
        let evaluation = |(layer, sum): (&Layer<'_>, &LayerTally)| {
            let share = |n: usize| n as f64 / sum.count.max(1) as f64;
            let spread = sum.squares - sum.sum * sum.sum / sum.compared.max(1.0);
            let is_phase = matches!(layer.activation, Activation::Trigonometric(_));
            let fit = layer.activation.name();
            LayerEvaluation {
                name: layer.name.to_owned(),
                fit: match &layer.of.fit {
                    Some(known) => format!("{} by {fit}", known.exact.name()),
                    None if layer.is_table => format!("{fit}, table"),
                    None if matches!(layer.activation, Activation::Exact(_)) => {
                        format!("{fit}, exact")
                    }
                    None => fit,
                },
                interval: layer.of.fit.as_ref().map(|known| known.interval),
                outside: layer.of.fit.as_ref().map(|_| share(sum.outside)),
                beyond_half_turn: is_phase.then(|| share(sum.beyond)),
                escaped: sum.escaped,
                largest: sum.largest,
                largest_error: layer.of.fit.as_ref().map(|_| sum.largest_error),
                imitation: (spread > 0.0).then(|| (sum.errors / spread).sqrt()),
                noise: layer.step.and_then(|step| {
                    noise.steps.iter().find(|(s, _)| *s == step).map(|&(_, noise)| noise)
                }),
            }
        };
        self.layers.iter().zip(&sums).map(evaluation).collect()
    }
}

impl LayerTally {
    fn arguments(&mut self, layer: &Layer<'_>, operand: &Tensor<f32>, value: &Tensor<f32>) {
        if let (Some(known), Activation::Polynomial(_)) = (&layer.of.fit, layer.activation) {
            let bound = ESCAPE * known.interval.0.abs().max(known.interval.1.abs());
            let is_inside = |&x: &f32| f64::from(x).abs() <= bound;
            self.escaped = usize::from(!operand.data.iter().all(is_inside));
        }
        for (i, (&x, &y)) in operand.data.iter().zip(&value.data).enumerate() {
            let (x, channel) = (f64::from(x), operand.shape.channel_of(i));
            self.count += 1;
            self.largest = self.largest.max(x.abs());
            if let Some(known) = &layer.of.fit {
                if let Activation::Trigonometric(fit) = layer.activation {
                    let from_middle = (x - known.middle[channel]).abs();
                    self.beyond += usize::from(from_middle > fit.period_of(channel) / 2.0);
                }
                self.outside += usize::from(x < known.interval.0 || x > known.interval.1);
                let error = (f64::from(y) - known.exact.at(channel, x)).abs();
                self.largest_error = self.largest_error.max(error);
            }
        }
    }

    fn compare(&mut self, layer: &ReferenceLayer, value: &Tensor<f32>, original: &Tensor<f32>) {
        let [scale, shift] = [&layer.scale, &layer.shift].map(|t| t.broadcast(&value.shape));
        let changes = scale.data.iter().zip(&shift.data);
        for ((&y, &x), (&s, &t)) in value.data.iter().zip(&original.data).zip(changes) {
            let (y, x) = (f64::from((y - t) / s), f64::from(x));
            self.compared += 1.0;
            self.sum += x;
            self.squares += x * x;
            self.errors += (y - x) * (y - x);
        }
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.outside += other.outside;
        self.beyond += other.beyond;
        self.escaped += other.escaped;
        self.largest = self.largest.max(other.largest);
        self.largest_error = self.largest_error.max(other.largest_error);
        self.compared += other.compared;
        self.sum += other.sum;
        self.squares += other.squares;
        self.errors += other.errors;
    }
}
