//! Why a correlation file is not used.

use crate::preprocess::Role;
use crate::preprocess::item::Origin;
use ir::plan::{Digest, FileError};
use std::io;
use std::ops::Range;
use std::path::Path;

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

pub(super) fn io_error(path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.display().to_string();
    move |cause| StoreError::Io { path: path.clone(), cause }
}
