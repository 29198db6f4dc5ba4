//! Ports: which part of the plan's input value is which input of the client, and which part of its output value
//! is which output. A plan has one input and one output value; several are joined along axis 1 of `[1, N]`.

use super::{Plan, Task, Verdict};
use crate::element::{ElementType, Integers};
use crate::graph;
use crate::input::options::PreprocessingOptions;
use crate::input::{Inputs, Preprocessing};
use crate::ring::low_mask;
use crate::tensor::{Shape, Tensor};
use serde::{Deserialize, Serialize};

/// One of the client's inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputPort {
    /// Its name in the model.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// The type of its elements.
    pub element: ElementType,
    /// An element is its real divided by this.
    pub unit: f64,
    /// The largest magnitude of a real that the plan was made for.
    pub limit: f64,
    /// How files become inputs, as the compiler was told.
    pub preprocessing: Preprocessing,
}

/// One of the outputs that the client learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputPort {
    /// Its name in the model.
    pub name: String,
    /// The shape of its scores, before the client's steps.
    pub shape: Shape,
    /// The type of its elements, after the client's steps.
    pub element: ElementType,
    /// A real is its element times this.
    pub unit: f64,
    /// What party 1 does with the scores in the clear.
    pub client: Vec<ClientStep>,
    /// What it means.
    pub task: Task,
    /// Names of its classes; none if they were not given.
    pub classes: Vec<String>,
}

/// What party 1 does with an output in the clear.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClientStep {
    /// Softmax along an axis.
    Softmax(usize),
    /// Logarithm of a softmax along an axis.
    LogSoftmax(usize),
    /// Index of the maximum along an axis, which stays with length 1.
    ArgMax(usize),
    /// The same elements under another shape.
    Reshape(Shape),
    /// `scale·y + shift`, in front of another step of the client.
    Affine {
        /// The factor.
        scale: f32,
        /// The offset.
        shift: f32,
    },
    /// `min(max(y, low), high)`
    Clip {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// Reals as elements of an integer type.
    Integers(Integers),
}

/// Why party 1's input was refused.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Another shape.
    #[error("{which} has shape {found}, the plan expects {expected}")]
    Shape {
        /// Which input.
        which: String,
        /// What was given.
        found: Shape,
        /// What the plan wants.
        expected: Shape,
    },
    /// Infinite or not a number.
    #[error("{0} holds an element that is infinite or not a number")]
    NotFinite(String),
    /// Beyond what the plan was made for.
    #[error(
        "{which} holds an element beyond ±{limit}, the plan's limit; was it preprocessed as in training?"
    )]
    OutOfRange {
        /// Which input.
        which: String,
        /// The plan's limit.
        limit: f64,
    },
    /// Another number of inputs.
    #[error("{found} inputs, the plan has {expected}")]
    Count {
        /// How many were given.
        found: usize,
        /// How many the plan has.
        expected: usize,
    },
}

impl InputPort {
    /// The one input of reals of a model, used as files give it.
    pub fn whole(name: &str, shape: Shape, limit: f64) -> Vec<Self> {
        let preprocessing = Preprocessing::default();
        let element = ElementType::Real;
        vec![Self { name: name.into(), shape, element, unit: 1.0, limit, preprocessing }]
    }

    /// The inputs in a file's bytes ([`Preprocessing::read`]), of the port's type.
    ///
    /// # Errors
    /// One line, to follow the file's name.
    pub fn read(
        &self,
        bytes: &[u8],
        is_only: bool,
        limit: Option<usize>,
    ) -> Result<Inputs, String> {
        let read = self.preprocessing.read(bytes, (&self.name, is_only), &self.shape, limit)?;
        let Some((low, high)) = self.element.input_range() else { return Ok(read) };
        for (input, tensor) in read.tensors.iter().enumerate() {
            let fits = |v: &&f32| v.fract() == 0.0 && (low..=high).contains(&f64::from(**v));
            if let Some(other) = tensor.data.iter().find(|v| !fits(v)) {
                return Err(format!(
                    "input {input} holds {other}; the model takes {}, whole numbers from {low} to {high}",
                    self.element
                ));
            }
        }
        Ok(read)
    }
}

impl OutputPort {
    /// The one output of reals of a model, used as it is.
    pub fn whole(name: &str, shape: Shape) -> Vec<Self> {
        let (client, task, classes) = (vec![], Task::Regress, vec![]);
        let element = ElementType::Real;
        vec![Self { name: name.into(), shape, element, unit: 1.0, client, task, classes }]
    }

