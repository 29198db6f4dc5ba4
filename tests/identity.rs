//! Which node of the network as imported is which activation of the fitted one, and which value of the plan: kept
//! by the compiler, through its passes and its files.

use ir::graph::{Graph, NodeId, Op};
use ir::op::{Activation, Function};
use ir::plan::{Reference, Weights};
use ir::{Shape, Tensor};
use polyc::evaluate::{Evaluation, Sample, run};
use polyc::fit::{Calibration, Family};
use polyc::onnx::{ImportOptions, import_bytes};
use polyc::passes::{MaxPool, PassOptions};
use polyc::{CompileOptions, Compiled, compile, prepare_plain};
use support::Numbers;
use support::onnx::{Attribute, Model};

const SIDE: usize = 6;

/// Convolution, an activation of several nodes, maxima that a ReLU moves behind, and a quadratic of a negative
/// leading coefficient, whose sign goes to the product.
fn model() -> Vec<u8> {
    let mut numbers = Numbers(11);
    let pool = [("kernel_shape", Attribute::Ints(&[2, 2])), ("strides", Attribute::Ints(&[2, 2]))];
    let ones = [("pads", Attribute::Ints(&[1, 1, 1, 1]))];
    Model::new(&[1, 1, SIDE as i64, SIDE as i64])
        .weights("w1", &[3, 1, 3, 3], &numbers.reals(27, 0.5))
        .weights("b1", &[3], &numbers.reals(3, 0.1))
        .weights("w2", &[3, 3, 3, 3], &numbers.reals(81, 0.4))
        .weights("b2", &[3], &numbers.reals(3, 0.1))
        .weights("w3", &[4, 3, 1, 1], &numbers.reals(12, 0.6))
        .weights("b3", &[4], &numbers.reals(4, 0.1))
        .weights("w4", &[2, 36], &numbers.reals(72, 0.3))
        .weights("b4", &[2], &numbers.reals(2, 0.1))
        .weights("factor", &[3, 1, 1], &[0.5, 1.5, 1.0])
        .weights("minus", &[1], &[-0.7])
        .node("Conv", "conv1", &["x", "w1", "b1"], &ones)
        .node("Sigmoid", "gate", &["conv1"], &[])
        .node("Mul", "silu", &["conv1", "gate"], &[])
        .node("Mul", "scaled", &["silu", "factor"], &[])
        .node("Conv", "conv2", &["scaled", "w2", "b2"], &ones)
        .node("Relu", "relu", &["conv2"], &[])
        .node("MaxPool", "pool", &["relu"], &pool)
        .node("Conv", "conv3", &["pool", "w3", "b3"], &[])
        .node("Mul", "square", &["conv3", "conv3"], &[])
        .node("Mul", "negative", &["square", "minus"], &[])
        .node("Add", "quadratic", &["negative", "conv3"], &[])
        .node("Flatten", "flat", &["quadratic"], &[])
        .node("Gemm", "fc", &["flat", "w4", "b4"], &[("transB", Attribute::Int(1))])
        .to_bytes("fc", &[1, 2])
}

fn inputs(count: usize, seed: u64) -> Vec<Tensor<f32>> {
    let mut numbers = Numbers(seed);
    let pixels = SIDE * SIDE;
    let input = |_| Tensor::new(Shape::new([1, 1, SIDE, SIDE]), numbers.reals(pixels, 1.0));
    (0..count).map(input).collect()
}

fn compiled(family: Family) -> Compiled {
    let imported = import_bytes(&model(), &ImportOptions::default()).unwrap();
    let passes = PassOptions { max_pool: MaxPool::Fit };
    let prepared = prepare_plain(imported, &passes).unwrap();
    let calibration = Calibration::new(inputs(300, 1), "made up");
    let options = CompileOptions { passes, families: family.into(), ..CompileOptions::default() };
    compile("net", &prepared, &calibration, &options, &mut |_| ()).unwrap()
}

