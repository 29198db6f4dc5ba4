//! `polyc`: ONNX bytes → [`ir::graph::Graph`] → passes → fit → [`ir::plan::Plan`].

pub mod choice;
mod constants;
pub mod data;
pub mod error;
pub mod evaluate;
pub mod fit;
pub mod lower;
pub mod onnx;
pub mod oracle;
pub mod passes;
mod piecewise;
mod pipeline;
pub mod ports;
pub mod report;
pub mod scales;
pub mod search;
pub mod task;
pub mod text;

pub use pipeline::{
    CompileOptions, Compiled, Prepared, adapt, compile, complete_squares, prepare,
    prepare_observed, prepare_plain,
};
