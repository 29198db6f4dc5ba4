//! A run as one party sees it: `Connected → Agreed → Prepared → Finished`; `Agreed` preprocesses the
//! correlations that are missing. Every state consumes the one before, so that correlations cannot be used before they are marked, nor twice.

use crate::Error;
use crate::handshake::{self, Agreement, Heard, Hello, Purpose};
use crate::net::{Channel, Meter, Traffic};
use crate::online::{Model, Party0, Party1};
use crate::preprocess::item::{Item, Party0Item, Party1Item};
use crate::preprocess::parties::{self, Observer};
use crate::preprocess::{Role, Supply};
use crate::steps::Tables;
use ir::Tensor;
use ir::plan::{Digest, Plan, Weights};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// There is a channel to a peer, and nothing is known of it but what it says about itself.
pub struct Connected<C> {
    channel: Meter<C>,
    heard: Option<Heard>,
}

impl<C: Channel> Connected<C> {
    /// Starts a session over a fresh channel.
    pub fn new(channel: C) -> Self {
        Self { channel: Meter::new(channel), heard: None }
    }

    /// Party 0's first step, where it would do without a peer that does not fit: hears what party 1 says
    /// about itself. Nothing is opened or computed for it. `own` is party 0's hello without items; a peer
    /// that does not fit gets it, so that it can say why.
    ///
    /// # Errors
    /// If the peer is gone, speaks another protocol, or does not fit.
    pub fn hear(mut self, own: &Hello) -> Result<Self, Error> {
        self.heard = Some(handshake::admit(&mut self.channel, own)?);
        Ok(self)
    }

    /// Agrees with the peer on plan, batch and correlations, and claims the items from `supply`: they are
    /// marked as used before anything that depends on them can leave. `batch` is the number of inputs
    /// (party 1) or the most that are accepted (party 0). Unless a dealer made the items, what is missing
    /// is left to be preprocessed.
    ///
    /// # Errors
    /// If the peers do not fit, the peer is gone, or the items cannot be claimed.
    pub fn agree<'a, S: Supply>(
        self,
        plan: &'a Plan,
        digest: Digest,
        batch: usize,
        supply: &mut S,
    ) -> Result<Agreed<'a, C, S::Material>, Error> {
        self.agree_on(plan, digest, batch, supply, (Purpose::Run, false))
    }

    /// Agrees on the items to prepare and to keep: up to `count`. Unused items may be replaced if the two
    /// stores do not belong together and `force` is set at both. Nothing is claimed.
    ///
    /// # Errors
    /// As [`Self::agree`].
    pub fn agree_to_prepare<'a, S: Supply>(
        self,
        plan: &'a Plan,
        digest: Digest,
        count: usize,
        supply: &mut S,
        force: bool,
    ) -> Result<Agreed<'a, C, S::Material>, Error> {
        self.agree_on(plan, digest, count, supply, (Purpose::Prepare, force))
    }

    fn agree_on<'a, S: Supply>(
        mut self,
        plan: &'a Plan,
        digest: Digest,
        batch: usize,
        supply: &mut S,
        (purpose, force): (Purpose, bool),
    ) -> Result<Agreed<'a, C, S::Material>, Error> {
        let offer = supply.offer();
        if offer.plan != digest {
            return Err(Error::Internal("a supply for another plan".into()));
        }
        if offer.role == Role::Party0 && offer.weights.is_none() {
            return Err(Error::Internal("party 0's supply without weights".into()));
        }
        let tables = Tables::new(plan);
        let batch = u32::try_from(batch).unwrap_or(u32::MAX);
        let is_replaceable = force || offer.next == offer.count;
        let digest = tables.digest();
        let hello = Hello { batch, tables: digest, purpose, is_replaceable, offer };
        let agreement = match self.heard.take() {
            Some(heard) => handshake::answer(&mut self.channel, &hello, &heard)?,
            None => handshake::exchange(&mut self.channel, &hello)?,
        };
        let materials = supply.claim(agreement.serials.clone())?;
        handshake::confirm(&mut self.channel, offer.role, agreement.serials.start)?;
        let handshake = self.channel.take();
        let channel = self.channel;
        let offline = Offline::default();
        let role = offer.role;
        Ok(Agreed { channel, handshake, offline, plan, tables, materials, agreement, role })
    }
}

