//! Compilation that measures: the cheapest plan for a loss or for bytes, finer rings where rounding loses, and
//! the gates in front of plans that nobody should ship.

use ir::Tensor;
use ir::op::mean_square_slope;
use ir::plan::{
    Evaluator, Interactive, Phase, Rounding, Step, StepOp, StepWeights, carry_noise, phase_error,
};
use polyc::error::CompileError;
use polyc::evaluate::Sample;
use polyc::fit::{Calibration, Family};
use polyc::onnx::{ImportOptions, import_file};
use polyc::passes::PassOptions;
use polyc::search::{Gate, Goal, Measured, Minimise, check, cost, search};
use polyc::task::{Truth, Truths};
use polyc::{CompileOptions, Compiled, Prepared, prepare_plain};
use std::collections::BTreeSet;
use support::{array, rows, shipped};

struct Network {
    prepared: Prepared,
    calibration: Calibration,
    held_out: Vec<Tensor<f32>>,
    truths: Truths,
}

/// A shipped model, with so many inputs to fit on and a hundred that are held out.
fn network(model: &str, fitted: usize) -> Network {
    let imported = import_file(&shipped(model), &ImportOptions::default()).unwrap();
    let prepared = prepare_plain(imported, &PassOptions::default()).unwrap();
    let shape = prepared.graph.node(prepared.graph.input()).shape.clone();
    let mut inputs = rows(&array(&shipped("digits_train.npz"), "x"), &shape);
    inputs.truncate(fitted + 100);
    let held_out = inputs.split_off(fitted);
    let labels = array(&shipped("digits_train.npz"), "y");
    let truth = |&label: &f32| Truth::Classes(vec![label as usize]);
    let truths = vec![Some(labels.data[fitted..fitted + 100].iter().map(truth).collect())];
    let calibration = Calibration::new(inputs, "digits");
    Network { prepared, calibration, held_out, truths }
}

impl Network {
    fn search(&self, options: &CompileOptions, goal: Goal) -> Result<Measured, CompileError> {
        let held_out = Sample { inputs: &self.held_out, truths: &self.truths, float: None };
        let quiet = |_: &str, _: f64| ();
        search("digits", &self.prepared, &self.calibration, held_out, options, goal, &quiet)
    }
}

fn harmonics(measured: &Measured) -> u32 {
    let steps = measured.compiled.plan.steps.iter();
    let of = |op: &StepOp| {
        if let StepOp::Interactive(Interactive::Phase(phase)) = op { phase.harmonics } else { 0 }
    };
    steps.map(|step| of(&step.op)).sum()
}

#[test]
fn auto_finds_the_fewest_harmonics_for_a_loss_and_the_most_for_bytes() {
    let network = network("digits_resnet.onnx", 150);
    let options = CompileOptions::default();
    let cheapest = |loss, bytes| network.search(&options, Goal::Cheapest { loss, bytes });
    let default = network.search(&options, Goal::AsGiven).unwrap();
    let cheap = cheapest(Some(0.05), None).unwrap();
    assert!(cheap.evaluation.loss().unwrap() <= 0.05);
    assert!(
        harmonics(&cheap) < harmonics(&default),
        "five points are more than harmonics are worth"
    );
    assert!(cost(&cheap.compiled) < cost(&default.compiled));
    let between = (cost(&cheap.compiled) + cost(&default.compiled)) / 2;
    let bounded = cheapest(None, Some(between)).unwrap();
    assert!(cost(&bounded.compiled) <= between);
    assert!(harmonics(&bounded) >= harmonics(&cheap));
}

#[test]
fn a_goal_that_no_choice_of_harmonics_reaches_is_refused() {
    let network = network("digits_mlp.onnx", 120);
    let goal = Goal::Cheapest { loss: None, bytes: Some(10) };
    match network.search(&CompileOptions::default(), goal) {
        Err(CompileError::Rejected(why)) => assert!(why.contains("harmonics"), "{why}"),
        _ => panic!("ten bytes are not enough"),
    }
}

fn online_bytes(measured: &Measured) -> usize {
    let (to0, to1, _) = measured.compiled.plan.traffic(1);
    to0 + to1
}

