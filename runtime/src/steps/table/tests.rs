//! Tables over the ideal functionality, and what a party sees of them.

use super::mask_number;
use crate::steps::tests::{Case, Trip};
use crate::steps::view_tests::{ELEMENTS, assert_fair};
use crate::testing::Random;
use ir::plan::{StepWeights, Table};
use ir::ring::{low_mask, to_signed};

/// A table of any entries is looked up at what opening and mask leave of the value, whatever it is; nothing is left out
/// where the window is as narrow as the opening.
#[test]
fn tables_are_looked_up_exactly() {
    let mut random = Random::new(27);
    for round in 0..60 {
        let p = random.between(6, 9) as u32;
        let mask_bits = p + (round % 3) as u32;
        let widest = if round % 4 == 0 { mask_bits } else { 50 };
        let k = random.between(mask_bits.into(), widest.into()) as u32;
        let (q, above) = ([1, 5, 16, 20, 32, 33, 64][round % 7], random.between(0, 4) as u32);
        let entries: Vec<u64> = (0..1 << mask_bits).map(|_| random.bits(q)).collect();
        let table = Table::new(k, p, mask_bits, q, &entries).unwrap();
        let case = Case::new(table, StepWeights::None, k + above, q, 60);
        let y: Vec<u64> = (0..60).map(|_| random.bits(k + above)).collect();
        let Trip { m, delta, opening, share0, response, .. } = case.trip(&mut random, &y, None);
        assert!(opening.iter().all(|e| e >> p == 0));
        for i in 0..60 {
            let top = |value: u64, bits: u32| (value & low_mask(k)) >> (k - bits);
            let number = (top(delta[i], p) << (mask_bits - p)).wrapping_sub(top(m[i], mask_bits));
            let number = number & low_mask(mask_bits);
            let sum = share0[i].wrapping_add(response[i]) & low_mask(q);
            assert_eq!(sum, entries[number as usize]);
            // What is looked up is the value's phase, less than an opening's step below, and a mask's above.
            let finer = k - mask_bits;
            let error = (number << finer).wrapping_sub(y[i]) & low_mask(k);
            let error = to_signed(error, k);
            assert!(-(1i64 << (k - p)) < error && error < 1 << finer, "{error}");
            assert!(k > p || error == 0);
        }
    }
}

/// A table's opening is fair, also where party 1's mask is taken off or that of its low bits is fixed, and so are both
/// parties' shares.
#[test]
fn tables_show_nothing_to_either_party() {
    let mut random = Random::new(44);
    let (k, q) = (14, 18);
    for y in [3u64, 9_000, 16_383] {
        let table = Table::of((k, 7, 9, q), |y| (y * 13.7).floor()).unwrap();
        let case = Case::new(table.clone(), StepWeights::None, k, q, ELEMENTS);
        let Trip { m, opening, share0, response, .. } =
            case.trip(&mut random, &[y; ELEMENTS], None);
        assert_fair(opening.iter().copied(), 7, "an opening");
        for finer in 0..4 {
            let pairs = opening.iter().zip(&m).map(|(&e, &m)| (e, mask_number(&table, m)));
            let unmasked =
                pairs.filter(|(_, m)| m & 3 == finer).map(|(e, m)| e.wrapping_sub(m >> 2));
            assert_fair(unmasked, 7, "an opening less the mask");
        }
        assert_fair(share0.iter().copied(), q, "party 0's share");
        assert_fair(response.iter().copied(), q, "party 1's share");
    }
}