/// The peers agreed, and the items of this run are claimed at both.
pub struct Agreed<'a, C, M> {
    channel: Meter<C>,
    handshake: Traffic,
    offline: Offline,
    plan: &'a Plan,
    tables: Tables,
    materials: Vec<M>,
    agreement: Agreement,
    role: Role,
}

/// What preprocessing took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offline {
    /// Items that were preprocessed.
    pub items: usize,
    /// The traffic: [`Plan::offline_traffic`], byte for byte.
    pub traffic: Traffic,
    /// Its time.
    pub elapsed: Duration,
}

impl<'a, C: Channel, M> Agreed<'a, C, M> {
    /// Number of inputs and serials of the items.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }
}

impl<'a, C: Channel> Agreed<'a, C, Party0Item<'a>> {
    /// Preprocesses with party 1 the items that are missing.
    ///
    /// # Errors
    /// If the peer is gone or sends something malformed, or this is party 1's side.
    pub fn preprocess_party0(
        mut self,
        weights: &Weights,
        observer: Observer<'_>,
    ) -> Result<Self, Error> {
        let mut items = vec![];
        let keep = |item| {
            items.push(item);
            Ok(())
        };
        self.offline = self.offline_party0(weights, observer, keep)?;
        let plan = self.plan;
        let item = |item| Party0Item::new(plan, item).ok_or_else(other_length);
        self.materials.extend(items.into_iter().map(item).collect::<Result<Vec<_>, _>>()?);
        Ok(self)
    }

    /// Preprocesses the items that were agreed on and hands each to `keep`.
    ///
    /// # Errors
    /// As [`Self::preprocess_party0`], and if `keep` fails.
    pub fn offline_party0(
        &mut self,
        weights: &Weights,
        observer: Observer<'_>,
        keep: impl FnMut(Item) -> Result<(), Error>,
    ) -> Result<Offline, Error> {
        if self.role != Role::Party0 {
            return Err(Error::Internal("party 1 took party 0's part".into()));
        }
        let (start, items) = (Instant::now(), self.agreement.fresh);
        if items > 0 {
            parties::party0(&mut self.channel, self.plan, weights, items, observer, keep)?;
        }
        Ok(Offline { items, traffic: self.channel.take(), elapsed: start.elapsed() })
    }
}

impl<'a, C: Channel> Agreed<'a, C, Party1Item<'a>> {
    /// Preprocesses with party 0 the items that are missing.
    ///
    /// # Errors
    /// If the peer is gone or sends something malformed, or this is party 0's side.
    pub fn preprocess_party1(mut self, observer: Observer<'_>) -> Result<Self, Error> {
        let mut items = vec![];
        let keep = |item| {
            items.push(item);
            Ok(())
        };
        self.offline = self.offline_party1(observer, keep)?;
        let plan = self.plan;
        let item = |item| Party1Item::new(plan, item).ok_or_else(other_length);
        self.materials.extend(items.into_iter().map(item).collect::<Result<Vec<_>, _>>()?);
        Ok(self)
    }

    /// Preprocesses the items that were agreed on and hands each to `keep`.
    ///
    /// # Errors
    /// As [`Self::preprocess_party1`], and if `keep` fails.
    pub fn offline_party1(
        &mut self,
        observer: Observer<'_>,
        keep: impl FnMut(Item) -> Result<(), Error>,
    ) -> Result<Offline, Error> {
        if self.role != Role::Party1 {
            return Err(Error::Internal("party 0 took party 1's part".into()));
        }
        let (start, items) = (Instant::now(), self.agreement.fresh);
        if items > 0 {
            parties::party1(&mut self.channel, self.plan, items, observer, keep)?;
        }
        Ok(Offline { items, traffic: self.channel.take(), elapsed: start.elapsed() })
    }
}

fn other_length() -> Error {
    Error::Internal("an item that was made has another length".into())
}

