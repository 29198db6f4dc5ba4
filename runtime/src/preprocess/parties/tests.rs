use super::*;
use crate::Connected;
use crate::net::memory_pair;
use crate::preprocess::store::NoSupply;
use crate::preprocess::{DealId, Network};
use crate::session::Finished;
use crate::testing::plans;
use ir::Tensor;
use ir::plan::{Evaluator, Method, Plan, Rounding, Weights};
use ir::ring::to_signed;
use std::time::Duration;

/// Both parties of a run without a dealer.
fn run(
    plan: &Plan,
    weights: &Weights,
    inputs: &[Tensor<f32>],
) -> (Finished<()>, Finished<Vec<Tensor<u64>>>) {
    let (_, digest) = plan.to_bytes();
    let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
    let (end0, end1) = memory_pair(Duration::from_secs(60));
    let batch = inputs.len();
    std::thread::scope(|scope| {
        let party0 = scope.spawn(|| {
            let mut supply =
                NoSupply::new(Role::Party0, Network::of_party0(digest, weights), DealId([0; 16]));
            let agreed = Connected::new(end0).agree(plan, digest, batch, &mut supply).unwrap();
            let agreed = agreed.preprocess_party0(weights, &mut |_| ()).unwrap();
            agreed.prepare_party0(weights).unwrap().run().unwrap()
        });
        let mut supply = NoSupply::new(Role::Party1, Network::of_party1(digest), DealId([0; 16]));
        let agreed = Connected::new(end1).agree(plan, digest, batch, &mut supply).unwrap();
        let agreed = agreed.preprocess_party1(&mut |_| ()).unwrap();
        let party1 = agreed.prepare_party1().unwrap().run(&encoded).unwrap();
        (party0.join().unwrap(), party1)
    })
}

/// A plan of one linear step: its results are the evaluator's, or a unit beside them as often as predicted, in a run
/// and in what the evaluator draws.
#[test]
fn linear_results_are_a_unit_off_as_often_as_predicted() {
    let mut builder = plans::Builder::new([1, 8, 16, 16], 16);
    let output = builder.convolution(0, 32, 16, 127);
    let (plan, weights) = builder.finish(output);
    let inputs = plans::inputs(&plan, 8, 5);
    let (_, party1) = run(&plan, &weights, &inputs);
    let evaluator = Evaluator::new(&plan, &weights);
    let evaluate = |rounding: fn(u64) -> Rounding| {
        let encoded = inputs.iter().map(|x| plan.encode_input(x).unwrap());
        let run = |(i, x)| evaluator.run(&x, rounding(i), |_, _| ());
        (0..).zip(encoded).map(run).collect::<Vec<_>>()
    };
    let exact = evaluate(|_| Rounding::Nearest);
    let expected = plan.off_by_one(output) * (8 * 32 * 16 * 16) as f64;
    for outputs in [party1.output, evaluate(Rounding::Sampled)] {
        let pairs = outputs.iter().zip(&exact).flat_map(|(a, b)| a.data.iter().zip(&b.data));
        let errors: Vec<i64> =
            pairs.map(|(a, b)| to_signed(a.wrapping_sub(*b) & 0xffff, 16)).collect();
        assert!(errors.iter().all(|e| e.abs() <= 1));
        let (off, sum) = (errors.iter().filter(|&&e| e != 0).count(), errors.iter().sum::<i64>());
        let six = 6.0 * expected.sqrt();
        println!("{off} of {} are off, {expected:.1} expected; sum {sum}", errors.len());
        assert!(expected > 300.0 && (off as f64 - expected).abs() < six, "{off} {expected}");
        assert!((sum as f64).abs() < six, "{sum}");
    }
}

#[test]
fn two_parties_alone_answer_what_the_evaluator_answers() {
    let large = plans::large_phases();
    let is_encrypted = |e: &ir::plan::Exchange| matches!(e.method, Method::Slots(_));
    assert_eq!(large.0.offline_schedule(1).exchanges.iter().filter(|e| is_encrypted(e)).count(), 2);
    let hadamard = plans::large_hadamard();
    assert!(hadamard.0.offline_schedule(1).exchanges.iter().filter(|e| e.step == 1).count() > 1);
    let selects = [plans::selects(), plans::narrow_select(), plans::large_selects()];
    let tables = [plans::tables(), plans::large_tables()];
    let others = [plans::phases(), plans::every_kind(), plans::tiny(), large, hadamard];
    for (plan, weights) in others.into_iter().chain(selects).chain(tables) {
        for batch in [1, 3] {
            let inputs = plans::inputs(&plan, batch, 5);
            let (party0, party1) = run(&plan, &weights, &inputs);
            let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
            let evaluator = Evaluator::new(&plan, &weights);
            let noise = ir::plan::carry_noise(&evaluator, &encoded, 20);
            let exact = evaluator.run_batch(&encoded, Rounding::Nearest);
            for (got, want) in party1.output.iter().zip(&exact) {
                let got = plan.decode_output(got);
                for (a, b) in got.data.iter().zip(&want.data) {
                    assert!(f64::from(a - b).abs() <= noise.bound, "{a} {b} {}", noise.bound);
                }
            }
            let (to0, to1, messages) = plan.offline_traffic(batch);
            let offline = party1.offline.traffic;
            assert_eq!((offline.sent_bytes, offline.received_bytes), (to0, to1));
            assert_eq!(offline.sent_messages + offline.received_messages, messages);
            assert_eq!(party0.offline.traffic.sent_bytes, to1);
            assert_eq!(party0.offline.items, batch);
        }
    }
}
