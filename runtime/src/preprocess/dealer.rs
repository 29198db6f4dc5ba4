//! The ideal functionality: a third party makes both halves of an item from fresh randomness.
//!
//! It knows the weights and every mask, and sees no input. Whoever runs it must be trusted by party 0
//! with the model and by party 1 not to show party 0 the masks. Party 1's half is a seed from which its
//! masks and shares expand; party 0's half is a seed for what it draws itself (`u`, `β`, `β'`) and, per
//! step, the difference between what is shared and party 1's share, packed to the bit. Of table steps party 1's half
//! has fields as well.

use super::expand::Seed;
use super::item::{Item, Origin, drawn_mask, item_bytes};
use super::{Role, masks};
use crate::steps::{self, Dealing};
use ir::plan::{Plan, Weights};
use zeroize::Zeroizing;

/// Makes both halves of one item from two fresh, independent seeds.
///
/// # Panics
/// If `weights` are not those of `plan`; [`Weights::from_bytes`] refuses such.
pub fn deal(plan: &Plan, weights: &Weights, party0: Seed, party1: Seed) -> (Item, Item) {
    let mut item0 =
        Zeroizing::new(Vec::with_capacity(item_bytes(plan, Role::Party0, Origin::Dealer)));
    item0.extend_from_slice(party0.expose());
    let mut item1 =
        Zeroizing::new(Vec::with_capacity(item_bytes(plan, Role::Party1, Origin::Dealer)));
    item1.extend_from_slice(party1.expose());
    let mask = |step| Ok::<_, std::convert::Infallible>(drawn_mask(plan, &party1, step));
    let Ok(()) = masks::walk(plan, mask, |index, operands, mask| {
        let secrets = &weights.steps[index];
        let dealing = Dealing { plan, index, secrets, party0: &party0, party1: &party1 };
        let fields = steps::deal(&dealing, operands, mask).map(Zeroizing::new);
        item0.extend_from_slice(&fields[0]);
        item1.extend_from_slice(&fields[1]);
        Ok(())
    });
    (item0, item1)
}
