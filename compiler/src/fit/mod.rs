//! Fitting activations: teacher and student run in lock step over the calibration inputs, node by node
//! in topological order, and every activation of the student is fitted when its operand is known.
//!
//! The teacher is the network as imported, the student the one whose activations are replaced. A fit
//! maps the student's pre-activation to the *teacher's* activation, so that later layers repair what
//! earlier ones got wrong. Scales and ring widths are settled in the same walk, since the period of a
//! fit that a shortcut enters must be an integer multiple of the shortcut's unit
//! ([`crate::lower::scales`]). Linear operators behind a fit are re-solved for the operands that they
//! really have (`resolve.rs`).

pub mod calibration;
mod least_squares;
mod resolve;
mod spread;

pub use calibration::Calibration;
pub use spread::Spread;

use crate::error::CompileError;
use crate::lower::scales::Scales;
use ir::Tensor;
use ir::graph::{Graph, NodeId, Op, evaluate_node};
use ir::op::{Activation, Function};
use least_squares::{Channel, Samples, fit_polynomial, fit_trigonometric};
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// One turn of the circle is this much wider than the values seen on calibration inputs: the fit must
/// not jump where the circle closes.
const KAPPA: f64 = 1.25;

/// The same for `|x|`, around zero: an even function closes the circle without a jump.
const KAPPA_EVEN: f64 = 1.05;

/// On made-up inputs nobody knows how large values really are: pre-activations may be this much larger
/// than those seen, unless a normalisation's statistics vouch for them.
const SYNTHETIC_MARGIN: f64 = 2.0;

/// What activations are fitted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Trigonometric polynomials with this many harmonics.
    Phase {
        /// Number of harmonics.
        harmonics: usize,
    },
    /// Polynomials of this degree.
    Polynomial {
        /// Degree.
        degree: usize,
    },
}

/// A fitted network with everything that the lowering needs to know about it.
pub struct Fitted {
    /// The network with fitted activations.
    pub graph: Graph,
    /// Scales, factors and rings of its values.
    pub scales: Scales,
    /// What the values of every node look like on the calibration inputs.
    pub spreads: HashMap<NodeId, Spread>,
    /// Fitted layers in order.
    pub layers: Vec<FittedLayer>,
    /// Calibration inputs whose values explode at some node and leave the planned bounds.
    pub outliers: usize,
}

/// What a fit replaced.
pub struct FittedLayer {
    /// The activation.
    pub node: NodeId,
    /// The function that stood in the model.
    pub exact: Activation,
    /// Smallest and largest pre-activation on the calibration inputs.
    pub interval: (f64, f64),
    /// Root mean square of (fit − teacher) over that of the teacher's deviations from its mean.
    pub relative_error: f64,
}

/// Runs the network over the calibration inputs and returns what every node's values look like.
pub fn measure(
    graph: &Graph,
    calibration: &Calibration,
) -> Result<HashMap<NodeId, Spread>, CompileError> {
    let walk = Walk::run(graph, calibration, None, None, &mut |_| ())?;
    Ok(walk.spreads)
}

/// Fits every activation that is not a polynomial already. With `scales`, settles scales and rings too.
///
/// # Errors
/// If a value is not finite on the calibration inputs, or fits no ring.
pub fn fit(
    graph: &Graph,
    calibration: &Calibration,
    family: Family,
    scales: Option<Scales>,
    progress: &mut dyn FnMut(f64),
) -> Result<Fitted, CompileError> {
    let walk = Walk::run(graph, calibration, Some(family), scales, progress)?;
    Ok(Fitted {
        graph: walk.student,
        scales: walk.scales.unwrap_or_default(),
        spreads: walk.spreads,
        layers: walk.layers,
        outliers: walk.outliers.len(),
    })
}

type Values = Arc<Vec<Tensor<f32>>>;

