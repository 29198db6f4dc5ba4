//! What an output means, found from the network and the labels; labels as a task takes them.

use anyhow::{Result, bail};
use ir::graph::{Graph, NodeId, Op};
pub use ir::plan::Task;
use ir::plan::{ClientStep, InputPort, OutputPort, scores_of, shape_after};
use ir::{Shape, Tensor};

/// What the user says of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// Nothing: the network and the labels tell.
    #[default]
    Auto,
    /// Classes along an axis.
    Classify,
    /// Two classes.
    Binary,
    /// Numbers.
    Regress,
}

/// A task, and what was only assumed of it.
pub struct Found {
    /// The task.
    pub task: Task,
    /// Where neither network nor labels decide: what was taken and what else it may be; for people.
    pub note: Option<String>,
}

/// Labels as they stand in a file.
#[derive(Clone)]
pub struct Labels {
    /// The file, for people.
    pub of: String,
    /// A row per input.
    pub array: Tensor<f32>,
}

/// What is known to be right of one input.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    /// A class per position.
    Classes(Vec<usize>),
    /// The output's numbers.
    Numbers(Vec<f32>),
}

/// What is right, of every output of a model and every input, where it is known.
pub type Truths = Vec<Option<Vec<Truth>>>;

/// What the network tells of an output.
pub struct Output<'a> {
    /// Its name.
    pub name: &'a str,
    /// The shape of its scores, which a softmax may be made of.
    pub shape: Shape,
    /// What the client does with it.
    pub client: &'a [ClientStep],
    /// Whether all its elements lie between 0 and 1, the values of a function that saturates there.
    pub is_probability: bool,
    /// Lengths of the axes of the model's sequences and images.
    pub places: Vec<usize>,
}

impl<'a> Output<'a> {
    /// The outputs of a network without the client's steps.
    pub fn of_network(inputs: &[InputPort], ports: &'a [OutputPort], graph: &Graph) -> Vec<Self> {
        let joined = graph.output();
        let parts = if ports.len() == 1 { vec![joined] } else { graph.operands(joined) };
        let output = |(port, part): (&'a OutputPort, NodeId)| {
            // Behind the output stands what brings it to the port's unit.
            let is_unit = port.unit != 1.0 && matches!(graph.node(part).op, Op::Affine { .. });
            let value = if is_unit { graph.operands(part)[0] } else { part };
            Self::of_port(inputs, port, is_probability(graph, value))
        };
        ports.iter().zip(parts).map(output).collect()
    }

    /// The outputs of a plan, as far as it knows them without the network in float.
    pub fn of_plan(inputs: &[InputPort], ports: &'a [OutputPort]) -> Vec<Self> {
        let certain = Task::Binary { is_probability: true };
        ports.iter().map(|port| Self::of_port(inputs, port, port.task == certain)).collect()
    }

    fn of_port(inputs: &[InputPort], port: &'a OutputPort, is_probability: bool) -> Self {
        Self::new(&port.name, (inputs, &port.shape), &port.client, is_probability)
    }

    /// An output that is made of a value of `shape`.
    pub fn new(
        name: &'a str,
        (inputs, shape): (&[InputPort], &Shape),
        client: &'a [ClientStep],
        is_probability: bool,
    ) -> Self {
        let scores = shape_after(scores_of(client), shape);
        let shape = scores.unwrap_or_else(|| shape.clone());
        let maps = inputs.iter().map(|input| &input.shape).filter(|shape| shape.rank() >= 3);
        let places = maps.flat_map(|shape| shape.0[1..].iter().copied()).collect();
        Self { name, shape, client, is_probability, places }
    }

    /// Whether an only axis that is longer than 1 counts places of a sequence or a row of an image, with a score
    /// each, rather than classes: an input is as long, and the axis is not that of an image's channels.
    fn counts_places(&self, axis: usize, length: usize) -> bool {
        let (rank, is_channel) = (self.shape.rank(), axis == 1);
        rank >= 3 && !(rank >= 4 && is_channel) && self.places.contains(&length)
    }

    /// The axes that are longer than 1, and the lengths.
    fn axes(&self) -> Vec<(usize, usize)> {
        self.shape.0.iter().copied().enumerate().filter(|&(_, length)| length > 1).collect()
    }

    /// The axis that the client takes a softmax or the largest of.
    fn client_axis(&self) -> Option<usize> {
        let axis = match self.client.get(scores_of(self.client).len())? {
            ClientStep::Softmax(axis) | ClientStep::LogSoftmax(axis) | ClientStep::ArgMax(axis) => {
                *axis
            }
            _ => return None,
        };
        (self.shape.0[axis] > 1).then_some(axis)
    }

