//! The wire form of a graph: nodes in order, each with the positions of its operands.

use super::{Graph, Node, NodeId, Op};
use crate::tensor::Shape;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A graph as a list.
#[derive(Serialize, Deserialize)]
pub(super) struct GraphFile {
    nodes: Vec<(Node, Vec<u32>)>,
    output: u32,
}

impl From<Graph> for GraphFile {
    fn from(graph: Graph) -> Self {
        let mut order = graph.order();
        order.retain(|&id| id != graph.input());
        order.insert(0, graph.input());
        let position: HashMap<NodeId, u32> = order.iter().copied().zip(0..).collect();
        let operands = |id| graph.operands(id).iter().map(|o| position[o]).collect();
        let nodes = order.iter().map(|&id| (graph.node(id).clone(), operands(id))).collect();
        Self { nodes, output: position[&graph.output()] }
    }
}

impl TryFrom<GraphFile> for Graph {
    type Error = String;

    fn try_from(file: GraphFile) -> Result<Self, String> {
        let mut nodes = file.nodes.into_iter();
        let (first, operands) = nodes.next().ok_or("a graph without nodes")?;
        if first.op != Op::Input || !operands.is_empty() {
            return Err("a graph that does not begin with its input".into());
        }
        let mut graph = Graph::new(first.name, Shape(first.shape.0));
        let mut ids = vec![graph.input()];
        for (node, operands) in nodes {
            let operands: Option<Vec<NodeId>> =
                operands.iter().map(|&o| ids.get(o as usize).copied()).collect();
            let operands = operands.ok_or("a node that reads a later one")?;
            if node.op == Op::Input {
                return Err("a second input".into());
            }
            let id = graph.add(node.name, node.op, node.shape, &operands);
            graph.node_mut(id).statistics = node.statistics;
            ids.push(id);
        }
        graph.set_output(*ids.get(file.output as usize).ok_or("an output that is not there")?);
        Ok(graph)
    }
}
