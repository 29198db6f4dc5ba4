//! The explicit parts of a group's items, while they are preprocessed.

use crate::preprocess::Role;
use crate::preprocess::expand::Seed;
use crate::preprocess::item::{Explicit, Item, fields, pack_item};
use crate::steps::exchange::{Share, Shares};
use ir::plan::{Exchange, Field, Plan};
use std::mem::take;
use std::ops::Range;
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

    /// Stores the shares of an exchange, field by field and item by item.
    pub fn put(&mut self, plan: &Plan, exchange: &Exchange, shares: &Shares) {
        let elements = plan.steps[exchange.step].shape.elements().max(1);
        for (n, item) in exchange.items.clone().enumerate() {
            for (field, share) in self.items[item][exchange.step].iter_mut().zip(shares) {
                if let Share::Whole(_) = share {
                    let length = field.len();
                    put_field(field, 0..length, share, n * length);
                    continue;
                }
                let per_element = field.len() / elements;
                let length = exchange.elements.len() * per_element;
                let start = exchange.elements.start * per_element;
                put_field(field, start..start + length, share, n * length);
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

/// Stores some elements of a share, from `first` on.
fn put_field(field: &mut Explicit, to: Range<usize>, share: &Share, first: usize) {
    let from = first..first + to.len();
    match (field, share) {
        (Explicit::Narrow(field, _), Share::Narrow(share) | Share::Whole(share)) => {
            field[to].copy_from_slice(&share[from]);
        }
        (Explicit::Wide(field, _), Share::Wide(share)) => field[to].copy_from_slice(&share[from]),
        // Polynomials whose ring is narrow stand in an item as narrow elements.
        (Explicit::Narrow(field, _), Share::Wide(share)) => {
            let pairs = field[to].iter_mut().zip(&share[from]);
            pairs.for_each(|(field, &share)| *field = share as u64);
        }
        (Explicit::Wide(field, _), Share::Narrow(share) | Share::Whole(share)) => {
            let pairs = field[to].iter_mut().zip(&share[from]);
            pairs.for_each(|(field, &share)| *field = share.into());
        }
    }
}
