//! What the search knows of every phase: its bits, its messages, and the noise that they make.
//!
//! *Noise of one layer*, over the variance of its output: the phase falls on `2^p` steps of a turn with
//! a random carry, which has variance `1/6` of a step squared, or less where masks are finer; rounding the
//! weights before it makes an error of `units/√12` units of `2^k` per turn; the output falls on units with a
//! random carry, variance `1/6`, or less with guard bits. A turn of an angle's error `δ` moves the output by
//! `(2π)²·Σ n²(a_n² + b_n²)/2·δ²` on average over the circle. A fit with fewer harmonics adds its own error.

use super::Lowered;
use crate::fit::{Fitted, FittedLayer};
use crate::scales::bits::{LayerBits, carry, turn_error};
use ir::graph::{NodeId, Op};
use ir::op::{Activation, mean_square_slope};
use ir::plan::{Interactive, Plan, StepOp};
use std::collections::BTreeSet;

/// What a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The input: a value without a phase in front.
    Input,
    /// A phase and its value.
    Phase,
    /// The output: a ring that values travel in, without a phase behind.
    Output,
}

/// One phase of a compiled plan, or its input or output. It tells of weights and calibration inputs, and so
/// has no `Debug`.
#[derive(Clone)]
pub struct PhaseLayer {
    /// What it is.
    pub place: Place,
    /// The activation.
    pub node: NodeId,
    /// Its step.
    pub step: usize,
    /// The step whose value is the circle; the input has none, the output is its own.
    pub circle: Option<usize>,
    /// What it was compiled with.
    pub bits: LayerBits,
    /// `k`.
    pub ring: u32,
    /// `p`; 0 for the input and the output.
    pub phase: u32,
    /// Harmonics.
    pub harmonics: usize,
    /// Bits of one deviation of the output.
    pub value: f64,
    /// Root mean square error of rounding the weights before it, in units of `2^−k` turns times `√12`.
    pub units: f64,
    /// Squared deviations of the output per squared turn; for the network's output, squared outputs.
    pub slope: f64,
    /// The output's deviation.
    pub width: f64,
    /// Squared error of fits with 1, 2, … harmonics over the output's variance; empty if unknown.
    pub errors: Vec<f64>,
    /// Positions of the phases whose outputs are the operands of the operators before it.
    pub sources: Vec<usize>,
}

impl PhaseLayer {
    /// The input, the phases and the output of a plan in the order of its steps.
    pub(crate) fn of(fitted: &Fitted, lowered: &Lowered) -> Vec<Self> {
        let phases = fitted.layers.iter().filter_map(|l| Self::new(fitted, lowered, l));
        let ends = [Some(Self::input(fitted, lowered)), Self::output(fitted, lowered)];
        let mut layers: Vec<Self> = phases.chain(ends.into_iter().flatten()).collect();
        layers.sort_by_key(|l| l.step);
        for i in 0..layers.len() {
            let Some(circle) = layers[i].circle else { continue };
            let before = behind(&lowered.plan, circle, |op| op.is_secret_linear());
            let operands = before.iter().map(|&step| lowered.plan.steps[step].operands[0].index());
            let is_source = |op: &StepOp| op.is_interactive() || matches!(op, StepOp::Input);
            let sources: BTreeSet<usize> =
                operands.flat_map(|operand| behind(&lowered.plan, operand, is_source)).collect();
            let position = |step| layers.iter().position(|l| l.step == step);
            let sources = sources.into_iter().filter_map(position).collect();
            layers[i].sources = sources;
        }
        layers
    }

    fn input(fitted: &Fitted, lowered: &Lowered) -> Self {
        let node = fitted.rounded.input();
        let scales = &fitted.scales;
        let width = fitted.spreads[&node].width();
        Self {
            place: Place::Input,
            node,
            step: 0,
            circle: None,
            bits: LayerBits { phase: 0, value: scales.input_bits(node), ..scales.bits(node) },
            ring: lowered.plan.steps[0].ring,
            phase: 0,
            harmonics: 0,
            value: (scales.uniform(node).unwrap_or(1.0) * width).log2(),
            units: 1.0,
            slope: 0.0,
            width,
            errors: vec![],
            sources: vec![],
        }
    }

