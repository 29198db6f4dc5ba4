//! The explicit parts of a group's items, while they are made.

use crate::offline::expand::Seed;
use crate::offline::item::{Explicit, Item, pack_item};
use crate::offline::products::Shares;
use ir::plan::{Exchange, Plan};
use std::mem::take;
use zeroize::Zeroizing;

/// Per item and step the elements that stand in the item.
pub struct Slots {
    items: Vec<Vec<Option<Explicit>>>,
}

impl Slots {
    /// Zeros for every correlation of a plan, `count` times.
    pub fn new(plan: &Plan, count: usize) -> Self {
        let slot = |step: usize| {
            let correlation = plan.correlation(step)?;
            Some(match correlation.bits {
                0..=64 => Explicit::Narrow(
                    Zeroizing::new(vec![0; correlation.elements]),
                    correlation.bits,
                ),
                _ => {
                    Explicit::Wide(Zeroizing::new(vec![0; correlation.elements]), correlation.bits)
                }
            })
        };
        let item = || (0..plan.steps.len()).map(slot).collect();
        Self { items: (0..count).map(|_| item()).collect() }
    }

    /// Stores the shares of an exchange, item by item.
    pub fn put(&mut self, plan: &Plan, exchange: &Exchange, shares: &Shares) {
        let all = plan.correlation(exchange.step).map_or(0, |c| c.elements);
        let per_element = all / plan.steps[exchange.step].shape.elements().max(1);
        let length = exchange.elements.len() * per_element;
        let start = exchange.elements.start * per_element;
        for (n, item) in exchange.items.clone().enumerate() {
            let from = n * length..(n + 1) * length;
            match (&mut self.items[item][exchange.step], shares) {
                (Some(Explicit::Narrow(to, _)), Shares::Narrow(shares)) => {
                    to[start..start + length].copy_from_slice(&shares[from]);
                }
                (Some(Explicit::Wide(to, _)), Shares::Wide(shares)) => {
                    to[start..start + length].copy_from_slice(&shares[from]);
                }
                // Polynomials whose ring is narrow stand in an item as narrow elements.
                (Some(Explicit::Narrow(to, _)), Shares::Wide(shares)) => {
                    let to = to[start..start + length].iter_mut();
                    to.zip(&shares[from]).for_each(|(to, &share)| *to = share as u64);
                }
                (_, Shares::Narrow(_)) | (None, Shares::Wide(_)) => {}
            }
        }
    }

    /// What stands for a step with elements of at most 64 bits; empty for other steps.
    pub fn narrow(&self, item: usize, step: usize) -> &[u64] {
        match &self.items[item][step] {
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
