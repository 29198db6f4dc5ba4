//! Convolutions of 3×3 taps with four ninths of their products, exact in every ring.
//!
//! *Notation.* One line of taps `h0 h1 h2` makes of six inputs `x0 … x5` the four outputs
//! `y_i = Σ_j h_j·x_{i+j}`: twelve products. Eight are enough:
//!
//! ```text
//! m0 = h0·((x0−x2) − (x1−x3))    m4 = h2·(x5−x3)             y0 = m0 + m2 + (m5 + m7)
//! m1 = h1·((x2−x4) − (x1−x3))    m5 = (h0+h2)·(x2−x3)        y1 = m1 + m2 + (m6 + m7)
//! m2 = (h0+h1)·(x1−x3)           m6 = h1·(x4−x3)             y2 = m3 + (m5 + m7)
//! m3 = h2·(x4−x2)                m7 = (h0+h1+h2)·x3          y3 = m4 + (m6 + m7)
//! ```
//!
//! *Idea.* Karatsuba's product of two polynomials, transposed to a filter (the fast FIR algorithms of Mou and
//! Duhamel 1987), nested once: pairs of outputs by pairs of taps. Unlike Winograd's of as many
//! products it divides by nothing, and so it holds in `Z_2^k` without a bit to spare. Both directions of an
//! image at once: a tile of 6×6 inputs makes 4×4 outputs with 64 products per pair of channels instead of
//! 144. The sums of taps are made when a plan is loaded; of the eight, six differ, so that 36 matrices of
//! channels stand in for nine.
//!
//! *Way.* A band is a row of tiles. Its six rows of the image become eight, elementwise and channels last;
//! each of these becomes the operands of eight matrix products per tile; the products with one matrix are
//! those of one [`PackedLinear`], on whatever instructions the machine has; and the way back. All of a
//! band lies in a core's cache.
//!
//! *Cost.* 64 products per 16 outputs and pair of channels; per tile and channel 108 additions of inputs and 96
//! of outputs; weights four times as large. It pays where there are channels enough for the additions and
//! output positions enough for the weights ([`pays`]).

mod maps;

use super::geometry::Geometry;
use super::{InstructionSet, PackedLinear, Prefetch, Scratch};
use crate::words::{Width, WordsRef, each_slice};
use ir::word::{Word, vectorized};
use maps::{Operands, Results, map};
use std::ops::Range;
use zeroize::Zeroize;

/// Outputs of a tile, along either axis.
const SIDE: usize = 4;
/// Inputs of a tile.
const INPUTS: usize = SIDE + 2;
/// Products of a tile, along either axis and in all.
const PRODUCTS: usize = 8;
const ALL: usize = PRODUCTS * PRODUCTS;
/// Sums of taps that differ: which taps each has.
const SUMS: [[bool; 3]; 6] = [
    [true, false, false],
    [false, true, false],
    [true, true, false],
    [false, false, true],
    [true, false, true],
    [true, true, true],
];
/// The sum of taps of every product.
const TAPS: [usize; PRODUCTS] = [0, 1, 2, 3, 3, 4, 1, 5];
/// The fewest channels, of inputs and of outputs, and the fewest output positions for which it pays. With fewer
/// positions, loading the matrices from outside a core's cache costs more than the saved products.
const LEAST_CHANNELS: usize = 64;
const LEAST_POSITIONS: usize = 128;
/// Bytes of operands and products that are made at once, unless the matrices are many times larger.
const AT_ONCE: usize = 1 << 18;
/// Weights of so many bits, for rings of more than 16: the kernels' words hold their sums.
const WEIGHT_BITS: u32 = 12;

/// Whether a convolution can be computed in this way.
pub fn fits(geometry: &Geometry, weights: &[i32], ring: u32) -> bool {
    let is_narrow = |&w: &i32| w >> (WEIGHT_BITS - 1) == w >> 31;
    geometry.is_dense(3) && (ring <= 16 || weights.iter().all(is_narrow))
}

/// Whether it is large enough for this to be faster.
pub fn pays(geometry: &Geometry) -> bool {
    geometry.channels().min(geometry.outputs()) >= LEAST_CHANNELS
        && geometry.positions() >= LEAST_POSITIONS
}

/// Bytes of the matrices.
fn bytes(geometry: &Geometry) -> usize {
    SUMS.len() * SUMS.len() * geometry.channels() * geometry.outputs() * 2
}

