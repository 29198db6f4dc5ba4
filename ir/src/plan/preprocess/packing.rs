//! How a linear step becomes products of polynomials: coefficient packing without rotations (Cheetah,
//! USENIX Security 2022), for several images, input and output channels at once.
//!
//! A *block* of `S` coefficients holds one plane (one channel of one image or of a tile of it), rows of
//! length `L`. With the kernel's tap `(y, x)` at `T − (y·d·L + x·d)`, the product of two blocks holds the
//! convolution from coefficient `T` on. A ciphertext holds `B` images of `a` channels, image `i` and
//! channel `c` in block `i·a·b + c`; a polynomial of weights holds `b` outputs, output `j` and channel
//! `c` in block `j·a + (a−1−c)`. Their product has the sum over the `a` channels of output `j` of image
//! `i` in block `i·a·b + j·a + a−1`: two channels that differ, or another output, fall elsewhere, as
//! `|c−c'| < a` and `|j−j'| < b`. What passes `X^N` comes back in blocks `0 … a−2` only.
//!
//! *Shared borders.* A row is followed by as many zeros as the wider of the two paddings has, which serve
//! as the right border of this row and the left one of the next; rows below serve the next block as rows
//! above. A product overflows its block by at most `T` less those borders, which is below the first
//! wanted coefficient of the next block.
//!
//! *Cost.* `⌈C/a⌉·⌈I/B⌉` ciphertexts up and `⌈M/b⌉·⌈I/B⌉` answers down, `a·b·B·S ≤ N`. Grouped
//! convolutions are dense ones with polynomials of zeros, which are skipped.

use super::Cost;
use super::rlwe::{Demand, RingLwe};
use crate::plan::{Linear, Plan, StepOp};
use crate::ring::packed_bytes;

/// The largest number of parameter sets of a plan.
pub const MAX_SETS: usize = 8;
/// The most tiles along an axis; no sensible value needs as many.
const MAX_TILES: usize = 1024;

/// One axis of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    padding: usize,
    /// Input `i` of the packing is input `i·step − skip` of the value.
    step: usize,
    skip: usize,
}

impl Axis {
    const POINT: Self = Self {
        input: 1,
        output: 1,
        kernel: 1,
        stride: 1,
        dilation: 1,
        padding: 0,
        step: 1,
        skip: 0,
    };

    /// With a kernel of one tap, only what it touches is packed. Padding that no tap bridges is packed as
    /// zeros.
    fn new(input: usize, output: usize, geometry: [usize; 4]) -> Self {
        let [kernel, stride, dilation, padding] = geometry;
        if kernel == 1 {
            return Self { input: output, output, step: stride, skip: padding, ..Self::POINT };
        }
        let axis = Self { input, output, kernel, stride, dilation, padding, step: 1, skip: 0 };
        let end = (output.max(1) - 1) * stride + axis.reach() + 1;
        if padding > axis.reach() || end > padding + input + axis.reach() {
            return Self { input: end, padding: 0, skip: padding, ..axis };
        }
        axis
    }

    fn reach(&self) -> usize {
        (self.kernel - 1) * self.dilation
    }

    /// The part of a tile `index` of `count`: first output, number of outputs, first input, number of
    /// inputs, zeros needed before.
    fn tile(&self, index: usize, count: usize) -> Part {
        let length = self.output.div_ceil(count);
        let first = (index * length).min(self.output);
        let outputs = length.min(self.output - first);
        let start = first * self.stride;
        let end = start + (outputs.max(1) - 1) * self.stride + self.reach() + 1;
        let low = start.max(self.padding).min(self.padding + self.input);
        let high = end.clamp(low, low.max(self.padding + self.input));
        Part {
            first,
            outputs,
            from: low - self.padding,
            inputs: high - low,
            before: low - start.min(low),
            after: end - high,
        }
    }

    /// Rows that a block has for any tile.
    fn span(&self, count: usize) -> usize {
        let parts = || (0..count).map(|i| self.tile(i, count));
        let data = parts().map(|p| p.inputs).max().unwrap_or(0);
        let border = parts().map(|p| p.before.max(p.after)).max().unwrap_or(0);
        (data + border).max(self.reach() + 1)
    }

    /// The input of the value that is input `i` of the packing; `limit` is the value's length.
    fn source(&self, i: usize, limit: usize) -> Option<usize> {
        (i * self.step).checked_sub(self.skip).filter(|&i| i < limit)
    }
}

