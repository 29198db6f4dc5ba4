//! Dense row-major tensors and the structural operations that every evaluator shares: the float
//! evaluator of graphs, the exact evaluator of plans, and both parties online. They only copy, add
//! and fill with zero, so one generic implementation serves reals, ring elements and masks.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The largest rank a shape may have.
pub const MAX_RANK: usize = 8;
/// The largest number of elements of one tensor.
pub const MAX_ELEMENTS: usize = 1 << 31;

/// Dimensions, outermost first. A batch dimension, where there is one, is 1: a batch of inputs is a
/// list of tensors, never a larger tensor.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub struct Shape(pub Vec<usize>);

impl Shape {
    /// A shape from its dimensions.
    pub fn new(dims: impl Into<Vec<usize>>) -> Self {
        Self(dims.into())
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for axis in (0..self.rank().saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * self.0[axis + 1];
        }
        strides
    }

    /// The axis that counts channels: 1 where there is one, otherwise the last.
    pub fn channel_axis(&self) -> usize {
        if self.rank() >= 2 { 1 } else { 0 }
    }

    /// The number of channels: 1 for a scalar.
    pub fn channels(&self) -> usize {
        self.0.get(self.channel_axis()).copied().unwrap_or(1)
    }

    /// The number of consecutive elements that belong to one channel.
    pub fn channel_stride(&self) -> usize {
        self.0.iter().skip(self.channel_axis() + 1).product()
    }

    /// The channel of the element with row-major index `index`.
    pub fn channel_of(&self, index: usize) -> usize {
        (index / self.channel_stride()) % self.channels()
    }

    /// Whether rank, dimensions and size are within the limits of this project.
    pub fn is_bounded(&self) -> bool {
        self.rank() <= MAX_RANK
            && self
                .0
                .iter()
                .try_fold(1usize, |n, &d| n.checked_mul(d))
                .is_some_and(|n| (1..=MAX_ELEMENTS).contains(&n))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.0.iter().map(|d| d.to_string()).collect();
        write!(f, "[{}]", dims.join(", "))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a tensor may hold: reals, or ring elements whose sums wrap.
pub trait Element: Copy + Send + Sync + 'static {
    /// The neutral element of addition.
    const ZERO: Self;
    /// Addition; wraps for integers.
    fn plus(self, other: Self) -> Self;
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    fn plus(self, other: Self) -> Self {
        self + other
    }
}
impl Element for f64 {
    const ZERO: Self = 0.0;
    fn plus(self, other: Self) -> Self {
        self + other
    }
}
impl Element for u16 {
    const ZERO: Self = 0;
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}
impl Element for u32 {
    const ZERO: Self = 0;
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}
impl Element for u64 {
    const ZERO: Self = 0;
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
}

/// A dense row-major tensor. It has no `Debug`: it may hold a mask or a share.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Tensor<T> {
    /// Dimensions.
    pub shape: Shape,
    /// Elements, row-major; as many as the shape says.
    pub data: Vec<T>,
}

impl<T: Element> Tensor<T> {
    /// A tensor from its parts.
    ///
    /// # Panics
    /// If `data` does not have as many elements as `shape`.
    pub fn new(shape: Shape, data: Vec<T>) -> Self {
        assert_eq!(shape.elements(), data.len(), "elements of a tensor of shape {shape}");
        Self { shape, data }
    }

    /// A tensor filled with one value.
    pub fn full(shape: Shape, value: T) -> Self {
        let data = vec![value; shape.elements()];
        Self { shape, data }
    }

    /// All zeros.
    pub fn zeros(shape: Shape) -> Self {
        Self::full(shape, T::ZERO)
    }

    /// A tensor of rank 0.
    pub fn scalar(value: T) -> Self {
        Self::new(Shape::default(), vec![value])
    }

    /// Applies `f` to every element.
    pub fn map<U: Element>(&self, f: impl Fn(T) -> U) -> Tensor<U> {
        Tensor::new(self.shape.clone(), self.data.iter().map(|&x| f(x)).collect())
    }

