//! Words to bits and back at the speed of memory: the format is [`ir::ring::pack`]'s.
//!
//! Eight elements of `b` bits are `b` whole bytes. Reading, every element of such a group lies within
//! eight bytes (`b ≤ 57`) from a byte and a shift that are the same in every group. Writing, as many
//! elements as fit in 64 bits are joined before they go to the stream. Words of 8, 16, 32 and 64
//! bits are copied. Where the machine has instructions for it, [`crate::kernel`] does most of both.

#[cfg(target_arch = "x86_64")]
use crate::kernel::{pack_bmi2, unpack_vbmi};
use ir::ring::{Unpacker, low_mask, packed_bytes};
use ir::word::{Word, vectorized};

/// Packs the low `bits` bits of every word.
pub fn pack<W: Word>(words: &[W], bits: u32) -> Vec<u8> {
    let mut bytes = vec![0; packed_bytes(words.len(), bits)];
    pack_into(words, bits, &mut bytes);
    bytes
}

/// As [`pack`], into exactly the bytes that it takes.
///
/// # Panics
/// If they are more or fewer.
pub fn pack_into<W: Word>(words: &[W], bits: u32, bytes: &mut [u8]) {
    assert_eq!(bytes.len(), packed_bytes(words.len(), bits), "the bytes of {bits} bits each");
    if let 8 | 16 | 32 | 64 = bits {
        return vectorized(
            #[inline(always)]
            || match bits {
                8 => copy_out(words, bytes, |w| [w.element() as u8]),
                16 => copy_out(words, bytes, |w| (w.element() as u16).to_le_bytes()),
                32 => copy_out(words, bytes, |w| (w.element() as u32).to_le_bytes()),
                _ => copy_out(words, bytes, |w| w.element().to_le_bytes()),
            },
        );
    }
    // Groups of eight whose last writes stay within the bytes; the others by way of a buffer.
    let whole = bytes.len().saturating_sub(SLACK) / bits as usize * 8;
    let (first, last) = words.split_at(whole);
    let done = pack_groups(first, bits, bytes);
    let at = |words: usize| words * bits as usize / 8;
    let mut tail = [0; 4 * SLACK + 64];
    let tail = &mut tail[..bytes.len() - at(whole) + SLACK];
    let rest = &first[done..];
    vectorized(
        #[inline(always)]
        || {
            join_all(rest, bits, &mut bytes[at(done)..]);
            join_all(last, bits, tail);
        },
    );
    let tail_bytes = bytes.len() - at(whole);
    bytes[at(whole)..].copy_from_slice(&tail[..tail_bytes]);
}

/// Writes elements of varying widths as a bit stream, as [`ir::ring::Packer`] does, into given bytes.
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
    pending: u128,
    filled: u32,
}

impl<'a> Writer<'a> {
    /// A writer at the start of `bytes`.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0, pending: 0, filled: 0 }
    }

    /// Appends the low `bits` bits (at most 64) of an element.
    ///
    /// # Panics
    /// If there is no room for it.
    #[inline]
    pub fn push(&mut self, element: u64, bits: u32) {
        self.pending |= u128::from(element & low_mask(bits)) << self.filled;
        self.filled += bits;
        if self.filled >= 64 {
            self.put(8);
            self.pending >>= 64;
            self.filled -= 64;
        }
    }

    /// Writes what is left, padded with zero bits.
    ///
    /// # Panics
    /// If the bytes are more or fewer than the elements take.
    pub fn finish(mut self) {
        self.put(self.filled.div_ceil(8) as usize);
        assert_eq!(self.at, self.bytes.len(), "the bytes of a message");
    }

    fn put(&mut self, count: usize) {
        let to = &mut self.bytes[self.at..self.at + count];
        to.copy_from_slice(&(self.pending as u64).to_le_bytes()[..count]);
        self.at += count;
    }
}

#[inline(always)]
fn join_all<W: Word>(words: &[W], bits: u32, bytes: &mut [u8]) {
    match bits {
        _ if words.is_empty() => {}
        1..=16 => join::<W, 4>(words, bits, bytes),
        17..=21 => join::<W, 3>(words, bits, bytes),
        22..=32 => join::<W, 2>(words, bits, bytes),
        _ => join::<W, 1>(words, bits, bytes),
    }
}

