//! Bounds that every element of a node keeps whatever the input is: what tells whether a quantised value can
//! saturate and whether integers can wrap around.

use ir::graph::{Graph, NodeId, Op};
use ir::op::{Activation, Elementary, Expression, Function};
use ir::tensor::Tensor;
use std::collections::HashMap;

/// Smallest and largest value.
pub(super) type Range = (f64, f64);

/// Nothing is known.
pub(super) const UNBOUNDED: Range = (f64::NEG_INFINITY, f64::INFINITY);

/// The bounds of nodes, where there are any.
#[derive(Default)]
pub(super) struct Ranges(HashMap<NodeId, Range>);

impl Ranges {
    pub(super) fn get(&self, id: NodeId) -> Range {
        self.0.get(&id).copied().unwrap_or(UNBOUNDED)
    }

    /// States the bounds of a node.
    pub(super) fn set(&mut self, id: NodeId, range: Range) {
        if range != UNBOUNDED {
            self.0.insert(id, range);
        }
    }

    /// Finds the bounds of a node whose operands are known.
    pub(super) fn follow(&mut self, graph: &Graph, id: NodeId) {
        let operands: Vec<Range> = graph.operands(id).iter().map(|&o| self.get(o)).collect();
        let range = of_node(graph, id, &operands);
        if !(range.0.is_nan() || range.1.is_nan()) {
            self.set(id, range);
        }
    }
}

fn of_node(graph: &Graph, id: NodeId, operands: &[Range]) -> Range {
    let node = graph.node(id);
    let first = operands.first().copied().unwrap_or(UNBOUNDED);
    let with_zero = |range: Range| join(range, (0.0, 0.0));
    match &node.op {
        Op::Constant(value) => of_values(&value.data),
        Op::Convolution { geometry, weights, bias } => {
            let is_padded = geometry.padding.iter().any(|&p| p > 0);
            rows(weights, bias, if is_padded { with_zero(first) } else { first })
        }
        Op::MatrixProduct { weights, bias } => rows(weights, bias, first),
        Op::Affine { scale, shift } => {
            sum(product(of_values(&scale.data), first), of_values(&shift.data))
        }
        Op::Add => sum(first, operands[1]),
        Op::Multiply if graph.operands(id)[0] == graph.operands(id)[1] => power(first, 2.0),
        Op::Multiply => product(first, operands[1]),
        Op::Activation(Activation::Exact(expression)) => of_expression(expression, first),
        Op::SumWindows { kernel, .. } => scaled(first, (kernel[0] * kernel[1]) as f64),
        Op::SumAxes(axes) => {
            let dims = &graph.node(graph.operands(id)[0]).shape.0;
            scaled(first, axes.iter().map(|&axis| dims[axis] as f64).product())
        }
        Op::MaxWindows { .. } | Op::Reshape | Op::Transpose(_) => first,
        Op::AverageWindows { .. } => with_zero(first),
        Op::Take { indices, .. } if indices.contains(&None) => with_zero(first),
        Op::Take { .. } => first,
        Op::Concat(_) => operands.iter().copied().fold((f64::INFINITY, f64::NEG_INFINITY), join),
        Op::Softmax(_) => (0.0, 1.0),
        Op::ArgMax(axis) => {
            let dims = &graph.node(graph.operands(id)[0]).shape.0;
            (0.0, dims[*axis] as f64 - 1.0)
        }
        Op::Integers(integers) => {
            let (low, high) = integers.element.range().unwrap_or(UNBOUNDED);
            let whole = (first.0.floor(), first.1.ceil());
            match whole.0 >= low && whole.1 <= high {
                true => whole,
                false => (low, high),
            }
        }
        // Whatever else there is: saying less is never wrong.
        _ => UNBOUNDED,
    }
}

fn of_expression(expression: &Expression, variable: Range) -> Range {
    let mut values = vec![variable];
    for operation in &expression.operations {
        values.push(match operation {
            Elementary::Affine { operand, scale, shift } => {
                let of = |constants: &[f64]| constants.iter().fold(EMPTY, |r, &v| join(r, (v, v)));
                sum(product(of(scale), values[*operand]), of(shift))
            }
            Elementary::Sum(a, b) => sum(values[*a], values[*b]),
            Elementary::Product(a, b) if a == b => power(values[*a], 2.0),
            Elementary::Product(a, b) => product(values[*a], values[*b]),
            Elementary::Quotient(..) => UNBOUNDED,
            Elementary::Power { operand, exponent } => power(values[*operand], *exponent),
            Elementary::Apply { function, operand } => of_function(*function, values[*operand]),
        });
    }
    values.pop().unwrap_or(UNBOUNDED)
}

fn of_function(function: Function, (low, high): Range) -> Range {
    match function {
        Function::Abs if low <= 0.0 && high >= 0.0 => (0.0, high.max(-low)),
        Function::Abs => (low.abs().min(high.abs()), low.abs().max(high.abs())),
        Function::Sin | Function::Cos => (-1.0, 1.0),
        _ if function.is_non_decreasing() => {
            let (bottom, top) = (function.at(low), function.at(high));
            if bottom.is_nan() || top.is_nan() { UNBOUNDED } else { (bottom, top) }
        }
        _ => UNBOUNDED,
    }
}

const EMPTY: Range = (f64::INFINITY, f64::NEG_INFINITY);

fn join(a: Range, b: Range) -> Range {
    (a.0.min(b.0), a.1.max(b.1))
}

fn of_values(values: &[f32]) -> Range {
    values.iter().fold(EMPTY, |range, &v| join(range, (f64::from(v), f64::from(v))))
}

fn sum(a: Range, b: Range) -> Range {
    (a.0 + b.0, a.1 + b.1)
}

