//! What the correlation of a polynomial step is, and how a dealer makes it.

use super::{PRODUCTS, Powers, top_factor};
use crate::preprocess::expand::Domain;
use crate::preprocess::item::pack_wide;
use crate::secret::WideElements;
use crate::steps::truncate::wide_mask;
use crate::steps::{Dealing, row};
use ir::Tensor;
use ir::plan::{Polynomial, Square, Step, StepWeights};
use zeroize::Zeroizing;

/// The ideal functionality: per element and power `u_j·N_j, u_j·w_j, u_j·β·w_j, β·w_j` mod 2^128, for
/// the operand's masks `m` and party 0's `u_j` and `β`.
pub fn products(
    square: &Square,
    step: &Step,
    coefficients: &[Vec<i128>],
    m: &[u64],
    u: &[u128],
    bits: &[u64],
) -> WideElements {
    let degree = coefficients[0].len() - 1;
    let mut products = Zeroizing::new(Vec::with_capacity(PRODUCTS * degree * m.len()));
    for (i, (&m, &bit)) in m.iter().zip(bits).enumerate() {
        let top = top_factor(row::<Vec<i128>>(coefficients, step, i));
        let mut powers = Powers::new(square, m);
        for j in 1..=degree {
            let (n, w) = powers.next_pair();
            let u = if j == degree { top } else { u[i * (degree - 1) + j - 1] };
            let (uw, bw) = (u.wrapping_mul(w), u128::from(bit).wrapping_mul(w));
            products.extend([u.wrapping_mul(n), uw, u.wrapping_mul(bw), bw]);
        }
    }
    products
}

/// Party 0's fields of a dealt correlation, packed.
pub fn deal(kind: &Polynomial, dealing: &Dealing<'_>, operands: &[&Tensor<u64>]) -> Vec<u8> {
    let StepWeights::Polynomial { coefficients } = dealing.secrets else { return vec![] };
    let Dealing { plan, index, party0, party1, .. } = dealing;
    let (step, Polynomial { square, degree }) = (&plan.steps[*index], kind);
    let count = step.shape.elements();
    let own = count * (*degree as usize - 1);
    let u = party0.wide_elements(*index, Domain::Opening, own, square.q);
    let bits = party0.elements(*index, Domain::Bits, count, 1);
    let mut all = products(square, step, coefficients, &operands[0].data, &u, &bits);
    let shares = party1.wide_elements(*index, Domain::of_field(0), all.len(), square.q);
    let mask = wide_mask(square.q);
    all.iter_mut().zip(shares.iter()).for_each(|(p, s)| *p = p.wrapping_sub(*s) & mask);
    pack_wide(&all, square.q)
}