    /// The same elements under another shape of as many elements.
    pub fn reshape(self, shape: Shape) -> Self {
        Self::new(shape, self.data)
    }

    /// Elementwise sum of two tensors of one shape.
    pub fn add(&self, other: &Self) -> Self {
        assert_eq!(self.shape, other.shape, "shapes of a sum");
        let data = self.data.iter().zip(&other.data).map(|(&a, &b)| a.plus(b)).collect();
        Self::new(self.shape.clone(), data)
    }

    /// Permutes axes: axis `i` of the result is axis `permutation[i]` of `self`.
    pub fn transpose(&self, permutation: &[usize]) -> Self {
        let strides = self.shape.strides();
        let shape = Shape(permutation.iter().map(|&axis| self.shape.0[axis]).collect());
        let strides: Vec<usize> = permutation.iter().map(|&axis| strides[axis]).collect();
        let mut data = Vec::with_capacity(self.data.len());
        for_each_offset(&shape.0, &strides, |offset| data.push(self.data[offset]));
        Self::new(shape, data)
    }

    /// Selects along one axis: entry `i` of the result is entry `indices[i]` of `self`, or zeros where
    /// the index is `None`. Slices, gathers, zero padding, dilation and repetition are all of this form.
    pub fn take(&self, axis: usize, indices: &[Option<u32>]) -> Self {
        let outer: usize = self.shape.0[..axis].iter().product();
        let inner: usize = self.shape.0[axis + 1..].iter().product();
        let length = self.shape.0[axis];
        let mut dims = self.shape.0.clone();
        dims[axis] = indices.len();
        let mut data = Vec::with_capacity(outer * indices.len() * inner);
        for o in 0..outer {
            for index in indices {
                match index {
                    Some(i) => {
                        let start = (o * length + *i as usize) * inner;
                        data.extend_from_slice(&self.data[start..start + inner]);
                    }
                    None => data.resize(data.len() + inner, T::ZERO),
                }
            }
        }
        Self::new(Shape(dims), data)
    }

    /// Joins tensors along an axis.
    pub fn concat(parts: &[&Self], axis: usize) -> Self {
        let mut dims = parts[0].shape.0.clone();
        dims[axis] = parts.iter().map(|p| p.shape.0[axis]).sum();
        let outer: usize = dims[..axis].iter().product();
        let mut data = Vec::with_capacity(dims.iter().product());
        for o in 0..outer {
            for part in parts {
                let run: usize = part.shape.0[axis..].iter().product();
                data.extend_from_slice(&part.data[o * run..(o + 1) * run]);
            }
        }
        Self::new(Shape(dims), data)
    }

    /// Sums over windows of the last two axes, without padding: `[.., h, w]` to
    /// `[.., (h - kh)/sh + 1, (w - kw)/sw + 1]`.
    pub fn sum_windows(&self, kernel: [usize; 2], stride: [usize; 2]) -> Self {
        let rank = self.shape.rank();
        let (h, w) = (self.shape.0[rank - 2], self.shape.0[rank - 1]);
        let (oh, ow) = ((h - kernel[0]) / stride[0] + 1, (w - kernel[1]) / stride[1] + 1);
        let mut dims = self.shape.0.clone();
        (dims[rank - 2], dims[rank - 1]) = (oh, ow);
        let mut data = Vec::with_capacity(dims.iter().product());
        for plane in self.data.chunks_exact(h * w) {
            for y in 0..oh {
                for x in 0..ow {
                    let mut sum = T::ZERO;
                    for dy in 0..kernel[0] {
                        let start = (y * stride[0] + dy) * w + x * stride[1];
                        for &v in &plane[start..start + kernel[1]] {
                            sum = sum.plus(v);
                        }
                    }
                    data.push(sum);
                }
            }
        }
        Self::new(Shape(dims), data)
    }

