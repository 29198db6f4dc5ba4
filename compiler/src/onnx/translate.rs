//! The walk over the nodes of a file: constants are folded, the rest goes to the table of operators,
//! and what is refused is collected.

use super::builder::Builder;
use super::constant::{self, Constant};
use super::file::Model;
use super::kind::{self, Kind, Kinds};
use super::node::{Call, Refusal, Value};
use super::operators::{self, Translation};
use super::{ImportError, Imported, UnsupportedNode};
use ir::ElementType;
use ir::graph::Op;
use ir::tensor::{Shape, Tensor};
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;
use tract_onnx::pb::NodeProto;

/// Translates a model as it stands.
pub(super) fn translate(model: &Model) -> Result<Imported, ImportError> {
    let mut builder = Builder::new(&model.input_name, &model.input_shape);
    builder.warnings = model.warnings.clone();
    let mut values = initial_values(model, &builder)?;
    let element = element_of_input(model)?;
    let mut kinds = Kinds::new(model.graph());
    kinds.set(&model.input_name, Kind::Of(element));
    if let Some(range) = element.input_range() {
        builder.ranges.set(builder.graph.input(), range);
    }
    let read: HashSet<&str> = reads(model);
    let shapes = LazyLock::new(|| model.stated_shapes());
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
    finish(builder, model, &values, &kinds)
}

fn element_of_input(model: &Model) -> Result<ElementType, ImportError> {
    let input = model.graph().input.iter().find(|i| i.name == model.input_name);
    input.map_or(Ok(ElementType::Real), |i| {
        kind::element_of_input(i)
            .map_err(|element| ImportError::InputElement { name: i.name.clone(), element })
    })
}

fn finish(
    mut builder: Builder,
    model: &Model,
    values: &HashMap<String, Value>,
    kinds: &Kinds,
) -> Result<Imported, ImportError> {
    builder.name.clone_from(&model.output_name);
    let value = values.get(&model.output_name).unwrap_or(&Value::Unknown);
    match kind::output(&mut builder, value, kinds.get(&model.output_name)) {
        Ok(Value::Node(id)) => builder.graph.set_output(id),
        Ok(Value::Constant(_)) => {
            return Err(ImportError::Malformed("the output does not depend on the input".into()));
        }
        Ok(Value::Unknown) => {
            return Err(ImportError::Internal("the output was not translated".into()));
        }
        Err(Refusal { reason, advice }) => {
            let (name, operator) = (model.output_name.clone(), "output".to_owned());
            let node = UnsupportedNode { name, operator, reason, advice };
            return Err(ImportError::Unsupported(vec![node]));
        }
    }
    if let Some(note) = builder.steps.note() {
        builder.warn(note);
    }
    builder.graph.remove_dead();
    builder.graph.verify().map_err(|e| ImportError::Internal(e.to_string()))?;
    Ok(Imported {
        graph: builder.graph,
        input_name: model.input_name.clone(),
        input_element: kinds.get(&model.input_name).element().unwrap_or_default(),
        output_name: model.output_name.clone(),
        warnings: builder.warnings,
    })
}

fn initial_values(model: &Model, builder: &Builder) -> Result<HashMap<String, Value>, ImportError> {
    let needed = reads(model);
    let mut values = HashMap::new();
    for tensor in model.graph().initializer.iter().filter(|t| needed.contains(t.name.as_str())) {
        let constant = Constant::load(tensor).map_err(ImportError::Malformed)?;
        values.insert(tensor.name.clone(), Value::Constant(constant));
    }
    values.insert(model.input_name.clone(), Value::Node(builder.graph.input()));
    Ok(values)
}

/// Every value that a needed node or the model's output reads.
fn reads(model: &Model) -> HashSet<&str> {
    let nodes = model.order.iter().map(|&i| &model.graph().node[i]);
    let mut names: HashSet<&str> = nodes.flat_map(|n| &n.input).map(String::as_str).collect();
    names.insert(&model.output_name);
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
    let is_output = node.output.first() == Some(&model.output_name);
    let of_operands = kinds.of_operands(node, &operands);
    let call = Call { proto: node, opset: model.opset, operands, kinds: of_operands, is_output };
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
