//! An item that stays in its file while it is used.

use super::error::io_error;
use super::records::CHECKSUM;
use crate::preprocess::MaterialError;
use crate::preprocess::item::ItemBytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

/// An item in a file, marked as used and found whole; its bytes are read as they are needed. When it is
/// dropped it is overwritten with zeros; should the process end before, the next opening does it.
pub struct StoredItem {
    path: PathBuf,
    /// The store's own, which is locked as long as an item is in use.
    file: Arc<File>,
    /// Where its bytes begin.
    at: u64,
    length: usize,
}

impl StoredItem {
    /// Whether this system reads files at a place of its own choice.
    pub(super) const ARE_POSSIBLE: bool = cfg!(unix);

    pub(super) fn new(path: PathBuf, file: Arc<File>, at: u64, length: usize) -> Self {
        Self { path, file, at, length }
    }
}

impl ItemBytes for StoredItem {
    fn length(&self) -> usize {
        self.length
    }

    fn read(&self, range: Range<usize>) -> Result<Zeroizing<Vec<u8>>, MaterialError> {
        let mut bytes = Zeroizing::new(vec![0; range.len()]);
        let read = read_at(&self.file, &mut bytes, self.at + range.start as u64);
        read.map_err(io_error(&self.path))?;
        Ok(bytes)
    }
}

impl Drop for StoredItem {
    fn drop(&mut self) {
        // Whoever opens the file next sees what was left. The checksum goes last, for it says so.
        let end = self.at + self.length as u64;
        let erased = zero_at(&self.file, self.at, self.length).and_then(|()| self.file.sync_data());
        let _ = erased.and_then(|()| zero_at(&self.file, end, CHECKSUM));
    }
}

fn zero_at(file: &File, mut at: u64, mut count: usize) -> io::Result<()> {
    let zeros = [0; 1 << 16];
    while count > 0 {
        let part = count.min(zeros.len());
        write_at(file, &zeros[..part], at)?;
        (at, count) = (at + part as u64, count - part);
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(not(unix))]
fn read_at(_: &File, _: &mut [u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
fn write_at(_: &File, _: &[u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