#[test]
fn fewer_bits_where_they_matter_least() {
    let network = network("digits_resnet.onnx", 120);
    let options = CompileOptions::default();
    let narrowest =
        |loss, minimise| network.search(&options, Goal::Narrowest { loss, minimise }).unwrap();
    let uniform = network.search(&options, Goal::AsGiven).unwrap();
    let online = narrowest(0.005, Minimise::Online);
    let fewer = online_bytes(&online) as f64 / online_bytes(&uniform) as f64;
    assert!(fewer < 0.85, "{fewer} of the uniform choice's bytes");
    let accuracy = online.evaluation.outputs[0].accuracy.as_ref().unwrap();
    let lost = accuracy.float.unwrap() - accuracy.rounded;
    assert!(lost <= 0.03, "three of a hundred inputs at most: {lost}");
    // Runs lose what is allowed of all inputs, and as luck will have it more of a hundred.
    let lost = online.evaluation.loss().unwrap();
    assert!(lost <= 0.08, "{lost}");
    assert!(online.notes.iter().any(|n| n.contains("bytes online")), "{:?}", online.notes);
    // What is made offline is finer, and two parties compute what the evaluator does.
    let phases = online.compiled.plan.steps.iter().filter_map(|step| match &step.op {
        StepOp::Interactive(Interactive::Phase(phase)) => Some((phase.spare_bits(), phase.guard)),
        _ => None,
    });
    let phases: Vec<_> = phases.collect();
    assert!(phases.iter().all(|(spare, _)| *spare == 2), "{phases:?}");
    assert!(phases.iter().any(|(_, guard)| *guard > 0), "{phases:?}");
    let Compiled { plan, weights, .. } = &online.compiled;
    let inputs = &network.held_out[..8];
    let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
    let evaluator = Evaluator::new(plan, weights);
    let bound = carry_noise(&evaluator, &encoded, 50).bound;
    let exact = evaluator.run_batch(&encoded, Rounding::Nearest);
    let run = polyrt::run_in_memory(plan, weights, inputs).unwrap();
    for (got, want) in run.logits.iter().zip(&exact) {
        let pairs = got.data.iter().zip(&want.data);
        let worst = pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        assert!(worst <= bound, "{worst}, expected at most {bound}");
        assert!(worst > 0.0, "carries are those of masks");
    }
    // More loss allows fewer bits.
    let coarse = narrowest(0.05, Minimise::Online);
    println!("{:?} {:?} {:?}", uniform.notes, online.notes, coarse.notes);
    assert!(online_bytes(&coarse) < online_bytes(&online));
    // Bits are not the same everywhere any more.
    let bits = |measured: &Measured| -> BTreeSet<(u32, u32)> {
        let steps = measured.compiled.plan.steps.iter();
        let of = |step: &Step| match &step.op {
            StepOp::Interactive(Interactive::Phase(phase)) => Some((phase.p, step.ring)),
            _ => None,
        };
        steps.filter_map(of).collect()
    };
    assert!(bits(&online).len() > 1, "{:?}", bits(&online));
    // Offline, harmonics go.
    let offline = narrowest(0.02, Minimise::Offline);
    let bytes = |m: &Measured| Minimise::Offline.bytes(&m.compiled.plan);
    assert!(bytes(&offline) < bytes(&uniform));
    assert!(harmonics(&offline) < harmonics(&uniform));
}

#[test]
fn where_nothing_is_allowed_the_plan_stays_what_it_is() {
    let network = network("digits_mlp.onnx", 120);
    let options = CompileOptions::default();
    let uniform = network.search(&options, Goal::AsGiven).unwrap();
    let goal = Goal::Narrowest { loss: -1.0, minimise: Minimise::Online };
    let none = network.search(&options, goal).unwrap();
    assert_eq!(online_bytes(&none), online_bytes(&uniform));
    assert!(none.notes.iter().any(|n| n.contains("no plan of fewer bits")), "{:?}", none.notes);
}

