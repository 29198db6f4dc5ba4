//! Tables of an element: a bit for every bucket, whether `y` is positive; then, where that counts, a bit for every
//! bucket whether it wrapped as well. In words of 64 bits, or in the low bits of one. A value is a secret of
//! its party, so that only shifts of words depend on it.

use ir::plan::Select;
use ir::ring::low_mask;

/// A word of the table of party 0's masked value, every bit XOR the bit of `own` that masks it; the table has `ENTRY`
/// bits per bucket in `PER` words.
#[inline(always)]
pub fn masked<const ENTRY: u32, const PER: usize>(
    select: &Select,
    delta: u64,
    own: u64,
    word: usize,
) -> u64 {
    let place = Place::of(select, delta);
    let masks = [(own & 1).wrapping_neg(), (own >> 1).wrapping_neg()];
    if PER == 1 {
        let (positive, wrapped) = place.signs(0);
        let buckets = 1 << select.p;
        let low = low_mask(buckets);
        let second = if ENTRY == 2 { ((wrapped ^ masks[1]) & low) << (buckets & 63) } else { 0 };
        return (positive ^ masks[0]) & low | second;
    }
    let half = PER / ENTRY as usize;
    let (positive, wrapped) = place.signs((word % half) as u32);
    if word < half { positive ^ masks[0] } else { wrapped ^ masks[1] }
}

/// The `ENTRY` bits of the bucket of party 1's mask `m`.
#[inline(always)]
pub fn entry<const ENTRY: u32, const PER: usize>(
    select: &Select,
    table: &[u64; PER],
    m: u64,
) -> u64 {
    let first = bit(table, super::bucket(select, m) as u32);
    if ENTRY == 1 {
        return first;
    }
    first | bit(table, super::bucket(select, m) as u32 + (1 << select.p)) << 1
}

/// A bit of a table by its number, a secret.
#[inline(always)]
pub fn bit(table: &[u64], number: u32) -> u64 {
    let words = table.iter().zip(0i64..);
    words.fold(0, |all, (word, index)| {
        let at = i64::from(number) - 64 * index;
        all | word >> (at & 63) & within(at)
    }) & 1
}

/// Where a masked value stands among the buckets.
struct Place {
    /// The bucket of what is left of it without half a bucket, and all bits set if that is where it begins.
    at: i64,
    begins: u64,
    /// The bucket of the value itself.
    from: i64,
    /// Half of the buckets.
    half: i64,
}

impl Place {
    #[inline(always)]
    fn of(select: &Select, delta: u64) -> Self {
        let Select { k, p, .. } = *select;
        let bucket = k - p;
        let middle = delta.wrapping_sub(1 << bucket >> 1) & low_mask(k);
        let rest = middle & low_mask(bucket);
        Self {
            at: (middle >> bucket) as i64,
            begins: u64::from(rest == 0).wrapping_neg(),
            from: ((delta & low_mask(k)) >> bucket) as i64,
            half: 1 << (p - 1),
        }
    }

    /// For 64 buckets, those of word `word`: whether `y` is positive if the mask is the middle of the bucket, and
    /// whether `y + m` wrapped as well. If there are fewer buckets, the bits above are of no use.
    #[inline(always)]
    fn signs(&self, word: u32) -> (u64, u64) {
        let base = 64 * i64::from(word);
        let Self { at, begins, from, half } = *self;
        // From the bucket of y + m down, half a turn of them; it itself only if something is left.
        let start = ((at + half + 1) & (2 * half - 1)) - base;
        let end = start + half;
        let run = up_from(start) & !up_from(end) | !up_from(end - 2 * half);
        let itself = 1 << ((at - base) & 63) & within(at - base);
        let positive = run & !(itself & begins);
        (positive, positive & up_from(from + 1 - base))
    }
}

/// All bits set if a number is that of a bit of a word.
#[inline(always)]
fn within(bit: i64) -> u64 {
    u64::from(bit as u64 >> 6 == 0).wrapping_neg()
}

/// The bits from a number on, of which there may be none or all.
#[inline(always)]
fn up_from(bit: i64) -> u64 {
    let all = (bit >> 63) as u64;
    u64::MAX << (bit & 63) & within(bit) | all
}