/// One axis of a tile.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: usize,
    outputs: usize,
    from: usize,
    inputs: usize,
    before: usize,
    after: usize,
}

/// A secret linear step as convolutions of planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planes {
    /// Images of one inference: rows of a matrix product, else 1.
    rows: usize,
    channels: usize,
    outputs: usize,
    groups: usize,
    axes: [Axis; 2],
    /// Height and width of the value.
    extent: [usize; 2],
    ring: u32,
    weight_bits: u32,
}

impl Planes {
    /// The convolution or matrix product of a step; `None` for other steps.
    pub fn of(plan: &Plan, index: usize) -> Option<Self> {
        let step = &plan.steps[index];
        let operand = &plan.step(*step.operands.first()?).shape;
        let ring = step.ring;
        let StepOp::Linear(kind) = &step.op else { return None };
        match kind {
            Linear::Convolution { geometry: g, weight_bits } => {
                let axis = |i: usize| {
                    let geometry = [g.kernel[i], g.stride[i], g.dilation[i], g.padding[i]];
                    Axis::new(operand.0[2 + i], step.shape.0[2 + i], geometry)
                };
                Some(Self {
                    rows: 1,
                    channels: operand.0[1],
                    outputs: step.shape.0[1],
                    groups: g.groups,
                    axes: [axis(0), axis(1)],
                    extent: [operand.0[2], operand.0[3]],
                    ring,
                    weight_bits: *weight_bits,
                })
            }
            Linear::MatrixProduct { weight_bits } => {
                let channels = *operand.0.last()?;
                Some(Self {
                    rows: operand.elements() / channels.max(1),
                    channels,
                    outputs: *step.shape.0.last()?,
                    groups: 1,
                    axes: [Axis::POINT; 2],
                    extent: [1, 1],
                    ring,
                    weight_bits: *weight_bits,
                })
            }
            Linear::Hadamard { .. } => None,
        }
    }

    /// Weights per output element.
    fn fan_in(&self) -> usize {
        self.channels / self.groups * self.axes[0].kernel * self.axes[1].kernel
    }

    /// What `b` outputs in one polynomial need of the encryption.
    fn demand(&self, b: usize) -> Demand {
        let terms = (b * self.fan_in()).next_power_of_two();
        Demand::linear(self.ring, self.weight_bits, terms)
    }

    /// Elements of the operand of one inference.
    pub fn operand_elements(&self) -> usize {
        self.rows * self.channels * self.extent[0] * self.extent[1]
    }

    /// Elements of the result of one inference.
    pub fn result_elements(&self) -> usize {
        self.rows * self.outputs * self.axes[0].output * self.axes[1].output
    }

    /// The parameters and the packing of the fewest bytes for one inference, for the compiler: for every
    /// number of outputs the smallest degree whose polynomials hold the kernel's reach. `None` if none does.
    pub fn cheapest(&self) -> Option<RingLwe> {
        let powers = (0..=self.outputs.next_power_of_two().ilog2()).map(|b| 1 << b);
        let of = |lwe| Some((Packing::new(*self, 1, &[lwe])?.bytes(), lwe));
        powers
            .filter_map(|b| RingLwe::of_all_degrees(&self.demand(b)).find_map(of))
            .min_by_key(|(bytes, _)| bytes.0 + bytes.1)
            .map(|(_, lwe)| lwe)
    }
}

/// Which coefficients of which polynomials hold the operand, the weights and the result of a linear step, for some
/// inferences at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    planes: Planes,
    /// Inferences.
    items: usize,
    /// Which of the plan's parameter sets is used.
    pub set: usize,
    /// The encryption.
    pub lwe: RingLwe,
    /// Channels, outputs and images of a ciphertext.
    a: usize,
    b: usize,
    images: usize,
    tiles: [usize; 2],
    length: usize,
    block: usize,
}

impl Packing {
    /// The packing of the fewest bytes for `items` inferences, among a plan's parameter sets; `None` if
    /// none of them has room.
    pub fn new(planes: Planes, items: usize, sets: &[RingLwe]) -> Option<Self> {
        let of_set = |(set, lwe): (usize, &RingLwe)| Self::with(planes, items, set, *lwe);
        let packings = sets.iter().enumerate().filter_map(of_set);
        packings.min_by_key(|p| p.bytes().0 + p.bytes().1)
    }

