//! WHAT is computed: a graph of real-valued operators, one output each, with every shape known.
//!
//! A graph describes one inference: the batch dimension, where a model has one, is 1. Weights are
//! part of the graph, so a graph is as secret as the model.

mod evaluate;
mod file;
mod print;
mod verify;

pub use evaluate::{arg_max, evaluate, evaluate_batch, evaluate_node, log_softmax, softmax};
pub use verify::GraphError;

use crate::element::Integers;
use crate::op::{Activation, Convolution};
use crate::tensor::{Shape, Tensor};
use petgraph::Direction;
use petgraph::stable_graph::StableDiGraph;
use petgraph::visit::EdgeRef;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The id of a node; prints as `n3`. A graph gives no id twice, so a node of the network as imported and a node
/// behind the passes are the same one if they have the same id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub petgraph::stable_graph::NodeIndex);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0.index())
    }
}
impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An operator with its attributes and constants.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// The client's input.
    Input,
    /// A constant of the model.
    Constant(Tensor<f32>),
    /// Convolution of `[N, C, H, W]`; of one image, `N = 1`, behind the import.
    Convolution {
        /// Geometry.
        geometry: Convolution,
        /// `[O, C/groups, kh, kw]`.
        weights: Tensor<f32>,
        /// Broadcasts to the output.
        bias: Tensor<f32>,
    },
    /// `x·weightsᵀ + bias` along the last axis.
    MatrixProduct {
        /// `[outputs, inputs]`.
        weights: Tensor<f32>,
        /// Broadcasts to the output.
        bias: Tensor<f32>,
    },
    /// `scale·x + shift`; both broadcast to the shape of `x`.
    Affine {
        /// Factors.
        scale: Tensor<f32>,
        /// Offsets.
        shift: Tensor<f32>,
    },
    /// Sum of two values of one shape.
    Add,
    /// Product of two values of one shape; only polynomials of one value survive the passes.
    Multiply,
    /// Quotient of two values of one shape; only functions of one value survive the passes.
    Divide,
    /// A function of one variable, per channel.
    Activation(Activation),
    /// Sums over windows of the last two axes, without padding.
    SumWindows {
        /// Window size.
        kernel: [usize; 2],
        /// Step between windows.
        stride: [usize; 2],
    },
    /// Sums over axes, which stay with length 1.
    SumAxes(Vec<usize>),
    /// Maximum over windows of the last two axes; padding never wins.
    MaxWindows {
        /// Window size.
        kernel: [usize; 2],
        /// Step between windows.
        stride: [usize; 2],
        /// Step between the taps of a window.
        dilation: [usize; 2],
        /// Top, left, bottom, right.
        padding: [usize; 4],
    },
    /// Sum over windows of the last two axes of `[1, C, H, W]` with zeros around, over the size of a
    /// window.
    AverageWindows {
        /// Window size.
        kernel: [usize; 2],
        /// Step between windows.
        stride: [usize; 2],
        /// Top, left, bottom, right.
        padding: [usize; 4],
    },
    /// The same elements under the node's shape.
    Reshape,
    /// Axis `i` of the result is axis `permutation[i]`.
    Transpose(Vec<usize>),
    /// Selection along an axis; `None` is zero.
    Take {
        /// The axis.
        axis: usize,
        /// Source index of every entry.
        indices: Vec<Option<u32>>,
    },
    /// Joins its operands along an axis.
    Concat(usize),
    /// Softmax along an axis: at the output only, done by the client.
    Softmax(usize),
    /// Logarithm of a softmax along an axis: at the output only, done by the client.
    LogSoftmax(usize),
    /// Index of the maximum along an axis (which stays with length 1): at the output only, done by the client.
    ArgMax(usize),
    /// Reals as elements of an integer type: at the output only, done by the client.
    Integers(Integers),
}

impl Op {
    /// The operator's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input => "Input",
            Self::Constant(_) => "Constant",
            Self::Convolution { .. } => "Convolution",
            Self::MatrixProduct { .. } => "MatrixProduct",
            Self::Affine { .. } => "Affine",
            Self::Add => "Add",
            Self::Multiply => "Multiply",
            Self::Divide => "Divide",
            Self::Activation(_) => "Activation",
            Self::SumWindows { .. } => "SumWindows",
            Self::SumAxes(_) => "SumAxes",
            Self::MaxWindows { .. } => "MaxWindows",
            Self::AverageWindows { .. } => "AverageWindows",
            Self::Reshape => "Reshape",
            Self::Transpose(_) => "Transpose",
            Self::Take { .. } => "Take",
            Self::Concat(_) => "Concat",
            Self::Softmax(_) => "Softmax",
            Self::LogSoftmax(_) => "LogSoftmax",
            Self::ArgMax(_) => "ArgMax",
            Self::Integers(_) => "Integers",
        }
    }

    /// Whether it only moves elements or fills with zeros.
    pub fn is_structural(&self) -> bool {
        matches!(self, Self::Reshape | Self::Transpose(_) | Self::Take { .. } | Self::Concat(_))
    }
}

