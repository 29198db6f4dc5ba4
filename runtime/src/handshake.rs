//! Agreement before anything else: both parties send one fixed-length hello, compare the two in the same
//! way, mark the same items as used, and confirm.
//!
//! ```text
//! hello    magic "polyrt\r\n" | version u16 | role u8 | flags u8 | batch u32 | plan digest 32 | tables 16 |
//!          deal id 16 | next serial u64 | number of items u64 | weights 32    integers are little endian
//!          flags: 1 the two parties make correlations, 2 to keep them, 4 its items may be replaced,
//!          8 (party 0) its items were made with other weights
//! confirm  magic "agreed\r\n" | first serial u64
//! ```
//!
//! The number of items is where the run of unused ones ends, and to prepare where new ones begin. `batch` is
//! party 1's number of inputs (or of items to prepare), and the most that party 0 accepts. `tables` is a digest of the
//! cosine tables, which both parties compute: were they to differ in one unit, so would the result. `weights` is
//! the [commitment](ir::plan::Weights::commitment) to party 0's weights; at party 1 to those that its items were
//! made with, or zeros.
//! As both hold both hellos, a mismatch gives the same line on both sides, without a message about it.

use crate::Error;
use crate::net::{Channel, NOT_TLS};
use crate::preprocess::item::Origin;
use crate::preprocess::{DealId, Offer, Role};
use crate::steps::TableDigest;
use ir::plan::{Commitment, Digest};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::ops::Range;

/// The version of the protocol on the wire.
pub const VERSION: u16 = 3;
/// The largest batch.
pub const MAX_BATCH: u32 = 4096;

const HELLO_MAGIC: &[u8; 8] = b"polyrt\r\n";
const CONFIRM_MAGIC: &[u8; 8] = b"agreed\r\n";
/// How a handshake of TLS begins.
const TLS_RECORD: [u8; 2] = [22, 3];
/// Bytes of a hello.
pub const HELLO_BYTES: usize = 8 + 2 + 1 + 1 + 4 + 32 + 16 + 16 + 8 + 8 + 32;

/// What the parties do not agree on; the same line on both sides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgreementError {
    /// The peer is another program.
    #[error("the peer does not speak polyrt's protocol: it began with {0:?}")]
    Magic(String),
    /// The peer encrypts, or expects it.
    #[error("the peer speaks TLS, this side does not: start both with --key and --peer-cert")]
    Tls,
    /// A role or a flag that this version does not know.
    #[error("the peer's hello is malformed: was it built from another version?")]
    Malformed,
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
    /// One has a dealer's correlations, the other makes them with its peer.
    #[error(
        "party 0 uses correlations made by {0}, party 1 by {1}: give both --dealer-correlations, or neither"
    )]
    Origin(Origin, Origin),
    /// One prepares, the other runs.
    #[error("party 0 {0} and party 1 {1}: start the same command at both")]
    Purpose(Purpose, Purpose),
    /// Stores that were not filled together, with unused items.
    #[error(
        "party 0's store is of deal {0}, party 1's of deal {1}: neither can use the other's items; add --force at both to start anew"
    )]
    Stores(DealId, DealId),
    /// A store that has fewer items than the other one used: it is an old copy.
    #[error(
        "party 0 has {0} items, party 1 has {1}, and {2} are used up: one store is an old copy; add --force at both to start anew"
    )]
    OldCopy(u64, u64, u64),
    /// Items that were made with other weights.
    #[error("{of} for other weights than party 0 has now: {}", remedy(*origin))]
    Weights {
        /// Whose they are.
        of: Stale,
        /// Who made them.
        origin: Origin,
    },
    /// Halves of different deals.
    #[error(
        "party 0 has correlations of deal {0}, party 1 of deal {1}: both need halves of one deal"
    )]
    Deal(DealId, DealId),
    /// Party 1 brings no input, or more than party 0 accepts.
    #[error("party 1 has {1} inputs, party 0 accepts 1 to {0}")]
    Batch(u32, u32),
    /// Too few items of a dealer.
    #[error(
        "party 0 has {0} of {1} correlations left, party 1 {2} of {3}, and {4} are needed: deal new ones"
    )]
    Exhausted(u64, u64, u64, u64, u32),
    /// The confirmations differ.
    #[error("party 0 confirmed item {0}, party 1 item {1}")]
    Confirmation(u64, u64),
}

