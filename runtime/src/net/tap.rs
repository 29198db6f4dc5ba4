//! A channel whose messages are seen, or changed, as they pass: for tests of what travels.

use super::{Channel, NetError, Receiving, Sending};

/// A channel with a function on either direction.
pub struct Tap<C, S, R> {
    channel: C,
    on_send: S,
    on_receive: R,
}

impl<C: Channel, S: FnMut(&[u8]) + Send, R: FnMut(&mut Vec<u8>) + Send> Tap<C, S, R> {
    /// Calls `on_send` with every message that leaves, and `on_receive` with every one that arrived.
    pub fn new(channel: C, on_send: S, on_receive: R) -> Self {
        Self { channel, on_send, on_receive }
    }
}

impl<C: Channel, S: FnMut(&[u8]) + Send, R: FnMut(&mut Vec<u8>) + Send> Channel for Tap<C, S, R> {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        let (sending, receiving) = self.channel.halves();
        (Box::new((sending, &mut self.on_send)), Box::new((receiving, &mut self.on_receive)))
    }

    fn keep_alive(&mut self) -> Result<(), NetError> {
        self.channel.keep_alive()
    }
}

impl<S: FnMut(&[u8]) + Send> Sending for (Box<dyn Sending + '_>, &mut S) {
    fn send(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        (self.1)(bytes);
        self.0.send(bytes)
    }
}

impl<R: FnMut(&mut Vec<u8>) + Send> Receiving for (Box<dyn Receiving + '_>, &mut R) {
    fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, NetError> {
        let mut message = self.0.receive(bytes)?;
        (self.1)(&mut message);
        Ok(message)
    }
}
