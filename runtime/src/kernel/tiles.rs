//! Weights and elements as a unit that multiplies whole tiles reads them: 16 positions by 64 bytes of their
//! operands by 16 outputs at a time.
//!
//! *Notation.* `x = Σ_i 2^{8i}·x_i` are the bytes of an element, unsigned, `w` a weight of 8 bits, signed. A
//! *block* is 16 rows of 64 bytes. A *step* is 64 of a position's operands, which stand in the order of its runs,
//! one run behind the other.
//!
//! *Idea.* `Σ w·x = Σ_i 2^{8i}·Σ w·x_i`, and each inner sum is one of unsigned by signed bytes in 32 bits that
//! wrap, as the unit has them: exact in every ring of up to 32 bits. Bytes are taken by pairs, so that with
//! two blocks of bytes and two of weights every block that is loaded serves two products.
//!
//! *Layout.* The operands of a part's positions are copied into blocks, a row per position, when the part is
//! prepared: rows are then aligned, which the unit asks for, whatever the geometry, and no output is
//! computed in vain except in a last block. A block of weights has 4 operands of 16 outputs in a row.
//!
//! *Cost.* Eight bytes moved per operand and position (four for rings of up to 16 bits), four products of blocks
//! per step, pair and 32 outputs.

use super::amx;
use super::geometry::Geometry;
use crate::words::{WordsRef, each_slice};
use ir::word::{Word, vectorized};
use std::ops::Range;
use zeroize::Zeroize;

/// Rows of a block: positions, or quadruples of operands.
pub const ROWS: usize = 16;
/// Bytes of a row.
pub const BYTES: usize = 64;
/// Outputs of two blocks of weights.
const OUTPUTS: usize = 32;
/// Steps whose blocks of weights stay in the first-level cache from position to position.
const STEPS: usize = 16;
/// Operands of a row of weights per output.
const PER_ROW: usize = 4;

/// Sixteen rows of bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Block(pub [[u8; BYTES]; ROWS]);

/// Low and high bytes of elements, or the weights of the first and the second sixteen outputs.
pub type Two = [Block; 2];

/// Sums of the low and the high bytes with the first outputs, then of both with the second: a row per position, a
/// column per output.
#[repr(C, align(64))]
pub struct Sums(pub [[[i32; ROWS]; ROWS]; 4]);

const EMPTY: Two = [Block([[0; BYTES]; ROWS]); 2];

/// What multiplies blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The machine's.
    Amx,
    /// The definition.
    #[cfg(test)]
    Reference,
}

impl Unit {
    /// The sums over as many steps as there are.
    fn multiply(
        self,
        configured: &amx::Configured,
        elements: &[Two],
        weights: &[Two],
        sums: &mut Sums,
    ) {
        match self {
            Self::Amx => amx::multiply(configured, elements, weights, sums),
            #[cfg(test)]
            Self::Reference => reference(elements, weights, sums),
        }
    }
}

/// The sums by their definition.
pub fn reference(elements: &[Two], weights: &[Two], sums: &mut Sums) {
    for (i, sums) in sums.0.iter_mut().enumerate() {
        for (position, sums) in sums.iter_mut().enumerate() {
            for (output, sum) in sums.iter_mut().enumerate() {
                let of_step = |(x, w): (&Two, &Two)| {
                    let product = |k: usize| {
                        let w = w[i / 2].0[k / PER_ROW][output * PER_ROW + k % PER_ROW] as i8;
                        i32::from(x[i % 2].0[position][k]).wrapping_mul(w.into())
                    };
                    (0..BYTES).map(product).fold(0, i32::wrapping_add)
                };
                *sum = elements.iter().zip(weights).map(of_step).fold(0, i32::wrapping_add);
            }
        }
    }
}

/// Packed weights, party 0's secret; wiped when dropped.
pub struct TileWeights {
    unit: Unit,
    /// Pairs of bytes of an element.
    pairs: usize,
    /// Steps of a position.
    steps: usize,
    /// The pieces of a position's operands that are contiguous both in the image and in a row: offset from the
    /// position's base; step, and byte in its row; number of bytes.
    pieces: Vec<[usize; 4]>,
    /// Per 32 outputs, per step.
    blocks: Vec<Two>,
}

