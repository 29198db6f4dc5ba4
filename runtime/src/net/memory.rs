//! The in-memory twin of a TCP connection.

use super::{Channel, NetError, Receiving, Sending};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// One end of an in-memory connection; dropping it closes the connection.
pub struct MemoryChannel {
    to_peer: Sender<Vec<u8>>,
    from_peer: Incoming,
}

struct Incoming {
    parts: Receiver<Vec<u8>>,
    pending: Vec<u8>,
    timeout: Duration,
}

/// Both ends of a connection whose receivers wait for at most `timeout`.
pub fn memory_pair(timeout: Duration) -> (MemoryChannel, MemoryChannel) {
    let (to_b, from_a) = channel();
    let (to_a, from_b) = channel();
    let end = |to_peer, parts| MemoryChannel {
        to_peer,
        from_peer: Incoming { parts, pending: vec![], timeout },
    };
    (end(to_b, from_b), end(to_a, from_a))
}

impl Channel for MemoryChannel {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        (Box::new(&mut self.to_peer), Box::new(&mut self.from_peer))
    }
}

impl Sending for &mut Sender<Vec<u8>> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        Sender::send(self, bytes.to_vec()).map_err(|_| NetError::Closed)
    }
}

impl Receiving for &mut Incoming {
    fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, NetError> {
        let deadline = Instant::now() + self.timeout;
        while self.pending.len() < bytes {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.parts.recv_timeout(left) {
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
