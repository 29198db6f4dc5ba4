//! The model's own functions, whose calls are replaced by their bodies.

use super::operators::qualified;
use super::scope::{FreshNames, Renaming, graphs_mut};
use super::{ImportError, UnsupportedNode, versions};
use prost::Message;
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
};

/// The deepest call of a function by a function.
const MAX_DEPTH: usize = 32;
/// The most nodes of a model whose functions are inlined.
const MAX_NODES: usize = 1 << 18;
/// The most bytes of inlined bodies.
const MAX_BYTES: usize = 1 << 28;

/// Fields of functions that tract's protobuf does not know.
#[derive(Clone, PartialEq, Message)]
struct ModelRest {
    #[prost(message, repeated, tag = "25")]
    functions: Vec<FunctionRest>,
}

#[derive(Clone, PartialEq, Message)]
struct FunctionRest {
    /// Attributes that have a default value.
    #[prost(message, repeated, tag = "11")]
    defaults: Vec<AttributeProto>,
    #[prost(string, tag = "13")]
    overload: String,
}

struct Function {
    proto: FunctionProto,
    rest: FunctionRest,
}

struct Inliner {
    functions: Vec<Function>,
    /// By domain and name: the function, or `None` where there are several.
    by_name: HashMap<(String, String), Option<usize>>,
    opset: i64,
    names: FreshNames,
    nodes: usize,
    bytes: usize,
    refused: Vec<UnsupportedNode>,
}

/// Replaces calls of the model's functions by their bodies, in nested graphs too. `bytes` is the whole file.
///
/// # Errors
/// If functions call themselves or make too many nodes, or if a call does not fit its function.
pub(super) fn inline(proto: &mut ModelProto, bytes: &[u8], opset: i64) -> Result<(), ImportError> {
    let functions = std::mem::take(&mut proto.functions);
    let Some(graph) = proto.graph.as_mut().filter(|_| !functions.is_empty()) else {
        return Ok(());
    };
    let rest = ModelRest::decode(bytes).map_err(|e| ImportError::Malformed(e.to_string()))?;
    let functions: Vec<Function> = functions
        .into_iter()
        .zip(rest.functions)
        .map(|(proto, rest)| Function { proto, rest })
        .collect();
    let mut by_name = HashMap::new();
    for (i, function) in functions.iter().enumerate() {
        let name = key(function.proto.domain(), function.proto.name());
        by_name.entry(name).and_modify(|f| *f = None).or_insert(Some(i));
    }
    let (names, refused) = (FreshNames::new(graph), Vec::new());
    let mut inliner = Inliner { functions, by_name, opset, names, nodes: 0, bytes: 0, refused };
    inliner.graph(graph, 0)?;
    if inliner.refused.is_empty() { Ok(()) } else { Err(ImportError::Unsupported(inliner.refused)) }
}

/// The two names of ONNX's own domain are one.
fn key(domain: &str, name: &str) -> (String, String) {
    (if domain == "ai.onnx" { "" } else { domain }.to_owned(), name.to_owned())
}

