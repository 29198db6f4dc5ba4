//! A run as one party sees it: `Connected → Agreed → Prepared → Finished`. Every state consumes the one
//! before, so that correlations cannot be used before they are marked, nor twice.

use crate::Error;
use crate::handshake::{self, Agreement, Hello};
use crate::net::{Channel, Meter, Traffic};
use crate::offline::{Party0Material, Party1Material, Role, Supply};
use crate::online::{Model, Party0, Party1};
use crate::tables::Tables;
use ir::Tensor;
use ir::plan::{Digest, Plan, Weights};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// There is a channel to a peer, and nothing is known of it.
pub struct Connected<C> {
    channel: Meter<C>,
}

impl<C: Channel> Connected<C> {
    /// Starts a session over a fresh channel.
    pub fn new(channel: C) -> Self {
        Self { channel: Meter::new(channel) }
    }

    /// Agrees with the peer on plan, batch and correlations, and claims the items from `supply`: they are
    /// marked as used before anything that depends on them can leave. `batch` is the number of inputs
    /// (party 1) or the most that are accepted (party 0).
    ///
    /// # Errors
    /// If the peers do not fit, the peer is gone, or the items cannot be claimed.
    pub fn agree<'a, S: Supply>(
        mut self,
        plan: &'a Plan,
        digest: Digest,
        batch: usize,
        supply: &mut S,
    ) -> Result<Agreed<'a, C, S::Material>, Error> {
        let offer = supply.offer();
        if offer.plan != digest {
            return Err(Error::Internal("a supply for another plan".into()));
        }
        let tables = Tables::new(plan);
        let batch = u32::try_from(batch).unwrap_or(u32::MAX);
        let version = handshake::VERSION;
        let hello = Hello { version, batch, tables: tables.digest(), offer };
        let agreement = handshake::exchange(&mut self.channel, &hello)?;
        let materials = supply.claim(agreement.serials.clone())?;
        handshake::confirm(&mut self.channel, offer.role, agreement.serials.start)?;
        let handshake = self.channel.take();
        let channel = self.channel;
        Ok(Agreed { channel, handshake, plan, tables, materials, agreement, role: offer.role })
    }
}

/// The peers agreed, and the items of this run are claimed at both.
pub struct Agreed<'a, C, M> {
    channel: Meter<C>,
    handshake: Traffic,
    plan: &'a Plan,
    tables: Tables,
    materials: Vec<M>,
    agreement: Agreement,
    role: Role,
}

impl<'a, C: Channel, M> Agreed<'a, C, M> {
    /// Number of inputs and serials of the items.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }
}

impl<'a, C: Channel, M: Party0Material> Agreed<'a, C, M> {
    /// Brings in the weights, packs them, and takes everything from the items that does not depend on
    /// the input.
    ///
    /// # Errors
    /// If this is party 1's side.
    pub fn prepare_party0(self, weights: &'a Weights) -> Result<Prepared<C, Party0<'a, M>>, Error> {
        let model = Arc::new(Model::new(self.plan, weights));
        self.prepare_model(model)
    }

    /// As [`Self::prepare_party0`] with weights that are packed already, for many sessions.
    ///
    /// # Errors
    /// If this is party 1's side, or the model is another plan's.
    pub fn prepare_model(self, model: Arc<Model<'a>>) -> Result<Prepared<C, Party0<'a, M>>, Error> {
        if self.role != Role::Party0 {
            return Err(Error::Internal("party 1 took party 0's part".into()));
        }
        if !std::ptr::eq(model.plan, self.plan) {
            return Err(Error::Internal("a model of another plan".into()));
        }
        let party = Party0::new(model, self.tables, self.materials)?;
        Ok(Prepared { channel: self.channel, handshake: self.handshake, party })
    }
}

impl<'a, C: Channel, M: Party1Material> Agreed<'a, C, M> {
    /// Computes party 1's side of every value; no input is needed, and no weight.
    ///
    /// # Errors
    /// If this is party 0's side.
    pub fn prepare_party1(self) -> Result<Prepared<C, Party1<'a, M>>, Error> {
        if self.role != Role::Party1 {
            return Err(Error::Internal("party 0 took party 1's part".into()));
        }
        let party = Party1::new(self.plan, self.tables, self.materials)?;
        Ok(Prepared { channel: self.channel, handshake: self.handshake, party })
    }
}

/// Everything that does not depend on the input is done.
pub struct Prepared<C, P> {
    channel: Meter<C>,
    handshake: Traffic,
    party: P,
}

impl<C: Channel, M: Party0Material> Prepared<C, Party0<'_, M>> {
    /// The online phase of party 0, which learns nothing.
    ///
    /// # Errors
    /// If the peer is gone or sends something malformed.
    pub fn run(mut self) -> Result<Finished<()>, Error> {
        let start = Instant::now();
        self.party.run(&mut self.channel, |_, _| ())?;
        Ok(Finished::new(&mut self.channel, self.handshake, start.elapsed(), ()))
    }
}

impl<C: Channel, M: Party1Material> Prepared<C, Party1<'_, M>> {
    /// The online phase of party 1 for encoded inputs, as many as were agreed on; the output's ring
    /// elements.
    ///
    /// # Errors
    /// If the peer is gone or sends something malformed.
    pub fn run(mut self, inputs: &[Tensor<u64>]) -> Result<Finished<Vec<Tensor<u64>>>, Error> {
        let start = Instant::now();
        let output = self.party.run(&mut self.channel, inputs)?;
        Ok(Finished::new(&mut self.channel, self.handshake, start.elapsed(), output))
    }
}

/// A run that came to its end.
pub struct Finished<T> {
    /// What the party learns.
    pub output: T,
    /// The agreement's traffic.
    pub handshake: Traffic,
    /// The online phase's traffic: [`Plan::messages`], byte for byte.
    pub online: Traffic,
    /// Time of the online phase.
    pub elapsed: Duration,
}

impl<T> Finished<T> {
    fn new<C: Channel>(
        channel: &mut Meter<C>,
        handshake: Traffic,
        elapsed: Duration,
        output: T,
    ) -> Self {
        Self { output, handshake, online: channel.take(), elapsed }
    }
}
