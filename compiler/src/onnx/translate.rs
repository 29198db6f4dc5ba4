//! A file as a graph: its inputs and constants, the walk over its nodes, its outputs.

use super::builder::Builder;
use super::constant::Constant;
use super::file::Model;
use super::kind::{self, Kind, Kinds};
use super::node::{Refusal, Value, refuse};
use super::walk::{Walk, node_name};
use super::{ImportError, Traced, UnsupportedNode, operators, scope};
use ir::graph::{Graph, NodeId, Op};
use ir::tensor::Shape;
use std::collections::{HashMap, HashSet};

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
    builder.keeps_rounding = model.keeps_rounding;
    let mut values = initial_values(model)?;
    let mut kinds = Kinds::new(model.graph());
    for (input, node) in model.inputs.iter().zip(nodes) {
        values.insert(input.name.clone(), Value::Node(node));
        kinds.set(&input.name, Kind::Of(input.element));
        if let Some(range) = input.element.input_range() {
            builder.ranges.set(node, range);
        }
    }
    let mut walk = Walk::new(model, builder, values, kinds, model.stated_shapes(rows));
    walk.run()?;
    finish(walk.builder, model, walk.values, &walk.kinds, items)
}

/// A graph with the node of every value of the file that depends on the inputs.
pub(super) struct Translated {
    pub graph: Graph,
    /// The outputs that depend on the inputs, in order.
    pub outputs: Vec<(String, NodeId)>,
    pub values: HashMap<String, NodeId>,
    pub warnings: Vec<String>,
    /// Whether the file rounds to quantisation steps, which is left out.
    pub rounds: bool,
}

impl Translated {
    /// The values whose nodes are still there, in the file's order.
    pub(super) fn trace(&self, model: &Model) -> Vec<Traced> {
        let live: HashSet<NodeId> = self.graph.order().into_iter().collect();
        let traced = |value: &str, node: &str, operator: &str| {
            let id = self.values.get(value).copied().filter(|id| live.contains(id))?;
            let [value, node, operator] = [value, node, operator].map(str::to_owned);
            Some(Traced { value, node, operator, id })
        };
        let inputs = model.inputs.iter().map(|i| traced(&i.name, &i.name, "input"));
        let nodes = model.order.iter().map(|&i| &model.graph().node[i]);
        let of_nodes = nodes.flat_map(|n| {
            let operator = operators::qualified(&n.domain, &n.op_type);
            n.output.iter().map(move |o| traced(o, node_name(n), &operator)).collect::<Vec<_>>()
        });
        inputs.chain(of_nodes).flatten().collect()
    }

    /// Nodes took the place of others.
    pub(super) fn replace(&mut self, replaced: &HashMap<NodeId, NodeId>) {
        let ids = self.values.values_mut().chain(self.outputs.iter_mut().map(|(_, id)| id));
        for id in ids {
            if let Some(new) = replaced.get(id) {
                *id = *new;
            }
        }
    }
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
        let made = match value {
            Value::Sequence(_) => Err(refuse("it is a sequence", "expected a tensor")),
            _ => kind::output(&mut builder, value, kinds.get(name)),
        };
        match made {
            Ok(Value::Node(id)) => outputs.push((name.clone(), id)),
            Ok(Value::Constant(_)) => builder
                .warn(format!("the output {name} does not depend on the input; it is left out")),
            Ok(Value::Unknown | Value::Sequence(_)) => {
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
    let left_out = builder.steps.note();
    let rounds = left_out.is_some();
    left_out.into_iter().for_each(|note| builder.warn(note));
    builder.graph.remove_dead();
    builder.graph.verify().map_err(|e| ImportError::Internal(e.to_string()))?;
    let node = |(name, value)| match value {
        Value::Node(id) => Some((name, id)),
        _ => None,
    };
    let values = values.into_iter().filter_map(node).collect();
    Ok(Translated { graph: builder.graph, outputs, values, warnings: builder.warnings, rounds })
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
    let mut names: HashSet<&str> = nodes.flat_map(scope::reads).collect();
    names.extend(model.outputs.iter().map(String::as_str));
    names
}
