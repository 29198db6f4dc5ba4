//! What can go wrong between an ONNX file and a plan, sorted by who must act.

use crate::onnx::{ImportError, UnsupportedNode, list};

/// Why a model was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The file could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// Nodes that cannot be computed; every one of them.
    #[error("{}", list(.0))]
    Unsupported(Vec<UnsupportedNode>),
    /// The import is not what the file says.
    #[error("{0}")]
    Disagreement(String),
    /// Calibration data that does not fit the model.
    #[error("{0}")]
    Calibration(String),
    /// An option that does not fit the model.
    #[error("{0}")]
    Option(String),
    /// A plan that loses too much on held-out inputs.
    #[error("{0}")]
    Rejected(String),
    /// A value that fits no ring.
    #[error("{0}")]
    Range(String),
    /// The operating system has no randomness for the weights' salt.
    #[error("no randomness from the operating system: {0}")]
    Randomness(getrandom::Error),
    /// An error of this compiler.
    #[error("internal error in {stage}: {reason}; please report it")]
    Internal {
        /// Where.
        stage: &'static str,
        /// What.
        reason: String,
    },
}

impl CompileError {
    /// The nodes that cannot be compiled, all of them, if that is what is wrong.
    pub fn unsupported(&self) -> Option<&[UnsupportedNode]> {
        match self {
            Self::Unsupported(nodes) | Self::Import(ImportError::Unsupported(nodes)) => Some(nodes),
            _ => None,
        }
    }
}