    fn with(planes: Planes, items: usize, set: usize, lwe: RingLwe) -> Option<Self> {
        if !lwe.has_room_for(&planes.demand(1)) {
            return None;
        }
        let (degree, [rows, columns]) = (lwe.degree(), planes.axes);
        let mut best: Option<(usize, Self)> = None;
        // Columns are cut only where a single row of outputs does not fit.
        let across = (1..=columns.output.min(MAX_TILES))
            .find(|&across| columns.span(across) * rows.span(rows.output) <= degree)?;
        let length = columns.span(across);
        let fewest =
            (1..=rows.output.min(MAX_TILES)).find(|&down| length * rows.span(down) <= degree)?;
        for down in fewest..=rows.output.min(fewest + 7) {
            let block = length * rows.span(down);
            let room = degree / block;
            let images = items * planes.rows * across * down;
            for a in distinct_quotients(planes.channels).filter(|&a| a <= room) {
                for together in distinct_quotients(images).filter(|&n| a * n <= room) {
                    let mut b = (room / (a * together)).min(planes.outputs);
                    while !lwe.has_room_for(&planes.demand(b)) {
                        b /= 2;
                    }
                    let b = planes.outputs.div_ceil(planes.outputs.div_ceil(b));
                    let tiles = [down, across];
                    let images = together;
                    let found =
                        Self { planes, items, set, lwe, a, b, images, tiles, length, block };
                    let bytes = found.bytes();
                    if best.as_ref().is_none_or(|(least, _)| bytes.0 + bytes.1 < *least) {
                        best = Some((bytes.0 + bytes.1, found));
                    }
                }
            }
        }
        best.map(|(_, packing)| packing)
    }

    fn all_images(&self) -> usize {
        self.items * self.planes.rows * self.tiles[0] * self.tiles[1]
    }

    /// Groups of images, of channels and of outputs. Ciphertexts are numbered by image group, then
    /// channel group; answers by image group, then output group.
    pub fn groups(&self) -> (usize, usize, usize) {
        (
            self.all_images().div_ceil(self.images),
            self.planes.channels.div_ceil(self.a),
            self.planes.outputs.div_ceil(self.b),
        )
    }

    /// What the encryption parameters must support.
    pub fn demand(&self) -> Demand {
        self.planes.demand(self.b)
    }

    /// Ring width of the result.
    pub fn ring(&self) -> u32 {
        self.planes.ring
    }

    /// Number of inferences.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The step that is packed.
    pub fn planes(&self) -> &Planes {
        &self.planes
    }

    /// `(j₀, j₁)`: bits per coefficient of the two components of an answer.
    pub fn answer_bits(&self) -> (u32, u32) {
        (self.planes.ring, self.lwe.second_bits(self.planes.ring))
    }

    /// Bytes to party 0 and to party 1.
    pub fn bytes(&self) -> (usize, usize) {
        let (images, channels, outputs) = self.groups();
        let (low, high) = self.answer_bits();
        let seconds = images * outputs * packed_bytes(self.lwe.degree(), high);
        let firsts = packed_bytes(self.items * self.planes.result_elements(), low);
        (images * channels * self.lwe.ciphertext_bytes(), seconds + firsts)
    }

    /// Transforms of one prime at party 1 and at party 0, for estimates of time.
    pub fn transforms(&self) -> (usize, usize) {
        let (images, channels, outputs) = self.groups();
        let primes = self.lwe.primes as usize;
        (
            images * (channels * primes + outputs * 2),
            primes * outputs * (channels.div_ceil(self.planes.groups.min(channels)) + 3 * images),
        )
    }

    /// The cost of the exchange.
    pub fn cost(&self) -> Cost {
        let ((party1, party0), (to0, to1)) = (self.transforms(), self.bytes());
        let in_units = |count: usize| count * self.lwe.degree() / 4096;
        let transforms = [in_units(party1), in_units(party0)];
        Cost { transforms, bytes: vec![to0, to1], ..Cost::default() }
    }

    /// Item, row of a matrix product, and the parts of the tile of an image.
    fn image(&self, image: usize) -> Option<(usize, usize, [Part; 2])> {
        let [down, across] = self.tiles;
        let (rest, column) = (image / across, image % across);
        let (rest, row) = (rest / down, rest % down);
        let (item, of_item) = (rest / self.planes.rows, rest % self.planes.rows);
        let [rows, columns] = self.planes.axes;
        let parts = [rows.tile(row, down), columns.tile(column, across)];
        (item < self.items).then_some((item, of_item, parts))
    }

