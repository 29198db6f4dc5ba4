//! The file: protobuf, external data, which input and output are meant, and the nodes in between.

use super::external::embed_external_data;
use super::quiet::{one_line, quietly};
use super::{ImportError, ImportOptions, MAX_VALUE};
use ir::tensor::Shape;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dimension;
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto, TypeProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::Framework;

/// A decoded model: complete, with one input of known shape and one output.
#[derive(Clone)]
pub(super) struct Model {
    pub proto: ModelProto,
    pub opset: i64,
    pub input_name: String,
    pub input_shape: Shape,
    pub output_name: String,
    /// The nodes that the output needs, operands before readers.
    pub order: Vec<usize>,
    pub warnings: Vec<String>,
}

impl Model {
    pub(super) fn open(path: &Path, options: &ImportOptions) -> Result<Self, ImportError> {
        let bytes = std::fs::read(path).map_err(|e| ImportError::Unreadable {
            path: path.to_owned(),
            reason: e.kind().to_string(),
        })?;
        Self::decode(&bytes, path.parent(), options)
    }

    pub(super) fn decode(
        bytes: &[u8],
        folder: Option<&Path>,
        options: &ImportOptions,
    ) -> Result<Self, ImportError> {
        let mut proto = quietly(|| tract_onnx::onnx().proto_model_for_read(&mut &bytes[..]))
            .and_then(|r| r.map_err(|e| one_line(&e.to_string())))
            .map_err(|e| malformed(format!("not an ONNX model, or a damaged one: {e}")))?;
        let opset = opset(&proto)?;
        let Some(graph) = proto.graph.as_mut().filter(|g| !g.output.is_empty()) else {
            return Err(malformed("not an ONNX model, or a damaged one: it has no graph"));
        };
        check_names(graph)?;
        embed_external_data(graph, folder)?;
        let mut warnings = Vec::new();
        let output_name = choose_output(graph, options, &mut warnings)?;
        let order = needed_nodes(graph, &output_name)?;
        let input = choose_input(graph, &order, &output_name)?;
        let input_shape = concrete_shape(input)?;
        let input_name = input.name.clone();
        Ok(Self { opset, input_name, input_shape, output_name, order, warnings, proto })
    }

    pub(super) fn graph(&self) -> &GraphProto {
        // `decode` refuses models without a graph.
        static EMPTY: std::sync::LazyLock<GraphProto> =
            std::sync::LazyLock::new(GraphProto::default);
        self.proto.graph.as_ref().unwrap_or(&EMPTY)
    }

    /// The shapes of real-valued results that the file itself states, with batch 1.
    pub(super) fn stated_shapes(&self) -> HashMap<String, Shape> {
        let infos = self.graph().value_info.iter().filter(|i| is_real(i));
        infos.filter_map(|i| Some((i.name.clone(), concrete_shape(i).ok()?))).collect()
    }

    /// The leading dimension of the input, if it is a number above 1: a batch size, perhaps.
    pub(super) fn fixed_batch(&self) -> Option<usize> {
        self.input_shape.0.first().copied().filter(|&b| b > 1)
    }

