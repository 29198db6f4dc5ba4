//! Two-dimensional convolution (ONNX `Conv`; one-dimensional ones have height 1) of images
//! `[N, C, H, W]` over the reals, and of one image, `[1, C, H, W]`, in rings.

use super::matrix::{multiply_reals_into, multiply_words};
use crate::ring::low_mask;
use crate::tensor::Shape;
use crate::word::Word;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Inputs that are gathered at once.
const GATHERED: usize = 1 << 17;
/// Outputs whose inputs are gathered at once, at least.
const LEAST_OUTPUTS: usize = 128;

/// Geometry of a convolution. Pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Convolution {
    /// Groups: input and output channels fall into as many blocks.
    pub groups: usize,
    /// Kernel size.
    pub kernel: [usize; 2],
    /// Step between outputs.
    pub stride: [usize; 2],
    /// Step between the taps of the kernel.
    pub dilation: [usize; 2],
    /// Zeros around the image: top, left, bottom, right.
    pub padding: [usize; 4],
}

impl Convolution {
    /// The shape of the result for an input `[N, C, H, W]` and weights `[O, C/groups, kh, kw]`.
    pub fn output_shape(&self, input: &Shape, outputs: usize) -> Option<Shape> {
        let &[images, channels, height, width] = input.0.as_slice() else { return None };
        let sane = self.groups > 0
            && channels.is_multiple_of(self.groups)
            && outputs.is_multiple_of(self.groups)
            && self.kernel.iter().chain(&self.stride).chain(&self.dilation).all(|&v| v > 0);
        if !sane {
            return None;
        }
        let extent = |axis: usize, length: usize| {
            let padded =
                length.checked_add(self.padding[axis])?.checked_add(self.padding[axis + 2])?;
            let reach = self.dilation[axis].checked_mul(self.kernel[axis] - 1)?.checked_add(1)?;
            Some(padded.checked_sub(reach)? / self.stride[axis] + 1)
        };
        Some(Shape::new([images, outputs, extent(0, height)?, extent(1, width)?]))
    }

    /// Products per output element: `C/groups·kh·kw`.
    pub fn fan_in(&self, input: &Shape) -> usize {
        input.0[1] / self.groups * self.kernel[0] * self.kernel[1]
    }

    /// The inputs of some rows of a group's outputs: `[fan_in, rows·ow]` row-major.
    fn patches<S: Copy, T: Copy>(
        &self,
        (image, input): (&[S], &Shape),
        (rows, width): (Range<usize>, usize),
        group: usize,
        zero: T,
        convert: impl Fn(S) -> T,
        patches: &mut Vec<T>,
    ) {
        let (height, columns) = (input.0[2], input.0[3]);
        let channels = input.0[1] / self.groups;
        patches.clear();
        for channel in 0..channels {
            let start = (group * channels + channel) * height * columns;
            let plane = &image[start..start + height * columns];
            for ky in 0..self.kernel[0] {
                for kx in 0..self.kernel[1] {
                    // The outputs that this tap reads inside the image, a whole run of them.
                    let shift = kx * self.dilation[1];
                    let step = self.stride[1];
                    let first = self.padding[1].saturating_sub(shift).div_ceil(step).min(width);
                    let end = (columns + self.padding[1]).saturating_sub(shift).div_ceil(step);
                    let end = end.clamp(first, width);
                    for y in rows.clone() {
                        let row = (y * self.stride[0] + ky * self.dilation[0])
                            .checked_sub(self.padding[0]);
                        let Some(row) = row.filter(|&r| r < height) else {
                            patches.resize(patches.len() + width, zero);
                            continue;
                        };
                        let line = &plane[row * columns..(row + 1) * columns];
                        patches.resize(patches.len() + first, zero);
                        if end > first {
                            let from = &line[first * step + shift - self.padding[1]..];
                            // A run without steps is copied, many at a time.
                            if step == 1 {
                                patches.extend(from[..end - first].iter().map(|&v| convert(v)));
                            } else {
                                let taken = from.iter().step_by(step).take(end - first);
                                patches.extend(taken.map(|&v| convert(v)));
                            }
                        }
                        patches.resize(patches.len() + width - end, zero);
                    }
                }
            }
        }
    }

