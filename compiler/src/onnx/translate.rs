//! The walk over the nodes of a file: constants are folded, the rest goes to the table of operators,
//! and what is refused is collected.

use super::builder::Builder;
use super::constant::{self, Constant};
use super::file::Model;
use super::kind::{self, Kind, Kinds};
use super::node::{Call, Refusal, Value};
use super::operators::{self, Translation};
use super::{ImportError, UnsupportedNode};
use ir::graph::{Graph, NodeId, Op};
use ir::tensor::{Shape, Tensor};
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use tract_onnx::pb::NodeProto;

/// Translates a model whose inputs have `rows` entries along the first axis where the file leaves that
/// open. `apart` says that inputs and outputs are made of as many rows, one item each, instead of one item.
pub(super) fn translate(
    model: &Model,
    rows: usize,
    apart: bool,
) -> Result<Translated, ImportError> {
    let inputs = model.sized(rows);
    let items = if apart { inputs[0].shape.0[0] } else { 1 };
    let (mut builder, nodes) = Builder::new(&inputs, items)
        .map_err(|r| ImportError::Malformed(format!("the inputs together: {}", r.reason)))?;
    builder.warnings = model.warnings.clone();
    let mut values = initial_values(model)?;
    let mut kinds = Kinds::new(model.graph());
    for (input, node) in model.inputs.iter().zip(nodes) {
        values.insert(input.name.clone(), Value::Node(node));
        kinds.set(&input.name, Kind::Of(input.element));
        if let Some(range) = input.element.input_range() {
            builder.ranges.set(node, range);
        }
    }
    let read: HashSet<&str> = reads(model);
    let shapes = LazyLock::new(|| model.stated_shapes(rows));
    let mut refused = Vec::new();
    for &index in &model.order {
        let node = &model.graph().node[index];
        builder.name = node_name(node).to_owned();
        let results = match results(&mut builder, node, &values, &kinds, model) {
            Ok((results, of_results)) => {
                kinds.note(node, &results, &of_results);
                results
            }
            Err(refusal) => {
                refused.extend(refusal.map(|r| unsupported(node, r)));
                for name in &node.output {
                    let shape = shapes.get(name).cloned();
                    let shape = shape.or_else(|| kept_shape(&builder, node, &values));
                    values.insert(name.clone(), placeholder(&mut builder, shape));
                }
                continue;
            }
        };
        for name in node.output.iter().skip(results.len()) {
            if read.contains(name.as_str()) {
                refused.push(unsupported(node, extra_output(name)));
            }
            values.insert(name.clone(), Value::Unknown);
        }
        values.extend(node.output.iter().cloned().zip(results));
    }
    if !refused.is_empty() {
        return Err(ImportError::Unsupported(refused));
    }
    finish(builder, model, values, &kinds, items)
}

/// A graph with the node of every value of the file that depends on the inputs.
pub(super) struct Translated {
    pub graph: Graph,
    /// The outputs that depend on the inputs, in order.
    pub outputs: Vec<(String, NodeId)>,
    pub values: HashMap<String, NodeId>,
    pub warnings: Vec<String>,
}

/// Makes the outputs the graph's: one as it is, several as rows joined along axis 1.
fn finish(
    mut builder: Builder,
    model: &Model,
    values: HashMap<String, Value>,
    kinds: &Kinds,
    items: usize,
) -> Result<Translated, ImportError> {
    let mut outputs = Vec::new();
    for name in &model.outputs {
        builder.name.clone_from(name);
        let value = values.get(name).unwrap_or(&Value::Unknown);
        match kind::output(&mut builder, value, kinds.get(name)) {
            Ok(Value::Node(id)) => outputs.push((name.clone(), id)),
            Ok(Value::Constant(_)) => builder
                .warn(format!("the output {name} does not depend on the input; it is left out")),
            Ok(Value::Unknown) => {
                return Err(ImportError::Internal("an output was not translated".into()));
            }
            Err(Refusal { reason, advice }) => {
                let (name, operator) = (name.clone(), "output".to_owned());
                let node = UnsupportedNode { name, operator, reason, advice };
                return Err(ImportError::Unsupported(vec![node]));
            }
        }
    }
    match outputs.as_slice() {
        [] => {
            return Err(ImportError::Malformed("the output does not depend on the input".into()));
        }
        [(_, only)] => builder.graph.set_output(*only),
        several => {
            let joined = join(&mut builder, several, items).map_err(|r| {
                ImportError::Malformed(format!("the outputs together: {}", r.reason))
            })?;
            builder.graph.set_output(joined);
        }
    }
    if let Some(note) = builder.steps.note() {
        builder.warn(note);
    }
    builder.graph.remove_dead();
    builder.graph.verify().map_err(|e| ImportError::Internal(e.to_string()))?;
    let node = |(name, value)| match value {
        Value::Node(id) => Some((name, id)),
        _ => None,
    };
    let values = values.into_iter().filter_map(node).collect();
    Ok(Translated { graph: builder.graph, outputs, values, warnings: builder.warnings })
}

