//! Ranges tell the truth: what the calibration inputs bring, a plan holds.

use ir::graph::{Graph, Op, evaluate_batch};
use ir::op::{Activation, Function, Polynomial};
use ir::plan::{Evaluator, Rounding};
use ir::{Shape, Tensor};
use polyc::evaluate::{Sample, run};
use polyc::fit::Calibration;
use polyc::passes::PassOptions;
use polyc::search::{Gate, Goal, Measured, check, search};
use polyc::{CompileOptions, Prepared, prepare_plain};

/// Numbers in [−1, 1), the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn tensor(&mut self, dims: &[usize], size: f32) -> Tensor<f32> {
        let shape = Shape::new(dims);
        let n = shape.elements();
        Tensor::new(shape, (0..n).map(|_| size * self.next()).collect())
    }
}

const INPUTS: usize = 24;
const HIDDEN: usize = 32;
const OUTPUTS: usize = 5;

/// Two rectified layers and a linear one; `change` may change the weights of the first and the second and the
/// bias of the first.
fn network(change: impl Fn(&mut [f32], &mut [f32], &mut [f32])) -> Prepared {
    let mut numbers = Numbers(5);
    let mut first = numbers.tensor(&[HIDDEN, INPUTS], 0.5);
    let mut second = numbers.tensor(&[HIDDEN, HIDDEN], 0.4);
    let mut bias = numbers.tensor(&[HIDDEN], 0.2);
    change(&mut first.data, &mut second.data, &mut bias.data);
    let last = numbers.tensor(&[OUTPUTS, HIDDEN], 0.5);
    let mut graph = Graph::new("x", Shape::new([1, INPUTS]));
    let mut x = graph.input();
    for (i, weights) in [first, second, last].into_iter().enumerate() {
        let shape = Shape::new([1, weights.shape.0[0]]);
        let bias = if i == 0 { bias.clone() } else { Tensor::scalar(0.1) };
        let op = Op::MatrixProduct { weights, bias };
        x = graph.add(format!("fc{i}"), op, shape.clone(), &[x]);
        if i < 2 {
            let op = Op::Activation(Activation::function(Function::Relu));
            x = graph.add(format!("relu{i}"), op, shape, &[x]);
        }
    }
    graph.set_output(x);
    prepare_plain(graph.into(), &PassOptions::default()).unwrap()
}

/// Inputs, of which one in fifty is `rare` times as large.
fn inputs(count: usize, rare: f32) -> Vec<Tensor<f32>> {
    let mut numbers = Numbers(9);
    let size = |i: usize| if i % 50 == 49 { rare } else { 1.0 };
    (0..count).map(|i| numbers.tensor(&[1, INPUTS], size(i))).collect()
}

fn compiled(prepared: &Prepared, inputs: &[Tensor<f32>]) -> Measured {
    let (fitted, held_out) = inputs.split_at(inputs.len() * 4 / 5);
    let calibration = Calibration::new(fitted.to_vec(), "made up");
    let held_out = Sample { inputs: held_out, truths: &[], float: None };
    let options = CompileOptions::default();
    search("mlp", prepared, &calibration, held_out, &options, Goal::AsGiven, &|_, _| ()).unwrap()
}

/// The largest error of any output on `inputs`, over the outputs' spread.
fn largest_error(prepared: &Prepared, measured: &Measured, inputs: &[Tensor<f32>]) -> f32 {
    let compiled = &measured.compiled;
    let encoded: Vec<_> = inputs.iter().map(|x| compiled.plan.encode_input(x).unwrap()).collect();
    let evaluator = Evaluator::new(&compiled.plan, &compiled.weights);
    let got = evaluator.run_batch(&encoded, Rounding::Nearest);
    let want = evaluate_batch(&prepared.original, inputs);
    let all = || want.iter().flat_map(|y| y.data.iter().copied());
    let spread = all().fold(f32::MIN, f32::max) - all().fold(f32::MAX, f32::min);
    let errors = got.iter().flat_map(|y| y.data.iter()).zip(all()).map(|(g, w)| (g - w).abs());
    errors.fold(0.0, f32::max) / spread
}

#[test]
fn rare_inputs_do_not_wrap() {
    // Three channels rise where the first element is beyond what usual inputs have there.
    let prepared = network(|first, _, bias| {
        for channel in 0..3 {
            first[channel * INPUTS] = 20.0;
            bias[channel] = -21.0;
        }
    });
    let mut inputs = inputs(500, 1.0);
    inputs.iter_mut().skip(49).step_by(50).for_each(|x| x.data[0] += 3.0);
    let measured = compiled(&prepared, &inputs);
    assert!(measured.compiled.outliers.is_empty(), "the network has no polynomials");
    let error = largest_error(&prepared, &measured, &inputs);
    assert!(error < 0.05, "{error} of the spread");
    let gate = Gate { max_escape: 0.01, max_loss: 0.1 };
    check(&measured, gate).unwrap();
}

