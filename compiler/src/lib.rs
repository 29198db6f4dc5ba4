//! `polyc`: ONNX bytes → [`ir::graph::Graph`] → passes → [`ir::plan::Plan`].

pub mod onnx;
