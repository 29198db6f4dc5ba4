//! Import of ONNX models.