#[test]
fn what_no_fit_covers_is_refused_by_its_rows() {
    let prepared = network(|_, _, _| ());
    let inputs = inputs(500, 300.0);
    let measured = compiled(&prepared, &inputs);
    let bound = measured.compiled.plan.inputs[0].limit;
    assert!(bound >= 300.0, "all inputs are within the limit: {bound}");
    let gate = Gate { max_escape: 0.01, max_loss: 0.05 };
    let refusal = check(&measured, gate).unwrap_err().to_string();
    assert!(refusal.contains("rows 49, 99, 149, 199, 249 and 3 more"), "{refusal}");
}

/// Squares, a linear operator and a mean over all places: the errors of one weight add up in it.
#[test]
fn a_mean_behind_weights_is_as_fine_as_other_outputs() {
    const PLACES: usize = 256;
    let mut numbers = Numbers(3);
    let shape = Shape::new([1, PLACES, 6]);
    let mut graph = Graph::new("x", shape.clone());
    let square = Polynomial { coefficients: vec![vec![0.0, 0.0, 1.0]] };
    let op = Op::Activation(Activation::Polynomial(square));
    let x = graph.add("square", op, shape, &[graph.input()]);
    let op = Op::MatrixProduct { weights: numbers.tensor(&[4, 6], 1.0), bias: Tensor::scalar(0.0) };
    let x = graph.add("product", op, Shape::new([1, PLACES, 4]), &[x]);
    let x = graph.add("sum", Op::SumAxes(vec![1]), Shape::new([1, 1, 4]), &[x]);
    graph.set_output(x);
    let prepared = prepare_plain(graph.into(), &PassOptions::default()).unwrap();
    let inputs: Vec<_> = (0..4).map(|_| numbers.tensor(&[1, PLACES, 6], 1.0)).collect();
    let measured = compiled(&prepared, &inputs);
    let error = largest_error(&prepared, &measured, &inputs);
    assert!(error < 0.02, "{error} of the spread");
}

#[test]
fn an_input_beyond_the_limit_is_refused_by_its_row() {
    let prepared = network(|_, _, _| ());
    let mut inputs = inputs(100, 1.0);
    let polyc::Compiled { plan, weights, .. } = compiled(&prepared, &inputs).compiled;
    inputs[7].data[3] = 2.0 * plan.inputs[0].limit as f32;
    let sample = Sample { inputs: &inputs, truths: &[], float: None };
    let refused = run(&plan, &weights, None, &[], sample, &|_| ());
    let why = refused.map(|_| ()).unwrap_err().to_string();
    assert!(why.starts_with("input 7: "), "{why}");
}

#[test]
fn channels_of_any_scale_are_as_accurate() {
    let scaled = |factor: f32| {
        network(|first, second, bias| {
            for channel in 0..3 {
                first[channel * INPUTS..][..INPUTS].iter_mut().for_each(|w| *w *= factor);
                bias[channel] *= factor;
                second.iter_mut().skip(channel).step_by(HIDDEN).for_each(|w| *w /= factor);
            }
        })
    };
    let inputs = inputs(300, 1.0);
    let error = |factor: f32| {
        let prepared = scaled(factor);
        largest_error(&prepared, &compiled(&prepared, &inputs), &inputs)
    };
    let (even, uneven) = (error(1.0), error(512.0));
    assert!(uneven < 1.5 * even + 0.01, "{uneven} against {even}");
}

/// The logarithm of a value that may be negative is no number: no plan answers for it.
#[test]
fn functions_of_values_that_they_are_not_defined_for_are_refused_by_their_node() {
    let shape = Shape::new([1, INPUTS]);
    let mut graph = Graph::new("x", shape.clone());
    let op = Op::Activation(Activation::function(Function::Log));
    let x = graph.input();
    let y = graph.add("logarithm", op, shape, &[x]);
    graph.set_output(y);
    let prepared = prepare_plain(graph.into(), &PassOptions::default()).unwrap();
    let with = |negative: bool| {
        let mut numbers = Numbers(3);
        let x =
            |_| numbers.tensor(&[1, INPUTS], 1.0).map(|v| if negative { v } else { v.abs() + 0.1 });
        let calibration = Calibration::new((0..40).map(x).collect(), "drawn");
        let held_out = Sample { inputs: &calibration.inputs[..8], truths: &[], float: None };
        let options = CompileOptions::default();
        let found =
            search("y", &prepared, &calibration, held_out, &options, Goal::AsGiven, &|_, _| ());
        found.map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(with(false), Ok(()));
    assert!(with(true).is_err_and(|why| why.contains("logarithm") && why.contains("not defined")));
}
