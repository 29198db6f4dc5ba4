//! Gathers everything elementwise that depends on one value into one activation of that value.
//!
//! `x·sigmoid(x)` becomes one function; `Mul(x, x)`, `Pow` and their affine combinations become a
//! polynomial per channel: Delphi's quadratics, PILLAR's quartics, and AESPA's HerPN blocks, whose
//! bases are normalised one by one, as one quadratic.
//!
//! Every node gets an expression of a *base*: a value that is not elementwise, or a nonlinear one that
//! something else reads as well (it has to be computed anyway). Nodes whose readers lie outside the
//! gathered region are replaced by one activation each.

use super::PassOptions;
use super::elementwise_values::{ExpressionId, Values, renumber};
use crate::constants::{along_axis, per_axis};
use crate::error::CompileError;
use crate::onnx::UnsupportedNode;
use ir::graph::{Graph, NodeId, Op};
use ir::op::{Activation, Elementary, Expression, Polynomial};
use ir::{Shape, Tensor};
use std::collections::{HashMap, HashSet};

/// The highest degree that is kept as a polynomial; beyond it a function is fitted.
const MAX_DEGREE: usize = 8;
/// The most operations of all activations of a graph together.
const MAX_OPERATIONS: usize = 1 << 18;

#[derive(Clone, Copy)]
struct Term {
    base: NodeId,
    value: ExpressionId,
    nonlinear: bool,
}

pub(super) fn run(graph: &mut Graph, _: &PassOptions) -> Result<(), CompileError> {
    let order = graph.order();
    let mut shared: HashSet<NodeId> = HashSet::new();
    let (terms, mut values) = loop {
        let (terms, mut values) = terms(graph, &order, &shared);
        let found: Vec<NodeId> = order
            .iter()
            .copied()
            .filter(|id| {
                !shared.contains(id)
                    && terms[id].nonlinear
                    && is_read_outside(graph, &terms, &mut values, *id)
            })
            .collect();
        if found.is_empty() {
            break (terms, values);
        }
        shared.extend(found);
    };
    let mut room = MAX_OPERATIONS;
    for &id in &order {
        if !shared.contains(&id) {
            let term = terms[&id];
            if matches!(graph.node(id).op, Op::Add) && !term.nonlinear && term.base != id {
                add_becomes_affine(graph, &values, id, term)?;
            }
            continue;
        }
        // A shared node is its own base in `terms`; what it computes is the term it has otherwise.
        let Some(term) = term(graph, &terms, &mut values, id) else { continue };
        let expression =
            values.as_expression(term.value, room).ok_or_else(|| too_long(graph, id))?;
        room -= expression.operations.len();
        let base = graph.node(term.base);
        let channels = base.shape.channels();
        let activation = match expression.as_polynomial(channels, MAX_DEGREE) {
            Some(p) if !is_finite(&p) => return Err(overflow(graph, id)),
            Some(p) if p.degree() <= 1 => {
                graph.node_mut(id).op = affine(&p.coefficients, &base.shape.clone());
                graph.set_operands(id, &[term.base]);
                continue;
            }
            Some(mut polynomial) => {
                if polynomial.coefficients.windows(2).all(|w| w[0] == w[1]) {
                    polynomial.coefficients.truncate(1);
                }
                Activation::Polynomial(polynomial)
            }
            None => Activation::Exact(expression),
        };
        graph.node_mut(id).op = Op::Activation(activation);
        graph.set_operands(id, &[term.base]);
    }
    Ok(())
}

/// A sum of affine maps of one value is one affine map of it.
fn add_becomes_affine(
    graph: &mut Graph,
    values: &Values,
    id: NodeId,
    term: Term,
) -> Result<(), CompileError> {
    let shape = graph.node(term.base).shape.clone();
    let expression = values.as_expression(term.value, 1);
    let Some(p) = expression.and_then(|e| e.as_polynomial(shape.channels(), 1)) else {
        return Ok(());
    };
    if !is_finite(&p) {
        return Err(overflow(graph, id));
    }
    graph.node_mut(id).op = affine(&p.coefficients, &shape);
    graph.set_operands(id, &[term.base]);
    Ok(())
}

fn is_finite(polynomial: &Polynomial) -> bool {
    polynomial.coefficients.iter().flatten().all(|c| (*c as f32).is_finite())
}

fn overflow(graph: &Graph, id: NodeId) -> CompileError {
    let reason = "its factors together are infinite or not a number";
    unsupported(graph, id, reason, "check the model's constants")
}

fn too_long(graph: &Graph, id: NodeId) -> CompileError {
    unsupported(
        graph,
        id,
        &format!(
            "elementwise operations in a row make functions of more than {MAX_OPERATIONS} operations"
        ),
        "put a linear layer between them",
    )
}