fn join(
    builder: &mut Builder,
    outputs: &[(String, NodeId)],
    items: usize,
) -> Result<NodeId, Refusal> {
    let mut rows = Vec::new();
    let mut length = 0;
    for (name, id) in outputs {
        builder.name = name.clone();
        let elements = builder.shape(*id).elements();
        rows.push(builder.reshape(*id, &[items, elements / items])?);
        length += elements / items;
    }
    builder.name = outputs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    builder.add(Op::Concat(1), Shape::new([items, length]), &rows)
}

fn initial_values(model: &Model) -> Result<HashMap<String, Value>, ImportError> {
    let needed = reads(model);
    let mut values = HashMap::new();
    for tensor in model.graph().initializer.iter().filter(|t| needed.contains(t.name.as_str())) {
        let constant = Constant::load(tensor).map_err(ImportError::Malformed)?;
        values.insert(tensor.name.clone(), Value::Constant(constant));
    }
    Ok(values)
}

/// Every value that a needed node or the model's output reads.
fn reads(model: &Model) -> HashSet<&str> {
    let nodes = model.order.iter().map(|&i| &model.graph().node[i]);
    let mut names: HashSet<&str> = nodes.flat_map(|n| &n.input).map(String::as_str).collect();
    names.extend(model.outputs.iter().map(String::as_str));
    names
}

/// The results of a node and what their numbers are; `Err(None)` where nothing can be said because an operand is unknown.
fn results(
    builder: &mut Builder,
    node: &NodeProto,
    values: &HashMap<String, Value>,
    kinds: &Kinds,
    model: &Model,
) -> Result<(Vec<Value>, Vec<Kind>), Option<Refusal>> {
    let operands: Vec<Option<Value>> = node.input.iter().map(|n| values.get(n).cloned()).collect();
    let translation = operators::find(&node.domain, &node.op_type);
    let of_operands = kinds.of_operands(node, &operands);
    let call = Call { proto: node, opset: model.opset, operands, kinds: of_operands };
    let constants: Option<Vec<Option<Constant>>> = call
        .operands
        .iter()
        .map(|o| match o {
            None => Some(None),
            Some(Value::Constant(constant)) => Some(Some(constant.clone())),
            Some(_) => None,
        })
        .collect();
    if let Some(constants) =
        constants.filter(|_| operators::is_foldable(&node.domain, &node.op_type))
    {
        return match constant::evaluate(node, model.opset, &constants) {
            Ok(results) => {
                let kinds = if call.kinds.iter().all(|k| k.element().is_some()) {
                    Vec::new()
                } else {
                    kind::of_results(&call).map_err(Some)?
                };
                Ok((results.into_iter().map(Value::Constant).collect(), kinds))
            }
            Err(reason) => {
                let advice = "fold the model's constants before export";
                Err(Some(super::node::refuse(reason, advice)))
            }
        };
    }
    let translation = translation.map_err(Some)?;
    if call.operands.iter().flatten().any(|o| matches!(o, Value::Unknown)) {
        return Err(None);
    }
    translated(builder, &call, translation).map_err(Some)
}

fn translated(
    builder: &mut Builder,
    call: &Call,
    translation: Translation,
) -> Result<(Vec<Value>, Vec<Kind>), Refusal> {
    let mut kinds = kind::of_results(call)?;
    let results = match translation {
        Translation::One(translate) => vec![Value::Node(translate(builder, call)?)],
        Translation::Many(translate) => translate(builder, call)?,
        Translation::Typed(translate) => {
            let (results, own): (Vec<_>, Vec<_>) = translate(builder, call)?.into_iter().unzip();
            if kinds.is_empty() {
                kinds = own;
            }
            results
        }
    };
    kind::check_results(builder, call, &results, &kinds)?;
    Ok((results, kinds))
}

fn extra_output(name: &str) -> Refusal {
    super::node::refuse(
        format!("its result {name:?} is not supported"),
        "change the model so that only the first result is used",
    )
}

/// The shape of the result of a refused operator that is known not to change shapes.
fn kept_shape(
    builder: &Builder,
    node: &NodeProto,
    values: &HashMap<String, Value>,
) -> Option<Shape> {
    match values.get(node.input.first()?)? {
        Value::Node(id) if operators::keeps_shape(&node.op_type) => Some(builder.shape(*id)),
        _ => None,
    }
}

/// Stands for the result of a refused node, so that the nodes behind it are checked as well.
fn placeholder(builder: &mut Builder, shape: Option<Shape>) -> Value {
    let Some(shape) = shape else { return Value::Unknown };
    let zeros = Op::Constant(Tensor::zeros(shape.clone()));
    builder.add(zeros, shape.clone(), &[]).map_or(Value::Unknown, Value::Node)
}

fn node_name(node: &NodeProto) -> &str {
    if !node.name.is_empty() {
        return &node.name;
    }
    node.output.iter().find(|n| !n.is_empty()).map_or(node.op_type.as_str(), String::as_str)
}

fn unsupported(node: &NodeProto, refusal: Refusal) -> UnsupportedNode {
    UnsupportedNode {
        name: node_name(node).to_owned(),
        operator: operators::qualified(&node.domain, &node.op_type),
        reason: refusal.reason,
        advice: refusal.advice,
    }
}
