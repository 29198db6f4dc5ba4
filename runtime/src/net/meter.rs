//! Counts what passes through a channel.

use super::{Channel, NetError, Receiving, Sending};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What one party sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages sent.
    pub sent_messages: usize,
    /// Bytes sent.
    pub sent_bytes: usize,
    /// Messages received.
    pub received_messages: usize,
    /// Bytes received.
    pub received_bytes: usize,
}

/// A channel that counts.
pub struct Meter<C> {
    channel: C,
    traffic: Traffic,
}

impl<C: Channel> Meter<C> {
    /// Starts counting at zero.
    pub fn new(channel: C) -> Self {
        Self { channel, traffic: Traffic::default() }
    }

    /// What was counted since the last call; counting starts again at zero.
    pub fn take(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }
}

impl<C: Channel> Channel for Meter<C> {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        let (sending, receiving) = self.channel.halves();
        let Traffic { sent_messages, sent_bytes, received_messages, received_bytes } =
            &mut self.traffic;
        let sending = MeteredSending { half: sending, messages: sent_messages, bytes: sent_bytes };
        let receiving = MeteredReceiving {
            half: receiving,
            messages: received_messages,
            bytes: received_bytes,
        };
        (Box::new(sending), Box::new(receiving))
    }

    fn keep_alive(&mut self) -> Result<(), NetError> {
        self.channel.keep_alive()
    }
}

struct MeteredSending<'a> {
    half: Box<dyn Sending + 'a>,
    messages: &'a mut usize,
    bytes: &'a mut usize,
}

impl Sending for MeteredSending<'_> {
    fn send_part(&mut self, part: &[u8], ends: bool) -> Result<(), NetError> {
        self.half.send_part(part, ends)?;
        *self.messages += usize::from(ends);
        *self.bytes += part.len();
        Ok(())
    }
}

struct MeteredReceiving<'a> {
    half: Box<dyn Receiving + 'a>,
    messages: &'a mut usize,
    bytes: &'a mut usize,
}

impl Receiving for MeteredReceiving<'_> {
    fn receive_part(&mut self, part: &mut [u8], ends: bool) -> Result<(), NetError> {
        self.half.receive_part(part, ends)?;
        *self.messages += usize::from(ends);
        *self.bytes += part.len();
        Ok(())
    }
}

/// What passed a socket, in either direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Bytes written.
    pub sent: u64,
    /// Bytes read.
    pub received: u64,
    /// Bytes of messages among those written.
    pub sent_payload: u64,
    /// Bytes of messages among those read.
    pub received_payload: u64,
    /// Beats sent.
    pub sent_beats: u64,
    /// Beats received.
    pub received_beats: u64,
}

impl Wire {
    /// Bytes of both directions that are no messages: frames, beats, records and handshake of TLS.
    pub fn overhead(&self) -> u64 {
        (self.sent + self.received).saturating_sub(self.sent_payload + self.received_payload)
    }
}

/// Counts what passes a socket. A copy counts the same.
#[derive(Clone)]
pub struct WireMeter(Arc<Counters>);

impl WireMeter {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self(counters)
    }

    /// What was counted so far.
    pub fn read(&self) -> Wire {
        let Counters { sent, received, sent_payload, received_payload, sent_beats, received_beats } =
            &*self.0;
        Wire {
            sent: sent.load(Relaxed),
            received: received.load(Relaxed),
            sent_payload: sent_payload.load(Relaxed),
            received_payload: received_payload.load(Relaxed),
            sent_beats: sent_beats.load(Relaxed),
            received_beats: received_beats.load(Relaxed),
        }
    }
}

/// [`Wire`], counted from several threads.
#[derive(Default)]
pub(super) struct Counters {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    pub sent_payload: AtomicU64,
    pub received_payload: AtomicU64,
    pub sent_beats: AtomicU64,
    pub received_beats: AtomicU64,
}
