use super::*;
use crate::evaluate::{
    Accuracy, Agreement, Columns, Counted, Evaluation, NumberErrors, RelativeError,
};
use crate::fit::Stretched;
use crate::pipeline::Compiled;
use ir::Shape;
use ir::graph::Graph;
use ir::plan::{Plan, Reference, Step, StepOp, ValueId, Weights};
use std::collections::HashMap;

#[test]
fn few_inputs_are_given_the_benefit_of_the_doubt() {
    let is_luck = |count: usize, n: usize| is_luck(count as f64, n as f64, 0.1);
    assert!(is_luck(1, 1) && is_luck(1, 5) && is_luck(2, 5) && is_luck(3, 12));
    assert!(!is_luck(2, 2) && !is_luck(3, 5) && !is_luck(4, 12) && !is_luck(7, 12));
    // The more inputs, the less doubt: 10% are allowed.
    assert!(is_luck(15, 100) && !is_luck(16, 100) && !is_luck(120, 1000));
    assert!(is_luck(100_100, 1_000_000) && !is_luck(101_000, 1_000_000));
    assert!(super::is_luck(0.9, 5.0, 0.0) && !super::is_luck(1.0, 5.0, 0.0));
    // 95% quantiles of chi square: 3.841 of 1, 11.070 of 5, 124.342 of 100.
    for (n, quantile) in [(1.0, 3.841), (5.0, 11.07), (100.0, 124.342)] {
        let found = n * chi_square_quantile(n);
        assert!((found - quantile).abs() < 0.03 * quantile, "{found} for {quantile}");
    }
}

/// Against the tail summed from binomial coefficients.
#[test]
fn luck_is_the_tail_of_the_binomial_distribution() {
    for n in [1usize, 3, 10, 40] {
        for share in [0.01, 0.1, 0.5, 0.9] {
            let mut tail = 1.0;
            for count in 0..=n {
                assert_eq!(
                    is_luck(count as f64, n as f64, share),
                    tail >= DOUBT,
                    "{count} of {n} at {share}"
                );
                let choices = (0..count).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
                tail -= choices
                    * f64::powi(share, count as i32)
                    * f64::powi(1.0 - share, (n - count) as i32);
            }
        }
    }
}

fn layer(name: &str, imitation: f64, noise: f64) -> LayerEvaluation {
    LayerEvaluation {
        name: name.into(),
        fit: "3 harmonics".into(),
        interval: Some((-2.0, 1.0)),
        outside: None,
        beyond_half_turn: None,
        escaped: 0,
        largest: 5.0,
        largest_error: None,
        imitation: Some(imitation),
        noise: Some(noise),
    }
}

/// Classes of which runs lose `lost` of `count` and gain `gained`.
fn classes(count: usize, lost: usize, gained: usize) -> Judged {
    let share = |n: usize| n as f64 / count as f64;
    let plan = 0.9 - share(lost) + share(gained);
    Judged {
        name: "y".into(),
        task: "classify",
        class_axis: Some(1),
        threshold: None,
        positions: 1,
        accuracy: Some(Accuracy { float: Some(0.9), fitted: None, plan, rounded: plan }),
        agreement: Some(Agreement { fitted: 1.0, plan: 1.0 - share(lost + gained), rounded: 1.0 }),
        error: None,
        relative_error: None,
        loss: Some(share(lost) - share(gained)),
        worst_difference: None,
        carry_agreement: None,
        changed: vec![],
        classes: vec![],
        counted: Counted { count: count as f64, lost: lost as f64, gained: gained as f64 },
        meaning: Task::Classify { axis: 1 },
    }
}

/// Numbers of which runs lose a share of the spread.
fn numbers(count: usize, loss: f64, fitted: f64) -> Judged {
    let of = |plan: f64| RelativeError {
        fitted_rms: 0.0,
        plan_rms: 0.0,
        fitted: Some(fitted),
        plan: Some(plan),
    };
    Judged {
        task: "regress",
        class_axis: None,
        accuracy: None,
        agreement: None,
        relative_error: Some(of(loss)),
        loss: Some(loss),
        counted: Counted { count: count as f64, ..Counted::default() },
        meaning: Task::Regress,
        ..classes(count, 0, 0)
    }
}

fn measured(outputs: Vec<Judged>, layers: Vec<LayerEvaluation>, escaped: usize) -> Measured {
    let shape = Shape::new([1, 4]);
    let input = Step {
        name: "x".into(),
        op: StepOp::Input,
        operands: vec![],
        shape: shape.clone(),
        ring: 16,
        fraction_bits: 0,
    };
    let plan = Plan::of_steps("x", vec![input], ValueId(0), (1.0, 1.0), 1.0);
    let (_, digest) = plan.to_bytes();
    let graph = Graph::new("x", shape);
    let reference = Reference {
        original: graph.clone(),
        fitted: graph,
        values: HashMap::new(),
        layers: vec![],
        calibration: String::new(),
        source: None,
    };
    let compiled = Compiled {
        plan,
        digest,
        weights: Weights { plan: digest, salt: [0; 32], steps: vec![] },
        reference,
        fits: vec![],
        outliers: vec![],
        stretched: vec![],
        phases: vec![],
    };
    let evaluation = Evaluation {
        inputs: 100,
        runs: 100,
        escaped,
        carry_deviation: 0.0,
        carry_bound: 0.0,
        layers,
        outputs,
        logits: vec![],
    };
    Measured { compiled, evaluation, notes: vec![] }
}

