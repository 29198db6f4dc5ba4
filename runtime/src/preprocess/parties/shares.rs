//! The explicit parts of a group's items, while they are preprocessed.

use crate::preprocess::Role;
use crate::preprocess::expand::Seed;
use crate::preprocess::item::{Explicit, Item, fields, pack_item};
use crate::steps::exchange::Shares;
use ir::plan::{Exchange, Field, Plan};
use std::mem::take;
use zeroize::Zeroizing;

/// Per item and step the fields that stand in the item.
pub struct ItemShares {
    items: Vec<Vec<Vec<Explicit>>>,
}

impl ItemShares {
    /// Zeros for every correlation of a plan, `count` times.
    pub fn new(plan: &Plan, role: Role, count: usize) -> Self {
        let field = |Field { elements, bits }: Field| match bits {
            0..=64 => Explicit::Narrow(Zeroizing::new(vec![0; elements]), bits),
            _ => Explicit::Wide(Zeroizing::new(vec![0; elements]), bits),
        };
        let step = |step| fields(plan, role, step).into_iter().map(field).collect();
        let item = || (0..plan.steps.len()).map(step).collect();
        Self { items: (0..count).map(|_| item()).collect() }
    }

    /// Stores the shares of an exchange, item by item.
    pub fn put(&mut self, plan: &Plan, exchange: &Exchange, shares: &Shares) {
        let elements = plan.steps[exchange.step].shape.elements().max(1);
        for (n, item) in exchange.items.clone().enumerate() {
            let Some(field) = self.items[item][exchange.step].first_mut() else { continue };
            let per_element = field.len() / elements;
            let length = exchange.elements.len() * per_element;
            let start = exchange.elements.start * per_element;
            let from = n * length..(n + 1) * length;
            match (field, shares) {
                (Explicit::Narrow(to, _), Shares::Narrow(shares)) => {
                    to[start..start + length].copy_from_slice(&shares[from]);
                }
                (Explicit::Wide(to, _), Shares::Wide(shares)) => {
                    to[start..start + length].copy_from_slice(&shares[from]);
                }
                // Polynomials whose ring is narrow stand in an item as narrow elements.
                (Explicit::Narrow(to, _), Shares::Wide(shares)) => {
                    let to = to[start..start + length].iter_mut();
                    to.zip(&shares[from]).for_each(|(to, &share)| *to = share as u64);
                }
                (Explicit::Wide(to, _), Shares::Narrow(shares)) => {
                    let to = to[start..start + length].iter_mut();
                    to.zip(&shares[from]).for_each(|(to, &share)| *to = share.into());
                }
            }
        }
    }

    /// The first field of a step, if its elements have at most 64 bits; empty otherwise.
    pub fn narrow(&self, item: usize, step: usize) -> &[u64] {
        match self.items[item][step].first() {
            Some(Explicit::Narrow(elements, _)) => elements,
            Some(Explicit::Wide(..)) | None => &[],
        }
    }

    /// The items, with their seeds.
    pub fn into_items(mut self, seeds: &[Seed]) -> Vec<Item> {
        let items = self.items.iter_mut().zip(seeds);
        items.map(|(steps, seed)| pack_item(seed, take(steps).into_iter().flatten())).collect()
    }
}
