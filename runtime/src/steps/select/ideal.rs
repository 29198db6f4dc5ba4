//! How a dealer makes the correlation of a select step.

use super::{bucket, shifted_mask};
use crate::preprocess::expand::Domain;
use crate::steps::Dealing;
use ir::Tensor;
use ir::plan::Select;
use ir::ring::{low_mask, pack};
use zeroize::Zeroizing;

/// Party 0's fields of a dealt correlation, packed: random, but for what party 1 has of them.
pub fn deal(select: &Select, dealing: &Dealing<'_>, operands: &[&Tensor<u64>]) -> Vec<u8> {
    let Dealing { plan, index, party0, party1, .. } = dealing;
    let step = &plan.steps[*index];
    let (count, q) = (step.shape.elements(), step.ring);
    let of_party1 = |field, bits| party1.elements(*index, Domain::of_field(field), count, bits);
    let (entry, numbers) = (select.entry_bits(q), select.numbers(q));
    let (pads, choices) = (of_party1(0, entry), of_party1(1, entry));
    let (words, shares) = (of_party1(2, q), of_party1(3, q));
    let (per, bits) = select.table_words(q);
    let mut table = party0.elements(*index, Domain::Opening, per * count, bits);
    let mut all_words = party0.elements(*index, Domain::Field, numbers * count, q);
    let own = party0.elements(*index, Domain::Bits, count, entry);
    let mut products = Zeroizing::new(vec![0; count]);
    for (i, &m) in operands[0].data.iter().enumerate() {
        for half in 0..entry {
            let at = bucket(select, m) + (u64::from(half) << select.p);
            let word = &mut table[i * per + at as usize / 64];
            let bit = pads[i] >> half & 1;
            *word = *word & !(1 << (at % 64)) | bit << (at % 64);
        }
        all_words[numbers * i + choices[i] as usize] = words[i];
        let product = (own[i] & 1).wrapping_mul(shifted_mask(select, m));
        products[i] = product.wrapping_sub(shares[i]) & low_mask(q);
    }
    let fields = [(&table, bits), (&all_words, q), (&own, entry), (&products, q)];
    fields.into_iter().flat_map(|(field, bits)| pack(field, bits)).collect()
}
