//! The online phase: one loop over the plan's rounds, for a whole batch.
//!
//! Party 1 sends its masked inputs. In every round party 0 computes the local steps, sends the questions
//! of all activations, and computes its own shares while party 1 answers; then party 1 sends its answers.
//! At the end party 0 sends its side of the output, from which party 1 takes the mask off. Messages are
//! raw, of lengths that follow from plan and batch ([`ir::plan::Message::bytes`]).

mod party0;
mod party1;
#[cfg(test)]
mod tests;

pub use party0::Party0;
pub use party1::Party1;

use crate::Error;
use crate::net::Channel;
use crate::protocol::{pack_batch, unpack_batch};
use ir::Tensor;
use ir::plan::Plan;
use ir::ring::low_mask;

/// A batch of one value: one party's sides, or the values themselves.
type Batch = Vec<Tensor<u64>>;

/// Receives a batch of `step`'s elements as words of `widths`.
fn receive_batch(
    channel: &mut impl Channel,
    plan: &Plan,
    step: usize,
    batch: usize,
    widths: &[u32],
    what: &str,
) -> Result<Vec<Vec<u64>>, Error> {
    let of = &plan.steps[step];
    let elements = of.shape.elements();
    let bits: usize = widths.iter().map(|&w| w as usize).sum();
    let during = || format!("waiting for {what} v{step} ({})", of.name);
    let bytes = channel
        .receive((elements * batch * bits).div_ceil(8))
        .map_err(|e| Error::net(during(), e))?;
    let malformed = || Error::Peer(format!("{what} v{step} has padding bits that are set"));
    unpack_batch(&bytes, batch, elements, widths).ok_or_else(malformed)
}

/// Sends a batch of `step`'s elements.
fn send_batch<'a>(
    channel: &mut impl Channel,
    plan: &Plan,
    step: usize,
    items: impl IntoIterator<Item = &'a [u64]>,
    widths: &[u32],
    what: &str,
) -> Result<(), Error> {
    let during = || format!("sending {what} v{step} ({})", plan.steps[step].name);
    channel.send(&pack_batch(items, widths)).map_err(|e| Error::net(during(), e))
}

/// `words += summand` in the ring of `ring` bits.
fn add(words: &mut [u64], summand: &[u64], ring: u32) {
    words.iter_mut().zip(summand).for_each(|(w, s)| *w = w.wrapping_add(*s) & low_mask(ring));
}

fn missing(step: usize) -> Error {
    Error::Internal(format!("the value of step v{step} is not there"))
}
