//! The bytes of every file that the two programs exchange: a header (magic, format version, tool
//! version, length, digest) and a bincode payload. See docs/plan-format.md.

use super::{Plan, PlanError};
use crate::plan::verify;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// The version of this tool, written into files.
pub const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The format version that this tool reads and writes.
const FORMAT: u16 = 7;
/// The largest file that is read.
pub const MAX_FILE_BYTES: usize = 4 << 30;

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// `plan.bin`
    Plan,
    /// `plan.weights`
    Weights,
    /// The graphs behind the weights, for evaluation; the second part of `plan.weights`.
    Reference,
    /// A party's dealt correlations.
    Correlations,
}

impl Magic {
    fn bytes(self) -> &'static [u8; 8] {
        match self {
            Self::Plan => b"polyplan",
            Self::Weights => b"polywght",
            Self::Reference => b"polyrefr",
            Self::Correlations => b"polycorr",
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Plan => "a polyc plan",
            Self::Weights => "polyc weights",
            Self::Reference => "polyc reference graphs",
            Self::Correlations => "polyrt correlations",
        }
    }
}

/// SHA-256 over a file's header and payload; a plan's digest is its identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Another kind of file.
    #[error("is not {0}")]
    Magic(&'static str),
    /// Written by a tool with another format.
    #[error(
        "has format version {found}, written by version {tool}; this tool reads version {FORMAT}; compile it again"
    )]
    Version {
        /// The version in the file.
        found: u16,
        /// The tool that wrote it.
        tool: String,
    },
    /// Shorter than its header says.
    #[error("is truncated: {found} of {expected} bytes")]
    Truncated {
        /// Bytes that are there.
        found: usize,
        /// Bytes that should be there.
        expected: usize,
    },
    /// The digest does not match.
    #[error("is damaged: its digest does not match its content")]
    Digest,
    /// Bytes after the end.
    #[error("is damaged: {0} bytes follow its end")]
    Trailing(usize),
    /// The payload is not what the header says.
    #[error("is damaged: {0}")]
    Payload(String),
    /// The payload is readable and breaks a rule.
    #[error("is not valid: {0}")]
    Plan(PlanError),
}

impl From<PlanError> for FileError {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

/// Serialises `content` behind a header.
pub fn seal<T: Serialize>(magic: Magic, content: &T) -> (Vec<u8>, Digest) {
    let payload = bincode::serde::encode_to_vec(content, bincode::config::standard())
        .expect("plain data serialises to memory");
    let mut bytes = magic.bytes().to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.push(TOOL_VERSION.len() as u8);
    bytes.extend_from_slice(TOOL_VERSION.as_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    let digest =
        Digest(Sha256::new().chain_update(&bytes).chain_update(&payload).finalize().into());
    bytes.extend_from_slice(&digest.0);
    bytes.extend_from_slice(&payload);
    (bytes, digest)
}

/// Reads what [`seal`] wrote; nothing may follow.
///
/// # Errors
/// Says what is wrong with the file, to follow its name.
pub fn open<T: DeserializeOwned>(magic: Magic, bytes: &[u8]) -> Result<(T, Digest), FileError> {
    let (content, digest, rest) = open_prefix(magic, bytes)?;
    if rest.is_empty() { Ok((content, digest)) } else { Err(FileError::Trailing(rest.len())) }
}

/// Reads what [`seal`] wrote at the start of `bytes` and returns what follows.
///
/// # Errors
/// As [`open`].
pub fn open_prefix<T: DeserializeOwned>(
    magic: Magic,
    bytes: &[u8],
) -> Result<(T, Digest, &[u8]), FileError> {
    let mut at = 0;
    let mut take = |n: usize| -> Result<&[u8], FileError> {
        let end = at + n;
        let truncated = FileError::Truncated { found: bytes.len(), expected: end };
        let part = bytes.get(at..end).ok_or(truncated)?;
        at = end;
        Ok(part)
    };
    if take(8).map_err(|_| FileError::Magic(magic.describe()))? != magic.bytes() {
        return Err(FileError::Magic(magic.describe()));
    }
    let version = take(2)?;
    let found = u16::from_le_bytes([version[0], version[1]]);
    let tool_length = take(1)?[0] as usize;
    let tool: String = take(tool_length)?
        .iter()
        .map(|&b| if b.is_ascii_graphic() { b as char } else { '?' })
        .collect();
    if found != FORMAT {
        return Err(FileError::Version { found, tool });
    }
    let length = take(8)?.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    let header_end = 8 + 2 + 1 + tool_length + 8;
    let stored: [u8; 32] = take(32)?.try_into().map_err(|_| FileError::Digest)?;
    let length =
        usize::try_from(length).ok().filter(|&n| n <= MAX_FILE_BYTES).ok_or(FileError::Digest)?;
    let payload = take(length)?;
    let digest: [u8; 32] =
        Sha256::new().chain_update(&bytes[..header_end]).chain_update(payload).finalize().into();
    if digest != stored {
        return Err(FileError::Digest);
    }
    let config = bincode::config::standard().with_limit::<MAX_FILE_BYTES>();
    let (content, used) = bincode::serde::decode_from_slice(payload, config)
        .map_err(|e| FileError::Payload(e.to_string()))?;
    if used != payload.len() {
        return Err(FileError::Trailing(payload.len() - used));
    }
    Ok((content, Digest(digest), &bytes[at..]))
}

impl Plan {
    /// The bytes of `plan.bin`, and its digest.
    pub fn to_bytes(&self) -> (Vec<u8>, Digest) {
        seal(Magic::Plan, self)
    }

    /// Reads and verifies the bytes of `plan.bin`.
    ///
    /// # Errors
    /// Says what is wrong with the file, to follow its name.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, Digest), FileError> {
        let (plan, digest): (Self, Digest) = open(Magic::Plan, bytes)?;
        verify::verify(&plan)?;
        Ok((plan, digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_is_noticed() {
        let (bytes, _) = seal(Magic::Weights, &vec![1u32, 2, 70000]);
        assert!(open::<Vec<u32>>(Magic::Weights, &bytes).is_ok());
        for at in 0..bytes.len() {
            for bit in [1, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= bit;
                assert!(open::<Vec<u32>>(Magic::Weights, &damaged).is_err(), "byte {at}");
            }
            assert!(open::<Vec<u32>>(Magic::Weights, &bytes[..at]).is_err());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(open::<Vec<u32>>(Magic::Weights, &longer), Err(FileError::Trailing(1))));
        let mut older = bytes;
        older[8] = FORMAT as u8 - 1;
        let refused = open::<Vec<u32>>(Magic::Weights, &older).unwrap_err().to_string();
        assert!(refused.contains("compile it again"), "{refused}");
    }
}