/// Bytes behind the packed ones that packing writes over.
const SLACK: usize = 32;

/// Packs groups of eight words by special instructions; how many words they were.
fn pack_groups<W: Word>(words: &[W], bits: u32, bytes: &mut [u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        const { assert!(SLACK >= pack_bmi2::SLACK) };
        pack_bmi2::pack(words, bits, bytes)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (words, bits, bytes);
        0
    }
}

#[inline(always)]
fn copy_out<W: Word, const N: usize>(words: &[W], bytes: &mut [u8], le: impl Fn(W) -> [u8; N]) {
    let (chunks, _) = bytes.as_chunks_mut::<N>();
    chunks.iter_mut().zip(words).for_each(|(to, &w)| *to = le(w));
}

/// `GROUP` elements at a time; `GROUP·bits ≤ 64`.
#[inline(always)]
fn join<W: Word, const GROUP: usize>(words: &[W], bits: u32, bytes: &mut [u8]) {
    let mask = low_mask(bits);
    let (mut pending, mut filled, mut at) = (0u128, 0u32, 0);
    let mut push = |value: u64, count: usize| {
        pending |= u128::from(value) << filled;
        filled += bits * count as u32;
        if filled >= 64 {
            bytes[at..at + 8].copy_from_slice(&(pending as u64).to_le_bytes());
            (pending, filled, at) = (pending >> 64, filled - 64, at + 8);
        }
    };
    let joined = |group: &[W]| {
        group.iter().rev().fold(0u64, |value, w| value.unbounded_shl(bits) | w.element() & mask)
    };
    let (groups, rest) = words.as_chunks::<GROUP>();
    groups.iter().for_each(|group| push(joined(group), GROUP));
    push(joined(rest), rest.len());
    bytes[at..at + 8].copy_from_slice(&(pending as u64).to_le_bytes());
}

/// Unpacks as many elements of `bits` bits as there are words, `word = combine(word, element)`; whether
/// `bytes` has exactly the bytes of them and the padding bits are zero.
pub fn unpack<W: Word>(
    bytes: &[u8],
    bits: u32,
    words: &mut [W],
    combine: impl Fn(W, W) -> W,
) -> bool {
    if bytes.len() != packed_bytes(words.len(), bits) {
        return false;
    }
    let used = words.len() * bits as usize % 8;
    if used > 0 && bytes.last().is_some_and(|last| last >> used != 0) {
        return false;
    }
    vectorized(
        #[inline(always)]
        || match bits {
            8 => copy_in(bytes, words, |[b]: [u8; 1]| u64::from(b), combine),
            16 => copy_in(bytes, words, |b| u64::from(u16::from_le_bytes(b)), combine),
            32 => copy_in(bytes, words, |b| u64::from(u32::from_le_bytes(b)), combine),
            64 => copy_in(bytes, words, u64::from_le_bytes, combine),
            _ => split(bytes, bits, words, combine),
        },
    );
    true
}

/// Elements that are unpacked to words before they are combined.
const BLOCK: usize = 1024;

#[inline(always)]
fn copy_in<W: Word, const N: usize>(
    bytes: &[u8],
    words: &mut [W],
    element: impl Fn([u8; N]) -> u64,
    combine: impl Fn(W, W) -> W,
) {
    let (chunks, _) = bytes.as_chunks::<N>();
    words.iter_mut().zip(chunks).for_each(|(w, &b)| *w = combine(*w, W::low(element(b))));
}

