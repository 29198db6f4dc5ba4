//! A dealer's file.

use super::StoreError;
use super::error::io_error;
use super::records::{Header, private_file, record, sync_directory};
use crate::preprocess::item::{Origin, item_bytes};
use crate::preprocess::{DealId, Role};
use ir::plan::{Commitment, Digest, Magic, Plan, seal};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

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
    /// Starts a file for `count` items of `role`, made for a plan and its weights.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(
        path: &Path,
        role: Role,
        plan: &Plan,
        (digest, weights): (Digest, Commitment),
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
            weights,
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
