//! Every shipped model: ONNX Runtime's outputs, the graph in floating point, the plan's integers and two
//! parties agree, and the wire is what the report says.

use ir::Tensor;
use ir::graph::evaluate_batch;
use ir::plan::{Evaluator, Rounding, Weights, carry_noise};
use polyc::evaluate::classes;
use serde_json::Value;
use std::sync::LazyLock;
use support::{
    MODELS, Written, array, compile_shipped, compiled, digits, polyc, rows, run, shipped, stderr,
};

static COMPILED: LazyLock<Vec<(&str, Written)>> =
    LazyLock::new(|| MODELS.iter().map(|&model| (model, compiled(model))).collect());

fn correct(outputs: &[Tensor<f32>]) -> usize {
    let labels = array(&shipped("digits_test.npz"), "y");
    let of = classes(outputs);
    assert_eq!(of.len(), labels.data.len());
    of.iter().zip(&labels.data).filter(|(class, label)| **class == **label as usize).count()
}

#[test]
fn the_import_computes_what_onnx_runtime_computes() {
    for (model, compiled) in COMPILED.iter() {
        let graph = &compiled.reference.original;
        let expected = array(&shipped(&format!("{model}.expected.npz")), "logits");
        let outputs = evaluate_batch(graph, &digits(&compiled.plan, usize::MAX));
        let expected = rows(&expected, &graph.node(graph.output()).shape);
        assert_eq!(outputs.len(), expected.len());
        for (got, want) in outputs.iter().zip(&expected) {
            for (a, b) in got.data.iter().zip(&want.data) {
                assert!((a - b).abs() <= 1e-3 * b.abs().max(1.0), "{model}: {a} for {b}");
            }
        }
    }
}

#[test]
fn plans_are_within_a_point_of_the_float_networks() {
    for (model, compiled) in COMPILED.iter() {
        let inputs = digits(&compiled.plan, usize::MAX);
        let float = correct(&evaluate_batch(&compiled.reference.original, &inputs));
        let encoded: Vec<_> =
            inputs.iter().map(|x| compiled.plan.encode_input(x).unwrap()).collect();
        let evaluator = Evaluator::new(&compiled.plan, &compiled.weights);
        let plan = correct(&evaluator.run_batch(&encoded, Rounding::Nearest));
        assert!(float * 100 >= 97 * inputs.len(), "{model}: float {float} of {}", inputs.len());
        assert!(plan * 100 + inputs.len() >= float * 100, "{model}: plan {plan}, float {float}");
    }
}

#[test]
fn two_parties_agree_with_the_evaluator() {
    for (model, compiled) in COMPILED.iter() {
        let plan = &compiled.plan;
        let inputs = digits(plan, 20);
        let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
        let evaluator = Evaluator::new(plan, &compiled.weights);
        let exact = evaluator.run_batch(&encoded, Rounding::Nearest);
        let bound = carry_noise(&evaluator, &encoded, 50).bound;
        let spread = exact.iter().flat_map(|y| &y.data).fold(0f32, |m, v| m.max(v.abs()));
        assert!(bound < f64::from(spread) / 3.0, "{model}: bound {bound}, logits up to {spread}");
        for (batch, exact) in [(&inputs[..], &exact[..]), (&inputs[..1], &exact[..1])] {
            let run = polyrt::run_in_memory(plan, &compiled.weights, batch).unwrap();
            assert_eq!(classes(&run.logits), classes(exact), "{model}");
            for (got, want) in run.logits.iter().zip(exact) {
                for (a, b) in got.data.iter().zip(&want.data) {
                    assert!(f64::from((a - b).abs()) <= bound, "{model}: {a} for {b} ± {bound}");
                }
            }
        }
    }
}

