//! Why bytes did not travel.

use super::Fingerprint;
use std::time::Duration;

/// Why bytes did not travel.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The peer sent too few bytes within the limits.
    #[error("timed out after {0:.1?}: the peer sent {1} of {2} bytes")]
    ReceiveTimeout(Duration, usize, usize),
    /// The peer took too few bytes within the limits.
    #[error("timed out after {0:.1?}: the peer took {1} of {2} bytes")]
    SendTimeout(Duration, usize, usize),
    /// The peer closed the connection, in good order or not.
    #[error("the peer closed the connection")]
    Closed,
    /// The operating system reported something else.
    #[error("{0}")]
    Io(std::io::Error),
    /// Nobody listens.
    #[error("nothing listens at {address}, tried for {waited:.0?}: {reason}")]
    Connect {
        /// Where.
        address: String,
        /// For how long.
        waited: Duration,
        /// What the last attempt said.
        reason: String,
    },
    /// A peer that connected and did not say who it is.
    #[error("it did not say who it is within {0:.0?}")]
    Unheard(Duration),
    /// One of too many peers at once.
    #[error("more than {0} peers wait")]
    Crowd(usize),
    /// Nobody connects.
    #[error("nobody connected within {0:.0?}")]
    Accept(Duration),
    /// An address that names nothing.
    #[error("{address} is not an address: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// An address that leaves this machine.
    #[error(
        "{0} is not a loopback address, and the link is not encrypted: give --key and --peer-cert \
         (`polyrt keygen` makes them), or accept that by --insecure"
    )]
    NotLoopback(String),
    /// The peer holds another certificate than the pinned one.
    #[error(
        "the peer showed certificate {shown}, --peer-cert is {pinned}: ask the peer for its \
         certificate, unless somebody else answers in its place"
    )]
    WrongCertificate {
        /// What the peer showed.
        shown: Fingerprint,
        /// What it must show.
        pinned: Fingerprint,
    },
    /// The peer pinned another certificate than ours.
    #[error(
        "the peer refused our certificate {0}: it must get that certificate and give it as its \
         --peer-cert"
    )]
    Refused(Fingerprint),
    /// The peer does not say who it is.
    #[error("the peer showed no certificate: it must be started with --key and --peer-cert")]
    NoCertificate,
    /// The peer sends its messages in the clear.
    #[error("the peer does not speak TLS: it must be started with --key and --peer-cert")]
    NotTls,
    /// Anything else that TLS refuses.
    #[error("TLS: {0}")]
    Tls(String),
    /// The peer's frames are none.
    #[error("the peer announced a frame of {0} bytes, at most {1} are allowed")]
    Frame(usize, usize),
}