    /// Visits what ciphertext `(images, channels)` holds: coefficient, item, element of the operand.
    pub fn operands(
        &self,
        (images, channels): (usize, usize),
        mut visit: impl FnMut(usize, usize, usize),
    ) {
        let planes = &self.planes;
        let [height, width] = planes.extent;
        for i in 0..self.images {
            let Some((item, row, [down, across])) = self.image(images * self.images + i) else {
                continue;
            };
            for c in 0..self.a {
                let channel = channels * self.a + c;
                if channel >= planes.channels {
                    break;
                }
                let plane = (row * planes.channels + channel) * height * width;
                let block = (i * self.a * self.b + c) * self.block;
                for y in 0..down.inputs {
                    let Some(source) = planes.axes[0].source(down.from + y, height) else {
                        continue;
                    };
                    let line = plane + source * width;
                    for x in 0..across.inputs {
                        if let Some(x_source) = planes.axes[1].source(across.from + x, width) {
                            visit(block + y * self.length + x, item, line + x_source);
                        }
                    }
                }
            }
        }
    }

    /// Visits the weights of `(outputs, channels)`: coefficient, index into the step's weights. Nothing
    /// is visited where a grouped convolution has none.
    pub fn weights(
        &self,
        (outputs, channels): (usize, usize),
        mut visit: impl FnMut(usize, usize),
    ) {
        let planes = &self.planes;
        let [vertical, horizontal] = planes.axes;
        let taps = vertical.kernel * horizontal.kernel;
        let last = vertical.reach() * self.length + horizontal.reach();
        let (channels_of, outputs_of) =
            (planes.channels / planes.groups, planes.outputs / planes.groups);
        for j in 0..self.b {
            let output = outputs * self.b + j;
            if output >= planes.outputs {
                break;
            }
            for c in 0..self.a {
                let channel = channels * self.a + c;
                if channel >= planes.channels || channel / channels_of != output / outputs_of {
                    continue;
                }
                let block = (j * self.a + self.a - 1 - c) * self.block + last;
                let first = (output * channels_of + channel % channels_of) * taps;
                for y in 0..vertical.kernel {
                    for x in 0..horizontal.kernel {
                        let shift = y * vertical.dilation * self.length + x * horizontal.dilation;
                        visit(block - shift, first + y * horizontal.kernel + x);
                    }
                }
            }
        }
    }

    /// Visits what answer `(images, outputs)` holds: coefficient, item, element of the result.
    pub fn results(
        &self,
        (images, outputs): (usize, usize),
        mut visit: impl FnMut(usize, usize, usize),
    ) {
        let planes = &self.planes;
        let [vertical, horizontal] = planes.axes;
        let last = vertical.reach() * self.length + horizontal.reach();
        for i in 0..self.images {
            let Some((item, row, [down, across])) = self.image(images * self.images + i) else {
                continue;
            };
            for j in 0..self.b {
                let output = outputs * self.b + j;
                if output >= planes.outputs {
                    break;
                }
                let plane = (row * planes.outputs + output) * vertical.output * horizontal.output;
                let block = (i * self.a * self.b + j * self.a + self.a - 1) * self.block + last;
                let origin = block - down.before * self.length - across.before;
                for y in 0..down.outputs {
                    let line = plane + (down.first + y) * horizontal.output + across.first;
                    let start = origin + y * vertical.stride * self.length;
                    for x in 0..across.outputs {
                        visit(start + x * horizontal.stride, item, line + x);
                    }
                }
            }
        }
    }
}

impl Plan {
    /// The packing of a linear step for some inferences at once; `None` for other steps.
    pub fn packing(&self, step: usize, items: usize) -> Option<Packing> {
        Packing::new(Planes::of(self, step)?, items, &self.rlwe)
    }

    /// The share of a step's results that are one unit off if no dealer made the correlation, because of the
    /// roundings of the encryption: see [`RingLwe::off_by_one`].
    pub fn off_by_one(&self, step: usize) -> f64 {
        self.packing(step, 1).map_or(0.0, |packing| packing.lwe.off_by_one(packing.ring()))
    }
}

/// `⌈n/i⌉` for all `i`: the group sizes that make a difference.
fn distinct_quotients(n: usize) -> impl Iterator<Item = usize> {
    let mut next = Some(n);
    std::iter::from_fn(move || {
        let current = next?;
        // The smallest number of groups whose size is below the current one.
        next = (current > 1).then(|| n.div_ceil(n.div_ceil(current - 1)));
        Some(current)
    })
}

#[cfg(test)]
#[path = "packing_tests.rs"]
mod tests;