    /// The axis of classes of which labels of shape `item` per input tell one per position. Of several,
    /// the channels of an image or the last.
    fn labelled_axis(&self, item: &[usize]) -> Option<usize> {
        let axes = self.axes();
        let without = |axis: usize| -> Vec<usize> {
            axes.iter().filter(|(a, _)| *a != axis).map(|&(_, length)| length).collect()
        };
        let candidates = || axes.iter().map(|a| a.0).filter(|&axis| without(axis) == item);
        candidates().find(|&axis| self.shape.rank() >= 4 && axis == 1).or(candidates().next_back())
    }

    /// The axis of classes where somebody says that there is one: the only one, of images the channels,
    /// which are the shorter of the two axes that may be theirs, otherwise the last.
    fn likely_axis(&self) -> Option<usize> {
        let (axes, last) = (self.axes(), self.shape.rank().checked_sub(1)?);
        match axes[..] {
            [] => None,
            [(axis, _)] => Some(axis),
            _ if self.shape.rank() < 4 => (self.shape.0[last] > 1).then_some(last),
            _ => match self.shape.0[1].cmp(&self.shape.0[last]) {
                std::cmp::Ordering::Less => (self.shape.0[1] > 1).then_some(1),
                std::cmp::Ordering::Greater => (self.shape.0[last] > 1).then_some(last),
                std::cmp::Ordering::Equal => None,
            },
        }
    }
}

/// Whether a value is that of a function that goes from 0 to 1, such as a sigmoid, or an arrangement of
/// such values.
pub fn is_probability(graph: &Graph, mut id: NodeId) -> bool {
    loop {
        let node = graph.node(id);
        match &node.op {
            Op::Reshape | Op::Transpose(_) => {}
            Op::Activation(activation) => {
                let is_near = |x: f64, y: f64| (activation.at(0, x) - y).abs() < 1e-6;
                return is_near(-1e3, 0.0) && is_near(1e3, 1.0);
            }
            _ => return false,
        }
        id = graph.operands(id)[0];
    }
}

/// Finds out what an output means.
///
/// # Errors
/// If the output cannot mean what is asked for, or labels fit no meaning; one line with what to do.
pub fn find(
    asked: Asked,
    output: &Output<'_>,
    labels: Option<&Labels>,
    inputs: usize,
) -> Result<Found> {
    let is_probability = output.is_probability;
    let certain = |task| Ok(Found { task, note: None });
    let item = labels.map(|labels| labels.item(output, inputs)).transpose()?;
    let labelled_axis = item.as_ref().and_then(|item| output.labelled_axis(item));
    match asked {
        Asked::Regress => return certain(Task::Regress),
        Asked::Binary => return certain(Task::Binary { is_probability }),
        Asked::Classify => {
            let axis = output.client_axis().or(labelled_axis).or_else(|| output.likely_axis());
            if let Some(axis) = axis {
                return certain(Task::Classify { axis });
            }
            let shape = &output.shape;
            if output.axes().is_empty() {
                bail!(
                    "--task classify needs several scores, the output has one; --task binary judges one score"
                );
            }
            bail!(
                "--task classify: which axis of an output of shape {shape} has the classes? give labels of one class \
                 per position, or --task regress"
            );
        }
        Asked::Auto => {}
    }
    if let Some(axis) = output.client_axis() {
        return certain(Task::Classify { axis });
    }
    let is_single = output.axes().is_empty();
    match labels {
        Some(labels) if is_single => {
            let is_class = labels.are_below(2);
            certain(match is_class || (is_probability && labels.are_whole()) {
                true => Task::Binary { is_probability },
                false => Task::Regress,
            })
        }
        Some(labels) => match labelled_axis {
            Some(axis) => certain(Task::Classify { axis }),
            None if labels.one_hot(output.likely_axis(), &output.shape).is_some() => {
                let Some(axis) = output.likely_axis() else { return certain(Task::Regress) };
                certain(Task::Classify { axis })
            }
            None if labels.are_below(2) => certain(Task::Binary { is_probability }),
            None => certain(Task::Regress),
        },
        None => Ok(of_network(output)),
    }
}

/// What an output means as far as the network alone tells it.
pub fn of_network(output: &Output<'_>) -> Found {
    let certain = |task| Found { task, note: None };
    let assumed = |task, note: &str| Found { task, note: Some(note.to_owned()) };
    if let Some(axis) = output.client_axis() {
        return certain(Task::Classify { axis });
    }
    match output.axes()[..] {
        [] if output.is_probability => certain(Task::Binary { is_probability: true }),
        [] => assumed(
            Task::Regress,
            "one output, which is no sigmoid's: taken for a number; --task binary takes it for a score",
        ),
        [(axis, length)] if output.counts_places(axis, length) => match output.is_probability {
            true => assumed(
                Task::Binary { is_probability: true },
                "a sigmoid for every place of the input: judged at one half each; --task classify takes the place of the \
                 largest for the class",
            ),
            false => assumed(
                Task::Regress,
                "a score for every place of the input: taken for numbers; --task binary judges each, --task classify \
                 takes the place of the largest for the class",
            ),
        },
        [(axis, _)] if output.is_probability => assumed(
            Task::Classify { axis },
            "several sigmoids: the largest is taken for the class; --task binary judges each at one half",
        ),
        [(axis, _)] => certain(Task::Classify { axis }),
        _ => assumed(
            Task::Regress,
            "the output has several axes and no softmax: taken for numbers; --task classify or binary takes \
             them for scores",
        ),
    }
}

