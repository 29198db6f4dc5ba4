//! What the correlation of a phase step is, and how a dealer makes it.

use super::{Factors, phase_of};
use crate::preprocess::expand::Domain;
use crate::secret::Elements;
use crate::steps::{Dealing, pack_difference, row};
use ir::Tensor;
use ir::plan::{Phase, PhaseTables, Step, StepWeights};
use zeroize::Zeroizing;

/// The ideal functionality: `G_1, H_1, G_2, …` per element, mod 2^64, for the operand's masks `m` of
/// `ring` bits and party 0's `u`.
pub fn products(
    phase: &Phase,
    step: &Step,
    harmonics: &[Vec<[f64; 2]>],
    ring: u32,
    m: &[u64],
    u: &[u64],
) -> Elements {
    let tables = PhaseTables::new(phase.mask_bits, phase.harmonics, phase.g2);
    let factors = Factors::new(phase);
    let mut products = Zeroizing::new(Vec::with_capacity(2 * harmonics[0].len() * m.len()));
    for (i, (&m, &u)) in m.iter().zip(u).enumerate() {
        let mask_phase = phase_of(m, ring, phase.mask_bits) as usize;
        for (n, [alpha, beta]) in factors.of(row::<Vec<_>>(harmonics, step, i), u).enumerate() {
            let (cos, sin) = (tables.cos[n][mask_phase], tables.sin[n][mask_phase]);
            let g = alpha.wrapping_mul(cos).wrapping_add(beta.wrapping_mul(sin));
            let h = alpha.wrapping_mul(sin).wrapping_sub(beta.wrapping_mul(cos));
            products.extend([g as u64, h as u64]);
        }
    }
    products
}

/// Party 0's fields of a dealt correlation, packed.
pub fn deal(phase: &Phase, dealing: &Dealing<'_>, operands: &[&Tensor<u64>]) -> Vec<u8> {
    let StepWeights::Phase { harmonics, .. } = dealing.secrets else { return vec![] };
    let Dealing { plan, index, party0, .. } = dealing;
    let step = &plan.steps[*index];
    let u = party0.elements(*index, Domain::Opening, step.shape.elements(), phase.p);
    let ring = plan.step(step.operands[0]).ring;
    let all = products(phase, step, harmonics, ring, &operands[0].data, &u);
    pack_difference(all, dealing, phase.q)
}
