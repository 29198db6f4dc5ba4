//! A party's correlation file: each item is given out once.
//!
//! ```text
//! header   ir::plan::seal(Magic::Correlations, Header): magic "polycorr", format version, tool version,
//!          length, SHA-256, then role, who made it, plan digest, deal id, items of a dealt file, bytes per
//!          item
//! records  per item: state (1 byte: 1 unused, 2 used), the item's bytes, then SHA-256 over deal id, role,
//!          serial and the item's bytes
//! ```
//!
//! A dealt file is written whole and appears under its name then. A file of the two parties grows:
//! [`Store::append`] makes one record durable at a time, so that a crash loses at most the record that was
//! being written, which the next opening leaves out. The serial of an item is its place in the file; the
//! two parties' files have the same deal id, and what one of them lost or used, neither uses. Before both
//! append, the longer file is cut to the shorter one's length, unless that is below the other's marks: then
//! one of them is an old copy, and the parties refuse.
//!
//! Items are used in the order of their serials. A mark is on disk ([`File::sync_data`]) before the item
//! is read, so that a crash at any point loses items and never uses one twice. What was read is
//! overwritten with zeros: a file that is stolen later does not open recorded runs (as far as the file
//! system overwrites in place). An open file is locked against a second process. An old copy that is put
//! back at one party does no harm, for the other party's marks count as well; old copies at both parties
//! are what nothing here can see: never restore correlation files from a backup.

use super::item::{Item, Origin, Party0Item, Party1Item, item_bytes};
use super::{DealId, Offer, Role, Supply};
use ir::plan::{Digest, FileError, Magic, Plan, open_prefix, seal};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes of an item's checksum.
const CHECKSUM: usize = 32;
/// More than any header has.
const MAX_HEADER: u64 = 4096;
/// The largest number of items of a file.
pub const MAX_ITEMS: u64 = 1 << 24;

/// Why correlations were not given out.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{path}: {cause}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// Not a correlation file, or a damaged one.
    #[error("{path} {cause}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        cause: FileError,
    },
    /// The other party's half.
    #[error("{path} holds the correlations of {found}, expected those of {expected}")]
    Role {
        /// The file.
        path: String,
        /// Whose it is.
        found: Role,
        /// Who asked.
        expected: Role,
    },
    /// Made for another plan.
    #[error("{path} was made for plan {found}, this is plan {expected}")]
    Plan {
        /// The file.
        path: String,
        /// The plan in the file.
        found: Digest,
        /// The plan that is to run.
        expected: Digest,
    },
    /// Made by others than expected.
    #[error("{path} holds correlations made by {found}, expected those made by {expected}")]
    Origin {
        /// The file.
        path: String,
        /// Who made them.
        found: Origin,
        /// Who was asked for.
        expected: Origin,
    },
    /// Another process has it open.
    #[error("{0} is in use by another process")]
    Locked(String),
    /// The file does not have the length that its header says.
    #[error("{path} is damaged: it has {found} bytes, expected {expected}")]
    Length {
        /// The file.
        path: String,
        /// Bytes that are there.
        found: u64,
        /// Bytes that should be there.
        expected: u64,
    },
    /// An item's checksum does not match.
    #[error(
        "{path}: item {serial} is damaged: its checksum does not match; it is marked as used, run again"
    )]
    Item {
        /// The file.
        path: String,
        /// The item.
        serial: u64,
    },
    /// Serials that are used or not there.
    #[error("items {} to {} were asked for, {} to {} of {count} are left", wanted.start, wanted.end, next, count)]
    Serials {
        /// What was asked for.
        wanted: Range<u64>,
        /// The first unused serial.
        next: u64,
        /// The number of items.
        count: u64,
    },
}

