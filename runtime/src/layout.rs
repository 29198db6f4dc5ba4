//! The order of elements online, in memory and on the wire.
//!
//! Values of shape `[1, C, H, W]` are stored with their channels last, all others row-major, as offline.
//! Both parties derive the order from the plan. The items of a batch follow each other. Correlations are
//! reordered once, before the online phase.

use ir::Shape;
use ir::plan::{Linear, Step, StepOp};
use zeroize::{Zeroize, Zeroizing};

/// Whether values of this shape are stored with their channels last.
pub fn channels_last(shape: &Shape) -> bool {
    shape.rank() == 4 && shape.0[0] == 1
}

/// The shape by whose order a linear step's value is computed: matrix products are computed in rows.
pub fn computed(step: &Step) -> Shape {
    match step.op {
        StepOp::Linear(Linear::MatrixProduct { .. }) => Shape::new([step.shape.elements()]),
        _ => step.shape.clone(),
    }
}

/// The dimensions in the order online.
pub fn dims(shape: &Shape) -> Vec<usize> {
    match shape.0.as_slice() {
        &[1, c, h, w] => vec![1, h, w, c],
        dims => dims.to_vec(),
    }
}

/// The index of an axis of the shape in [`dims`].
pub fn axis(shape: &Shape, axis: usize) -> usize {
    if channels_last(shape) { [0, 3, 1, 2][axis] } else { axis }
}

/// The channel of an element, counted online over a whole batch.
pub fn channel_of(shape: &Shape, index: usize) -> usize {
    index / channel_stride(shape) % shape.channels()
}

/// Consecutive elements of one channel.
fn channel_stride(shape: &Shape) -> usize {
    if channels_last(shape) { 1 } else { shape.channel_stride() }
}

/// What elements of an item take from rows that are one for all or one per channel, repeated to a length
/// that is worth a loop: element `i` takes entry `i % len`.
pub fn pattern<T: Copy>(shape: &Shape, rows: &[T]) -> Vec<T> {
    const SHORTEST: usize = 512;
    let period = if rows.len() == 1 { 1 } else { shape.channels() * channel_stride(shape) };
    let repeats = SHORTEST.div_ceil(period);
    let row = |i: usize| if rows.len() == 1 { rows[0] } else { rows[channel_of(shape, i)] };
    (0..period * repeats).map(row).collect()
}

/// Visits one item's elements, `per` entries each, row-major as offline, in the order that they have
/// online.
pub fn for_each_online<T: Copy>(shape: &Shape, per: usize, items: &[T], mut visit: impl FnMut(T)) {
    let Some(positions) = positions(shape) else { return items.iter().for_each(|&v| visit(v)) };
    let channels = shape.0[1];
    for item in items.chunks_exact(channels * positions * per) {
        for position in 0..positions {
            for channel in 0..channels {
                let at = (channel * positions + position) * per;
                item[at..at + per].iter().for_each(|&v| visit(v));
            }
        }
    }
}

/// Writes one item's elements, `per` entries each, in the order that they have online; `next` gives them
/// row-major as offline, always the next that it is given room for, of which all but the last are a
/// multiple of eight.
///
/// # Panics
/// If there is room for another number of them.
pub fn fill_online<T: Copy + Default + Zeroize>(
    shape: &Shape,
    per: usize,
    out: &mut [T],
    mut next: impl FnMut(&mut [T]),
) {
    let Some(positions) = positions(shape) else { return next(out) };
    let channels = shape.0[1];
    assert_eq!(out.len(), channels * positions * per, "elements of one item");
    // Channels that fill a line of the cache.
    let most = (64 / (per * size_of::<T>())).next_multiple_of(8).max(8);
    let mut rows = Zeroizing::new(vec![T::default(); most.min(channels) * positions * per]);
    for first in (0..channels).step_by(most) {
        let count = most.min(channels - first);
        let rows = &mut rows[..count * positions * per];
        next(rows);
        let to = Columns { channels, first, count, positions };
        match per {
            1 => to.transpose::<T, 1>(rows, out),
            2 => to.transpose::<T, 2>(rows, out),
            4 => to.transpose::<T, 4>(rows, out),
            6 => to.transpose::<T, 6>(rows, out),
            _ => {
                for (position, out) in out.chunks_exact_mut(channels * per).enumerate() {
                    let out = out[first * per..(first + count) * per].chunks_exact_mut(per);
                    for (row, out) in out.enumerate() {
                        let at = (row * positions + position) * per;
                        out.copy_from_slice(&rows[at..at + per]);
                    }
                }
            }
        }
    }
}

