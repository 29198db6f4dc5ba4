//! Products of party 0's small signed weights with ring elements: convolutions, matrix products and
//! elementwise products, exact in Z_2^k, in storage with the channels last.
//!
//! One meaning, [`portable`], and faster kernels that equal it bit for bit, chosen at run time:
//!
//! | rings | AMX, weights of 8 bits | AVX-512 VNNI | AVX2 | elsewhere |
//! | --- | --- | --- | --- | --- |
//! | 1 to 16 | two bytes | words | words | portable, 16-bit words |
//! | 17 to 24 | four bytes | words and bytes, for weights of 8 bits | two words | portable, 32-bit words |
//! | 17 to 32 | four bytes | two words, for weights up to 16 bits | two words | portable, 32-bit words |
//! | 33 to 52 | as VNNI | IFMA where it is | portable | portable, 64-bit words |
//! | 53 to 64 | portable | portable | portable | portable, 64-bit words |
//!
//! Large convolutions of 3×3 taps take four ninths of their products, as matrix products of the kernels
//! ([`karatsuba`]). Convolutions whose channels are groups of their own are products along the channels, for which the
//! portable kernel is as good as any. Weights are packed once per plan; images are copied into a border
//! of zeros, unless they need none, and no other copy of their inputs is made ([`walk`]). The products
//! are added to what the output holds: the bias less party 0's share of `W·r`.
//!
//! The output is made part by part ([`Running`]), so that what follows finds it in the cache, and a part
//! may go to several cores; a part is a number of places, of one item or of several.

mod karatsuba;
pub mod portable;
pub mod sums;
pub mod walk;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod ifma;
#[cfg(target_arch = "x86_64")]
mod lines;
#[cfg(target_arch = "x86_64")]
pub(crate) mod pack_bmi2;
#[cfg(target_arch = "x86_64")]
mod sums_avx512;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
pub(crate) mod unpack_vbmi;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(test)]
mod tests;

use crate::words::{Words, WordsMut, WordsRef, each_slice};
use ir::Shape;
use ir::op::matrix::{Word, vectorized};
use ir::plan::{Step, StepOp};
use ir::ring::low_mask;
use portable::PortableWeights;
use std::ops::Range;
use walk::Walk;
use zeroize::Zeroizing;

/// A set of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// Whatever the compiler makes of safe Rust.
    Portable,
    /// 256-bit vectors of x86.
    Avx2,
    /// 512-bit vectors of x86 with products of words and bytes, and of 52-bit numbers where they are.
    Vnni,
    /// The same, and a unit that multiplies tiles of bytes.
    Amx,
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
                if amx::is_available() {
                    sets.push(Self::Amx);
                }
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
    Fast(Box<karatsuba::Fast>),
    #[cfg(target_arch = "x86_64")]
    Avx2(lines::LineWeights),
    #[cfg(target_arch = "x86_64")]
    Vnni(lines::LineWeights),
    #[cfg(target_arch = "x86_64")]
    Ifma(PortableWeights<u64>),
    #[cfg(target_arch = "x86_64")]
    Tiles(tiles::TileWeights),
}

/// Memory that is read soon: a hint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead {
    /// Addresses and lengths in bytes.
    parts: [(usize, usize); 3],
}

impl Ahead {
    /// Words that are read soon.
    pub fn of(words: WordsRef<'_>) -> Self {
        Self::default().and(words)
    }

    /// And these; up to three in all, further ones are forgotten.
    pub fn and(mut self, words: WordsRef<'_>) -> Self {
        if let Some(part) = self.parts.iter_mut().find(|part| part.1 == 0) {
            *part =
                each_slice!(WordsRef, words, words => (words.as_ptr().addr(), size_of_val(words)));
        }
        self
    }
}

/// Memory for images in their borders, used again from step to step.
#[derive(Default)]
pub struct Scratch {
    words16: Vec<u16>,
    words32: Vec<u32>,
    words64: Vec<u64>,
    fast16: karatsuba::Memory<u16>,
    fast32: karatsuba::Memory<u32>,
    fast64: karatsuba::Memory<u64>,
    #[cfg(target_arch = "x86_64")]
    limbs: lines::Scratch,
    #[cfg(target_arch = "x86_64")]
    tiles: tiles::Memory,
}

/// Products per task below which another core is not worth its waking.
const TASK: usize = 1 << 22;
/// Places whose outputs are computed together where the weights do not stay in a core's cache.
const PLACES: usize = 192;
/// Bytes of weights that do.
const CACHED: usize = 1 << 19;

