//! Import of ONNX models: bytes in, a verified [`Graph`] out, or every node that stands in the way.
//!
//! Every ONNX value becomes a constant or a node of the graph; [`supported_operators`] lists what is understood.

mod activation;
mod batch;
mod builder;
mod constant;
mod control;
mod convolution;
mod dynamic;
mod einsum;
mod element;
mod elementwise;
mod embedding;
mod external;
mod file;
mod first_axis;
mod fold;
mod fold_check;
mod function;
mod geometry;
mod indexing;
mod inputs;
mod integer;
mod kind;
mod linear;
mod linear_map;
mod loss;
mod node;
mod normalization;
mod operators;
mod pooling;
mod quantize;
mod quiet;
mod range;
mod reduction;
mod resize;
mod sampling;
mod scope;
mod selection;
mod sequence;
mod spectral;
mod structure;
mod tract;
mod translate;
mod versions;
mod walk;

pub use operators::{Operator, supported_operators};
pub use tract::TractModel;

use file::{FileInput, Model};
use ir::ElementType;
use ir::graph::{Graph, NodeId};
use ir::tensor::Shape;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use translate::Translated;

/// The largest number of elements of one value of a model.
pub const MAX_VALUE: usize = 1 << 26;

/// A model as a graph.
pub struct Imported {
    /// The graph of one input, verified. Several inputs are parts of one, `[1, N]`, in order, and several
    /// outputs are joined in the same way.
    pub graph: Graph,
    /// The inputs, in the file's order.
    pub inputs: Vec<Declared>,
    /// The outputs that are computed, in the file's order.
    pub outputs: Vec<Declared>,
    /// What the first axis of the file's inputs is.
    pub batch: Batch,
    /// What was assumed or left out, a line each.
    pub warnings: Vec<String>,
    /// Whether the file rounds to quantisation steps, which is left out.
    pub rounds: bool,
    /// Whether the file computes in 16 bits.
    pub is_half: bool,
    /// The values of the file that are computed from the inputs, in order.
    trace: Vec<Traced>,
}

/// A value of the file, and the node of the graph that computes it.
pub struct Traced {
    /// Its name in the file.
    pub value: String,
    /// The name of the file's node that makes it.
    pub node: String,
    /// That node's operator.
    pub operator: String,
    /// The graph's node.
    pub id: NodeId,
}

impl Imported {
    /// The node of a value of the file.
    pub fn node_of(&self, value: &str) -> Option<NodeId> {
        self.trace.iter().find(|t| t.value == value).map(|t| t.id)
    }

    /// The values of the file that are computed from the inputs, in order, inputs first.
    pub fn trace(&self) -> impl Iterator<Item = &Traced> {
        self.trace.iter()
    }

    /// The shape of the graph's input.
    pub fn input_shape(&self) -> &Shape {
        &self.graph.node(self.graph.input()).shape
    }
}

/// A graph that comes from no file: of one input and one output of reals.
impl From<Graph> for Imported {
    fn from(graph: Graph) -> Self {
        let declared = |id: NodeId| {
            let node = graph.node(id);
            let element = ElementType::Real;
            vec![Declared { name: node.name.clone(), shape: node.shape.clone(), element }]
        };
        let (inputs, outputs) = (declared(graph.input()), declared(graph.output()));
        let (batch, warnings, trace) = (Batch::None, Vec::new(), Vec::new());
        let (rounds, is_half) = (false, false);
        Self { inputs, outputs, batch, warnings, rounds, is_half, trace, graph }
    }
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name in the file.
    pub name: String,
    /// Its shape for one input.
    pub shape: Shape,
    /// The type of its elements in the file.
    pub element: ElementType,
}

/// What the first axis of a file's inputs and outputs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// An axis like any other.
    None,
    /// As many inputs as one likes.
    Open,
    /// This many inputs, of which the graph is one.
    Fixed(usize),
}

/// Choices that the file leaves open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportOptions {
    /// The outputs to compute, by name; all if there are none.
    pub outputs: Vec<String>,
    /// Sizes that the file leaves open, by the file's name for them, or by `INPUT.AXIS`.
    pub dims: BTreeMap<String, usize>,
    /// Whether the first axis of the inputs is a batch.
    pub batch_axis: BatchAxis,
    /// Keeps the rounding of quantised values, which no plan computes: to compare with what runs the file.
    pub keeps_rounding: bool,
}

/// Whether the first axis of a model's inputs is a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BatchAxis {
    /// Where a proof shows that nothing mixes, moves or counts along it.
    #[default]
    Proven,
    /// Yes, whatever the nodes do along it: the model is compiled for a length of 1.
    First,
    /// No.
    None,
}

