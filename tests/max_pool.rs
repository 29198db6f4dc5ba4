//! Maximum pooling, exact and fitted: a small network of somebody's, compiled, evaluated, and run by two parties.

use ir::graph::{Graph, Op, evaluate_batch};
use ir::plan::{Evaluator, Rounding, carry_noise};
use ir::{Shape, Tensor};
use polyc::evaluate::classes;
use polyc::fit::{Calibration, Family};
use polyc::onnx::{ImportOptions, import_bytes};
use polyc::passes::{MaxPool, PassOptions};
use polyc::{CompileOptions, Compiled, compile, prepare_plain};
use support::Numbers;
use support::onnx::{Attribute, Model};

/// Convolution, ReLU, 2×2 maxima, convolution, overlapping 3×3 maxima with padding, matrix product.
fn model() -> Vec<u8> {
    let mut numbers = Numbers(7);
    let first = numbers.reals(4 * 9, 0.4);
    let second = numbers.reals(6 * 4 * 9, 0.3);
    let last = numbers.reals(3 * 54, 0.3);
    let ones = ("pads", Attribute::Ints(&[1, 1, 1, 1]));
    Model::new(&[1, 1, 12, 12])
        .weights("w1", &[4, 1, 3, 3], &first)
        .weights("b1", &[4], &numbers.reals(4, 0.1))
        .weights("w2", &[6, 4, 3, 3], &second)
        .weights("b2", &[6], &numbers.reals(6, 0.1))
        .weights("w3", &[3, 54], &last)
        .weights("b3", &[3], &numbers.reals(3, 0.1))
        .node("Conv", "conv1", &["x", "w1", "b1"], &[])
        .node("Relu", "relu", &["conv1"], &[])
        .node(
            "MaxPool",
            "pool1",
            &["relu"],
            &[("kernel_shape", Attribute::Ints(&[2, 2])), ("strides", Attribute::Ints(&[2, 2]))],
        )
        .node("Conv", "conv2", &["pool1", "w2", "b2"], std::slice::from_ref(&ones))
        .node(
            "MaxPool",
            "pool2",
            &["conv2"],
            &[
                ("kernel_shape", Attribute::Ints(&[3, 3])),
                ("strides", Attribute::Ints(&[2, 2])),
                ("pads", Attribute::Ints(&[1, 1, 1, 1])),
            ],
        )
        .node("Flatten", "flat", &["pool2"], &[])
        .node("Gemm", "fc", &["flat", "w3", "b3"], &[("transB", Attribute::Int(1))])
        .to_bytes("fc", &[1, 3])
}

/// Images of a few soft spots: neighbours resemble each other, as in real ones.
fn images(count: usize, seed: u64) -> Vec<Tensor<f32>> {
    let mut numbers = Numbers(seed);
    let mut image = || {
        let spots: Vec<[f32; 3]> = (0..4)
            .map(|_| {
                let at = |n: &mut Numbers| n.below(120) as f32 / 10.0;
                [at(&mut numbers), at(&mut numbers), numbers.reals(1, 1.0)[0]]
            })
            .collect();
        let pixel = |i: usize| {
            let (y, x) = ((i / 12) as f32, (i % 12) as f32);
            let spot =
                |s: &[f32; 3]| s[2] * (-((y - s[0]).powi(2) + (x - s[1]).powi(2)) / 6.0).exp();
            spots.iter().map(spot).sum()
        };
        Tensor::new(Shape::new([1, 1, 12, 12]), (0..144).map(pixel).collect())
    };
    (0..count).map(|_| image()).collect()
}

fn compiled(max_pool: MaxPool, family: Family) -> Compiled {
    let imported = import_bytes(&model(), &ImportOptions::default()).unwrap();
    let prepared = prepare_plain(imported, &PassOptions { max_pool }).unwrap();
    let description = "soft spots".to_owned();
    let calibration = Calibration::new(images(400, 1), description);
    let options = CompileOptions { families: family.into(), ..CompileOptions::default() };
    compile("pools", &prepared, &calibration, &options, &mut |_| ()).unwrap()
}