impl StoreError {
    /// Whether the file is not one that could be used, as opposed to a failure on the way.
    pub fn is_bad_file(&self) -> bool {
        match self {
            Self::File { .. }
            | Self::Role { .. }
            | Self::Plan { .. }
            | Self::Origin { .. }
            | Self::Length { .. } => true,
            Self::Io { .. } | Self::Locked(_) | Self::Item { .. } | Self::Serials { .. } => false,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    role: u8,
    /// 0: a dealer, 1: the two parties.
    origin: u8,
    plan: Digest,
    deal: [u8; 16],
    /// Items of a dealt file; 0 in a file that grows.
    count: u64,
    item_bytes: u64,
}

impl Header {
    fn origin(&self) -> Origin {
        if self.origin == 0 { Origin::Dealer } else { Origin::Parties }
    }

    fn role(&self) -> Role {
        if self.role == 0 { Role::Party0 } else { Role::Party1 }
    }
}

/// States of a record.
const UNUSED: u8 = 1;
const USED: u8 = 2;

/// One party's file of a pair that is being written. It appears under its name when [`Self::finish`]ed.
pub struct StoreWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    role: Role,
    deal: DealId,
    next: u64,
    count: u64,
    item_bytes: usize,
    finished: bool,
}

impl StoreWriter {
    /// Starts a file for `count` items of `role`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(
        path: &Path,
        role: Role,
        plan: &Plan,
        digest: Digest,
        deal: DealId,
        count: u64,
    ) -> Result<Self, StoreError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let item_bytes = item_bytes(plan, role, Origin::Dealer);
        let header = Header {
            role: role as u8,
            origin: 0,
            plan: digest,
            deal: deal.0,
            count,
            item_bytes: item_bytes as u64,
        };
        let (bytes, _) = seal(Magic::Correlations, &header);
        let write = || {
            let mut file = private_file(&temporary)?;
            file.write_all(&bytes)?;
            Ok(file)
        };
        let file = write().map_err(io_error(&temporary))?;
        let path = path.to_owned();
        let finished = false;
        Ok(Self { path, temporary, file, role, deal, next: 0, count, item_bytes, finished })
    }

    /// Appends the next item.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Panics
    /// If the item has another length than the plan's, or there are more items than announced.
    pub fn append(&mut self, item: &[u8]) -> Result<(), StoreError> {
        assert!(item.len() == self.item_bytes && self.next < self.count, "items of one plan");
        let record = record(self.deal, self.role, self.next, item);
        self.file.write_all(&record).map_err(io_error(&self.temporary))?;
        self.next += 1;
        Ok(())
    }

    /// Makes the file durable and moves it to its name.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(io_error(&self.temporary))?;
        std::fs::rename(&self.temporary, &self.path).map_err(io_error(&self.path))?;
        self.finished = true;
        sync_directory(&self.path)
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// One party's opened and locked correlation file.
pub struct Store<'a, M> {
    path: PathBuf,
    file: File,
    plan: &'a Plan,
    offer: Offer,
    records_at: u64,
    item_bytes: usize,
    material: fn(&'a Plan, Item) -> Option<M>,
}

impl<'a> Store<'a, Party0Item<'a>> {
    /// Opens and locks party 0's file.
    ///
    /// # Errors
    /// If it is not party 0's file for this plan, made by `origin`, is damaged, or in use.
    pub fn open_party0(
        path: &Path,
        plan: &'a Plan,
        digest: Digest,
        origin: Origin,
    ) -> Result<Self, StoreError> {
        Self::open(path, plan, (Role::Party0, digest, origin), Party0Item::new)
    }
}

impl<'a> Store<'a, Party1Item<'a>> {
    /// Opens and locks party 1's file.
    ///
    /// # Errors
    /// If it is not party 1's file for this plan, made by `origin`, is damaged, or in use.
    pub fn open_party1(
        path: &Path,
        plan: &'a Plan,
        digest: Digest,
        origin: Origin,
    ) -> Result<Self, StoreError> {
        Self::open(path, plan, (Role::Party1, digest, origin), Party1Item::new)
    }
}

