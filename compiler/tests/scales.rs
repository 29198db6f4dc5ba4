//! Scales of values that are read along several ways: what two parties compute is what the graph says.

use ir::graph::{Graph, NodeId, Op, evaluate_batch};
use ir::op::{Activation, Function};
use ir::plan::{Evaluator, Rounding};
use ir::tensor::{Shape, Tensor};
use polyc::fit::{Calibration, Family};
use polyc::passes::PassOptions;
use polyc::{CompileOptions, compile, prepare_plain};

fn noise(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0).collect()
}

fn tensor(seed: usize, dims: &[usize]) -> Tensor<f32> {
    let shape = Shape::new(dims);
    let data = noise(seed, shape.elements());
    Tensor::new(shape, data)
}

fn scaled(factor: f32) -> Op {
    Op::Affine { scale: Tensor::scalar(factor), shift: Tensor::scalar(0.0) }
}

/// `relu(y + factor·Σy)` over the rows of a product `y`, which is read along two ways.
fn network(factor: f32) -> Graph {
    const ROWS: usize = 4;
    let dims = [ROWS, 5];
    let mut graph = Graph::new("x", Shape::new([ROWS, 6]));
    let x = graph.input();
    let mut add = |op: Op, dims: &[usize], operands: &[NodeId]| {
        let name = op.name();
        let id = graph.add(name, op, Shape::new(dims), operands);
        graph.set_output(id);
        id
    };
    let product = Op::MatrixProduct { weights: tensor(1, &[5, 6]), bias: Tensor::scalar(0.25) };
    let y = add(product, &dims, &[x]);
    let sums = add(Op::SumAxes(vec![0]), &[1, 5], &[y]);
    let part = add(scaled(factor), &[1, 5], &[sums]);
    let rows = add(Op::Take { axis: 0, indices: vec![Some(0); ROWS] }, &dims, &[part]);
    let sum = add(Op::Add, &dims, &[y, rows]);
    add(Op::Activation(Activation::function(Function::Relu)), &dims, &[sum]);
    graph
}

#[test]
fn a_value_that_is_read_along_several_ways_has_one_scale() {
    for factor in [-0.25, 0.5, -1.0, 0.3, 3.0] {
        of_family(factor, CompileOptions::default().families.usual);
        of_family(factor, Family::Select);
    }
}

/// A rectifier whose values are all zero on the calibration inputs needs no fine units, and stays zero.
#[test]
fn rectifiers_that_never_open_compile() {
    let shape = Shape::new([1, 4]);
    let mut graph = Graph::new("x", shape.clone());
    let product = |seed, bias| Op::MatrixProduct {
        weights: tensor(seed, &[4, 4]),
        bias: Tensor::scalar(bias),
    };
    let y = graph.add("y", product(1, -50.0), shape.clone(), &[graph.input()]);
    let relu = Op::Activation(Activation::function(Function::Relu));
    let z = graph.add("z", relu, shape.clone(), &[y]);
    let last = graph.add("last", product(2, 1.0), shape, &[z]);
    graph.set_output(last);
    let prepared = prepare_plain(graph.into(), &PassOptions::default()).unwrap();
    let inputs: Vec<Tensor<f32>> = (0..40).map(|i| tensor(100 + i, &[1, 4])).collect();
    let options = CompileOptions { families: Family::Select.into(), ..CompileOptions::default() };
    let calibration = Calibration::new(inputs.clone(), "noise");
    let compiled = compile("dead", &prepared, &calibration, &options, &mut |_| ()).unwrap();
    let evaluator = Evaluator::new(&compiled.plan, &compiled.weights);
    for x in &inputs {
        let encoded = compiled.plan.encode_input(x).unwrap();
        let y = evaluator.run(&encoded, Rounding::Sampled(3), |_, _| ());
        let y = compiled.plan.decode_output(&y);
        assert!(y.data.iter().all(|v| (v - 1.0).abs() < 0.01), "{:?}", y.data);
    }
}

fn of_family(factor: f32, family: Family) {
    let prepared = prepare_plain(network(factor).into(), &PassOptions::default()).unwrap();
    let inputs: Vec<Tensor<f32>> = (0..80).map(|i| tensor(100 + i, &[4, 6])).collect();
    let calibration = Calibration::new(inputs.clone(), "noise");
    let options = CompileOptions { families: family.into(), ..CompileOptions::default() };
    let compiled = compile("rows", &prepared, &calibration, &options, &mut |_| ()).unwrap();
    let plan = &compiled.plan;
    let evaluator = Evaluator::new(plan, &compiled.weights);
    let want = evaluate_batch(&prepared.original, &inputs);
    let (mut error, mut size) = (0.0, 0.0);
    for (x, want) in inputs.iter().zip(&want) {
        let encoded = plan.encode_input(x).unwrap();
        let got = plan.decode_output(&evaluator.run(&encoded, Rounding::Nearest, |_, _| ()));
        for (g, w) in got.data.iter().zip(&want.data) {
            error += f64::from(g - w).powi(2);
            size += f64::from(*w).powi(2);
        }
    }
    let error = (error / size).sqrt();
    assert!(error < 0.1, "factor {factor}: the plan is off by {:.1}%", 100.0 * error);
}
