//! Two-dimensional convolution (ONNX `Conv`; one-dimensional ones have height 1) of images
//! `[N, C, H, W]` over the reals, and of one image, `[1, C, H, W]`, in rings.

use super::matrix::{Word, multiply_reals, multiply_words};
use crate::tensor::Shape;
use serde::{Deserialize, Serialize};

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

    /// The inputs of every output of one group: `[fan_in, oh·ow]` row-major.
    pub fn patches<S: Copy, T: Copy>(
        &self,
        image: &[S],
        input: &Shape,
        output: &Shape,
        group: usize,
        zero: T,
        convert: impl Fn(S) -> T,
    ) -> Vec<T> {
        let (height, width) = (input.0[2], input.0[3]);
        let (oh, ow) = (output.0[2], output.0[3]);
        let channels = input.0[1] / self.groups;
        let mut patches = Vec::with_capacity(self.fan_in(input) * oh * ow);
        for channel in 0..channels {
            let start = (group * channels + channel) * height * width;
            let plane = &image[start..start + height * width];
            for ky in 0..self.kernel[0] {
                for kx in 0..self.kernel[1] {
                    for y in 0..oh {
                        let row = (y * self.stride[0] + ky * self.dilation[0])
                            .checked_sub(self.padding[0]);
                        let Some(row) = row.filter(|&r| r < height) else {
                            patches.resize(patches.len() + ow, zero);
                            continue;
                        };
                        let line = &plane[row * width..(row + 1) * width];
                        for x in 0..ow {
                            let column = (x * self.stride[1] + kx * self.dilation[1])
                                .wrapping_sub(self.padding[1]);
                            patches.push(line.get(column).map_or(zero, |&v| convert(v)));
                        }
                    }
                }
            }
        }
        patches
    }

    /// Appends the inputs of one output place of a group, zeros where they are padding: a column of
    /// [`Self::patches`].
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
        let rows = output.0[1] / self.groups;
        let of_image = image.len() / input.0[0];
        let mut out = vec![0.0; output.elements()];
        for (index, out) in out.chunks_exact_mut(rows * n).enumerate() {
            let (image, group) = (&image[index / self.groups * of_image..], index % self.groups);
            let patches = self.patches(image, input, output, group, 0.0, |v| v);
            multiply_reals(&weights[group * rows * k..(group + 1) * rows * k], &patches, out, k, n);
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
        let rows = output.0[1] / self.groups;
        let mut out = Vec::with_capacity(output.elements());
        let weights: Vec<W> = weights.iter().map(|&w| W::weight(w)).collect();
        for group in 0..self.groups {
            let patches = self.patches(image, input, output, group, W::default(), W::low);
            let mut words = vec![W::default(); rows * n];
            multiply_words(
                &weights[group * rows * k..(group + 1) * rows * k],
                &patches,
                &mut words,
                k,
                n,
            );
            out.extend(words.iter().map(|w| w.element() & crate::ring::low_mask(bits)));
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