    /// The output, where it is no activation's value.
    fn output(fitted: &Fitted, lowered: &Lowered) -> Option<Self> {
        let node = fitted.rounded.output();
        let step = lowered.plan.output.index();
        let scale = fitted.scales.uniform(node)?;
        let units = *fitted.scales.units.get(&node)?;
        if lowered.plan.steps[step].op.is_interactive() {
            return None;
        }
        let ring = lowered.plan.steps[step].ring;
        let width = fitted.spreads[&node].width();
        let turn = f64::from(ring).exp2() / scale;
        let value = (scale * width / units).log2();
        Some(Self {
            place: Place::Output,
            node,
            step,
            circle: Some(step),
            bits: LayerBits { phase: 0, value, ..fitted.scales.bits(node) },
            ring,
            phase: 0,
            harmonics: 0,
            value,
            units,
            slope: turn * turn * lowered.plan.steps[step].shape.elements() as f64,
            width,
            errors: vec![],
            sources: vec![],
        })
    }

    fn new(fitted: &Fitted, lowered: &Lowered, layer: &FittedLayer) -> Option<Self> {
        let node = layer.node;
        let Op::Activation(Activation::Trigonometric(fit)) = &fitted.rounded.node(node).op else {
            return None;
        };
        let step = lowered.values.get(&node)?.index();
        let StepOp::Interactive(Interactive::Phase(phase)) = &lowered.plan.steps[step].op else {
            return None;
        };
        let circle = lowered.plan.steps[step].operands[0].index();
        let width = fitted.spreads[&node].width();
        Some(Self {
            place: Place::Phase,
            node,
            step,
            circle: Some(circle),
            bits: fitted.scales.bits(node),
            ring: lowered.plan.steps[circle].ring,
            phase: phase.p,
            harmonics: phase.harmonics as usize,
            value: (fitted.scales.uniform(node)? * width).log2(),
            units: *fitted.scales.units.get(&node)?,
            slope: mean_square_slope(&fit.harmonics) / width.powi(2),
            width,
            errors: layer.errors.clone(),
            sources: vec![],
        })
    }

    /// Its noise with other bits: `ring`, `phase` and `harmonics`, `spare` bits of masks and `guard` bits of
    /// values as given, an output that is `coarser` bits coarser, and an operand that is
    /// `before` bits coarser.
    pub fn noise(
        &self,
        (ring, phase, harmonics): (u32, u32, usize),
        (spare, guard): (u32, u32),
        coarser: i32,
        before: i32,
    ) -> f64 {
        let square = |bits: f64| (2.0 * bits).exp2();
        let units = self.units * (-f64::from(before)).exp2();
        if self.place == Place::Output {
            return self.slope * units * units / 12.0 * square(-f64::from(ring));
        }
        let value = carry(guard) * square(f64::from(coarser) - self.value);
        let fit = |n: usize| self.errors.get(n.wrapping_sub(1)).copied().unwrap_or(0.0);
        let fewer = (fit(harmonics) - fit(self.harmonics)).max(0.0);
        self.slope * turn_error((phase, spare), ring, units) + value + fewer
    }
}

/// The steps that `is_end` holds of, behind a value through public linear steps, itself included.
fn behind(plan: &Plan, value: usize, is_end: impl Fn(&StepOp) -> bool) -> BTreeSet<usize> {
    let (mut found, mut seen, mut open) = (BTreeSet::new(), BTreeSet::new(), vec![value]);
    while let Some(index) = open.pop() {
        let step = &plan.steps[index];
        if is_end(&step.op) {
            found.insert(index);
        } else if !step.op.is_interactive() && !step.op.is_secret_linear() && seen.insert(index) {
            open.extend(step.operands.iter().map(|o| o.index()));
        }
    }
    found
}
