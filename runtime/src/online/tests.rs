//! Every value reconstructed from both sides of a run, checked against the plan's meaning step by step.

use super::sizes::Sizes;
use crate::layout::to_row_major;
use crate::net::{Channel, Tap, memory_pair};
use crate::online::{Model, Party0, Party1};
use crate::preprocess::dealer::deal;
use crate::preprocess::expand::Seed;
use crate::preprocess::item::{Party0Item, Party1Item};
use crate::preprocess::masks;
use crate::session::Connected;
use crate::steps::Tables;
use crate::testing::{Random, plans};
use crate::words::Words;
use ir::plan::{
    Interactive, Local, Plan, Polynomial, Select, Step, StepOp, StepWeights, Table, Weights,
};
use ir::ring::{low_mask, to_signed};
use ir::{Shape, Tensor};
use std::sync::Arc;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(20);

/// Fixed seeds: for tests alone.
fn insecure_seed_for_tests(random: &mut Random) -> [u8; 32] {
    let words: Vec<u8> = (0..4).flat_map(|_| random.next().to_le_bytes()).collect();
    words.try_into().unwrap()
}

fn party0<'a>(
    plan: &'a Plan,
    weights: &'a Weights,
    items: Vec<Party0Item<'a>>,
    cut: Cut,
) -> Party0<'a> {
    let model = Model::new(plan, weights).cut(cut.sizes, cut.fused);
    Party0::new(Arc::new(model), Tables::new(plan), items).unwrap()
}

/// How messages are cut, and whether linear steps are made part by part.
#[derive(Clone, Copy)]
struct Cut {
    sizes: Sizes,
    fused: bool,
}

/// Every value as a whole.
const WHOLE: Cut = Cut { sizes: Sizes::DEFAULT, fused: false };
/// The smallest parts that there are, and every correlation taken when its time comes.
const FINE: Cut = Cut { sizes: Sizes { grain: 8, part: 16, preloaded: 0 }, fused: true };

/// A batch's items, row-major.
fn tensors(shape: &Shape, value: &Words) -> Vec<Tensor<u64>> {
    let items = to_row_major(shape, &value.elements());
    let tensor = |item: &[u64]| Tensor::new(shape.clone(), item.to_vec());
    items.chunks_exact(shape.elements()).map(tensor).collect()
}

/// Runs both parties over the in-memory channel and returns every value of every item that was made as a
/// whole, unmasked.
fn values(
    plan: &Plan,
    weights: &Weights,
    inputs: &[Tensor<u64>],
    [cut0, cut1]: [Cut; 2],
) -> Vec<Vec<Option<Tensor<u64>>>> {
    let mut random = Random::new(5);
    let (mut items0, mut items1, mut sides1) = (vec![], vec![], vec![]);
    for _ in inputs {
        let (seed0, seed1) =
            (insecure_seed_for_tests(&mut random), insecure_seed_for_tests(&mut random));
        let seed = |bytes: &[u8; 32]| Seed::from_item(bytes).unwrap();
        let (item0, item1) = deal(plan, weights, seed(&seed0), seed(&seed1));
        items0.push(Party0Item::new(plan, item0).unwrap());
        items1.push(Party1Item::new(plan, item1.clone()).unwrap());
        let mut again = Party1Item::new(plan, item1.clone()).unwrap();
        let mut sides = vec![];
        masks::walk(
            plan,
            |step| again.mask(step),
            |_, _, mask| {
                sides.push(mask.clone());
                Ok(())
            },
        )
        .unwrap();
        sides1.push(sides);
    }
    let mut unmasked: Vec<Vec<Option<Tensor<u64>>>> =
        inputs.iter().map(|_| vec![None; plan.steps.len()]).collect();
    let (mut end0, mut end1) = memory_pair(WAIT);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut party1 = Party1::cut(plan, Tables::new(plan), items1, cut1.sizes).unwrap();
            let outputs = party1.run(&mut end1, inputs).unwrap();
            assert_eq!(outputs.len(), inputs.len());
        });
        let mut party0 = party0(plan, weights, items0, cut0);
        party0
            .run(&mut end0, |index, value| {
                let ring = low_mask(plan.steps[index].ring);
                for (item, delta) in tensors(&plan.steps[index].shape, value).iter().enumerate() {
                    let mask = &sides1[item][index];
                    assert!(delta.data.iter().chain(&mask.data).all(|v| v & !ring == 0));
                    let pairs = delta.data.iter().zip(&mask.data);
                    let data = pairs.map(|(d, m)| d.wrapping_sub(*m) & ring).collect();
                    unmasked[item][index] = Some(Tensor::new(delta.shape.clone(), data));
                }
            })
            .unwrap();
    });
    unmasked
}