/// Zero times an infinite bound is zero: no value is infinite.
fn times(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

fn product(a: Range, b: Range) -> Range {
    let corners = [times(a.0, b.0), times(a.0, b.1), times(a.1, b.0), times(a.1, b.1)];
    corners.into_iter().fold(EMPTY, |range, v| join(range, (v, v)))
}

fn scaled(range: Range, factor: f64) -> Range {
    product(range, (factor, factor))
}

fn power(range: Range, exponent: f64) -> Range {
    if exponent.fract() != 0.0 || exponent < 0.0 {
        return UNBOUNDED;
    }
    let ends = join((range.0.powf(exponent), range.0.powf(exponent)), {
        (range.1.powf(exponent), range.1.powf(exponent))
    });
    let passes_zero = range.0 <= 0.0 && range.1 >= 0.0;
    if exponent % 2.0 == 0.0 && passes_zero { join(ends, (0.0, 0.0)) } else { ends }
}

/// Products of rows of weights with values of one range.
fn rows(weights: &Tensor<f32>, bias: &Tensor<f32>, operand: Range) -> Range {
    if operand.0.is_infinite() || operand.1.is_infinite() {
        return UNBOUNDED;
    }
    let outputs = weights.shape.0.first().copied().unwrap_or(1).max(1);
    let row = |row: &[f32]| {
        row.iter().fold((0.0, 0.0), |total, &w| {
            let (a, b) = (f64::from(w) * operand.0, f64::from(w) * operand.1);
            sum(total, (a.min(b), a.max(b)))
        })
    };
    let length = (weights.data.len() / outputs).max(1);
    let products = weights.data.chunks(length).map(row).fold(EMPTY, join);
    sum(products, of_values(&bias.data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::graph::evaluate_batch;
    use ir::op::Convolution;
    use ir::tensor::Shape;

    /// The bounds of a chain of operators on an input in −1 … 2, after a check that no input of the grid
    /// breaks them.
    fn range(dims: &[usize], ops: &[(Op, &[usize])]) -> Range {
        let mut graph = Graph::new("x", Shape::new(dims));
        let mut ranges = Ranges::default();
        ranges.set(graph.input(), (-1.0, 2.0));
        let mut id = graph.input();
        for (op, shape) in ops {
            id = graph.add("node", op.clone(), Shape::new(*shape), &[id]);
            ranges.follow(&graph, id);
        }
        graph.set_output(id);
        graph.verify().unwrap();
        let (low, high) = ranges.get(id);
        let elements = graph.node(graph.input()).shape.elements();
        for seed in 0..200usize {
            let corner =
                |i: usize| if (seed * 31 + i * i * 7 + i).is_multiple_of(3) { -1.0 } else { 2.0 };
            let x = Tensor::new(Shape::new(dims), (0..elements).map(corner).collect());
            for v in &evaluate_batch(&graph, &[x])[0].data {
                assert!((low..=high).contains(&f64::from(*v)), "{v} is not in {low} … {high}");
            }
        }
        (low, high)
    }

    fn function(function: Function) -> Op {
        Op::Activation(Activation::function(function))
    }

    #[test]
    fn bounds_hold_and_are_those_that_the_operators_reach() {
        let dims: &[usize] = &[1, 1, 2, 2];
        assert_eq!(range(dims, &[(function(Function::Relu), dims)]), (0.0, 2.0));
        assert_eq!(range(dims, &[(function(Function::Abs), dims)]), (0.0, 2.0));
        let affine = Op::Affine { scale: Tensor::scalar(-3.0), shift: Tensor::scalar(1.0) };
        assert_eq!(range(dims, &[(affine, dims)]), (-5.0, 4.0));
        let sums = Op::SumAxes(vec![2, 3]);
        assert_eq!(range(dims, &[(sums, &[1, 1, 1, 1])]), (-4.0, 8.0));
        let pad = Op::Take { axis: 3, indices: vec![None, Some(0)] };
        let one = Op::Affine { scale: Tensor::scalar(1.0), shift: Tensor::scalar(2.0) };
        assert_eq!(range(dims, &[(one.clone(), dims), (pad, dims)]), (0.0, 4.0));
        let product = Op::MatrixProduct {
            weights: Tensor::new(Shape::new([2, 2]), vec![1.0, -1.0, 2.0, 0.5]),
            bias: Tensor::scalar(0.5),
        };
        assert_eq!(range(dims, &[(product, dims)]), (-2.5, 5.5));
        let geometry = Convolution {
            groups: 1,
            kernel: [2, 1],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [1, 0, 0, 0],
        };
        let weights = Tensor::new(Shape::new([1, 1, 2, 1]), vec![1.0, -1.0]);
        let conv = Op::Convolution { geometry, weights, bias: Tensor::scalar(0.0) };
        // Of operands in 1 … 4, zeros at the border included.
        assert_eq!(range(dims, &[(one, dims), (conv, dims)]), (-4.0, 4.0));
        let squared = vec![Elementary::Product(0, 0)];
        let square = Op::Activation(Activation::Exact(Expression::new(squared)));
        assert_eq!(range(dims, &[(square, dims)]), (0.0, 4.0));
    }

    #[test]
    fn what_is_not_known_is_unbounded() {
        assert_eq!(of_function(Function::Relu, UNBOUNDED), (0.0, f64::INFINITY));
        assert_eq!(of_function(Function::LeakyRelu { alpha: 0.0 }, UNBOUNDED), UNBOUNDED);
        assert_eq!(power((-1.0, 2.0), -1.0), UNBOUNDED);
        assert_eq!(product((0.0, 0.0), UNBOUNDED), (0.0, 0.0));
    }
}