#[test]
fn the_wire_is_what_the_report_says() {
    for (model, compiled) in COMPILED.iter() {
        for batch in [1, 20] {
            let mut command = polyc(&compiled.folder);
            command.args(["report", "plan.bin", "--json", "--batch", &batch.to_string()]);
            let output = run(&mut command);
            assert!(output.status.success(), "{}", stderr(&output));
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();

            let inputs = digits(&compiled.plan, batch);
            let run = polyrt::run_in_memory(&compiled.plan, &compiled.weights, &inputs).unwrap();
            let (party0, party1) = (run.party0.online, run.party1.online);
            assert_eq!(report["bytes_to_party0"], party1.sent_bytes, "{model}");
            assert_eq!(report["bytes_to_party1"], party0.sent_bytes, "{model}");
            assert_eq!(report["messages"], party0.sent_messages + party1.sent_messages, "{model}");
            assert_eq!(party0.received_bytes, party1.sent_bytes);
            assert_eq!(party1.received_bytes, party0.sent_bytes);
            assert_eq!(
                (party1.sent_bytes, party0.sent_bytes, party0.sent_messages + party1.sent_messages),
                compiled.plan.traffic(batch)
            );
            let messages: usize = compiled.plan.messages().iter().map(|m| m.bytes(batch)).sum();
            assert_eq!(messages, party0.sent_bytes + party1.sent_bytes);
            assert_eq!(report["digest"], compiled.digest.to_string());
        }
    }
}

#[test]
fn compilation_is_deterministic() {
    for (model, compiled) in COMPILED.iter() {
        let again = compile_shipped(model, 1);
        let message = "differs with another number of threads";
        assert!(compiled.bytes("plan.bin") == again.bytes("plan.bin"), "{model}: plan {message}");
        // But for the salt of the weights, which is drawn.
        let unsalted = |written: &Written| {
            let bytes = written.bytes("plan.weights");
            let mut weights = Weights::from_bytes(&bytes, &written.plan, written.digest).unwrap();
            let salt = std::mem::take(&mut weights.salt);
            let reference = Weights::reference_from_bytes(&bytes).unwrap();
            (weights.to_bytes(reference.as_ref()), salt)
        };
        let ((weights, salt), (weights_again, salt_again)) = (unsalted(compiled), unsalted(&again));
        assert!(weights == weights_again, "{model}: weights {message}");
        assert!(salt != salt_again, "{model}: the salt is drawn anew");
    }
}

#[test]
fn evaluations_say_what_every_layer_does() {
    for (model, compiled) in COMPILED.iter() {
        let mut command = polyc(&compiled.folder);
        command.args(["evaluate", "plan.bin", "--count", "50", "--json", "--logits", "--inputs"]);
        let output = run(command.arg(shipped("digits_test.npz")));
        assert!(output.status.success(), "{}", stderr(&output));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let evaluator = Evaluator::new(&compiled.plan, &compiled.weights);
        let inputs = digits(&compiled.plan, 50);
        let encoded: Vec<_> =
            inputs.iter().map(|x| compiled.plan.encode_input(x).unwrap()).collect();
        let outputs = evaluator.run_batch(&encoded, Rounding::Nearest);
        let logits: Vec<Vec<f32>> = serde_json::from_value(json["logits"].clone()).unwrap();
        assert!(logits.iter().eq(outputs.iter().map(|y| &y.data)), "{model}");
        let of = |kind: &str| -> Vec<usize> {
            let classes = json["classes"].as_array().unwrap();
            classes.iter().map(|c| c[kind].as_u64().unwrap() as usize).collect()
        };
        assert_eq!(of("plan"), classes(&outputs), "{model}");
        let float = evaluate_batch(&compiled.reference.original, &inputs);
        assert_eq!(of("float"), classes(&float), "{model}");
        let changed = json["changed"].as_array().unwrap();
        let differ = of("plan").iter().zip(of("float")).filter(|(p, f)| **p != *f).count();
        assert_eq!(changed.len(), differ, "{model}");
        let layers = json["layers"].as_array().unwrap();
        let steps = compiled.plan.steps.iter().filter(|s| s.op.is_interactive());
        assert_eq!(layers.len(), steps.count(), "{model}: a line for every activation");
        for layer in layers {
            let number = |key: &str| layer[key].as_f64();
            let noise = number("noise").unwrap();
            assert!(noise > 0.001 && noise < 0.15, "{model}: {layer}");
            let imitation = number("imitation").unwrap();
            if layer["interval"].is_null() {
                // The network's own polynomial: only what is re-solved for rounding differs.
                assert!(imitation < 0.02, "{model}: {layer}");
            } else {
                assert!(imitation > 0.01 && imitation < 0.3, "{model}: {layer}");
                assert!(number("beyond_half_turn").unwrap() < 0.001, "{model}: {layer}");
            }
        }
    }
}