/// Whether `got` is what the step makes of its operands, to the carries that the protocol allows.
fn check_step(plan: &Plan, index: usize, secrets: &StepWeights, item: &[Tensor<u64>]) {
    let step = &plan.steps[index];
    let operands: Vec<&Tensor<u64>> = step.operands.iter().map(|o| &item[o.index()]).collect();
    let got = &item[index];
    match &step.op {
        StepOp::Input => {}
        StepOp::Constant => {
            let StepWeights::Constant(values) = secrets else { panic!() };
            assert!(got.data == *values);
        }
        StepOp::Local(Local::Truncate { shift }) => {
            for (&got, &y) in got.data.iter().zip(&operands[0].data) {
                let low = low_mask(step.ring);
                let exact = (y & low_mask(step.ring + shift)) >> shift;
                assert!(got.wrapping_sub(exact) & low <= 1);
            }
        }
        StepOp::Interactive(Interactive::Phase(_))
        | StepOp::Interactive(Interactive::Square(_))
        | StepOp::Interactive(
            Interactive::Polynomial(Polynomial { .. })
            | Interactive::Select(_)
            | Interactive::Table(_),
        ) => {
            let k = plan.step(step.operands[0]).ring;
            for (i, (&got, &y)) in got.data.iter().zip(&operands[0].data).enumerate() {
                let got = to_signed(got, step.ring) as f64;
                let allowed = allowed(step, secrets, i, y, k);
                assert!(
                    allowed.iter().any(|&(low, high)| low <= got && got <= high),
                    "step v{index} element {i}: {got}, allowed {allowed:?}"
                );
            }
        }
        _ => {
            let mut want = step.apply(secrets, &operands);
            step.add_bias(secrets, &mut want);
            assert!(*got == want, "step v{index} ({})", step.name);
        }
    }
}

