use super::*;
use crate::preprocess::expand::Seed;
use crate::preprocess::transfer::setup::both;
use crate::steps::phase::products;
use crate::steps::phase::trees::{factors, tests as trees};
use crate::testing::Random;
use ir::plan::PhaseProducts;
use std::time::Instant;

fn keys(packing: &SlotPacking) -> (SecretKeys, PublicKeys) {
    let (secret, message) = SecretKeys::generate(&[packing.lwe]).unwrap();
    let own = Seed::from_system().unwrap();
    (secret, PublicKeys::read(&[packing.lwe], &message, own).unwrap())
}

#[test]
fn shares_sum_to_the_ideal_products() {
    let seed = Seed::insecure_for_tests;
    let (mut transfers0, mut transfers1) = both(seed(3), seed(4));
    let mut random = Random::new(51);
    for round in 0..30 {
        let (g2, h) = (random.between(0, 10) as u32, random.between(0, 10) as u32);
        let shift = g2 + h + random.between(0, 8) as u32;
        let q = random.between(u64::from(shift) + 1, [32, 64][round % 2]) as u32;
        let (p, harmonics) = ([2, 7, 8, 11][round % 4], random.between(1, 4) as u32);
        let mask_bits = p + random.between(0, 2) as u32;
        let phase = Phase { p, mask_bits, q, shift, g2, h, guard: 0, harmonics, amplitude: 0 };
        let sets = SlotPacking::candidates(&phase);
        let lwe = sets[random.between(0, sets.len() as u64 - 1) as usize];
        let count = random.between(1, [50, 12_000][round / 2 % 2]) as usize;
        let packing = SlotPacking::new(&phase, count, &[lwe]).unwrap();
        let (secret, public) = keys(&packing);
        let step = trees::step(phase, &[1, 3, count]);
        let coefficients = trees::coefficients(&mut random, &phase, [1, 3][round / 2 % 2]);
        let ring = random.between(u64::from(mask_bits), 40) as u32;
        let masks: Vec<u64> = (0..count).map(|_| random.bits(ring)).collect();
        let u: Vec<u64> = (0..count).map(|_| random.bits(p)).collect();
        let ideal = products(&phase, &step, &coefficients, ring, &masks, &u);

        let cost = packing.cost();
        let factors = factors(&phase, &step, &coefficients, 0..count, &u);
        let first = ask(&secret, &packing, 9, (&phase, ring), &masks);
        let mut answer =
            |message: &[u8]| answer(&mut transfers0, &public, &packing, 9, &factors, message);
        assert!(answer(&first[1..]).is_err());
        let (open, second) = answer(&first).unwrap();
        let short = &second[1..];
        assert!(finish(&mut transfers1, &secret, &packing, short).is_err());
        let (third, share1) = finish(&mut transfers1, &secret, &packing, &second).unwrap();
        assert_eq!(cost.bytes, [first.len(), second.len(), third.len()]);
        let share0 = open.finish_slots(&transfers0, &packing, &third).unwrap();
        assert_eq!((share0.len(), share1.len()), (ideal.len(), ideal.len()));
        for ((a, b), product) in share0.iter().zip(share1.iter()).zip(ideal.iter()) {
            assert_eq!(a.wrapping_add(*b) & low_mask(q), product & low_mask(q), "{packing:?}");
            assert!(a | b <= low_mask(q));
        }
    }
}

/// Shares at the edges of what the bound allows, for every way to split them.
#[test]
fn shares_are_low_exactly_where_they_do_not_wrap() {
    let phase = Phase {
        p: 8,
        mask_bits: 8,
        q: 32,
        shift: 2,
        g2: 1,
        h: 1,
        guard: 0,
        harmonics: 1,
        amplitude: 0,
    };
    let lwe = SlotPacking::candidates(&phase)[0];
    let packing = SlotPacking::new(&phase, 1, &[lwe]).unwrap();
    // The smallest modulus that the bound allows, instead of a prime.
    let bound = 40;
    let packing = SlotPacking { moduli: vec![4 * bound + 1], bound, ..packing };
    let t = packing.modulus(0);
    for (v, a) in (0..=2 * bound).flat_map(|v| (0..t).map(move |a| (v, a))) {
        let d = (v + t - a) % t;
        let product = t * is_low(&packing, a) * is_low(&packing, d);
        assert_eq!(a + d + product, v + t);
    }
}

#[test]
#[ignore = "prints timings and bytes"]
fn throughput() {
    let seed = Seed::insecure_for_tests;
    let (mut transfers0, mut transfers1) = both(seed(3), seed(4));
    let mut random = Random::new(52);
    for (harmonics, count) in [(1, 4096), (1, 8192), (1, 16384), (2, 16384), (3, 16384)] {
        let phase = Phase {
            p: 8,
            mask_bits: 8,
            q: 32,
            shift: 16,
            g2: 7,
            h: 8,
            guard: 0,
            harmonics,
            amplitude: 8,
        };
        let sets = SlotPacking::candidates(&phase);
        let PhaseProducts::Slots(packing) = PhaseProducts::cheapest(&phase, count, &sets) else {
            panic!("trees take less");
        };
        let packing = SlotPacking { set: 0, ..packing };
        let (secret, public) = keys(&packing);
        let step = trees::step(phase, &[1, 1, count]);
        let coefficients = trees::coefficients(&mut random, &phase, 1);
        let masks: Vec<u64> = (0..count).map(|_| random.bits(16)).collect();
        let u: Vec<u64> = (0..count).map(|_| random.bits(8)).collect();
        for number in 0..4 {
            let started = Instant::now();
            let first = ask(&secret, &packing, number, (&phase, 16), &masks);
            let asking = started.elapsed();
            let factors = factors(&phase, &step, &coefficients, 0..count, &u);
            let (open, second) =
                answer(&mut transfers0, &public, &packing, number, &factors, &first).unwrap();
            let answering = started.elapsed() - asking;
            let (third, _) = finish(&mut transfers1, &secret, &packing, &second).unwrap();
            let finishing = started.elapsed() - asking - answering;
            open.finish_slots(&transfers0, &packing, &third).unwrap();
            let last = started.elapsed() - asking - answering - finishing;
            let bytes = first.len() + second.len() + third.len();
            println!(
                "H {harmonics}, {count} elements, {:?}: ask {asking:?}, answer {answering:?}, finish \
                 {finishing:?}, last {last:?}; {:.2} bytes and {:?} per element",
                packing.lwe,
                bytes as f64 / count as f64,
                started.elapsed() / count as u32
            );
        }
        let started = Instant::now();
        let (asked, first) = crate::steps::phase::trees::ask(&mut transfers1, &phase, 16, &masks);
        let (second, _) = crate::steps::phase::trees::answer(
            &mut transfers0,
            &phase,
            &step,
            &coefficients,
            0..count,
            &u,
            &first,
        )
        .unwrap();
        asked.finish(&transfers1, &second).unwrap();
        let bytes = (first.len() + second.len()) as f64 / count as f64;
        println!(
            "by trees: {bytes:.2} bytes and {:?} per element",
            started.elapsed() / count as u32
        );
    }
}