fn unsupported(graph: &Graph, id: NodeId, reason: &str, advice: &str) -> CompileError {
    let node = graph.node(id);
    CompileError::Unsupported(vec![UnsupportedNode {
        name: node.name.clone(),
        operator: node.op.name().into(),
        reason: reason.into(),
        advice: advice.into(),
    }])
}

fn terms(
    graph: &Graph,
    order: &[NodeId],
    shared: &HashSet<NodeId>,
) -> (HashMap<NodeId, Term>, Values) {
    let (mut terms, mut values) = (HashMap::new(), Values::default());
    for &id in order {
        let gathered =
            if shared.contains(&id) { None } else { term(graph, &terms, &mut values, id) };
        let own = || Term { base: id, value: values.base(id), nonlinear: false };
        terms.insert(id, gathered.unwrap_or_else(own));
    }
    (terms, values)
}

/// What a node computes as an expression of its operands' base; `None` if it is not elementwise in one
/// value.
fn term(
    graph: &Graph,
    terms: &HashMap<NodeId, Term>,
    values: &mut Values,
    id: NodeId,
) -> Option<Term> {
    let node = graph.node(id);
    let operands = graph.operands(id);
    let first = *terms.get(operands.first()?)?;
    let (value, nonlinear) = match &node.op {
        Op::Affine { scale, shift } => {
            let (scale, shift) = (channels(scale, &node.shape)?, channels(shift, &node.shape)?);
            (values.affine(first.value, &scale, &shift), first.nonlinear)
        }
        Op::Activation(Activation::Exact(inner)) => (values.expression(first.value, inner), true),
        Op::Add | Op::Multiply | Op::Divide => {
            let second = *terms.get(operands.get(1)?)?;
            if first.base != second.base {
                return None;
            }
            let (a, b) = (first.value, second.value);
            match node.op {
                Op::Add => (values.sum(a, b), first.nonlinear || second.nonlinear),
                Op::Multiply => (values.product(a, b), true),
                _ => (values.quotient(a, b), true),
            }
        }
        _ => return None,
    };
    Some(Term { base: first.base, value, nonlinear })
}

/// Appends `inner`, applied to the last value of `operations`.
pub(super) fn append(operations: &mut Vec<Elementary>, inner: &Expression) {
    let start = operations.len();
    let moved = inner.operations.iter().map(|op| renumber(op, |operand| start + operand));
    let moved: Vec<Elementary> = moved.collect();
    operations.extend(moved);
}

/// Whether a node is the output or has a reader that is not gathered with it.
fn is_read_outside(
    graph: &Graph,
    terms: &HashMap<NodeId, Term>,
    values: &mut Values,
    id: NodeId,
) -> bool {
    let base = terms[&id].base;
    let mut gathered =
        |user: NodeId| term(graph, terms, values, user).is_some_and(|of_user| of_user.base == base);
    graph.output() == id || graph.uses(id).iter().any(|&(user, _)| !gathered(user))
}

/// A constant as one value, or one per channel.
fn channels(constant: &Tensor<f32>, shape: &Shape) -> Option<Vec<f64>> {
    if constant.data.len() == 1 {
        return Some(vec![f64::from(constant.data[0])]);
    }
    let values = per_axis(constant, shape, shape.channel_axis())?;
    Some(values.into_iter().map(f64::from).collect())
}