    /// The output, from its scores.
    pub fn finish(&self, scores: &Tensor<f32>) -> Tensor<f32> {
        apply(&self.client, scores)
    }

    /// The values that `task` reads: for classes the input of the softmax, or of the index of the largest;
    /// otherwise the output.
    pub fn judged(&self, task: Task, scores: &Tensor<f32>) -> Tensor<f32> {
        apply(self.judged_client(task), scores)
    }

    /// The shape of the values that `task` reads; `None` if the client's steps do not fit.
    pub fn judged_shape(&self, task: Task) -> Option<Shape> {
        shape_after(self.judged_client(task), &self.shape)
    }

    fn judged_client(&self, task: Task) -> &[ClientStep] {
        match task {
            Task::Classify { .. } => scores_of(&self.client),
            Task::Binary { .. } | Task::Regress => &self.client,
        }
    }

    /// The class at every position, of an output after the client's steps; nothing for numbers.
    pub fn classes_of_finished(&self, task: Task, output: &Tensor<f32>) -> Vec<usize> {
        let is_index = self.client.iter().any(|step| matches!(step, ClientStep::ArgMax(_)));
        match (task, self.judged_shape(task)) {
            (Task::Classify { .. }, _) if is_index => {
                output.data.iter().map(|&v| v as usize).collect()
            }
            (Task::Classify { .. }, Some(shape)) => task.classes(&output.clone().reshape(shape)),
            _ => task.classes(output),
        }
    }

    /// What is said of the output with these scores.
    pub fn verdict(&self, scores: &Tensor<f32>) -> Verdict {
        self.task.verdict(&self.judged(self.task, scores))
    }

    /// The shape of the output, after the client's steps; `None` if they do not fit.
    pub fn finished_shape(&self) -> Option<Shape> {
        shape_after(&self.client, &self.shape)
    }
}

/// The client's steps in front of a softmax or the index of the largest: these make the scores of classes.
pub fn scores_of(client: &[ClientStep]) -> &[ClientStep] {
    let is_of_scores = |step: &ClientStep| {
        matches!(step, ClientStep::Softmax(_) | ClientStep::LogSoftmax(_) | ClientStep::ArgMax(_))
    };
    &client[..client.iter().position(is_of_scores).unwrap_or(client.len())]
}

fn apply(client: &[ClientStep], scores: &Tensor<f32>) -> Tensor<f32> {
    client.iter().fold(scores.clone(), |y, step| match step {
        ClientStep::Softmax(axis) => graph::softmax(&y, *axis),
        ClientStep::LogSoftmax(axis) => graph::log_softmax(&y, *axis),
        ClientStep::ArgMax(axis) => graph::arg_max(&y, *axis),
        ClientStep::Reshape(shape) => y.reshape(shape.clone()),
        ClientStep::Affine { scale, shift } => y.map(|v| scale * v + shift),
        ClientStep::Clip { low, high } => y.map(|v| v.max(*low).min(*high)),
        ClientStep::Integers(integers) => y.map(|v| integers.at(v)),
    })
}

/// The shape of a value of `shape` after the client's steps; `None` if they do not fit.
pub fn shape_after(client: &[ClientStep], shape: &Shape) -> Option<Shape> {
    client.iter().try_fold(shape.clone(), |mut shape, step| match step {
        ClientStep::Softmax(axis) | ClientStep::LogSoftmax(axis) => {
            (*axis < shape.rank()).then_some(shape)
        }
        ClientStep::ArgMax(axis) => {
            *shape.0.get_mut(*axis)? = 1;
            Some(shape)
        }
        ClientStep::Reshape(to) => {
            (to.is_bounded() && to.elements() == shape.elements()).then(|| to.clone())
        }
        ClientStep::Affine { scale, shift } => {
            (scale.is_finite() && shift.is_finite()).then_some(shape)
        }
        ClientStep::Clip { low, high } => {
            (low.is_finite() && low <= high && high.is_finite()).then_some(shape)
        }
        ClientStep::Integers(_) => Some(shape),
    })
}

impl Plan {
    /// The shape of the input value, all inputs together.
    pub fn input_shape(&self) -> &Shape {
        &self.steps[0].shape
    }

