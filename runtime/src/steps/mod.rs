//! A module for every kind of step that takes more than local public arithmetic: its ideal functionality, its
//! correlations, the exchanges that preprocess them, and both parties' computation online. Mathematics alone:
//! messages in, messages out, no sockets. The loops of [`crate::preprocess`] and [`crate::online`] know no kinds; the
//! only matches over all of them are here, in `exchange.rs` and `online.rs`.
//!
//! Party 0 owns the model, party 1 the input. A value `y` in a ring of `k` bits is masked: party 0 holds
//! `Δ = y + m mod 2^k`, party 1 holds `m`. In a round trip party 0 sends a masked *opening* of every element, both
//! parties get shares mod 2^Q, truncate them locally, and party 1's *response* is its share plus a fresh mask.

pub mod exchange;
pub mod linear;
mod online;
pub mod phase;
pub mod polynomial;
pub mod reverse;
pub mod select;
pub mod square;
pub mod table;
pub mod truncate;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod view_tests;

pub use online::{
    Kept, KeptWord, Opener, Opening, Parts0, Parts1, Prepared, Record0, Record1, Responder,
    Responding, kept, needs_masks, record0, record1,
};
pub use phase::{TableDigest, Tables};

pub(crate) use online::each_kind;

use crate::preprocess::expand::{Domain, Seed};
use crate::secret::Elements;
use crate::words::{WordsMut, each_slice};
use ir::Tensor;
use ir::plan::{Interactive, Plan, Step, StepOp, StepWeights};
use ir::ring::{low_mask, pack};
use ir::word::{Word, vectorized};

/// What a dealer makes a step's correlation of.
pub struct Dealing<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Which step.
    pub index: usize,
    /// Its weights.
    pub secrets: &'a StepWeights,
    /// Party 0's seed.
    pub party0: &'a Seed,
    /// Party 1's, from which its fields expand.
    pub party1: &'a Seed,
}

/// Party 0's fields of a dealt correlation, packed, for party 1's masks of the operands and of the value, and those of
/// party 1 that do not [expand](ir::plan::Protocol::expands); empty for steps without.
pub fn deal(dealing: &Dealing<'_>, operands: &[&Tensor<u64>], mask: &Tensor<u64>) -> [Vec<u8>; 2] {
    let party0 = match &dealing.plan.steps[dealing.index].op {
        StepOp::Input | StepOp::Constant | StepOp::Local(_) => vec![],
        StepOp::Linear(_) => linear::deal(dealing, operands, mask),
        StepOp::Interactive(Interactive::Phase(kind)) => phase::deal(kind, dealing, operands),
        StepOp::Interactive(Interactive::Square(kind)) => square::deal(kind, dealing, operands),
        StepOp::Interactive(Interactive::Polynomial(kind)) => {
            polynomial::deal(kind, dealing, operands)
        }
        StepOp::Interactive(Interactive::Select(kind)) => select::deal(kind, dealing, operands),
        StepOp::Interactive(Interactive::Table(kind)) => {
            return table::deal(kind, dealing, operands);
        }
    };
    [party0, vec![]]
}

/// Party 0's shares mod 2^Q of products of which party 1 has the first field, packed.
fn pack_difference(mut products: Elements, dealing: &Dealing<'_>, q: u32) -> Vec<u8> {
    let (index, party1) = (dealing.index, dealing.party1);
    let shares = party1.elements(index, Domain::of_field(0), products.len(), q);
    let pairs = products.iter_mut().zip(shares.iter());
    pairs.for_each(|(p, s)| *p = p.wrapping_sub(*s) & low_mask(q));
    pack(&products, q)
}

/// Writes shares.
fn put_shares(out: WordsMut<'_>, shares: impl Iterator<Item = u64>) {
    each_slice!(WordsMut, out, out => vectorized(
        #[inline(always)]
        || out.iter_mut().zip(shares).for_each(|(out, share)| *out = Word::low(share)),
    ));
}

/// Adds shares of a ring of `ring` bits.
fn add_shares(out: WordsMut<'_>, ring: u32, shares: impl Iterator<Item = u64>) {
    let ring = low_mask(ring);
    each_slice!(WordsMut, out, out => vectorized(
        #[inline(always)]
        || for (out, share) in out.iter_mut().zip(shares) {
            *out = Word::low(out.element().wrapping_add(share) & ring);
        },
    ));
}

/// Where an element's per-channel secrets stand, in the order of elements online.
pub(crate) fn online_row<'a, T>(rows: &'a [T], step: &Step, element: usize) -> &'a T {
    ir::plan::per_channel(rows, crate::layout::channel_of(&step.shape, element))
}

/// Where an element's per-channel secrets stand, in the row-major order of the offline phase.
pub(crate) fn row<'a, T>(rows: &'a [T], step: &Step, element: usize) -> &'a T {
    ir::plan::per_channel(rows, step.shape.channel_of(element))
}

/// `−1` where the bit is set, `1` where it is not, in Z_2^64.
fn sign(bit: u64) -> u64 {
    1u64.wrapping_sub(bit << 1)
}

/// `value · 2^by` in Z_2^64 for any `by`.
fn shift_left(value: u64, by: u32) -> u64 {
    value.checked_shl(by).unwrap_or(0)
}
