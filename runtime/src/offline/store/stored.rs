//! An item that stays in its file while it is used.

use super::StoreError;
use super::error::io_error;
use super::records::CHECKSUM;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// A store's file as its items read it: apart from the store, which may go on, under the store's lock.
pub(super) struct Shared {
    path: PathBuf,
    /// Held as long as an item is in use.
    _lock: Arc<File>,
    file: Mutex<File>,
}

impl Shared {
    pub fn open(path: &Path, lock: Arc<File>) -> io::Result<Arc<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(Self { path: path.to_owned(), _lock: lock, file: Mutex::new(file) }))
    }
}

/// An item in a file, marked as used and found whole; its bytes are read as they are needed. When it is
/// dropped it is overwritten with zeros; should the process end before, the next opening does it.
pub struct StoredItem {
    shared: Arc<Shared>,
    /// Where its bytes begin.
    at: u64,
    length: usize,
}

impl StoredItem {
    pub(super) fn new(shared: Arc<Shared>, at: u64, length: usize) -> Self {
        Self { shared, at, length }
    }

    /// The number of its bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Reads some of its bytes.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn read(&self, range: Range<usize>) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let mut bytes = Zeroizing::new(vec![0; range.len()]);
        let mut file = self.shared.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.at + range.start as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(io_error(&self.shared.path))?;
        Ok(bytes)
    }
}

impl Drop for StoredItem {
    fn drop(&mut self) {
        let mut file = self.shared.file.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever opens the file next sees what was left.
        let _ = erase(&mut *file, self.at, self.length).and_then(|()| file.sync_data());
    }
}

/// Overwrites an item that begins at `at`, and its checksum, with zeros.
pub(super) fn erase(mut file: impl Write + Seek, at: u64, length: usize) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    io::copy(&mut io::repeat(0).take((length + CHECKSUM) as u64), &mut file)?;
    Ok(())
}
