//! The reference implementation of the kernels in safe Rust, for every ring: words wide enough for it, whose
//! arithmetic wraps. The compiler vectorises it along the output channels: a block of them is a line of words.

use super::geometry::Geometry;
use ir::word::{Word, vectorized};
use std::ops::Range;
use zeroize::Zeroizing;

/// Positions of a tile.
const POSITIONS: usize = 4;
/// Bytes of a block's sums.
const BYTES: usize = 64;

/// Weights as words: per group, block, run and element of a run one for every output channel of the
/// block, or per tap one for every channel where each is a group of its own.
pub struct PortableWeights<W: zeroize::Zeroize>(Zeroizing<Vec<W>>);

impl<W: Word + zeroize::Zeroize> PortableWeights<W> {
    /// Packs weights in ONNX's order.
    pub fn new(geometry: &Geometry, weights: &[i32]) -> Self {
        let lanes = BYTES * 8 / W::BITS as usize;
        let mut words = Vec::new();
        if geometry.is_depthwise() {
            for run in 0..geometry.runs.len() {
                words.extend(
                    (0..geometry.groups).map(|c| W::weight(weights[geometry.weight(c, run, 0)])),
                );
            }
            return Self(Zeroizing::new(words));
        }
        for group in 0..geometry.groups {
            for first in (0..geometry.group_outputs).step_by(lanes) {
                for (run, element) in
                    (0..geometry.runs.len()).flat_map(|r| (0..geometry.run).map(move |e| (r, e)))
                {
                    words.extend((first..first + lanes).map(|output| {
                        if output >= geometry.group_outputs {
                            return W::default();
                        }
                        let output = group * geometry.group_outputs + output;
                        W::weight(weights[geometry.weight(output, run, element)])
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

    /// Adds the products of `positions` to `out`, their outputs, and reduces by `mask`; `planes` are the
    /// padded images.
    pub fn apply(
        &self,
        geometry: &Geometry,
        planes: &[W],
        positions: Range<usize>,
        out: &mut [W],
        mask: W,
    ) {
        vectorized(
            #[inline(always)]
            || match W::BITS {
                _ if geometry.is_depthwise() => {
                    self.depthwise(geometry, planes, positions, out, mask)
                }
                16 => self.blocks::<32>(geometry, planes, positions, out, mask),
                32 => self.blocks::<16>(geometry, planes, positions, out, mask),
                _ => self.blocks::<8>(geometry, planes, positions, out, mask),
            },
        );
    }

    #[inline(always)]
    fn blocks<const LANES: usize>(
        &self,
        geometry: &Geometry,
        planes: &[W],
        positions: Range<usize>,
        out: &mut [W],
        mask: W,
    ) {
        let outputs = geometry.outputs();
        let per_block = geometry.fan_in() * LANES;
        let blocks = geometry.group_outputs.div_ceil(LANES);
        for (index, weights) in self.0.chunks_exact(per_block).enumerate() {
            let (group, first) = (index / blocks, index % blocks * LANES);
            let lanes = LANES.min(geometry.group_outputs - first);
            let at = group * geometry.group_outputs + first;
            let mut tiles = out.chunks_exact_mut(outputs * POSITIONS);
            let mut position = positions.start;
            for out in &mut tiles {
                let sums = tile::<W, POSITIONS, LANES>(geometry, weights, planes, group, position);
                store(&sums, out, outputs, at, lanes, mask);
                position += POSITIONS;
            }
            for out in tiles.into_remainder().chunks_exact_mut(outputs) {
                let sums = tile::<W, 1, LANES>(geometry, weights, planes, group, position);
                store(&sums, out, outputs, at, lanes, mask);
                position += 1;
            }
        }
    }

    #[inline(always)]
    fn depthwise(
        &self,
        geometry: &Geometry,
        planes: &[W],
        positions: Range<usize>,
        out: &mut [W],
        mask: W,
    ) {
        const LANES: usize = 32;
        let channels = geometry.channels();
        for (position, out) in positions.zip(out.chunks_exact_mut(channels)) {
            let mut base = [0];
            geometry.bases(position, &mut base);
            let (blocks, rest) = out.as_chunks_mut::<LANES>();
            let tail = blocks.len() * LANES;
            for (block, out) in blocks.iter_mut().enumerate() {
                let at = block * LANES;
                for (tap, weights) in geometry.runs.iter().zip(self.0.chunks_exact(channels)) {
                    let x = planes[base[0] + tap + at..].first_chunk::<LANES>();
                    if let (Some(x), Some(w)) = (x, weights[at..].first_chunk::<LANES>()) {
                        *out = multiply_add(out, w, x);
                    }
                }
                out.iter_mut().for_each(|v| *v = v.and(mask));
            }
            for (lane, out) in rest.iter_mut().enumerate() {
                for (tap, weights) in geometry.runs.iter().zip(self.0.chunks_exact(channels)) {
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
    geometry: &Geometry,
    weights: &[W],
    planes: &[W],
    group: usize,
    position: usize,
) -> [[W; LANES]; P] {
    let mut bases = [0; P];
    geometry.bases(position, &mut bases);
    let mut sums = [[W::default(); LANES]; P];
    for (&run, weights) in geometry.runs.iter().zip(weights.chunks_exact(geometry.run * LANES)) {
        let elements =
            bases.map(|base| &planes[base + group * geometry.group_inputs + run..][..geometry.run]);
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
