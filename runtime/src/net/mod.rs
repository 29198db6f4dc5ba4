//! How bytes travel: raw messages of lengths that both parties know, over TCP or in memory, metered.

mod memory;
mod meter;
mod tap;
mod tcp;

pub use memory::{MemoryChannel, memory_pair};
pub use meter::{Meter, Traffic};
pub use tap::Tap;
pub use tcp::{TcpChannel, connect, listen_addresses, loopback_only};

use std::time::Duration;

/// An ordered, reliable stream of bytes to the peer. There is no framing: a receiver knows the length.
pub trait Channel: Send {
    /// The two directions, to be used from two threads at once.
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>);

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// If the peer is gone or takes no bytes for too long.
    fn send(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        self.halves().0.send(bytes)
    }

    /// Receives exactly `bytes` bytes.
    ///
    /// # Errors
    /// If the peer is gone or sends too little for too long.
    fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, NetError> {
        self.halves().1.receive(bytes)
    }
}

/// The direction to the peer.
pub trait Sending: Send {
    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// If the peer is gone or takes no bytes for too long.
    fn send(&mut self, bytes: &[u8]) -> Result<(), NetError>;
}

/// The direction from the peer.
pub trait Receiving: Send {
    /// Receives exactly `bytes` bytes.
    ///
    /// # Errors
    /// If the peer is gone or sends too little for too long.
    fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, NetError>;
}

impl<C: Channel + ?Sized> Channel for Box<C> {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        (**self).halves()
    }
}

/// Why bytes did not travel.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The peer took or sent too few bytes within the timeout.
    #[error("timed out after {0:.1?}: the peer sent {1} of {2} bytes")]
    ReceiveTimeout(Duration, usize, usize),
    /// The peer took too few bytes within the timeout.
    #[error("timed out after {0:.1?}: the peer took {1} of {2} bytes")]
    SendTimeout(Duration, usize, usize),
    /// The peer closed the connection.
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
        "{0} is not a loopback address, and the link is not encrypted: add --insecure to accept that"
    )]
    NotLoopback(String),
}