/// The intervals that an interactive step's value may lie in: one per outcome of the first truncation.
fn allowed(step: &Step, secrets: &StepWeights, i: usize, y: u64, k: u32) -> Vec<(f64, f64)> {
    let channel = step.shape.channel_of(i);
    match (&step.op, secrets) {
        (
            StepOp::Interactive(Interactive::Phase(phase)),
            StepWeights::Phase { constant, harmonics },
        ) => {
            let slack = harmonics[channel].iter().flatten().map(|c| c.abs()).sum::<f64>()
                * (f64::from(phase.g2).exp2().recip() + f64::from(phase.h).exp2().recip())
                + 0.01;
            let value = |index: u64| {
                let theta = phase.angle(index);
                let terms = harmonics[channel].iter().enumerate().map(|(n, [a, b])| {
                    let (sin, cos) = (theta * (n + 1) as f64).sin_cos();
                    a * cos + b * sin
                });
                constant[channel] + terms.sum::<f64>()
            };
            // What is evaluated is less than a step of the opening below, and less than one of the mask
            // above.
            let (finer, spare) = (k - phase.mask_bits, phase.spare_bits());
            let top = (y + low_mask(finer)) >> finer;
            let indices = (0..=1u64 << spare)
                .map(|below| top.wrapping_sub(below) & low_mask(phase.mask_bits));
            let unit = 0.5 + 0.5 * f64::from(phase.guard).exp2() + slack;
            indices.map(value).map(|z| (z - unit, z + unit)).collect()
        }
        (StepOp::Interactive(Interactive::Square(square)), StepWeights::Square { constant }) => {
            let down = i128::from(to_signed(y, k)) >> square.t;
            let constant = i128::from(*ir::plan::per_channel(constant, channel));
            [down, down + 1].map(|v| floor_or_one_more(v * v + constant, square.shift)).to_vec()
        }
        (
            StepOp::Interactive(Interactive::Polynomial(Polynomial { square, .. })),
            StepWeights::Polynomial { coefficients },
        ) => {
            let down = i128::from(to_signed(y, k)) >> square.t;
            let coefficients = ir::plan::per_channel(coefficients, channel);
            let value = |v: i128| coefficients.iter().rev().fold(0i128, |z, c| z * v + c);
            [down, down + 1].map(|v| floor_or_one_more(value(v), square.shift)).to_vec()
        }
        (StepOp::Interactive(Interactive::Select(select)), _) => {
            let Select { k, p, t } = *select;
            let y = to_signed(y & low_mask(k), k);
            let (half, most) = (1i64 << (k - p) >> 1, 1i64 << (k - 1));
            assert!(y.abs() <= most - half, "{y} is beyond what a select is right for");
            let (zero, down) = ((0.0, 0.0), (y >> t) as f64);
            match y.abs() <= half {
                true => vec![zero, (down, down + 1.0)],
                false if y > 0 => vec![(down, down + 1.0)],
                false => vec![zero],
            }
        }
        (StepOp::Interactive(Interactive::Table(table)), _) => {
            let Table { k, mask_bits, .. } = *table;
            let finer = k - mask_bits;
            let top = ((y & low_mask(k)) + low_mask(finer)) >> finer;
            let entries = table.entries();
            let most =
                if finer == 0 && table.spare_bits() == 0 { 0 } else { 1 << table.spare_bits() };
            let value = |below: u64| {
                let entry = entries[(top.wrapping_sub(below) & low_mask(mask_bits)) as usize];
                let value = to_signed(entry, step.ring) as f64;
                (value, value)
            };
            (0..=most).map(value).collect()
        }
        _ => panic!("{} is not an interactive step", step.op.name()),
    }
}

fn floor_or_one_more(z: i128, shift: u32) -> (f64, f64) {
    let down = (z >> shift) as f64;
    (down, down + 1.0)
}

#[test]
fn every_value_of_both_parties_is_the_plans() {
    let selects = [plans::selects(), plans::narrow_select()];
    let others = [plans::every_kind(), plans::tiny(), plans::odd(), plans::tables()];
    for (plan, weights) in others.into_iter().chain(selects) {
        for batch in [1, 5] {
            let inputs = plans::inputs(&plan, batch, 31);
            let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
            let all = values(&plan, &weights, &encoded, [WHOLE; 2]);
            for (item, input) in all.into_iter().zip(&encoded) {
                let item: Vec<Tensor<u64>> = item.into_iter().map(Option::unwrap).collect();
                assert!(item[0] == *input);
                for index in 0..plan.steps.len() {
                    check_step(&plan, index, &weights.steps[index], &item);
                }
            }
        }
    }
}

/// However messages are cut and whatever is made part by part, the values are the same.
#[test]
fn parts_make_the_same_values() {
    let (every, odd) = (plans::every_kind(), plans::odd());
    for (plan, weights) in [
        every,
        odd,
        plans::phases(),
        plans::large_phases(),
        plans::selects(),
        plans::narrow_select(),
        plans::large_selects(),
        plans::tables(),
        plans::large_tables(),
    ] {
        for batch in [1, 3] {
            let inputs = plans::inputs(&plan, batch, 32);
            let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
            let want = values(&plan, &weights, &encoded, [WHOLE; 2]);
            let middle = Sizes { grain: 40, part: 200, preloaded: 5000 };
            let fused = |sizes| Cut { sizes, fused: true };
            for cuts in [
                [fused(Sizes::DEFAULT), WHOLE],
                [FINE, WHOLE],
                [WHOLE, FINE],
                [FINE, fused(middle)],
                [fused(middle), FINE],
            ] {
                let got = values(&plan, &weights, &encoded, cuts);
                let mut compared = 0;
                for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
                    assert!(got.is_none() || got == want);
                    compared += usize::from(got.is_some());
                }
                assert!(compared > batch * plan.steps.len() / 2);
            }
        }
    }
}

