use super::*;
use crate::passes::testing::Net;
use ir::graph::evaluate;
use ir::op::Elementary;
use ir::{Shape, Tensor};

/// Splits the activation of `network`, compares the values, and says how many rectifiers stand for it.
fn check(graph: &Graph) -> usize {
    let is_activation = |id: &NodeId| matches!(graph.node(*id).op, Op::Activation(_));
    let activation = graph.order().into_iter().find(is_activation).unwrap();
    let mut split = graph.clone();
    let rectifiers = split_rectifiers(&mut split, activation).unwrap();
    split.remove_dead();
    split.verify().unwrap();
    for step in [0.05, 0.4] {
        let shape = graph.node(graph.input()).shape.clone();
        let n = shape.elements();
        let values = (0..n).map(|i| ((i * 7919 % 97) as f32 - 48.0) * step).collect();
        let input = Tensor::new(shape, values);
        let (want, got) = (evaluate(graph, &input, |_, _| ()), evaluate(&split, &input, |_, _| ()));
        for (a, b) in want.data.iter().zip(&got.data) {
            assert!((a - b).abs() < 1e-3, "{b} instead of {a}");
        }
    }
    for &id in &rectifiers {
        assert!(split.node(id).op == Op::Activation(relu()));
    }
    rectifiers.len()
}

fn behind_convolution(function: Expression) -> Graph {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.convolution("conv", net.x(), 3);
    let x = net.same("f", Op::Activation(Activation::Exact(function)), &[x]);
    net.finish(x)
}

fn of(function: Function) -> Expression {
    Expression::new(vec![Elementary::Apply { function, operand: 0 }])
}

#[test]
fn functions_of_straight_pieces_become_rectifiers() {
    let count = |function| check(&behind_convolution(of(function)));
    assert_eq!(count(Function::Relu), 1);
    assert_eq!(count(Function::LeakyRelu { alpha: 0.1 }), 2);
    assert_eq!(count(Function::Abs), 2);
    assert_eq!(count(Function::Clip { low: 0.0, high: 2.0 }), 2);
    assert_eq!(count(Function::Clip { low: f64::NEG_INFINITY, high: 1.0 }), 1);
    assert_eq!(count(Function::Clip { low: -1.0, high: f64::INFINITY }), 1);
    assert_eq!(count(Function::HardSigmoid { alpha: 0.2, beta: 0.5 }), 2);
    // The line of a network's own slopes, of either sign, per channel.
    let relu = |operand| Elementary::Apply { function: Function::Relu, operand };
    let affine = |operand, scale: &[f64]| Elementary::Affine {
        operand,
        scale: scale.to_vec(),
        shift: vec![0.0],
    };
    let slopes = |slopes: &[f64]| {
        let negative = slopes.iter().map(|s| -s).collect::<Vec<_>>();
        let operations =
            vec![relu(0), affine(0, &[-1.0]), relu(2), affine(3, &negative), Elementary::Sum(1, 4)];
        check(&behind_convolution(Expression::new(operations)))
    };
    assert_eq!(slopes(&[0.1, 0.25, 0.5]), 2);
    assert_eq!(slopes(&[0.1, -0.25, 0.5]), 3);
    // Nothing is left of it but a constant.
    let operations = vec![affine(0, &[0.0]), relu(1)];
    assert_eq!(check(&behind_convolution(Expression::new(operations))), 0);
}

#[test]
fn operands_that_no_weights_made_are_scaled_beside_them() {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let a = net.convolution("a", net.x(), 2);
    let sum = net.same("sum", Op::Add, &[a, net.x()]);
    let op = Op::Activation(Activation::Exact(of(Function::LeakyRelu { alpha: 0.3 })));
    let x = net.same("f", op, &[sum]);
    assert_eq!(check(&net.finish(x)), 2);
}

#[test]
fn curves_stay() {
    let mut graph = behind_convolution(of(Function::Sigmoid));
    let before = graph.to_string();
    let activation = graph.output();
    assert_eq!(split_rectifiers(&mut graph, activation), None);
    assert_eq!(graph.to_string(), before);
    assert_eq!(graph.node(activation).shape, Shape::new([1, 3, 4, 4]));
}