impl Drop for TileWeights {
    fn drop(&mut self) {
        let blocks = self.blocks.as_flattened_mut().iter_mut();
        blocks.for_each(|block| block.0.as_flattened_mut().zeroize());
    }
}

/// Memory that is reused.
#[derive(Default)]
pub struct Memory {
    /// The items whose padded images are in `planes`, one plane per byte of an element.
    items: Range<usize>,
    planes: [Vec<u8>; 4],
    /// The positions whose operands are in `operands`: per sixteen positions, per pair, per step.
    positions: Range<usize>,
    operands: Vec<Two>,
}

impl Memory {
    /// Discards the operands of earlier inputs.
    pub fn begin(&mut self) {
        (self.items, self.positions) = (0..0, 0..0);
    }
}

impl TileWeights {
    /// Packs weights in ONNX's order for a ring of `ring` bits; `None` for those that the unit is not for:
    /// weights of more than 8 bits, rings of more than 32, groups.
    pub fn new(unit: Unit, geometry: &Geometry, weights: &[i32], ring: u32) -> Option<Self> {
        let fits = weights.iter().all(|&w| i8::try_from(w).is_ok());
        if !fits || ring > 32 || geometry.groups > 1 {
            return None;
        }
        let operands = geometry.fan_in();
        let steps = operands.div_ceil(BYTES);
        let mut blocks = vec![EMPTY; geometry.outputs().div_ceil(OUTPUTS) * steps];
        for output in 0..geometry.outputs() {
            for operand in 0..operands {
                let (run, element) = (operand / geometry.run, operand % geometry.run);
                let two = &mut blocks[output / OUTPUTS * steps + operand / BYTES];
                let row = &mut two[output % OUTPUTS / ROWS].0[operand % BYTES / PER_ROW];
                row[output % ROWS * PER_ROW + operand % PER_ROW] =
                    weights[geometry.weight(output, run, element)] as u8;
            }
        }
        let mut pieces = Vec::new();
        let mut at = 0;
        for &run in &geometry.runs {
            let end = at + geometry.run;
            let mut from = run;
            while at < end {
                let bytes = (BYTES - at % BYTES).min(end - at);
                pieces.push([from, at / BYTES, at % BYTES, bytes]);
                (at, from) = (at + bytes, from + bytes);
            }
        }
        let pairs = ring.div_ceil(16).max(1) as usize;
        Some(Self { unit, pairs, steps, pieces, blocks })
    }

    /// Prepares the operands of `positions`, at least one, of a batch `x`, on so many cores.
    pub fn prepare(
        &self,
        geometry: &Geometry,
        x: WordsRef<'_>,
        positions: Range<usize>,
        cores: usize,
        memory: &mut Memory,
    ) {
        let there = &memory.positions;
        if there.start <= positions.start && positions.end <= there.end {
            return;
        }
        let items =
            positions.start / geometry.positions()..positions.end.div_ceil(geometry.positions());
        if items.start < memory.items.start || items.end > memory.items.end {
            let image = geometry.input_elements();
            let images = items.start * image..items.end * image;
            each_slice!(WordsRef, x, x => {
                for (i, plane) in memory.planes[..2 * self.pairs].iter_mut().enumerate() {
                    geometry.pad(&x[images.clone()], plane, |v| (v.element() >> (8 * i)) as u8);
                }
            });
            memory.items = items;
        }
        let per_tile = self.pairs * self.steps;
        let count = positions.len().div_ceil(ROWS) * per_tile;
        if memory.operands.len() < count {
            memory.operands.resize(count, EMPTY);
        }
        let first = positions.start - memory.items.start * geometry.positions();
        let operands = &mut memory.operands[..count];
        self.gather(geometry, &memory.planes, first..first + positions.len(), operands, cores);
        memory.positions = positions;
    }

