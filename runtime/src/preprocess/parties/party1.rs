//! Party 1's side: its masks are drawn or follow, and it learns its shares.

use super::shares::ItemShares;
use super::{Messenger, Observer, groups, item_seeds, set_up};
use crate::Error;
use crate::net::Channel;
use crate::preprocess::Role;
use crate::preprocess::expand::Seed;
use crate::preprocess::item::{Item, drawn_mask};
use crate::preprocess::rlwe::SecretKeys;
use crate::preprocess::transfer::Transfers;
use crate::secret::SecretTensor;
use crate::steps::exchange::{Asked, Masks, Shares, Tools, Turn, ask};
use ir::Tensor;
use ir::plan::{Exchange, Plan, StepOp, StepWeights};

/// Preprocesses `count` items with party 0 and hands each half to `keep`.
///
/// # Errors
/// If the peer is gone or sends what is none of the protocol's, or `keep` fails.
pub fn preprocess(
    channel: &mut impl Channel,
    plan: &Plan,
    count: usize,
    observer: Observer<'_>,
    mut keep: impl FnMut(Item) -> Result<(), Error>,
) -> Result<(), Error> {
    let (to0, to1, _) = plan.offline_traffic(count);
    Messenger::over(channel, observer, to0 + to1, |messenger| {
        let (keys, message) = SecretKeys::generate(&plan.rlwe)?;
        let (mut transfers, _) = set_up(messenger, Role::Party1, message, 0)?;
        let mut number = 0;
        for size in groups(plan, count) {
            let group = Group::new(plan, &keys, size, &mut number)?;
            group.preprocess(messenger, &mut transfers)?.into_iter().try_for_each(&mut keep)?;
            messenger.done(size);
        }
        Ok(())
    })
}

struct Group<'a> {
    plan: &'a Plan,
    keys: &'a SecretKeys,
    seeds: Vec<Seed>,
    /// Per item, the mask of every step as far as it is known.
    masks: Vec<Vec<Option<SecretTensor>>>,
    shares: ItemShares,
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
                StepOp::Input | StepOp::Interactive(_) => Some(drawn_mask(plan, seed, index)),
                StepOp::Local(_) | StepOp::Linear(_) => None,
            };
            plan.steps.iter().enumerate().map(mask).collect()
        };
        let masks = seeds.iter().map(own).collect();
        let shares = ItemShares::new(plan, Role::Party1, size);
        let mut group = Self { plan, keys, seeds, masks, shares, number };
        group.follow();
        Ok(group)
    }

    /// Computes the masks that follow from known ones.
    fn follow(&mut self) {
        for masks in &mut self.masks {
            for (index, step) in self.plan.steps.iter().enumerate() {
                if masks[index].is_some() || !matches!(step.op, StepOp::Local(_)) {
                    continue;
                }
                let operands: Option<Vec<&Tensor<u64>>> =
                    step.operands.iter().map(|o| masks[o.index()].as_deref()).collect();
                if let Some(operands) = operands {
                    masks[index] =
                        Some(SecretTensor::new(step.apply(&StepWeights::None, &operands)));
                }
            }
        }
    }

    fn preprocess(
        mut self,
        messenger: &mut Messenger<'_>,
        transfers: &mut Transfers,
    ) -> Result<Vec<Item>, Error> {
        let schedule = self.plan.offline_schedule(self.seeds.len());
        let mut begun: Vec<Option<Asked>> = schedule.exchanges.iter().map(|_| None).collect();
        for action in &schedule.actions {
            let (index, exchange) = (action.exchange, &schedule.exchanges[action.exchange]);
            let number = *self.number + index as u32;
            transfers.enter(number);
            let next = match begun[index].take() {
                None => {
                    let (state, message) = self.begin(exchange, number, transfers)?;
                    Turn::More(state, message)
                }
                Some(state) => {
                    let during = format!("waiting for the correlation of v{}", exchange.step);
                    let bytes = exchange.cost.bytes[2 * action.turn - 1];
                    let message = messenger.receive(bytes, &during)?;
                    let next = state.take(transfers, self.keys, &message);
                    next.map_err(|e| Error::Peer(e.to_string()))?
                }
            };
            match next {
                Turn::More(state, message) => {
                    begun[index] = Some(state);
                    messenger.send(message);
                }
                Turn::Done(shares, message) => {
                    self.finish(exchange, &shares);
                    message.into_iter().for_each(|message| messenger.send(message));
                }
            }
        }
        *self.number += schedule.exchanges.len() as u32;
        Ok(self.shares.into_items(&self.seeds))
    }

    fn begin(
        &mut self,
        exchange: &Exchange,
        number: u32,
        transfers: &mut Transfers,
    ) -> Result<(Asked, Vec<u8>), Error> {
        let of_operand = |&operand: &usize| -> Result<Masks<'_>, Error> {
            let items = exchange.items.clone();
            let mask = |item: usize| self.masks[item][operand].as_ref().map(|m| m.data.as_slice());
            let unknown = || Error::Internal(format!("the mask of v{operand} is not known"));
            items.map(mask).collect::<Option<_>>().ok_or_else(unknown)
        };
        let masks: Vec<Masks<'_>> =
            exchange.operands.iter().map(of_operand).collect::<Result<_, _>>()?;
        let tools = &mut Tools { transfers, keys: self.keys, number, group: *self.number };
        ask(tools, self.plan, exchange, &masks)
    }

    fn finish(&mut self, exchange: &Exchange, shares: &Shares) {
        self.shares.put(self.plan, exchange, shares);
        let step = &self.plan.steps[exchange.step];
        // Exchanges of one step finish in order: with its last part the whole mask is known.
        if step.op.is_secret_linear() && exchange.elements.end == step.shape.elements() {
            for item in exchange.items.clone() {
                let data = self.shares.narrow(item, exchange.step).to_vec();
                let mask = SecretTensor::new(Tensor::new(step.shape.clone(), data));
                self.masks[item][exchange.step] = Some(mask);
            }
            self.follow();
        }
    }
}
