//! The products of activations, made by the two parties alone from [`Transfers`](super::transfer): one
//! file per kind of step. Each is an exchange about a chunk of a step's elements: party 1 sends, party 0
//! answers and has its shares, party 1 finishes (and where party 0 chose in transfers of its own, sends
//! once more). Shares and their order are those of [`crate::protocol`], whose `products` are the ideal
//! functionality; lengths are those of [`ir::plan::offline`].

pub mod phase;
