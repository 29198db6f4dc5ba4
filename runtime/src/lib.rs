//! The runtime `polyrt`: a plan and one party's secrets make an answer.
//!
//! A session goes `Connected → Agreed → Prepared → Finished` ([`session`]). Its correlations are
//! preprocessed with the peer ([`preprocess`]), now or before, or dealt; [`preprocess::store`] keeps them. The kinds of
//! steps are in [`steps`], a module for each with both parties' code; [`net`] moves bytes.
//!
//! Security is against semi-honest parties. Party 0 sees uniformly masked values; party 1 sees one-time
//! masked openings and the output. The plan is public.

pub mod error;
pub mod handshake;
pub mod in_process;
pub mod kernel;
pub mod layout;
pub mod net;
pub mod online;
pub mod preprocess;
pub mod secret;
pub mod session;
#[cfg(test)]
mod session_tests;
pub mod steps;
#[cfg(test)]
mod testing;
pub mod wire;
pub mod words;

pub use error::Error;
pub use in_process::{InMemory, run_in_memory};
pub use session::{Agreed, Connected, Finished, Prepared};