struct Walk<'a> {
    teacher: &'a Graph,
    student: Graph,
    calibration: &'a Calibration,
    family: Option<Family>,
    scales: Option<Scales>,
    spreads: HashMap<NodeId, Spread>,
    layers: Vec<FittedLayer>,
    /// Inputs whose values explode at some node so far.
    outliers: BTreeSet<usize>,
    /// Per node: the teacher's values and the student's; the same list until a fit came before.
    values: HashMap<NodeId, (Values, Values)>,
}

impl<'a> Walk<'a> {
    fn run(
        teacher: &'a Graph,
        calibration: &'a Calibration,
        family: Option<Family>,
        scales: Option<Scales>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Self, CompileError> {
        let mut walk = Self {
            teacher,
            student: teacher.clone(),
            calibration,
            family,
            scales,
            spreads: HashMap::new(),
            layers: Vec::new(),
            outliers: BTreeSet::new(),
            values: HashMap::new(),
        };
        let order = teacher.order();
        let mut readers: HashMap<NodeId, usize> =
            order.iter().map(|&id| (id, teacher.uses(id).len())).collect();
        for (done, &id) in order.iter().enumerate() {
            walk.visit(id)?;
            for operand in teacher.operands(id) {
                if let Some(n) = readers.get_mut(&operand) {
                    *n -= 1;
                    if *n == 0 {
                        walk.values.remove(&operand);
                    }
                }
            }
            progress((done + 1) as f64 / order.len() as f64);
        }
        if let Some(scales) = &mut walk.scales {
            scales.settle_output(&walk.student, &walk.spreads)?;
        }
        Ok(walk)
    }

    fn visit(&mut self, id: NodeId) -> Result<(), CompileError> {
        let node = self.teacher.node(id);
        let values = match &node.op {
            Op::Input => {
                let inputs: Values = Arc::new(self.calibration.inputs.clone());
                (inputs.clone(), inputs)
            }
            Op::Activation(activation) => self.activation(id, activation)?,
            Op::MaxWindows { kernel, stride, padding, .. } => {
                let (kernel, stride, padding) = (*kernel, *stride, *padding);
                self.student.node_mut(id).op = Op::AverageWindows { kernel, stride, padding };
                self.linear(id)
            }
            _ => {
                self.resolve(id);
                self.linear(id)
            }
        };
        let spread = Spread::of(&values.1, &self.outliers);
        if !spread.is_finite() {
            return Err(CompileError::Calibration(format!(
                "node {}: its values are not finite on the calibration inputs; check their preprocessing",
                node.name
            )));
        }
        self.outliers.extend(&spread.outliers);
        self.spreads.insert(id, spread);
        if let Some(scales) = &mut self.scales {
            scales.settle(&self.student, id, &self.spreads)?;
        }
        self.values.insert(id, values);
        Ok(())
    }

    /// A node that is no activation.
    fn linear(&self, id: NodeId) -> (Values, Values) {
        let node = self.teacher.node(id);
        let operands: Vec<&(Values, Values)> =
            self.teacher.operands(id).iter().map(|o| &self.values[o]).collect();
        let same = operands.iter().all(|(t, s)| Arc::ptr_eq(t, s))
            && !matches!(node.op, Op::MaxWindows { .. });
        let apply = |op: &Op, side: &dyn Fn(&(Values, Values)) -> Values| -> Values {
            let sides: Vec<Values> = operands.iter().map(|pair| side(pair)).collect();
            let mut values: Vec<Tensor<f32>> = (0..self.calibration.inputs.len())
                .into_par_iter()
                .map(|i| {
                    let operands: Vec<&Tensor<f32>> = sides.iter().map(|s| &s[i]).collect();
                    evaluate_node(op, &node.shape, &operands)
                })
                .collect();
            if let (Some(statistics), true) = (&node.statistics, self.calibration.is_synthetic) {
                calibration::impose_statistics(&mut values, statistics);
            }
            Arc::new(values)
        };
        let teacher = apply(&node.op, &|pair| pair.0.clone());
        let student_op = &self.student.node(id).op;
        let student =
            if same { teacher.clone() } else { apply(student_op, &|pair| pair.1.clone()) };
        (teacher, student)
    }

    /// Re-solves the student's operator for the operand that it has. Where the result only feeds a sum
    /// whose other operand is known, the target makes up for that operand's error too.
    fn resolve(&mut self, id: NodeId) {
        if self.family.is_none() || self.calibration.is_synthetic {
            return;
        }
        let node = self.teacher.node(id);
        let is_linear = matches!(node.op, Op::Convolution { .. } | Op::MatrixProduct { .. });
        if !is_linear {
            return;
        }
        let (teacher, student) = &self.values[&self.teacher.operands(id)[0]];
        if Arc::ptr_eq(teacher, student) {
            return;
        }
        let shortcut = self.known_shortcut(id);
        let kept: Vec<usize> = (0..teacher.len()).filter(|i| !self.outliers.contains(i)).collect();
        let targets: Vec<Tensor<f32>> = kept
            .par_iter()
            .map(|&i| {
                let mut target = evaluate_node(&node.op, &node.shape, &[&teacher[i]]);
                if let Some((of_teacher, of_student)) = &shortcut {
                    let errors = of_teacher[i].data.iter().zip(&of_student[i].data);
                    target.data.iter_mut().zip(errors).for_each(|(v, (t, s))| *v += t - s);
                }
                target
            })
            .collect();
        let inputs: Vec<&Tensor<f32>> = kept.iter().map(|&i| &student[i]).collect();
        if let Some(op) = resolve::resolve(&node.op, &node.shape, &inputs, &targets) {
            self.student.node_mut(id).op = op;
        }
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
        let (teacher, student) = self.values[&operand].clone();
        let mut samples = Samples::gather(&teacher, &student, exact);
        if self.calibration.is_synthetic && self.teacher.node(operand).statistics.is_none() {
            samples.widen(SYNTHETIC_MARGIN);
        }
        let fitted = match (exact, self.family) {
            (Activation::Exact(_), Some(Family::Phase { harmonics })) => {
                let is_even = *exact == Activation::function(Function::Abs);
                let least = |c: &Channel| match is_even {
                    true => 2.0 * KAPPA_EVEN * (c.middle.abs() + c.half),
                    false => 2.0 * KAPPA * c.half,
                };
                let minimum: Vec<f64> = samples.channels.iter().map(least).collect();
                let periods = match &mut self.scales {
                    Some(scales) => scales.circle(&self.student, id, &minimum, &self.spreads)?,
                    None => minimum,
                };
                let phase_bits = self.scales.as_ref().map_or(8, |s| s.options.phase_bits);
                Some(Activation::Trigonometric(fit_trigonometric(
                    &samples, &periods, harmonics, phase_bits, exact,
                )))
            }
            (Activation::Exact(_), Some(Family::Polynomial { degree })) => {
                Some(Activation::Polynomial(fit_polynomial(&samples, degree, exact)))
            }
            _ => None,
        };
        let of_teacher = apply(exact, &teacher);
        let of_student = match &fitted {
            None if Arc::ptr_eq(&teacher, &student) => of_teacher.clone(),
            None => apply(exact, &student),
            Some(fitted) => apply(fitted, &student),
        };
        if let Some(fitted) = fitted {
            self.layers.push(FittedLayer {
                node: id,
                exact: exact.clone(),
                interval: samples.interval(),
                relative_error: spread::relative_error(&of_student, &of_teacher),
            });
            self.student.node_mut(id).op = Op::Activation(fitted);
        }
        Ok((of_teacher, of_student))
    }
}

/// An activation applied to a list of values; functions of the file are tabulated per call where they
/// are expensive.
fn apply(activation: &Activation, values: &Values) -> Values {
    let op = Op::Activation(activation.clone());
    Arc::new(values.par_iter().map(|x| evaluate_node(&op, &x.shape, &[x])).collect())
}