/// A convolution of 3×3 taps, packed. Its weights are wiped when dropped.
pub struct Fast {
    /// The image, padded to the end of the last tile.
    image: Geometry,
    inputs: usize,
    outputs: usize,
    /// Tiles below and beside each other.
    tiles: [usize; 2],
    /// Bands that are computed at once.
    at_once: usize,
    /// Per pair of sums of taps the matrix, and the numbers of the products that it serves, which are consecutive.
    matrices: Vec<(PackedLinear, Range<usize>)>,
    /// The number of every product of a tile, by its products along y and x.
    numbers: [[usize; PRODUCTS]; PRODUCTS],
}

/// Memory that is used again.
pub struct Memory<W: Width> {
    /// The items whose padded images are in `planes`.
    items: Range<usize>,
    planes: Vec<W>,
    /// The bands whose outputs are in `results`, counted over the items.
    bands: Range<usize>,
    results: Vec<W>,
    cores: Vec<Core<W>>,
}

/// Memory of one core.
struct Core<W> {
    /// Rows of a band that are added up, then products of a tile that are.
    lines: Vec<W>,
    operands: Vec<W>,
    products: Vec<W>,
    scratch: Scratch,
}

impl<W: Width> Default for Memory<W> {
    fn default() -> Self {
        Self { items: 0..0, planes: vec![], bands: 0..0, results: vec![], cores: vec![] }
    }
}

impl<W: Width> Memory<W> {
    /// Discards the outputs of earlier inputs.
    pub fn begin(&mut self) {
        (self.items, self.bands) = (0..0, 0..0);
    }

    /// Moves some results to the front and makes room for `count`.
    fn keep(&mut self, kept: Range<usize>, count: usize) {
        if count <= self.results.len() {
            return self.results.copy_within(kept, 0);
        }
        let mut room = vec![W::default(); count];
        room[..kept.len()].copy_from_slice(&self.results[kept]);
        self.results.zeroize();
        self.results = room;
    }
}

/// Makes room for `count` elements of any value; the old ones are wiped if the memory moves.
fn fit<W: Width>(words: &mut Vec<W>, count: usize) {
    if words.len() < count {
        words.zeroize();
        words.resize(count, W::default());
    }
}

impl<W: Width> Drop for Memory<W> {
    fn drop(&mut self) {
        self.results.zeroize();
        for core in &mut self.cores {
            core.lines.zeroize();
            core.products.zeroize();
        }
    }
}

impl Fast {
    /// Packs weights in ONNX's order for a ring of `ring` bits.
    pub fn new(set: InstructionSet, geometry: &Geometry, weights: &[i32], ring: u32) -> Self {
        let (inputs, outputs) = (geometry.channels(), geometry.outputs());
        let tiles = geometry.output.map(|length| length.div_ceil(SIDE));
        let [top, left, ..] = geometry.padding;
        let [height, width] = tiles.map(|tiles| tiles * SIDE + 2);
        let border =
            [top, left, height - top - geometry.input[0], width - left - geometry.input[1]];
        let matrix = Geometry::matrix_product(1, inputs, outputs);
        let mut sums = vec![0; inputs * outputs];
        let mut matrices = Vec::with_capacity(SUMS.len() * SUMS.len());
        let mut numbers = [[0; PRODUCTS]; PRODUCTS];
        let mut number = 0;
        for (a, rows) in SUMS.iter().enumerate() {
            for (b, columns) in SUMS.iter().enumerate() {
                for (sum, taps) in sums.iter_mut().zip(weights.as_chunks::<9>().0) {
                    let taken = (0..9).filter(|tap| rows[tap / 3] && columns[tap % 3]);
                    *sum = taken.fold(0i32, |sum, tap| sum.wrapping_add(taps[tap]));
                }
                let first = number;
                for (y, x) in (0..ALL).map(|i| (i / PRODUCTS, i % PRODUCTS)) {
                    if (TAPS[y], TAPS[x]) == (a, b) {
                        numbers[y][x] = number;
                        number += 1;
                    }
                }
                matrices
                    .push((PackedLinear::pack(set, matrix.clone(), &sums, ring), first..number));
            }
        }
        sums.zeroize();
        let of_band = number * tiles[1] * (inputs + outputs) * 2;
        let at_once = (AT_ONCE.max(bytes(geometry) / 4) / of_band).clamp(1, tiles[0]);
        let image = geometry.within(border);
        Self { image, inputs, outputs, tiles, at_once, matrices, numbers }
    }

