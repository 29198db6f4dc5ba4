//! One file per protocol: the mathematics of both parties, messages in and messages out, no sockets.
//!
//! Party 0 owns the model, party 1 the input. A value `y` in a ring of `k` bits is masked: party 0 holds
//! `Δ = y + m mod 2^k`, party 1 holds `m`. An activation is one round trip: party 0 sends a *question*
//! per element, both parties get shares mod 2^Q, truncate them locally, and party 1's *answer* is its
//! share plus a fresh mask.

pub mod linear;
pub mod phase;
pub mod polynomial;
pub mod square;
pub mod truncate;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod view_tests;

use ir::plan::{MOST_DEGREE, Step, StepOp};
use ir::ring::{Packer, Unpacker};

/// Widths of the words that party 0 sends for one element of an activation step, each at most 64 bits;
/// they sum to [`Plan::question_bits`](ir::plan::Plan::question_bits). Empty for other steps.
pub fn question_widths(op: &StepOp) -> Widths {
    let mut widths = Widths { all: [0; MOST_WORDS], count: 0 };
    match op {
        StepOp::Phase(phase) => widths.push(phase.p),
        StepOp::Square(square) => widths.push(square.p + 2),
        StepOp::Polynomial { square, degree } => {
            for _ in 1..*degree {
                widths.push(square.q.min(64));
                if square.q > 64 {
                    widths.push(square.q - 64);
                }
            }
            widths.push(1);
        }
        _ => {}
    }
    widths
}

/// Words of one element's question at most: two per value, and a bit.
const MOST_WORDS: usize = 2 * MOST_DEGREE as usize;

/// What [`question_widths`] says.
#[derive(Clone, Copy)]
pub struct Widths {
    all: [u32; MOST_WORDS],
    count: usize,
}

impl Widths {
    fn push(&mut self, bits: u32) {
        self.all[self.count] = bits;
        self.count += 1;
    }
}

impl std::ops::Deref for Widths {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        &self.all[..self.count]
    }
}

/// Packs words, `widths.len()` per element, to the bit, in memory that is used again.
pub fn pack_wide(words: &[u64], widths: &[u32], memory: Vec<u8>) -> Vec<u8> {
    let mut packer = Packer::reusing(memory);
    for element in words.chunks_exact(widths.len()) {
        for (&word, &bits) in element.iter().zip(widths) {
            packer.push(word, bits);
        }
    }
    packer.finish()
}

/// Appends what [`pack_wide`] wrote for so many elements to `words`; whether the length is right and the
/// padding zero.
#[must_use]
pub fn unpack_wide(bytes: &[u8], elements: usize, widths: &[u32], words: &mut Vec<u64>) -> bool {
    let bits: usize = widths.iter().map(|&w| w as usize).sum();
    if bytes.len() != (elements * bits).div_ceil(8) {
        return false;
    }
    let mut reader = Unpacker::new(bytes);
    for _ in 0..elements {
        words.extend(widths.iter().map(|&bits| reader.next(bits)));
    }
    reader.is_exhausted()
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
