//! Agreement before anything else: both parties send one fixed-length hello, compare the two in the same
//! way, mark the same items as used, and confirm.
//!
//! ```text
//! hello    magic "polyrt\r\n" | version u16 | role u8 | 0 | batch u32 | plan digest 32 | tables 16 |
//!          deal id 16 | next serial u64 | number of items u64            integers are little endian
//! confirm  magic "agreed\r\n" | first serial u64
//! ```
//!
//! `batch` is party 1's number of inputs, and the most that party 0 accepts. `tables` is a digest of the
//! cosine tables, which both parties compute: were they to differ in one unit, so would the result.
//! As both hold both hellos, a mismatch gives the same line on both sides, without a message about it.

use crate::Error;
use crate::net::{Channel, NetError};
use crate::offline::{DealId, Offer, Role};
use crate::tables::TableDigest;
use ir::plan::Digest;
use std::ops::Range;

/// The version of the protocol on the wire.
pub const VERSION: u16 = 2;
/// The largest batch.
pub const MAX_BATCH: u32 = 4096;

const HELLO_MAGIC: &[u8; 8] = b"polyrt\r\n";
const CONFIRM_MAGIC: &[u8; 8] = b"agreed\r\n";
const HELLO_BYTES: usize = 8 + 2 + 1 + 1 + 4 + 32 + 16 + 16 + 8 + 8;

/// What the parties do not agree on; the same line on both sides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgreementError {
    /// The peer is another program.
    #[error("the peer does not speak polyrt's protocol: it began with {0:?}")]
    Magic(String),
    /// Another protocol version.
    #[error("party 0 speaks protocol version {0}, party 1 version {1}")]
    Version(u16, u16),
    /// Both play the same part.
    #[error("both sides are {0}, expected party 0 and party 1")]
    Role(Role),
    /// Different plans.
    #[error("party 0 has plan {0}, party 1 has plan {1}: both need the same plan.bin")]
    Plan(Digest, Digest),
    /// Cosine tables that differ.
    #[error(
        "party 0 computes cosine tables {0}, party 1 computes {1}: build both from one release"
    )]
    Tables(TableDigest, TableDigest),
    /// Halves of different deals.
    #[error(
        "party 0 has correlations of deal {0}, party 1 of deal {1}: both need halves of one deal"
    )]
    Deal(DealId, DealId),
    /// Party 1 brings no input, or more than party 0 accepts.
    #[error("party 1 has {1} inputs, party 0 accepts 1 to {0}")]
    Batch(u32, u32),
    /// Too few items.
    #[error(
        "party 0 has {0} of {1} correlations left, party 1 {2} of {3}, and {4} are needed: deal new ones"
    )]
    Exhausted(u64, u64, u64, u64, u32),
    /// The confirmations differ.
    #[error("party 0 confirmed item {0}, party 1 item {1}")]
    Confirmation(u64, u64),
}

/// What a party says about itself.
#[derive(Clone, Copy)]
pub struct Hello {
    /// The version of the protocol.
    pub version: u16,
    /// Number of inputs (party 1), or the most that are accepted (party 0).
    pub batch: u32,
    /// Digest of the cosine tables.
    pub tables: TableDigest,
    /// Plan, deal and serials.
    pub offer: Offer,
}

impl Hello {
    /// The bytes on the wire.
    pub fn to_bytes(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = Vec::with_capacity(HELLO_BYTES);
        bytes.extend_from_slice(HELLO_MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&[self.offer.role as u8, 0]);
        bytes.extend_from_slice(&self.batch.to_le_bytes());
        bytes.extend_from_slice(&self.offer.plan.0);
        bytes.extend_from_slice(&self.tables.0);
        bytes.extend_from_slice(&self.offer.deal.0);
        bytes.extend_from_slice(&self.offer.next.to_le_bytes());
        bytes.extend_from_slice(&self.offer.count.to_le_bytes());
        let mut hello = [0; HELLO_BYTES];
        hello.copy_from_slice(&bytes);
        hello
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (part, rest) = bytes.split_first_chunk::<N>()?;
            *bytes = rest;
            Some(*part)
        }
        let rest = &mut &bytes[..];
        let version = u16::from_le_bytes(take(rest)?);
        let [role, _] = take(rest)?;
        let batch = u32::from_le_bytes(take(rest)?);
        let plan = Digest(take(rest)?);
        let tables = TableDigest(take(rest)?);
        let deal = DealId(take(rest)?);
        let next = u64::from_le_bytes(take(rest)?);
        let count = u64::from_le_bytes(take(rest)?);
        let role = if role == 0 { Role::Party0 } else { Role::Party1 };
        Some(Self { version, batch, tables, offer: Offer { role, plan, deal, next, count } })
    }
}

