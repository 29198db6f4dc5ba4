//! What a party sees says nothing: statistics over many masks of one and the same value.

use super::square::mask_and_top_bit;
use super::tests::Case;
use super::{phase, polynomial, question_widths, square};
use crate::offline::Role;
use crate::offline::dealer::deal;
use crate::offline::expand::Seed;
use crate::offline::item::{Origin, item_bytes};
use crate::offline::{Party0Material, Party1Material};
use crate::tables::Tables;
use crate::testing::{Random, plans};
use crate::words::Words;
use ir::plan::{Phase, Square, StepOp, StepWeights};
use ir::ring::low_mask;

const ELEMENTS: usize = 20_000;

/// With a mask's phase that is finer than the question, and guard bits.
const PHASE: Phase = Phase {
    p: 7,
    mask_bits: 9,
    q: 40,
    shift: 20,
    g2: 7,
    h: 8,
    guard: 2,
    harmonics: 1,
    amplitude: 20,
};

/// Every one of the low `bits` bits is set in half of the words.
fn assert_fair(words: impl Iterator<Item = u64>, bits: u32, what: &str) {
    let mut ones = vec![0u32; bits as usize];
    let mut count = 0f64;
    for word in words {
        count += 1.0;
        ones.iter_mut().enumerate().for_each(|(bit, n)| *n += (word >> bit & 1) as u32);
    }
    for (bit, &n) in ones.iter().enumerate() {
        let off = (f64::from(n) - count / 2.0).abs() / (count.sqrt() / 2.0);
        assert!(off < 6.0, "{what}, bit {bit}: {off:.1} deviations");
    }
}

/// Party 1 knows `M`: its question must be fair also where `M` is taken off.
#[test]
fn questions_are_independent_of_party_1s_masks() {
    let mut random = Random::new(41);
    let (k, y) = (20, 12345u64);
    let ring = low_mask(k);

    let parameters = PHASE;
    let secrets = StepWeights::Phase { constant: vec![1.0], harmonics: vec![vec![[30.0, 20.0]]] };
    let case = Case::new(StepOp::Phase(parameters), secrets, k, 20, ELEMENTS);
    let (mut party0, mut party1) = case.deal(&mut random);
    let m = party1.mask(0).unwrap();
    let delta: Vec<u64> = m.data.iter().map(|m| (y + m) & ring).collect();
    let (mut u, mut products) = (vec![0; ELEMENTS], Words::zeros(40, 2 * ELEMENTS));
    party0.phase(1, &mut u, products.part_mut(0..2 * ELEMENTS)).unwrap();
    let mut question = vec![0; ELEMENTS];
    phase::question(&parameters, k, &delta, &u, &mut question);
    // Its phase is two bits finer than the question; whatever those are.
    for finer in 0..4 {
        let mask_phase = |m: u64| phase::phase_of(m, k, 9);
        let pairs = question.iter().zip(&m.data).map(|(&e, &m)| (u64::from(e), mask_phase(m)));
        let unmasked = pairs.filter(|(_, m)| m & 3 == finer).map(|(e, m)| e.wrapping_sub(m >> 2));
        assert_fair(unmasked, 7, "phase");
    }

    let parameters = Square { t: 6, p: 14, q: 40, shift: 20 };
    let secrets = StepWeights::Square { constant: vec![0] };
    let case = Case::new(StepOp::Square(parameters), secrets, k, 20, ELEMENTS);
    let (mut party0, mut party1) = case.deal(&mut random);
    let m = party1.mask(0).unwrap();
    let delta: Vec<u64> = m.data.iter().map(|m| (y + m) & ring).collect();
    let correlation = party0.square(1).unwrap();
    let question: Vec<u64> =
        square::question(&parameters, &delta, correlation.part(0..ELEMENTS)).collect();
    let unmasked = question.iter().zip(&m.data).map(|(question, m)| {
        let (mask, c) = mask_and_top_bit(&parameters, *m);
        let e = (question & low_mask(14)).wrapping_sub(mask) & low_mask(14);
        e | (question >> 14 & 1 ^ c) << 14 | (question >> 15 ^ c) << 15
    });
    assert_fair(unmasked, 16, "square");

    let coefficients = vec![vec![5i128, -7, 3, 1]];
    let op = StepOp::Polynomial { square: parameters, degree: 3 };
    let words = question_widths(&op).len();
    let secrets = StepWeights::Polynomial { coefficients: coefficients.clone() };
    let case = Case::new(op, secrets, k, 20, ELEMENTS);
    let (mut party0, mut party1) = case.deal(&mut random);
    let m = party1.mask(0).unwrap();
    let delta: Vec<u64> = m.data.iter().map(|m| (y + m) & ring).collect();
    let correlation = party0.polynomial(1).unwrap();
    let part = correlation.part(3, 0..ELEMENTS);
    let (mut question, mut constants) = (vec![], vec![]);
    let row = |_| &coefficients[0][..];
    polynomial::question(&parameters, 3, row, &delta, part, &mut question, &mut constants);
    for value in 0..words - 1 {
        let e = question.iter().skip(value).step_by(words).copied();
        assert_fair(e, 40, "polynomial");
    }
    let g = question.iter().skip(words - 1).step_by(words);
    let unmasked = g.zip(&m.data).map(|(g, m)| g ^ mask_and_top_bit(&parameters, *m).1);
    assert_fair(unmasked, 1, "polynomial's bit");
}

