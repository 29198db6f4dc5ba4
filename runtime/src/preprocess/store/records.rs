//! A file byte by byte: header, records, checksums.

use super::StoreError;
use super::error::io_error;
use crate::preprocess::item::{Item, Origin};
use crate::preprocess::{DealId, Role};
use ir::plan::{Commitment, Digest, Magic, open_prefix};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// Bytes of an item's checksum.
pub(super) const CHECKSUM: usize = 32;
/// More than any header has.
const MAX_HEADER: u64 = 4096;
/// The largest number of items of a file.
pub const MAX_ITEMS: u64 = 1 << 24;

#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub role: u8,
    /// 0: a dealer, 1: the two parties.
    pub origin: u8,
    pub plan: Digest,
    /// The weights that the items were made with.
    pub weights: Commitment,
    pub deal: [u8; 16],
    /// Items of a dealt file; 0 in a file that grows.
    pub count: u64,
    pub item_bytes: u64,
}

impl Header {
    pub fn origin(&self) -> Origin {
        if self.origin == 0 { Origin::Dealer } else { Origin::Parties }
    }

    pub fn role(&self) -> Role {
        if self.role == 0 { Role::Party0 } else { Role::Party1 }
    }
}

/// States of a record.
const UNUSED: u8 = 1;
pub(super) const USED: u8 = 2;

pub(super) fn record_bytes(header: &Header) -> u64 {
    header.item_bytes.saturating_add(1 + CHECKSUM as u64)
}

pub(super) fn record(deal: DealId, role: Role, serial: u64, item: &[u8]) -> Item {
    let mut record = Zeroizing::new(Vec::with_capacity(1 + item.len() + CHECKSUM));
    record.push(UNUSED);
    record.extend_from_slice(item);
    record.extend_from_slice(&checksum(deal, role, serial, item));
    record
}

pub(super) fn read_header(path: &Path, file: &mut File) -> Result<(Header, u64), StoreError> {
    let mut start = Vec::new();
    file.take(MAX_HEADER).read_to_end(&mut start).map_err(io_error(path))?;
    let (header, _, rest): (Header, _, _) = open_prefix(Magic::Correlations, &start)
        .map_err(|cause| StoreError::File { path: path.display().to_string(), cause })?;
    Ok((header, (start.len() - rest.len()) as u64))
}

/// What a file's records are.
pub(super) struct Found {
    /// The first unused one.
    pub next: u64,
    /// The first behind it that is not unused.
    pub end: u64,
    /// Their number.
    pub length: u64,
    /// Unused ones in all.
    pub unused: u64,
}

/// Reads the states of all whole records. The last one of a file that grows may have been cut off by a
/// crash: it counts if it is marked as used, or its checksum matches.
pub(super) fn scan(file: &mut File, header: &Header, records_at: u64) -> io::Result<Found> {
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

pub(super) fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    match path.parent().filter(|d| !d.as_os_str().is_empty()) {
        Some(directory) => {
            File::open(directory).and_then(|d| d.sync_all()).map_err(io_error(directory))
        }
        None => Ok(()),
    }
}

pub(super) fn checksum(deal: DealId, role: Role, serial: u64, item: &[u8]) -> [u8; CHECKSUM] {
    hasher(deal, role, serial).chain_update(item).finalize().into()
}

/// As [`checksum`], of an item that is read part by part.
pub(super) fn checksum_of(
    deal: DealId,
    role: Role,
    serial: u64,
    mut item: impl Read,
) -> io::Result<[u8; CHECKSUM]> {
    let mut hasher = hasher(deal, role, serial);
    let mut part = Zeroizing::new(vec![0; 1 << 16]);
    loop {
        match item.read(&mut part)? {
            0 => return Ok(hasher.finalize().into()),
            n => hasher.update(&part[..n]),
        }
    }
}

fn hasher(deal: DealId, role: Role, serial: u64) -> Sha256 {
    let hash = Sha256::new().chain_update(deal.0).chain_update([role as u8]);
    hash.chain_update(serial.to_le_bytes())
}

/// Overwrites the used items that a process which ended too early left behind: those whose checksum is
/// still there.
pub(super) fn erase_left(
    file: &mut File,
    header: &Header,
    records_at: u64,
    records: u64,
) -> io::Result<()> {
    let mut left = vec![];
    for serial in 0..records {
        let at = records_at + serial * record_bytes(header);
        let mut state = [0];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut state)?;
        if state[0] != USED {
            continue;
        }
        let mut stored = [0; CHECKSUM];
        file.seek(SeekFrom::Start(at + 1 + header.item_bytes))?;
        file.read_exact(&mut stored)?;
        if stored != [0; CHECKSUM] {
            left.push(at + 1);
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    erase(file, header.item_bytes as usize, left.into_iter())?;
    file.sync_data()
}

/// Overwrites items that begin at these places with zeros, and, once that is on disk, their checksums.
pub(super) fn erase(
    mut file: &File,
    length: usize,
    places: impl Iterator<Item = u64> + Clone,
) -> io::Result<()> {
    for at in places.clone() {
        file.seek(SeekFrom::Start(at))?;
        io::copy(&mut io::repeat(0).take(length as u64), &mut file)?;
    }
    file.sync_data()?;
    for at in places {
        file.seek(SeekFrom::Start(at + length as u64))?;
        file.write_all(&[0; CHECKSUM])?;
    }
    Ok(())
}