    /// Sums over axes, which stay with length 1.
    pub fn sum_axes(&self, axes: &[usize]) -> Self {
        let dims = self.shape.0.iter().enumerate();
        let shape = Shape(dims.map(|(i, &d)| if axes.contains(&i) { 1 } else { d }).collect());
        let mut strides = shape.strides();
        for &axis in axes {
            strides[axis] = 0;
        }
        let mut data = vec![T::ZERO; shape.elements()];
        let mut source = self.data.iter();
        for_each_offset(&self.shape.0, &strides, |offset| {
            if let Some(&v) = source.next() {
                data[offset] = data[offset].plus(v);
            }
        });
        Self::new(shape, data)
    }

    /// Repeats along axes of length 1 (and new leading axes), NumPy's way.
    ///
    /// # Panics
    /// If the shapes do not broadcast; ask [`broadcasts_to`] first.
    pub fn broadcast(&self, shape: &Shape) -> Self {
        assert!(broadcasts_to(&self.shape, shape), "{} does not broadcast to {shape}", self.shape);
        let lead = shape.rank() - self.shape.rank();
        let mut strides = vec![0; shape.rank()];
        for (axis, stride) in self.shape.strides().into_iter().enumerate() {
            strides[lead + axis] = if self.shape.0[axis] == 1 { 0 } else { stride };
        }
        let mut data = Vec::with_capacity(shape.elements());
        for_each_offset(&shape.0, &strides, |offset| data.push(self.data[offset]));
        Self::new(shape.clone(), data)
    }
}

/// Whether `from` broadcasts to exactly `to`.
pub fn broadcasts_to(from: &Shape, to: &Shape) -> bool {
    from.rank() <= to.rank()
        && from.0.iter().rev().zip(to.0.iter().rev()).all(|(&f, &t)| f == t || f == 1)
}

/// Visits the offsets `Σ index·stride` in row-major order of `dims`.
fn for_each_offset(dims: &[usize], strides: &[usize], mut visit: impl FnMut(usize)) {
    let Some((&last, outer)) = dims.split_last() else {
        visit(0);
        return;
    };
    let last_stride = strides[dims.len() - 1];
    let rows: usize = outer.iter().product();
    let mut index = vec![0usize; outer.len()];
    let mut base = 0;
    for _ in 0..rows {
        for i in 0..last {
            visit(base + i * last_stride);
        }
        for axis in (0..outer.len()).rev() {
            index[axis] += 1;
            base += strides[axis];
            if index[axis] < outer[axis] {
                break;
            }
            base -= strides[axis] * outer[axis];
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iota(dims: &[usize]) -> Tensor<u64> {
        let shape = Shape::new(dims);
        let n = shape.elements() as u64;
        Tensor::new(shape, (0..n).collect())
    }

    #[test]
    fn transposes_and_takes_and_concatenates() {
        let t = iota(&[1, 2, 3]);
        assert_eq!(t.transpose(&[0, 2, 1]).data, [0, 3, 1, 4, 2, 5]);
        assert_eq!(t.take(2, &[None, Some(2), Some(0)]).data, [0, 2, 0, 0, 5, 3]);
        let joined = Tensor::concat(&[&t, &t.take(2, &[Some(1)])], 2);
        assert_eq!(
            (joined.shape.0.as_slice(), joined.data.as_slice()),
            (&[1, 2, 4][..], &[0, 1, 2, 1, 3, 4, 5, 4][..])
        );
    }

    #[test]
    fn sums_windows_and_axes() {
        let t = iota(&[1, 1, 4, 4]);
        assert_eq!(t.sum_windows([2, 2], [2, 2]).data, [10, 18, 42, 50]);
        assert_eq!(t.sum_axes(&[2, 3]).data, [120]);
        assert_eq!(t.sum_axes(&[2]).data, [24, 28, 32, 36]);
    }

    #[test]
    fn broadcasts_like_numpy() {
        let column = Tensor::new(Shape::new([2, 1]), vec![7u64, 9]);
        assert_eq!(column.broadcast(&Shape::new([1, 2, 3])).data, [7, 7, 7, 9, 9, 9]);
        assert!(!broadcasts_to(&Shape::new([2]), &Shape::new([3])));
    }
}
