//! How much memory a fit needs, from the shapes of a network alone.
//!
//! A fit holds the teacher's and the student's values of every node until their last reader has been computed, and
//! an operator's operand until its scale is settled, which its activation does. While it computes a
//! node it makes a few more copies of its value. The rest does not depend on the number of
//! inputs: copies of the weights, and the covariances of the widest operator.

use super::resolve::MAX_FAN_IN;
use crate::scales::is_secret;
use ir::graph::{Graph, NodeId, Op};
use std::collections::{BTreeSet, HashMap};

/// Graphs with weights that are alive at once: as imported, after the passes, teacher, student, rounded, and
/// the plan's integers and the fitted graph of a trial before.
const COPIES: usize = 7;
/// Square matrices of an operator's fan-in, of eight bytes an entry, that are alive while it is solved.
const MATRICES: usize = 5;
/// Values of a node that are alive while its activation is simulated, beside the teacher's and the student's.
const MOMENTARY: usize = 3;
/// Memory of the programs without any network.
const PROGRAM: usize = 64 << 20;

/// Bytes that a fit needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// With any number of inputs.
    pub fixed: usize,
    /// For every input in addition.
    pub per_input: usize,
    /// For every thread that evaluates the plan.
    pub per_thread: usize,
}

impl Needs {
    /// Of a network that is ready to be fitted.
    pub fn of(graph: &Graph) -> Self {
        let order = graph.order();
        let weights: usize = order.iter().map(|&id| weights(&graph.node(id).op)).sum();
        let widest = order
            .iter()
            .filter_map(|&id| graph.fan_in(id))
            .filter(|&fan_in| fan_in <= MAX_FAN_IN)
            .max()
            .unwrap_or(0);
        let inputs = graph.node(graph.input()).shape.elements();
        let activations =
            order.iter().filter(|&&id| matches!(graph.node(id).op, Op::Activation(_)));
        let activated: usize = activations.map(|&id| graph.node(id).shape.elements()).sum();
        Self {
            fixed: PROGRAM
                + COPIES * size_of::<f32>() * weights
                + MATRICES * size_of::<f64>() * (widest + 1) * (widest + 1),
            // The input itself stays: given, held out or not, and as the teacher's and the student's.
            per_input: size_of::<f32>() * (live(graph, &order) + 2 * inputs),
            // Ring elements, and every activation's value where runs are compared with one.
            per_thread: size_of::<u64>() * most_at_once(graph, &order)
                + size_of::<u16>() * activated,
        }
    }
}

impl Needs {
    /// How many inputs a fit holds within so many bytes.
    pub fn inputs(&self, memory: usize) -> usize {
        memory.saturating_sub(self.fixed) / self.per_input.max(1)
    }

    /// On how many threads at most a plan is evaluated within so many bytes; one at least.
    pub fn threads(&self, memory: usize) -> usize {
        (memory.saturating_sub(self.fixed) / self.per_thread.max(1)).max(1)
    }
}

fn weights(op: &Op) -> usize {
    match op {
        Op::Convolution { weights, bias, .. } | Op::MatrixProduct { weights, bias } => {
            weights.data.len() + bias.data.len()
        }
        Op::Constant(value) => value.data.len(),
        Op::Affine { scale, shift } => scale.data.len() + shift.data.len(),
        _ => 0,
    }
}

/// The most elements of one side's values that are alive at once, if every value is released after its last
/// reader.
fn most_at_once(graph: &Graph, order: &[NodeId]) -> usize {
    let mut values = Values::new(graph, order);
    let mut most = 0;
    for &id in order {
        values.add(id);
        most = most.max(values.elements);
        values.release(id);
    }
    most
}

