//! Lowering: a fitted graph with scales becomes a plan and its weights.

mod coefficients;
mod guard;
pub mod phases;
pub(crate) mod rings;
mod table_scales;

use crate::constants::per_axis;
use crate::error::CompileError;
use crate::fit::Fitted;
use crate::scales::bits::{RingOptions, turn_error};
use crate::scales::{Scale, uniform_factor};
use coefficients::{lower_phase, lower_polynomial};
use ir::Tensor;
use ir::graph::{NodeId, Op, padding_takes};
use ir::op::Activation;
use ir::plan::{
    InputPort, Interactive, Linear, Local, OutputPort, Plan, Step, StepOp, StepWeights, ValueId,
};
use ir::ring::low_mask;
use rayon::prelude::*;
use std::collections::HashMap;

/// A plan with the secrets of its steps, and which value every node became.
pub struct Lowered {
    /// The public plan, verified.
    pub plan: Plan,
    /// One entry per step.
    pub secrets: Vec<StepWeights>,
    /// The value of every node.
    pub values: HashMap<NodeId, ValueId>,
}

/// Inputs may be this much larger than on the calibration inputs before a run refuses them.
const INPUT_MARGIN: f64 = 4.0;

/// Emits the steps of a fitted network and plans their rings.
///
/// # Errors
/// If a value or weight fits no ring, or the plan breaks a rule of plans (an error of this compiler).
pub fn lower(
    name: &str,
    fitted: &Fitted,
    mut inputs: Vec<InputPort>,
    outputs: Vec<OutputPort>,
) -> Result<Lowered, CompileError> {
    let mut lowering = Lowering {
        fitted,
        steps: Vec::new(),
        secrets: Vec::new(),
        values: HashMap::new(),
        wanted: HashMap::new(),
        errors: HashMap::new(),
    };
    let graph = &fitted.rounded;
    lowering.node(graph.input())?;
    for id in graph.order() {
        if id != graph.input() {
            lowering.node(id)?;
        }
    }
    let output = lowering.values[&graph.output()];
    let RingOptions { margin, reach, .. } = fitted.scales.options;
    let largest = fitted.spreads[&graph.output()].largest.max(reach.output).max(1e-9) * margin;
    let output_scale = lowering.uniform(graph.output())?;
    let output_ring = (largest * output_scale).log2().ceil().clamp(1.0, 1e6) as u32 + 1;
    let Lowering { mut steps, mut secrets, values, wanted, errors, .. } = lowering;
    rings::plan_rings(&mut steps, &mut secrets, &wanted, (output, output_ring))?;
    let is_fine = fitted.scales.options.fine_offline;
    if is_fine {
        guard::add_guard_bits(&mut steps, &mut secrets, output);
    }
    steps.par_iter_mut().zip(&secrets).enumerate().for_each(|(index, (step, secrets))| {
        if let StepOp::Interactive(Interactive::Phase(phase)) = &mut step.op {
            let error = errors[&ValueId(index as u32)];
            *phase = table_scales::choose(*phase, secrets, step.ring, error, is_fine);
        }
    });
    let input = &fitted.spreads[&graph.input()];
    let input_scale = fitted.scales.uniform(graph.input()).unwrap_or(1.0);
    // The ring may be narrower: nothing behind the input sees more than its low bits.
    let limit = (INPUT_MARGIN * input.largest.max(reach.input).max(1e-6)).log2().ceil().exp2();
    inputs.iter_mut().for_each(|port| port.limit = limit * port.unit);
    let mut plan = Plan {
        name: name.to_owned(),
        steps,
        output,
        input_scale,
        inputs,
        output_scale,
        outputs,
        rlwe: vec![],
    };
    let internal = |reason| CompileError::Internal { stage: "lowering", reason };
    if !plan.choose_encryption() {
        return Err(match plan.beyond_encryption() {
            Some(step) => CompileError::Range(format!(
                "node {}: its kernel reaches over more elements than the widest encryption has coefficients (16384); \
                 use a smaller dilation or a smaller kernel",
                plan.steps[step].name
            )),
            None => internal("more sets of encryption parameters than a plan holds".into()),
        });
    }
    plan.verify().map_err(|e| internal(e.to_string()))?;
    Ok(Lowered { plan, secrets, values })
}

