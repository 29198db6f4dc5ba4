//! Names of values across nested graphs: what a node reads, and what an inlined body's values are called outside.

use std::collections::{HashMap, HashSet};
use tract_onnx::pb::{GraphProto, NodeProto};

/// Every value that a node reads: its operands, and what its graphs capture. Left-out operands are none.
pub(super) fn reads(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).collect();
    for graph in graphs(node) {
        names.extend(captured(graph));
    }
    names.retain(|n| !n.is_empty());
    names
}

/// The values that a nested graph reads from the graphs around it.
pub(super) fn captured(graph: &GraphProto) -> Vec<&str> {
    let own = defined(graph);
    let read = graph.node.iter().flat_map(reads);
    let read = read.chain(graph.output.iter().map(|o| o.name.as_str()));
    read.filter(|n| !own.contains(n)).collect()
}

/// The graphs among a node's attributes.
pub(super) fn graphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs))
}

/// As [`graphs`], to change them.
pub(super) fn graphs_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|a| a.g.iter_mut().chain(&mut a.graphs))
}

/// The names that a graph gives to values of its own.
fn defined(graph: &GraphProto) -> HashSet<&str> {
    let inputs = graph.input.iter().map(|i| i.name.as_str());
    let constants = graph.initializer.iter().map(|t| t.name.as_str());
    let results = graph.node.iter().flat_map(|n| n.output.iter().map(String::as_str));
    inputs.chain(constants).chain(results).collect()
}

/// The positions of the nodes that these values need, in the order of the file, where operands come before readers.
pub(super) fn needed(nodes: &[NodeProto], outputs: &[String]) -> Vec<usize> {
    let mut wanted: HashSet<&str> = outputs.iter().map(String::as_str).collect();
    let mut kept = Vec::new();
    for (i, node) in nodes.iter().enumerate().rev() {
        if node.output.iter().any(|o| !o.is_empty() && wanted.contains(o.as_str())) {
            wanted.extend(reads(node));
            kept.push(i);
        }
    }
    kept.reverse();
    kept
}

/// What names inside a body are outside; others stay, as captured ones do.
#[derive(Clone, Default)]
pub(super) struct Renaming(pub HashMap<String, String>);

impl Renaming {
    /// The name outside.
    pub(super) fn of(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// A node of the body as it reads outside.
    pub(super) fn apply(&self, node: &mut NodeProto) {
        for name in node.input.iter_mut().chain(&mut node.output) {
            if let Some(outside) = self.0.get(name) {
                name.clone_from(outside);
            }
        }
        for graph in graphs_mut(node) {
            self.apply_nested(graph);
        }
    }

    /// Inside a nested graph only what it captures is renamed.
    fn apply_nested(&self, graph: &mut GraphProto) {
        let hidden: Vec<String> = defined(graph)
            .into_iter()
            .filter(|n| self.0.contains_key(*n))
            .map(str::to_owned)
            .collect();
        let visible;
        let renaming = if hidden.is_empty() {
            self
        } else {
            let mut names = self.0.clone();
            names.retain(|name, _| !hidden.contains(name));
            visible = Self(names);
            &visible
        };
        graph.node.iter_mut().for_each(|node| renaming.apply(node));
        for output in &mut graph.output {
            output.name = renaming.of(&output.name);
        }
    }
}

/// Names that the file does not use: each starts with a mark that no name of the file starts with.
pub(super) struct FreshNames {
    mark: String,
    bodies: usize,
}

impl FreshNames {
    /// Names that none of these graphs' values has.
    pub(super) fn new(graph: &GraphProto) -> Self {
        let mut names = Vec::new();
        collect(graph, &mut names);
        let mut mark = "~".to_owned();
        while names.iter().any(|n| n.starts_with(&mark)) {
            mark.push('~');
        }
        Self { mark, bodies: 0 }
    }

    /// Begins a body: the start of the names of its values.
    pub(super) fn body(&mut self) -> String {
        self.bodies += 1;
        format!("{}{}/", self.mark, self.bodies)
    }
}

fn collect<'a>(graph: &'a GraphProto, names: &mut Vec<&'a str>) {
    names.extend(defined(graph));
    names.extend(captured(graph));
    for node in &graph.node {
        graphs(node).for_each(|g| collect(g, names));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::{AttributeProto, ValueInfoProto};

    fn node(inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let names = |n: &[&str]| n.iter().map(|s| s.to_string()).collect();
        NodeProto { input: names(inputs), output: names(outputs), ..NodeProto::default() }
    }

    fn body(nodes: Vec<NodeProto>, output: &str) -> GraphProto {
        let output = ValueInfoProto { name: output.into(), ..ValueInfoProto::default() };
        GraphProto { node: nodes, output: vec![output], ..GraphProto::default() }
    }

    fn with_body(mut node: NodeProto, graph: GraphProto) -> NodeProto {
        node.attribute = vec![AttributeProto { g: Some(graph), ..AttributeProto::default() }];
        node
    }

    #[test]
    fn captured_values_are_read_and_renamed_and_own_ones_are_not() {
        let inner = body(vec![node(&["outer", ""], &["own"]), node(&["own"], &["last"])], "last");
        let mut outer = with_body(node(&["c"], &["y"]), inner);
        assert_eq!(reads(&outer), ["c", "outer"]);
        let names = [("outer", "a"), ("own", "b"), ("y", "z")];
        let renaming =
            Renaming(names.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect());
        renaming.apply(&mut outer);
        assert_eq!((reads(&outer), &outer.output[0][..]), (vec!["c", "a"], "z"));
        let nested = graphs(&outer).next().unwrap();
        assert_eq!(nested.node[1].input, ["own"]);
    }

    #[test]
    fn only_needed_nodes_are_kept() {
        let nodes = [node(&["x"], &["a"]), node(&["x"], &["b"]), node(&["a"], &["c", ""])];
        assert_eq!(needed(&nodes, &["c".into()]), [0, 2]);
        assert_eq!(needed(&nodes, &["b".into(), "".into()]), [1]);
    }

    #[test]
    fn fresh_names_begin_as_no_name_of_the_file() {
        let graph = body(vec![node(&["~x"], &["~~1/y"])], "z");
        let mut names = FreshNames::new(&graph);
        assert_eq!([names.body(), names.body()], ["~~~1/", "~~~2/"]);
    }
}
