//! The online phase: one loop over the plan's rounds, for a whole batch.
//!
//! Party 1 sends its masked inputs. In every round party 0 computes the local steps, sends the openings of all
//! interactive steps, and computes its own shares while party 1 computes its; then party 1 sends its responses.
//! At the end party 0 sends its side of the output, and party 1 subtracts the mask. Messages have no headers; their
//! lengths follow from plan and batch ([`ir::plan::Message::bytes`]).
//!
//! A value of a batch is one vector of narrow words, item after item, in the order of [`crate::layout`], on the wire as
//! well. Correlations are brought into this order before they are needed (`feed.rs`), so that the loop itself consists
//! of products ([`crate::kernel`]) and passes at the speed of memory.
//!
//! Long messages are sent in parts: while the next part of an opening is computed, the last one travels and party 1
//! responds to it; a second thread of party 0 receives the responses. Short messages, as in one small inference, are
//! sent whole. Each sender decides how to divide its messages; the bytes are the same.
//!
//! Party 0 computes behind an interface (`device.rs`), which other devices can implement; `host` is this machine.

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
mod sizes;
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
