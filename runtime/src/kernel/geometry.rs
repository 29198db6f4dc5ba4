//! Which inputs a convolution reads, in channels-last storage. Every output position has a base; the taps of the kernel
//! are at the same offsets from every base, because the image is padded with zeros.
//!
//! Taps that are contiguous in storage form a *run*: without dilation along x, all taps of a row with their channels;
//! otherwise the channels of one tap. A matrix product is a convolution of one tap with one output position per row.

use ir::Shape;
use ir::op::Convolution;

/// The geometry of one convolution or matrix product, channels last.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Groups of channels.
    pub groups: usize,
    /// Input channels of a group.
    pub group_inputs: usize,
    /// Output channels of a group.
    pub group_outputs: usize,
    /// Elements of a run.
    pub run: usize,
    /// The offset of every run from the base of a position.
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

impl Geometry {
    /// The geometry of a convolution of `input`, `[1, C, H, W]`, to `output`, `[1, O, oh, ow]`.
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

    /// The geometry of a matrix product of `rows` rows.
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

    /// Output positions of one item.
    pub fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Elements of one item's input.
    pub fn input_elements(&self) -> usize {
        self.input[0] * self.input[1] * self.channels()
    }

    /// Elements of one item's padded input, its *plane*.
    pub fn plane(&self) -> usize {
        let [top, _, bottom, _] = self.padding;
        (self.input[0] + top + bottom) * self.line()
    }

    /// Products of one output element.
    pub fn fan_in(&self) -> usize {
        self.runs.len() * self.run
    }

    /// Whether the image needs no padding, so that it can be read without a copy.
    pub fn is_unpadded(&self) -> bool {
        self.padding == [0; 4]
    }

    /// Whether every channel is a group of its own with one output.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.group_inputs == 1 && self.group_outputs == 1
    }

    /// Whether it is one convolution of `taps` by `taps` neighbours at every position.
    pub fn is_dense(&self, taps: usize) -> bool {
        let is_next_row = |(i, &run): (usize, &usize)| run == i * self.line();
        self.groups == 1
            && self.kernel == [taps; 2]
            && self.stride == [1; 2]
            && self.joined
            && self.runs.iter().enumerate().all(is_next_row)
    }

    /// The same with another padding, for the layout of padded images alone: the runs are still those of the old
    /// one.
    pub fn within(&self, padding: [usize; 4]) -> Self {
        Self { padding, ..self.clone() }
    }

    /// The index of the weight of an output channel (counted over all groups), a run and an element of it
    /// in ONNX's order, `[O, C/groups, kh, kw]`.
    pub fn weight(&self, output: usize, run: usize, element: usize) -> usize {
        let [_, kw] = self.kernel;
        let (channel, tap) = if self.joined {
            (element % self.group_inputs, run * kw + element / self.group_inputs)
        } else {
            (element, run)
        };
        (output * self.group_inputs + channel) * self.kernel[0] * kw + tap
    }

    /// The bases of consecutive positions from `first` on, counted over the items of a batch whose planes
    /// are contiguous.
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

    /// Copies the images of a batch and pads them with zeros.
    pub fn pad<S: Copy, T: Copy + Default>(
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

    /// Elements of a row of a padded image.
    pub fn line(&self) -> usize {
        (self.input[1] + self.padding[1] + self.padding[3]) * self.channels()
    }
}

/// Elements that may be read after the last plane: a run is read in steps of four bytes.
pub const SLACK: usize = 4;
