//! Counts what passes through a channel.

use super::{Channel, NetError};

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
    fn send(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        self.channel.send(bytes)?;
        self.traffic.sent_messages += 1;
        self.traffic.sent_bytes += bytes.len();
        Ok(())
    }

    fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, NetError> {
        let message = self.channel.receive(bytes)?;
        self.traffic.received_messages += 1;
        self.traffic.received_bytes += message.len();
        Ok(message)
    }
}
