//! What becomes of the values of every activation: the fitted network beside the network in float.

use crate::passes::{self, MaxPool, PassOptions};
use ir::Tensor;
use ir::graph::{Graph, NodeId, Op, evaluate};
use ir::op::{Activation, Function};
use ir::plan::{CarryNoise, Plan, Reference, ReferenceLayer};
use ir::tensor::broadcasts_to;
use serde::Serialize;
use std::collections::HashMap;

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

/// One activation of the fitted network, where it stands in the other two.
struct Layer<'a> {
    name: String,
    activation: &'a Activation,
    operand: NodeId,
    node: NodeId,
    /// The value to compare.
    value: NodeId,
    /// The same value in the float network.
    of_float: Option<NodeId>,
    /// What is known of it, if it was fitted.
    known: Option<&'a ReferenceLayer>,
    /// The plan's step.
    step: Option<usize>,
}

/// The activations of a network.
pub(super) struct Layers<'a> {
    fitted: &'a Graph,
    /// The network as imported, after the passes: node by node the one that was fitted.
    float: Option<Graph>,
    layers: Vec<Layer<'a>>,
}

impl<'a> Layers<'a> {
    pub fn new(reference: &'a Reference, plan: &Plan) -> Self {
        let fitted = &reference.fitted;
        let mut float = reference.original.clone();
        let is_distance = |l: &ReferenceLayer| l.exact == Activation::function(Function::Abs);
        let is_expanded = reference.layers.iter().any(is_distance);
        let max_pool = if is_expanded { MaxPool::Fit } else { MaxPool::Average };
        let options = PassOptions { max_pool };
        let float = passes::run_all(&mut float, &options).is_ok().then_some(float);
        let is_activation = |op: &Op| matches!(op, Op::Activation(_));
        let of_float: HashMap<_, NodeId> = float.as_ref().map_or(HashMap::new(), |graph| {
            let order = graph.order();
            let activations = order.iter().filter(|&&id| is_activation(&graph.node(id).op));
            numbered(activations.map(|&id| (graph.node(id).name.as_str(), id)))
                .map(|(key, id)| ((key.0.to_owned(), key.1), compared(graph, id)))
                .collect()
        });
        let steps = plan.steps.iter().enumerate().filter(|(_, step)| step.op.is_activation());
        let steps: HashMap<_, usize> =
            numbered(steps.map(|(index, step)| (step.name.as_str(), index))).collect();
        let order = fitted.order();
        let known: HashMap<NodeId, &ReferenceLayer> = reference
            .layers
            .iter()
            .filter_map(|l| Some((*order.get(l.position as usize)?, l)))
            .collect();
        let activations = order.iter().filter(|&&id| is_activation(&fitted.node(id).op));
        let layers = numbered(activations.map(|&id| (fitted.node(id).name.as_str(), id)))
            .filter_map(|((name, number), node)| {
                let Op::Activation(activation) = &fitted.node(node).op else { return None };
                let value = compared(fitted, node);
                let same =
                    |graph: &Graph, id: NodeId| graph.node(id).shape == fitted.node(value).shape;
                Some(Layer {
                    name: name.to_owned(),
                    activation,
                    operand: *fitted.operands(node).first()?,
                    node,
                    value,
                    of_float: of_float
                        .get(&(name.to_owned(), number))
                        .copied()
                        .filter(|&id| float.as_ref().is_some_and(|graph| same(graph, id)))
                        // Distances inside a fitted maximum are scaled per channel: nothing to compare.
                        .filter(|_| !known.get(&node).is_some_and(|l| is_distance(l))),
                    known: known.get(&node).copied(),
                    step: steps.get(&(name, number)).copied(),
                })
            })
            .collect();
        Self { fitted, float, layers }
    }

    /// The fitted network's output, and what its activations do on the way.
    pub fn evaluate(&self, input: &Tensor<f32>) -> (Tensor<f32>, Vec<LayerTally>) {
        let mut of_float: HashMap<NodeId, Tensor<f32>> = HashMap::new();
        if let Some(float) = &self.float {
            evaluate(float, input, |id, value| {
                if self.layers.iter().any(|l| l.of_float == Some(id)) {
                    of_float.insert(id, value.clone());
                }
            });
        }
        let mut tallies = vec![LayerTally::default(); self.layers.len()];
        let mut operands: HashMap<usize, Tensor<f32>> = HashMap::new();
        let output = evaluate(self.fitted, input, |id, value| {
            for (i, layer) in self.layers.iter().enumerate() {
                if layer.operand == id {
                    operands.insert(i, value.clone());
                }
                if layer.node == id
                    && let Some(operand) = operands.remove(&i)
                {
                    tallies[i].arguments(layer, &operand, value);
                }
                if layer.value == id
                    && let Some(float) = layer.of_float.and_then(|id| of_float.remove(&id))
                {
                    tallies[i].compare(layer, value, &float);
                }
            }
        });
        (output, tallies)
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
                name: layer.name.clone(),
                fit: match layer.known {
                    Some(known) => format!("{} by {fit}", known.exact.name()),
                    None => fit,
                },
                interval: layer.known.map(|known| known.interval),
                outside: layer.known.map(|_| share(sum.outside)),
                beyond_half_turn: is_phase.then(|| share(sum.beyond)),
                escaped: sum.escaped,
                largest: sum.largest,
                largest_error: layer.known.map(|_| sum.largest_error),
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
        if let (Some(known), Activation::Polynomial(_)) = (layer.known, layer.activation) {
            let bound = ESCAPE * known.interval.0.abs().max(known.interval.1.abs());
            let is_inside = |&x: &f32| f64::from(x).abs() <= bound;
            self.escaped = usize::from(!operand.data.iter().all(is_inside));
        }
        for (i, (&x, &y)) in operand.data.iter().zip(&value.data).enumerate() {
            let (x, channel) = (f64::from(x), operand.shape.channel_of(i));
            self.count += 1;
            self.largest = self.largest.max(x.abs());
            if let Some(known) = layer.known {
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

    fn compare(&mut self, layer: &Layer<'_>, value: &Tensor<f32>, float: &Tensor<f32>) {
        // Powers of two: the division is exact.
        let scale = match layer.known.map(|known| &known.scale) {
            Some(scale) if broadcasts_to(&scale.shape, &value.shape) => {
                scale.broadcast(&value.shape)
            }
            _ => Tensor::full(value.shape.clone(), 1.0),
        };
        for ((&y, &f), &s) in value.data.iter().zip(&float.data).zip(&scale.data) {
            let (y, f) = (f64::from(y / s), f64::from(f));
            self.compared += 1.0;
            self.sum += f;
            self.squares += f * f;
            self.errors += (y - f) * (y - f);
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

/// Every item with its name and how many of that name came before: nodes of one name are told apart by
/// their order, which neither the fit nor the lowering changes.
fn numbered<'n, T>(
    items: impl Iterator<Item = (&'n str, T)>,
) -> impl Iterator<Item = ((&'n str, usize), T)> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    items.map(move |(name, item)| {
        let number = seen.entry(name).or_default();
        *number += 1;
        ((name, *number - 1), item)
    })
}

/// The value that stands for an activation's: where completing a square left a sign and a constant
/// behind, those belong to it.
fn compared(graph: &Graph, id: NodeId) -> NodeId {
    let belongs = |user: &NodeId| {
        let user = graph.node(*user);
        matches!(user.op, Op::Affine { .. }) && user.name == graph.node(id).name
    };
    graph.only_user(id).filter(belongs).unwrap_or(id)
}