    /// The model with batch 1 instead of `batch`, also where a `Reshape` spells the batch out; `None`
    /// if the output does not seem to have this batch.
    pub(super) fn with_batch_of_one(&self, batch: usize) -> Option<Self> {
        let output = self.graph().output.iter().find(|o| o.name == self.output_name)?;
        if let Some(leading) = dimensions(output).and_then(|d| d.first().cloned()) {
            let Some(Dimension::DimValue(leading)) = leading else { return None };
            if usize::try_from(leading) != Ok(batch) {
                return None;
            }
        }
        let mut model = self.clone();
        model.input_shape.0[0] = 1;
        let graph = model.proto.graph.as_mut()?;
        let targets: HashSet<String> = graph
            .node
            .iter()
            .filter(|n| n.op_type == "Reshape")
            .filter_map(|n| n.input.get(1).cloned())
            .collect();
        for tensor in graph.initializer.iter_mut().filter(|t| targets.contains(&t.name)) {
            replace_leading(tensor, batch);
        }
        let constants = graph.node.iter_mut().filter(|n| {
            n.op_type == "Constant" && n.output.first().is_some_and(|o| targets.contains(o))
        });
        for attribute in constants.flat_map(|n| &mut n.attribute) {
            if let Some(tensor) = &mut attribute.t {
                replace_leading(tensor, batch);
            }
            if let Some(first) = attribute.ints.first_mut().filter(|v| **v == batch as i64) {
                *first = 1;
            }
        }
        set_leading_dimension(graph.input.iter_mut().find(|i| i.name == self.input_name)?);
        set_leading_dimension(graph.output.iter_mut().find(|o| o.name == self.output_name)?);
        Some(model)
    }
}

fn malformed(reason: impl Into<String>) -> ImportError {
    ImportError::Malformed(reason.into())
}

/// Refuses names that would break the lines of errors and reports.
fn check_names(graph: &GraphProto) -> Result<(), ImportError> {
    let nodes = graph
        .node
        .iter()
        .flat_map(|n| n.input.iter().chain(&n.output).chain([&n.name, &n.op_type, &n.domain]));
    let values = graph.input.iter().chain(&graph.output).map(|v| &v.name);
    let mut names = nodes.chain(values).chain(graph.initializer.iter().map(|t| &t.name));
    match names.find(|n| n.chars().any(char::is_control)) {
        Some(name) => Err(malformed(format!("the name {name:?} has control characters"))),
        None => Ok(()),
    }
}

fn opset(proto: &ModelProto) -> Result<i64, ImportError> {
    let main = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let version = proto.opset_import.iter().find(|o| main(&o.domain)).map(|o| o.version);
    match version {
        Some(version @ 7..=25) => Ok(version),
        Some(version) => Err(ImportError::OperatorSet(version)),
        None => Err(malformed("not an ONNX model, or a damaged one: it names no operator set")),
    }
}

fn choose_output(
    graph: &GraphProto,
    options: &ImportOptions,
    warnings: &mut Vec<String>,
) -> Result<String, ImportError> {
    let names: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    match &options.output {
        Some(wanted) if names.contains(&wanted.as_str()) => Ok(wanted.clone()),
        Some(wanted) => {
            Err(ImportError::NoSuchOutput { wanted: wanted.clone(), found: names.join(", ") })
        }
        None => {
            if names.len() > 1 {
                warnings.push(format!(
                    "the model has {} outputs; taking {}, the others are {} (choose with --output-name NAME)",
                    names.len(),
                    names[0],
                    names[1..].join(", ")
                ));
            }
            Ok(names[0].to_owned())
        }
    }
}

/// The nodes that `output` depends on, operands before readers.
fn needed_nodes(graph: &GraphProto, output: &str) -> Result<Vec<usize>, ImportError> {
    let mut producer: HashMap<&str, usize> = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            if producer.insert(name, i).is_some() {
                return Err(malformed(format!("two nodes produce the value {name:?}")));
            }
        }
    }
    let given: HashSet<&str> = graph
        .input
        .iter()
        .map(|i| i.name.as_str())
        .chain(graph.initializer.iter().map(|t| t.name.as_str()))
        .collect();
    if !given.contains(output) && !producer.contains_key(output) {
        return Err(malformed(format!("nothing produces the output {output:?}")));
    }
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; graph.node.len()];
    let mut order = Vec::new();
    let mut stack: Vec<(usize, usize)> =
        producer.get(output).map(|&i| (i, 0)).into_iter().collect();
    while let Some((i, position)) = stack.pop() {
        marks[i] = Mark::Open;
        let node = &graph.node[i];
        let Some(name) = node.input.get(position) else {
            marks[i] = Mark::Done;
            order.push(i);
            continue;
        };
        stack.push((i, position + 1));
        match producer.get(name.as_str()) {
            Some(&p) if marks[p] == Mark::New => stack.push((p, 0)),
            Some(&p) if marks[p] == Mark::Open => {
                return Err(malformed(format!("the value {name:?} depends on itself")));
            }
            Some(_) => {}
            None if name.is_empty() || given.contains(name.as_str()) => {}
            None => {
                let reader = if node.name.is_empty() { &node.op_type } else { &node.name };
                return Err(malformed(format!(
                    "node {reader} reads the value {name:?}, which nothing produces"
                )));
            }
        }
    }
    Ok(order)
}

