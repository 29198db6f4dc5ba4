//! The accuracy that a search holds plans against: of classes what [`super::flips`] expects, of numbers
//! how near they are to the network's in float.

use super::flips::{Differences, Outputs, probabilities};
use crate::evaluate::Errors;
use crate::task::{Task, Truth, Truths};
use ir::Tensor;
use ir::plan::Plan;

/// Positions with a class that are looked at, over all inputs.
const MOST_POSITIONS: usize = 4000;

/// What outputs of a plan are worth.
pub struct Accuracies<'a> {
    plan: &'a Plan,
    outputs: Vec<Accuracy>,
}

impl<'a> Accuracies<'a> {
    /// `exact` are the decoded outputs of the network in float, to which `truths` belong, `unseen` those of
    /// inputs that nothing was fitted on.
    pub fn new(
        plan: &'a Plan,
        exact: &[Tensor<f32>],
        unseen: &[Tensor<f32>],
        truths: &Truths,
    ) -> Self {
        let of_output = |o: usize| {
            let truths = truths.get(o).and_then(Option::as_deref);
            let [exact, unseen] = [exact, unseen].map(|y| judged(plan, o, y));
            Accuracy::new(plan.outputs[o].task, &exact, unseen, truths)
        };
        Self { plan, outputs: (0..plan.outputs.len()).map(of_output).collect() }
    }

    /// Of decoded outputs for the unseen inputs, several rounds of them perhaps; a mean over the outputs.
    pub fn of(&self, noisy: &[Tensor<f32>]) -> f64 {
        let of_output = |(o, a): (usize, &Accuracy)| a.of(&judged(self.plan, o, noisy));
        let sum: f64 = self.outputs.iter().enumerate().map(of_output).sum();
        sum / self.outputs.len() as f64
    }
}

/// What an output's task is about, of decoded outputs.
fn judged(plan: &Plan, output: usize, decoded: &[Tensor<f32>]) -> Vec<Tensor<f32>> {
    let port = &plan.outputs[output];
    decoded.iter().map(|y| port.judged(port.task, &plan.scores(y)[output])).collect()
}

/// What one output is worth.
struct Accuracy {
    task: Task,
    /// The network's outputs, of inputs that nothing was fitted on.
    unseen: Vec<Tensor<f32>>,
    /// Its scores of all inputs, per position, and the probabilities of their classes.
    scores: Outputs,
    probabilities: Outputs,
    /// Every how many positions one is looked at.
    stride: usize,
}

impl Accuracy {
    fn new(
        task: Task,
        exact: &[Tensor<f32>],
        unseen: Vec<Tensor<f32>>,
        truths: Option<&[Truth]>,
    ) -> Self {
        let positions: usize = exact.iter().map(|y| task.scores(y).len()).sum();
        let stride = positions.div_ceil(MOST_POSITIONS).max(1);
        let scores = some_scores(task, exact, stride);
        let labels: Option<Vec<usize>> = truths.map(|truths| {
            let of_input = |truth: &Truth| match truth {
                Truth::Classes(classes) => classes.iter().copied().step_by(stride).collect(),
                Truth::Numbers(_) => vec![],
            };
            truths.iter().flat_map(of_input).collect()
        });
        let probabilities = probabilities(&scores, labels.as_deref());
        Self { task, unseen, scores, probabilities, stride }
    }

    fn of(&self, noisy: &[Tensor<f32>]) -> f64 {
        if self.task != Task::Regress {
            let exact = some_scores(self.task, &self.unseen, self.stride);
            let noisy = some_scores(self.task, noisy, self.stride);
            return Differences::new(&exact, &noisy)
                .expected_accuracy(&self.scores, &self.probabilities);
        }
        let Some(first) = self.unseen.first() else { return 0.0 };
        let mut errors = Errors::new(&first.shape, self.unseen.len());
        for (exact, noisy) in self.unseen.iter().cycle().zip(noisy) {
            errors.take(&exact.data, [&[], &[], &[&noisy.data]]);
        }
        1.0 - errors.unexplained(2).map_or(0.0, f64::sqrt)
    }
}

fn some_scores(task: Task, outputs: &[Tensor<f32>], stride: usize) -> Outputs {
    outputs.iter().flat_map(|y| task.scores(y).into_iter().step_by(stride)).collect()
}

#[cfg(test)]
#[path = "accuracy_tests.rs"]
mod tests;
