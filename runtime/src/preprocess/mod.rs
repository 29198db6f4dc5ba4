//! Correlated randomness: what the steps need of it, who preprocesses it, and the store that gives each
//! item out once; an *item* is the preprocessing record of one inference. Online code takes correlations from
//! [`item::Party0Item`] and [`item::Party1Item`], and does not see whether a dealer made them or the two parties did.

pub mod dealer;
pub mod expand;
#[cfg(test)]
mod growing_tests;
pub mod item;
pub mod masks;
pub mod parties;
pub mod rlwe;
pub mod store;
#[cfg(test)]
mod store_tests;
pub mod transfer;

use ir::plan::{Commitment, Digest, Weights};
use item::Origin;
use std::fmt;
use std::ops::Range;

/// The two parties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The model's owner.
    Party0,
    /// The input's owner.
    Party1,
}

impl Role {
    /// The peer's role.
    pub fn other(self) -> Self {
        match self {
            Self::Party0 => Self::Party1,
            Self::Party1 => Self::Party0,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Party0 => "party 0",
            Self::Party1 => "party 1",
        })
    }
}

/// Why one-time material was not given out.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// Asked for twice.
    #[error("step v{0} asked for its correlation twice")]
    Spent(usize),
    /// A kind of step that does not use it.
    #[error("step v{0} asked for a correlation of another kind")]
    Kind(usize),
    /// It is not what a party stores.
    #[error("the stored correlation of step v{0} is malformed")]
    Malformed(usize),
    /// It stands in a file that cannot be read.
    #[error(transparent)]
    Store(#[from] store::StoreError),
}

/// Identifies a set of items that were made together; both parties' halves carry the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DealId(pub [u8; 16]);

impl fmt::Display for DealId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Debug for DealId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The network that a party runs: the plan, and the weights at party 0, which has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The plan's digest.
    pub plan: Digest,
    /// The commitment to the weights.
    pub weights: Option<Commitment>,
}

impl Network {
    /// Party 0's.
    pub fn of_party0(plan: Digest, weights: &Weights) -> Self {
        Self { plan, weights: Some(weights.commitment()) }
    }

    /// Party 1's.
    pub fn of_party1(plan: Digest) -> Self {
        Self { plan, weights: None }
    }
}

/// What a party can offer, as the handshake compares it.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Whose halves these are.
    pub role: Role,
    /// Who made them.
    pub origin: Origin,
    /// The plan that they were made for.
    pub plan: Digest,
    /// Party 0: the weights that it has. Party 1: those that its items were made with, if it has a file.
    pub weights: Option<Commitment>,
    /// Party 0: whether its items were made with other weights.
    pub is_stale: bool,
    /// The set that they belong to.
    pub deal: DealId,
    /// The first unused serial.
    pub next: u64,
    /// The first serial behind it that is used or not there.
    pub count: u64,
    /// The number of records: where new ones begin.
    pub length: u64,
}

/// Where a party's items come from.
pub trait Supply {
    /// The material of one inference.
    type Material;

    /// What is there.
    fn offer(&self) -> Offer;

    /// Uses up every serial before `serials.end`, durably, and only then hands out those in `serials`;
    /// nothing if there are none.
    ///
    /// # Errors
    /// If a serial was used before or there are not as many, if the mark could not be made durable, or
    /// if an item is damaged (it stays used).
    fn claim(&mut self, serials: Range<u64>) -> Result<Vec<Self::Material>, store::StoreError>;
}
