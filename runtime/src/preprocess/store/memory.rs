//! Items without a file.

use super::StoreError;
use crate::preprocess::item::Origin;
use crate::preprocess::{DealId, Network, Offer, Role, Supply};
use std::ops::Range;

/// Items in memory, for both parties in one process.
pub struct MemorySupply<M> {
    offer: Offer,
    items: std::collections::VecDeque<M>,
}

impl<M> MemorySupply<M> {
    /// A supply of `items`, the first of which has serial 0.
    pub fn new(role: Role, network: Network, deal: DealId, items: Vec<M>) -> Self {
        let count = items.len() as u64;
        let origin = Origin::Dealer;
        let Network { plan, weights } = network;
        let (is_stale, length) = (false, count);
        let offer = Offer { role, origin, plan, weights, is_stale, deal, next: 0, count, length };
        Self { offer, items: items.into() }
    }
}

impl<M> Supply for MemorySupply<M> {
    type Material = M;

    fn offer(&self) -> Offer {
        self.offer
    }

    fn claim(&mut self, serials: Range<u64>) -> Result<Vec<M>, StoreError> {
        let Offer { next, count, .. } = self.offer;
        if serials.start < next || serials.end > count {
            return Err(StoreError::Serials { wanted: serials, next, count });
        }
        self.offer.next = serials.end;
        self.items.drain(..(serials.start - next) as usize);
        Ok(self.items.drain(..(serials.end - serials.start) as usize).collect())
    }
}

/// No items: a run makes what it needs.
pub struct NoSupply<M> {
    offer: Offer,
    material: std::marker::PhantomData<M>,
}

impl<M> NoSupply<M> {
    /// For a party of a plan. `deal` names the items that a store without any offers.
    pub fn new(role: Role, network: Network, deal: DealId) -> Self {
        let origin = Origin::Parties;
        let Network { plan, weights } = network;
        let (is_stale, count, length) = (false, 0, 0);
        let offer = Offer { role, origin, plan, weights, is_stale, deal, next: 0, count, length };
        Self { offer, material: std::marker::PhantomData }
    }
}

impl<M> Supply for NoSupply<M> {
    type Material = M;

    fn offer(&self) -> Offer {
        self.offer
    }

    fn claim(&mut self, serials: Range<u64>) -> Result<Vec<M>, StoreError> {
        if serials.is_empty() {
            return Ok(vec![]);
        }
        Err(StoreError::Serials { wanted: serials, next: 0, count: 0 })
    }
}
