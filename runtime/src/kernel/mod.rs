//! Products of party 0's small signed weights with ring elements: convolutions, matrix products and
//! elementwise products, exact in Z_2^k, in storage with the channels last.
//!
//! One meaning, [`portable`], and faster kernels that equal it bit for bit, chosen at run time:
//!
//! | rings | AVX-512 VNNI | AVX2 | elsewhere |
//! | --- | --- | --- | --- |
//! | 1 to 16 | words | words | portable, 16-bit words |
//! | 17 to 24 | words and bytes, for weights of 8 bits | two words | portable, 32-bit words |
//! | 17 to 32 | two words, for weights up to 16 bits | two words | portable, 32-bit words |
//! | 33 to 64 | portable | portable | portable, 64-bit words |
//!
//! Convolutions whose channels are groups of their own are products along the channels, for which the
//! portable kernel is as good as any. Weights are packed once per plan; images are copied into a border
//! of zeros, unless they need none, and no other copy of their inputs is made ([`walk`]). The products
//! are added to what the output holds: the bias less party 0's share of `W·r`.
//!
//! A batch is worked on in chunks of items that share the weights in cache. Chunks, and places of one
//! chunk where it is large, go to all cores.

pub mod portable;
pub mod sums;
pub mod walk;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod lines;
#[cfg(target_arch = "x86_64")]
pub(crate) mod pack_bmi2;
#[cfg(target_arch = "x86_64")]
mod sums_avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod unpack_vbmi;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(test)]
mod tests;

use crate::words::{Words, each_width};
use ir::Shape;
use ir::op::matrix::{Word, vectorized};
use ir::plan::{Step, StepOp};
use ir::ring::low_mask;
use portable::PortableWeights;
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;
use walk::Walk;
use zeroize::{Zeroize, Zeroizing};

/// A set of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// Whatever the compiler makes of safe Rust.
    Portable,
    /// 256-bit vectors of x86.
    Avx2,
    /// 512-bit vectors of x86 with products of words and bytes.
    Vnni,
}

impl InstructionSet {
    /// What this machine has, the fastest last.
    pub fn available() -> Vec<Self> {
        let mut sets = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if avx2::is_available() {
                sets.push(Self::Avx2);
            }
            if vnni::is_available() {
                sets.push(Self::Vnni);
            }
        }
        sets
    }

    /// The fastest that this machine has.
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }
}

/// A step with secret weights, packed for this machine. Wiped when dropped.
pub struct PackedLinear {
    walk: Walk,
    ring: u32,
    weights: Packed,
}

enum Packed {
    /// One factor per element, in the order of the elements.
    Diagonal(Zeroizing<Vec<i32>>),
    Words16(PortableWeights<u16>),
    Words32(PortableWeights<u32>),
    Words64(PortableWeights<u64>),
    #[cfg(target_arch = "x86_64")]
    Avx2(lines::LineWeights),
    #[cfg(target_arch = "x86_64")]
    Vnni(lines::LineWeights),
}

/// Memory that is read soon: a hint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead {
    address: usize,
    bytes: usize,
}

impl Ahead {
    /// The words, or as many of the first of them as leave room in a core's cache.
    pub fn of(words: &Words) -> Self {
        const MOST: usize = 1 << 19;
        each_width!(words, words => {
            Self { address: words.as_ptr().addr(), bytes: size_of_val(&words[..]).min(MOST) }
        })
    }
}

/// Products per task below which another core is not worth its waking.
const TASK: usize = 1 << 22;
/// Places of a chunk of items, where there are as many.
const CHUNK: usize = 192;

