//! Weights and elements as the vector kernels read them.
//!
//! *Notation.* `k` is the ring's width, `x` an element, `w` a weight; a *step* is four bytes of a run:
//! two 16-bit words or four bytes. A *line* is a vector register of weights, 64 bytes: for 16 output
//! channels (a *block*) the weights of one step. A *span* is up to four blocks that are computed at once.
//!
//! *Idea.* One instruction multiplies the step of an element, repeated in all lanes, with a line, and
//! adds to a 32-bit sum per output channel, which wraps. For `k ≤ 16` the raw words do: the low 16 bits
//! of a sum of signed products are those of the unsigned one. For `17 ≤ k ≤ 32` let `l` be the low 16
//! bits of `x` as a signed number and `h = (x − l)/2^16`, which is `(x + 2^15) >> 16`. Then
//! `Σ w·x = Σ w·l + 2^16·Σ w·h`: the first sum is exact mod 2^32 as `l` and `w` are signed words, the
//! second is needed mod `2^(k−16)` alone. The limbs are taken in Horner's order, `h`, a shift of the
//! sums by 16, `l`, so that one set of registers serves both.
//!
//! *Limbs.* `h` stands in words, or in bytes where `k ≤ 24`, the weights fit in 8 bits and the machine
//! multiplies four bytes at once: then it costs half of a limb of words.
//!
//! *Cost* per 16 products of a step: one instruction for `k ≤ 16`, 1.5 or 2 above.

use super::Prefetch;
use super::geometry::Geometry;
use ir::word::Word;
use zeroize::Zeroize;

/// Output channels of a block.
pub const BLOCK: usize = 16;
/// Blocks of the largest span.
pub const SPAN: usize = 4;

/// Sixteen steps of weights, one per output channel.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [i16; 32]);

/// A part of every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limb {
    /// The low 16 bits, in words.
    Low,
    /// The bits above, in words.
    HighWords,
    /// The bits above, in bytes.
    HighBytes,
}

/// Consecutive blocks of a group's output channels.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The first block.
    pub first: usize,
    /// The number of blocks, 1 to [`SPAN`].
    pub blocks: usize,
}

/// Packed weights, party 0's secret; wiped when dropped.
pub struct LineWeights {
    /// The limbs in Horner's order; the last one is [`Limb::Low`].
    pub limbs: Vec<Limb>,
    /// The spans of every group.
    pub spans: Vec<Span>,
    words: Vec<Line>,
    bytes: Vec<Line>,
    runs: usize,
    run: usize,
    blocks: usize,
}

impl LineWeights {
    /// Packs weights in ONNX's order; `None` if they are too wide for the ring `k` of the step: then 16
    /// bits are not enough.
    pub fn new(
        geometry: &Geometry,
        weights: &[i32],
        k: u32,
        multiplies_bytes: bool,
    ) -> Option<Self> {
        let fits = |bits: u32| weights.iter().all(|&w| w >> (bits - 1) == w >> 31);
        let limbs = match k {
            0..=16 => vec![Limb::Low],
            17..=24 if multiplies_bytes && fits(8) => vec![Limb::HighBytes, Limb::Low],
            17..=32 if fits(16) => vec![Limb::HighWords, Limb::Low],
            _ => return None,
        };
        let blocks = geometry.group_outputs.div_ceil(BLOCK);
        let count = blocks.div_ceil(SPAN);
        let edge = |i: usize| i * blocks / count;
        let spans: Vec<Span> =
            (0..count).map(|i| Span { first: edge(i), blocks: edge(i + 1) - edge(i) }).collect();
        let pack = |per_step: usize| pack(geometry, weights, &spans, per_step);
        let words = pack(2);
        let bytes = if limbs[0] == Limb::HighBytes { pack(4) } else { vec![] };
        Some(Self {
            limbs,
            spans,
            words,
            bytes,
            runs: geometry.runs.len(),
            run: geometry.run,
            blocks,
        })
    }

    /// Steps of one run.
    pub fn steps(&self, limb: Limb) -> usize {
        self.run.div_ceil(if limb == Limb::HighBytes { 4 } else { 2 })
    }

    /// The lines of a span: run by run, step by step, one per block.
    pub fn lines(&self, limb: Limb, group: usize, span: Span) -> &[Line] {
        let lines = if limb == Limb::HighBytes { &self.bytes } else { &self.words };
        let per_block = self.runs * self.steps(limb);
        let start = (group * self.blocks + span.first) * per_block;
        &lines[start..start + span.blocks * per_block]
    }
}

impl Drop for LineWeights {
    fn drop(&mut self) {
        self.words.iter_mut().chain(&mut self.bytes).for_each(|line| line.0.zeroize());
    }
}

