//! Functions by public tables: a small network compiled, evaluated, run by two parties, and what its plan tells.

use ir::graph::{Graph, NodeId, Op, evaluate_batch};
use ir::op::{Activation, Function};
use ir::plan::{Evaluator, Interactive, Rounding, StepOp, StepWeights, Table, carry_noise};
use ir::{Shape, Tensor};
use polyc::evaluate::Sample;
use polyc::fit::{Calibration, Family};
use polyc::passes::PassOptions;
use polyc::search::{Goal, search};
use polyc::{CompileOptions, Compiled, Prepared, compile, prepare_plain};
use support::Numbers;
use support::doors::payload;

const INPUTS: usize = 12;
const HIDDEN: usize = 20;
const OUTPUTS: usize = 4;

fn product(numbers: &mut Numbers, [rows, columns]: [usize; 2]) -> (Tensor<f32>, Tensor<f32>) {
    let weights = numbers.reals(rows * columns, 1.4 / (columns as f32).sqrt());
    let bias = Tensor::new(Shape::new([1, rows]), numbers.reals(rows, 0.3));
    (Tensor::new(Shape::new([rows, columns]), weights), bias)
}

fn add(graph: &mut Graph, name: &str, op: Op, width: usize, operand: NodeId) -> NodeId {
    let id = graph.add(name, op, Shape::new([1, width]), &[operand]);
    graph.set_output(id);
    id
}

/// Products with an activation behind all but the last.
fn network(functions: &[Function]) -> Graph {
    let mut numbers = Numbers(11);
    let mut graph = Graph::new("x", Shape::new([1, INPUTS]));
    let (mut value, mut width) = (graph.input(), INPUTS);
    for function in functions {
        let (weights, bias) = product(&mut numbers, [HIDDEN, width]);
        width = HIDDEN;
        value = add(&mut graph, "product", Op::MatrixProduct { weights, bias }, width, value);
        let op = Op::Activation(Activation::function(*function));
        value = add(&mut graph, "curve", op, width, value);
    }
    let (weights, bias) = product(&mut numbers, [OUTPUTS, width]);
    add(&mut graph, "last", Op::MatrixProduct { weights, bias }, OUTPUTS, value);
    graph
}

fn inputs(count: usize, seed: u64) -> Vec<Tensor<f32>> {
    let mut numbers = Numbers(seed);
    (0..count).map(|_| Tensor::new(Shape::new([1, INPUTS]), numbers.reals(INPUTS, 2.0))).collect()
}

fn prepared(graph: Graph) -> Prepared {
    prepare_plain(graph.into(), &PassOptions::default()).unwrap()
}

fn options(family: Family) -> CompileOptions {
    CompileOptions { families: family.into(), ..CompileOptions::default() }
}

fn compiled(graph: Graph, family: Family) -> Compiled {
    let calibration = Calibration::new(inputs(400, 1), "noise");
    compile("curves", &prepared(graph), &calibration, &options(family), &mut |_| ()).unwrap()
}

fn phases() -> Family {
    CompileOptions::default().families.usual
}

fn tables(compiled: &Compiled) -> Vec<&Table> {
    let steps = compiled.plan.steps.iter().filter_map(|step| match &step.op {
        StepOp::Interactive(Interactive::Table(table)) => Some(table),
        _ => None,
    });
    steps.collect()
}

/// Root mean square of what simulated runs differ by from the network in float, over its outputs' size.
fn error(compiled: &Compiled, inputs: &[Tensor<f32>]) -> f64 {
    let evaluator = Evaluator::new(&compiled.plan, &compiled.weights);
    let float = evaluate_batch(&compiled.reference.original, inputs);
    let (mut errors, mut size) = (0.0, 0.0);
    for ((x, want), run) in inputs.iter().zip(&float).zip(0..) {
        let x = compiled.plan.encode_input(x).unwrap();
        let y = evaluator.run(&x, Rounding::Sampled(run), |_, _| ());
        for (got, want) in compiled.plan.decode_output(&y).data.iter().zip(&want.data) {
            errors += f64::from(got - want).powi(2);
            size += f64::from(*want).powi(2);
        }
    }
    (errors / size).sqrt()
}

const CURVES: [Function; 2] = [Function::Tanh, Function::Gelu];

#[test]
fn tables_are_closer_than_phases() {
    let held_out = inputs(200, 2);
    let (exact, fitted) =
        (compiled(network(&CURVES), Family::Select), compiled(network(&CURVES), phases()));
    assert_eq!((tables(&exact).len(), tables(&fitted).len()), (2, 0));
    let (of_tables, of_phases) = (error(&exact, &held_out), error(&fitted, &held_out));
    assert!(of_tables < of_phases / 1.5, "tables {of_tables}, phases {of_phases}");
    assert!(of_tables < 0.05, "tables {of_tables}");
}

#[test]
fn functions_with_jumps_are_tables() {
    let held_out = inputs(200, 2);
    let of = |family| error(&compiled(network(&[Function::Sign]), family), &held_out);
    let (of_tables, of_phases) = (of(Family::Select), of(phases()));
    assert!(of_tables < of_phases / 1.5, "tables {of_tables}, phases {of_phases}");
}

