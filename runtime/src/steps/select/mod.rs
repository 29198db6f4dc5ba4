//! `z = relu(y) >> t`, masked again, in two round trips of few bytes: exact, but that within half a bucket of zero the
//! sign is decided by the mask.
//!
//! *Notation.* Party 0 holds `Δ = y + m mod 2^k`, party 1 holds `m`; the top `p` bits of `m` name its *bucket* `j` of
//! `B = 2^(k−p)`, which begins at `j·B`. The value has `q` bits. All sums of words are mod `2^q`.
//!
//! *Offline.* (a) A random 1-of-`2^p` oblivious transfer (OT) in which party 1's bucket chooses: party 0 has a pad of two bits for every
//! bucket, party 1 that of its own. (b) A random 1-of-4 transfer: party 0 has four pads of `q` bits, party 1 has one and
//! its number, which is its random choice. (c) Party 0 has two bits `c₀`; the parties share `c₀₀·(m >> t)` of the first of
//! them. All three come of correlated transfers: `p` for (a), two for (b), and one in the other direction for (c), whose
//! random choice is `c₀₀`. Every entry of (a) and (b) takes lanes of its own from every key of it, so that a key
//! which party 1 lacks hides it, whatever the others are: [`offline`].
//!
//! *Round trip 1.* Party 0 sends, for every bucket, `[y > 0]` and `[y > 0 and y + m wrapped]` as they are if `m` lies in
//! the middle of it, XOR `c₀`, XOR the pads. Party 1 reads its entry: `c₁`, its half of both bits `b ⊕ = c₀ ⊕ c₁`. It
//! returns `c₁` XOR its random choice, the *turn*.
//!
//! *Round trip 2.* `z = b·(Δ >> t) + v·2^(k−t) − b·(m >> t)`, where `v` says whether it wrapped. For each of the four
//! halves that party 1 may have, party 0 makes its part of that, plus a random `ρ`, under the pad of the number that this half
//! has after the turn. It takes the `ρ` that makes the word of number 0 zero, and sends the other three. Party 1 takes off its pad, adds
//! its own part, and returns its share under its fresh mask; party 0 takes `ρ` off.
//!
//! *Why it is right.* Only a `y` within half a bucket of zero, or of the ring's end, can be taken for the other side;
//! the wrap is exact, since party 0 knows `Δ`. *Views.* Party 1: entries under pads that it lacks, its own masked by `c₀`, words under
//! pads, its own masked by `ρ`. Party 0: the turn, masked by a choice that it does not know, and a word under a fresh mask. All
//! uniform. *Cost* per element: `2·2^p + 3q` bits to party 1, `2 + q` back; without a wrap `2^p + q` and `1 + q`.

mod ideal;
pub mod offline;
mod online;
mod record;
mod table;

pub use ideal::deal;
pub(in crate::steps) use online::words_kept;
pub use online::{Opening, Responding};
pub use record::{Record0, Record1};

use ir::plan::Select;
use ir::ring::low_mask;

/// Party 1's bucket.
#[inline(always)]
pub fn bucket(select: &Select, m: u64) -> u64 {
    (m & low_mask(select.k)) >> (select.k - select.p)
}

/// What of party 1's mask is dropped from the value.
#[inline(always)]
pub fn shifted_mask(select: &Select, m: u64) -> u64 {
    (m & low_mask(select.k)) >> select.t
}

/// The bits of a bucket's entry of a table whose value has `ring` bits; neither an address nor a branch depends on
/// which.
pub fn entry(select: &Select, ring: u32, table: &[u64], bucket: u64) -> u64 {
    let numbers = (0..select.entry_bits(ring)).map(|half| bucket as u32 + (half << select.p));
    numbers.zip(0..).fold(0, |all, (number, half)| all | table::bit(table, number) << half)
}