fn check_complete<C, M>(agreed: &Agreed<'_, C, M>, role: Role) -> Result<(), Error> {
    if agreed.role != role {
        return Err(Error::Internal(format!("{} took {role}'s part", agreed.role)));
    }
    if agreed.materials.len() != agreed.agreement.batch {
        return Err(Error::Internal("correlations are missing".into()));
    }
    Ok(())
}

impl<'a, C: Channel> Agreed<'a, C, Party0Item<'a>> {
    /// Brings in the weights, packs them, and takes everything from the items that does not depend on
    /// the input.
    ///
    /// # Errors
    /// If this is party 1's side, or correlations are missing.
    pub fn prepare_party0(self, weights: &'a Weights) -> Result<Prepared<C, Party0<'a>>, Error> {
        let model = Arc::new(Model::new(self.plan, weights));
        self.prepare_model(model)
    }

    /// As [`Self::prepare_party0`] with weights that are packed already, for many sessions.
    ///
    /// # Errors
    /// If this is party 1's side, the model is another plan's, or correlations are missing.
    pub fn prepare_model(self, model: Arc<Model<'a>>) -> Result<Prepared<C, Party0<'a>>, Error> {
        check_complete(&self, Role::Party0)?;
        if !std::ptr::eq(model.plan(), self.plan) {
            return Err(Error::Internal("a model of another plan".into()));
        }
        let Self { channel, handshake, offline, .. } = self;
        let party = Party0::new(model, self.tables, self.materials)?;
        Ok(Prepared { channel, handshake, offline, party })
    }
}

impl<'a, C: Channel> Agreed<'a, C, Party1Item<'a>> {
    /// Computes party 1's side of every value; no input is needed, and no weight.
    ///
    /// # Errors
    /// If this is party 0's side, or correlations are missing.
    pub fn prepare_party1(self) -> Result<Prepared<C, Party1<'a>>, Error> {
        check_complete(&self, Role::Party1)?;
        let Self { channel, handshake, offline, .. } = self;
        let party = Party1::new(self.plan, self.tables, self.materials)?;
        Ok(Prepared { channel, handshake, offline, party })
    }
}

/// Everything that does not depend on the input is done.
pub struct Prepared<C, P> {
    channel: Meter<C>,
    handshake: Traffic,
    offline: Offline,
    party: P,
}

impl<C: Channel> Prepared<C, Party0<'_>> {
    /// The online phase of party 0, which learns nothing.
    ///
    /// # Errors
    /// If the peer is gone or sends something malformed.
    pub fn run(mut self) -> Result<Finished<()>, Error> {
        let start = Instant::now();
        self.party.run(&mut self.channel, |_, _| ())?;
        let before = (self.handshake, self.offline);
        Ok(Finished::new(&mut self.channel, before, start.elapsed(), ()))
    }
}

impl<C: Channel> Prepared<C, Party1<'_>> {
    /// The online phase of party 1 for encoded inputs, as many as were agreed on; the output's ring
    /// elements.
    ///
    /// # Errors
    /// If the peer is gone or sends something malformed.
    pub fn run(mut self, inputs: &[Tensor<u64>]) -> Result<Finished<Vec<Tensor<u64>>>, Error> {
        let start = Instant::now();
        let output = self.party.run(&mut self.channel, inputs)?;
        let before = (self.handshake, self.offline);
        Ok(Finished::new(&mut self.channel, before, start.elapsed(), output))
    }
}

/// A run that came to its end.
pub struct Finished<T> {
    /// What the party learns.
    pub output: T,
    /// The agreement's traffic.
    pub handshake: Traffic,
    /// The correlations that were preprocessed for the run.
    pub offline: Offline,
    /// The online phase's traffic: [`Plan::messages`], byte for byte.
    pub online: Traffic,
    /// Time of the online phase.
    pub elapsed: Duration,
}

impl<T> Finished<T> {
    fn new<C: Channel>(
        channel: &mut Meter<C>,
        (handshake, offline): (Traffic, Offline),
        elapsed: Duration,
        output: T,
    ) -> Self {
        Self { output, handshake, offline, online: channel.take(), elapsed }
    }
}
