//! Party 0's side: it brings the weights and learns its shares.

use super::shares::ItemShares;
use super::{Messenger, Observer, groups, item_seeds, set_up};
use crate::Error;
use crate::net::Channel;
use crate::preprocess::Role;
use crate::preprocess::expand::Seed;
use crate::preprocess::item::Item;
use crate::preprocess::rlwe::PublicKeys;
use crate::preprocess::transfer::Transfers;
use crate::steps::exchange::{self, Open, Tools, Turn, answer};
use ir::plan::rlwe::key_bytes;
use ir::plan::{Plan, Weights};

/// Preprocesses `count` items with party 1 and hands each half to `keep`.
///
/// # Errors
/// If the peer is gone or sends what is none of the protocol's, or `keep` fails.
pub fn preprocess(
    channel: &mut impl Channel,
    plan: &Plan,
    weights: &Weights,
    count: usize,
    observer: Observer<'_>,
    mut keep: impl FnMut(Item) -> Result<(), Error>,
) -> Result<(), Error> {
    let (to0, to1, _) = plan.offline_traffic(count);
    Messenger::over(channel, observer, to0 + to1, |messenger| {
        let (mut transfers, message) =
            set_up(messenger, Role::Party0, vec![], key_bytes(&plan.rlwe))?;
        let keys = PublicKeys::read(&plan.rlwe, &message, Seed::from_system()?)
            .map_err(|e| Error::Peer(e.to_string()))?;
        let mut number = 0;
        for size in groups(plan, count) {
            let (seeds, shares) = (item_seeds(size)?, ItemShares::new(plan, Role::Party0, size));
            let group = Group { plan, weights, keys: &keys, seeds, shares, number: &mut number };
            group.preprocess(messenger, &mut transfers)?.into_iter().try_for_each(&mut keep)?;
            messenger.done(size);
        }
        Ok(())
    })
}

struct Group<'a> {
    plan: &'a Plan,
    weights: &'a Weights,
    keys: &'a PublicKeys,
    seeds: Vec<Seed>,
    shares: ItemShares,
    /// The number of the group's first exchange; no two exchanges of a session have the same.
    number: &'a mut u32,
}

impl Group<'_> {
    fn preprocess(
        mut self,
        messenger: &mut Messenger<'_>,
        transfers: &mut Transfers,
    ) -> Result<Vec<Item>, Error> {
        let (plan, weights) = (self.plan, self.weights);
        let schedule = plan.offline_schedule(self.seeds.len());
        let mut open: Vec<Option<Open>> = schedule.exchanges.iter().map(|_| None).collect();
        // Messages that are sent before party 1's come.
        let mut ahead: Vec<Option<Vec<u8>>> = schedule.exchanges.iter().map(|_| None).collect();
        for action in &schedule.actions {
            let (index, exchange) = (action.exchange, &schedule.exchanges[action.exchange]);
            let Some(&bytes) = exchange.cost.bytes.get(2 * action.turn) else { continue };
            let number = *self.number + index as u32;
            transfers.enter(number);
            let during = format!("waiting for party 1's part of v{}", exchange.step);
            let is_mutual = exchange.method.is_mutual();
            let seeds = &self.seeds[exchange.items.clone()];
            let group = *self.number;
            if is_mutual && action.turn == 0 {
                let tools = &mut Tools { transfers, keys: self.keys, number, group };
                let (state, message) = exchange::open(tools, plan, exchange, seeds)?;
                (open[index], ahead[index]) = (Some(state), Some(message));
            }
            ahead[index].take().into_iter().for_each(|message| messenger.send(message));
            let message = messenger.receive(bytes, &during)?;
            let next = match open[index].take() {
                None => {
                    let tools = &mut Tools { transfers, keys: self.keys, number, group };
                    answer(tools, plan, weights, exchange, seeds, &message)?
                }
                Some(state) => {
                    let next = state.take(transfers, &plan.steps[exchange.step], &message);
                    next.map_err(|e| Error::Peer(e.to_string()))?
                }
            };
            match next {
                Turn::More(state, message) => {
                    open[index] = Some(state);
                    match is_mutual {
                        true => ahead[index] = Some(message),
                        false => messenger.send(message),
                    }
                }
                Turn::Done(shares, message) => {
                    self.shares.put(plan, exchange, &shares);
                    message.into_iter().for_each(|message| messenger.send(message));
                }
            }
        }
        *self.number += schedule.exchanges.len() as u32;
        Ok(self.shares.into_items(&self.seeds))
    }
}
