//! Where a convolution reads, in channels-last storage: every output place has a base, from which the
//! kernel's taps stand at the same offsets, because the image stands in a border of zeros.
//!
//! Taps that follow each other in storage form a *run*: along x without dilation, all taps of a row and
//! their channels; otherwise the channels of one tap. A matrix product is a convolution of one tap over
//! as many places as it has rows.

use ir::Shape;
use ir::op::Convolution;

/// The geometry of one convolution or matrix product, channels last.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Groups of channels.
    pub groups: usize,
    /// Input channels of a group.
    pub group_inputs: usize,
    /// Output channels of a group.
    pub group_outputs: usize,
    /// Elements of a run.
    pub run: usize,
    /// Where every run begins, from the base of a place.
    pub runs: Vec<usize>,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
    /// Zeros around the input: top, left, bottom, right.
    pub padding: [usize; 4],
    stride: [usize; 2],
    kernel: [usize; 2],
    joined: bool,
}

impl Walk {
    /// The walk of a convolution of `input`, `[1, C, H, W]`, to `output`, `[1, O, oh, ow]`.
    pub fn convolution(geometry: &Convolution, input: &Shape, output: &Shape) -> Self {
        let [channels, height, width] = [input.0[1], input.0[2], input.0[3]];
        let Convolution { groups, kernel, stride, dilation, padding } = *geometry;
        let line = (width + padding[1] + padding[3]) * channels;
        let joined = groups == 1 && dilation[1] == 1;
        let group_inputs = channels / groups;
        let rows = (0..kernel[0]).map(|ky| ky * dilation[0] * line);
        let runs = if joined {
            rows.collect()
        } else {
            let taps = |row| (0..kernel[1]).map(move |kx| row + kx * dilation[1] * channels);
            rows.flat_map(taps).collect()
        };
        Self {
            groups,
            group_inputs,
            group_outputs: output.0[1] / groups,
            run: if joined { kernel[1] * channels } else { group_inputs },
            runs,
            input: [height, width],
            output: [output.0[2], output.0[3]],
            padding,
            stride,
            kernel,
            joined,
        }
    }

    /// The walk of a matrix product of `rows` rows.
    pub fn matrix_product(rows: usize, inputs: usize, outputs: usize) -> Self {
        let geometry = Convolution {
            groups: 1,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [0; 4],
        };
        let shape = |channels| Shape::new([1, channels, 1, rows]);
        Self::convolution(&geometry, &shape(inputs), &shape(outputs))
    }

    /// Input channels.
    pub fn channels(&self) -> usize {
        self.groups * self.group_inputs
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.groups * self.group_outputs
    }

    /// Output places of one item.
    pub fn places(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Elements of one item's input.
    pub fn input_elements(&self) -> usize {
        self.input[0] * self.input[1] * self.channels()
    }

    /// Elements of one item's input in its border of zeros.
    pub fn plane(&self) -> usize {
        let [top, _, bottom, _] = self.padding;
        (self.input[0] + top + bottom) * self.line()
    }

    /// Products of one output element.
    pub fn fan_in(&self) -> usize {
        self.runs.len() * self.run
    }

    /// Whether the image can be read where it stands.
    pub fn is_bare(&self) -> bool {
        self.padding == [0; 4]
    }

    /// Whether every channel is a group of its own with one output.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.group_inputs == 1 && self.group_outputs == 1
    }

    /// Whether it is one convolution of `taps` by `taps` neighbours at every place.
    pub fn is_dense(&self, taps: usize) -> bool {
        let is_next_row = |(i, &run): (usize, &usize)| run == i * self.line();
        self.groups == 1
            && self.kernel == [taps; 2]
            && self.stride == [1; 2]
            && self.joined
            && self.runs.iter().enumerate().all(is_next_row)
    }

    /// The same in another border: its images stand so, but none of its runs is right.
    pub fn within(&self, padding: [usize; 4]) -> Self {
        Self { padding, ..self.clone() }
    }

    /// Where the weight of an output channel (counted over all groups), a run and an element of it
    /// stands in ONNX's order, `[O, C/groups, kh, kw]`.
    pub fn weight(&self, output: usize, run: usize, element: usize) -> usize {
        let [_, kw] = self.kernel;
        let (channel, tap) = if self.joined {
            (element % self.group_inputs, run * kw + element / self.group_inputs)
        } else {
            (element, run)
        };
        (output * self.group_inputs + channel) * self.kernel[0] * kw + tap
    }

    /// The bases of consecutive places from `first`, counted over the items of a batch whose planes
    /// follow each other.
    pub fn bases(&self, first: usize, bases: &mut [usize]) {
        let [height, width] = self.output;
        if [height, width] == [1; 2] {
            let items = bases.iter_mut().zip(first..);
            return items.for_each(|(base, item)| *base = item * self.plane());
        }
        let channels = self.channels();
        let (row, mut x) = (first / width, first % width);
        let (mut item, mut y) = (row / height, row % height);
        for base in bases {
            *base = item * self.plane()
                + y * self.stride[0] * self.line()
                + x * self.stride[1] * channels;
            x += 1;
            if x == width {
                (x, y) = (0, y + 1);
            }
            if y == height {
                (y, item) = (0, item + 1);
            }
        }
    }

    /// Writes the images of a batch into their borders of zeros.
    pub fn surround<S: Copy, T: Copy + Default>(
        &self,
        images: &[S],
        planes: &mut Vec<T>,
        convert: impl Fn(S) -> T + Copy,
    ) {
        let [top, left, bottom, right] = self.padding;
        let channels = self.channels();
        let (image, plane) = (self.input_elements(), self.plane());
        planes.resize(images.len() / image * plane + SLACK, T::default());
        ir::word::vectorized(
            #[inline(always)]
            || {
                for (images, planes) in
                    images.chunks_exact(image).zip(planes.chunks_exact_mut(plane))
                {
                    let (above, rest) = planes.split_at_mut(top * self.line());
                    let (inside, below) = rest.split_at_mut(rest.len() - bottom * self.line());
                    above.fill(T::default());
                    below.fill(T::default());
                    let lines = inside.chunks_exact_mut(self.line());
                    for (line, row) in lines.zip(images.chunks_exact(self.input[1] * channels)) {
                        let (before, rest) = line.split_at_mut(left * channels);
                        let (inside, after) = rest.split_at_mut(rest.len() - right * channels);
                        before.fill(T::default());
                        after.fill(T::default());
                        inside.iter_mut().zip(row).for_each(|(to, &from)| *to = convert(from));
                    }
                }
            },
        );
    }

    /// Elements of a row of an image in its border.
    pub fn line(&self) -> usize {
        (self.input[1] + self.padding[1] + self.padding[3]) * self.channels()
    }
}

/// Elements that may be read after the last plane: a run is read in steps of four bytes.
pub const SLACK: usize = 4;
