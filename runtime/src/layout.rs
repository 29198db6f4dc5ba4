//! The order of elements online, in memory and on the wire.
//!
//! Values of shape `[1, C, H, W]` stand with their channels last; all others row-major, as offline.
//! Both parties derive the order from the plan. The items of a batch follow each other. What the offline
//! phase makes is brought into this order once, before the online phase.

use ir::Shape;

/// Whether values of this shape stand with their channels last.
fn channels_last(shape: &Shape) -> bool {
    shape.rank() == 4 && shape.0[0] == 1
}

/// The dimensions as they stand online.
pub fn dims(shape: &Shape) -> Vec<usize> {
    match shape.0.as_slice() {
        &[1, c, h, w] => vec![1, h, w, c],
        dims => dims.to_vec(),
    }
}

/// Where an axis of the shape stands among [`dims`].
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
    let Some(places) = places(shape) else { return items.iter().for_each(|&v| visit(v)) };
    let channels = shape.0[1];
    for item in items.chunks_exact(channels * places * per) {
        for place in 0..places {
            for channel in 0..channels {
                let at = (channel * places + place) * per;
                item[at..at + per].iter().for_each(|&v| visit(v));
            }
        }
    }
}

/// Writes one item's elements, `per` entries each, row-major as offline, in the order that they have
/// online: as [`for_each_online`], by blocks that stay in the cache.
///
/// # Panics
/// If there is room for another number of them.
pub fn write_online<S: Copy, T>(
    shape: &Shape,
    per: usize,
    item: &[S],
    out: &mut [T],
    convert: impl Fn(S) -> T + Copy,
) {
    assert_eq!(item.len(), out.len(), "elements of one item");
    let Some(places) = places(shape) else {
        return out.iter_mut().zip(item).for_each(|(out, &v)| *out = convert(v));
    };
    let channels = shape.0[1];
    match per {
        1 => transpose::<_, _, 1>([channels, places], item, out, convert),
        2 => transpose::<_, _, 2>([channels, places], item, out, convert),
        4 => transpose::<_, _, 4>([channels, places], item, out, convert),
        6 => transpose::<_, _, 6>([channels, places], item, out, convert),
        _ => {
            let mut out = out.iter_mut();
            for_each_online(shape, per, item, |v| {
                if let Some(out) = out.next() {
                    *out = convert(v);
                }
            });
        }
    }
}

/// Rows of `columns` groups of `PER` entries to columns.
fn transpose<S: Copy, T, const PER: usize>(
    [rows, columns]: [usize; 2],
    item: &[S],
    out: &mut [T],
    convert: impl Fn(S) -> T + Copy,
) {
    const BLOCK: usize = 16;
    let (item, _) = item.as_chunks::<PER>();
    let (out, _) = out.as_chunks_mut::<PER>();
    for first_column in (0..columns).step_by(BLOCK) {
        for first_row in (0..rows).step_by(BLOCK) {
            for column in first_column..columns.min(first_column + BLOCK) {
                let last_row = rows.min(first_row + BLOCK);
                let out = &mut out[column * rows + first_row..column * rows + last_row];
                for (row, out) in (first_row..last_row).zip(out) {
                    *out = item[row * columns + column].map(convert);
                }
            }
        }
    }
}

/// The elements of whole items from their order online to row-major.
pub fn to_row_major<T: Copy>(shape: &Shape, items: &[T]) -> Vec<T> {
    let Some(places) = places(shape) else { return items.to_vec() };
    let channels = shape.0[1];
    let mut data = Vec::with_capacity(items.len());
    for item in items.chunks_exact(channels * places) {
        for channel in 0..channels {
            data.extend((0..places).map(|place| item[place * channels + channel]));
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

/// The places of a channel if the order online is another than row-major.
fn places(shape: &Shape) -> Option<usize> {
    let places = || shape.0[2] * shape.0[3];
    (channels_last(shape) && shape.0[1] > 1 && places() > 1).then(places)
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
        for (channels, places, per) in [(3, 4, 1), (17, 40, 2), (33, 15, 4), (2, 18, 6), (5, 9, 8)]
        {
            let shape = Shape::new([1, channels, places, 1]);
            let items: Vec<u64> = (0..(channels * places * per) as u64).collect();
            let mut out = vec![0u32; items.len()];
            write_online(&shape, per, &items, &mut out, |v| v as u32);
            assert!(out.iter().map(|&v| u64::from(v)).eq(to_online(&shape, per, &items)));
        }
        assert!((0..24).all(|i| channel_of(&shape, i) == i % 3));
        assert_eq!(pattern(&shape, &[5, 6, 7])[..4], [5, 6, 7, 5]);
        let flat = Shape::new([1, 2, 3]);
        assert_eq!(to_online(&flat, 1, &items[..6]), items[..6]);
        assert_eq!(pattern(&flat, &[5, 6])[..7], [5, 5, 5, 6, 6, 6, 5]);
        assert_eq!((dims(&shape), axis(&shape, 1)), (vec![1, 2, 2, 3], 3));
    }
}
