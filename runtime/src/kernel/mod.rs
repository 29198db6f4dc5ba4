//! Products of party 0's small signed weights with ring elements: convolutions, matrix products and
//! elementwise products, exact in Z_2^k, in storage with the channels last.
//!
//! [`portable`] is the reference; faster kernels equal it bit for bit and are chosen at run time:
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
//! (`karatsuba`). Convolutions whose channels are groups of their own are products along the channels, for which the
//! portable kernel is as good as any. Weights are packed once per plan. Images are copied to be
//! padded with zeros where they need it ([`geometry`]); no other copy of the inputs is made. The products are added to
//! what the output holds: the bias less party 0's share of `W·r`.
//!
//! The output is made part by part ([`Running`]), so that what follows finds it in the cache, and a part
//! may go to several cores; a part is a number of output positions, of one item or of several.

pub mod geometry;
mod karatsuba;
pub mod portable;
mod running;
pub mod sums;

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

use crate::words::{Words, WordsRef, each_slice};
use geometry::Geometry;
use ir::Shape;
use ir::plan::{Linear, Step, StepOp};
use portable::PortableWeights;
pub use running::Running;
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
    geometry: Geometry,
    ring: u32,
    weights: Packed,
}

enum Packed {
    /// One factor per element, in the order of the elements.
    Hadamard(Zeroizing<Vec<i32>>),
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

/// Memory that is read soon, to be fetched into the cache: a hint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prefetch {
    /// Addresses and lengths in bytes.
    parts: [(usize, usize); 3],
}

impl Prefetch {
    /// Words that are read soon.
    pub fn of(words: WordsRef<'_>) -> Self {
        Self::default().and(words)
    }

    /// And these; up to three in all, further ones are ignored.
    pub fn and(mut self, words: WordsRef<'_>) -> Self {
        if let Some(part) = self.parts.iter_mut().find(|part| part.1 == 0) {
            *part =
                each_slice!(WordsRef, words, words => (words.as_ptr().addr(), size_of_val(words)));
        }
        self
    }
}

/// Memory for padded images, reused from step to step.
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

/// Products per task below which waking another core does not pay.
const TASK: usize = 1 << 22;
/// Output positions that are computed together where the weights do not stay in a core's cache.
const POSITIONS: usize = 192;
/// Bytes of weights that stay in a core's cache.
const CACHED: usize = 1 << 19;

/// How many cores it pays to use for so many products.
pub fn cores(products: usize) -> usize {
    (products / TASK).clamp(1, rayon::current_num_threads())
}

impl PackedLinear {
    /// Packs the weights of a step, given in ONNX's order; those of a Hadamard product in the order of the
    /// elements.
    /// `None` for steps without secret weights.
    pub fn new(set: InstructionSet, step: &Step, operand: &Shape, weights: &[i32]) -> Option<Self> {
        let elements = step.shape.elements();
        let last = |shape: &Shape| shape.0.last().copied().unwrap_or(1);
        let geometry = match &step.op {
            StepOp::Linear(Linear::Convolution { geometry, .. }) => {
                Geometry::convolution(geometry, operand, &step.shape)
            }
            StepOp::Linear(Linear::MatrixProduct { .. }) => {
                let outputs = last(&step.shape);
                Geometry::matrix_product(elements / outputs, last(operand), outputs)
            }
            StepOp::Linear(Linear::Hadamard { .. }) => {
                Geometry::matrix_product(1, elements, elements)
            }
            _ => return None,
        };
        let ring = step.ring;
        if matches!(step.op, StepOp::Linear(Linear::Hadamard { .. })) {
            let weights = Packed::Hadamard(Zeroizing::new(weights.to_vec()));
            return Some(Self { geometry, ring, weights });
        }
        #[cfg(target_arch = "x86_64")]
        if set == InstructionSet::Amx
            && let Some(tiled) = Self::tiled(tiles::Unit::Amx, &geometry, weights, ring)
        {
            return Some(tiled);
        }
        Some(if karatsuba::fits(&geometry, weights, ring) && karatsuba::pays(&geometry) {
            Self::fast(set, geometry, weights, ring)
        } else {
            Self::pack(set, geometry, weights, ring)
        })
    }

    /// For a unit that multiplies tiles, if it can compute these.
    #[cfg(target_arch = "x86_64")]
    fn tiled(unit: tiles::Unit, geometry: &Geometry, weights: &[i32], ring: u32) -> Option<Self> {
        let weights = Packed::Tiles(tiles::TileWeights::new(unit, geometry, weights, ring)?);
        Some(Self { geometry: geometry.clone(), ring, weights })
    }

    /// As matrix products of the kernels.
    fn fast(set: InstructionSet, geometry: Geometry, weights: &[i32], ring: u32) -> Self {
        let weights = Packed::Fast(Box::new(karatsuba::Fast::new(set, &geometry, weights, ring)));
        Self { geometry, ring, weights }
    }

    /// For a kernel.
    fn pack(set: InstructionSet, geometry: Geometry, weights: &[i32], ring: u32) -> Self {
        let weights = pack(set, &geometry, weights, ring);
        Self { geometry, ring, weights }
    }

    /// Elements of an output position, which are computed together: parts of the output begin and end between
    /// positions.
    pub fn outputs(&self) -> usize {
        if matches!(self.weights, Packed::Hadamard(_)) { 1 } else { self.geometry.outputs() }
    }

    /// Products of one element of the output.
    pub fn fan_in(&self) -> usize {
        if matches!(self.weights, Packed::Hadamard(_)) { 1 } else { self.geometry.fan_in() }
    }

    /// The fewest elements of the output for which it pays to fetch the weights.
    pub fn least_part(&self) -> usize {
        if matches!(self.weights, Packed::Fast(_)) {
            return self.outputs();
        }
        let bytes = self.outputs() * self.fan_in() * 2;
        if bytes > CACHED { POSITIONS * self.outputs() } else { self.outputs() }
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
            running.prepare(start..end);
            let cores = cores((end - start) * self.fan_in());
            running.add_on(cores, start, out.part_mut(start..end));
        }
    }

    /// Begins to compute `W·x`, part by part.
    ///
    /// # Panics
    /// If `x` is not a whole number of items.
    pub fn over<'a>(&'a self, x: WordsRef<'a>, scratch: &'a mut Scratch) -> Running<'a> {
        assert!(x.len().is_multiple_of(self.geometry.input_elements()), "items of a batch");
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
        self.geometry.positions() * self.geometry.outputs()
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

fn pack(set: InstructionSet, geometry: &Geometry, weights: &[i32], ring: u32) -> Packed {
    #[cfg(target_arch = "x86_64")]
    if set != InstructionSet::Portable && !geometry.is_depthwise() {
        let is_vnni = set != InstructionSet::Avx2;
        if let Some(lines) = lines::LineWeights::new(geometry, weights, ring, is_vnni) {
            return if is_vnni { Packed::Vnni(lines) } else { Packed::Avx2(lines) };
        }
    }
    #[cfg(target_arch = "x86_64")]
    if (33..=ifma::WIDEST).contains(&ring)
        && matches!(set, InstructionSet::Vnni | InstructionSet::Amx)
        && ifma::is_available()
        && !geometry.is_depthwise()
    {
        return Packed::Ifma(PortableWeights::new(geometry, weights));
    }
    match ring {
        0..=16 => Packed::Words16(PortableWeights::new(geometry, weights)),
        17..=32 => Packed::Words32(PortableWeights::new(geometry, weights)),
        _ => Packed::Words64(PortableWeights::new(geometry, weights)),
    }
}