/// The affine map with coefficients `[shift, scale]` per channel.
fn affine(coefficients: &[Vec<f64>], shape: &Shape) -> Op {
    let column = |n: usize| {
        let values: Vec<f32> =
            coefficients.iter().map(|c| c.get(n).copied().unwrap_or(0.0) as f32).collect();
        along_axis(&values, shape, shape.channel_axis())
    };
    Op::Affine { scale: column(1), shift: column(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::graph::evaluate_batch;
    use ir::op::Function;

    fn check(build: impl Fn(&mut Graph) -> NodeId) -> Graph {
        let mut graph = Graph::new("x", Shape::new([1, 3, 2]));
        let output = build(&mut graph);
        graph.set_output(output);
        let input = Tensor::new(Shape::new([1, 3, 2]), vec![-2.0, -0.5, 0.1, 0.9, 1.7, 3.0]);
        let before = evaluate_batch(&graph, std::slice::from_ref(&input));
        run(&mut graph, &PassOptions::default()).unwrap();
        graph.remove_dead();
        graph.verify().unwrap();
        let after = evaluate_batch(&graph, &[input]);
        for (a, b) in before[0].data.iter().zip(&after[0].data) {
            assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} became {b}");
        }
        graph
    }

    fn add(graph: &mut Graph, op: Op, operands: &[NodeId]) -> NodeId {
        graph.add("node", op, Shape::new([1, 3, 2]), operands)
    }

    fn affine_op(scale: &[f32], shift: f32) -> Op {
        let scale = Tensor::new(Shape::new([scale.len(), 1]), scale.to_vec());
        Op::Affine { scale, shift: Tensor::scalar(shift) }
    }

    #[test]
    fn herpn_blocks_become_one_quadratic_per_channel() {
        let graph = check(|g| {
            let x = g.input();
            let first = add(g, affine_op(&[1.0, 2.0, -1.0], 0.5), &[x]);
            let square = add(g, Op::Multiply, &[x, x]);
            let second = add(g, affine_op(&[0.5, 0.25, 3.0], -1.0), &[square]);
            let sum = add(g, Op::Add, &[first, second]);
            add(g, affine_op(&[2.0, 3.0, 0.5], 0.1), &[sum])
        });
        let Op::Activation(Activation::Polynomial(p)) = &graph.node(graph.output()).op else {
            panic!("not recognised")
        };
        assert_eq!((p.degree(), p.coefficients.len()), (2, 3));
        assert_eq!(graph.order().len(), 2);
    }

    #[test]
    fn gated_functions_become_one_activation() {
        let graph = check(|g| {
            let x = g.input();
            let gate = add(g, Op::Activation(Activation::function(Function::Sigmoid)), &[x]);
            add(g, Op::Multiply, &[x, gate])
        });
        assert!(matches!(&graph.node(graph.output()).op, Op::Activation(Activation::Exact(_))));
        assert_eq!(graph.order().len(), 2);
    }

    #[test]
    fn chains_grow_with_their_nodes() {
        let relu = || Op::Activation(Activation::function(Function::Relu));
        for op in [Op::Add, Op::Multiply] {
            let graph = check(|g| {
                let mut x = g.input();
                x = add(g, affine_op(&[0.5, 0.9, 0.7], 0.1), &[x]);
                x = add(g, relu(), &[x]);
                for _ in 0..6 {
                    x = add(g, op.clone(), &[x, x]);
                }
                x
            });
            assert_eq!(graph.order().len(), 2);
        }
        // Far more paths than nodes.
        let mut graph = Graph::new("x", Shape::new([1, 3, 2]));
        let mut x = graph.input();
        for i in 0..2000 {
            let bent = add(&mut graph, relu(), &[x]);
            let op = if i % 2 == 0 { Op::Add } else { Op::Multiply };
            x = add(&mut graph, op, &[x, bent]);
        }
        graph.set_output(x);
        run(&mut graph, &PassOptions::default()).unwrap();
        graph.remove_dead();
        let Op::Activation(Activation::Exact(expression)) = &graph.node(graph.output()).op else {
            panic!("not recognised")
        };
        assert!(expression.operations.len() <= 4000);
    }

    #[test]
    fn linear_chains_become_one_affine_map() {
        let graph = check(|g| {
            let mut x = g.input();
            for _ in 0..40 {
                let doubled = add(g, Op::Add, &[x, x]);
                x = add(g, affine_op(&[0.5, 0.25, 0.75], 0.1), &[doubled]);
            }
            let moved = g.add("t", Op::Transpose(vec![0, 2, 1]), Shape::new([1, 2, 3]), &[x]);
            g.add("t", Op::Transpose(vec![0, 2, 1]), Shape::new([1, 3, 2]), &[moved])
        });
        assert!(graph.order().len() <= 5, "{}", graph.order().len());
    }

    #[test]
    fn a_factor_that_overflows_is_named() {
        let mut graph = Graph::new("x", Shape::new([1, 3, 2]));
        let mut x = graph.input();
        let relu = add(&mut graph, Op::Multiply, &[x, x]);
        x = relu;
        for _ in 0..200 {
            x = add(&mut graph, Op::Add, &[x, x]);
        }
        graph.set_output(x);
        let error = run(&mut graph, &PassOptions::default()).unwrap_err();
        assert!(error.to_string().contains("infinite"), "{error}");
    }

    #[test]
    fn a_nonlinear_value_with_other_readers_stays_a_value() {
        let graph = check(|g| {
            let x = g.input();
            let relu = add(g, Op::Activation(Activation::function(Function::Relu)), &[x]);
            let moved = g.add("t", Op::Transpose(vec![0, 1, 2]), Shape::new([1, 3, 2]), &[relu]);
            let scaled = add(g, affine_op(&[2.0, 2.0, 2.0], 0.0), &[relu]);
            add(g, Op::Add, &[moved, scaled])
        });
        let activations = graph
            .order()
            .iter()
            .filter(|&&id| matches!(graph.node(id).op, Op::Activation(_)))
            .count();
        assert_eq!(activations, 1);
    }
}
