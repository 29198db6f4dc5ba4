//! Party 1's side: its masks are drawn or follow, and it learns its shares.

use super::slots::Slots;
use super::{Link, Observer, groups, item_seeds, no_products, set_up};
use crate::Error;
use crate::net::Channel;
use crate::offline::Role;
use crate::offline::expand::Seed;
use crate::offline::item::{Item, party1_mask};
use crate::offline::masks::has_own_mask;
use crate::offline::products::{self, Shares, Tools};
use crate::offline::rlwe::SecretKeys;
use crate::offline::transfer::Transfers;
use crate::protocol::linear;
use crate::secret::{Elements, SecretTensor};
use ir::Tensor;
use ir::plan::{Action, Exchange, Packing, Plan, StepOp};
use zeroize::Zeroizing;

/// Makes `count` items with party 0 and hands each half to `keep`.
///
/// # Errors
/// If the peer is gone or sends what is none of the protocol's, or `keep` fails.
pub fn make(
    channel: &mut impl Channel,
    plan: &Plan,
    count: usize,
    observer: Observer<'_>,
    mut keep: impl FnMut(Item) -> Result<(), Error>,
) -> Result<(), Error> {
    let (to0, to1, _) = plan.offline_traffic(count);
    Link::over(channel, observer, to0 + to1, |link| {
        let (keys, message) = SecretKeys::generate(&plan.rlwe)?;
        let (mut transfers, _) = set_up(link, Role::Party1, message, 0)?;
        let mut number = 0;
        for size in groups(plan, count) {
            let group = Group::new(plan, &keys, size, &mut number)?;
            group.make(link, &mut transfers)?.into_iter().try_for_each(&mut keep)?;
            link.done(size);
        }
        Ok(())
    })
}

/// An exchange that is begun.
enum Begun {
    Linear(Packing),
    Products(products::Begun),
}

struct Group<'a> {
    plan: &'a Plan,
    keys: &'a SecretKeys,
    seeds: Vec<Seed>,
    /// Per item, the mask of every step as far as it is known.
    masks: Vec<Vec<Option<SecretTensor>>>,
    slots: Slots,
    /// The number of the group's first exchange; no two exchanges of a session have the same.
    number: &'a mut u32,
}

impl<'a> Group<'a> {
    fn new(
        plan: &'a Plan,
        keys: &'a SecretKeys,
        size: usize,
        number: &'a mut u32,
    ) -> Result<Self, Error> {
        let seeds = item_seeds(size)?;
        let own = |seed: &Seed| {
            let mask = |(index, step): (usize, &ir::plan::Step)| match &step.op {
                StepOp::Constant => Some(SecretTensor::new(Tensor::zeros(step.shape.clone()))),
                op if has_own_mask(op) && !op.is_secret_linear() => {
                    Some(party1_mask(plan, seed, index))
                }
                _ => None,
            };
            plan.steps.iter().enumerate().map(mask).collect()
        };
        let masks = seeds.iter().map(own).collect();
        let mut group = Self { plan, keys, seeds, masks, slots: Slots::new(plan, size), number };
        group.follow();
        Ok(group)
    }

    /// Computes the masks that follow from known ones.
    fn follow(&mut self) {
        for masks in &mut self.masks {
            for (index, step) in self.plan.steps.iter().enumerate() {
                if masks[index].is_some() || has_own_mask(&step.op) {
                    continue;
                }
                let operands: Option<Vec<&Tensor<u64>>> =
                    step.operands.iter().map(|o| masks[o.index()].as_deref()).collect();
                if let Some(operands) = operands {
                    masks[index] = Some(SecretTensor::new(linear::public(step, &operands)));
                }
            }
        }
    }

    fn make(mut self, link: &mut Link<'_>, transfers: &mut Transfers) -> Result<Vec<Item>, Error> {
        let schedule = self.plan.schedule(self.seeds.len());
        let mut begun: Vec<Option<Begun>> = schedule.exchanges.iter().map(|_| None).collect();
        for action in &schedule.actions {
            let (Action::Begin(index) | Action::Finish(index)) = *action;
            let number = *self.number + index as u32;
            transfers.enter(number);
            match *action {
                Action::Begin(index) => {
                    let exchange = &schedule.exchanges[index];
                    let (state, message) = self.begin(exchange, number, transfers)?;
                    begun[index] = Some(state);
                    link.send(message);
                }
                Action::Finish(index) => {
                    let exchange = &schedule.exchanges[index];
                    let state = begun[index].take();
                    let state = state.ok_or_else(|| Error::Internal("not begun".into()))?;
                    let during = format!("waiting for the correlation of v{}", exchange.step);
                    let message = link.receive(exchange.bytes[1], &during)?;
                    if let Some(last) = self.finish(exchange, state, transfers, &message)? {
                        link.send(last);
                    }
                }
            }
        }
        *self.number += schedule.exchanges.len() as u32;
        Ok(self.slots.into_items(&self.seeds))
    }

    fn begin(
        &mut self,
        exchange: &Exchange,
        number: u32,
        transfers: &mut Transfers,
    ) -> Result<(Begun, Vec<u8>), Error> {
        let (plan, step) = (self.plan, &self.plan.steps[exchange.step]);
        let keys = self.keys;
        let operand = step.operands[0].index();
        let masks: Vec<&[u64]> = exchange
            .items
            .clone()
            .map(|item| self.masks[item][operand].as_ref().map(|m| m.data.as_slice()))
            .collect::<Option<_>>()
            .ok_or_else(|| Error::Internal(format!("the mask of v{operand} is not known")))?;
        if let Some(packing) = plan.packing(exchange.step, masks.len()) {
            let message = keys.encrypt(&packing, number, &masks);
            return Ok((Begun::Linear(packing), message));
        }
        let elements = exchange.elements.clone();
        let masks: Elements = Zeroizing::new(
            masks.iter().flat_map(|m| m[elements.clone()].iter().copied()).collect(),
        );
        let begun =
            products::begin(&mut Tools { transfers, keys, number }, plan, exchange.step, &masks);
        let (state, message) = begun.ok_or_else(|| no_products(exchange.step))?;
        Ok((Begun::Products(state), message))
    }

    fn finish(
        &mut self,
        exchange: &Exchange,
        state: Begun,
        transfers: &mut Transfers,
        message: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        let refused = |e: &dyn std::fmt::Display| Error::Peer(e.to_string());
        let (shares, last) = match state {
            Begun::Linear(packing) => {
                let shares = self.keys.decrypt(&packing, message).map_err(|e| refused(&e))?;
                let shares = shares.iter().flat_map(|s| s.iter().copied()).collect();
                (Shares::Narrow(Zeroizing::new(shares)), None)
            }
            Begun::Products(state) => {
                state.finish(transfers, self.keys, message).map_err(|e| refused(&e))?
            }
        };
        self.slots.put(self.plan, exchange, &shares);
        let step = &self.plan.steps[exchange.step];
        // Exchanges of one step finish in order: with its last part the whole mask is known.
        if step.op.is_secret_linear() && exchange.elements.end == step.shape.elements() {
            for item in exchange.items.clone() {
                let data = self.slots.narrow(item, exchange.step).to_vec();
                let mask = SecretTensor::new(Tensor::new(step.shape.clone(), data));
                self.masks[item][exchange.step] = Some(mask);
            }
            self.follow();
        }
        Ok(last)
    }
}