fn choose_input<'a>(
    graph: &'a GraphProto,
    order: &[usize],
    output: &str,
) -> Result<&'a ValueInfoProto, ImportError> {
    let initialized: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let mut read: HashSet<&str> =
        order.iter().flat_map(|&i| &graph.node[i].input).map(String::as_str).collect();
    read.insert(output);
    let inputs: Vec<&ValueInfoProto> =
        graph.input.iter().filter(|i| !initialized.contains(i.name.as_str())).collect();
    let used: Vec<&ValueInfoProto> =
        inputs.iter().copied().filter(|i| read.contains(i.name.as_str())).collect();
    match used.as_slice() {
        [only] => Ok(only),
        [] => Err(malformed("the output does not depend on any input")),
        _ => Err(ImportError::SeveralInputs(
            used.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", "),
        )),
    }
}

/// The dimensions of a value, if the file states them.
fn dimensions(value: &ValueInfoProto) -> Option<Vec<Option<Dimension>>> {
    let TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. } =
        value.r#type.as_ref()?
    else {
        return None;
    };
    Some(tensor.shape.as_ref()?.dim.iter().map(|d| d.value.clone()).collect())
}

fn is_real(value: &ValueInfoProto) -> bool {
    let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) = &value.r#type
    else {
        return false;
    };
    let real = [DataType::Float, DataType::Double, DataType::Float16, DataType::Bfloat16];
    real.iter().any(|&kind| kind as i32 == tensor.elem_type)
}

fn set_leading_dimension(value: &mut ValueInfoProto) {
    if let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) =
        &mut value.r#type
        && let Some(leading) = tensor.shape.as_mut().and_then(|s| s.dim.first_mut())
    {
        leading.value = Some(Dimension::DimValue(1));
    }
}

/// The input's shape; a leading dimension that is no number is the batch, which is 1.
fn concrete_shape(input: &ValueInfoProto) -> Result<Shape, ImportError> {
    let refuse = |reason: String| ImportError::InputShape { name: input.name.clone(), reason };
    let dims = dimensions(input).ok_or_else(|| refuse("has no shape in the file".into()))?;
    let mut shape = Vec::with_capacity(dims.len());
    for (axis, dim) in dims.into_iter().enumerate() {
        shape.push(match dim {
            Some(Dimension::DimValue(value)) if value > 0 => value as usize,
            _ if axis == 0 => 1,
            Some(Dimension::DimParam(name)) => {
                return Err(refuse(format!("has the symbolic dimension {name:?} on axis {axis}")));
            }
            _ => return Err(refuse(format!("has an unknown dimension on axis {axis}"))),
        });
    }
    let shape = Shape(shape);
    if !shape.is_bounded() || shape.elements() > MAX_VALUE {
        return Err(refuse(format!("has the shape {shape}, which is too large")));
    }
    Ok(shape)
}

fn replace_leading(tensor: &mut TensorProto, batch: usize) {
    let batch = batch as i64;
    if let Some(first) = tensor.int64_data.first_mut().filter(|v| **v == batch) {
        *first = 1;
    }
    if let Some(first) = tensor.raw_data.get_mut(..8).filter(|b| **b == batch.to_le_bytes()) {
        first.copy_from_slice(&1i64.to_le_bytes());
    }
}