const GATE: Gate = Gate { max_escape: 0.02, max_loss: 0.1 };

fn refusal_of(measured: &Measured, gate: Gate) -> Option<String> {
    check(measured, gate).err().map(|why| why.to_string())
}

#[test]
fn losses_beyond_doubt_are_refused() {
    let of = |lost: usize, gained: usize| {
        refusal_of(&measured(vec![classes(100, lost, gained)], vec![], 0), GATE)
    };
    assert_eq!(of(0, 0), None);
    assert_eq!(of(10, 0), None, "as much as is allowed");
    assert_eq!(of(15, 0), None, "a sample of a hundred may show this");
    let why = of(16, 0).unwrap();
    assert!(why.contains("lose 16.0 points of accuracy on 100 inputs, more than 10.0"), "{why}");
    assert!(of(40, 20).is_some(), "gains are no reason to lose twice as many");
    assert_eq!(of(30, 25), None, "lost and gained are within a tenth of each other");
}

#[test]
fn every_output_must_pass() {
    let mut bad = classes(100, 50, 0);
    bad.name = "second".into();
    let why = refusal_of(&measured(vec![classes(100, 0, 0), bad], vec![], 0), GATE).unwrap();
    assert!(why.starts_with("output second: ") || why.contains("output second: "), "{why}");
    let mut unknown = classes(100, 50, 0);
    unknown.loss = None;
    assert_eq!(
        refusal_of(&measured(vec![unknown], vec![], 0), GATE),
        None,
        "nothing is known of it"
    );
}

#[test]
fn nothing_may_be_lost_where_less_than_nothing_is_allowed() {
    let gate = Gate { max_loss: -0.5, ..GATE };
    assert!(refusal_of(&measured(vec![classes(100, 0, 0)], vec![], 0), gate).is_some());
}

#[test]
fn numbers_are_judged_by_their_error() {
    let of =
        |loss: f64, count| refusal_of(&measured(vec![numbers(count, loss, loss)], vec![], 0), GATE);
    assert_eq!(of(0.1, 1000), None);
    assert!(of(0.11, 1000).is_some());
    assert_eq!(of(0.15, 2), None, "two errors may be larger than most");
    let why = of(0.3, 1000).unwrap();
    assert!(why.contains("30.0% of the outputs' spread"), "{why}");
    let mut of_labels = numbers(1000, 0.3, 0.3);
    let columns = Columns { float: None, fitted: None, plan: None };
    of_labels.error = Some(NumberErrors { rmse: columns, r2: columns, largest: columns });
    let why = refusal_of(&measured(vec![of_labels], vec![], 0), GATE).unwrap();
    assert!(why.contains("of the labels' spread"), "{why}");
}

#[test]
fn the_layers_that_make_most_of_it_are_blamed() {
    let layers = || {
        let names = ["a", "b", "c", "d", "e", "f"];
        let layers = names.iter().enumerate();
        layers.map(|(i, name)| layer(name, 0.1 * i as f64, 0.6 - 0.1 * i as f64)).collect()
    };
    // Runs lose what the fit does not.
    let mut rounding = classes(100, 50, 0);
    rounding.agreement = Some(Agreement { fitted: 1.0, plan: 0.5, rounded: 1.0 });
    let why = refusal_of(&measured(vec![rounding], layers(), 0), GATE).unwrap();
    assert!(why.contains("runs round the most at: a (3 harmonics, noise 60%), b"), "{why}");
    assert!(why.contains("and 2 more; more --phase-bits help"), "{why}");
    let mut fitting = classes(100, 50, 0);
    fitting.agreement = Some(Agreement { fitted: 0.5, plan: 0.5, rounded: 0.5 });
    let why = refusal_of(&measured(vec![fitting], layers(), 0), GATE).unwrap();
    assert!(
        why.contains("furthest from the network: f (3 harmonics, imitation error 50%), e"),
        "{why}"
    );
}

#[test]
fn escapes_are_refused_by_layer() {
    let mut layers = vec![layer("calm", 0.0, 0.0), layer("wild", 0.0, 0.0)];
    layers[1].escaped = 3;
    let of = |escaped: usize, layers: &[LayerEvaluation]| {
        let layers = layers.iter().map(|l| LayerEvaluation {
            name: l.name.clone(),
            fit: l.fit.clone(),
            ..*l
        });
        refusal_of(&measured(vec![], layers.collect(), escaped), GATE)
    };
    assert_eq!(of(2, &layers), None);
    let why = of(3, &layers).unwrap();
    assert!(why.contains("3 of 100") && why.contains("more than 2%"), "{why}");
    assert!(
        why.contains("wild (3 inputs, up to 2.5 times its interval)") && !why.contains("calm"),
        "{why}"
    );
}

#[test]
fn rare_inputs_are_named() {
    let mut found = measured(vec![classes(100, 50, 0)], vec![], 0);
    let stretched = |name: &str, factor| Stretched { name: name.into(), factor, rows: vec![7] };
    found.compiled.stretched = vec![stretched("less", 3.0), stretched("most", 9.0)];
    let why = refusal_of(&found, GATE).unwrap();
    assert!(why.contains("row 7 reach 9 times as far as the others at most"), "{why}");
}