/// Largest difference of two lists of outputs over the largest output.
fn difference(a: &[Tensor<f32>], b: &[Tensor<f32>]) -> f64 {
    let pairs = || a.iter().zip(b).flat_map(|(a, b)| a.data.iter().zip(&b.data));
    let largest = pairs().map(|(a, _)| f64::from(a.abs())).fold(0.0, f64::max);
    pairs().map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max) / largest
}

fn phases() -> Family {
    CompileOptions::default().families.usual
}

fn activations(graph: &Graph) -> usize {
    let is = |op: &Op| matches!(op, Op::Activation(_));
    graph.order().iter().filter(|&&id| is(&graph.node(id).op)).count()
}

#[test]
fn exact_maxima_are_closer_than_fitted_ones_and_those_than_averages() {
    let inputs = images(200, 2);
    let error = |max_pool, family| {
        let compiled = compiled(max_pool, family);
        let encoded: Vec<_> =
            inputs.iter().map(|x| compiled.plan.encode_input(x).unwrap()).collect();
        let evaluator = Evaluator::new(&compiled.plan, &compiled.weights);
        let float = evaluate_batch(&compiled.reference.original, &inputs);
        let plan = evaluator.run_batch(&encoded, Rounding::Nearest);
        let same = classes(&float).iter().zip(&classes(&plan)).filter(|(a, b)| a == b).count();
        (same, difference(&float, &plan))
    };
    let exact = error(MaxPool::Exact, Family::Select);
    let (fitted, averaged) = (error(MaxPool::Fit, phases()), error(MaxPool::Average, phases()));
    assert!(exact.0 >= 198 && exact.0 >= fitted.0, "exact {exact:?}, fitted {fitted:?}");
    assert!(exact.1 < fitted.1 / 2.0, "exact {exact:?}, fitted {fitted:?}");
    assert!(fitted.0 > averaged.0 && fitted.0 >= 175, "fitted {fitted:?}, averaged {averaged:?}");
    assert!(fitted.1 < averaged.1 / 2.0, "fitted {fitted:?}, averaged {averaged:?}");
}

#[test]
fn two_parties_agree_with_the_evaluator() {
    agree(MaxPool::Fit, phases(), 1);
    agree(MaxPool::Exact, Family::Select, 2);
    // Only maxima are exact.
    let compiled = compiled(MaxPool::Exact, phases());
    let rounds = compiled.plan.rounds().into_iter().filter(|r| !r.trips.is_empty()).count();
    assert_eq!(rounds, 6 * 2 + 1);
}

fn agree(max_pool: MaxPool, family: Family, round_trips: usize) {
    let compiled = compiled(max_pool, family);
    let plan = &compiled.plan;
    // Two comparisons, the ReLU behind them, and four comparisons.
    assert_eq!(activations(&compiled.reference.fitted), 7);
    assert_eq!(plan.traffic(1).2, 2 * 7 * round_trips + 2);
    let inputs = images(60, 3);
    let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
    let evaluator = Evaluator::new(plan, &compiled.weights);
    let exact = evaluator.run_batch(&encoded, Rounding::Nearest);
    let bound = carry_noise(&evaluator, &encoded, 50).bound;
    let run = polyrt::run_in_memory(plan, &compiled.weights, &inputs).unwrap();
    let (mut clear, mut same) = (0, 0);
    for (i, (got, want)) in run.logits.iter().zip(&exact).enumerate() {
        for (a, b) in got.data.iter().zip(&want.data) {
            assert!(f64::from((a - b).abs()) <= bound, "{a} for {b} ± {bound}");
        }
        let mut sorted = want.data.clone();
        sorted.sort_by(f32::total_cmp);
        if f64::from(sorted[2] - sorted[1]) > 2.0 * bound {
            clear += 1;
            same += usize::from(classes(&run.logits)[i] == classes(&exact)[i]);
        }
    }
    assert!(clear >= 5 && same == clear, "{same} of {clear} classes");
}
