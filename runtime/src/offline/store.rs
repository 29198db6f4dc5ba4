//! A party's correlation file: each item is given out once.
//!
//! ```text
//! header   ir::plan::seal(Magic::Correlations, Header): magic "polycorr", format version, tool version,
//!          length, SHA-256, then role, plan digest, deal id, number of items N, bytes per item
//! marks    N bytes, 0 where the item of that serial is unused
//! items    N times: the item's bytes, then SHA-256 over deal id, role, serial and the item's bytes
//! ```
//!
//! Items are used in the order of their serials. A mark is on disk ([`File::sync_data`]) before the item
//! is read, so that a crash at any point loses items and never uses one twice. What was read is
//! overwritten with zeros: a file that is stolen later does not open recorded runs (as far as the file
//! system overwrites in place). An open file is locked against a second process. What nothing here can
//! prevent is an old copy that is put back: never restore a correlation file from a backup.

use super::dealer::{DealtParty0, DealtParty1, Item, item_bytes};
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
            Self::File { .. } | Self::Role { .. } | Self::Plan { .. } | Self::Length { .. } => true,
            Self::Io { .. } | Self::Locked(_) | Self::Item { .. } | Self::Serials { .. } => false,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    role: u8,
    plan: Digest,
    deal: [u8; 16],
    count: u64,
    item_bytes: u64,
}

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
        let sizes = item_bytes(plan);
        let item_bytes = if role == Role::Party0 { sizes.0 } else { sizes.1 };
        let header = Header {
            role: role as u8,
            plan: digest,
            deal: deal.0,
            count,
            item_bytes: item_bytes as u64,
        };
        let (bytes, _) = seal(Magic::Correlations, &header);
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&temporary)?;
            file.write_all(&bytes)?;
            file.write_all(&vec![0; count as usize])?;
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
        let checksum = checksum(self.deal, self.role, self.next, item);
        let write = |mut file: &File| {
            file.write_all(item)?;
            file.write_all(&checksum)
        };
        write(&self.file).map_err(io_error(&self.temporary))?;
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
        if let Some(directory) = self.path.parent().filter(|d| !d.as_os_str().is_empty()) {
            File::open(directory).and_then(|d| d.sync_all()).map_err(io_error(directory))?;
        }
        Ok(())
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
    marks_at: u64,
    item_bytes: usize,
    material: fn(&'a Plan, Item) -> Option<M>,
}

impl<'a> Store<'a, DealtParty0<'a>> {
    /// Opens and locks party 0's file.
    ///
    /// # Errors
    /// If it is not party 0's file for this plan, is damaged, or in use.
    pub fn open_party0(path: &Path, plan: &'a Plan, digest: Digest) -> Result<Self, StoreError> {
        Self::open(path, plan, digest, Role::Party0, DealtParty0::new)
    }
}

impl<'a> Store<'a, DealtParty1<'a>> {
    /// Opens and locks party 1's file.
    ///
    /// # Errors
    /// If it is not party 1's file for this plan, is damaged, or in use.
    pub fn open_party1(path: &Path, plan: &'a Plan, digest: Digest) -> Result<Self, StoreError> {
        Self::open(path, plan, digest, Role::Party1, |plan, item| DealtParty1::new(plan, &item))
    }
}

impl<'a, M> Store<'a, M> {
    fn open(
        path: &Path,
        plan: &'a Plan,
        digest: Digest,
        role: Role,
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
        let mut start = Vec::new();
        (&mut file).take(MAX_HEADER).read_to_end(&mut start).map_err(&io)?;
        let (header, _, rest): (Header, _, _) = open_prefix(Magic::Correlations, &start)
            .map_err(|cause| StoreError::File { path: name.clone(), cause })?;
        let marks_at = (start.len() - rest.len()) as u64;
        let found = if header.role == 0 { Role::Party0 } else { Role::Party1 };
        if found != role {
            return Err(StoreError::Role { path: name, found, expected: role });
        }
        if header.plan != digest {
            return Err(StoreError::Plan { path: name, found: header.plan, expected: digest });
        }
        let sizes = item_bytes(plan);
        let item_bytes = if role == Role::Party0 { sizes.0 } else { sizes.1 };
        let per_item = (item_bytes + CHECKSUM) as u64 + 1;
        let expected =
            header.count.min(MAX_ITEMS).saturating_mul(per_item).saturating_add(marks_at);
        let length = file.metadata().map_err(&io)?.len();
        if length != expected || header.count > MAX_ITEMS || header.item_bytes != item_bytes as u64
        {
            return Err(StoreError::Length { path: name, found: length, expected });
        }
        let mut marks = vec![0u8; header.count as usize];
        file.seek(SeekFrom::Start(marks_at)).map_err(&io)?;
        file.read_exact(&mut marks).map_err(&io)?;
        let next = marks.iter().rposition(|&m| m != 0).map_or(0, |last| last as u64 + 1);
        let offer =
            Offer { role, plan: digest, deal: DealId(header.deal), next, count: header.count };
        Ok(Self { path: path.to_owned(), file, plan, offer, marks_at, item_bytes, material })
    }

    fn mark(&mut self, serials: Range<u64>) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.marks_at + serials.start))?;
        self.file.write_all(&vec![1; (serials.end - serials.start) as usize])?;
        self.file.sync_data()
    }

    fn item_at(&self, serial: u64) -> u64 {
        self.marks_at + self.offer.count + serial * (self.item_bytes + CHECKSUM) as u64
    }

    fn read_item(&mut self, serial: u64) -> io::Result<(Item, [u8; CHECKSUM])> {
        let mut item = Zeroizing::new(vec![0; self.item_bytes]);
        let mut checksum = [0; CHECKSUM];
        self.file.seek(SeekFrom::Start(self.item_at(serial)))?;
        self.file.read_exact(&mut item)?;
        self.file.read_exact(&mut checksum)?;
        Ok((item, checksum))
    }

    fn erase(&mut self, serials: Range<u64>) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.item_at(serials.start)))?;
        let bytes = self.item_at(serials.end) - self.item_at(serials.start);
        io::copy(&mut io::repeat(0).take(bytes), &mut self.file)?;
        self.file.sync_data()
    }
}

impl<M> Supply for Store<'_, M> {
    type Material = M;

    fn offer(&self) -> Offer {
        self.offer
    }

    fn claim(&mut self, serials: Range<u64>) -> Result<Vec<M>, StoreError> {
        let Offer { role, deal, next, count, .. } = self.offer;
        if serials.start < next || serials.end > count || serials.is_empty() {
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
        let offer = Offer { role, plan, deal, next: 0, count: items.len() as u64 };
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
        if serials.start < next || serials.end > count || serials.is_empty() {
            return Err(StoreError::Serials { wanted: serials, next, count });
        }
        self.offer.next = serials.end;
        self.items.drain(..(serials.start - next) as usize);
        Ok(self.items.drain(..(serials.end - serials.start) as usize).collect())
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