/// The most elements of both sides' values that are alive at once.
fn live(graph: &Graph, order: &[NodeId]) -> usize {
    let mut values = Values::new(graph, order);
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let position: HashMap<NodeId, usize> =
        order.iter().enumerate().map(|(i, &id)| (id, i)).collect();
    let mut most = 0;
    for (index, &id) in order.iter().enumerate() {
        values.add(id);
        let own = graph.node(id).shape.elements();
        most = most.max(2 * values.elements + MOMENTARY * own);
        let operands = graph.operands(id);
        let is_open = |operand: &NodeId| open.contains(&position[operand]);
        let is_activation = matches!(graph.node(id).op, Op::Activation(_));
        let settles = is_activation || is_secret(graph, id) || id == graph.output();
        let mut closing = BTreeSet::new();
        if settles {
            let mut behind: Vec<NodeId> = operands.clone();
            while let Some(operand) = behind.pop() {
                let at = position[&operand];
                if open.contains(&at) && closing.insert(at) {
                    behind.extend(graph.operands(operand));
                }
            }
        }
        // An activation has a scale of its own; a public operator that of its operands.
        if is_activation || !is_secret(graph, id) && !operands.iter().any(is_open) {
            closing.insert(index);
        } else {
            open.insert(index);
        }
        for at in closing {
            open.remove(&at);
            values.release(order[at]);
        }
    }
    most
}

/// Which values are alive.
struct Values<'a> {
    graph: &'a Graph,
    readers: HashMap<NodeId, usize>,
    elements: usize,
}

impl<'a> Values<'a> {
    fn new(graph: &'a Graph, order: &[NodeId]) -> Self {
        let readers = order.iter().map(|&id| (id, graph.uses(id).len())).collect();
        Self { graph, readers, elements: 0 }
    }

    fn add(&mut self, id: NodeId) {
        self.elements += self.graph.node(id).shape.elements();
    }

    /// Releases a node's operands.
    fn release(&mut self, id: NodeId) {
        for operand in self.graph.operands(id) {
            if let Some(n) = self.readers.get_mut(&operand) {
                *n -= 1;
                if *n == 0 {
                    self.elements -= self.graph.node(operand).shape.elements();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::op::{Activation, Function};
    use ir::{Shape, Tensor};

    fn rectifiers(count: usize, shape: &Shape) -> Graph {
        let mut graph = Graph::new("x", shape.clone());
        let relu = Op::Activation(Activation::function(Function::Relu));
        let mut value = graph.input();
        for _ in 0..count {
            value = graph.add("relu", relu.clone(), shape.clone(), &[value]);
        }
        graph.set_output(value);
        graph
    }

    #[test]
    fn a_value_counts_while_somebody_reads_it() {
        let shape = Shape::new([1, 8, 16, 16]);
        // Operand and result on two sides, what is momentary, the input itself.
        let values = 2 * 2 + MOMENTARY + 2;
        let needs = Needs::of(&rectifiers(3, &shape));
        assert_eq!(needs.per_input, 4 * values * shape.elements());
        assert_eq!(
            needs,
            Needs { per_thread: needs.per_thread, ..Needs::of(&rectifiers(1, &shape)) }
        );
        // The first value has a second reader at the end.
        let mut graph = rectifiers(3, &shape);
        let first = graph.order()[1];
        let sum = graph.add("sum", Op::Add, shape.clone(), &[graph.output(), first]);
        graph.set_output(sum);
        assert_eq!(Needs::of(&graph).per_input, needs.per_input + 4 * 2 * shape.elements());
    }

    #[test]
    fn an_operand_counts_until_scales_are_settled() {
        let shape = Shape::new([1, 100]);
        let mut graph = Graph::new("x", shape.clone());
        let product = || Op::MatrixProduct {
            weights: Tensor::zeros(Shape::new([100, 100])),
            bias: Tensor::scalar(0.0),
        };
        let product = graph.add("product", product(), shape.clone(), &[graph.input()]);
        let relu = Op::Activation(Activation::function(Function::Relu));
        let relu = graph.add("relu", relu, shape.clone(), &[product]);
        graph.set_output(relu);
        let needs = Needs::of(&graph);
        assert_eq!(needs.per_input, 4 * 100 * (2 * 3 + MOMENTARY + 2));
        assert!(needs.fixed > PROGRAM + 100 * 100 * (4 * COPIES + 8 * MATRICES));
    }
}