    /// The rows of the output in blocks whose inputs are gathered at once: few enough for a cache, but some
    /// hundreds of outputs.
    fn row_blocks(&self, fan_in: usize, output: &Shape) -> impl Iterator<Item = Range<usize>> {
        let (height, width) = (output.0[2], output.0[3]);
        let outputs = (GATHERED / fan_in.max(1)).max(LEAST_OUTPUTS);
        let rows = (outputs / width.max(1)).max(1);
        (0..height).step_by(rows).map(move |first| first..(first + rows).min(height))
    }

    /// Appends the inputs of one output place of a group, zeros where they are padding.
    pub fn patch(
        &self,
        image: &[f32],
        input: &Shape,
        output: &Shape,
        group: usize,
        place: usize,
        patch: &mut Vec<f32>,
    ) {
        let (height, width) = (input.0[2], input.0[3]);
        let (y, x) = (place / output.0[3], place % output.0[3]);
        let channels = input.0[1] / self.groups;
        for channel in 0..channels {
            let start = (group * channels + channel) * height * width;
            let plane = &image[start..start + height * width];
            for ky in 0..self.kernel[0] {
                let row =
                    (y * self.stride[0] + ky * self.dilation[0]).wrapping_sub(self.padding[0]);
                for kx in 0..self.kernel[1] {
                    let column =
                        (x * self.stride[1] + kx * self.dilation[1]).wrapping_sub(self.padding[1]);
                    let inside = row < height && column < width;
                    patch.push(if inside { plane[row * width + column] } else { 0.0 });
                }
            }
        }
    }

    /// Convolution over the reals; `weights` are `[O, C/groups, kh, kw]`.
    pub fn apply_reals(
        &self,
        weights: &[f32],
        image: &[f32],
        input: &Shape,
        output: &Shape,
    ) -> Vec<f32> {
        let (k, n) = (self.fan_in(input), output.0[2] * output.0[3]);
        let outputs = output.0[1] / self.groups;
        let of_image = image.len() / input.0[0];
        let mut out = vec![0.0; output.elements()];
        let mut patches = Vec::new();
        for (index, out) in out.chunks_exact_mut(outputs * n).enumerate() {
            let (image, group) = (&image[index / self.groups * of_image..], index % self.groups);
            let weights = &weights[group * outputs * k..][..outputs * k];
            for rows in self.row_blocks(k, output) {
                let columns = rows.start * output.0[3]..rows.end * output.0[3];
                self.patches((image, input), (rows, output.0[3]), group, 0.0, |v| v, &mut patches);
                multiply_reals_into(weights, &patches, out, k, (columns, n));
            }
        }
        out
    }

    /// Convolution in the ring of `bits` bits; elements above the ring are reduced.
    pub fn apply_ring(
        &self,
        weights: &[i32],
        image: &[u64],
        input: &Shape,
        output: &Shape,
        bits: u32,
    ) -> Vec<u64> {
        match bits {
            0..=16 => self.apply_words::<u16>(weights, image, input, output, bits),
            17..=32 => self.apply_words::<u32>(weights, image, input, output, bits),
            _ => self.apply_words::<u64>(weights, image, input, output, bits),
        }
    }