impl Labels {
    /// The shape of what is said of one input, without axes of length 1.
    fn item(&self, output: &Output<'_>, inputs: usize) -> Result<Vec<usize>> {
        let long =
            |dims: &[usize]| -> Vec<usize> { dims.iter().copied().filter(|&d| d > 1).collect() };
        let all = long(&self.array.shape.0);
        let of_output = long(&output.shape.0);
        // One input's numbers, without an axis that counts inputs.
        if inputs == 1 && !of_output.is_empty() && all == of_output {
            return Ok(all);
        }
        let [count, item @ ..] = &self.array.shape.0[..] else {
            bail!("{}: one number, expected labels for {inputs} inputs", self.of);
        };
        if *count < inputs {
            bail!("{}: {count} labels for {inputs} inputs", self.of);
        }
        Ok(long(item))
    }

    /// The elements that belong to the inputs.
    fn rows(&self, inputs: usize, elements: usize) -> impl Iterator<Item = &[f32]> {
        self.array.data.chunks_exact(elements).take(inputs)
    }

    fn are_whole(&self) -> bool {
        self.array.data.iter().all(|v| v.fract() == 0.0)
    }

    fn are_below(&self, end: usize) -> bool {
        self.array.data.iter().all(|&v| is_below(v, end))
    }

    /// The classes that rows of noughts and a one tell.
    fn one_hot(&self, axis: Option<usize>, shape: &Shape) -> Option<Vec<Truth>> {
        let axis = axis?;
        if !self.are_below(2) || !self.array.data.len().is_multiple_of(shape.elements()) {
            return None;
        }
        let task = Task::Classify { axis };
        let of_input = |row: &[f32]| {
            let row = Tensor::new(shape.clone(), row.to_vec());
            let is_one_hot = task.scores(&row).iter().all(|s| s.iter().sum::<f32>() == 1.0);
            is_one_hot.then(|| Truth::Classes(task.classes(&row)))
        };
        self.array.data.chunks_exact(shape.elements()).map(of_input).collect()
    }

    /// What they say of `inputs` inputs, as a task takes it.
    ///
    /// # Errors
    /// If they do not fit; one line that names the file and the option that may help.
    pub fn truths(&self, task: Task, output: &Output<'_>, inputs: usize) -> Result<Vec<Truth>> {
        let item = self.item(output, inputs)?;
        let axes = output.axes();
        let positions: Vec<usize> = match task {
            Task::Classify { axis } => {
                axes.iter().filter(|(a, _)| *a != axis).map(|&(_, length)| length).collect()
            }
            _ => axes.iter().map(|&(_, length)| length).collect(),
        };
        if item != positions {
            if let Task::Classify { axis } = task
                && let Some(mut truths) = self.one_hot(Some(axis), &output.shape)
            {
                truths.truncate(inputs);
                return Ok(truths);
            }
            let expected = match positions.len() {
                0 => "one per input".to_owned(),
                _ => format!("{} per input", Shape(positions)),
            };
            bail!(
                "{}: labels of shape {} do not fit --task {} of an output of shape {}, expected {expected}; \
                 --labels none leaves them out",
                self.of,
                self.array.shape,
                task.name(),
                output.shape
            );
        }
        let rows = self.rows(inputs, positions.iter().product());
        if task == Task::Regress {
            if let Some(i) = self.array.data.iter().position(|v| !v.is_finite()) {
                bail!("{}: label {i} is {}, expected a number", self.of, self.array.data[i]);
            }
            return Ok(rows.map(|row| Truth::Numbers(row.to_vec())).collect());
        }
        let Some(classes) = task.class_count(&output.shape) else { return Ok(vec![]) };
        if let Some(i) = self.array.data.iter().position(|&v| !is_below(v, classes)) {
            let help = match task {
                Task::Binary { .. } => "; --task regress compares numbers",
                _ => "",
            };
            bail!(
                "{}: label {i} is {}, expected a whole number below {classes}{help}",
                self.of,
                self.array.data[i]
            );
        }
        Ok(rows.map(|row| Truth::Classes(row.iter().map(|&v| v as usize).collect())).collect())
    }
}

fn is_below(v: f32, end: usize) -> bool {
    v.fract() == 0.0 && v >= 0.0 && (v as usize) < end
}
