//! Small graphs for the tests of passes, and what every pass must keep: the values.

use super::{Pass, PassOptions};
use ir::graph::{Graph, NodeId, Op, evaluate_batch};
use ir::op::{Activation, Convolution, Function, Polynomial};
use ir::{Shape, Tensor};

/// A graph under construction, with weights that are the same in every run.
pub struct Net {
    pub graph: Graph,
    state: u64,
}

impl Net {
    pub fn new(input: &[usize]) -> Self {
        Self { graph: Graph::new("x", Shape::new(input)), state: 1 }
    }

    /// The client's input.
    pub fn x(&self) -> NodeId {
        self.graph.input()
    }

    /// Numbers in [−1, 1], none of them zero.
    pub fn tensor(&mut self, dims: &[usize]) -> Tensor<f32> {
        let shape = Shape::new(dims);
        let data = (0..shape.elements()).map(|_| self.number()).collect();
        Tensor::new(shape, data)
    }

    fn number(&mut self) -> f32 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let number = (self.state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        if number == 0.0 { 1.0 } else { number }
    }

    pub fn add(&mut self, name: &str, op: Op, dims: &[usize], operands: &[NodeId]) -> NodeId {
        self.graph.add(name, op, Shape::new(dims), operands)
    }

    /// A node of the shape of its first operand.
    pub fn same(&mut self, name: &str, op: Op, operands: &[NodeId]) -> NodeId {
        let shape = self.graph.node(operands[0]).shape.clone();
        self.graph.add(name, op, shape, operands)
    }

    pub fn constant(&mut self, name: &str, dims: &[usize]) -> NodeId {
        let value = self.tensor(dims);
        self.add(name, Op::Constant(value), dims, &[])
    }

    pub fn product(&mut self, name: &str, x: NodeId, outputs: usize) -> NodeId {
        let mut dims = self.graph.node(x).shape.0.clone();
        let inputs = dims.pop().unwrap();
        dims.push(outputs);
        let weights = self.tensor(&[outputs, inputs]);
        let bias = self.tensor(&[outputs]);
        self.add(name, Op::MatrixProduct { weights, bias }, &dims, &[x])
    }

    /// Three by three, with zeros around.
    pub fn convolution(&mut self, name: &str, x: NodeId, outputs: usize) -> NodeId {
        let geometry = Convolution {
            groups: 1,
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [1; 4],
        };
        let input = self.graph.node(x).shape.clone();
        let weights = self.tensor(&[outputs, input.0[1], 3, 3]);
        let bias = self.tensor(&[outputs, 1, 1]);
        let shape = geometry.output_shape(&input, outputs).unwrap();
        self.graph.add(name, Op::Convolution { geometry, weights, bias }, shape, &[x])
    }

    pub fn relu(&mut self, x: NodeId) -> NodeId {
        self.same("relu", Op::Activation(Activation::function(Function::Relu)), &[x])
    }

    /// A polynomial per channel, or one for all.
    pub fn polynomial(&mut self, name: &str, x: NodeId, rows: &[&[f64]]) -> NodeId {
        let coefficients = rows.iter().map(|row| row.to_vec()).collect();
        self.same(name, Op::Activation(Activation::Polynomial(Polynomial { coefficients })), &[x])
    }

    /// The graph with this output.
    pub fn finish(mut self, output: NodeId) -> Graph {
        self.graph.set_output(output);
        self.graph.verify().unwrap();
        self.graph
    }
}

/// Runs a pass of the list on a graph.
pub fn run(pass: Pass, graph: &Graph) -> Graph {
    changed(graph, |graph| pass(graph, &PassOptions::default()).unwrap())
}

/// The graph after a change that keeps its rules and its values.
pub fn changed(graph: &Graph, change: impl FnOnce(&mut Graph)) -> Graph {
    let mut after = graph.clone();
    change(&mut after);
    after.remove_dead();
    after.verify().unwrap();
    let shape = &graph.node(graph.input()).shape;
    let mut net = Net::new(&shape.0);
    let inputs: Vec<Tensor<f32>> = (0..20).map(|_| net.tensor(&shape.0)).collect();
    let outputs = evaluate_batch(graph, &inputs).into_iter().zip(evaluate_batch(&after, &inputs));
    for (before, now) in outputs {
        assert_eq!(before.shape, now.shape);
        let size = before.data.iter().fold(1.0f32, |most, v| most.max(v.abs()));
        for (a, b) in before.data.iter().zip(&now.data) {
            assert!((a - b).abs() <= 1e-4 * size, "{a} became {b}:\n{graph}\n{after}");
        }
    }
    after
}

/// The names of all nodes but the input, in order.
pub fn names(graph: &Graph) -> Vec<String> {
    let nodes = graph.order().into_iter().filter(|&id| id != graph.input());
    nodes.map(|id| graph.node(id).name.clone()).collect()
}

/// The only node of this name.
pub fn named<'a>(graph: &'a Graph, name: &str) -> &'a Op {
    let mut found = graph.order().into_iter().filter(|&id| graph.node(id).name == name);
    let id = found.next().unwrap_or_else(|| panic!("no {name}:\n{graph}"));
    assert_eq!(found.next(), None, "several {name}");
    &graph.node(id).op
}