/// The zeros around an image as selections along its axes: none where there is no padding.
pub fn padding_takes(image: &Shape, padding: [usize; 4]) -> Vec<(usize, Vec<Option<u32>>)> {
    (0..2)
        .filter(|&axis| padding[axis] + padding[axis + 2] > 0)
        .map(|axis| {
            let zeros = |n| std::iter::repeat_n(None, n);
            let pixels = (0..image.0[2 + axis] as u32).map(Some);
            (2 + axis, zeros(padding[axis]).chain(pixels).chain(zeros(padding[axis + 2])).collect())
        })
        .collect()
}

/// Mean and standard deviation per channel that a normalisation's running statistics promise for the
/// values of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Per channel.
    pub mean: Vec<f64>,
    /// Per channel, not negative.
    pub deviation: Vec<f64>,
}

/// A node: an operator, the shape of its result, and the name that errors and reports show.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The name of the ONNX node that it comes from.
    pub name: String,
    /// The operator.
    pub op: Op,
    /// The shape of the result.
    pub shape: Shape,
    /// What a normalisation that was folded into this node says about its values.
    pub statistics: Option<Statistics>,
}

/// A graph with one input and one output. Edges carry the operand's position.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "file::GraphFile", try_from = "file::GraphFile")]
pub struct Graph {
    /// A node that was removed stays as `None`: petgraph would give its index to the next one.
    dag: StableDiGraph<Option<Node>, usize>,
    input: NodeId,
    output: NodeId,
}

impl Graph {
    /// A graph that is only its input.
    pub fn new(name: impl Into<String>, shape: Shape) -> Self {
        let mut dag = StableDiGraph::new();
        let node = Node { name: name.into(), op: Op::Input, shape, statistics: None };
        let input = NodeId(dag.add_node(Some(node)));
        Self { dag, input, output: input }
    }

