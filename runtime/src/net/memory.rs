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
    /// How many bytes of `pending` were taken.
    taken: usize,
    timeout: Duration,
}

/// Both ends of a connection whose receivers wait for at most `timeout`.
pub fn memory_pair(timeout: Duration) -> (MemoryChannel, MemoryChannel) {
    let (to_b, from_a) = channel();
    let (to_a, from_b) = channel();
    let end = |to_peer, parts| MemoryChannel {
        to_peer,
        from_peer: Incoming { parts, pending: vec![], taken: 0, timeout },
    };
    (end(to_b, from_b), end(to_a, from_a))
}

impl Channel for MemoryChannel {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        (Box::new(&mut self.to_peer), Box::new(&mut self.from_peer))
    }
}

impl Sending for &mut Sender<Vec<u8>> {
    fn send_part(&mut self, part: &[u8], _: bool) -> Result<(), NetError> {
        Sender::send(self, part.to_vec()).map_err(|_| NetError::Closed)
    }
}

impl Receiving for &mut Incoming {
    fn receive_part(&mut self, part: &mut [u8], _: bool) -> Result<(), NetError> {
        let deadline = Instant::now() + self.timeout;
        let mut received = 0;
        while received < part.len() {
            if self.taken == self.pending.len() {
                let left = deadline.saturating_duration_since(Instant::now());
                self.pending = self.parts.recv_timeout(left).map_err(|e| match e {
                    RecvTimeoutError::Disconnected => NetError::Closed,
                    RecvTimeoutError::Timeout => {
                        NetError::ReceiveTimeout(self.timeout, received, part.len())
                    }
                })?;
                self.taken = 0;
            }
            let there = &self.pending[self.taken..];
            let n = there.len().min(part.len() - received);
            part[received..received + n].copy_from_slice(&there[..n]);
            (self.taken, received) = (self.taken + n, received + n);
        }
        Ok(())
    }
}