impl AgreementError {
    /// Whether a party must bring something else: its files do not fit.
    pub fn is_bad_file(&self) -> bool {
        matches!(self, Self::Weights { .. })
    }
}

/// Whose items were made with other weights than party 0's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Party 0's.
    Party0,
    /// Party 1's.
    Party1,
    /// Both parties'.
    Both,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Party0 => "party 0's correlations are",
            Self::Party1 => "party 1's correlations are",
            Self::Both => "both parties' correlations are",
        })
    }
}

fn remedy(origin: Origin) -> &'static str {
    match origin {
        Origin::Dealer => "deal new ones (`polyrt deal --force`)",
        Origin::Parties => "make new ones by `polyrt prepare` with --force at both",
    }
}

/// What the parties came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run the plan.
    Run,
    /// To prepare correlations and keep them.
    Prepare,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "runs",
            Self::Prepare => "prepares",
        })
    }
}

/// What a party says about itself.
#[derive(Clone, Copy)]
pub struct Hello {
    /// Number of inputs (party 1), or the most that are accepted (party 0).
    pub batch: u32,
    /// Digest of the cosine tables.
    pub tables: TableDigest,
    /// What it came for.
    pub purpose: Purpose,
    /// Whether unused items may be replaced.
    pub is_replaceable: bool,
    /// Plan, deal and serials.
    pub offer: Offer,
}

impl Hello {
    /// The bytes on the wire.
    pub fn to_bytes(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = Vec::with_capacity(HELLO_BYTES);
        bytes.extend_from_slice(HELLO_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let flags = u8::from(self.offer.origin == Origin::Parties)
            | u8::from(self.purpose == Purpose::Prepare) << 1
            | u8::from(self.is_replaceable) << 2
            | u8::from(self.offer.is_stale) << 3;
        bytes.extend_from_slice(&[self.offer.role as u8, flags]);
        bytes.extend_from_slice(&self.batch.to_le_bytes());
        bytes.extend_from_slice(&self.offer.plan.0);
        bytes.extend_from_slice(&self.tables.0);
        bytes.extend_from_slice(&self.offer.deal.0);
        bytes.extend_from_slice(&self.offer.next.to_le_bytes());
        let count = match self.purpose {
            Purpose::Run => self.offer.count,
            Purpose::Prepare => self.offer.length,
        };
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&self.offer.weights.map_or([0; 32], |weights| weights.0));
        let mut hello = [0; HELLO_BYTES];
        hello.copy_from_slice(&bytes);
        hello
    }

    /// Reads what follows magic and version.
    fn parse(bytes: &[u8]) -> Option<Self> {
        fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (part, rest) = bytes.split_first_chunk::<N>()?;
            *bytes = rest;
            Some(*part)
        }
        let rest = &mut &bytes[..];
        let [role, flags] = take(rest)?;
        let batch = u32::from_le_bytes(take(rest)?);
        let plan = Digest(take(rest)?);
        let tables = TableDigest(take(rest)?);
        let deal = DealId(take(rest)?);
        let next = u64::from_le_bytes(take(rest)?);
        let count = u64::from_le_bytes(take(rest)?);
        let weights = Some(Commitment(take(rest)?)).filter(|weights| weights.0 != [0; 32]);
        let role = match role {
            0 => Role::Party0,
            1 => Role::Party1,
            _ => return None,
        };
        let is_stale = flags & 8 != 0;
        let is_odd = match role {
            Role::Party0 => weights.is_none(),
            Role::Party1 => is_stale,
        };
        if flags > 15 || is_odd {
            return None;
        }
        let origin = if flags & 1 == 0 { Origin::Dealer } else { Origin::Parties };
        let purpose = if flags & 2 == 0 { Purpose::Run } else { Purpose::Prepare };
        let length = count;
        let offer = Offer { role, origin, plan, weights, is_stale, deal, next, count, length };
        Some(Self { batch, tables, purpose, is_replaceable: flags & 4 != 0, offer })
    }
}