/// Starts a file that grows, without items, under its name; an old one is replaced.
///
/// # Errors
/// If the operating system refuses.
pub fn create_growing(
    path: &Path,
    role: Role,
    plan: &Plan,
    digest: Digest,
    deal: DealId,
) -> Result<(), StoreError> {
    let item_bytes = item_bytes(plan, role, Origin::Parties) as u64;
    let header =
        Header { role: role as u8, origin: 1, plan: digest, deal: deal.0, count: 0, item_bytes };
    let (bytes, _) = seal(Magic::Correlations, &header);
    let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
    // Of a process that was killed and had the same number.
    let _ = std::fs::remove_file(&temporary);
    let write = || {
        let mut file = private_file(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
        .map_err(io_error(path))?;
    sync_directory(path)
}

/// What a correlation file says about itself; nothing is locked.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Whose items they are.
    pub role: Role,
    /// Who made them.
    pub origin: Origin,
    /// The plan that they are for.
    pub plan: Digest,
    /// Their making.
    pub deal: DealId,
    /// Items in the file, and those of them that are unused.
    pub items: (u64, u64),
    /// Bytes of one item on disk.
    pub item_bytes: u64,
}

/// Reads what a correlation file holds.
///
/// # Errors
/// If it is none, or cannot be read.
pub fn list(path: &Path) -> Result<Listing, StoreError> {
    let mut file = File::open(path).map_err(io_error(path))?;
    let (header, records_at) = read_header(path, &mut file)?;
    let found = scan(&mut file, &header, records_at).map_err(io_error(path))?;
    Ok(Listing {
        role: header.role(),
        origin: header.origin(),
        plan: header.plan,
        deal: DealId(header.deal),
        items: (found.length, found.unused),
        item_bytes: record_bytes(&header),
    })
}

impl<'a, M> Store<'a, M> {
    fn open(
        path: &Path,
        plan: &'a Plan,
        (role, digest, origin): (Role, Digest, Origin),
        material: fn(&'a Plan, Item) -> Option<M>,
    ) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let io = io_error(path);
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(&io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(name)),
            Err(TryLockError::Error(cause)) => return Err(io(cause)),
        }
        let (header, records_at) = read_header(path, &mut file)?;
        if header.role() != role {
            return Err(StoreError::Role { path: name, found: header.role(), expected: role });
        }
        if header.plan != digest {
            return Err(StoreError::Plan { path: name, found: header.plan, expected: digest });
        }
        if header.origin() != origin {
            let found = header.origin();
            return Err(StoreError::Origin { path: name, found, expected: origin });
        }
        let item_bytes = item_bytes(plan, role, origin);
        let length = file.metadata().map_err(&io)?.len();
        let expected = header
            .count
            .min(MAX_ITEMS)
            .saturating_mul(record_bytes(&header))
            .saturating_add(records_at);
        let is_whole = origin == Origin::Parties || length == expected;
        if !is_whole || header.count > MAX_ITEMS || header.item_bytes != item_bytes as u64 {
            return Err(StoreError::Length { path: name, found: length, expected });
        }
        let Found { next, end: count, length, .. } =
            scan(&mut file, &header, records_at).map_err(&io)?;
        let deal = DealId(header.deal);
        let offer = Offer { role, origin, plan: digest, deal, next, count, length };
        Ok(Self { path: path.to_owned(), file, plan, offer, records_at, item_bytes, material })
    }

    /// Leaves out items from `length` on: unused ones that the other party does not have.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn truncate(&mut self, length: u64) -> Result<(), StoreError> {
        let offer = &mut self.offer;
        offer.length = offer.length.min(length);
        offer.count = offer.count.min(length);
        offer.next = offer.next.min(length);
        let end = self.record_at(self.offer.length);
        let cut = self.file.set_len(end).and_then(|()| self.file.sync_all());
        cut.map_err(io_error(&self.path))
    }

    /// Appends an item and makes it durable; its serial is the number of items before.
    ///
    /// # Errors
    /// If the operating system refuses; the item is then not part of the file.
    ///
    /// # Panics
    /// If the item has another length than the plan's.
    pub fn append(&mut self, item: &[u8]) -> Result<(), StoreError> {
        let Offer { role, deal, length, .. } = self.offer;
        assert_eq!(item.len(), self.item_bytes, "items of one plan");
        let start = self.record_at(length);
        let record = record(deal, role, length, item);
        let write = |mut file: &File| {
            file.seek(SeekFrom::Start(start))?;
            file.write_all(&record)?;
            file.sync_data()
        };
        write(&self.file).map_err(|cause| {
            let _ = self.file.set_len(start);
            io_error(&self.path)(cause)
        })?;
        // Unless used records stand between, the run of unused ones grows.
        if self.offer.count == length {
            self.offer.count += 1;
        }
        self.offer.length += 1;
        Ok(())
    }

    /// Bytes of an item.
    pub fn item_bytes(&self) -> usize {
        self.item_bytes
    }

    fn record_at(&self, serial: u64) -> u64 {
        self.records_at + serial * (1 + self.item_bytes + CHECKSUM) as u64
    }

    fn mark(&mut self, serials: Range<u64>) -> io::Result<()> {
        for serial in serials {
            self.file.seek(SeekFrom::Start(self.record_at(serial)))?;
            self.file.write_all(&[USED])?;
        }
        self.file.sync_data()
    }

    fn read_item(&mut self, serial: u64) -> io::Result<(Item, [u8; CHECKSUM])> {
        let mut item = Zeroizing::new(vec![0; self.item_bytes]);
        let mut checksum = [0; CHECKSUM];
        self.file.seek(SeekFrom::Start(self.record_at(serial) + 1))?;
        self.file.read_exact(&mut item)?;
        self.file.read_exact(&mut checksum)?;
        Ok((item, checksum))
    }

    fn erase(&mut self, serials: Range<u64>) -> io::Result<()> {
        for serial in serials {
            self.file.seek(SeekFrom::Start(self.record_at(serial) + 1))?;
            let bytes = (self.item_bytes + CHECKSUM) as u64;
            io::copy(&mut io::repeat(0).take(bytes), &mut self.file)?;
        }
        self.file.sync_data()
    }
}

