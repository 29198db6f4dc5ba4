//! The direction from the peer.

use super::{AHEAD, INSTANT, Line, MAX_FRAME, PART, lock, try_lock};
use crate::net::NetError;
use crate::net::socket::Socket;
use crate::net::wait::Wait;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

pub(super) struct Incoming {
    /// What the socket gave and nobody took: `buffer[start..end]`.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// `None` while messages are bare.
    frame: Option<Frame>,
    /// Payload that was read while a send was stuck.
    ahead: VecDeque<u8>,
    /// Whether a message was not received whole.
    pub broken: bool,
}

#[derive(Default)]
struct Frame {
    header: [u8; 4],
    /// Bytes of the header that are there.
    known: usize,
    /// Bytes of the payload that are missing.
    left: usize,
}

impl Default for Incoming {
    fn default() -> Self {
        let buffer = vec![0; PART].into_boxed_slice();
        Self { buffer, start: 0, end: 0, frame: None, ahead: VecDeque::new(), broken: false }
    }
}

impl Incoming {
    /// Messages come in frames from here on.
    pub fn frame(&mut self) {
        self.frame.get_or_insert_default();
    }

    /// What the socket gave and nobody took.
    pub fn raw(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// All of it but the last `left` bytes was taken.
    pub fn keep(&mut self, left: usize) {
        self.start = self.end - left;
    }

    /// Replaces what was taken; `false` when nothing came within `patience`.
    pub fn fill(&mut self, socket: &Socket, patience: Duration) -> Result<bool, NetError> {
        let read = socket.read(&mut self.buffer, patience)?;
        if let Some(n) = read {
            (self.start, self.end) = (0, n);
        }
        Ok(read.is_some())
    }
}

impl Line {
    /// Receives as many bytes of a message as `part` has.
    pub fn receive(&self, part: &mut [u8]) -> Result<(), NetError> {
        let incoming = &mut *lock(&self.incoming);
        if incoming.broken {
            return Err(NetError::Closed);
        }
        let received = self.collect(incoming, part);
        incoming.broken = received.is_err();
        received
    }

    fn collect(&self, incoming: &mut Incoming, message: &mut [u8]) -> Result<(), NetError> {
        let mut wait = Wait::new(self.limits);
        let bytes = message.len();
        let mut received = 0;
        while received < bytes {
            let Some(left) = wait.left() else {
                return Err(NetError::ReceiveTimeout(wait.limit(), received, bytes));
            };
            let ahead = incoming.ahead.len().min(bytes - received);
            if ahead > 0 {
                let taken = message[received..].iter_mut().zip(incoming.ahead.drain(..ahead));
                taken.for_each(|(to, byte)| *to = byte);
                received += ahead;
                continue;
            }
            if let Some(n) = self.payload(incoming, &mut message[received..], left)? {
                received += n;
                wait.moved(n);
            }
            wait.alive(*lock(&self.heard));
        }
        self.counters.received_payload.fetch_add(bytes as u64, Relaxed);
        Ok(())
    }

    /// Reads ahead whatever is there, in search of beats. Whoever receives hears them by itself.
    pub(super) fn listen(&self) -> Result<(), NetError> {
        let Some(mut incoming) = try_lock(&self.incoming) else { return Ok(()) };
        let mut part = vec![0; PART];
        while incoming.ahead.len() < AHEAD {
            let Some(n) = self.payload(&mut incoming, &mut part, INSTANT)? else { return Ok(()) };
            incoming.ahead.extend(&part[..n]);
        }
        *lock(&self.heard) = Instant::now();
        Ok(())
    }

    /// Some bytes of messages; none if only a header came; `None` when nothing came within `patience`.
    fn payload(
        &self,
        incoming: &mut Incoming,
        into: &mut [u8],
        patience: Duration,
    ) -> Result<Option<usize>, NetError> {
        let Some(mut frame) = incoming.frame.take() else {
            return self.plain(incoming, into, patience);
        };
        let read = self.framed(incoming, &mut frame, into, patience);
        incoming.frame = Some(frame);
        read
    }

    fn framed(
        &self,
        incoming: &mut Incoming,
        frame: &mut Frame,
        into: &mut [u8],
        patience: Duration,
    ) -> Result<Option<usize>, NetError> {
        if frame.left > 0 {
            let wanted = frame.left.min(into.len());
            let read = self.plain(incoming, &mut into[..wanted], patience)?;
            frame.left -= read.unwrap_or(0);
            return Ok(read);
        }
        let read = self.plain(incoming, &mut frame.header[frame.known..], patience)?;
        frame.known += read.unwrap_or(0);
        if frame.known == frame.header.len() {
            frame.known = 0;
            frame.left = u32::from_le_bytes(frame.header) as usize;
            if frame.left > MAX_FRAME {
                return Err(NetError::Frame(frame.left, MAX_FRAME));
            }
            if frame.left == 0 {
                self.counters.received_beats.fetch_add(1, Relaxed);
                *lock(&self.heard) = Instant::now();
            }
        }
        Ok(read.map(|_| 0))
    }

    /// Some bytes of the stream; none if only a part of a record came; `None` when nothing came within
    /// `patience`.
    fn plain(
        &self,
        incoming: &mut Incoming,
        into: &mut [u8],
        patience: Duration,
    ) -> Result<Option<usize>, NetError> {
        if self.tls.is_none() && incoming.raw().is_empty() && into.len() >= PART {
            return self.socket.read(into, patience);
        }
        let n = self.decode(incoming, into)?;
        if n > 0 {
            return Ok(Some(n));
        }
        if !incoming.fill(&self.socket, patience)? {
            return Ok(None);
        }
        self.decode(incoming, into).map(Some)
    }

    /// Takes what it can from what was read.
    fn decode(&self, incoming: &mut Incoming, into: &mut [u8]) -> Result<usize, NetError> {
        let mut raw = incoming.raw();
        let taken = match &self.tls {
            Some(tls) => tls.decrypt(&mut raw, into),
            None => {
                let n = raw.len().min(into.len());
                let (taken, rest) = raw.split_at(n);
                into[..n].copy_from_slice(taken);
                raw = rest;
                Ok(n)
            }
        };
        let left = raw.len();
        incoming.keep(left);
        if taken.as_ref().is_err_and(|e| !matches!(e, NetError::Closed))
            && let (Some(tls), Some(mut outgoing)) = (&self.tls, try_lock(&self.outgoing))
        {
            // An alert that says what was wrong.
            tls.flush(false, &mut outgoing.out);
            let _ = self.socket.write(&outgoing.out[outgoing.taken..], INSTANT);
            outgoing.broken = true;
        }
        taken
    }
}
