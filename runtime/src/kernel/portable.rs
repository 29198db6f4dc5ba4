//! The meaning of the kernels in safe Rust, for every ring: words wide enough for it, whose arithmetic
//! wraps. Vectorised by the compiler, along the output channels: a block of them is a line of words.

use super::walk::Walk;
use ir::word::{Word, vectorized};
use std::ops::Range;
use zeroize::Zeroizing;

/// Places of a tile.
const PLACES: usize = 4;
/// Bytes of a block's sums.
const BYTES: usize = 64;

/// Weights as words: per group, block, run and element of a run one for every output channel of the
/// block, or per tap one for every channel where each is a group of its own.
pub struct PortableWeights<W: zeroize::Zeroize>(Zeroizing<Vec<W>>);

impl<W: Word + zeroize::Zeroize> PortableWeights<W> {
    /// Packs weights in ONNX's order.
    pub fn new(walk: &Walk, weights: &[i32]) -> Self {
        let lanes = BYTES * 8 / W::BITS as usize;
        let mut words = Vec::new();
        if walk.is_depthwise() {
            for run in 0..walk.runs.len() {
                words.extend((0..walk.groups).map(|c| W::weight(weights[walk.weight(c, run, 0)])));
            }
            return Self(Zeroizing::new(words));
        }
        for group in 0..walk.groups {
            for first in (0..walk.group_outputs).step_by(lanes) {
                for (run, element) in
                    (0..walk.runs.len()).flat_map(|r| (0..walk.run).map(move |e| (r, e)))
                {
                    words.extend((first..first + lanes).map(|output| {
                        if output >= walk.group_outputs {
                            return W::default();
                        }
                        let output = group * walk.group_outputs + output;
                        W::weight(weights[walk.weight(output, run, element)])
                    }));
                }
            }
        }
        Self(Zeroizing::new(words))
    }

    /// The words.
    pub fn words(&self) -> &[W] {
        &self.0
    }

    /// Adds the products of `places` to `out`, their outputs, and reduces by `mask`; `planes` are the
    /// images in their borders.
    pub fn apply(&self, walk: &Walk, planes: &[W], places: Range<usize>, out: &mut [W], mask: W) {
        vectorized(
            #[inline(always)]
            || match W::BITS {
                _ if walk.is_depthwise() => self.depthwise(walk, planes, places, out, mask),
                16 => self.blocks::<32>(walk, planes, places, out, mask),
                32 => self.blocks::<16>(walk, planes, places, out, mask),
                _ => self.blocks::<8>(walk, planes, places, out, mask),
            },
        );
    }

    #[inline(always)]
    fn blocks<const LANES: usize>(
        &self,
        walk: &Walk,
        planes: &[W],
        places: Range<usize>,
        out: &mut [W],
        mask: W,
    ) {
        let outputs = walk.outputs();
        let per_block = walk.fan_in() * LANES;
        let blocks = walk.group_outputs.div_ceil(LANES);
        for (index, weights) in self.0.chunks_exact(per_block).enumerate() {
            let (group, first) = (index / blocks, index % blocks * LANES);
            let lanes = LANES.min(walk.group_outputs - first);
            let at = group * walk.group_outputs + first;
            let mut tiles = out.chunks_exact_mut(outputs * PLACES);
            let mut place = places.start;
            for out in &mut tiles {
                let sums = tile::<W, PLACES, LANES>(walk, weights, planes, group, place);
                store(&sums, out, outputs, at, lanes, mask);
                place += PLACES;
            }
            for out in tiles.into_remainder().chunks_exact_mut(outputs) {
                let sums = tile::<W, 1, LANES>(walk, weights, planes, group, place);
                store(&sums, out, outputs, at, lanes, mask);
                place += 1;
            }
        }
    }

    #[inline(always)]
    fn depthwise(&self, walk: &Walk, planes: &[W], places: Range<usize>, out: &mut [W], mask: W) {
        const LANES: usize = 32;
        let channels = walk.channels();
        for (place, out) in places.zip(out.chunks_exact_mut(channels)) {
            let mut base = [0];
            walk.bases(place, &mut base);
            let (blocks, rest) = out.as_chunks_mut::<LANES>();
            let tail = blocks.len() * LANES;
            for (block, out) in blocks.iter_mut().enumerate() {
                let at = block * LANES;
                for (tap, weights) in walk.runs.iter().zip(self.0.chunks_exact(channels)) {
                    let x = planes[base[0] + tap + at..].first_chunk::<LANES>();
                    if let (Some(x), Some(w)) = (x, weights[at..].first_chunk::<LANES>()) {
                        *out = multiply_add(out, w, x);
                    }
                }
                out.iter_mut().for_each(|v| *v = v.and(mask));
            }
            for (lane, out) in rest.iter_mut().enumerate() {
                for (tap, weights) in walk.runs.iter().zip(self.0.chunks_exact(channels)) {
                    *out =
                        out.multiply_add(weights[tail + lane], planes[base[0] + tap + tail + lane]);
                }
                *out = out.and(mask);
            }
        }
    }
}

#[inline(always)]
fn multiply_add<W: Word, const LANES: usize>(
    sums: &[W; LANES],
    weights: &[W; LANES],
    x: &[W; LANES],
) -> [W; LANES] {
    let mut result = *sums;
    for lane in 0..LANES {
        result[lane] = result[lane].multiply_add(weights[lane], x[lane]);
    }
    result
}

#[inline(always)]
fn tile<W: Word, const P: usize, const LANES: usize>(
    walk: &Walk,
    weights: &[W],
    planes: &[W],
    group: usize,
    place: usize,
) -> [[W; LANES]; P] {
    let mut bases = [0; P];
    walk.bases(place, &mut bases);
    let mut sums = [[W::default(); LANES]; P];
    for (&run, weights) in walk.runs.iter().zip(weights.chunks_exact(walk.run * LANES)) {
        let elements =
            bases.map(|base| &planes[base + group * walk.group_inputs + run..][..walk.run]);
        let (lines, _) = weights.as_chunks::<LANES>();
        for (i, line) in lines.iter().enumerate() {
            for p in 0..P {
                let x = elements[p][i];
                for lane in 0..LANES {
                    sums[p][lane] = sums[p][lane].multiply_add(x, line[lane]);
                }
            }
        }
    }
    sums
}

#[inline(always)]
fn store<W: Word, const P: usize, const LANES: usize>(
    sums: &[[W; LANES]; P],
    out: &mut [W],
    outputs: usize,
    at: usize,
    lanes: usize,
    mask: W,
) {
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(outputs)) {
        for (out, &sum) in out[at..at + lanes].iter_mut().zip(sums) {
            *out = out.plus(sum).and(mask);
        }
    }
}