impl PackedLinear {
    /// Packs the weights of a step, given in ONNX's order; a diagonal's in the order of the elements.
    /// `None` for steps without secret weights.
    pub fn new(set: InstructionSet, step: &Step, operand: &Shape, weights: &[i32]) -> Option<Self> {
        let elements = step.shape.elements();
        let last = |shape: &Shape| shape.0.last().copied().unwrap_or(1);
        let walk = match &step.op {
            StepOp::Convolution { geometry, .. } => {
                Walk::convolution(geometry, operand, &step.shape)
            }
            StepOp::MatrixProduct { .. } => {
                let outputs = last(&step.shape);
                Walk::matrix_product(elements / outputs, last(operand), outputs)
            }
            StepOp::Diagonal { .. } => Walk::matrix_product(1, elements, elements),
            _ => return None,
        };
        let weights = match step.op {
            StepOp::Diagonal { .. } => Packed::Diagonal(Zeroizing::new(weights.to_vec())),
            _ => pack(set, &walk, weights, step.ring),
        };
        Some(Self { walk, ring: step.ring, weights })
    }

    /// Adds `W·x` to `out` and reduces, for the items of a batch one after another. The words of `x` are
    /// at least as wide as those of `out`, which are the ring's.
    ///
    /// # Panics
    /// If `x` and `out` are not the same whole number of items, or `out` has words of another ring.
    pub fn apply(&self, x: &Words, out: &mut Words) {
        self.apply_and_fetch(x, out, Ahead::default());
    }

    /// As [`Self::apply`]; brings memory that is read next into the cache meanwhile.
    ///
    /// # Panics
    /// As [`Self::apply`].
    pub fn apply_and_fetch(&self, x: &Words, out: &mut Words, ahead: Ahead) {
        match (&self.weights, out) {
            (Packed::Diagonal(factors), out) => each_width!(out, out => {
                let mask = Word::low(low_mask(self.ring));
                each_width!(x, x => diagonal(factors, x, out, mask));
            }),
            (Packed::Words16(weights), Words::W16(out)) => self.portable(weights, x, out),
            (Packed::Words32(weights), Words::W32(out)) => self.portable(weights, x, out),
            (Packed::Words64(weights), Words::W64(out)) => self.portable(weights, x, out),
            #[cfg(target_arch = "x86_64")]
            (Packed::Avx2(weights), Words::W16(out)) => {
                self.lines(avx2::apply, weights, x, out, ahead)
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Avx2(weights), Words::W32(out)) => {
                self.lines(avx2::apply, weights, x, out, ahead)
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Vnni(weights), Words::W16(out)) => {
                self.lines(vnni::apply, weights, x, out, ahead)
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Vnni(weights), Words::W32(out)) => {
                self.lines(vnni::apply, weights, x, out, ahead)
            }
            _ => panic!("words of another ring than of {} bits", self.ring),
        }
    }

    fn portable<W: Word + Zeroize>(&self, weights: &PortableWeights<W>, x: &Words, out: &mut [W]) {
        let mask = W::low(low_mask(self.ring));
        self.chunks(x, out, |items, out, tasks| {
            let mut planes = Vec::new();
            each_width!(x, x => {
                self.walk.surround(&x[items], &mut planes, |v| W::low(v.element()));
            });
            self.parts(out, tasks, |places, out| {
                weights.apply(&self.walk, &planes, places, out, mask);
            });
        });
    }

