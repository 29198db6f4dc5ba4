//! `polyc`: ONNX bytes → [`ir::graph::Graph`] → passes → [`ir::plan::Plan`].

pub mod error;
pub mod fit;
pub mod lower;
pub mod onnx;
pub mod passes;
