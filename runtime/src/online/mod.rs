//! The online phase: one loop over the plan's rounds, for a whole batch.
//!
//! Party 1 sends its masked inputs. In every round party 0 computes the local steps, sends the openings of all
//! interactive steps, and computes its own shares while party 1 computes its; then party 1 sends its responses.
//! At the end party 0 sends its side of the output, from which party 1 takes the mask off. Messages are
//! raw, of lengths that follow from plan and batch ([`ir::plan::Message::bytes`]).
//!
//! A value of a batch is one vector of narrow words, item after item, in the order of [`crate::layout`],
//! on the wire as well. What correlations need of reordering is done before the phase begins (`feed.rs`),
//! so that in it the computation is the products ([`crate::kernel`]) and passes at the speed of memory.
//!
//! Long messages leave in parts: a part of a layer's opening is on its way, and answered, while the next
//! is computed, and party 0 takes responses from a thread of its own meanwhile. What the loop asks of party 0's
//! computation is a seam (`device.rs`), behind which another device can stand. Short ones, which are the
//! rule for one small inference, leave whole. Where a message is cut is each sender's own affair; its
//! bytes are the same.

mod device;
mod feed;
mod host;
mod known;
mod local;
mod messages;
mod model;
mod party0;
mod party1;
mod schedule;
#[cfg(test)]
mod tests;

pub use model::Model;
pub use party0::Party0;
pub use party1::Party1;

use crate::Error;
use crate::net::NetError;

/// The system has no thread for a part of the work.
fn no_thread(cause: std::io::Error) -> Error {
    Error::net("starting a thread", NetError::Io(cause))
}

fn missing(step: usize) -> Error {
    Error::Internal(format!("the value of step v{step} is not there"))
}
