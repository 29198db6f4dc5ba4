//! What the public plan does not hold, and who can read the files that hold it.

use ir::graph::{Graph, Op};
use ir::op::Activation;
use ir::plan::{StepWeights, Weights};
use std::collections::HashSet;
use support::doors::{compile_bytes, payload};
use support::{Numbers, Written, compiled, polyrt, run, stderr};

const SIZES: [usize; 3] = [9, 14, 4];

/// A perceptron whose hidden units stand in the order `order`, with the sign of pairs of inputs swapped
/// by `swap`.
fn network(order: &[usize]) -> Vec<u8> {
    let [inputs, hidden, outputs] = SIZES;
    let mut numbers = Numbers(7);
    let w1 = numbers.reals(hidden * inputs, 0.6);
    let b1 = numbers.reals(hidden, 0.3);
    let w2 = numbers.reals(outputs * hidden, 0.8);
    let b2 = numbers.reals(outputs, 0.1);
    let row = |&h: &usize| w1[h * inputs..(h + 1) * inputs].to_vec();
    let first: Vec<f32> = order.iter().flat_map(row).collect();
    let first_bias: Vec<f32> = order.iter().map(|&h| b1[h]).collect();
    let second: Vec<f32> = (0..outputs)
        .flat_map(|o| order.iter().map(|&h| w2[o * hidden + h]).collect::<Vec<_>>())
        .collect();
    support::onnx::perceptron(SIZES, (&first, &first_bias), (&second, &b2))
}

fn integers(weights: &Weights) -> Vec<i32> {
    let linear = weights.steps.iter().filter_map(|step| match step {
        StepWeights::Linear { weights, .. } => Some(weights.clone()),
        _ => None,
    });
    linear.flatten().collect()
}

/// Other weights, the same ranges: the plan must not tell them apart.
#[test]
fn plans_of_different_weights_are_the_same_bytes() {
    let hidden = SIZES[1];
    let order: Vec<usize> = (0..hidden).collect();
    let rotated: Vec<usize> = (0..hidden).map(|h| (h + 5) % hidden).collect();
    let (a, b) = (compile_bytes(&network(&order)), compile_bytes(&network(&rotated)));
    assert_ne!(integers(&a.weights), integers(&b.weights));
    let (a, b) = (a.plan.to_bytes().0, b.plan.to_bytes().0);
    assert!(payload(&a) == payload(&b), "{a:?} {b:?}");
}

/// Byte strings that stand for secrets in any form that a plan could hold them in.
fn needles(compiled: &Written) -> Vec<(&'static str, Vec<u8>)> {
    let mut needles: Vec<(&str, Vec<u8>)> = Vec::new();
    let config = bincode::config::standard();
    let mut windows = |what, values: &[i128]| {
        // Shorter runs of small weights stand in shapes and kernels by chance.
        let (length, distinct) = if what == "weights" { (8, 4) } else { (5, 3) };
        let telling = |w: &&[i128]| w.iter().collect::<HashSet<_>>().len() >= distinct;
        for window in values.windows(length).filter(telling) {
            let packed = window.iter().flat_map(|&v| bincode::encode_to_vec(v, config).unwrap());
            needles.push((what, packed.collect()));
            let packed =
                window.iter().flat_map(|&v| bincode::encode_to_vec(v as u64, config).unwrap());
            needles.push((what, packed.collect()));
            needles.push((what, window.iter().map(|&v| v as u8).collect()));
            needles.push((what, window.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect()));
            needles.push((what, window.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect()));
            needles.push((what, window.iter().flat_map(|&v| (v as u64).to_le_bytes()).collect()));
        }
    };
    let (mut singles, mut reals): (Vec<f32>, Vec<f64>) = (vec![], vec![]);
    for step in &compiled.weights.steps {
        match step {
            StepWeights::None => {}
            StepWeights::Constant(v) => windows("constant", &widen(v)),
            StepWeights::Linear { weights, bias } => {
                windows("weights", &weights.iter().map(|&w| w.into()).collect::<Vec<_>>());
                windows("bias", &widen(bias));
            }
            StepWeights::Phase { constant, harmonics } => {
                reals.extend(constant);
                reals.extend(harmonics.iter().flatten().flatten());
            }
            StepWeights::Square { constant } => {
                windows("square", &constant.iter().map(|&v| v.into()).collect::<Vec<_>>());
            }
            StepWeights::Polynomial { coefficients } => {
                windows("polynomial", &coefficients.concat());
            }
        }
    }
    for graph in [&compiled.reference.original, &compiled.reference.fitted] {
        collect_secrets(graph, &mut singles, &mut reals);
    }
    needles.extend(singles.iter().map(|v| ("f32", v.to_le_bytes().to_vec())));
    needles.extend(reals.iter().map(|v| ("f64", v.to_le_bytes().to_vec())));
    needles.extend(reals.iter().map(|&v| ("f64 as f32", (v as f32).to_le_bytes().to_vec())));
    let is_trivial = |bytes: &[u8]| bytes.iter().filter(|b| **b != 0).count() < 4;
    needles.retain(|(_, bytes)| !is_trivial(bytes));
    needles
}

