//! Small ONNX models with elements of any type, built field by field.

// Every test file uses another part of it.
#![allow(dead_code)]

use ir::graph::evaluate_batch;
use ir::tensor::Tensor;
use polyc::onnx::{ImportError, ImportOptions, Imported, import_bytes};
use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

fn value(name: &str, element: DataType, dims: &[i64]) -> ValueInfoProto {
    let dim =
        |&d: &i64| Dimension { value: Some(dimension::Value::DimValue(d)), ..Dimension::default() };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: element as i32, shape: Some(shape) };
    let kind =
        TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..ValueInfoProto::default() }
}

/// A constant of a type from the bytes of its elements.
pub fn raw(name: &str, element: DataType, dims: &[i64], bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: element as i32,
        raw_data: bytes,
        ..TensorProto::default()
    }
}

/// A constant of floats.
pub fn reals(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    raw(name, DataType::Float, dims, data.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// A constant of bytes with a sign.
pub fn int8(name: &str, dims: &[i64], data: &[i8]) -> TensorProto {
    raw(name, DataType::Int8, dims, data.iter().map(|&v| v as u8).collect())
}

/// A constant of bytes.
pub fn uint8(name: &str, dims: &[i64], data: &[u8]) -> TensorProto {
    raw(name, DataType::Uint8, dims, data.to_vec())
}

/// A constant of 32-bit integers.
pub fn int32(name: &str, dims: &[i64], data: &[i32]) -> TensorProto {
    raw(name, DataType::Int32, dims, data.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// A node named after its first output.
pub fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        name: outputs[0].into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        ..NodeProto::default()
    }
}

/// A node of ONNX Runtime's domain.
pub fn microsoft(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto { domain: "com.microsoft".into(), ..node(operator, inputs, &[output]) }
}

/// The node with an integer attribute.
pub fn with_int(mut node: NodeProto, name: &str, i: i64) -> NodeProto {
    let r#type = AttributeType::Int as i32;
    node.attribute.push(AttributeProto { name: name.into(), r#type, i, ..Default::default() });
    node
}

/// The node with an attribute of integers.
pub fn with_ints(mut node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
    let (r#type, ints) = (AttributeType::Ints as i32, ints.to_vec());
    node.attribute.push(AttributeProto { name: name.into(), r#type, ints, ..Default::default() });
    node
}

/// A model from `x`, whose elements have a type, to `y`.
pub fn model(
    input: (DataType, &[i64]),
    nodes: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
) -> ModelProto {
    let graph = GraphProto {
        node: nodes,
        initializer,
        input: vec![value("x", input.0, input.1)],
        output: vec![ValueInfoProto { name: "y".into(), ..ValueInfoProto::default() }],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: 10,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 21 }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// The imported model.
pub fn import(model: &ModelProto) -> Result<Imported, ImportError> {
    import_bytes(&model.encode_to_vec(), &ImportOptions::default())
}

/// The output for an input.
pub fn run(model: &ModelProto, x: &[f32]) -> Vec<f32> {
    let imported = import(model).unwrap_or_else(|e| panic!("{e}"));
    let shape = imported.graph.node(imported.graph.input()).shape.clone();
    evaluate_batch(&imported.graph, &[Tensor::new(shape, x.to_vec())]).remove(0).data
}

/// Why a model is refused.
pub fn refusal(model: &ModelProto) -> String {
    match import(model) {
        Ok(_) => panic!("the model was imported"),
        Err(error) => error.to_string(),
    }
}