/// What a peer said about itself.
#[derive(Clone, Copy)]
pub enum Heard {
    /// A hello of this version.
    Hello(Hello),
    /// That it speaks another version, whose hello may be a longer or a shorter one.
    Version(u16),
}

/// Receives the peer's hello.
///
/// # Errors
/// If the peer is gone, or what it says is none.
pub fn hear(channel: &mut impl Channel) -> Result<Heard, Error> {
    let mut next = |bytes| {
        let part = channel.receive(bytes);
        part.map_err(|cause| Error::net("waiting for the peer's hello", cause))
    };
    let magic = next(HELLO_MAGIC.len())?;
    if magic != HELLO_MAGIC {
        return Err(foreign(&magic).into());
    }
    let version = next(2)?;
    let version = u16::from_le_bytes([version[0], version[1]]);
    if version != VERSION {
        return Ok(Heard::Version(version));
    }
    let rest = next(HELLO_BYTES - HELLO_MAGIC.len() - 2)?;
    Ok(Heard::Hello(Hello::parse(&rest).ok_or(AgreementError::Malformed)?))
}

/// Tells the peer who we are.
///
/// # Errors
/// If the peer is gone.
pub fn greet(channel: &mut impl Channel, own: &Hello) -> Result<(), Error> {
    channel.send(&own.to_bytes()).map_err(|cause| Error::net("sending the hello", cause))
}

/// Exchanges hellos and decides which serials the run uses up. Nothing is marked yet. Party 1 speaks first, so
/// that party 0 does nothing for a peer that says nothing.
///
/// # Errors
/// If the peer is gone, speaks another protocol, or the two do not agree.
pub fn exchange(channel: &mut impl Channel, own: &Hello) -> Result<Agreement, Error> {
    match own.offer.role {
        Role::Party0 => {
            let heard = admit(channel, own)?;
            answer(channel, own, &heard)
        }
        Role::Party1 => {
            greet(channel, own)?;
            Ok(compare(own, &hear(channel)?)?)
        }
    }
}

/// Party 0's side of [`exchange`] up to what it has to open items for: hears the peer, and tells one that does
/// not fit who we are, so that it can say why.
///
/// # Errors
/// If the peer is gone, speaks another protocol, or does not fit.
pub fn admit(channel: &mut impl Channel, own: &Hello) -> Result<Heard, Error> {
    let fitting = |heard| fit(own, &heard).map(|_| heard).map_err(Error::from);
    let heard = hear(channel).and_then(fitting);
    if let Err(Error::Agreement(_)) = heard {
        // A peer that is gone cannot be told.
        let _ = greet(channel, own);
    }
    heard
}

/// Party 0's side of [`exchange`] once it has heard the peer.
///
/// # Errors
/// As [`exchange`].
pub fn answer(channel: &mut impl Channel, own: &Hello, heard: &Heard) -> Result<Agreement, Error> {
    greet(channel, own)?;
    Ok(compare(own, heard)?)
}

/// What a greeting tells of a program that is not ours, or not as we expect it.
fn foreign(magic: &[u8]) -> AgreementError {
    if magic == NOT_TLS || magic.starts_with(&TLS_RECORD) {
        return AgreementError::Tls;
    }
    AgreementError::Magic(String::from_utf8_lossy(magic).into_owned())
}

/// What both parties agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Number of inputs, or of items to prepare.
    pub batch: usize,
    /// The stored items that are used up; when preparing, where new ones begin.
    pub serials: Range<u64>,
    /// How many items the parties preprocess now.
    pub fresh: usize,
    /// The deal of the stored items.
    pub deal: DealId,
    /// The weights of the items: party 0's.
    pub weights: Commitment,
}

