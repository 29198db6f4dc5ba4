//! Slots of batched encryption, and the choice between them and trees.

use crate::config;
use ir::plan::{Phase, PhaseProducts, SlotPacking};
use ir::ring::packed_bytes;
use proptest::prelude::*;
use std::collections::HashMap;

fn phase() -> impl Strategy<Value = Phase> {
    (3..=12u32, 0..=2u32, 4..=12u32, 4..=12u32, 0..=16u32, 1..=32u32, 1..=5u32, 0..=30u32).prop_map(
        |(p, spare, g2, h, drop, ring, harmonics, amplitude)| {
            let shift = g2 + h + drop;
            let q = (shift + ring).min(64);
            Phase { p, mask_bits: p + spare, q, shift, g2, h, guard: 0, harmonics, amplitude }
        },
    )
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn every_pair_has_one_slot(phase in phase(), count in 1..=6000usize) {
        let sets = SlotPacking::candidates(&phase);
        let Some(packing) = SlotPacking::new(&phase, count, &sets) else {
            // Too large for slots of 32 bits, or for a plaintext.
            prop_assert!(sets.is_empty());
            return Ok(());
        };
        prop_assert_eq!(packing.pairs, count * phase.harmonics as usize);
        let degree = packing.lwe.degree();
        prop_assert_eq!(packing.slots(), degree * packing.moduli.len());
        let mut slots: HashMap<(usize, u64), usize> = HashMap::new();
        for pair in 0..packing.pairs {
            let t = packing.modulus(pair);
            prop_assert_eq!(t, packing.moduli[pair / degree % packing.moduli.len()]);
            *slots.entry((pair / packing.slots(), t)).or_default() += 1;
        }
        prop_assert!(slots.values().all(|&used| used <= degree));
        prop_assert_eq!(slots.keys().map(|(chunk, _)| chunk + 1).max(), Some(packing.chunks()));
        for (i, &t) in packing.moduli.iter().enumerate() {
            prop_assert_eq!(t % (2 * degree as u64), 1, "transforms of the plaintext");
            prop_assert!(t > 4 * packing.bound, "no carry is mistaken");
            prop_assert!(!packing.moduli[..i].contains(&t));
        }
        let bound = phase.product_bound();
        prop_assert!(packing.bound as f64 == bound, "{} {bound}", packing.bound);
        prop_assert!(packing.lwe.is_secure() && packing.lwe.has_room_for(&packing.demand()));
    }

    #[test]
    fn bytes_are_those_of_what_is_sent(phase in phase(), count in 1..=6000usize) {
        let sets = SlotPacking::candidates(&phase);
        let Some(packing) = SlotPacking::new(&phase, count, &sets) else { return Ok(()) };
        let polynomials = 2 * packing.pairs.div_ceil(packing.slots());
        prop_assert_eq!(packing.ciphertext_bytes(), polynomials * packing.lwe.ciphertext_bytes());
        let (low, high) = packing.answer_bits();
        let degree = packing.lwe.degree();
        prop_assert_eq!(
            packing.answer_bytes(),
            polynomials * (packed_bytes(degree, low) + packed_bytes(degree, high))
        );
        let cost = packing.cost();
        prop_assert_eq!(cost.bytes[0], packing.ciphertext_bytes());
        prop_assert!(cost.bytes[1] > packing.answer_bytes());
        prop_assert_eq!(cost.bytes[2], packed_bytes(2 * packing.pairs, phase.q));
        prop_assert_eq!((cost.transfers, cost.reverse_transfers), (0, 2 * packing.pairs));
    }

    /// Of all parameter sets and of trees, the fewest bytes.
    #[test]
    fn the_cheapest_way_is_taken(phase in phase(), count in 1..=6000usize) {
        let sets = SlotPacking::candidates(&phase);
        let bytes = |products: &PhaseProducts| -> usize {
            products.cost(&phase, count).total_bytes()
        };
        let found = bytes(&PhaseProducts::cheapest(&phase, count, &sets));
        let alone = sets.iter().filter_map(|&set| SlotPacking::new(&phase, count, &[set]));
        let least = alone.map(|packing| bytes(&PhaseProducts::Slots(packing))).min();
        prop_assert_eq!(found, least.unwrap_or(usize::MAX).min(bytes(&PhaseProducts::Trees)));
    }
}
