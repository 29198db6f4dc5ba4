//! What a party sees says nothing: statistics over many masks of one and the same value.

use super::square::mask_and_top_bit;
use super::tests::{Case, Trip};
use super::{phase, select};
use crate::preprocess::Role;
use crate::preprocess::dealer::deal;
use crate::preprocess::expand::Seed;
use crate::preprocess::item::{Origin, item_bytes};
use crate::testing::{Random, plans};
use crate::words::Words;
use ir::plan::{Phase, Polynomial, Select, Square, StepWeights};
use ir::ring::low_mask;

pub(super) const ELEMENTS: usize = 20_000;

/// With a mask's phase that is finer than the opening, and guard bits.
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
pub(super) fn assert_fair(words: impl Iterator<Item = u64>, bits: u32, what: &str) {
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

/// Party 1 knows `M`: its opening must be fair also where `M` is taken off.
#[test]
fn openings_are_independent_of_party_1s_masks() {
    let mut random = Random::new(41);
    let (k, y) = (20, 12345u64);
    let parameters = PHASE;
    let secrets = StepWeights::Phase { constant: vec![1.0], harmonics: vec![vec![[30.0, 20.0]]] };
    let case = Case::new(parameters, secrets, k, 20, ELEMENTS);
    let Trip { m, opening, .. } = case.trip(&mut random, &[y; ELEMENTS], None);
    // Its phase is two bits finer than the opening; whatever those are.
    for finer in 0..4 {
        let mask_phase = |m: u64| phase::phase_of(m, k, 9);
        let pairs = opening.iter().zip(&m).map(|(&e, &m)| (e, mask_phase(m)));
        let unmasked = pairs.filter(|(_, m)| m & 3 == finer).map(|(e, m)| e.wrapping_sub(m >> 2));
        assert_fair(unmasked, 7, "phase");
    }

    let parameters = Square { t: 6, p: 14, q: 40, shift: 20 };
    let secrets = StepWeights::Square { constant: vec![0] };
    let case = Case::new(parameters, secrets, k, 20, ELEMENTS);
    let Trip { m, opening, .. } = case.trip(&mut random, &[y; ELEMENTS], None);
    let unmasked = opening.iter().zip(&m).map(|(opening, m)| {
        let (mask, c) = mask_and_top_bit(&parameters, *m);
        let e = (opening & low_mask(14)).wrapping_sub(mask) & low_mask(14);
        e | (opening >> 14 & 1 ^ c) << 14 | (opening >> 15 ^ c) << 15
    });
    assert_fair(unmasked, 16, "square");

    let secrets = StepWeights::Polynomial { coefficients: vec![vec![5i128, -7, 3, 1]] };
    let kind = Polynomial { square: parameters, degree: 3 };
    let case = Case::new(kind, secrets, k, 20, ELEMENTS);
    let Trip { m, opening, .. } = case.trip(&mut random, &[y; ELEMENTS], None);
    let words = opening.len() / ELEMENTS;
    for value in 0..words - 1 {
        let e = opening.iter().skip(value).step_by(words).copied();
        assert_fair(e, 40, "polynomial");
    }
    let g = opening.iter().skip(words - 1).step_by(words);
    let unmasked = g.zip(&m).map(|(g, m)| g ^ mask_and_top_bit(&parameters, *m).1);
    assert_fair(unmasked, 1, "polynomial's bit");
}

/// Party 1 reads one entry of a table, and knows its half of its bits and its choice; party 0 sees the turn. All
/// are fair whatever the value, and so are the words under pads, the one that party 1 opens included. With and without
/// the bit of the wrap, in one word and in several.
#[test]
fn selects_show_nothing_to_either_party() {
    let mut random = Random::new(43);
    let k = 16;
    for (p, t, ring) in [(4, 5, 18), (4, 5, 11), (7, 5, 18), (8, 6, 9)] {
        let select = Select { k, p, t };
        let ((per, bits), entry) = (select.table_words(ring), select.entry_bits(ring));
        assert_eq!(entry, if ring > k - t { 2 } else { 1 });
        for y in [3u64, 40_000, 12_345, 65_500] {
            let case = Case::new(select, StepWeights::None, k, ring, ELEMENTS);
            let Trip { m, opening, turns, share0, response, .. } =
                case.trip(&mut random, &[y; ELEMENTS], None);
            let (tables, words) = opening.split_at(per * ELEMENTS);
            for word in 0..per {
                let of_all = tables.iter().skip(word).step_by(per).copied();
                assert_fair(of_all, bits, "a table");
            }
            let own = tables.chunks_exact(per).zip(&m);
            let own =
                own.map(|(t, &m)| select::entry(&select, ring, t, select::bucket(&select, m)));
            assert_fair(own, entry, "an entry");
            assert_fair(turns.iter().copied(), entry, "a turn");
            assert_fair(words.iter().copied(), ring, "a word");
            assert_fair(share0.iter().copied(), ring, "party 0's share");
            assert_fair(response.iter().copied(), ring, "party 1's share");
        }
    }
}

/// Party 0 knows its own share of the value, guard bits included: a response is fair where it is added, and
/// says nothing below.
#[test]
fn responses_are_independent_of_party_0s_shares() {
    let mut random = Random::new(42);
    let (k, y, ring) = (20, 54321u64, 20);
    let secrets = StepWeights::Phase { constant: vec![1.0], harmonics: vec![vec![[30.0, 20.0]]] };
    let case = Case::new(PHASE, secrets, k, ring, ELEMENTS);
    let (party0, mut party1) = case.deal(&mut random);
    let m = party1.mask(0).unwrap().data.clone();
    let mut fresh = Words::zeros(64, ELEMENTS);
    party1.fresh(1, fresh.part_mut(0..ELEMENTS)).unwrap();
    assert!(fresh.elements().iter().all(|mask| mask & 3 == 0), "no guard bits in a mask");
    let Trip { share0, response, .. } =
        case.trip_over(party0, party1, m, &[y; ELEMENTS], fresh.elements());
    assert!(response.iter().all(|response| response >> (ring - 2) == 0));
    let sums = response.iter().zip(&share0).map(|(r, share)| r.wrapping_add(share >> 2));
    assert_fair(sums, ring - 2, "a response and a share");
    for guard in 0..4 {
        let of = response.iter().zip(&share0).filter(|(_, share)| *share & 3 == guard);
        assert_fair(of.map(|(response, _)| *response), ring - 2, "a response");
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
    let correlations = (0..plan.steps.len()).filter_map(|step| plan.correlation(step));
    for field in correlations.flat_map(|c| c.party0) {
        at += field.bytes();
        let used = (field.elements * field.bits as usize) % 8;
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