/// How many cores are worth their waking for so many products.
pub fn cores(products: usize) -> usize {
    (products / TASK).clamp(1, rayon::current_num_threads())
}

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
        let ring = step.ring;
        if matches!(step.op, StepOp::Diagonal { .. }) {
            let weights = Packed::Diagonal(Zeroizing::new(weights.to_vec()));
            return Some(Self { walk, ring, weights });
        }
        #[cfg(target_arch = "x86_64")]
        if set == InstructionSet::Amx
            && let Some(tiled) = Self::tiled(tiles::Unit::Amx, &walk, weights, ring)
        {
            return Some(tiled);
        }
        Some(if karatsuba::fits(&walk, weights, ring) && karatsuba::pays(&walk) {
            Self::fast(set, walk, weights, ring)
        } else {
            Self::pack(set, walk, weights, ring)
        })
    }

    /// For a unit that multiplies tiles, if it is for these.
    #[cfg(target_arch = "x86_64")]
    fn tiled(unit: tiles::Unit, walk: &Walk, weights: &[i32], ring: u32) -> Option<Self> {
        let weights = Packed::Tiles(tiles::TileWeights::new(unit, walk, weights, ring)?);
        Some(Self { walk: walk.clone(), ring, weights })
    }

    /// As matrix products of the kernels.
    fn fast(set: InstructionSet, walk: Walk, weights: &[i32], ring: u32) -> Self {
        let weights = Packed::Fast(Box::new(karatsuba::Fast::new(set, &walk, weights, ring)));
        Self { walk, ring, weights }
    }

    /// For a kernel.
    fn pack(set: InstructionSet, walk: Walk, weights: &[i32], ring: u32) -> Self {
        let weights = pack(set, &walk, weights, ring);
        Self { walk, ring, weights }
    }

    /// Elements of a place, which are computed together: parts of the output begin and end between
    /// places.
    pub fn outputs(&self) -> usize {
        if matches!(self.weights, Packed::Diagonal(_)) { 1 } else { self.walk.outputs() }
    }

    /// Products of one element of the output.
    pub fn fan_in(&self) -> usize {
        if matches!(self.weights, Packed::Diagonal(_)) { 1 } else { self.walk.fan_in() }
    }

    /// The fewest elements of the output for which it pays to fetch the weights.
    pub fn least_part(&self) -> usize {
        if matches!(self.weights, Packed::Fast(_)) {
            return self.outputs();
        }
        let bytes = self.outputs() * self.fan_in() * 2;
        if bytes > CACHED { PLACES * self.outputs() } else { self.outputs() }
    }

    /// Adds `W·x` to `out` and reduces, for the items of a batch one after another. The words of `x` are
    /// at least as wide as those of `out`, which are the ring's.
    ///
    /// # Panics
    /// If `x` and `out` are not the same whole number of items, or `out` has words of another ring.
    pub fn apply(&self, x: &Words, out: &mut Words, scratch: &mut Scratch) {
        let count = out.len();
        let outputs = self.outputs();
        let part = count.min(self.least_part().max(1 << 17).next_multiple_of(outputs));
        let mut running = self.over(x.whole(), scratch);
        for start in (0..count).step_by(part.max(1)) {
            let end = count.min(start + part);
            running.bring(start..end);
            let cores = cores((end - start) * self.fan_in());
            running.add_on(cores, start, out.part_mut(start..end));
        }
    }

    /// Begins to compute `W·x`, part by part.
    ///
    /// # Panics
    /// If `x` is not a whole number of items.
    pub fn over<'a>(&'a self, x: WordsRef<'a>, scratch: &'a mut Scratch) -> Running<'a> {
        assert!(x.len().is_multiple_of(self.walk.input_elements()), "items of a batch");
        match (&self.weights, Words::bits(self.ring)) {
            (Packed::Fast(_), 16) => scratch.fast16.begin(),
            (Packed::Fast(_), 32) => scratch.fast32.begin(),
            (Packed::Fast(_), _) => scratch.fast64.begin(),
            #[cfg(target_arch = "x86_64")]
            (Packed::Tiles(_), _) => scratch.tiles.begin(),
            _ => {}
        }
        Running { linear: self, x, scratch, items: 0..0 }
    }

    /// Elements of one item's output.
    fn result(&self) -> usize {
        self.walk.places() * self.walk.outputs()
    }
}

