//! The online phase: one loop over the plan's rounds, for a whole batch.
//!
//! Party 1 sends its masked inputs. In every round party 0 computes the local steps, sends the questions
//! of all activations, and computes its own shares while party 1 answers; then party 1 sends its answers.
//! At the end party 0 sends its side of the output, from which party 1 takes the mask off. Messages are
//! raw, of lengths that follow from plan and batch ([`ir::plan::Message::bytes`]).
//!
//! A value of a batch is one vector of narrow words, item after item, in the order of [`crate::layout`],
//! on the wire as well. What correlations need of reordering is done before the phase begins (`stock.rs`),
//! so that in it the computation is the products ([`crate::kernel`]) and passes at the speed of memory.

mod local;
mod model;
mod party0;
mod party1;
mod stock;
#[cfg(test)]
mod tests;

pub use model::Model;
pub use party0::Party0;
pub use party1::Party1;

use crate::Error;
use crate::net::Channel;
use crate::protocol::{pack_batch, unpack_batch};
use crate::wire;
use ir::op::matrix::Word;
use ir::plan::Plan;
use rayon::prelude::*;

/// Receives a step's elements of `bits` bits each into `words`, `word = combine(word, element)`.
fn receive_words<W: Word>(
    channel: &mut impl Channel,
    plan: &Plan,
    step: usize,
    bits: u32,
    words: &mut [W],
    combine: impl Fn(W, W) -> W,
    what: &str,
) -> Result<(), Error> {
    let bytes = receive(channel, plan, step, ir::ring::packed_bytes(words.len(), bits), what)?;
    if wire::unpack(&bytes, bits, words, combine) {
        return Ok(());
    }
    Err(padding(step, what))
}

/// Receives `elements` elements of a step as words of `widths`.
fn receive_wide(
    channel: &mut impl Channel,
    plan: &Plan,
    step: usize,
    elements: usize,
    widths: &[u32],
    what: &str,
) -> Result<Vec<u64>, Error> {
    let bits: usize = widths.iter().map(|&w| w as usize).sum();
    let bytes = receive(channel, plan, step, (elements * bits).div_ceil(8), what)?;
    let items = unpack_batch(&bytes, 1, elements, widths);
    items.and_then(|mut items| items.pop()).ok_or_else(|| padding(step, what))
}

fn receive(
    channel: &mut impl Channel,
    plan: &Plan,
    step: usize,
    bytes: usize,
    what: &str,
) -> Result<Vec<u8>, Error> {
    let during = || format!("waiting for {what} v{step} ({})", plan.steps[step].name);
    channel.receive(bytes).map_err(|e| Error::net(during(), e))
}

fn padding(step: usize, what: &str) -> Error {
    Error::Peer(format!("{what} v{step} has padding bits that are set"))
}

/// Sends a step's elements of `bits` bits each.
fn send_words<W: Word>(
    channel: &mut impl Channel,
    plan: &Plan,
    step: usize,
    bits: u32,
    words: &[W],
    what: &str,
) -> Result<(), Error> {
    send(channel, plan, step, &wire::pack(words, bits), what)
}

/// Sends a step's elements as words of `widths`.
fn send_wide(
    channel: &mut impl Channel,
    plan: &Plan,
    step: usize,
    words: &[u64],
    widths: &[u32],
    what: &str,
) -> Result<(), Error> {
    send(channel, plan, step, &pack_batch([words], widths), what)
}

fn send(
    channel: &mut impl Channel,
    plan: &Plan,
    step: usize,
    bytes: &[u8],
    what: &str,
) -> Result<(), Error> {
    let during = || format!("sending {what} v{step} ({})", plan.steps[step].name);
    channel.send(bytes).map_err(|e| Error::net(during(), e))
}

/// Elements below which another core is not worth its waking.
const PART: usize = 1 << 17;

/// Calls `run` with parts of `out`, `question` and `products` (`per` entries per element), on as many
/// cores as their size is worth. Parts begin at multiples of `period`.
fn in_parts<Q: Word, W: Word>(
    period: usize,
    per: usize,
    question: &[u16],
    products: &[Q],
    out: &mut [W],
    run: impl Fn(&[u16], &[Q], &mut [W]) + Sync,
) {
    let cores = rayon::current_num_threads().min(out.len() / PART);
    if cores <= 1 {
        return run(question, products, out);
    }
    let part = out.len().div_ceil(cores).next_multiple_of(period);
    let parts = out.par_chunks_mut(part).zip(question.par_chunks(part));
    parts
        .zip(products.par_chunks(part * per))
        .for_each(|((out, question), products)| run(question, products, out));
}

fn missing(step: usize) -> Error {
    Error::Internal(format!("the value of step v{step} is not there"))
}