    /// The input value of one tensor of reals per input, in order.
    ///
    /// # Errors
    /// If their number or a shape is another.
    pub fn join_inputs(&self, parts: &[Tensor<f32>]) -> Result<Tensor<f32>, InputError> {
        join(&self.inputs, parts)
    }

    /// The input value as ring elements: `round(x·scale) mod 2^k`.
    ///
    /// # Errors
    /// If the shape is another, or an element is not finite or beyond its input's limit.
    pub fn encode_input(&self, x: &Tensor<f32>) -> Result<Tensor<u64>, InputError> {
        if x.shape != *self.input_shape() {
            let expected = self.input_shape().clone();
            let which = "the input".into();
            return Err(InputError::Shape { which, found: x.shape.clone(), expected });
        }
        let mut rest = x.data.as_slice();
        for port in &self.inputs {
            let (part, behind) = rest.split_at(port.shape.elements().min(rest.len()));
            rest = behind;
            if part.iter().any(|v| !v.is_finite()) {
                return Err(InputError::NotFinite(which(&self.inputs, port)));
            }
            if part.iter().any(|&v| f64::from(v).abs() * port.unit > port.limit) {
                let limit = port.limit;
                return Err(InputError::OutOfRange { which: which(&self.inputs, port), limit });
            }
        }
        let mask = low_mask(self.steps[0].ring);
        Ok(x.map(|v| ((f64::from(v) * self.input_scale).round() as i64 as u64) & mask))
    }

    /// The scores of every output, in order, from the decoded output value.
    pub fn scores(&self, y: &Tensor<f32>) -> Vec<Tensor<f32>> {
        let mut rest = y.data.as_slice();
        let score = |port: &OutputPort| {
            let (part, behind) = rest.split_at(port.shape.elements());
            rest = behind;
            let data = part.iter().map(|&v| (f64::from(v) * port.unit) as f32).collect();
            Tensor::new(port.shape.clone(), data)
        };
        self.outputs.iter().map(score).collect()
    }

    /// Every output, in order, from the decoded output value.
    pub fn finish(&self, y: &Tensor<f32>) -> Vec<Tensor<f32>> {
        let scores = self.scores(y);
        self.outputs.iter().zip(&scores).map(|(port, y)| port.finish(y)).collect()
    }

    /// The input ports, read as the options say or, where they say nothing, as the compiler was told; and
    /// a line for people where that is not plain.
    ///
    /// # Errors
    /// One line: an option that is malformed or does not fit.
    pub fn ports_read_by(
        &self,
        options: &PreprocessingOptions,
    ) -> Result<(Vec<InputPort>, Vec<String>), String> {
        let mut ports = self.inputs.clone();
        let mut notes = Vec::new();
        let inputs: Vec<(&str, ElementType)> =
            self.inputs.iter().map(|p| (p.name.as_str(), p.element)).collect();
        let planned: Vec<&Preprocessing> = self.inputs.iter().map(|p| &p.preprocessing).collect();
        let given = options.resolve_over(&inputs, &planned)?;
        for (port, given) in ports.iter_mut().zip(given) {
            let planned = &port.preprocessing;
            let which =
                if self.inputs.len() == 1 { String::new() } else { format!("{}: ", port.name) };
            if options.is_empty() {
                if let Some(text) = planned.describe() {
                    notes.push(format!("{which}preprocessed as the plan says: {text}"));
                }
                continue;
            }
            if let Some(as_planned) = planned.describe().filter(|_| given != *planned) {
                notes.push(format!(
                    "{which}preprocessed as the options say, not as the plan does ({as_planned})"
                ));
            }
            given.check(&port.shape)?;
            port.preprocessing = given;
        }
        Ok((ports, notes))
    }