fn widen(values: &[u64]) -> Vec<i128> {
    values.iter().map(|&v| v.into()).collect()
}

/// The weights, biases and coefficients of a graph.
fn collect_secrets(graph: &Graph, singles: &mut Vec<f32>, reals: &mut Vec<f64>) {
    for id in graph.order() {
        match &graph.node(id).op {
            Op::Convolution { weights: a, bias: b, .. }
            | Op::MatrixProduct { weights: a, bias: b }
            | Op::Affine { scale: a, shift: b } => singles.extend(a.data.iter().chain(&b.data)),
            Op::Activation(Activation::Polynomial(p)) => {
                reals.extend(p.coefficients.iter().flatten());
            }
            Op::Activation(Activation::Trigonometric(t)) => {
                reals.extend(t.constant.iter().chain(t.harmonics.iter().flatten().flatten()));
            }
            _ => {}
        }
    }
}

/// The kinds of needles that stand in `hay`, and which.
fn found(hay: &[u8], needles: &[(&'static str, Vec<u8>)]) -> Vec<(&'static str, Vec<u8>)> {
    let lengths: HashSet<usize> = needles.iter().map(|(_, n)| n.len()).collect();
    let windows: HashSet<&[u8]> = lengths.iter().flat_map(|&n| hay.windows(n)).collect();
    needles.iter().filter(|(_, n)| windows.contains(n.as_slice())).cloned().collect()
}

#[test]
fn plans_hold_no_weight_bias_or_coefficient() {
    for model in support::MODELS {
        let compiled = compiled(model);
        let needles = needles(&compiled);
        assert!(needles.len() > 1000, "{model}");
        let plan = compiled.bytes("plan.bin");
        assert_eq!(found(&plan, &needles), [], "{model}");
        let in_weights = found(&compiled.bytes("plan.weights"), &needles);
        let kinds: HashSet<&str> = in_weights.iter().map(|f| f.0).collect();
        assert!(kinds.is_superset(&["weights", "bias", "f32"].into()), "{model}: {kinds:?}");
        let has_coefficients = ["f64", "polynomial", "square"].iter().any(|k| kinds.contains(k));
        assert!(has_coefficients, "{model}: {kinds:?}");
    }
}

#[cfg(unix)]
#[test]
fn secret_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let compiled = compiled("digits_mlp");
    let mut deal = polyrt(&compiled.folder);
    let output = run(deal.args(["deal", "plan.bin", "--count", "2"]));
    assert!(output.status.success(), "{}", stderr(&output));
    for (file, is_secret) in [
        ("plan.bin", false),
        ("plan.weights", true),
        ("plan.correlations/party0.correlations", true),
        ("plan.correlations/party1.correlations", true),
    ] {
        let mode = compiled.folder.file(file).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077 == 0, is_secret, "{file} has mode {mode:o}");
        assert_eq!(mode & 0o600, 0o600, "{file} has mode {mode:o}");
    }
}