fn evaluated(compiled: &Compiled, reference: &Reference) -> Evaluation {
    let tasks: Vec<_> = compiled.plan.outputs.iter().map(|o| o.task).collect();
    let inputs = inputs(40, 2);
    let sample = Sample { inputs: &inputs, truths: &[], float: None };
    let (plan, weights) = (&compiled.plan, &compiled.weights);
    run(plan, weights, Some(reference), &tasks, sample, &|_| ()).unwrap()
}

fn is_distance(reference: &Reference, node: NodeId) -> bool {
    let layer = reference.layers.iter().find(|l| l.node == node).unwrap();
    layer.fit.as_ref().is_some_and(|fit| fit.exact == Activation::function(Function::Abs))
}

/// The names of what every layer is: in the fitted network, in the network as imported, and in the plan.
fn names(compiled: &Compiled, reference: &Reference) -> Vec<[String; 3]> {
    let name = |graph: &Graph, id: NodeId| graph.node(id).name.clone();
    let of = |l: &ir::plan::ReferenceLayer| {
        let value = reference.values[&l.node];
        [
            name(&reference.fitted, l.node),
            l.original.map_or(String::new(), |id| name(&reference.original, id)),
            compiled.plan.step(value).name.clone(),
        ]
    };
    reference.layers.iter().map(of).collect()
}

#[test]
fn activations_keep_their_identity_through_passes_fit_and_lowering() {
    for family in [CompileOptions::default().families.usual, Family::Polynomial { degree: 4 }] {
        let compiled = compiled(family);
        let reference = &compiled.reference;
        let expected: [[&str; 3]; 5] = [
            ["scaled", "scaled", "scaled"],
            ["pool", "", "pool"],
            ["pool", "", "pool"],
            ["relu", "pool", "relu"],
            ["quadratic", "quadratic", "quadratic"],
        ];
        let names = names(&compiled, reference);
        assert_eq!(names.len(), expected.len(), "{names:?}");
        for (names, expected) in names.iter().zip(expected) {
            assert_eq!(names, &expected);
        }
        for layer in &reference.layers {
            let step = compiled.plan.step(reference.values[&layer.node]);
            assert!(step.op.is_interactive(), "{}", step.name);
            assert_eq!(step.shape, reference.fitted.node(layer.node).shape);
            assert_eq!(layer.original.is_none(), is_distance(reference, layer.node));
        }
        // Every value of the plan that comes from a node has the node's elements.
        for (&node, &value) in &reference.values {
            assert!(reference.fitted.contains(node));
            let (shape, step) = (&reference.fitted.node(node).shape, compiled.plan.step(value));
            assert_eq!(shape.elements(), step.shape.elements(), "{}", step.name);
        }
        // Whoever compared an activation with another node's values would find nothing in common.
        let evaluation = evaluated(&compiled, reference);
        for (layer, found) in reference.layers.iter().zip(&evaluation.layers) {
            let imitation = found.imitation;
            assert_eq!(imitation.is_some(), layer.original.is_some(), "{}", found.name);
            assert!(imitation.is_none_or(|error| error < 0.3), "{}: {imitation:?}", found.name);
            assert!(found.noise.is_some_and(|noise| noise < 0.3), "{}", found.name);
        }
    }
}

#[test]
fn identities_survive_the_file() {
    let compiled = compiled(CompileOptions::default().families.usual);
    let bytes = compiled.weights.to_bytes(Some(&compiled.reference));
    let read = Weights::reference_from_bytes(&bytes).unwrap().unwrap();
    assert_eq!(names(&compiled, &read), names(&compiled, &compiled.reference));
    assert_eq!(read.values.len(), compiled.reference.values.len());
    let is_activation = |id: &NodeId| matches!(read.fitted.node(*id).op, Op::Activation(_));
    assert_eq!(read.fitted.order().iter().filter(|id| is_activation(id)).count(), 5);
    let evaluations = [&compiled.reference, &read].map(|r| evaluated(&compiled, r));
    let [before, after] = evaluations.map(|e| e.to_json().unwrap());
    assert_eq!(before, after);
}
