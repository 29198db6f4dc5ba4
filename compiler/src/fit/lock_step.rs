//! Teacher and student side by side, node by node.

mod exact;

use super::bounds::Bounds;
use super::calibration::impose_statistics;
use super::least_squares::{choose_widening, fit_polynomial, fit_trigonometric};
use super::resolve::resolve;
use super::rounding::Compensation;
use super::samples::Samples;
use super::{Calibration, Families, Family, FittedLayer, Harmonics, Stretched, Values, simulate};
use crate::error::CompileError;
use crate::scales::spread::{relative_error, weights};
use crate::scales::{Scale, Scales, Spread, has_channel_scales};
use ir::Tensor;
use ir::graph::{Graph, NodeId, Op, evaluate_node};
use ir::op::{Activation, Function};
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// One turn of the circle is wider than the values seen on calibration inputs by one of these factors:
/// the fit must not jump where the circle closes.
const WIDENINGS: [f64; 4] = [1.15, 1.25, 1.4, 1.75];
/// The same for `|x|` around zero, which closes the circle without a jump.
const EVEN_WIDENINGS: [f64; 3] = [1.05, 1.15, 1.3];
/// With how many harmonics the factors are compared.
const COMPARED_HARMONICS: usize = 4;

/// On made-up inputs nobody knows how large values really are: pre-activations may be this much larger
/// than those seen, unless a normalisation's statistics vouch for them.
const SYNTHETIC_MARGIN: f64 = 2.0;

/// A layer is stretched by rare inputs if they make its range this many times wider.
const STRETCHED: f64 = 3.0;

/// Teacher and student up to a node, and in the end the result.
pub(super) struct LockStep<'a> {
    teacher: &'a Graph,
    /// The network with fits, in real numbers.
    pub student: Graph,
    /// The student with rounded weights, as far as they are settled: what is run.
    pub rounded: Graph,
    calibration: &'a Calibration,
    families: Option<&'a Families>,
    pub scales: Option<Scales>,
    pub spreads: HashMap<NodeId, Spread>,
    pub layers: Vec<FittedLayer>,
    /// Inputs whose values explode at some node so far.
    pub outliers: BTreeSet<usize>,
    /// Nodes behind a polynomial of the network: only there do values explode.
    behind_polynomials: HashSet<NodeId>,
    /// Per node: the teacher's values and the student's; the same list until a fit came before.
    values: HashMap<NodeId, (Values, Values)>,
    /// Readers of every node that are not closed.
    readers: HashMap<NodeId, usize>,
    /// Nodes whose scale is open: their values may change once more. In order.
    open: Vec<NodeId>,
    /// Nodes whose values are final and whose operands are still held.
    closed: Vec<NodeId>,
    /// How the weights of open operators will be rounded.
    unrounded: HashMap<NodeId, Compensation>,
    /// Of made-up inputs, what values cannot exceed.
    bounds: HashMap<NodeId, Bounds>,
}