/// Sessions of several sizes, one after another, in the memory of the first.
#[test]
fn sessions_share_their_memory_and_nothing_else() {
    for (plan, weights) in [plans::every_kind(), plans::odd(), plans::selects(), plans::tables()] {
        let model = Arc::new(Model::new(&plan, &weights));
        let (_, digest) = plan.to_bytes();
        let batches = [3, 1, 2, 3];
        let (mut supply0, mut supply1) =
            crate::in_process::deal_in_memory(&plan, digest, &weights, 9).unwrap();
        let evaluator = ir::plan::Evaluator::new(&plan, &weights);
        for (round, &batch) in batches.iter().enumerate() {
            let inputs = plans::inputs(&plan, batch, 90 + round as u64);
            let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
            let (end0, end1) = memory_pair(WAIT);
            let output = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let agreed = Connected::new(end0).agree(&plan, digest, batch, &mut supply0);
                    agreed.unwrap().prepare_model(model.clone()).unwrap().run().unwrap();
                });
                let agreed = Connected::new(end1).agree(&plan, digest, batch, &mut supply1);
                agreed.unwrap().prepare_party1().unwrap().run(&encoded).unwrap().output
            });
            let bound = ir::plan::carry_noise(&evaluator, &encoded, 20).bound;
            let exact = evaluator.run_batch(&encoded, ir::plan::Rounding::Nearest);
            for (got, want) in output.iter().zip(&exact) {
                let got = plan.decode_output(got);
                for (a, b) in got.data.iter().zip(&want.data) {
                    assert!(f64::from((a - b).abs()) <= bound, "session {round}: {a} for {b}");
                }
            }
        }
    }
}

/// A model that owns its plan and weights serves sessions of several threads at once, which outlive the one that
/// loaded it.
#[test]
fn a_shared_model_serves_several_threads() {
    let (plan, weights) = plans::selects();
    let inputs: Vec<_> = (0..3).map(|n| plans::inputs(&plan, 2, 60 + n)).collect();
    let model = Arc::new(Model::shared(Arc::new(plan), Arc::new(weights)));
    let serve = |inputs: Vec<Tensor<f32>>| {
        let model = model.clone();
        std::thread::spawn(move || {
            let (plan, weights) = (model.plan(), &*model.weights);
            let (_, digest) = plan.to_bytes();
            let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
            let (mut supply0, mut supply1) =
                crate::in_process::deal_in_memory(plan, digest, weights, 2).unwrap();
            let (end0, end1) = memory_pair(WAIT);
            let output = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let agreed = Connected::new(end0).agree(plan, digest, 2, &mut supply0);
                    agreed.unwrap().prepare_model(model.clone()).unwrap().run().unwrap();
                });
                let agreed = Connected::new(end1).agree(plan, digest, 2, &mut supply1);
                agreed.unwrap().prepare_party1().unwrap().run(&encoded).unwrap().output
            });
            let evaluator = ir::plan::Evaluator::new(plan, weights);
            let bound = ir::plan::carry_noise(&evaluator, &encoded, 20).bound;
            let exact = evaluator.run_batch(&encoded, ir::plan::Rounding::Nearest);
            for (got, want) in output.iter().map(|y| plan.decode_output(y)).zip(&exact) {
                let mut pairs = got.data.iter().zip(&want.data);
                assert!(pairs.all(|(a, b)| f64::from((a - b).abs()) <= bound));
            }
        })
    };
    let sessions: Vec<_> = inputs.into_iter().map(serve).collect();
    drop(model);
    sessions.into_iter().for_each(|session| session.join().unwrap());
}