/// The products of one step's weights with a batch.
pub struct Running<'a> {
    linear: &'a PackedLinear,
    x: WordsRef<'a>,
    scratch: &'a mut Scratch,
    /// The items whose images stand in their borders.
    items: Range<usize>,
}

impl Running<'_> {
    /// The step.
    pub fn linear(&self) -> &PackedLinear {
        self.linear
    }

    /// Makes ready what the outputs of `elements` are computed of.
    pub fn bring(&mut self, elements: Range<usize>) {
        let PackedLinear { walk, ring, weights } = self.linear;
        let cores = cores(elements.len() * self.linear.fan_in());
        let scratch = &mut *self.scratch;
        match (weights, Words::bits(*ring)) {
            (Packed::Fast(fast), 16) => {
                return fast.bring(self.x, elements, cores, &mut scratch.fast16);
            }
            (Packed::Fast(fast), 32) => {
                return fast.bring(self.x, elements, cores, &mut scratch.fast32);
            }
            (Packed::Fast(fast), _) => {
                return fast.bring(self.x, elements, cores, &mut scratch.fast64);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Tiles(weights), _) => {
                let outputs = walk.outputs();
                let places = elements.start / outputs..elements.end / outputs;
                return weights.bring(walk, self.x, places, cores, &mut scratch.tiles);
            }
            _ => {}
        }
        let result = self.linear.result();
        let items = elements.start / result..elements.end.div_ceil(result);
        if items.start >= self.items.start && items.end <= self.items.end {
            return;
        }
        let walk = &self.linear.walk;
        let image = walk.input_elements();
        let images = items.start * image..items.end * image;
        let scratch = &mut *self.scratch;
        match &self.linear.weights {
            Packed::Diagonal(_) | Packed::Fast(_) => {}
            #[cfg(target_arch = "x86_64")]
            Packed::Tiles(_) => {}
            Packed::Words16(_) => each_slice!(WordsRef, self.x, x => {
                walk.surround(&x[images], &mut scratch.words16, |v| v.element() as u16);
            }),
            Packed::Words32(_) => each_slice!(WordsRef, self.x, x => {
                walk.surround(&x[images], &mut scratch.words32, |v| v.element() as u32);
            }),
            Packed::Words64(_) => each_slice!(WordsRef, self.x, x => {
                walk.surround(&x[images], &mut scratch.words64, |v| v.element());
            }),
            #[cfg(target_arch = "x86_64")]
            Packed::Ifma(_) => each_slice!(WordsRef, self.x, x => {
                walk.surround(&x[images], &mut scratch.words64, |v| v.element());
            }),
            #[cfg(target_arch = "x86_64")]
            Packed::Avx2(weights) | Packed::Vnni(weights) => {
                if matches!(self.x, WordsRef::W16(_)) && lines::reads_in_place(walk, weights) {
                    self.items = 0..self.x.len() / image;
                    return;
                }
                each_slice!(WordsRef, self.x, x => scratch.limbs.split(walk, weights, &x[images]));
            }
        }
        self.items = items;
    }

    /// Adds the products of consecutive elements from `first` on, which were made ready, to `out`, and
    /// reduces; brings memory that is read next into the cache meanwhile.
    ///
    /// # Panics
    /// If the elements are no whole places or were not made ready, or `out` has words of another ring.
    pub fn add(&self, first: usize, out: WordsMut<'_>, ahead: Ahead) {
        let linear = self.linear;
        let ring = linear.ring;
        let outputs = linear.outputs();
        if let Packed::Fast(fast) = &linear.weights {
            let mask = low_mask(ring);
            return match out {
                WordsMut::W16(out) => fast.add(&self.scratch.fast16, first, out, mask as u16),
                WordsMut::W32(out) => fast.add(&self.scratch.fast32, first, out, mask as u32),
                WordsMut::W64(out) => fast.add(&self.scratch.fast64, first, out, mask),
            };
        }
        #[cfg(target_arch = "x86_64")]
        if let Packed::Tiles(weights) = &linear.weights {
            let (memory, mask) = (&self.scratch.tiles, low_mask(ring));
            let places = first / outputs..(first + out.len()) / outputs;
            return match out {
                WordsMut::W16(out) => weights.add(memory, places, outputs, out, mask as u16),
                WordsMut::W32(out) => weights.add(memory, places, outputs, out, mask as u32),
                WordsMut::W64(_) => panic!("words of another ring than of {ring} bits"),
            };
        }
        assert!(
            first >= self.items.start * linear.result()
                && first + out.len() <= self.items.end * linear.result()
                && first.is_multiple_of(outputs)
                && out.len().is_multiple_of(outputs),
            "places that were made ready"
        );
        if let Packed::Diagonal(factors) = &linear.weights {
            return each_slice!(WordsMut, out, out => {
                let mask = Word::low(low_mask(ring));
                each_slice!(WordsRef, self.x, x => diagonal(factors, first, x, out, mask));
            });
        }
        let first = first / outputs - self.items.start * linear.walk.places();
        let places = first..first + out.len() / outputs;
        let walk = &linear.walk;
        let mask = low_mask(ring);
        match (&linear.weights, out) {
            (Packed::Words16(weights), WordsMut::W16(out)) => {
                weights.apply(walk, &self.scratch.words16, places, out, mask as u16);
            }
            (Packed::Words32(weights), WordsMut::W32(out)) => {
                weights.apply(walk, &self.scratch.words32, places, out, mask as u32);
            }
            (Packed::Words64(weights), WordsMut::W64(out)) => {
                weights.apply(walk, &self.scratch.words64, places, out, mask);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Ifma(weights), WordsMut::W64(out)) => {
                ifma::apply(walk, weights, &self.scratch.words64, places, out, mask);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Avx2(weights), WordsMut::W16(out)) => {
                avx2::apply(&self.job(weights, ahead), places, out, mask as u16);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Avx2(weights), WordsMut::W32(out)) => {
                avx2::apply(&self.job(weights, ahead), places, out, mask as u32);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Vnni(weights), WordsMut::W16(out)) => {
                vnni::apply(&self.job(weights, ahead), places, out, mask as u16);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Vnni(weights), WordsMut::W32(out)) => {
                vnni::apply(&self.job(weights, ahead), places, out, mask as u32);
            }
            _ => panic!("words of another ring than of {ring} bits"),
        }
    }

    /// As [`Self::add`], on so many cores.
    fn add_on(&self, cores: usize, first: usize, out: WordsMut<'_>) {
        let places = out.len() / self.linear.outputs();
        if cores < 2 || places < 2 {
            return self.add(first, out, Ahead::default());
        }
        let half = places / 2 * self.linear.outputs();
        let (left, right) = out.split_at(half);
        rayon::join(
            || self.add_on(cores / 2, first, left),
            || self.add_on(cores - cores / 2, first + half, right),
        );
    }

    #[cfg(target_arch = "x86_64")]
    fn job<'a>(&'a self, weights: &'a lines::LineWeights, ahead: Ahead) -> lines::Job<'a> {
        let walk = &self.linear.walk;
        let limbs = match self.x {
            WordsRef::W16(x) if lines::reads_in_place(walk, weights) => lines::Limbs::words(x),
            _ => self.scratch.limbs.limbs(),
        };
        lines::Job { walk, weights, limbs, ahead }
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
        let is_vnni = set != InstructionSet::Avx2;
        if let Some(lines) = lines::LineWeights::new(walk, weights, ring, is_vnni) {
            return if is_vnni { Packed::Vnni(lines) } else { Packed::Avx2(lines) };
        }
    }
    #[cfg(target_arch = "x86_64")]
    if (33..=ifma::WIDEST).contains(&ring)
        && matches!(set, InstructionSet::Vnni | InstructionSet::Amx)
        && ifma::is_available()
        && !walk.is_depthwise()
    {
        return Packed::Ifma(PortableWeights::new(walk, weights));
    }
    match ring {
        0..=16 => Packed::Words16(PortableWeights::new(walk, weights)),
        17..=32 => Packed::Words32(PortableWeights::new(walk, weights)),
        _ => Packed::Words64(PortableWeights::new(walk, weights)),
    }
}

/// `out += factors · x` for the elements from `first` on, counted over the items of a batch.
fn diagonal<S: Word, W: Word>(factors: &[i32], first: usize, x: &[S], out: &mut [W], mask: W) {
    let (mut x, mut out) = (&x[first..first + out.len()], out);
    let mut at = first % factors.len();
    while !out.is_empty() {
        let factors = &factors[at..(at + out.len()).min(factors.len())];
        let (now, later) = out.split_at_mut(factors.len());
        let (of_now, of_later) = x.split_at(factors.len());
        vectorized(
            #[inline(always)]
            || {
                for ((out, &x), &w) in now.iter_mut().zip(of_now).zip(factors) {
                    *out = out.multiply_add(W::low(x.element()), W::weight(w)).and(mask);
                }
            },
        );
        (x, out, at) = (of_later, later, 0);
    }
}