    /// Adds a node that reads `operands`.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        op: Op,
        shape: Shape,
        operands: &[NodeId],
    ) -> NodeId {
        let node = Node { name: name.into(), op, shape, statistics: None };
        let id = NodeId(self.dag.add_node(Some(node)));
        self.set_operands(id, operands);
        id
    }

    /// Replaces the operands of a node.
    pub fn set_operands(&mut self, id: NodeId, operands: &[NodeId]) {
        let old: Vec<_> =
            self.dag.edges_directed(id.0, Direction::Incoming).map(|e| e.id()).collect();
        for edge in old {
            self.dag.remove_edge(edge);
        }
        for (position, operand) in operands.iter().enumerate() {
            self.dag.add_edge(operand.0, id.0, position);
        }
    }

    /// The node of the client's input.
    pub fn input(&self) -> NodeId {
        self.input
    }

    /// The node whose value is the answer.
    pub fn output(&self) -> NodeId {
        self.output
    }

    /// Makes a node the output.
    pub fn set_output(&mut self, id: NodeId) {
        self.output = id;
    }

    /// The node with this id.
    ///
    /// # Panics
    /// If there is none, or it was removed.
    pub fn node(&self, id: NodeId) -> &Node {
        self.dag[id.0].as_ref().expect("a node that is there")
    }

    /// The node with this id, to change it.
    ///
    /// # Panics
    /// As [`Self::node`].
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.dag[id.0].as_mut().expect("a node that is there")
    }

    /// Whether there is a node with this id.
    pub fn contains(&self, id: NodeId) -> bool {
        matches!(self.dag.node_weight(id.0), Some(Some(_)))
    }

    fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.dag.node_indices().map(NodeId).filter(|&id| self.contains(id))
    }

    fn remove(&mut self, id: NodeId) {
        let (before, behind) = (Direction::Incoming, Direction::Outgoing);
        let edges = [before, behind].map(|d| self.dag.edges_directed(id.0, d).map(|e| e.id()));
        let edges: Vec<_> = edges.into_iter().flatten().collect();
        for edge in edges {
            self.dag.remove_edge(edge);
        }
        self.dag[id.0] = None;
    }

    /// Operands in order.
    pub fn operands(&self, id: NodeId) -> Vec<NodeId> {
        let mut operands: Vec<(usize, NodeId)> = self
            .dag
            .edges_directed(id.0, Direction::Incoming)
            .map(|e| (*e.weight(), NodeId(e.source())))
            .collect();
        operands.sort();
        operands.into_iter().map(|(_, id)| id).collect()
    }

    /// Every use of a node's value: the reader and the operand's position. A reader that uses the value
    /// twice appears twice.
    pub fn uses(&self, id: NodeId) -> Vec<(NodeId, usize)> {
        let mut uses: Vec<(NodeId, usize)> = self
            .dag
            .edges_directed(id.0, Direction::Outgoing)
            .map(|e| (NodeId(e.target()), *e.weight()))
            .collect();
        uses.sort();
        uses
    }

    /// The only reader of a node, if it has exactly one use and is not the output.
    pub fn only_user(&self, id: NodeId) -> Option<NodeId> {
        match self.uses(id).as_slice() {
            [(user, _)] if self.output != id => Some(*user),
            _ => None,
        }
    }

    /// Multiplications with weights per output element of a convolution or matrix product; `None` for
    /// other nodes.
    pub fn fan_in(&self, id: NodeId) -> Option<usize> {
        match &self.node(id).op {
            Op::Convolution { geometry, .. } => {
                Some(geometry.fan_in(&self.node(self.operands(id)[0]).shape))
            }
            Op::MatrixProduct { weights, .. } => Some(weights.shape.0[1]),
            _ => None,
        }
    }

    /// Lets every reader of `old` read `new` instead, and makes `new` the output where `old` was.
    /// `new` itself keeps its operands.
    pub fn replace_uses(&mut self, old: NodeId, new: NodeId) {
        for (user, position) in self.uses(old) {
            if user != new {
                let mut operands = self.operands(user);
                operands[position] = new;
                self.set_operands(user, &operands);
            }
        }
        if self.output == old {
            self.output = new;
        }
    }

    /// Removes a node that reads one value, letting its readers read that value.
    pub fn bypass(&mut self, id: NodeId) {
        if let Some(&operand) = self.operands(id).first() {
            self.replace_uses(id, operand);
            self.remove(id);
        }
    }

    /// Removes every node that the output does not need; the input stays.
    pub fn remove_dead(&mut self) {
        let mut live = std::collections::HashSet::from([self.input]);
        let mut stack = vec![self.output];
        while let Some(id) = stack.pop() {
            if live.insert(id) || id == self.input {
                stack.extend(self.operands(id).into_iter().filter(|o| !live.contains(o)));
            }
        }
        let dead: Vec<NodeId> = self.ids().filter(|id| !live.contains(id)).collect();
        for id in dead {
            self.remove(id);
        }
    }

    /// All nodes, operands before readers; ties in order of creation.
    pub fn order(&self) -> Vec<NodeId> {
        let mut waiting: std::collections::HashMap<NodeId, usize> =
            self.ids().map(|id| (id, self.operands(id).len())).collect();
        let mut ready: std::collections::BTreeSet<NodeId> =
            waiting.iter().filter(|(_, n)| **n == 0).map(|(id, _)| *id).collect();
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(id) = ready.pop_first() {
            order.push(id);
            for (user, _) in self.uses(id) {
                if let Some(n) = waiting.get_mut(&user) {
                    *n -= 1;
                    if *n == 0 {
                        ready.insert(user);
                    }
                }
            }
        }
        order
    }

    /// Checks every shape, operand count and constant against the operators' rules.
    ///
    /// # Errors
    /// The first node that breaks one.
    pub fn verify(&self) -> Result<(), GraphError> {
        verify::verify(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_removed_nodes_are_not_given_again() {
        let shape = Shape::new([1, 2]);
        let mut graph = Graph::new("x", shape.clone());
        let input = graph.input();
        let dead = graph.add("dead", Op::Reshape, shape.clone(), &[input]);
        let passed = graph.add("passed", Op::Reshape, shape.clone(), &[input]);
        let kept = graph.add("kept", Op::Reshape, shape.clone(), &[passed]);
        graph.set_output(kept);
        graph.bypass(passed);
        graph.remove_dead();
        assert!(!graph.contains(dead) && !graph.contains(passed) && graph.contains(kept));
        let new = graph.add("new", Op::Add, shape, &[kept, input]);
        graph.set_output(new);
        assert!(![input, dead, passed, kept].contains(&new));
        assert_eq!(graph.order(), [input, kept, new]);
        assert_eq!(graph.uses(input), [(kept, 0), (new, 1)]);
        graph.verify().unwrap();
        // The wire form numbers nodes anew.
        let config = bincode::config::standard();
        let bytes = bincode::serde::encode_to_vec(&graph, config).unwrap();
        let (read, _): (Graph, _) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
        assert_eq!(read.order().len(), 3);
        assert_eq!(read.node(read.output()).name, "new");
    }
}