    pub(super) fn check_ports(&self) -> Result<(), String> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let names = self.inputs.iter().map(|p| &p.name);
        let names =
            names.chain(self.outputs.iter().flat_map(|p| p.classes.iter().chain([&p.name])));
        if names.into_iter().any(|name| name.chars().any(char::is_control)) {
            return Err("a name has control characters".into());
        }
        let Some(output) = self.steps.get(self.output.index()) else {
            return Err("has no output".into());
        };
        let inputs = self.inputs.iter().map(|p| &p.shape);
        let outputs = self.outputs.iter().map(|p| &p.shape);
        fits(inputs, self.input_shape()).ok_or("its inputs do not make up the input value")?;
        fits(outputs, &output.shape).ok_or("its outputs do not make up the output value")?;
        for port in &self.inputs {
            if !positive(port.unit) || !positive(port.limit) {
                return Err(format!(
                    "input {}: a unit or limit is not a positive number",
                    port.name
                ));
            }
            port.preprocessing.check(&port.shape)?;
        }
        for port in &self.outputs {
            if !positive(port.unit) {
                return Err(format!("output {}: a unit is not a positive number", port.name));
            }
            port.finished_shape().ok_or("a client step does not fit the output")?;
            if !port.judged_shape(port.task).is_some_and(|shape| port.task.fits(&shape)) {
                return Err(format!("output {}: its task does not fit its shape", port.name));
            }
        }
        Ok(())
    }
}

/// Whether parts make up a value: one of its shape, or several as `[1, N]`.
fn fits<'a>(mut parts: impl ExactSizeIterator<Item = &'a Shape>, value: &Shape) -> Option<()> {
    if parts.len() == 1 {
        return (parts.next()? == value).then_some(());
    }
    let total = parts.try_fold(0usize, |n, shape| {
        shape.is_bounded().then(|| n.checked_add(shape.elements())).flatten()
    })?;
    (value.0 == [1, total] && total > 0).then_some(())
}

/// The input value of one tensor of reals per input, in order: `[1, N]` where there are several.
///
/// # Errors
/// If their number or a shape is another.
pub fn join(ports: &[InputPort], parts: &[Tensor<f32>]) -> Result<Tensor<f32>, InputError> {
    if parts.len() != ports.len() {
        return Err(InputError::Count { found: parts.len(), expected: ports.len() });
    }
    let mut data = Vec::new();
    for (port, part) in ports.iter().zip(parts) {
        if part.shape != port.shape {
            let (found, expected) = (part.shape.clone(), port.shape.clone());
            return Err(InputError::Shape { which: which(ports, port), found, expected });
        }
        data.extend(part.data.iter().map(|&v| (f64::from(v) / port.unit) as f32));
    }
    let shape = match ports {
        [only] => only.shape.clone(),
        _ => Shape::new([1, data.len()]),
    };
    Ok(Tensor::new(shape, data))
}

/// How messages name an input.
fn which(ports: &[InputPort], port: &InputPort) -> String {
    if ports.len() == 1 { "the input".into() } else { format!("input {}", port.name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, dims: &[usize], unit: f64) -> InputPort {
        let mut port = InputPort::whole(name, Shape::new(dims), 8.0).remove(0);
        port.unit = unit;
        port
    }

    #[test]
    fn several_inputs_are_joined_in_their_units() {
        let ports = [port("a", &[1, 2], 1.0), port("b", &[1, 3, 1], 4.0)];
        let a = Tensor::new(Shape::new([1, 2]), vec![1.0, -2.0]);
        let b = Tensor::new(Shape::new([1, 3, 1]), vec![4.0, 8.0, -2.0]);
        let joined = join(&ports, &[a.clone(), b.clone()]).unwrap();
        assert_eq!(joined.shape, Shape::new([1, 5]));
        assert_eq!(joined.data, [1.0, -2.0, 1.0, 2.0, -0.5]);
        let swapped = join(&ports, &[b, a.clone()]).err().unwrap().to_string();
        assert!(swapped.starts_with("input a has shape [1, 3, 1]"), "{swapped}");
        assert!(matches!(join(&ports, &[a]), Err(InputError::Count { found: 1, expected: 2 })));
    }

    #[test]
    fn a_port_of_integers_takes_integers() {
        let byte = ElementType::Integer { bits: 8, signed: false };
        let port = InputPort { element: byte, ..port("a", &[1, 2], 1.0) };
        let read = |values: [f32; 2]| {
            let array = Tensor::new(Shape::new([1, 2]), values.to_vec());
            port.read(&crate::array_file::write_npy(&array), true, None).map(|i| i.tensors)
        };
        assert_eq!(read([0.0, 255.0]).unwrap()[0].data, [0.0, 255.0]);
        for values in [[0.5, 1.0], [1.0, 256.0], [-1.0, 0.0]] {
            let refused = read(values).err().unwrap();
            assert!(refused.contains("uint8, whole numbers from 0 to 255"), "{refused}");
        }
    }
}
