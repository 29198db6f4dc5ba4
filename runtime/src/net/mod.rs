//! How bytes travel: messages of lengths that both parties know, over TLS, TCP or in memory, metered.

mod connect;
mod door;
mod error;
mod line;
mod memory;
mod meter;
pub mod relay;
mod socket;
mod tap;
mod tcp;
mod tls;
mod wait;

pub use connect::{addresses, connect, loopback_only};
pub use door::Door;
pub use error::NetError;
pub use memory::{MemoryChannel, memory_pair};
pub use meter::{Meter, Traffic, Wire, WireMeter};
pub use tap::Tap;
pub use tcp::TcpChannel;
pub use tls::{Fingerprint, Identity, IdentityError, NewIdentity};
pub use wait::Limits;

pub(crate) use tls::NOT_TLS;

/// An ordered, reliable stream of bytes to the peer. A receiver knows how much it is to get; it need not
/// take it in the pieces in which it was sent. A message may leave, and be taken, in parts, of which the
/// last one ends it: what is counted is messages.
pub trait Channel: Send {
    /// The two directions, to be used from two threads at once.
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>);

    /// From here on the parties show each other that they live, so that one may compute for longer than
    /// the other would wait in silence. Both call it at the same point of their conversation; once more
    /// does nothing. In memory there is nothing to show.
    ///
    /// # Errors
    /// If the system has no thread for it.
    fn keep_alive(&mut self) -> Result<(), NetError> {
        Ok(())
    }

    /// Sends a whole message.
    ///
    /// # Errors
    /// If the peer is gone or takes no bytes for too long.
    fn send(&mut self, message: &[u8]) -> Result<(), NetError> {
        self.halves().0.send(message)
    }

    /// Receives a whole message of exactly `bytes` bytes.
    ///
    /// # Errors
    /// If the peer is gone or sends too little for too long.
    fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, NetError> {
        self.halves().1.receive(bytes)
    }
}

/// The direction to the peer.
pub trait Sending: Send {
    /// Sends all of a part of a message, of which it may be the last.
    ///
    /// # Errors
    /// If the peer is gone or takes no bytes for too long.
    fn send_part(&mut self, part: &[u8], ends: bool) -> Result<(), NetError>;

    /// Sends a whole message.
    ///
    /// # Errors
    /// If the peer is gone or takes no bytes for too long.
    fn send(&mut self, message: &[u8]) -> Result<(), NetError> {
        self.send_part(message, true)
    }
}

/// The direction from the peer.
pub trait Receiving: Send {
    /// Receives as many bytes of a message as `part` has, of which they may be the last.
    ///
    /// # Errors
    /// If the peer is gone or sends too little for too long.
    fn receive_part(&mut self, part: &mut [u8], ends: bool) -> Result<(), NetError>;

    /// Receives a whole message of exactly `bytes` bytes.
    ///
    /// # Errors
    /// If the peer is gone or sends too little for too long.
    fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, NetError> {
        let mut message = vec![0; bytes];
        self.receive_part(&mut message, true)?;
        Ok(message)
    }
}

impl<C: Channel + ?Sized> Channel for Box<C> {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        (**self).halves()
    }

    fn keep_alive(&mut self) -> Result<(), NetError> {
        (**self).keep_alive()
    }
}