/// Why a model was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file could not be read.
    #[error("cannot read {path}: {reason}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Not an ONNX model, or a damaged one.
    #[error("{0}")]
    Malformed(String),
    /// An operator set version outside the supported range.
    #[error("operator set {0} is not supported, expected 1 to {newest}; export the model again", newest = versions::NEWEST)]
    OperatorSet(i64),
    /// The output asked for does not exist.
    #[error("the model has no output {wanted:?}; it has {found}")]
    NoSuchOutput {
        /// The name asked for.
        wanted: String,
        /// The names that there are.
        found: String,
    },
    /// Sizes of inputs that the file leaves open.
    #[error("the file leaves sizes of its inputs open: {0}; set each by --dim NAME=N")]
    OpenSizes(String),
    /// The first axis is of open size, and no batch.
    #[error(
        "the first axis of input {input} has the open size {size:?} and is no batch: {reason}; \
         set it by --dim {size}=N"
    )]
    NoBatch {
        /// The input's name.
        input: String,
        /// The file's name for the size.
        size: String,
        /// Why not.
        reason: String,
    },
    /// A size was given that no input has.
    #[error("--dim {0}: no input leaves a size of this name open")]
    NoSuchSize(String),
    /// The input's shape is not known.
    #[error(
        "input {name} {reason}; export the model with an input that is a tensor of a stated shape"
    )]
    InputShape {
        /// The input's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The input's elements are no numbers.
    #[error("input {name} holds elements of type {element}, expected numbers or booleans")]
    InputElement {
        /// The input's name.
        name: String,
        /// The type of its elements.
        element: String,
    },
    /// Nodes that cannot be compiled, all of them.
    #[error("{}", list(.0))]
    Unsupported(Vec<UnsupportedNode>),
    /// tract, the float oracle, refuses the model.
    #[error("the float oracle cannot run this model: {0}")]
    Oracle(String),
    /// The import built a graph that breaks the graph's rules.
    #[error("internal error of the import: {0}")]
    Internal(String),
}

/// A node that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnsupportedNode {
    /// The node's name, or the name of its first output.
    pub name: String,
    /// The ONNX operator, with its domain unless it is ONNX's own.
    pub operator: String,
    /// What is not supported.
    pub reason: String,
    /// What to do instead.
    pub advice: String,
}

impl fmt::Display for UnsupportedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} ({}): {}; {}", self.name, self.operator, self.reason, self.advice)
    }
}

/// How many nodes are named in an error's text.
const MOST_LISTED: usize = 20;

/// A line per node, for the first ones.
pub(crate) fn list(nodes: &[UnsupportedNode]) -> String {
    let mut lines: Vec<String> = nodes.iter().take(MOST_LISTED).map(|n| n.to_string()).collect();
    if nodes.len() > MOST_LISTED {
        lines.push(format!("and {} more nodes; --json lists all", nodes.len() - MOST_LISTED));
    }
    lines.join("\n")
}

/// Imports a model from a file; external data is read from the file's folder.
///
/// # Errors
/// If the file is unreadable or malformed, or if nodes are not supported: then with all of them.
pub fn import_file(path: &Path, options: &ImportOptions) -> Result<Imported, ImportError> {
    guarded(|| import_model(&Model::open(path, options)?, options.batch_axis))
}

/// Imports a model from bytes, without external data.
///
/// # Errors
/// As [`import_file`].
pub fn import_bytes(bytes: &[u8], options: &ImportOptions) -> Result<Imported, ImportError> {
    guarded(|| import_model(&Model::decode(bytes, None, options)?, options.batch_axis))
}

/// No file makes the import panic: what slips through every check is still an error.
fn guarded(
    import: impl FnOnce() -> Result<Imported, ImportError>,
) -> Result<Imported, ImportError> {
    quiet::quietly(import).unwrap_or_else(|panic| Err(ImportError::Internal(panic)))
}

fn import_model(model: &Model, batch_axis: BatchAxis) -> Result<Imported, ImportError> {
    let (mut translated, batch) = match batch_axis {
        BatchAxis::Proven => first_axis::proven(model)?,
        BatchAxis::First => {
            if let Some(input) = model.inputs.iter().find(|i| i.open.is_none()) {
                let reason = "has no first axis that --batch-axis 0 could set to 1".into();
                return Err(ImportError::InputShape { name: input.name.clone(), reason });
            }
            (translate::translate(model, 1, true)?, Batch::Open)
        }
        BatchAxis::None => (first_axis::whole(model)?, Batch::None),
    };
    first_axis::join_images(&mut translated)?;
    translated.graph.verify().map_err(|e| ImportError::Internal(e.to_string()))?;
    Ok(describe(model, translated, batch))
}

/// What people and later stages need to know besides the graph.
fn describe(model: &Model, translated: Translated, batch: Batch) -> Imported {
    let trace = translated.trace(model);
    let Translated { graph, outputs, warnings, rounds, .. } = translated;
    let divide = |shape: &Shape| {
        let mut shape = shape.clone();
        if let (Batch::Fixed(items), Some(first)) = (batch, shape.0.first_mut()) {
            *first /= items;
        }
        shape
    };
    let input = |input: &FileInput| Declared {
        name: input.name.clone(),
        shape: divide(&input.shape),
        element: input.element,
    };
    let output = |(name, id): &(String, NodeId)| Declared {
        name: name.clone(),
        shape: graph.node(*id).shape.clone(),
        element: model.output_element(name),
    };
    let inputs = model.inputs.iter().map(input).collect();
    let outputs = outputs.iter().map(output).collect();
    let is_half = model.is_half();
    Imported { inputs, outputs, batch, warnings, rounds, is_half, trace, graph }
}
