//! The in-memory twin of a TCP connection.

use super::{Channel, NetError};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// One end of an in-memory connection; dropping it closes the connection.
pub struct MemoryChannel {
    to_peer: Sender<Vec<u8>>,
    from_peer: Receiver<Vec<u8>>,
    pending: Vec<u8>,
    timeout: Duration,
}

/// Both ends of a connection whose receivers wait for at most `timeout`.
pub fn memory_pair(timeout: Duration) -> (MemoryChannel, MemoryChannel) {
    let (to_b, from_a) = channel();
    let (to_a, from_b) = channel();
    let end = |to_peer, from_peer| MemoryChannel { to_peer, from_peer, pending: vec![], timeout };
    (end(to_b, from_b), end(to_a, from_a))
}

impl Channel for MemoryChannel {
    fn send(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        self.to_peer.send(bytes.to_vec()).map_err(|_| NetError::Closed)
    }

    fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, NetError> {
        let deadline = Instant::now() + self.timeout;
        while self.pending.len() < bytes {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.from_peer.recv_timeout(left) {
                Ok(part) if self.pending.is_empty() => self.pending = part,
                Ok(part) => self.pending.extend(part),
                Err(RecvTimeoutError::Disconnected) => return Err(NetError::Closed),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(NetError::ReceiveTimeout(self.timeout, self.pending.len(), bytes));
                }
            }
        }
        let rest = self.pending.split_off(bytes);
        Ok(std::mem::replace(&mut self.pending, rest))
    }
}
