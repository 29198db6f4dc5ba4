//! The file: protobuf, external data, which inputs and outputs are meant, and the nodes in between.

use super::external::{self, embed_external_data};
use super::quiet::{one_line, quietly};
use super::{ImportError, ImportOptions, function, inputs, scope, versions};
use ir::ElementType;
use ir::tensor::Shape;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};
use tract_onnx::prelude::Framework;

/// A decoded model: complete, with the sizes of its inputs and the nodes that its outputs need.
pub(super) struct Model {
    pub proto: ModelProto,
    pub opset: i64,
    /// The inputs that the outputs depend on, in the file's order.
    pub inputs: Vec<FileInput>,
    pub outputs: Vec<String>,
    /// The nodes that the outputs need, operands before readers.
    pub order: Vec<usize>,
    /// [`ImportOptions::keeps_rounding`].
    pub keeps_rounding: bool,
    pub warnings: Vec<String>,
}

/// An input as the file declares it.
pub(super) struct FileInput {
    pub name: String,
    /// Its sizes; the first one is 1 where the file leaves it open.
    pub shape: Shape,
    /// What the first axis is called where the file leaves its size open.
    pub open: Option<String>,
    pub element: ElementType,
}

/// An input at the sizes that it is translated for.
pub(super) struct ModelInput {
    pub name: String,
    pub shape: Shape,
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
        embed_external_data(graph, folder)?;
        for function in &mut proto.functions {
            external::embed_in_nodes(&mut function.node, folder)?;
        }
        function::inline(&mut proto, bytes, opset)?;
        let Some(graph) = proto.graph.as_mut() else {
            return Err(malformed("not an ONNX model, or a damaged one: it has no graph"));
        };
        check_names(graph)?;
        let outputs = choose_outputs(graph, options)?;
        let order = needed_nodes(graph, &outputs)?;
        let inputs = inputs::declared(&used_inputs(graph, &order, &outputs)?, options)?;
        let keeps_rounding = options.keeps_rounding;
        Ok(Self { opset, inputs, outputs, order, keeps_rounding, warnings: Vec::new(), proto })
    }

    pub(super) fn graph(&self) -> &GraphProto {
        // `decode` refuses models without a graph.
        static EMPTY: std::sync::LazyLock<GraphProto> =
            std::sync::LazyLock::new(GraphProto::default);
        self.proto.graph.as_ref().unwrap_or(&EMPTY)
    }

    /// The inputs at the file's sizes, with this many entries along the first axis of those that the file
    /// leaves open there.
    pub(super) fn sized(&self, open: usize) -> Vec<ModelInput> {
        let sized = |input: &FileInput| {
            let mut shape = input.shape.clone();
            if let (Some(_), Some(first)) = (&input.open, shape.0.first_mut()) {
                *first = open;
            }
            ModelInput { name: input.name.clone(), shape }
        };
        self.inputs.iter().map(sized).collect()
    }

    /// Whether the file computes in 16 bits.
    pub(super) fn is_half(&self) -> bool {
        let halves = [DataType::Float16 as i32, DataType::Bfloat16 as i32];
        let graph = self.graph();
        let of_values = graph.input.iter().chain(&graph.output).filter_map(inputs::data_type);
        let of_tensors = graph.initializer.iter().map(|t| t.data_type);
        of_values.chain(of_tensors).any(|kind| halves.contains(&kind))
    }

    /// The element type that the file states for an output.
    pub(super) fn output_element(&self, name: &str) -> ElementType {
        let output = self.graph().output.iter().find(|o| o.name == name);
        output.and_then(inputs::element).unwrap_or_default()
    }

    /// The shapes of real-valued results that the file itself states, where their first axis has this
    /// many entries if the file leaves it open.
    pub(super) fn stated_shapes(&self, open: usize) -> HashMap<String, Shape> {
        let infos = self.graph().value_info.iter().filter(|i| inputs::is_real(i));
        infos.filter_map(|i| Some((i.name.clone(), inputs::stated_shape(i, open)?))).collect()
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
    if let Some(name) = names.find(|n| n.chars().any(char::is_control)) {
        return Err(malformed(format!("the name {name:?} has control characters")));
    }
    graph.node.iter().flat_map(scope::graphs).try_for_each(check_names)
}

fn opset(proto: &ModelProto) -> Result<i64, ImportError> {
    let main = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let version = proto.opset_import.iter().find(|o| main(&o.domain)).map(|o| o.version);
    match version {
        Some(version @ 1..=versions::NEWEST) => Ok(version),
        Some(version) => Err(ImportError::OperatorSet(version)),
        None => Err(malformed("not an ONNX model, or a damaged one: it names no operator set")),
    }
}

/// The outputs to compute: those that are named, otherwise all.
fn choose_outputs(graph: &GraphProto, options: &ImportOptions) -> Result<Vec<String>, ImportError> {
    let names: Vec<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    if let Some(wanted) = options.outputs.iter().find(|wanted| !names.contains(wanted)) {
        return Err(ImportError::NoSuchOutput { wanted: wanted.clone(), found: names.join(", ") });
    }
    let mut seen = HashSet::new();
    let is_chosen = |n: &String| options.outputs.is_empty() || options.outputs.contains(n);
    Ok(names.into_iter().filter(|n| is_chosen(n) && seen.insert(n.clone())).collect())
}

/// The nodes that the outputs depend on, operands before readers.
fn needed_nodes(graph: &GraphProto, outputs: &[String]) -> Result<Vec<usize>, ImportError> {
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
    let is_made = |o: &&String| given.contains(o.as_str()) || producer.contains_key(o.as_str());
    if let Some(output) = outputs.iter().find(|o| !is_made(o)) {
        return Err(malformed(format!("nothing produces the output {output:?}")));
    }
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let reads: Vec<Vec<&str>> = graph.node.iter().map(scope::reads).collect();
    let mut marks = vec![Mark::New; graph.node.len()];
    let mut order = Vec::new();
    // The first output's nodes come first.
    let made = outputs.iter().rev().filter_map(|o| producer.get(o.as_str()));
    let mut stack: Vec<(usize, usize)> = made.map(|&i| (i, 0)).collect();
    while let Some((i, position)) = stack.pop() {
        if position == 0 && marks[i] != Mark::New {
            continue;
        }
        marks[i] = Mark::Open;
        let node = &graph.node[i];
        let Some(&name) = reads[i].get(position) else {
            marks[i] = Mark::Done;
            order.push(i);
            continue;
        };
        stack.push((i, position + 1));
        match producer.get(name) {
            Some(&p) if marks[p] == Mark::New => stack.push((p, 0)),
            Some(&p) if marks[p] == Mark::Open => {
                return Err(malformed(format!("the value {name:?} depends on itself")));
            }
            Some(_) => {}
            None if given.contains(name) => {}
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

/// The inputs that the outputs depend on.
fn used_inputs<'a>(
    graph: &'a GraphProto,
    order: &[usize],
    outputs: &[String],
) -> Result<Vec<&'a ValueInfoProto>, ImportError> {
    let initialized: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let of_nodes = order.iter().flat_map(|&i| scope::reads(&graph.node[i]));
    let read: HashSet<&str> = of_nodes.chain(outputs.iter().map(String::as_str)).collect();
    let is_used = |i: &&ValueInfoProto| {
        !initialized.contains(i.name.as_str()) && read.contains(i.name.as_str())
    };
    let used: Vec<&ValueInfoProto> = graph.input.iter().filter(is_used).collect();
    match used.is_empty() {
        true => Err(malformed("the output does not depend on any input")),
        false => Ok(used),
    }
}
