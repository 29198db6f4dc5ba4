//! How a dealer makes the correlation of a table step: as the two parties do, with transfers of its own.
//!
//! What party 1 gets is no expansion of its seed, since corrections follow from both parties' trees.

use super::mask_number;
use super::offline::{inverse, whole, words};
use crate::preprocess::expand::Domain;
use crate::preprocess::transfer::hash::{Block, select, xor};
use crate::preprocess::transfer::shared_tree::{ENTRIES, Leaves, Permutations, with_lane};
use crate::steps::Dealing;
use ir::Tensor;
use ir::plan::Table;
use ir::ring::{low_mask, pack};
use ir::word::Word;
use zeroize::Zeroizing;

/// Both parties' fields of a dealt correlation, packed.
pub fn deal(table: &Table, dealing: &Dealing<'_>, operands: &[&Tensor<u64>]) -> [Vec<u8>; 2] {
    let Dealing { plan, index, party0, party1, .. } = dealing;
    let count = plan.steps[*index].shape.elements();
    let (bits, levels) = (table.mask_bits, table.levels() as usize);
    let u = party0.elements(*index, Domain::Opening, count, table.p);
    // The tree's place, as bits of both seeds; no party knows the other's.
    let own = party0.elements(*index, Domain::Bits, count, bits);
    let other = party1.elements(*index, Domain::Bits, count, bits);
    let name = party0.strings::<16>(*index, Domain::Field, 1)[0];
    let mut offsets = [party0, party1].map(|seed| {
        let offset = seed.strings::<16>(*index, Domain::Field1, 1)[0];
        Zeroizing::new(offset)
    });
    offsets[0][0] |= 1;
    offsets[1][0] &= !1;
    let both = Zeroizing::new(xor(*offsets[0], *offsets[1]));
    let shares = party1.strings::<16>(*index, Domain::Field2, count * levels);
    let permutations = Permutations::new(&name);

    let blocks = || Zeroizing::new(vec![Block::default(); count * levels]);
    let mut seeds = [blocks(), blocks()];
    let mut factors = Zeroizing::new(Vec::with_capacity(count * ENTRIES));
    let mut shifts = Zeroizing::new(Vec::with_capacity(count));
    let [mut seeds0, mut seeds1] = seeds.each_mut().map(|seeds| seeds.chunks_exact_mut(levels));
    for (i, shares) in shares.chunks_exact(levels).enumerate() {
        let place = own[i] ^ other[i];
        let (Some(seeds0), Some(seeds1)) = (seeds0.next(), seeds1.next()) else { break };
        let mut seeds = [seeds0, seeds1];
        for (level, share) in shares.iter().enumerate() {
            let bit = (place >> (Table::NODE_BITS + level as u32)) as u8 & 1;
            let shares = [xor(*share, select(*both, bit)), *share];
            let mut correction = Block::default();
            for ((seeds, share), offset) in seeds.iter_mut().zip(&shares).zip(&offsets) {
                if level == 0 {
                    seeds[0] = *share;
                } else {
                    let nodes = &mut Zeroizing::new(vec![]);
                    let message = permutations.level(offset, &seeds[..level], share, nodes);
                    correction = xor(correction, message);
                }
            }
            if level > 0 {
                seeds.iter_mut().for_each(|seeds| seeds[level] = correction);
            }
        }
        with_lane!(table.q, L => {
            let sums = [0, 1].map(|party| {
                let mut leaves = Leaves::<L>::default();
                leaves.take(&permutations, &offsets[party], seeds[party]);
                leaves.sums()
            });
            let mut differences = (0..=ENTRIES).map(|i| sums[0][i].minus(sums[1][i]).element());
            let inverse = inverse(differences.next().unwrap_or_default());
            for (v, difference) in (0u64..).zip(differences) {
                let is_there = ((v ^ place & low_mask(Table::NODE_BITS)).wrapping_sub(1)) >> 63;
                let factor = difference.wrapping_sub(is_there).wrapping_mul(inverse);
                factors.push(factor & low_mask(table.q));
            }
        });
        let mask = mask_number(table, operands[0].data[i]);
        let start = (u[i] << table.spare_bits()).wrapping_sub(mask).wrapping_sub(place);
        shifts.push(start & low_mask(bits));
    }
    [0, 1].map(|party| {
        let whole = pack(&whole(&[name], &offsets[party]), 64);
        let trees = pack(&words(&seeds[party]), 64);
        [whole, trees, pack(&factors, table.q), pack(&shifts, bits)].concat()
    })
}
