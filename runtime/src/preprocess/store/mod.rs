//! A party's correlation file: each item is given out once.
//!
//! ```text
//! header   ir::plan::seal(Magic::Correlations, Header): magic "polycorr", format version, tool version,
//!          length, SHA-256, then role, who made it, plan digest, commitment to the weights, deal id, items of
//!          a dealt file, bytes per item
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
//! system overwrites in place). Items of which many megabytes are claimed at once stay in the file while
//! they are used and are overwritten then, or by the next opening if the process ended before. An open file is locked against a second process. An old copy that is put
//! back at one party does no harm, for the other party's marks count as well; old copies at both parties
//! are what nothing here can see: never restore correlation files from a backup.

mod error;
mod memory;
mod records;
mod stored;
mod writer;

pub use error::StoreError;
pub use memory::{MemorySupply, NoSupply};
pub use records::MAX_ITEMS;
pub use stored::StoredItem;
pub use writer::StoreWriter;

use super::item::{Body, Origin, Party0Item, Party1Item, item_bytes};
use super::{DealId, Network, Offer, Role, Supply};
use error::io_error;
use ir::plan::{Commitment, Digest, Magic, Plan, seal};
use records::{
    CHECKSUM, Found, Header, USED, checksum, checksum_of, erase, erase_left, private_file,
    read_header, record, record_bytes, scan, sync_directory,
};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes of items that are read at once; a claim of more reads them as they are used.
const AT_ONCE: usize = 1 << 26;

/// One party's opened and locked correlation file.
pub struct Store<'a, M> {
    path: PathBuf,
    file: Arc<File>,
    plan: &'a Plan,
    offer: Offer,
    records_at: u64,
    item_bytes: usize,
    at_once: usize,
    material: fn(&'a Plan, Body) -> Option<M>,
}

impl<'a> Store<'a, Party0Item<'a>> {
    /// Opens and locks party 0's file. If its items were made with other weights than the network's, the
    /// offer says so.
    ///
    /// # Errors
    /// If it is not party 0's file for this plan, made by `origin`, is damaged, or in use.
    pub fn open_party0(
        path: &Path,
        plan: &'a Plan,
        network: Network,
        origin: Origin,
    ) -> Result<Self, StoreError> {
        Self::open(path, plan, (Role::Party0, network, origin), Party0Item::new)
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
        network: Network,
        origin: Origin,
    ) -> Result<Self, StoreError> {
        Self::open(path, plan, (Role::Party1, network, origin), Party1Item::new)
    }
}

/// Starts a file that grows, without items, for a plan and its weights, under its name; an old one is replaced.
///
/// # Errors
/// If the operating system refuses.
pub fn create_growing(
    path: &Path,
    role: Role,
    plan: &Plan,
    (digest, weights): (Digest, Commitment),
    deal: DealId,
) -> Result<(), StoreError> {
    let item_bytes = item_bytes(plan, role, Origin::Parties) as u64;
    let (role, deal) = (role as u8, deal.0);
    let header = Header { role, origin: 1, plan: digest, weights, deal, count: 0, item_bytes };
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
    /// The weights that they were made with.
    pub weights: Commitment,
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
        weights: header.weights,
        deal: DealId(header.deal),
        items: (found.length, found.unused),
        item_bytes: record_bytes(&header),
    })
}

impl<'a, M> Store<'a, M> {
    fn open(
        path: &Path,
        plan: &'a Plan,
        (role, network, origin): (Role, Network, Origin),
        material: fn(&'a Plan, Body) -> Option<M>,
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
        let expected = network.plan;
        if header.plan != expected {
            return Err(StoreError::Plan { path: name, found: header.plan, expected });
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
        erase_left(&mut file, &header, records_at, length).map_err(&io)?;
        let made_with = Some(header.weights);
        let weights = network.weights.or(made_with);
        let offer = Offer {
            role,
            origin,
            plan: header.plan,
            weights,
            is_stale: weights != made_with,
            deal: DealId(header.deal),
            next,
            count,
            length,
        };
        let (path, file) = (path.to_owned(), Arc::new(file));
        let at_once = AT_ONCE;
        Ok(Self { path, file, plan, offer, records_at, item_bytes, at_once, material })
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

    fn mark(&self, serials: Range<u64>) -> io::Result<()> {
        let mut file = &*self.file;
        for serial in serials {
            file.seek(SeekFrom::Start(self.record_at(serial)))?;
            file.write_all(&[USED])?;
        }
        file.sync_data()
    }

    /// Reads an item, or only sees that it is whole and leaves it in the file; `None` if it is damaged.
    fn read_item(&self, serial: u64, stays: bool) -> io::Result<Option<Body>> {
        let mut file = &*self.file;
        let at = self.record_at(serial) + 1;
        file.seek(SeekFrom::Start(at))?;
        let mut item = Zeroizing::new(vec![0; if stays { 0 } else { self.item_bytes }]);
        let Offer { role, deal, .. } = self.offer;
        let expected = if stays {
            checksum_of(deal, role, serial, file.take(self.item_bytes as u64))?
        } else {
            file.read_exact(&mut item)?;
            checksum(deal, role, serial, &item)
        };
        let mut stored = [0; CHECKSUM];
        file.read_exact(&mut stored)?;
        Ok((expected == stored).then(|| {
            if !stays {
                return Body::Memory(item);
            }
            let (path, file) = (self.path.clone(), self.file.clone());
            Body::Elsewhere(Box::new(StoredItem::new(path, file, at, self.item_bytes)))
        }))
    }

    /// Overwrites items with zeros; their checksums last, which say that it was done.
    fn erase(&self, serials: Range<u64>) -> io::Result<()> {
        let places = serials.map(|serial| self.record_at(serial) + 1);
        erase(&self.file, self.item_bytes, places)?;
        self.file.sync_data()
    }

    /// With another limit of what is read at once.
    #[cfg(test)]
    pub(super) fn reading_at_once(self, bytes: usize) -> Self {
        Self { at_once: bytes, ..self }
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
        let Offer { next, count, .. } = self.offer;
        if serials.start < next || serials.end > count {
            return Err(StoreError::Serials { wanted: serials, next, count });
        }
        let io = io_error(&self.path);
        self.mark(next..serials.end).map_err(&io)?;
        self.offer.next = serials.end;
        let count = (serials.end - serials.start) as usize;
        let stay = StoredItem::ARE_POSSIBLE && count.saturating_mul(self.item_bytes) > self.at_once;
        let take = |serial| {
            let body = self.read_item(serial, stay).map_err(&io)?;
            let material = body.and_then(|body| (self.material)(self.plan, body));
            let damaged = || StoreError::Item { path: self.path.display().to_string(), serial };
            material.ok_or_else(damaged)
        };
        let taken: Result<Vec<M>, StoreError> = serials.clone().map(take).collect();
        // Items that stay are erased when they were used; none stays where one is damaged.
        let read = if stay && taken.is_ok() { next..serials.start } else { next..serials.end };
        let erased = self.erase(read).map_err(&io);
        let materials = taken?;
        erased?;
        Ok(materials)
    }
}