    /// Elements of a row of outputs.
    fn row(&self) -> usize {
        self.image.output[1] * self.outputs
    }

    /// The band of a row of outputs, counted over the items, and the row's index in the band.
    fn band_of(&self, row: usize) -> (usize, usize) {
        let height = self.image.output[0];
        let (item, row) = (row / height, row % height);
        (item * self.tiles[0] + row / SIDE, row % SIDE)
    }

    /// Computes the outputs of `elements`, one at least, of a batch `x`, on so many cores.
    pub fn prepare<W: Width>(
        &self,
        x: WordsRef<'_>,
        elements: Range<usize>,
        cores: usize,
        memory: &mut Memory<W>,
    ) {
        let bands = self.band_of(elements.start / self.row()).0
            ..self.band_of(elements.end.div_ceil(self.row()) - 1).0 + 1;
        let there = memory.bands.clone();
        if there.contains(&bands.start) && bands.end <= there.end {
            return;
        }
        let of_band = SIDE * self.row();
        let kept = if there.contains(&bands.start) { there.end - bands.start } else { 0 };
        let all = x.len() / self.image.input_elements() * self.tiles[0];
        let missing = bands.start + kept..bands.end;
        let end = (missing.start + missing.len().next_multiple_of(self.at_once)).min(all);
        let missing = missing.start..end;
        let kept_from = (there.end - kept - there.start) * of_band;
        let kept = kept * of_band;
        memory.keep(kept_from..kept_from + kept, kept + missing.len() * of_band);
        memory.bands = bands.start..end;
        let items = missing.start / self.tiles[0]..missing.end.div_ceil(self.tiles[0]);
        if items.start < memory.items.start || items.end > memory.items.end {
            let image = self.image.input_elements();
            let images = items.start * image..items.end * image;
            each_slice!(WordsRef, x, x => {
                self.image.pad(&x[images], &mut memory.planes, |v| W::low(v.element()));
            });
            memory.items = items;
        }
        memory.cores.resize_with(cores.max(memory.cores.len()), Core::new);
        let planes = Planes { first: memory.items.start * self.tiles[0], words: &memory.planes };
        let results = &mut memory.results[kept..][..missing.len() * of_band];
        self.compute(planes, missing, results, &mut memory.cores[..cores]);
    }

    /// Adds the outputs of `out.len()` elements from `first` on, which were prepared, and reduces.
    ///
    /// # Panics
    /// If they were not.
    pub fn add<W: Width>(&self, memory: &Memory<W>, first: usize, out: &mut [W], mask: W) {
        let (row, mut at, mut out) = (self.row(), first, out);
        while !out.is_empty() {
            let (band, line) = self.band_of(at / row);
            let count = out.len().min(row - at % row);
            let start = ((band - memory.bands.start) * SIDE + line) * row + at % row;
            let (now, later) = out.split_at_mut(count);
            let results = &memory.results[start..start + count];
            vectorized(
                #[inline(always)]
                || {
                    let pairs = now.iter_mut().zip(results);
                    pairs.for_each(|(out, &sum)| *out = out.plus(sum).and(mask));
                },
            );
            (at, out) = (at + count, later);
        }
    }

    /// The outputs of consecutive bands, on as many cores as there is memory for.
    fn compute<W: Width>(
        &self,
        planes: Planes<'_, W>,
        bands: Range<usize>,
        results: &mut [W],
        cores: &mut [Core<W>],
    ) {
        let of_band = SIDE * self.row();
        if cores.len() > 1 && bands.len() > 1 {
            let middle = bands.len() / 2;
            let (left, right) = results.split_at_mut(middle * of_band);
            let (ours, others) = cores.split_at_mut(cores.len() / 2);
            let middle = bands.start + middle;
            rayon::join(
                || self.compute(planes, bands.start..middle, left, ours),
                || self.compute(planes, middle..bands.end, right, others),
            );
        } else if let Some(core) = cores.first_mut() {
            for (i, results) in results.chunks_mut(self.at_once * of_band).enumerate() {
                let first = bands.start + i * self.at_once;
                self.chunk(planes, first..first + results.len() / of_band, results, core);
            }
        }
    }

