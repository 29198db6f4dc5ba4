//! Party 0's side: it brings the weights and learns its shares.

use super::slots::Slots;
use super::{Link, Observer, groups, item_seeds, no_products, set_up};
use crate::Error;
use crate::net::Channel;
use crate::offline::Role;
use crate::offline::expand::{Purpose, Seed};
use crate::offline::item::Item;
use crate::offline::products::{self, Shares, Tools};
use crate::offline::rlwe::PublicKeys;
use crate::offline::transfer::Transfers;
use crate::secret::Elements;
use ir::plan::rlwe::key_bytes;
use ir::plan::{Action, Exchange, Plan, StepWeights, Weights};
use zeroize::Zeroizing;

/// Makes `count` items with party 1 and hands each half to `keep`.
///
/// # Errors
/// If the peer is gone or sends what is none of the protocol's, or `keep` fails.
pub fn make(
    channel: &mut impl Channel,
    plan: &Plan,
    weights: &Weights,
    count: usize,
    observer: Observer<'_>,
    mut keep: impl FnMut(Item) -> Result<(), Error>,
) -> Result<(), Error> {
    let (to0, to1, _) = plan.offline_traffic(count);
    Link::over(channel, observer, to0 + to1, |link| {
        let (mut transfers, message) = set_up(link, Role::Party0, vec![], key_bytes(&plan.rlwe))?;
        let keys = PublicKeys::read(&plan.rlwe, &message, Seed::from_system()?)
            .map_err(|e| Error::Peer(e.to_string()))?;
        let mut number = 0;
        for size in groups(plan, count) {
            let (seeds, slots) = (item_seeds(size)?, Slots::new(plan, size));
            let group = Group { plan, weights, keys: &keys, seeds, slots, number: &mut number };
            group.make(link, &mut transfers)?.into_iter().try_for_each(&mut keep)?;
            link.done(size);
        }
        Ok(())
    })
}

struct Group<'a> {
    plan: &'a Plan,
    weights: &'a Weights,
    keys: &'a PublicKeys,
    seeds: Vec<Seed>,
    slots: Slots,
    /// The number of the group's first exchange; no two exchanges of a session have the same.
    number: &'a mut u32,
}

impl Group<'_> {
    fn make(mut self, link: &mut Link<'_>, transfers: &mut Transfers) -> Result<Vec<Item>, Error> {
        let schedule = self.plan.schedule(self.seeds.len());
        let mut asked: Vec<Option<products::Open>> =
            schedule.exchanges.iter().map(|_| None).collect();
        let refused = |e: super::super::transfer::TransferError| Error::Peer(e.to_string());
        for action in &schedule.actions {
            let (Action::Begin(index) | Action::Finish(index)) = *action;
            let exchange = &schedule.exchanges[index];
            let number = *self.number + index as u32;
            transfers.enter(number);
            let during = format!("waiting for party 1's part of v{}", exchange.step);
            match action {
                Action::Begin(_) => {
                    let message = link.receive(exchange.bytes[0], &during)?;
                    let (answer, state) = match self.linear(exchange, number, &message)? {
                        Some((answer, shares)) => (answer, products::Open::Done(shares)),
                        None => {
                            let seeds = &self.seeds[exchange.items.clone()];
                            let (plan, weights) = (self.plan, self.weights);
                            let keys = self.keys;
                            let tools = &mut Tools { transfers, keys, number };
                            products::answer(tools, plan, weights, exchange, seeds, &message)
                                .map_err(refused)?
                                .ok_or_else(|| no_products(exchange.step))?
                        }
                    };
                    link.send(answer);
                    match state {
                        products::Open::Done(shares) => {
                            self.slots.put(self.plan, exchange, &shares);
                        }
                        open => asked[index] = Some(open),
                    }
                }
                Action::Finish(_) => {
                    if let Some(state) = asked[index].take() {
                        let message = link.receive(exchange.bytes[2], &during)?;
                        let op = &self.plan.steps[exchange.step].op;
                        let shares = state.finish(transfers, op, &message).map_err(refused)?;
                        self.slots.put(self.plan, exchange, &shares);
                    }
                }
            }
        }
        *self.number += schedule.exchanges.len() as u32;
        Ok(self.slots.into_items(&self.seeds))
    }

    /// Answers a convolution or matrix product; `None` for other steps.
    fn linear(
        &mut self,
        exchange: &Exchange,
        number: u32,
        message: &[u8],
    ) -> Result<Option<(Vec<u8>, Shares)>, Error> {
        let Some(packing) = self.plan.packing(exchange.step, exchange.items.len()) else {
            return Ok(None);
        };
        let StepWeights::Linear { weights, .. } = &self.weights.steps[exchange.step] else {
            return Err(Error::Internal(format!("step v{} has other weights", exchange.step)));
        };
        let step = &self.plan.steps[exchange.step];
        let seeds = &self.seeds[exchange.items.clone()];
        let share = |seed: &Seed| {
            seed.elements(exchange.step, Purpose::Mask, step.shape.elements(), step.ring)
        };
        let shares: Vec<Elements> = seeds.iter().map(share).collect();
        let answer = self.keys.answer(&packing, number, weights, message, &shares);
        let answer = answer.map_err(|e| Error::Peer(e.to_string()))?;
        let shares = shares.iter().flat_map(|s| s.iter().copied()).collect();
        Ok(Some((answer, Shares::Narrow(Zeroizing::new(shares)))))
    }
}