#[test]
fn two_parties_agree_with_the_evaluator() {
    let compiled = compiled(network(&CURVES), Family::Select);
    let plan = &compiled.plan;
    // One round trip a table, the input and the output.
    assert_eq!(plan.traffic(1).2, 2 * 2 + 2);
    let inputs = inputs(60, 3);
    let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
    let evaluator = Evaluator::new(plan, &compiled.weights);
    let exact = evaluator.run_batch(&encoded, Rounding::Nearest);
    let bound = carry_noise(&evaluator, &encoded, 50).bound;
    let largest = exact.iter().flat_map(|y| &y.data).fold(0.0, |a: f32, b| a.max(b.abs()));
    assert!(bound < 0.3 * f64::from(largest), "{bound} of {largest} says nothing");
    let run = polyrt::run_in_memory(plan, &compiled.weights, &inputs).unwrap();
    for (got, want) in run.logits.iter().zip(&exact) {
        for (a, b) in got.data.iter().zip(&want.data) {
            assert!(f64::from((a - b).abs()) <= bound, "{a} for {b} ± {bound}");
        }
    }
}

/// Hidden units in another order: other weights, the same ranges.
fn rotated(mut graph: Graph, by: usize) -> Graph {
    let order: Vec<usize> = (0..HIDDEN).map(|h| (h + by) % HIDDEN).collect();
    for id in graph.order() {
        let Op::MatrixProduct { weights, bias } = &mut graph.node_mut(id).op else { continue };
        let columns = weights.shape.0[1];
        if columns == INPUTS {
            let row = |&h: &usize| weights.data[h * INPUTS..(h + 1) * INPUTS].to_vec();
            weights.data = order.iter().flat_map(row).collect();
            bias.data = order.iter().map(|&h| bias.data[h]).collect();
        } else {
            let row = |row: &[f32]| order.iter().map(|&h| row[h]).collect::<Vec<_>>();
            weights.data = weights.data.chunks_exact(columns).flat_map(row).collect();
        }
    }
    graph
}

#[test]
fn plans_of_different_weights_have_the_same_tables() {
    let network = || network(&[Function::Tanh]);
    let (a, b) =
        (compiled(network(), Family::Select), compiled(rotated(network(), 7), Family::Select));
    let weights = |compiled: &Compiled| {
        let linear = compiled.weights.steps.iter().filter_map(|step| match step {
            StepWeights::Linear { weights, .. } => Some(weights.clone()),
            _ => None,
        });
        linear.flatten().collect::<Vec<i32>>()
    };
    assert_ne!(weights(&a), weights(&b));
    assert_eq!(tables(&a).len(), 1);
    let (a, b) = (a.plan.to_bytes().0, b.plan.to_bytes().0);
    assert!(payload(&a) == payload(&b), "{a:?} {b:?}");
}

/// Units by which entries are off from `s·tanh(t·x)` with the scales that suit them best.
fn off_tanh(table: &Table) -> f64 {
    let signed = |entry: u64| ir::ring::to_signed(entry, table.q) as f64;
    let entries: Vec<f64> = table.entries().into_iter().map(signed).collect();
    let half = &entries[..entries.len() / 2];
    let largest = half.iter().copied().fold(0.0, f64::max);
    let middle = half.iter().position(|&entry| 2.0 * entry >= largest).unwrap();
    let place = |i: usize| i as f64 + 0.5;
    let off = |s: f64, t: f64| {
        let errors = (0..half.len()).map(|i| (half[i] - s * (t * place(i)).tanh()).abs());
        errors.fold(0.0, f64::max)
    };
    let scales = (0..100).flat_map(|i| {
        let s = largest * (0.98 + f64::from(i) / 2000.0);
        let t = (half[middle] / s).atanh() / place(middle);
        (0..100).map(move |j| (s, t * (0.95 + f64::from(j) / 1000.0)))
    });
    scales.map(|(s, t)| off(s, t)).fold(f64::INFINITY, f64::min)
}

/// All that a table holds is the function at two scales.
#[test]
fn entries_follow_from_the_function_and_two_scales() {
    let of = |function| {
        let compiled = compiled(network(&[function]), Family::Select);
        off_tanh(tables(&compiled)[0])
    };
    let (of_tanh, of_erf) = (of(Function::Tanh), of(Function::Erf));
    assert!(of_tanh < 0.6, "off by {of_tanh} units from any tanh");
    assert!(of_erf > 0.9, "erf is off by {of_erf} units");
}

#[test]
fn the_search_says_what_is_a_table() {
    let prepared = prepared(network(&CURVES));
    let calibration = Calibration::new(inputs(400, 1), "noise");
    let held_out = inputs(60, 2);
    let sample = Sample { inputs: &held_out, truths: &[], float: None };
    let options = options(Family::Select);
    let measured =
        search("curves", &prepared, &calibration, sample, &options, Goal::AsGiven, &|_, _| ());
    let layers = measured.unwrap().evaluation.layers;
    let fits: Vec<&str> = layers.iter().map(|layer| layer.fit.as_str()).collect();
    assert_eq!(fits, ["tanh, table", "gelu, table"]);
}
