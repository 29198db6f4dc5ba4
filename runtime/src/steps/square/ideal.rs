//! What the correlation of a square step is, and how a dealer makes it.

use super::{PRODUCTS, mask_and_top_bit};
use crate::preprocess::expand::Domain;
use crate::secret::Elements;
use crate::steps::{Dealing, pack_difference};
use ir::Tensor;
use ir::plan::Square;
use zeroize::Zeroizing;

/// The ideal functionality: per element `u·M, u·c, uβ·c, β·c, β'·c, ββ'·c, β·cM, β'·M` mod 2^64, for
/// the operand's masks `m` and party 0's `u` and `β + 2β'`.
pub fn products(square: &Square, m: &[u64], u: &[u64], bits: &[u64]) -> Elements {
    let mut products = Zeroizing::new(Vec::with_capacity(PRODUCTS * m.len()));
    for ((&m, &u), &bits) in m.iter().zip(u).zip(bits) {
        let (mask, c) = mask_and_top_bit(square, m);
        let (b, b2) = (bits & 1, bits >> 1);
        products.extend([
            u.wrapping_mul(mask),
            u * c,
            u * b * c,
            b * c,
            b2 * c,
            b * b2 * c,
            b * c * mask,
            b2 * mask,
        ]);
    }
    products
}

/// Party 0's fields of a dealt correlation, packed.
pub fn deal(square: &Square, dealing: &Dealing<'_>, operands: &[&Tensor<u64>]) -> Vec<u8> {
    let Dealing { plan, index, party0, .. } = dealing;
    let count = plan.steps[*index].shape.elements();
    let u = party0.elements(*index, Domain::Opening, count, square.p);
    let bits = party0.elements(*index, Domain::Bits, count, 2);
    pack_difference(products(square, &operands[0].data, &u, &bits), dealing, square.q)
}