/// Tables are as fine as their phases: what they add to the error of an activation is small, and one bit less
/// everywhere would show.
#[test]
fn tables_follow_the_bits_of_phases() {
    let network = network("digits_resnet.onnx", 300);
    let shifts = |phase_bits: u32| {
        let mut options = CompileOptions::default();
        options.rings.phase_bits = phase_bits;
        let found = network.search(&options, Goal::AsGiven).unwrap();
        let steps = found.compiled.plan.steps.iter().zip(&found.compiled.weights.steps);
        let of = |(step, secrets): (&Step, &StepWeights)| {
            let StepOp::Interactive(Interactive::Phase(phase)) = &step.op else { return None };
            let error = |phase: &Phase| phase_error(phase, secrets, 2000);
            let finer = |by: u32| {
                let shift = phase.shift + 3 * by;
                Phase { g2: phase.g2 + by, h: phase.h + by, shift, q: shift + step.ring, ..*phase }
            };
            // The truncation alone makes an error of 1/6, the steps of the phase as much of theirs.
            let (exact, chosen) = (error(&finer(4)), error(phase));
            assert!((exact - 1.0 / 6.0).abs() < 0.01, "{exact}");
            let StepWeights::Phase { harmonics, .. } = secrets else { unreachable!() };
            let turns = (-2.0 * f64::from(phase.p)).exp2() / 6.0;
            let all = exact + mean_square_slope(harmonics) * turns;
            // The weights before the phase add about as much again as it does itself.
            assert!(chosen - exact < 0.4 * all, "{chosen} against {exact} of {all}");
            assert!(chosen - exact > 0.01 * all, "{chosen} against {exact} of {all}");
            Some(phase.shift)
        };
        steps.filter_map(of).max().unwrap()
    };
    assert!(shifts(6) < shifts(10));
}

#[test]
fn rings_become_finer_where_rounding_loses() {
    let network = network("digits_resnet.onnx", 300);
    let mut options = CompileOptions::default();
    options.rings.phase_bits = 3;
    options.rings.value_bits = 0.0;
    options.rings.rounding_bits = -6.0;
    let found = network.search(&options, Goal::AsGiven).unwrap();
    assert!(!found.notes.is_empty(), "coarse rings were noticed");
    let bits = found.compiled.plan.steps.iter().filter_map(|step| match &step.op {
        StepOp::Interactive(Interactive::Phase(phase)) => Some(phase.p),
        _ => None,
    });
    assert!(bits.clone().all(|p| p > 3), "{:?}", bits.collect::<Vec<_>>());
}

#[test]
fn plans_that_lose_or_escape_are_refused_with_their_layers() {
    let mut network = network("digits_resnet.onnx", 300);
    let family = Family::Polynomial { degree: 2 };
    let options = CompileOptions { families: family.into(), ..CompileOptions::default() };
    let gate = Gate { max_escape: 0.005, max_loss: 0.1 };
    let found = network.search(&options, Goal::AsGiven).unwrap();
    check(&found, gate).unwrap();
    let steps = found.compiled.plan.steps.iter();
    let squares =
        steps.filter(|step| matches!(step.op, StepOp::Interactive(Interactive::Square(_)))).count();
    assert_eq!(squares, 4, "behind a convolution, a quadratic is one square");
    let refused = |found: &Measured, gate| check(found, gate).unwrap_err().to_string();
    let strict = Gate { max_loss: -1.0, ..gate };
    let why = refused(&found, strict);
    assert!(why.contains("imitation error") && why.contains("--force"), "{why}");
    // Inputs of much more contrast leave the intervals that squares were fitted on.
    network.held_out.iter_mut().flat_map(|x| &mut x.data).for_each(|v| *v *= 3.5);
    let found = network.search(&options, Goal::AsGiven).unwrap();
    assert!(found.evaluation.escaped > 50, "{}", found.evaluation.escaped);
    let why = refused(&found, gate);
    assert!(why.contains("escape") && why.contains("--activation phase"), "{why}");
    let layer = found.evaluation.layers.iter().find(|l| l.escaped > 0).unwrap();
    assert!(why.contains(&layer.name), "{why}");
}