/// Some channels of an item, in the order online.
#[derive(Clone, Copy)]
struct Columns {
    channels: usize,
    first: usize,
    count: usize,
    positions: usize,
}

impl Columns {
    /// Writes rows of `PER` entries per position, one per channel, to their place online.
    fn transpose<T: Copy, const PER: usize>(self, rows: &[T], out: &mut [T]) {
        const BLOCK: usize = 16;
        let Self { channels, first, count, positions } = self;
        let (rows, _) = rows.as_chunks::<PER>();
        let (out, _) = out.as_chunks_mut::<PER>();
        for (block, out) in out.chunks_mut(BLOCK * channels).enumerate() {
            for (row, of_row) in rows.chunks_exact(positions).take(count).enumerate() {
                let from = &of_row[block * BLOCK..positions.min((block + 1) * BLOCK)];
                let to = out[first + row..].iter_mut().step_by(channels);
                to.zip(from).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// The elements of whole items from their order online to row-major.
pub fn to_row_major<T: Copy>(shape: &Shape, items: &[T]) -> Vec<T> {
    let Some(positions) = positions(shape) else { return items.to_vec() };
    let channels = shape.0[1];
    let mut data = Vec::with_capacity(items.len());
    for item in items.chunks_exact(channels * positions) {
        for channel in 0..channels {
            data.extend((0..positions).map(|position| item[position * channels + channel]));
        }
    }
    data
}

/// The elements of whole items, `per` entries each, from row-major to their order online.
pub fn to_online<T: Copy>(shape: &Shape, per: usize, items: &[T]) -> Vec<T> {
    let mut data = Vec::with_capacity(items.len());
    for_each_online(shape, per, items, |v| data.push(v));
    data
}

/// The positions of a channel if the order online is another than row-major.
fn positions(shape: &Shape) -> Option<usize> {
    let positions = || shape.0[2] * shape.0[3];
    (channels_last(shape) && shape.0[1] > 1 && positions() > 1).then(positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_each_others_inverse_and_channels_are_found() {
        let shape = Shape::new([1, 3, 2, 2]);
        let items: Vec<u32> = (0..24).collect();
        let online = to_online(&shape, 1, &items);
        assert_eq!(&online[..6], [0, 4, 8, 1, 5, 9]);
        assert_eq!(to_row_major(&shape, &online), items);
        let pairs: Vec<u32> = (0..48).collect();
        assert_eq!(&to_online(&shape, 2, &pairs)[..4], [0, 1, 8, 9]);
        for (channels, positions, per) in
            [(3, 4, 1), (17, 40, 2), (99, 15, 4), (2, 18, 6), (5, 9, 8)]
        {
            let shape = Shape::new([1, channels, positions, 1]);
            let items: Vec<u32> = (0..(channels * positions * per) as u32).collect();
            let mut out = vec![0; items.len()];
            let mut left = items.as_slice();
            fill_online(&shape, per, &mut out, |next| {
                let (now, later) = left.split_at(next.len());
                assert!(later.is_empty() || next.len() % 8 == 0);
                next.copy_from_slice(now);
                left = later;
            });
            assert!(out == to_online(&shape, per, &items));
        }
        assert!((0..24).all(|i| channel_of(&shape, i) == i % 3));
        assert_eq!(pattern(&shape, &[5, 6, 7])[..4], [5, 6, 7, 5]);
        let flat = Shape::new([1, 2, 3]);
        assert_eq!(to_online(&flat, 1, &items[..6]), items[..6]);
        assert_eq!(pattern(&flat, &[5, 6])[..7], [5, 5, 5, 6, 6, 6, 5]);
        assert_eq!((dims(&shape), axis(&shape, 1)), (vec![1, 2, 2, 3], 3));
    }
}
