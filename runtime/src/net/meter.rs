//! Counts what passes through a channel.

use super::{Channel, NetError, Receiving, Sending};

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
}

struct MeteredSending<'a> {
    half: Box<dyn Sending + 'a>,
    messages: &'a mut usize,
    bytes: &'a mut usize,
}

impl Sending for MeteredSending<'_> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        self.half.send(bytes)?;
        *self.messages += 1;
        *self.bytes += bytes.len();
        Ok(())
    }
}

struct MeteredReceiving<'a> {
    half: Box<dyn Receiving + 'a>,
    messages: &'a mut usize,
    bytes: &'a mut usize,
}

impl Receiving for MeteredReceiving<'_> {
    fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, NetError> {
        let message = self.half.receive(bytes)?;
        *self.messages += 1;
        *self.bytes += message.len();
        Ok(message)
    }
}