impl<M> Supply for Store<'_, M> {
    type Material = M;

    fn offer(&self) -> Offer {
        self.offer
    }

    fn claim(&mut self, serials: Range<u64>) -> Result<Vec<M>, StoreError> {
        if serials.is_empty() {
            return Ok(vec![]);
        }
        let Offer { role, deal, next, count, .. } = self.offer;
        if serials.start < next || serials.end > count {
            return Err(StoreError::Serials { wanted: serials, next, count });
        }
        let io = io_error(&self.path);
        self.mark(next..serials.end).map_err(&io)?;
        self.offer.next = serials.end;
        let mut materials = Vec::with_capacity((serials.end - serials.start) as usize);
        for serial in serials.clone() {
            let (item, stored) = self.read_item(serial).map_err(&io)?;
            let material = (checksum(deal, role, serial, &item) == stored)
                .then(|| (self.material)(self.plan, item))
                .flatten();
            let damaged = || StoreError::Item { path: self.path.display().to_string(), serial };
            materials.push(material.ok_or_else(damaged)?);
        }
        self.erase(next..serials.end).map_err(&io)?;
        Ok(materials)
    }
}

/// Items in memory, for both parties in one process.
pub struct MemorySupply<M> {
    offer: Offer,
    items: std::collections::VecDeque<M>,
}

impl<M> MemorySupply<M> {
    /// A supply of `items`, the first of which has serial 0.
    pub fn new(role: Role, plan: Digest, deal: DealId, items: Vec<M>) -> Self {
        let count = items.len() as u64;
        let origin = Origin::Dealer;
        let offer = Offer { role, origin, plan, deal, next: 0, count, length: count };
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
    pub fn new(role: Role, plan: Digest, deal: DealId) -> Self {
        let origin = Origin::Parties;
        let offer = Offer { role, origin, plan, deal, next: 0, count: 0, length: 0 };
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

fn record_bytes(header: &Header) -> u64 {
    header.item_bytes.saturating_add(1 + CHECKSUM as u64)
}

fn record(deal: DealId, role: Role, serial: u64, item: &[u8]) -> Item {
    let mut record = Zeroizing::new(Vec::with_capacity(1 + item.len() + CHECKSUM));
    record.push(UNUSED);
    record.extend_from_slice(item);
    record.extend_from_slice(&checksum(deal, role, serial, item));
    record
}

fn read_header(path: &Path, file: &mut File) -> Result<(Header, u64), StoreError> {
    let mut start = Vec::new();
    file.take(MAX_HEADER).read_to_end(&mut start).map_err(io_error(path))?;
    let (header, _, rest): (Header, _, _) = open_prefix(Magic::Correlations, &start)
        .map_err(|cause| StoreError::File { path: path.display().to_string(), cause })?;
    Ok((header, (start.len() - rest.len()) as u64))
}

/// What a file's records are.
struct Found {
    /// The first unused one.
    next: u64,
    /// The first behind it that is not unused.
    end: u64,
    /// Their number.
    length: u64,
    /// Unused ones in all.
    unused: u64,
}

/// Reads the states of all whole records. The last one of a file that grows may have been cut off by a
/// crash: it counts if it is marked as used, or its checksum matches.
fn scan(file: &mut File, header: &Header, records_at: u64) -> io::Result<Found> {
    let bytes = record_bytes(header);
    let whole = (file.metadata()?.len().saturating_sub(records_at) / bytes).min(MAX_ITEMS);
    let mut states = Vec::new();
    for serial in 0..whole {
        let mut state = [0];
        file.seek(SeekFrom::Start(records_at + serial * bytes))?;
        file.read_exact(&mut state)?;
        states.push(state[0]);
    }
    if header.origin() == Origin::Parties
        && let Some(&last) = states.last()
        && last != USED
    {
        let serial = states.len() as u64 - 1;
        let mut item = Zeroizing::new(vec![0; header.item_bytes as usize]);
        let mut stored = [0; CHECKSUM];
        file.seek(SeekFrom::Start(records_at + serial * bytes + 1))?;
        file.read_exact(&mut item)?;
        file.read_exact(&mut stored)?;
        let is_whole = checksum(DealId(header.deal), header.role(), serial, &item) == stored;
        if last != UNUSED || !is_whole {
            states.pop();
        }
    }
    let first = states.iter().position(|&s| s == UNUSED).unwrap_or(states.len());
    let run = states[first..].iter().take_while(|&&s| s == UNUSED).count();
    Ok(Found {
        next: first as u64,
        end: (first + run) as u64,
        length: states.len() as u64,
        unused: states.iter().filter(|&&s| s == UNUSED).count() as u64,
    })
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    match path.parent().filter(|d| !d.as_os_str().is_empty()) {
        Some(directory) => {
            File::open(directory).and_then(|d| d.sync_all()).map_err(io_error(directory))
        }
        None => Ok(()),
    }
}

fn checksum(deal: DealId, role: Role, serial: u64, item: &[u8]) -> [u8; CHECKSUM] {
    let hash = Sha256::new().chain_update(deal.0).chain_update([role as u8]);
    hash.chain_update(serial.to_le_bytes()).chain_update(item).finalize().into()
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.display().to_string();
    move |cause| StoreError::Io { path: path.clone(), cause }
}