/// Exchanges hellos and decides which serials the run uses up. Nothing is marked yet.
///
/// # Errors
/// If the peer is gone, speaks another protocol, or the two do not agree.
pub fn exchange(channel: &mut impl Channel, own: &Hello) -> Result<Agreement, Error> {
    let net = |during: &'static str| move |cause: NetError| Error::net(during, cause);
    channel.send(&own.to_bytes()).map_err(net("sending the hello"))?;
    let magic = channel.receive(HELLO_MAGIC.len()).map_err(net("waiting for the peer's hello"))?;
    if magic != HELLO_MAGIC {
        let text = String::from_utf8_lossy(&magic).into_owned();
        return Err(AgreementError::Magic(text).into());
    }
    let rest = channel.receive(HELLO_BYTES - HELLO_MAGIC.len());
    let rest = rest.map_err(net("waiting for the peer's hello"))?;
    let Some(peer) = Hello::parse(&rest) else { unreachable!("hellos have a fixed length") };
    let (party0, party1) = match own.offer.role {
        Role::Party0 => (own, &peer),
        Role::Party1 => (&peer, own),
    };
    Ok(compare(own.offer.role, &peer, party0, party1)?)
}

/// What both parties agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Number of inputs.
    pub batch: usize,
    /// The items of this run.
    pub serials: Range<u64>,
}

fn compare(
    own: Role,
    peer: &Hello,
    party0: &Hello,
    party1: &Hello,
) -> Result<Agreement, AgreementError> {
    let (a, b) = (&party0.offer, &party1.offer);
    if party0.version != party1.version {
        return Err(AgreementError::Version(party0.version, party1.version));
    }
    if peer.offer.role == own {
        return Err(AgreementError::Role(own));
    }
    if a.plan != b.plan {
        return Err(AgreementError::Plan(a.plan, b.plan));
    }
    if party0.tables != party1.tables {
        return Err(AgreementError::Tables(party0.tables, party1.tables));
    }
    if a.deal != b.deal {
        return Err(AgreementError::Deal(a.deal, b.deal));
    }
    let batch = party1.batch;
    if batch == 0 || batch > party0.batch.min(MAX_BATCH) {
        return Err(AgreementError::Batch(party0.batch.min(MAX_BATCH), batch));
    }
    let start = a.next.max(b.next);
    let end = start.saturating_add(batch.into());
    if end > a.count.min(b.count) {
        let left = |offer: &Offer| offer.count.saturating_sub(offer.next);
        return Err(AgreementError::Exhausted(left(a), a.count, left(b), b.count, batch));
    }
    Ok(Agreement { batch: batch as usize, serials: start..end })
}

/// Tells the peer that the items are marked, and waits for it to say the same.
///
/// # Errors
/// If the peer is gone or confirms other items.
pub fn confirm(channel: &mut impl Channel, role: Role, first: u64) -> Result<(), Error> {
    let mut own = CONFIRM_MAGIC.to_vec();
    own.extend_from_slice(&first.to_le_bytes());
    let during = "confirming the correlations";
    channel.send(&own).map_err(|e| Error::net(during, e))?;
    let peer = channel.receive(own.len()).map_err(|e| Error::net(during, e))?;
    if peer[..8] != CONFIRM_MAGIC[..] {
        return Err(AgreementError::Magic(String::from_utf8_lossy(&peer[..8]).into_owned()).into());
    }
    let other = peer[8..].iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    if other != first {
        let (a, b) = if role == Role::Party0 { (first, other) } else { (other, first) };
        return Err(AgreementError::Confirmation(a, b).into());
    }
    Ok(())
}
