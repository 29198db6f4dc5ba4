//! The direction to the peer.

use super::{INSTANT, Line, MAX_FRAME, PART, lock, try_lock};
use crate::net::NetError;
use crate::net::wait::Wait;
use std::sync::atomic::Ordering::Relaxed;

#[derive(Default)]
pub(super) struct Outgoing {
    /// Whether messages leave in frames.
    pub framed: bool,
    /// Bytes for the socket.
    pub out: Vec<u8>,
    /// How many of them it took.
    pub taken: usize,
    /// The beginning of a frame.
    head: Vec<u8>,
    /// Whether the stream cannot go on.
    pub broken: bool,
}

impl Line {
    /// Sends a message, or a part of one, in frames of its own.
    pub fn send(&self, message: &[u8]) -> Result<(), NetError> {
        let outgoing = &mut *lock(&self.outgoing);
        if outgoing.broken {
            return Err(NetError::Closed);
        }
        let mut wait = Wait::new(self.limits);
        let sent = self.transmit(outgoing, message, &mut wait);
        outgoing.broken = sent.is_err();
        let total = message.len();
        match sent {
            Ok(()) => {
                self.counters.sent_payload.fetch_add(total as u64, Relaxed);
                Ok(())
            }
            Err(NetError::SendTimeout(limit, moved, _)) => {
                Err(NetError::SendTimeout(limit, moved.min(total), total))
            }
            // The peer may have said why.
            Err(NetError::Closed) if self.tls.is_some() => self.listen().and(Err(NetError::Closed)),
            Err(e) => Err(e),
        }
    }

    fn transmit(
        &self,
        outgoing: &mut Outgoing,
        message: &[u8],
        wait: &mut Wait,
    ) -> Result<(), NetError> {
        for frame in message.chunks(MAX_FRAME) {
            // Header and first bytes leave in one write, and in one record.
            let mut head = std::mem::take(&mut outgoing.head);
            head.clear();
            if outgoing.framed {
                head.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            }
            let (first, rest) = frame.split_at(frame.len().min(PART - 4));
            head.extend_from_slice(first);
            let encoded = self.encode(outgoing, &head);
            outgoing.head = head;
            encoded?;
            self.push(outgoing, wait)?;
            for part in rest.chunks(PART) {
                self.encode(outgoing, part)?;
                self.push(outgoing, wait)?;
            }
        }
        Ok(())
    }

    fn encode(&self, outgoing: &mut Outgoing, plain: &[u8]) -> Result<(), NetError> {
        match &self.tls {
            Some(tls) => tls.encrypt(plain, &mut outgoing.out),
            None => {
                outgoing.out.extend_from_slice(plain);
                Ok(())
            }
        }
    }

    /// Writes all that waits for the socket.
    pub(super) fn push(&self, outgoing: &mut Outgoing, wait: &mut Wait) -> Result<(), NetError> {
        while outgoing.taken < outgoing.out.len() {
            let Some(left) = wait.left() else {
                return Err(NetError::SendTimeout(wait.limit(), wait.total(), 0));
            };
            let tick = if outgoing.framed { left.min(self.limits.beat()) } else { left };
            match self.socket.write(&outgoing.out[outgoing.taken..], tick)? {
                Some(n) => {
                    outgoing.taken += n;
                    wait.moved(n);
                }
                None if outgoing.framed => {
                    self.listen()?;
                    wait.alive(*lock(&self.heard));
                }
                None => {}
            }
        }
        outgoing.out.clear();
        outgoing.taken = 0;
        Ok(())
    }

    /// Sends a beat if nothing else is being sent and the socket has room. `false` when the connection is
    /// gone.
    pub fn beat(&self) -> bool {
        let Some(mut outgoing) = try_lock(&self.outgoing) else { return true };
        if outgoing.broken {
            return false;
        }
        if outgoing.out.is_empty() && self.encode(&mut outgoing, &[0; 4]).is_ok() {
            self.counters.sent_beats.fetch_add(1, Relaxed);
        }
        match self.socket.write(&outgoing.out[outgoing.taken..], INSTANT) {
            // The next message finishes what was begun.
            Ok(taken) => outgoing.taken += taken.unwrap_or(0),
            Err(_) => outgoing.broken = true,
        }
        if outgoing.taken == outgoing.out.len() {
            outgoing.out.clear();
            outgoing.taken = 0;
        }
        !outgoing.broken
    }
}
