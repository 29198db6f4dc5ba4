//! A channel whose messages are seen, or changed, as they pass: for tests of what travels.

use super::{Channel, NetError, Receiving, Sending};

/// A channel with a function on either direction.
pub struct Tap<C, S, R> {
    channel: C,
    on_send: S,
    on_receive: R,
    /// The parts of a message that leaves.
    leaving: Vec<u8>,
}

impl<C: Channel, S: FnMut(&[u8]) + Send, R: FnMut(&mut Vec<u8>) + Send> Tap<C, S, R> {
    /// Calls `on_send` with every message that left, and `on_receive` with every part of one that arrived.
    pub fn new(channel: C, on_send: S, on_receive: R) -> Self {
        Self { channel, on_send, on_receive, leaving: vec![] }
    }
}

impl<C: Channel, S: FnMut(&[u8]) + Send, R: FnMut(&mut Vec<u8>) + Send> Channel for Tap<C, S, R> {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        let (sending, receiving) = self.channel.halves();
        let sending = TapSending(sending, &mut self.on_send, &mut self.leaving);
        (Box::new(sending), Box::new((receiving, &mut self.on_receive)))
    }

    fn keep_alive(&mut self) -> Result<(), NetError> {
        self.channel.keep_alive()
    }
}

struct TapSending<'a, S>(Box<dyn Sending + 'a>, &'a mut S, &'a mut Vec<u8>);

impl<S: FnMut(&[u8]) + Send> Sending for TapSending<'_, S> {
    fn send_part(&mut self, part: &[u8], ends: bool) -> Result<(), NetError> {
        self.2.extend_from_slice(part);
        if ends {
            (self.1)(self.2);
            self.2.clear();
        }
        self.0.send_part(part, ends)
    }
}

impl<R: FnMut(&mut Vec<u8>) + Send> Receiving for (Box<dyn Receiving + '_>, &mut R) {
    fn receive_part(&mut self, part: &mut [u8], ends: bool) -> Result<(), NetError> {
        self.0.receive_part(part, ends)?;
        let mut changed = part.to_vec();
        (self.1)(&mut changed);
        part.copy_from_slice(&changed);
        Ok(())
    }
}
