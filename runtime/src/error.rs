//! Why a run did not come to its end, sorted by who must act.

use crate::handshake::AgreementError;
use crate::net::NetError;
use crate::preprocess::MaterialError;
use crate::preprocess::store::StoreError;
use ir::plan::InputError;

/// Any failure of a run. One line, without secrets; it includes its cause, which is therefore no
/// [`std::error::Error::source`] that would be printed once more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Party 1's input does not fit the plan.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The correlations cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The peers are not made for each other.
    #[error(transparent)]
    Agreement(#[from] AgreementError),
    /// The peer hangs or is gone.
    #[error("{during}: {cause}")]
    Net {
        /// What we were doing.
        during: String,
        /// What happened.
        cause: NetError,
    },
    /// The peer sent something that no peer sends.
    #[error("the peer sent a malformed message: {0}")]
    Peer(String),
    /// The operating system has no randomness.
    #[error("no randomness from the operating system: {0}")]
    Randomness(getrandom::Error),
    /// A defect of this program.
    #[error("a defect of polyrt, please report it: {0}")]
    Internal(String),
}

impl Error {
    pub(crate) fn net(during: impl Into<String>, cause: NetError) -> Self {
        Self::Net { during: during.into(), cause }
    }
}

impl From<MaterialError> for Error {
    fn from(e: MaterialError) -> Self {
        match e {
            MaterialError::Store(e) => Self::Store(e),
            MaterialError::Spent(_) | MaterialError::Kind(_) | MaterialError::Malformed(_) => {
                Self::Internal(e.to_string())
            }
        }
    }
}

impl From<getrandom::Error> for Error {
    fn from(e: getrandom::Error) -> Self {
        Self::Randomness(e)
    }
}