    /// The outputs of a few bands.
    fn chunk<W: Width>(
        &self,
        planes: Planes<'_, W>,
        bands: Range<usize>,
        results: &mut [W],
        core: &mut Core<W>,
    ) {
        let Core { lines, operands, products, scratch } = core;
        let tiles = bands.len() * self.tiles[1];
        let line = self.image.line();
        fit(lines, (PRODUCTS * line).max(PRODUCTS * SIDE * self.outputs));
        fit(operands, ALL * tiles * self.inputs);
        fit(products, ALL * tiles * self.outputs);
        let x = &mut operands[..ALL * tiles * self.inputs];
        let y = &mut products[..ALL * tiles * self.outputs];
        for (i, band) in bands.enumerate() {
            let plane = planes.of_band(self, band);
            vectorized(
                #[inline(always)]
                || self.operands(plane, lines, x, i * self.tiles[1], tiles),
            );
        }
        y.fill(W::default());
        for (matrix, numbers) in &self.matrices {
            let elements = numbers.start * tiles * self.outputs..numbers.end * tiles * self.outputs;
            let mut running = matrix.over(W::of(x), scratch);
            running.prepare(elements.clone());
            running.add(elements.start, W::of_mut(&mut y[elements]), Prefetch::default());
        }
        for (i, results) in results.chunks_exact_mut(SIDE * self.row()).enumerate() {
            vectorized(
                #[inline(always)]
                || self.results(y, lines, results, i * self.tiles[1], tiles),
            );
        }
    }

    /// The operands of a band's tiles, the `first` of so many, from its rows.
    #[inline(always)]
    fn operands<W: Width>(
        &self,
        plane: &[W],
        lines: &mut [W],
        x: &mut [W],
        first: usize,
        tiles: usize,
    ) {
        let (line, channels) = (self.image.line(), self.inputs);
        let (from, to) = (std::array::from_fn(|i| i * line), std::array::from_fn(|i| i * line));
        map::<W, Operands, INPUTS, PRODUCTS>(plane, from, lines, to, line);
        for (row, numbers) in self.numbers.iter().enumerate() {
            for tile in 0..self.tiles[1] {
                let from = row * line + tile * SIDE * channels;
                let offsets = numbers.map(|number| (number * tiles + first + tile) * channels);
                let pixels = std::array::from_fn(|pixel| from + pixel * channels);
                map::<W, Operands, INPUTS, PRODUCTS>(lines, pixels, x, offsets, channels);
            }
        }
    }

    /// The outputs of a band from its tiles' products.
    #[inline(always)]
    fn results<W: Width>(
        &self,
        y: &[W],
        lines: &mut [W],
        results: &mut [W],
        first: usize,
        tiles: usize,
    ) {
        let (row, channels) = (self.row(), self.outputs);
        for tile in 0..self.tiles[1] {
            for (line, numbers) in self.numbers.iter().enumerate() {
                let from = numbers.map(|number| (number * tiles + first + tile) * channels);
                let to = std::array::from_fn(|column| (line * SIDE + column) * channels);
                map::<W, Results, PRODUCTS, SIDE>(y, from, lines, to, channels);
            }
            let left = self.image.output[1] - tile * SIDE;
            for column in 0..SIDE.min(left) {
                let from = std::array::from_fn(|line| (line * SIDE + column) * channels);
                let at = (tile * SIDE + column) * channels;
                let to = std::array::from_fn(|line| line * row + at);
                map::<W, Results, PRODUCTS, SIDE>(lines, from, results, to, channels);
            }
        }
    }
}

/// Padded images, from that of a band on.
#[derive(Clone, Copy)]
struct Planes<'a, W> {
    /// The first band of the first image.
    first: usize,
    words: &'a [W],
}

impl<'a, W> Planes<'a, W> {
    /// The rows that a band is made of.
    fn of_band(self, fast: &Fast, band: usize) -> &'a [W] {
        let (item, band) =
            ((band - self.first) / fast.tiles[0], (band - self.first) % fast.tiles[0]);
        let start = item * fast.image.plane() + band * SIDE * fast.image.line();
        &self.words[start..start + INPUTS * fast.image.line()]
    }
}

impl<W> Core<W> {
    fn new() -> Self {
        Self { lines: vec![], operands: vec![], products: vec![], scratch: Scratch::default() }
    }
}
