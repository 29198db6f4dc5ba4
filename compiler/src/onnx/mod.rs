//! Import of ONNX models: bytes in, a verified [`Graph`] out, or every node that stands in the way.
//!
//! Every ONNX value becomes a constant or a node of the graph; [`supported_operators`] lists what is understood.

mod activation;
mod builder;
mod constant;
mod convolution;
mod dynamic;
mod element;
mod elementwise;
mod external;
mod file;
mod geometry;
mod integer;
mod kind;
mod linear;
mod node;
mod normalization;
mod operators;
mod oracle;
mod pooling;
mod quantize;
mod quiet;
mod range;
mod reduction;
mod resize;
mod selection;
mod structure;
mod translate;

pub use operators::{Operator, supported_operators};
pub use oracle::Oracle;

use file::Model;
use ir::ElementType;
use ir::graph::Graph;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// The largest number of elements of one value of a model.
pub const MAX_VALUE: usize = 1 << 26;

/// A model as a graph.
pub struct Imported {
    /// The graph, verified, with the batch dimension 1.
    pub graph: Graph,
    /// The input's name in the file.
    pub input_name: String,
    /// What the elements of the input are.
    pub input_element: ElementType,
    /// The output's name in the file.
    pub output_name: String,
    /// What was assumed or left out, a line each.
    pub warnings: Vec<String>,
}

/// Choices that the file leaves open.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The output to compute, by name; otherwise the first.
    pub output: Option<String>,
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
    #[error("operator set {0} is not supported, expected 7 to 25; export the model again")]
    OperatorSet(i64),
    /// The output asked for does not exist.
    #[error("the model has no output {wanted:?}; it has {found}")]
    NoSuchOutput {
        /// The name asked for.
        wanted: String,
        /// The names that there are.
        found: String,
    },
    /// More than one input is used.
    #[error(
        "several inputs ({0}) are not supported, expected one; \
             join them to one tensor, or make the others initializers before export"
    )]
    SeveralInputs(String),
    /// The input's shape is not known.
    #[error("input {name} {reason}; export the model with a fixed input shape")]
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
    guarded(|| import_model(&Model::open(path, options)?))
}

/// Imports a model from bytes, without external data.
///
/// # Errors
/// As [`import_file`].
pub fn import_bytes(bytes: &[u8], options: &ImportOptions) -> Result<Imported, ImportError> {
    guarded(|| import_model(&Model::decode(bytes, None, options)?))
}

/// No file makes the import panic: what slips through every check is still an error.
fn guarded(
    import: impl FnOnce() -> Result<Imported, ImportError>,
) -> Result<Imported, ImportError> {
    quiet::quietly(import).unwrap_or_else(|panic| Err(ImportError::Internal(panic)))
}

/// A fixed batch above 1 becomes 1 where the model allows it.
fn import_model(model: &Model) -> Result<Imported, ImportError> {
    let Some((batch, single)) =
        model.fixed_batch().and_then(|batch| Some((batch, model.with_batch_of_one(batch)?)))
    else {
        return translate::translate(model);
    };
    match translate::translate(&single) {
        Ok(mut imported) if leading(&imported) == Some(1) => {
            let warning = format!("the batch of {batch} in the file is taken as 1");
            imported.warnings.push(warning);
            Ok(imported)
        }
        Ok(_) => translate::translate(model),
        Err(first) => translate::translate(model).map_err(|second| fewer(first, second)),
    }
}

fn leading(imported: &Imported) -> Option<usize> {
    imported.graph.node(imported.graph.output()).shape.0.first().copied()
}

fn fewer(first: ImportError, second: ImportError) -> ImportError {
    match (&first, &second) {
        (ImportError::Unsupported(a), ImportError::Unsupported(b)) if a.len() <= b.len() => first,
        _ => second,
    }
}