/// The same material is never given out twice, and never where there is none.
#[test]
fn material_is_given_out_once() {
    let (plan, weights) = plans::tiny();
    let mut random = Random::new(6);
    let mut seed = || Seed::from_item(&insecure_seed_for_tests(&mut random)).unwrap();
    let (item0, item1) = deal(&plan, &weights, seed(), seed());
    let mut party0 = Party0Item::new(&plan, item0).unwrap();
    let mut party1 = Party1Item::new(&plan, item1).unwrap();
    use crate::preprocess::MaterialError;
    assert!(party0.take(2).is_ok());
    assert!(matches!(party0.take(2).err(), Some(MaterialError::Spent(2))));
    assert!(matches!(party0.take(0).err(), Some(MaterialError::Kind(0))));
    let mut fresh = Words::zeros(20, 5);
    assert!(party1.mask(2).is_ok() && party1.take(2).is_ok());
    assert!(matches!(party1.mask(2).err(), Some(MaterialError::Spent(2))));
    let fresh = party1.fresh(2, fresh.part_mut(0..5));
    assert!(matches!(fresh, Err(MaterialError::Spent(2))), "the same mask");
    assert!(matches!(party1.take(2).err(), Some(MaterialError::Spent(2))));
    assert!(matches!(party1.take(1).err(), Some(MaterialError::Kind(1))));
}

/// Party 1 with a plan and its items alone, against bytes that come from nowhere: it has no weights to
/// touch.
#[test]
fn party_1_needs_no_weights() {
    let (plan, weights) = plans::every_kind();
    let (_, digest) = plan.to_bytes();
    let (_, supply) = crate::in_process::deal_in_memory(&plan, digest, &weights, 1).unwrap();
    drop(weights);
    let mut supply = supply;
    let material = crate::preprocess::Supply::claim(&mut supply, 0..1).unwrap();
    let mut party1 = Party1::new(&plan, Tables::new(&plan), material).unwrap();
    let (mut end1, mut peer) = memory_pair(WAIT);
    for message in plan.messages() {
        if message.direction == ir::plan::Direction::ToParty1 {
            peer.send(&vec![0; message.bytes(1)]).unwrap();
        }
    }
    let input = Tensor::zeros(plan.input_shape().clone());
    assert!(party1.run(&mut end1, &[input]).is_ok());
}

/// One input many times: every bit of every element of every message is a fair coin.
#[test]
fn every_bit_on_the_wire_is_a_fair_coin() {
    let (plan, weights) = plans::every_kind();
    let (_, digest) = plan.to_bytes();
    let batch = 2000;
    let input = plan.encode_input(&plans::inputs(&plan, 1, 2)[0]).unwrap();
    let inputs = vec![input; batch];
    let (supply0, supply1) =
        crate::in_process::deal_in_memory(&plan, digest, &weights, batch).unwrap();
    let claim = |n| 0..n as u64;
    let (mut supply0, mut supply1) = (supply0, supply1);
    let material0 = crate::preprocess::Supply::claim(&mut supply0, claim(batch)).unwrap();
    let material1 = crate::preprocess::Supply::claim(&mut supply1, claim(batch)).unwrap();
    let (end0, end1) = memory_pair(WAIT);
    let (mut sent0, mut sent1) = (vec![], vec![]);
    let mut end0 = Tap::new(end0, |bytes: &[u8]| sent0.push(bytes.to_vec()), |_: &mut Vec<u8>| ());
    let mut end1 = Tap::new(end1, |bytes: &[u8]| sent1.push(bytes.to_vec()), |_: &mut Vec<u8>| ());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut party1 = Party1::new(&plan, Tables::new(&plan), material1).unwrap();
            party1.run(&mut end1, &inputs).unwrap();
        });
        let mut party0 = party0(&plan, &weights, material0, FINE);
        party0.run(&mut end0, |_, _| ()).unwrap();
    });
    drop((end0, end1));
    let (mut sent0, mut sent1) = (sent0.iter(), sent1.iter());
    for message in plan.messages() {
        let sent = match message.direction {
            ir::plan::Direction::ToParty1 => sent0.next(),
            ir::plan::Direction::ToParty0 => sent1.next(),
        };
        let sent = sent.unwrap();
        let bits = message.elements * message.bits as usize;
        let mut ones = vec![0u32; bits];
        for i in 0..bits * batch {
            ones[i % bits] += u32::from(sent[i / 8] >> (i % 8) & 1);
        }
        let deviation = (batch as f64).sqrt() / 2.0;
        for (bit, &ones) in ones.iter().enumerate() {
            let off = (f64::from(ones) - batch as f64 / 2.0).abs() / deviation;
            assert!(off < 6.0, "{message:?} bit {bit}: {off:.1} deviations");
        }
    }
}