/// Whether two parties fit, as far as that can be said without their items: both hellos, party 0's first.
///
/// # Errors
/// If they do not.
pub fn fit(own: &Hello, heard: &Heard) -> Result<[Hello; 2], AgreementError> {
    let role = own.offer.role;
    let peer = match heard {
        Heard::Hello(hello) => hello,
        Heard::Version(other) => {
            let (a, b) = if role == Role::Party0 { (VERSION, *other) } else { (*other, VERSION) };
            return Err(AgreementError::Version(a, b));
        }
    };
    if peer.offer.role == role {
        return Err(AgreementError::Role(role));
    }
    let hellos = if role == Role::Party0 { [*own, *peer] } else { [*peer, *own] };
    let [party0, party1] = &hellos;
    let (a, b) = (&party0.offer, &party1.offer);
    if a.plan != b.plan {
        return Err(AgreementError::Plan(a.plan, b.plan));
    }
    if party0.tables != party1.tables {
        return Err(AgreementError::Tables(party0.tables, party1.tables));
    }
    if a.origin != b.origin {
        return Err(AgreementError::Origin(a.origin, b.origin));
    }
    if party0.purpose != party1.purpose {
        return Err(AgreementError::Purpose(party0.purpose, party1.purpose));
    }
    let (most, batch) = (party0.batch.min(MAX_BATCH), party1.batch);
    if batch == 0 || batch > most {
        return Err(AgreementError::Batch(most, batch));
    }
    Ok(hellos)
}

/// Whose items were made with other weights than party 0 has; items that are used up do not count in a run.
fn stale(party0: &Hello, party1: &Hello) -> Option<Stale> {
    let (a, b) = (&party0.offer, &party1.offer);
    let counts = |offer: &Offer| party0.purpose == Purpose::Prepare || offer.next < offer.count;
    let is_other = b.weights.is_some() && b.weights != a.weights;
    match (a.is_stale && counts(a), is_other && counts(b)) {
        (true, true) => Some(Stale::Both),
        (true, false) => Some(Stale::Party0),
        (false, true) => Some(Stale::Party1),
        (false, false) => None,
    }
}

fn compare(own: &Hello, heard: &Heard) -> Result<Agreement, AgreementError> {
    let [party0, party1] = fit(own, heard)?;
    let (a, b) = (&party0.offer, &party1.offer);
    let weights = a.weights.ok_or(AgreementError::Malformed)?;
    let (batch, size) = (party1.batch, party1.batch as usize);
    let agreed =
        |serials: Range<u64>, fresh, deal| Agreement { batch: size, serials, fresh, deal, weights };
    let stale = stale(&party0, &party1);
    let of_other_weights = stale.map(|of| AgreementError::Weights { of, origin: a.origin });
    if party0.purpose == Purpose::Prepare {
        let (end, used) = (a.length.min(b.length), a.next.max(b.next));
        // Below the marks, new items would stand under serials that a second old copy has as well.
        if a.deal == b.deal && used <= end && stale.is_none() {
            return Ok(agreed(end..end, size, a.deal));
        }
        if !party0.is_replaceable || !party1.is_replaceable {
            return Err(of_other_weights.unwrap_or(match a.deal == b.deal {
                true => AgreementError::OldCopy(a.length, b.length, used),
                false => AgreementError::Stores(a.deal, b.deal),
            }));
        }
        let both = Sha256::new().chain_update(a.deal.0).chain_update(b.deal.0).finalize();
        let mut deal = DealId([0; 16]);
        deal.0.copy_from_slice(&both[..16]);
        return Ok(agreed(0..0, size, deal));
    }
    if let Some(error) = of_other_weights {
        return Err(error);
    }
    let start = a.next.max(b.next);
    let end = start.saturating_add(batch.into());
    let available = a.count.min(b.count);
    if a.origin == Origin::Parties {
        let end = if a.deal == b.deal { end.min(available).max(start) } else { start };
        let fresh = size - (end - start) as usize;
        return Ok(agreed(start..end, fresh, a.deal));
    }
    if a.deal != b.deal {
        return Err(AgreementError::Deal(a.deal, b.deal));
    }
    if end > available {
        let left = |offer: &Offer| offer.count.saturating_sub(offer.next);
        return Err(AgreementError::Exhausted(left(a), a.count, left(b), b.count, batch));
    }
    Ok(agreed(start..end, 0, a.deal))
}

/// Tells the peer that the items are marked, and waits for it to say the same. From here on the parties may
/// compute for long, so they keep each other alive.
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
    channel.keep_alive().map_err(|e| Error::net(during, e))
}