    fn apply_words<W: Word>(
        &self,
        weights: &[i32],
        image: &[u64],
        input: &Shape,
        output: &Shape,
        bits: u32,
    ) -> Vec<u64> {
        let (k, n) = (self.fan_in(input), output.0[2] * output.0[3]);
        let outputs = output.0[1] / self.groups;
        let mut out = vec![0; output.elements()];
        let weights: Vec<W> = weights.iter().map(|&w| W::weight(w)).collect();
        let (mut patches, mut words) = (Vec::new(), Vec::new());
        for (group, out) in out.chunks_exact_mut(outputs * n).enumerate() {
            let weights = &weights[group * outputs * k..][..outputs * k];
            for rows in self.row_blocks(k, output) {
                let columns = rows.start * output.0[3]..rows.end * output.0[3];
                let (rows, zero) = ((rows, output.0[3]), W::default());
                self.patches((image, input), rows, group, zero, W::low, &mut patches);
                words.clear();
                words.resize(outputs * columns.len(), zero);
                multiply_words(weights, &patches, &mut words, k, columns.len());
                let lines = words.chunks_exact(columns.len()).zip(out.chunks_exact_mut(n));
                for (words, line) in lines {
                    for (v, word) in line[columns.clone()].iter_mut().zip(words) {
                        *v = word.element() & low_mask(bits);
                    }
                }
            }
        }
        out
    }
}

/// The matrix product of the last axis: `out[.., o] = Σ_i weights[o][i]·x[.., i]` in the ring of
/// `bits` bits.
pub fn matrix_product_ring(weights: &[i32], x: &[u64], inputs: usize, bits: u32) -> Vec<u64> {
    fn words<W: Word>(weights: &[i32], x: &[u64], inputs: usize, bits: u32) -> Vec<u64> {
        let weights: Vec<W> = weights.iter().map(|&w| W::weight(w)).collect();
        let outputs = weights.len() / inputs;
        x.chunks_exact(inputs)
            .flat_map(|row| {
                let row: Vec<W> = row.iter().map(|&v| W::low(v)).collect();
                let mut out = vec![W::default(); outputs];
                multiply_words(&weights, &row, &mut out, inputs, 1);
                out.into_iter().map(|w| w.element() & crate::ring::low_mask(bits))
            })
            .collect()
    }
    match bits {
        0..=16 => words::<u16>(weights, x, inputs, bits),
        17..=32 => words::<u32>(weights, x, inputs, bits),
        _ => words::<u64>(weights, x, inputs, bits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_convolution_equals_the_real_one_on_small_integers() {
        for (groups, stride, dilation, padding) in [
            (1, [1, 1], [1, 1], [1, 1, 1, 1]),
            (2, [2, 1], [1, 2], [0, 2, 1, 0]),
            (4, [1, 2], [2, 1], [2, 0, 2, 3]),
        ] {
            let conv = Convolution { groups, kernel: [3, 2], stride, dilation, padding };
            let input = Shape::new([1, 4, 7, 6]);
            let output = conv.output_shape(&input, 8).unwrap();
            let k = conv.fan_in(&input);
            let weights: Vec<i32> = (0..8 * k).map(|i| (i * 7 % 11) as i32 - 5).collect();
            let image: Vec<i32> = (0..input.elements()).map(|i| (i * 5 % 13) as i32 - 6).collect();
            let real = conv.apply_reals(
                &weights.iter().map(|&w| w as f32).collect::<Vec<_>>(),
                &image.iter().map(|&v| v as f32).collect::<Vec<_>>(),
                &input,
                &output,
            );
            for bits in [16, 20, 40] {
                let ring: Vec<u64> = image.iter().map(|&v| v as i64 as u64).collect();
                let got = conv.apply_ring(&weights, &ring, &input, &output, bits);
                for (g, r) in got.iter().zip(&real) {
                    assert_eq!(crate::ring::to_signed(*g, bits), *r as i64);
                }
            }
        }
    }

    #[test]
    fn impossible_geometry_has_no_shape() {
        let conv = Convolution {
            groups: 1,
            kernel: [9, 1],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [0; 4],
        };
        assert_eq!(conv.output_shape(&Shape::new([1, 1, 8, 8]), 1), None);
    }
}
