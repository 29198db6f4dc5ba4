//! The ideal functionality: a third party makes both halves of an item from fresh randomness.
//!
//! It knows the weights and every mask, and sees no input. Whoever runs it must be trusted by party 0
//! with the model and by party 1 not to show party 0 the masks. Party 1's half is a seed from which its
//! masks and shares expand; party 0's half is a seed for what it draws itself (`u`, `β`, `β'`) and, per
//! step, the difference between what is shared and party 1's share, packed to the bit.

use super::expand::Seed;
use super::item::{
    Item, Origin, item_bytes, pack_wide, party0_bits, party0_question, party0_wide_question,
    party1_mask, party1_products, party1_wide_products,
};
use super::{Role, masks};
use crate::protocol::truncate::wide_mask;
use crate::protocol::{linear, phase, polynomial, square};
use crate::secret::{Elements, WideElements};
use ir::Tensor;
use ir::plan::{Plan, StepOp, StepWeights, Weights};
use ir::ring::{low_mask, pack};
use zeroize::Zeroizing;

/// Makes both halves of one item from two fresh, independent seeds.
///
/// # Panics
/// If `weights` are not those of `plan`; [`Weights::from_bytes`] refuses such.
pub fn deal(plan: &Plan, weights: &Weights, party0: Seed, party1: Seed) -> (Item, Item) {
    let mut item0 =
        Zeroizing::new(Vec::with_capacity(item_bytes(plan, Role::Party0, Origin::Dealer)));
    item0.extend_from_slice(party0.expose());
    let mask = |step| Ok::<_, std::convert::Infallible>(party1_mask(plan, &party1, step));
    let Ok(()) = masks::walk(plan, mask, |index, operands, value| {
        let correction =
            Zeroizing::new(correction(plan, weights, index, operands, value, &party0, &party1));
        item0.extend_from_slice(&correction);
        Ok(())
    });
    (item0, Zeroizing::new(party1.expose().to_vec()))
}

fn correction(
    plan: &Plan,
    weights: &Weights,
    index: usize,
    operands: &[&Tensor<u64>],
    mask: &Tensor<u64>,
    party0: &Seed,
    party1: &Seed,
) -> Vec<u8> {
    let (step, secrets) = (&plan.steps[index], &weights.steps[index]);
    match (&step.op, secrets) {
        (op, StepWeights::Linear { .. }) if op.is_secret_linear() => {
            pack(&linear::share(step, secrets, operands, mask), step.ring)
        }
        (StepOp::Phase(phase), StepWeights::Phase { harmonics, .. }) => {
            let u = party0_question(plan, party0, index);
            let ring = plan.step(step.operands[0]).ring;
            let products = phase::products(phase, step, harmonics, ring, &operands[0].data, &u);
            pack_difference(products, &party1_products(plan, party1, index), phase.q)
        }
        (StepOp::Square(square), _) => {
            let u = party0_question(plan, party0, index);
            let bits = party0_bits(plan, party0, index);
            let products = square::products(square, &operands[0].data, &u, &bits);
            pack_difference(products, &party1_products(plan, party1, index), square.q)
        }
        (StepOp::Polynomial { square, .. }, StepWeights::Polynomial { coefficients }) => {
            let u = party0_wide_question(plan, party0, index);
            let bits = party0_bits(plan, party0, index);
            let products =
                polynomial::products(square, step, coefficients, &operands[0].data, &u, &bits);
            let shares = party1_wide_products(plan, party1, index);
            let differences = products.iter().zip(shares.iter());
            let mask = wide_mask(square.q);
            let differences: WideElements =
                Zeroizing::new(differences.map(|(p, s)| p.wrapping_sub(*s) & mask).collect());
            pack_wide(&differences, square.q)
        }
        _ => vec![],
    }
}

fn pack_difference(mut products: Elements, shares: &[u64], q: u32) -> Vec<u8> {
    products.iter_mut().zip(shares).for_each(|(p, s)| *p = p.wrapping_sub(*s) & low_mask(q));
    pack(&products, q)
}
