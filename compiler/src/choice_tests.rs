use super::*;
use ir::graph::Op;
use ir::op::{Elementary, Expression, Function};
use ir::{Shape, Tensor};

fn phases() -> Family {
    Family::Phase { harmonics: Harmonics::default() }
}

fn named(graph: &Graph, name: &str) -> Vec<NodeId> {
    graph.order().into_iter().filter(|&id| graph.node(id).name == name).collect()
}

/// relu and tanh of the input, and the larger of both.
fn network() -> Graph {
    let shape = Shape::new([1, 3]);
    let mut graph = Graph::new("x", shape.clone());
    let input = graph.input();
    let mut add =
        |name: &str, op: Op, operands: &[NodeId]| graph.add(name, op, shape.clone(), operands);
    let function = |function| Op::Activation(Activation::function(function));
    let a = add("leaky", function(Function::LeakyRelu { alpha: 0.5 }), &[input]);
    let b = add("curve", function(Function::Tanh), &[input]);
    let minus = Op::Affine { scale: Tensor::scalar(-1.0), shift: Tensor::scalar(0.0) };
    let negative = add("negative", minus, &[b]);
    let difference = add("difference", Op::Add, &[a, negative]);
    let excess = add("excess", function(Function::Relu), &[difference]);
    let larger = add("larger", Op::Add, &[b, excess]);
    graph.set_output(larger);
    graph.verify().unwrap();
    graph
}

#[test]
fn maxima_are_told_from_other_rectifiers() {
    let graph = network();
    let excess = named(&graph, "excess")[0];
    assert!(is_maximum(&graph, excess));
    // Of the wrong summand it is none.
    let mut other = graph.clone();
    let (a, sum) = (named(&graph, "leaky")[0], named(&graph, "larger")[0]);
    other.set_operands(sum, &[a, excess]);
    assert!(!is_maximum(&other, excess));
    assert!(!is_maximum(&graph, a));
}

#[test]
fn families_are_settled_by_what_functions_allow() {
    let (leaky, curve, excess) = ("leaky", "curve", "excess");
    let of = |families: Families| {
        let mut graph = network();
        let settled = settle(&mut graph, &families);
        graph.verify().unwrap();
        [leaky, curve, excess].map(|name| {
            let ids = named(&graph, name);
            let is_activation = |id: &&NodeId| matches!(graph.node(**id).op, Op::Activation(_));
            ids.iter().filter(is_activation).map(|&id| settled.of(id)).collect::<Vec<_>>()
        })
    };
    // Rectifiers side by side where there are straight pieces, tables where there are none.
    let exact = of(Family::Select.into());
    assert_eq!(exact, [vec![Family::Select; 2], vec![Family::Table], vec![Family::Select]]);
    // Only comparisons are exact unless somebody wants more.
    assert_eq!(of(phases().into()), [vec![phases()], vec![phases()], vec![Family::Select]]);
    let graph = network();
    let mut chosen = Families::from(phases());
    chosen.own.insert(named(&graph, leaky)[0], Family::Select);
    chosen.own.insert(named(&graph, excess)[0], phases());
    assert_eq!(of(chosen), [vec![Family::Select; 2], vec![phases()], vec![phases()]]);
    // Somebody wants one curve as it is.
    let mut chosen = Families::from(phases());
    chosen.own.insert(named(&graph, curve)[0], Family::Select);
    assert_eq!(of(chosen), [vec![phases()], vec![Family::Table], vec![Family::Select]]);
}

/// A factor is the file's: its function must not stand in a plan.
#[test]
fn functions_with_constants_of_the_file_are_fitted() {
    let mut graph = network();
    let curve = named(&graph, "curve")[0];
    let operations = vec![
        Elementary::Affine { operand: 0, scale: vec![1.7], shift: vec![0.0] },
        Elementary::Apply { function: Function::Tanh, operand: 1 },
    ];
    graph.node_mut(curve).op = Op::Activation(Activation::Exact(Expression::new(operations)));
    assert_eq!(settle(&mut graph, &Family::Select.into()).of(curve), phases());
}