#[inline(always)]
fn split<W: Word>(bytes: &[u8], bits: u32, words: &mut [W], combine: impl Fn(W, W) -> W) {
    #[cfg(target_arch = "x86_64")]
    let (bytes, words) = {
        let (mut bytes, mut words) = (bytes, words);
        let mut block = [W::default(); BLOCK];
        loop {
            let most = words.len().min(BLOCK);
            let done = unpack_vbmi::unpack(bytes, bits, &mut block[..most]);
            if done == 0 {
                break (bytes, words);
            }
            let (now, rest) = words.split_at_mut(done);
            now.iter_mut().zip(&block).for_each(|(word, &v)| *word = combine(*word, v));
            (bytes, words) = (&bytes[done * bits as usize / 8..], rest);
        }
    };
    let mask = low_mask(bits);
    let group = bits as usize;
    let whole = if bits <= 57 { bytes.len().saturating_sub(8) / group } else { 0 };
    let whole = whole.min(words.len() / 8);
    let (groups, rest) = words.split_at_mut(whole * 8);
    let places: [(usize, u32); 8] = std::array::from_fn(|i| (i * group / 8, (i as u32 * bits) % 8));
    let (groups, _) = groups.as_chunks_mut::<8>();
    for (index, words) in groups.iter_mut().enumerate() {
        let bytes = &bytes[index * group..index * group + group + 8];
        for (word, (at, shift)) in words.iter_mut().zip(places) {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            *word = combine(*word, W::low(u64::from_le_bytes(eight) >> shift & mask));
        }
    }
    let mut reader = Unpacker::new(&bytes[whole * group..]);
    rest.iter_mut().for_each(|word| *word = combine(*word, W::low(reader.next(bits))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::property;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The meaning is [`ir::ring`]'s; words have garbage above their elements.
    fn check<W: Word + PartialEq>(
        bits: u32,
        elements: &[u64],
        flip: u64,
    ) -> Result<(), TestCaseError> {
        let low = |&v: &u64| v & low_mask(bits);
        let words: Vec<W> = elements.iter().map(|&v| W::low(v)).collect();
        let bytes = pack(&words, bits);
        let want = ir::ring::pack(elements, bits);
        prop_assert_eq!(&bytes, &want);
        let mut back = vec![W::low(5); words.len()];
        prop_assert!(unpack(&bytes, bits, &mut back, |a, b| b.minus(a)));
        let sums = back.iter().map(|b| b.plus(W::low(5)));
        prop_assert!(sums.eq(elements.iter().map(|v| W::low(low(v)))));
        prop_assert!(!unpack(&[bytes.as_slice(), &[0]].concat(), bits, &mut back, |_, b| b));
        // Any other message means what it means there.
        let mut other = bytes.clone();
        if let Some(at) = (flip / 8).checked_rem(bytes.len() as u64) {
            other[bytes.len() - 1 - at as usize] ^= 1 << (flip % 8);
        }
        let meaning = ir::ring::unpack(&other, words.len(), bits);
        prop_assert_eq!(unpack(&other, bits, &mut back, |_, b| b), meaning.is_some());
        if let Some(meaning) = meaning {
            prop_assert!(back.iter().copied().eq(meaning.iter().map(|&v| W::low(v))));
        }
        Ok(())
    }

    #[test]
    fn bits_are_those_of_the_ring() {
        let count = prop_oneof![0..40usize, 0..300usize, 1000..1100usize];
        let elements = count.prop_flat_map(|count| vec(any::<u64>(), count));
        // The padding is flipped often.
        let flip = prop_oneof![0..8u64, any::<u64>()];
        property(1500, (1..=64u32, elements, flip), |(bits, elements, flip)| {
            if bits <= 16 {
                check::<u16>(bits, &elements, flip)?;
            }
            if bits <= 32 {
                check::<u32>(bits, &elements, flip)?;
            }
            check::<u64>(bits, &elements, flip)
        });
    }

    /// Every width, at the lengths around the groups that instructions take at once.
    #[test]
    fn bits_are_those_of_the_ring_at_every_width() {
        let mut random = crate::testing::Random::new(51);
        for count in [0, 1, 7, 8, 9, 31, 32, 33, 200, 1001] {
            let elements: Vec<u64> = (0..count).map(|_| random.next()).collect();
            (1..=16).for_each(|bits| check::<u16>(bits, &elements, 0).unwrap());
            (1..=32).for_each(|bits| check::<u32>(bits, &elements, 0).unwrap());
            (1..=64).for_each(|bits| check::<u64>(bits, &elements, 0).unwrap());
        }
    }
}