impl Inliner {
    fn graph(&mut self, graph: &mut GraphProto, depth: usize) -> Result<(), ImportError> {
        let nodes = std::mem::take(&mut graph.node);
        for node in nodes {
            self.node(node, &mut graph.node, depth)?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        mut node: NodeProto,
        out: &mut Vec<NodeProto>,
        depth: usize,
    ) -> Result<(), ImportError> {
        for graph in graphs_mut(&mut node) {
            self.graph(graph, depth)?;
        }
        let Some(&function) = self.by_name.get(&key(&node.domain, &node.op_type)) else {
            self.nodes += 1;
            out.push(node);
            return Ok(());
        };
        match function.ok_or_else(|| "the file has several functions of this name".to_owned()) {
            Ok(function)
                if depth < MAX_DEPTH && self.nodes < MAX_NODES && self.bytes < MAX_BYTES =>
            {
                match self.body(function, &node) {
                    Ok(body) => {
                        for inner in body {
                            self.node(inner, out, depth + 1)?;
                        }
                    }
                    Err(reason) => self.refuse(&node, reason),
                }
                Ok(())
            }
            Ok(_) => Err(ImportError::Malformed(format!(
                "the model's functions call each other more than {MAX_DEPTH} deep or make more than {MAX_NODES} nodes"
            ))),
            Err(reason) => {
                self.refuse(&node, reason);
                Ok(())
            }
        }
    }

    fn refuse(&mut self, node: &NodeProto, reason: String) {
        let name = [&node.name].into_iter().chain(&node.output).find(|n| !n.is_empty());
        self.refused.push(UnsupportedNode {
            name: name.unwrap_or(&node.op_type).clone(),
            operator: qualified(&node.domain, &node.op_type),
            reason,
            advice: "inline the model's functions before export (onnx.inliner)".into(),
        });
    }

    /// The nodes of a call, with the names that they have around it.
    fn body(&mut self, function: usize, call: &NodeProto) -> Result<Vec<NodeProto>, String> {
        let Function { proto, rest } = &self.functions[function];
        check_opset(proto, self.opset)?;
        if call.input.len() > proto.input.len() || call.output.len() > proto.output.len() {
            return Err("it has more operands or results than its function".into());
        }
        let prefix = self.names.body();
        let mut renaming = Renaming::default();
        let left_out = String::new();
        for (i, name) in proto.input.iter().enumerate() {
            let operand = call.input.get(i).unwrap_or(&left_out);
            renaming.0.insert(name.clone(), operand.clone());
        }
        let mut copies = Vec::new();
        let results: HashSet<&String> = proto.node.iter().flat_map(|n| &n.output).collect();
        for (name, outside) in proto.output.iter().zip(&call.output) {
            if outside.is_empty() {
                continue;
            }
            if results.contains(name) && !renaming.0.contains_key(name) {
                renaming.0.insert(name.clone(), outside.clone());
            } else {
                copies.push((name, outside));
            }
        }
        for name in results.into_iter().filter(|n| !n.is_empty()) {
            renaming.0.entry(name.clone()).or_insert_with(|| format!("{prefix}{name}"));
        }
        let mut body = Vec::with_capacity(proto.node.len() + copies.len());
        for inner in &proto.node {
            let unknown = |n: &&&str| !renaming.0.contains_key(**n);
            if let Some(name) = super::scope::reads(inner).iter().find(unknown) {
                return Err(format!(
                    "its function reads the value {name:?}, which nothing produces"
                ));
            }
            let mut inner = inner.clone();
            self.bytes += inner.encoded_len();
            renaming.apply(&mut inner);
            bind_attributes(&mut inner, call, proto, rest)?;
            inner.name = match (call.name.as_str(), inner.name.as_str()) {
                ("", name) => name.to_owned(),
                (outer, "") => outer.to_owned(),
                (outer, name) => format!("{outer}/{name}"),
            };
            body.push(inner);
        }
        for (name, outside) in copies {
            body.push(NodeProto {
                op_type: "Identity".into(),
                name: call.name.clone(),
                input: vec![renaming.of(name)],
                output: vec![outside.clone()],
                ..NodeProto::default()
            });
        }
        Ok(body)
    }
}

/// References to attributes of the function become the values that the call or the function gives, or go, where
/// neither does.
fn bind_attributes(
    node: &mut NodeProto,
    call: &NodeProto,
    function: &FunctionProto,
    rest: &FunctionRest,
) -> Result<(), String> {
    let mut bound = Vec::with_capacity(node.attribute.len());
    for mut attribute in std::mem::take(&mut node.attribute) {
        if attribute.ref_attr_name.is_empty() {
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                for inner in &mut graph.node {
                    bind_attributes(inner, call, function, rest)?;
                }
            }
            bound.push(attribute);
            continue;
        }
        let wanted = &attribute.ref_attr_name;
        let given = call.attribute.iter().chain(&rest.defaults).find(|a| a.name == *wanted);
        match given {
            Some(given) => bound.push(AttributeProto { name: attribute.name, ..given.clone() }),
            None if function.attribute.contains(wanted) => {}
            None => {
                return Err(format!(
                    "its function reads the attribute {wanted:?}, which it has not"
                ));
            }
        }
    }
    node.attribute = bound;
    Ok(())
}

/// A function may be written for another operator set than the model if its operators mean the same in both.
fn check_opset(function: &FunctionProto, opset: i64) -> Result<(), String> {
    let is_main = |o: &&OperatorSetIdProto| o.domain.is_empty() || o.domain == "ai.onnx";
    let Some(own) = function.opset_import.iter().find(is_main) else { return Ok(()) };
    match changed(&function.node, own.version, opset) {
        Some(name) => Err(format!(
            "its function is written for operator set {}, in which {name} is not what it is in the model's set {opset}",
            own.version
        )),
        None => Ok(()),
    }
}

/// An operator whose meaning differs between two operator sets.
fn changed(nodes: &[NodeProto], a: i64, b: i64) -> Option<&str> {
    nodes.iter().find_map(|node| {
        let own =
            key(&node.domain, "").0.is_empty() && !versions::means_the_same(&node.op_type, a, b);
        if own {
            return Some(node.op_type.as_str());
        }
        super::scope::graphs(node).find_map(|g| changed(&g.node, a, b))
    })
}
