use super::*;
use crate::passes::{PassOptions, run_all, split_rectifiers};
use ir::Tensor;
use ir::op::{Convolution, Function};

/// A large layer, a small one, a function of no straight pieces, and a maximum.
fn network() -> Graph {
    let mut graph = Graph::new("x", Shape::new([1, 1, 64, 64]));
    let input = graph.input();
    let mut add = |name: &str, op: Op, dims: &[usize], operands: &[NodeId]| {
        graph.add(name, op, Shape::new(dims.to_vec()), operands)
    };
    let convolution = |outputs: usize, inputs: usize, stride: usize| Op::Convolution {
        geometry: Convolution {
            groups: 1,
            kernel: [1, 1],
            stride: [stride, stride],
            dilation: [1, 1],
            padding: [0; 4],
        },
        weights: Tensor::new(
            Shape::new([outputs, inputs, 1, 1]),
            (0..outputs * inputs).map(|i| i as f32 - 1.5).collect(),
        ),
        bias: Tensor::scalar(0.5),
    };
    let function = |function| Op::Activation(Activation::function(function));
    let x = add("wide", convolution(8, 1, 1), &[1, 8, 64, 64], &[input]);
    let x = add("large", function(Function::Relu), &[1, 8, 64, 64], &[x]);
    let x = add("narrow", convolution(2, 8, 16), &[1, 2, 4, 4], &[x]);
    let x = add("small", function(Function::LeakyRelu { alpha: 0.25 }), &[1, 2, 4, 4], &[x]);
    let x = add("mix", convolution(2, 2, 1), &[1, 2, 4, 4], &[x]);
    let x = add("curve", function(Function::Tanh), &[1, 2, 4, 4], &[x]);
    let op = Op::MaxWindows { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], padding: [0; 4] };
    let x = add("pool", op, &[1, 2, 2, 2], &[x]);
    graph.set_output(x);
    run_all(&mut graph, &PassOptions::default()).unwrap();
    graph
}

/// The activations that are faster as rectifiers.
fn exact(network: &str, harmonics: usize, is_prepared: bool) -> Vec<String> {
    let (graph, network) = (self::network(), Network::parse(network).unwrap());
    let all = candidates(&graph, &RingOptions::default(), harmonics, &network);
    let names: Vec<&str> = all.iter().map(|c| graph.node(c.node).name.as_str()).collect();
    assert_eq!(names, ["large", "small"], "curves have no choice, and maxima are exact");
    let is_exact = |c: &&Candidate| c.select.total_ms(is_prepared) < c.phase.total_ms(is_prepared);
    let exact = all.iter().filter(is_exact);
    exact.map(|c| graph.node(c.node).name.clone()).collect()
}

#[test]
fn short_round_trips_and_many_elements_are_for_rectifiers() {
    assert_eq!(exact("1:100", 3, false), ["large"]);
    // Small layers have more buckets, whose tables are dearer than a phase's correlations.
    assert_eq!(exact("0:50", 3, false), ["large"]);
    // What one more round trip costs, nothing saves.
    assert_eq!(exact("far", 3, false), [""; 0]);
    assert_eq!(exact("wan", 3, true), [""; 0]);
    // More harmonics make a phase dearer.
    assert_eq!(exact("40:100", 1, false), [""; 0]);
    assert_eq!(exact("40:100", 6, false), ["large"]);
}

#[test]
fn a_function_of_two_slopes_is_two_rectifiers_side_by_side() {
    let mut graph = network();
    let all = candidates(&graph, &RingOptions::default(), 3, &Network::wan());
    let small = all[1].clone();
    assert_eq!((small.phase.round_trips, small.select.round_trips), (1, 2));
    let one = LayerTime::of(
        &[step(
            Interactive::Select(Select { k: WORD, p: buckets(6, false, 32), t: DROPPED }),
            &graph.node(small.node).shape,
        )],
        &[],
        &Network::wan(),
    );
    assert_eq!(small.select.online_bytes, 2 * one.online_bytes);
    assert_eq!(split_rectifiers(&mut graph, small.node).unwrap().len(), 2);
}