    #[cfg(target_arch = "x86_64")]
    fn lines<W: Word>(
        &self,
        kernel: fn(&lines::Job<'_>, Range<usize>, &mut [W], W),
        weights: &lines::LineWeights,
        x: &Words,
        out: &mut [W],
        ahead: Ahead,
    ) {
        thread_local!(static SCRATCH: Cell<lines::Scratch> = Cell::default());
        let (mask, walk) = (W::low(low_mask(self.ring)), &self.walk);
        self.chunks(x, out, |items, out, tasks| {
            let mut scratch = SCRATCH.take();
            let items_start = items.start;
            let limbs = match x {
                Words::W16(x) if lines::reads_in_place(walk, weights) => {
                    lines::Limbs::words(&x[items])
                }
                _ => each_width!(x, x => scratch.split(walk, weights, &x[items])),
            };
            let ahead = if tasks == 1 && items_start == 0 { ahead } else { Ahead::default() };
            let job = lines::Job { walk, weights, limbs, ahead };
            self.parts(out, tasks, |places, out| kernel(&job, places, out, mask));
            SCRATCH.set(scratch);
        });
    }

    /// Calls `run` for chunks of items with their elements of `x`, their outputs and a number of cores.
    fn chunks<W: Word>(
        &self,
        x: &Words,
        out: &mut [W],
        run: impl Fn(Range<usize>, &mut [W], usize) + Sync,
    ) {
        let (image, result) =
            (self.walk.input_elements(), self.walk.places() * self.walk.outputs());
        let items = x.len() / image;
        assert!(items * image == x.len() && items * result == out.len(), "items of a batch");
        let threads = rayon::current_num_threads();
        let tasks = (result * self.walk.fan_in() * items / TASK).clamp(1, threads);
        let chunk = CHUNK.div_ceil(self.walk.places()).clamp(1, items.div_ceil(tasks).max(1));
        let of = |(index, out): (usize, &mut [W]), tasks| {
            let first = index * chunk * image;
            run(first..first + out.len() / result * image, out, tasks);
        };
        if tasks == 1 || items <= chunk {
            out.chunks_mut(chunk * result).enumerate().for_each(|part| of(part, tasks));
        } else {
            out.par_chunks_mut(chunk * result).enumerate().for_each(|part| of(part, 1));
        }
    }

    /// Calls `run` for the places of a chunk, split over `tasks` cores.
    fn parts<W: Word>(
        &self,
        out: &mut [W],
        tasks: usize,
        run: impl Fn(Range<usize>, &mut [W]) + Sync,
    ) {
        let outputs = self.walk.outputs();
        let places = out.len() / outputs;
        if tasks == 1 {
            return run(0..places, out);
        }
        let part = places.div_ceil(tasks);
        out.par_chunks_mut(part * outputs).enumerate().for_each(|(index, out)| {
            run(index * part..index * part + out.len() / outputs, out);
        });
    }
}

/// Products of 16-bit words per nanosecond that the registers of one core allow, measured: the floor of
/// the vector kernels. Zero where there are none.
pub fn peak() -> f64 {
    #[cfg(target_arch = "x86_64")]
    if vnni::is_available() {
        return (0..20).map(|_| vnni::peak()).fold(0.0, f64::max);
    }
    0.0
}

fn pack(set: InstructionSet, walk: &Walk, weights: &[i32], ring: u32) -> Packed {
    #[cfg(target_arch = "x86_64")]
    if set != InstructionSet::Portable && !walk.is_depthwise() {
        let is_vnni = set == InstructionSet::Vnni;
        if let Some(lines) = lines::LineWeights::new(walk, weights, ring, is_vnni) {
            return if is_vnni { Packed::Vnni(lines) } else { Packed::Avx2(lines) };
        }
    }
    match ring {
        0..=16 => Packed::Words16(PortableWeights::new(walk, weights)),
        17..=32 => Packed::Words32(PortableWeights::new(walk, weights)),
        _ => Packed::Words64(PortableWeights::new(walk, weights)),
    }
}

/// `out += factors · x` for every item.
fn diagonal<S: Word, W: Word>(factors: &[i32], x: &[S], out: &mut [W], mask: W) {
    assert!(x.len() == out.len() && x.len().is_multiple_of(factors.len()), "items of a batch");
    vectorized(
        #[inline(always)]
        || {
            let items = x.chunks_exact(factors.len()).zip(out.chunks_exact_mut(factors.len()));
            for (x, out) in items {
                for ((out, &x), &w) in out.iter_mut().zip(x).zip(factors) {
                    *out = out.multiply_add(W::low(x.element()), W::weight(w)).and(mask);
                }
            }
        },
    );
}