    /// Copies the operands of positions, counted from the first image on, on so many cores.
    fn gather(
        &self,
        geometry: &Geometry,
        planes: &[Vec<u8>; 4],
        positions: Range<usize>,
        operands: &mut [Two],
        cores: usize,
    ) {
        let tiles = positions.len().div_ceil(ROWS);
        if cores > 1 && tiles > 1 {
            let (half, of_half) = (tiles / 2 * ROWS, tiles / 2 * self.pairs * self.steps);
            let (left, right) = operands.split_at_mut(of_half);
            let middle = positions.start + half;
            rayon::join(
                || self.gather(geometry, planes, positions.start..middle, left, cores / 2),
                || self.gather(geometry, planes, middle..positions.end, right, cores - cores / 2),
            );
            return;
        }
        let mut bases = [0; ROWS];
        let tiles = operands.chunks_exact_mut(self.pairs * self.steps);
        for (first, tile) in positions.clone().step_by(ROWS).zip(tiles) {
            let rows = ROWS.min(positions.end - first);
            geometry.bases(first, &mut bases[..rows]);
            for (pair, steps) in tile.chunks_exact_mut(self.steps).enumerate() {
                for (byte, plane) in planes[2 * pair..2 * pair + 2].iter().enumerate() {
                    for (row, base) in bases[..rows].iter().enumerate() {
                        for &[from, step, at, bytes] in &self.pieces {
                            let to = &mut steps[step][byte].0[row];
                            let from = &plane[base + from..][..bytes];
                            match from.first_chunk::<BYTES>() {
                                Some(all) => *to = *all,
                                None => to[at..at + bytes].copy_from_slice(from),
                            }
                        }
                    }
                }
            }
        }
    }

    /// Adds the products of `positions`, which were prepared, to `out`, their outputs, and reduces by `mask`. Words
    /// of 16 or 32 bits.
    ///
    /// # Panics
    /// If the positions were not prepared, or `out` is not their outputs.
    pub fn add<W: Word>(
        &self,
        memory: &Memory,
        positions: Range<usize>,
        outputs: usize,
        out: &mut [W],
        mask: W,
    ) {
        let there = &memory.positions;
        assert!(
            there.start <= positions.start && positions.end <= there.end,
            "positions that are ready"
        );
        assert!(out.len() == positions.len() * outputs, "the outputs of the positions");
        let (start, end) = (positions.start - there.start, positions.end - there.start);
        let per_tile = self.pairs * self.steps;
        let mut sums = Sums([[[0; ROWS]; ROWS]; 4]);
        let configured = amx::Configured::new(self.unit);
        for (i, weights) in self.blocks.chunks_exact(self.steps).enumerate() {
            for (chunk, weights) in weights.chunks(STEPS).enumerate() {
                for tile in start / ROWS..end.div_ceil(ROWS) {
                    for pair in 0..self.pairs {
                        let at = tile * per_tile + pair * self.steps + chunk * STEPS;
                        let operands = &memory.operands[at..at + weights.len()];
                        self.unit.multiply(&configured, operands, weights, &mut sums);
                        let rows = (tile * ROWS).max(start)..(tile * ROWS + ROWS).min(end);
                        let of_tile = rows.start - tile * ROWS..rows.end - tile * ROWS;
                        let out = &mut out[(rows.start - start) * outputs..];
                        vectorized(
                            #[inline(always)]
                            || store(&sums, of_tile, outputs, i * OUTPUTS, 16 * pair, out, mask),
                        );
                    }
                }
            }
        }
        sums.0.as_flattened_mut().as_flattened_mut().zeroize();
    }
}

/// Adds the sums of some rows, shifted, to the outputs from `first` on.
#[inline(always)]
fn store<W: Word>(
    sums: &Sums,
    rows: Range<usize>,
    outputs: usize,
    first: usize,
    shift: usize,
    out: &mut [W],
    mask: W,
) {
    for (row, out) in rows.zip(out.chunks_mut(outputs)) {
        for (half, out) in out[first..].chunks_mut(ROWS).take(2).enumerate() {
            let [low, high] = [&sums.0[2 * half][row], &sums.0[2 * half + 1][row]];
            for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
                let sum = (low as u32).wrapping_add((high as u32) << 8) << shift;
                *out = out.plus(W::low(sum.into())).and(mask);
            }
        }
    }
}