impl<'a> LockStep<'a> {
    pub fn run(
        teacher: &'a Graph,
        calibration: &'a Calibration,
        families: Option<&'a Families>,
        scales: Option<Scales>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Self, CompileError> {
        let order = teacher.order();
        let mut run = Self {
            teacher,
            student: teacher.clone(),
            rounded: teacher.clone(),
            calibration,
            families,
            scales,
            spreads: HashMap::new(),
            layers: Vec::new(),
            outliers: BTreeSet::new(),
            behind_polynomials: HashSet::new(),
            values: HashMap::new(),
            readers: order.iter().map(|&id| (id, teacher.uses(id).len())).collect(),
            open: Vec::new(),
            closed: Vec::new(),
            unrounded: HashMap::new(),
            bounds: HashMap::new(),
        };
        let work: Vec<f64> = order.iter().map(|&id| work(teacher, id)).collect();
        let total: f64 = work.iter().sum();
        let mut done = 0.0;
        for (&id, work) in order.iter().zip(&work) {
            run.visit(id)?;
            done += work;
            progress(done / total);
        }
        if let Some(scales) = &mut run.scales {
            scales.settle_output(&run.student, &run.spreads)?;
            run.settled();
        }
        Ok(run)
    }

    /// The fitted layers whose range a few inputs stretch.
    pub fn stretched(&self) -> Vec<Stretched> {
        let of_layer = |layer: &FittedLayer| {
            let operand = self.teacher.operands(layer.node)[0];
            let spread = &self.spreads[&operand];
            let factor = spread.largest / spread.usual.max(1e-30);
            let name = self.teacher.node(layer.node).name.clone();
            let rows = spread.rare.iter().map(|&i| self.calibration.rows[i]).collect();
            (factor >= STRETCHED).then_some(Stretched { name, factor, rows })
        };
        self.layers.iter().filter_map(of_layer).collect()
    }

    fn visit(&mut self, id: NodeId) -> Result<(), CompileError> {
        if let Some(scales) = &mut self.scales {
            scales.prepare(&self.student, id, &self.spreads);
        }
        self.settled();
        let node = self.teacher.node(id);
        if self.calibration.is_synthetic {
            self.bound_by_intervals(id);
        }
        let values = match &node.op {
            Op::Input => {
                let inputs: Values = Arc::new(self.calibration.inputs.clone());
                (inputs.clone(), inputs)
            }
            Op::Activation(activation) => self.activation(id, activation)?,
            _ => self.linear(id),
        };
        let mut operands = self.teacher.operands(id).into_iter();
        let may_explode =
            is_polynomial(&node.op) || operands.any(|o| self.behind_polynomials.contains(&o));
        if may_explode {
            self.behind_polynomials.insert(id);
        }
        let spread = Spread::of(&values.1, &self.outliers, may_explode);
        if !spread.is_finite() {
            return Err(CompileError::Calibration(format!(
                "node {}: its values are not finite on the calibration inputs; check their preprocessing",
                node.name
            )));
        }
        self.outliers.extend(&spread.outliers);
        self.spreads.insert(id, spread);
        self.values.insert(id, values);
        self.open.push(id);
        if let Some(scales) = &mut self.scales {
            scales.settle(&self.student, id, &self.spreads)?;
        }
        self.settled();
        if let Op::Activation(_) = node.op {
            self.simulate(id)?;
        }
        self.release();
        Ok(())
    }

    /// Closes open nodes whose scale is settled by now: rounds their weights and computes their values
    /// once more. Without scales every node closes at once.
    fn settled(&mut self) {
        let is_settled = |id: &NodeId| match &self.scales {
            Some(scales) => scales.value.contains_key(id),
            None => true,
        };
        let (closing, open) = self.open.iter().copied().partition(is_settled);
        self.open = open;
        let mut changed = HashSet::new();
        for &id in &closing {
            let rounded = self.round(id);
            if rounded || self.teacher.operands(id).iter().any(|o| changed.contains(o)) {
                let op = self.rounded.node(id).op.clone();
                let student = self.apply(id, &op, |pair| &pair.1);
                if let Some(values) = self.values.get_mut(&id) {
                    values.1 = student;
                    changed.insert(id);
                }
            }
        }
        self.closed.extend(closing);
    }

    /// Releases the operands of closed nodes.
    fn release(&mut self) {
        for id in std::mem::take(&mut self.closed) {
            for operand in self.teacher.operands(id) {
                if let Some(n) = self.readers.get_mut(&operand) {
                    *n -= 1;
                    if *n == 0 {
                        self.values.remove(&operand);
                    }
                }
            }
        }
    }

    /// Rounds the weights of an operator whose scales are settled.
    fn round(&mut self, id: NodeId) -> bool {
        let (Some(scales), Some(compensation)) = (&self.scales, self.unrounded.remove(&id)) else {
            return false;
        };
        let Some(input_scale) = scales.uniform(self.teacher.operands(id)[0]) else { return false };
        let node = self.student.node(id);
        let (Op::Convolution { weights, .. } | Op::MatrixProduct { weights, .. }) = &node.op else {
            return false;
        };
        let output_scales = match &scales.value[&id] {
            Scale::Uniform(scale) => vec![*scale; weights.shape.0[0]],
            Scale::PerChannel(scales) => scales.clone(),
        };
        let op = compensation.round(&node.op, &node.shape, input_scale, &output_scales);
        self.rounded.node_mut(id).op = op;
        true
    }

    /// A node's values from one side of its operands' values.
    fn apply<'s>(
        &'s self,
        id: NodeId,
        op: &Op,
        side: impl Fn(&'s (Values, Values)) -> &'s Values,
    ) -> Values {
        let node = self.teacher.node(id);
        let sides: Vec<&Values> =
            self.teacher.operands(id).iter().map(|o| side(&self.values[o])).collect();
        let mut values: Vec<Tensor<f32>> = (0..self.calibration.inputs.len())
            .into_par_iter()
            .map(|i| {
                let operands: Vec<&Tensor<f32>> = sides.iter().map(|s| &s[i]).collect();
                evaluate_node(op, &node.shape, &operands)
            })
            .collect();
        if let (Some(statistics), true) = (&node.statistics, self.calibration.is_synthetic) {
            impose_statistics(&mut values, statistics);
        }
        Arc::new(values)
    }

    /// A node that is no activation.
    fn linear(&mut self, id: NodeId) -> (Values, Values) {
        let node = self.teacher.node(id);
        if let Op::MaxWindows { kernel, stride, padding, .. } = node.op {
            let op = Op::AverageWindows { kernel, stride, padding };
            let teacher = self.apply(id, &node.op, |pair| &pair.0);
            let student = self.apply(id, &op, |pair| &pair.1);
            self.replace(id, op);
            return (teacher, student);
        }
        let is_same = self.teacher.operands(id).iter().all(|o| {
            let (teacher, student) = &self.values[o];
            Arc::ptr_eq(teacher, student)
        });
        let teacher = self.apply(id, &node.op, |pair| &pair.0);
        let is_linear = matches!(node.op, Op::Convolution { .. } | Op::MatrixProduct { .. });
        if is_linear && self.families.is_some() {
            self.resolve(id, &teacher, is_same);
        }
        let student = if is_same {
            teacher.clone()
        } else {
            self.apply(id, &self.student.node(id).op, |pair| &pair.1)
        };
        (teacher, student)
    }

    /// Re-solves the student's operator for the operand that it has, and finds out how its weights will
    /// be rounded. Where the result only feeds a sum whose other operand is known, the target makes up
    /// for that operand's error too.
    fn resolve(&mut self, id: NodeId, teacher: &Values, is_same: bool) {
        let node = self.teacher.node(id);
        let mut compensation = None;
        let is_measured = !is_same || self.scales.is_some();
        if is_measured && !self.calibration.is_synthetic {
            let student = self.values[&self.teacher.operands(id)[0]].1.clone();
            let weights = weights(teacher, &self.outliers);
            let kept: Vec<usize> = (0..teacher.len()).filter(|&i| weights[i] > 0.0).collect();
            let weights: Vec<f64> = kept.iter().map(|&i| weights[i]).collect();
            let inputs: Vec<&Tensor<f32>> = kept.iter().map(|&i| &student[i]).collect();
            let repaired = self.known_shortcut(id).map(|(of_teacher, of_student)| {
                let repair = |&i: &usize| {
                    let mut target = teacher[i].clone();
                    let errors = of_teacher[i].data.iter().zip(&of_student[i].data);
                    target.data.iter_mut().zip(errors).for_each(|(v, (t, s))| *v += t - s);
                    target
                };
                kept.par_iter().map(repair).collect::<Vec<_>>()
            });
            let targets: Vec<&Tensor<f32>> = match &repaired {
                Some(targets) => targets.iter().collect(),
                None => kept.iter().map(|&i| &teacher[i]).collect(),
            };
            let targets = (!is_same).then_some(targets.as_slice());
            let resolved = resolve(&node.op, &node.shape, &inputs, targets, &weights);
            if let Some(op) = resolved.op {
                self.replace(id, op);
            }
            compensation = Compensation::new(resolved.moments);
        }
        let Some(scales) = &mut self.scales else { return };
        if let Some(compensation) = &compensation {
            scales.rounding.insert(id, compensation.rounding_units());
        }
        self.unrounded.insert(id, compensation.unwrap_or_else(|| Compensation::none(&node.op)));
    }

    fn replace(&mut self, id: NodeId, op: Op) {
        self.rounded.node_mut(id).op = op.clone();
        self.student.node_mut(id).op = op;
    }

    /// The values of the other operand, where a node only feeds a sum whose other operand is known.
    fn known_shortcut(&self, id: NodeId) -> Option<(Values, Values)> {
        let user = self.teacher.only_user(id)?;
        if !matches!(self.teacher.node(user).op, Op::Add) {
            return None;
        }
        let other = self.teacher.operands(user).into_iter().find(|&o| o != id)?;
        self.values.get(&other).cloned()
    }

    fn activation(
        &mut self,
        id: NodeId,
        exact: &Activation,
    ) -> Result<(Values, Values), CompileError> {
        let operand = self.teacher.operands(id)[0];
        let of_teacher = simulate::exact(exact, &self.values[&operand].0);
        let mut kept = (0..).zip(of_teacher.iter()).filter(|(i, _)| !self.outliers.contains(i));
        if kept.any(|(_, y)| y.data.iter().any(|v| v.is_nan())) {
            return Err(CompileError::Calibration(format!(
                "node {}: the function is not defined for some of its values on the calibration inputs",
                self.teacher.node(id).name
            )));
        }
        let weights = weights(&of_teacher, &self.outliers);
        let mut samples = self.samples(operand, exact, &weights);
        let mut errors = Vec::new();
        if let Some(scales) = &mut self.scales {
            // The steps of a phase are for the usual inputs.
            let spread = &self.spreads[&operand];
            let bits = (spread.largest / spread.usual.max(1e-30)).log2();
            scales.stretch.insert(id, bits.max(0.0) as u32);
        }
        let fitted = match (exact, self.families.map(|families| families.of(id))) {
            (Activation::Exact(_), Some(Family::Phase { harmonics })) => {
                let bits = self.scales.as_ref().map_or(Scales::default().bits(id), |s| s.bits(id));
                let harmonics = bits.harmonics.map_or(harmonics, Harmonics::Fixed);
                let is_own = self.student.only_user(operand) == Some(id)
                    && has_channel_scales(&self.student, operand);
                let compared = match harmonics {
                    Harmonics::Fixed(n) => n,
                    Harmonics::Within { .. } => COMPARED_HARMONICS,
                };
                let phase_bits = bits.phase;
                let widenings: &[f64] = if is_even(exact) { &EVEN_WIDENINGS } else { &WIDENINGS };
                let widening =
                    choose_widening(&samples, widenings, compared, phase_bits, exact, is_own);
                let minimum: Vec<f64> =
                    samples.channels.iter().zip(&widening).map(|(c, w)| 2.0 * w * c.half).collect();
                let periods = match &mut self.scales {
                    Some(scales) => scales.circle(&self.student, id, &minimum, &self.spreads)?,
                    None => minimum,
                };
                let before = self.values[&operand].1.clone();
                self.settled();
                if !Arc::ptr_eq(&before, &self.values[&operand].1) {
                    samples = self.samples(operand, exact, &weights);
                }
                let (fit, of_harmonics) =
                    fit_trigonometric(&samples, &periods, harmonics, phase_bits, exact);
                errors = of_harmonics;
                Some(Activation::Trigonometric(fit))
            }
            (Activation::Exact(_), Some(Family::Polynomial { degree })) => {
                Some(Activation::Polynomial(fit_polynomial(&samples, degree, exact)))
            }
            (Activation::Exact(_), Some(Family::Select)) => {
                self.settle_window(id, &of_teacher)?;
                None
            }
            (Activation::Exact(_), Some(Family::Table)) => {
                self.settle_lookup(id)?;
                None
            }
            (Activation::Polynomial(_) | Activation::Trigonometric(_), _) | (_, None) => None,
        };
        let (teacher, student) = &self.values[&operand];
        let of_student = match &fitted {
            None if Arc::ptr_eq(teacher, student) => of_teacher.clone(),
            None => simulate::exact(exact, student),
            Some(fitted) => simulate::exact(fitted, student),
        };
        if let Some(fitted) = fitted {
            self.layers.push(FittedLayer {
                node: id,
                exact: exact.clone(),
                interval: samples.interval(),
                middle: samples.channels.iter().map(|c| c.middle).collect(),
                relative_error: relative_error(&of_student, &of_teacher, &weights),
                errors,
            });
            self.replace(id, Op::Activation(fitted));
        }
        Ok((of_teacher, of_student))
    }

    fn samples(&self, operand: NodeId, exact: &Activation, weights: &[f64]) -> Samples {
        let (teacher, student) = &self.values[&operand];
        let mut samples = Samples::gather(teacher, student, exact, weights);
        if self.calibration.is_synthetic && self.teacher.node(operand).statistics.is_none() {
            samples.widen(SYNTHETIC_MARGIN);
        }
        if is_even(exact) {
            samples.centre();
        }
        samples
    }
}

/// Whether values can explode: an operator that grows faster than its operand.
fn is_polynomial(op: &Op) -> bool {
    matches!(op, Op::Activation(Activation::Polynomial(p)) if p.degree() > 1)
}

fn is_even(exact: &Activation) -> bool {
    *exact == Activation::function(Function::Abs)
}

/// Rough cost of a node, for the progress bar: multiplications, and a constant per element.
fn work(graph: &Graph, id: NodeId) -> f64 {
    let node = graph.node(id);
    let elements = node.shape.elements() as f64;
    let fan_in = graph.fan_in(id).unwrap_or(0) as f64;
    // A re-solve factors a matrix of the fan-in and multiplies it by its rows.
    elements * (10.0 + fan_in) + 100.0 * fan_in * fan_in
}