/// Party 0 knows its own share of the value, guard bits included: an answer is fair where it is added, and
/// says nothing below.
#[test]
fn answers_are_independent_of_party_0s_shares() {
    let mut random = Random::new(42);
    let (k, y, ring) = (20, 54321u64, 20);
    let secrets = StepWeights::Phase { constant: vec![1.0], harmonics: vec![vec![[30.0, 20.0]]] };
    let case = Case::new(StepOp::Phase(PHASE), secrets, k, ring, ELEMENTS);
    let (mut party0, mut party1) = case.deal(&mut random);
    let m = party1.mask(0).unwrap();
    let delta: Vec<u64> = m.data.iter().map(|m| (y + m) & low_mask(k)).collect();
    let products = || Words::zeros(PHASE.q, 2 * ELEMENTS);
    let (mut u, mut own, mut other) = (vec![0; ELEMENTS], products(), products());
    party0.phase(1, &mut u, own.part_mut(0..2 * ELEMENTS)).unwrap();
    party1.phase(1, other.part_mut(0..2 * ELEMENTS)).unwrap();
    let mut fresh = Words::zeros(ring, ELEMENTS);
    party1.fresh(1, fresh.part_mut(0..ELEMENTS)).unwrap();
    assert!(fresh.elements().iter().all(|mask| mask & 3 == 0), "no guard bits in a mask");
    let mut question = vec![0; ELEMENTS];
    phase::question(&PHASE, k, &delta, &u, &mut question);
    let tables = Tables::new(&case.plan);
    let (Some(Words::W64(rows)), Words::W64(own), Words::W64(other)) =
        (tables.rows(1), &own, &other)
    else {
        panic!("words of another width");
    };
    let (mut share, mut answer) = (vec![0u64; ELEMENTS], fresh.elements());
    let constants = vec![0; ELEMENTS];
    phase::party0_share(&PHASE, (&constants, 0), rows, &question, own, &mut share);
    phase::party1_answer(&PHASE, rows, &question, other, &mut answer);
    assert!(answer.iter().all(|answer| answer >> (ring - 2) == 0));
    let sums = answer.iter().zip(&share).map(|(answer, share)| answer.wrapping_add(share >> 2));
    assert_fair(sums, ring - 2, "an answer and a share");
    for guard in 0..4 {
        let of = answer.iter().zip(&share).filter(|(_, share)| *share & 3 == guard);
        assert_fair(of.map(|(answer, _)| *answer), ring - 2, "an answer");
    }
}

/// Party 0's half of an item is uniform: it holds nothing of party 1's masks by itself.
#[test]
fn party_0s_items_are_uniform() {
    let (plan, weights) = plans::every_kind();
    let seed = || Seed::from_system().unwrap();
    let items: Vec<_> = (0..2000).map(|_| deal(&plan, &weights, seed(), seed()).0).collect();
    let mut padding = vec![0u8; item_bytes(&plan, Role::Party0, Origin::Dealer)];
    let mut at = 32;
    for correlation in (0..plan.steps.len()).filter_map(|step| plan.correlation(step)) {
        at += correlation.bytes();
        let used = (correlation.elements * correlation.bits as usize) % 8;
        padding[at - 1] = if used == 0 { 0 } else { !(low_mask(used as u32) as u8) };
    }
    for (at, &padding) in padding.iter().enumerate() {
        if padding == 0 {
            assert_fair(items.iter().map(|item| item[at].into()), 8, "an item's byte");
        } else {
            assert!(items.iter().all(|item| item[at] & padding == 0));
        }
    }
}