fn pack(geometry: &Geometry, weights: &[i32], spans: &[Span], per_step: usize) -> Vec<Line> {
    let steps = geometry.run.div_ceil(per_step);
    let blocks = geometry.group_outputs.div_ceil(BLOCK);
    let mut lines = Vec::with_capacity(geometry.groups * blocks * geometry.runs.len() * steps);
    for group in 0..geometry.groups {
        for span in spans {
            for run in 0..geometry.runs.len() {
                for step in 0..steps {
                    for block in span.first..span.first + span.blocks {
                        lines.push(line(geometry, weights, group, block, run, step, per_step));
                    }
                }
            }
        }
    }
    lines
}

fn line(
    geometry: &Geometry,
    weights: &[i32],
    group: usize,
    block: usize,
    run: usize,
    step: usize,
    per_step: usize,
) -> Line {
    let mut line = Line([0; 32]);
    for lane in 0..BLOCK.min(geometry.group_outputs - block * BLOCK) {
        let output = group * geometry.group_outputs + block * BLOCK + lane;
        let mut bytes = [0u8; 4];
        let width = 4 / per_step;
        for i in 0..per_step.min(geometry.run - step * per_step) {
            let weight = weights[geometry.weight(output, run, step * per_step + i)];
            bytes[i * width..(i + 1) * width].copy_from_slice(&weight.to_le_bytes()[..width]);
        }
        let [a, b, c, d] = bytes;
        line.0[2 * lane] = i16::from_le_bytes([a, b]);
        line.0[2 * lane + 1] = i16::from_le_bytes([c, d]);
    }
    line
}

/// The elements of some items as limbs, padded with zeros.
#[derive(Clone, Copy, Default)]
pub struct Limbs<'a> {
    /// [`Limb::Low`]
    pub low: &'a [u16],
    /// [`Limb::HighWords`]
    pub high_words: &'a [u16],
    /// [`Limb::HighBytes`]
    pub high_bytes: &'a [u8],
}

impl<'a> Limbs<'a> {
    /// Words that are limbs already.
    pub fn words(low: &'a [u16]) -> Self {
        Self { low, ..Self::default() }
    }
}

/// Buffers that are used again.
#[derive(Default)]
pub struct Scratch {
    low: Vec<u16>,
    high_words: Vec<u16>,
    high_bytes: Vec<u8>,
}

impl Scratch {
    /// Splits images into the limbs that `weights` ask for.
    pub fn split<S: Word>(&mut self, geometry: &Geometry, weights: &LineWeights, images: &[S]) {
        geometry.pad(images, &mut self.low, |v| v.element() as u16);
        let high = |v: S| v.element().wrapping_add(1 << 15) >> 16;
        match weights.limbs[0] {
            Limb::Low => {}
            Limb::HighWords => geometry.pad(images, &mut self.high_words, |v| high(v) as u16),
            Limb::HighBytes => geometry.pad(images, &mut self.high_bytes, |v| high(v) as u8),
        }
    }

    /// What was split last.
    pub fn limbs(&self) -> Limbs<'_> {
        Limbs { low: &self.low, high_words: &self.high_words, high_bytes: &self.high_bytes }
    }
}

/// Whether images of 16-bit words can be read without a copy: no run ends in the middle of a step.
pub fn reads_in_place(geometry: &Geometry, weights: &LineWeights) -> bool {
    geometry.is_unpadded() && geometry.run.is_multiple_of(2) && weights.limbs == [Limb::Low]
}

/// Everything that a kernel reads.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The geometry.
    pub geometry: &'a Geometry,
    /// The weights.
    pub weights: &'a LineWeights,
    /// The elements.
    pub limbs: Limbs<'a>,
    /// What is read next, to be prefetched.
    pub prefetch: Prefetch,
}

impl<'a> Job<'a> {
    /// The bytes of a limb of all elements, and bytes per element.
    pub fn limb(&self, limb: Limb) -> (*const u8, usize) {
        match limb {
            Limb::Low => (self.limbs.low.as_ptr().cast(), 2),
            Limb::HighWords => (self.limbs.high_words.as_ptr().cast(), 2),
            Limb::HighBytes => (self.limbs.high_bytes.as_ptr(), 1),
        }
    }

    /// Whether every step of the positions below `end` lies within every limb.
    pub fn is_sound(&self, end: usize) -> bool {
        let mut last = [0];
        if end > 0 {
            self.geometry.bases(end - 1, &mut last);
        }
        let group = (self.geometry.groups - 1) * self.geometry.group_inputs;
        let run = self.geometry.runs.iter().max().copied().unwrap_or(0);
        let reach = |limb: Limb| {
            let per_step = if limb == Limb::HighBytes { 4 } else { 2 };
            last[0] + group + run + self.weights.steps(limb) * per_step
        };
        end == 0
            || self.weights.limbs.iter().all(|&limb| {
                let elements = match limb {
                    Limb::Low => self.limbs.low.len(),
                    Limb::HighWords => self.limbs.high_words.len(),
                    Limb::HighBytes => self.limbs.high_bytes.len(),
                };
                reach(limb) <= elements
            })
    }
}
