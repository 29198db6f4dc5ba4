//! The two parties preprocess correlations with each other, and nobody else.
//!
//! A session of the offline phase begins with a setup (keys of the encryption, base transfers), then
//! preprocesses groups of items: both parties walk the same [`Schedule`](ir::plan::OfflineSchedule), exchange by exchange,
//! whatever the kinds of the steps ([`crate::steps::exchange`]). Messages are sent from a thread of their own, so that a
//! party computes the next one while the last one travels, and neither party waits for the other to read; the
//! schedule's window bounds what is under way.
//!
//! ```text
//! setup    both: nonce and base point (party 1: and its public keys) | points | seeds
//! group    the schedule's exchanges, in the order of its actions
//! ```

#[cfg(test)]
mod hostile_tests;
mod party0;
mod party1;
mod shares;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod view_parts;
#[cfg(test)]
mod view_tests;

pub use party0::preprocess as party0;
pub use party1::preprocess as party1;

use super::Role;
use super::expand::Seed;
use super::transfer::{Transfers, setup};
use crate::Error;
use crate::net::{Channel, Receiving};
use std::sync::mpsc;

/// What is told of the work under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items that are done.
    pub items: usize,
    /// Bytes that travelled, both ways.
    pub bytes: usize,
    /// Bytes that will have travelled in all.
    pub of_bytes: usize,
}

/// Receives [`Progress`].
pub type Observer<'a> = &'a mut dyn FnMut(Progress);

/// Sends messages in order from a thread of its own, receives the peer's, and reports the progress.
struct Messenger<'a> {
    outgoing: mpsc::Sender<Vec<u8>>,
    incoming: Box<dyn Receiving + 'a>,
    progress: Progress,
    observer: Observer<'a>,
}

impl Messenger<'_> {
    /// Runs `work` over a channel; its messages are sent when this returns.
    fn over<T>(
        channel: &mut impl Channel,
        observer: Observer<'_>,
        of_bytes: usize,
        work: impl FnOnce(&mut Messenger<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (mut sending, incoming) = channel.halves();
        let (outgoing, queue) = mpsc::channel::<Vec<u8>>();
        let progress = Progress { of_bytes, ..Progress::default() };
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || queue.iter().try_for_each(|m| sending.send(&m)));
            let mut messenger = Messenger { outgoing, incoming, progress, observer };
            let result = work(&mut messenger);
            drop(messenger);
            let sent = writer.join();
            let sent = sent.map_err(|_| Error::Internal("the sending thread stopped".into()))?;
            match (result, sent) {
                // What could not be sent is why nothing came back, or came of another reason to end.
                (Ok(_) | Err(Error::Net { .. }), Err(cause)) => {
                    Err(Error::net("sending in the offline phase", cause))
                }
                (result, _) => result,
            }
        })
    }

    fn send(&mut self, message: Vec<u8>) {
        self.moved(message.len());
        // A writer that stopped has the reason; the next receive ends, and it is told then.
        let _ = self.outgoing.send(message);
    }

    fn receive(&mut self, bytes: usize, during: &str) -> Result<Vec<u8>, Error> {
        let message = self.incoming.receive(bytes).map_err(|e| Error::net(during, e))?;
        self.moved(bytes);
        Ok(message)
    }

    fn moved(&mut self, bytes: usize) {
        self.progress.bytes += bytes;
        (self.observer)(self.progress);
    }

    fn done(&mut self, items: usize) {
        self.progress.items += items;
        (self.observer)(self.progress);
    }
}

/// The setup of the transfers; `keys` follow this party's first message, `peer_keys` bytes of keys follow
/// the peer's.
fn set_up(
    messenger: &mut Messenger<'_>,
    role: Role,
    keys: Vec<u8>,
    peer_keys: usize,
) -> Result<(Transfers, Vec<u8>), Error> {
    let during = "setting up the offline phase";
    let refused = |e: super::transfer::TransferError| Error::Peer(e.to_string());
    let (begun, mut message) = setup::begin(role, Seed::from_system()?);
    message.extend(keys);
    messenger.send(message);
    let peer = messenger.receive(setup::BEGIN_BYTES + peer_keys, during)?;
    let (first, keys) = peer.split_at(setup::BEGIN_BYTES);
    let (chosen, message) = begun.choose(first).map_err(refused)?;
    messenger.send(message);
    let peer = messenger.receive(setup::POINTS_BYTES, during)?;
    let (grown, message) = chosen.grow(&peer).map_err(refused)?;
    messenger.send(message);
    let peer = messenger.receive(setup::SEEDS_BYTES, during)?;
    Ok((grown.finish(&peer).map_err(refused)?, keys.to_vec()))
}

/// Fresh seeds of a group's items.
fn item_seeds(count: usize) -> Result<Vec<Seed>, Error> {
    #[cfg(test)]
    if let Some(seeds) = view_tests::insecure_fixed_seeds(count) {
        return Ok(seeds);
    }
    Ok((0..count).map(|_| Seed::from_system()).collect::<Result<_, _>>()?)
}

/// The sizes of the groups of `count` items.
fn groups(plan: &ir::plan::Plan, count: usize) -> impl Iterator<Item = usize> {
    let size = plan.group(count);
    (0..count).step_by(size).map(move |done| size.min(count - done))
}