struct Lowering<'a> {
    fitted: &'a Fitted,
    steps: Vec<Step>,
    secrets: Vec<StepWeights>,
    values: HashMap<NodeId, ValueId>,
    /// Ring widths that a step's value must have exactly: circles.
    wanted: HashMap<ValueId, u32>,
    /// Of every phase, the variance that its bits and the weights before it give its angle, in turns.
    errors: HashMap<ValueId, f64>,
}

impl Lowering<'_> {
    fn node(&mut self, id: NodeId) -> Result<(), CompileError> {
        let graph = &self.fitted.rounded;
        let node = graph.node(id);
        let op = match &node.op {
            Op::Input => StepOp::Input,
            Op::Constant(value) => {
                let scale = self.uniform(id)?;
                let integers = value.data.iter().map(|&v| integer(f64::from(v) * scale)).collect();
                self.emit(id, StepOp::Constant, &[], StepWeights::Constant(integers));
                return Ok(());
            }
            Op::Convolution { geometry, weights, bias } => {
                let op =
                    StepOp::Linear(Linear::Convolution { geometry: *geometry, weight_bits: 32 });
                return self.secret_linear(id, op, weights, bias, 1);
            }
            Op::MatrixProduct { weights, bias } => {
                let axis = node.shape.rank() - 1;
                return self.secret_linear(
                    id,
                    StepOp::Linear(Linear::MatrixProduct { weight_bits: 32 }),
                    weights,
                    bias,
                    axis,
                );
            }
            Op::Affine { scale, shift } => return self.affine(id, scale, shift),
            Op::Activation(activation) => return self.activation(id, activation),
            Op::Add => StepOp::Local(Local::Add),
            Op::AverageWindows { kernel, stride, padding } => {
                return self.average_windows(id, *kernel, *stride, *padding);
            }
            Op::SumWindows { kernel, stride } => {
                StepOp::Local(Local::SumPool { kernel: *kernel, stride: *stride })
            }
            Op::SumAxes(axes) => StepOp::Local(Local::ReduceSum { axes: axes.clone() }),
            Op::Reshape => StepOp::Local(Local::Reshape),
            Op::Transpose(permutation) => {
                StepOp::Local(Local::Transpose { permutation: permutation.clone() })
            }
            Op::Take { axis, indices } => {
                StepOp::Local(Local::Gather { axis: *axis, indices: indices.clone() })
            }
            Op::Concat(axis) => StepOp::Local(Local::Concat { axis: *axis }),
            Op::Multiply
            | Op::Divide
            | Op::MaxWindows { .. }
            | Op::Softmax(_)
            | Op::LogSoftmax(_)
            | Op::ArgMax(_)
            | Op::Integers(_) => {
                return Err(internal(format!("{} reached the lowering", node.op.name())));
            }
        };
        let operands = self.operands(id);
        self.emit(id, op, &operands, StepWeights::None);
        Ok(())
    }

    /// The values that a node reads, with their factors.
    fn operands(&mut self, id: NodeId) -> Vec<ValueId> {
        let operands = self.fitted.rounded.operands(id);
        operands
            .iter()
            .enumerate()
            .map(|(position, operand)| {
                let value = self.values[operand];
                match self.fitted.scales.factor.get(&(id, position)) {
                    Some(&factor) => self.scale(value, factor),
                    None => value,
                }
            })
            .collect()
    }

    /// A copy of a value times an integer, in a ring of its own.
    fn scale(&mut self, value: ValueId, factor: i64) -> ValueId {
        let source = &self.steps[value.index()];
        let step = Step {
            name: source.name.clone(),
            op: StepOp::Local(Local::Scale { factor }),
            operands: vec![value],
            shape: source.shape.clone(),
            ring: 0,
            fraction_bits: source.fraction_bits + (factor as f64).abs().log2().round() as i32,
        };
        self.push(step, StepWeights::None)
    }

    fn push(&mut self, step: Step, secrets: StepWeights) -> ValueId {
        self.steps.push(step);
        self.secrets.push(secrets);
        ValueId(self.steps.len() as u32 - 1)
    }

    fn emit(
        &mut self,
        id: NodeId,
        op: StepOp,
        operands: &[ValueId],
        secrets: StepWeights,
    ) -> ValueId {
        let node = self.fitted.rounded.node(id);
        let scale = match self.fitted.scales.value.get(&id) {
            Some(Scale::Uniform(scale)) => *scale,
            Some(Scale::PerChannel(scales)) => scales.iter().copied().fold(f64::INFINITY, f64::min),
            None => 1.0,
        };
        let step = Step {
            name: node.name.clone(),
            op,
            operands: operands.to_vec(),
            shape: node.shape.clone(),
            ring: 0,
            fraction_bits: scale.log2().round() as i32,
        };
        let value = self.push(step, secrets);
        self.values.insert(id, value);
        value
    }

    fn uniform(&self, id: NodeId) -> Result<f64, CompileError> {
        self.fitted.scales.uniform(id).ok_or_else(|| {
            internal(format!("node {} has no scale", self.fitted.rounded.node(id).name))
        })
    }

    /// Scale of every output channel (entry of `axis`) of a secret operator.
    fn output_scales(&self, id: NodeId, axis: usize) -> Result<Vec<f64>, CompileError> {
        let channels = self.fitted.rounded.node(id).shape.0[axis];
        match self.fitted.scales.value.get(&id) {
            Some(Scale::PerChannel(scales)) => Ok(scales.clone()),
            _ => Ok(vec![self.uniform(id)?; channels]),
        }
    }

    fn secret_linear(
        &mut self,
        id: NodeId,
        op: StepOp,
        weights: &Tensor<f32>,
        bias: &Tensor<f32>,
        axis: usize,
    ) -> Result<(), CompileError> {
        let node = self.fitted.rounded.node(id);
        let scales = self.output_scales(id, axis)?;
        let input_scale = self.uniform(self.fitted.rounded.operands(id)[0])?;
        let length = weights.data.len() / scales.len();
        let integers = weights
            .data
            .chunks_exact(length)
            .zip(&scales)
            .flat_map(|(row, scale)| row.iter().map(move |&w| f64::from(w) * scale / input_scale))
            .map(|w| weight(w, &node.name))
            .collect::<Result<Vec<i32>, _>>()?;
        let bias = match per_axis(bias, &node.shape, axis) {
            Some(values) => {
                values.iter().zip(&scales).map(|(&b, s)| integer(f64::from(b) * s)).collect()
            }
            None => {
                let stride: usize = node.shape.0[axis + 1..].iter().product();
                let full = bias.broadcast(&node.shape);
                let scale = |i: usize| scales[i / stride % scales.len()];
                full.data
                    .iter()
                    .enumerate()
                    .map(|(i, &b)| integer(f64::from(b) * scale(i)))
                    .collect()
            }
        };
        let bits = weight_bits(&integers);
        let op = match op {
            StepOp::Linear(Linear::Convolution { geometry, .. }) => {
                StepOp::Linear(Linear::Convolution { geometry, weight_bits: bits })
            }
            _ => StepOp::Linear(Linear::MatrixProduct { weight_bits: bits }),
        };
        let operands = self.operands(id);
        self.emit(id, op, &operands, StepWeights::Linear { weights: integers, bias });
        Ok(())
    }

    /// An affine map that nothing took: by one factor it only changes the scale, and perhaps the sign;
    /// otherwise it is a product with secret factors per element.
    fn affine(
        &mut self,
        id: NodeId,
        scale: &Tensor<f32>,
        shift: &Tensor<f32>,
    ) -> Result<(), CompileError> {
        let node = self.fitted.rounded.node(id);
        let output_scale = self.uniform(id)?;
        let offsets = || {
            let full = shift.broadcast(&node.shape);
            full.data.iter().map(|&b| integer(f64::from(b) * output_scale)).collect::<Vec<u64>>()
        };
        let operands = self.operands(id);
        if uniform_factor(&self.fitted.rounded, id).is_some() {
            let is_negative = scale.data[0] < 0.0;
            let operand = if is_negative { self.scale(operands[0], -1) } else { operands[0] };
            if shift.data.iter().all(|&t| t == 0.0) {
                self.values.insert(id, operand);
                return Ok(());
            }
            let constant = self.emit(id, StepOp::Constant, &[], StepWeights::Constant(offsets()));
            self.emit(id, StepOp::Local(Local::Add), &[operand, constant], StepWeights::None);
            return Ok(());
        }
        let input_scale = self.uniform(self.fitted.rounded.operands(id)[0])?;
        let factors = scale.broadcast(&node.shape);
        let weights = factors
            .data
            .iter()
            .map(|&s| weight(f64::from(s) * output_scale / input_scale, &node.name))
            .collect::<Result<Vec<i32>, _>>()?;
        let op = StepOp::Linear(Linear::Hadamard { weight_bits: weight_bits(&weights) });
        let bias = offsets();
        self.emit(id, op, &operands, StepWeights::Linear { weights, bias });
        Ok(())
    }

    /// Zeros around and sums; the division is the value's scale.
    fn average_windows(
        &mut self,
        id: NodeId,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 4],
    ) -> Result<(), CompileError> {
        let mut operand = self.operands(id)[0];
        let source = self.steps[operand.index()].clone();
        for (axis, indices) in padding_takes(&source.shape, padding) {
            let mut shape = self.steps[operand.index()].shape.clone();
            shape.0[axis] = indices.len();
            let op = StepOp::Local(Local::Gather { axis, indices });
            let step = Step { op, operands: vec![operand], shape, ..source.clone() };
            operand = self.push(step, StepWeights::None);
        }
        self.emit(
            id,
            StepOp::Local(Local::SumPool { kernel, stride }),
            &[operand],
            StepWeights::None,
        );
        Ok(())
    }

    fn activation(&mut self, id: NodeId, activation: &Activation) -> Result<(), CompileError> {
        let graph = &self.fitted.rounded;
        let scale = self.uniform(id)?;
        let mut operand = self.operands(id)[0];
        match activation {
            Activation::Exact(function) => {
                let (scales, name) = (&self.fitted.scales, &graph.node(id).name);
                let kind: Interactive = match (scales.select.get(&id), scales.lookup.get(&id)) {
                    (Some(select), None) => (*select).into(),
                    // In its ring when rings are planned.
                    (None, Some(lookup)) => lookup.table(name, function, scale)?.into(),
                    (None, None) | (Some(_), Some(_)) => {
                        return Err(internal(format!("node {name} was not fitted")));
                    }
                };
                self.emit(id, StepOp::Interactive(kind), &[operand], StepWeights::None);
            }
            Activation::Trigonometric(trigonometric) => {
                let k = self.fitted.scales.circle[&id];
                let source = graph.operands(id)[0];
                let is_own = operand != self.values[&source] || graph.only_user(source) == Some(id);
                if !is_own {
                    operand = self.scale(operand, 1);
                }
                self.wanted.insert(operand, k);
                let p = self.fitted.scales.bits(id).phase;
                let spare = self.fitted.scales.spare_bits(id);
                let error = turn_error((p, spare), k, self.fitted.scales.units[&id]);
                let (phase, secrets) = lower_phase(trigonometric, scale, (p, spare));
                let value = self.emit(
                    id,
                    StepOp::Interactive(Interactive::Phase(phase)),
                    &[operand],
                    secrets,
                );
                self.errors.insert(value, error);
            }
            Activation::Polynomial(polynomial) => {
                let line = self.fitted.scales.line[&id];
                let name = &graph.node(id).name;
                let (op, secrets) = lower_polynomial(polynomial, line, scale, name)?;
                self.emit(id, op, &[operand], secrets);
            }
        }
        Ok(())
    }
}

fn internal(reason: String) -> CompileError {
    CompileError::Internal { stage: "lowering", reason }
}

/// The ring element of a real; reduced to a ring's width later.
fn integer(value: f64) -> u64 {
    value.round() as i64 as u64 & low_mask(64)
}

fn weight(value: f64, name: &str) -> Result<i32, CompileError> {
    let rounded = value.round();
    if rounded.abs() >= f64::from(i32::MAX) {
        return Err(CompileError::Range(format!(
            "node {name}: a scaled weight of {value:.3e} exceeds 31 bits"
        )));
    }
    Ok(rounded as i32)
}

/// The bits that hold all weights: 8, 16 or 32.
fn weight_bits(weights: &[i32]) -> u32 {
    let largest = weights.iter().map(|w| w.unsigned_abs()).max().unwrap_or(0);
    match largest {
        0..=127 => 8,
        128..=32767 => 16,
        _ => 32,
    }
}
