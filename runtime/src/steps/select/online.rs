//! Both parties' computation online.

use super::{Record0, Record1, bucket, entry, shifted_mask};
use crate::steps::{self, add_shares, put_shares};
use crate::wire;
use crate::words::{Words, WordsMut, WordsRef, each_slice, each_width};
use ir::plan::Select;
use ir::ring::{Unpacker, low_mask};
use ir::word::Word;
use std::ops::Range;

/// Party 0's side of one of the two round trips.
pub struct Opening<'a> {
    /// Parameters.
    pub select: &'a Select,
    /// Bits of the value.
    pub ring: u32,
    /// Its correlations.
    pub record: &'a Record0,
    /// In the second round trip, the turns.
    pub turns: Option<&'a Words>,
}

impl steps::Opening for Opening<'_> {
    /// In the second round trip `−ρ`.
    type Kept = u64;

    fn kept(&self) -> usize {
        1
    }

    fn open(
        &self,
        range: Range<usize>,
        operands: &[WordsRef<'_>],
        kept: &mut [u64],
        bytes: &mut [u8],
    ) {
        let mut to = wire::Writer::new(bytes);
        each_slice!(WordsRef, operands[0], delta => {
            let elements = range.zip(delta.iter().map(|delta| delta.element()));
            match self.turns {
                None => elements.zip(kept).for_each(|((i, delta), kept)| {
                    *kept = 0;
                    self.table(i, delta, &mut to);
                }),
                Some(turns) => elements.zip(kept).for_each(|((i, delta), kept)| {
                    let (rho, words) = self.words(i, delta, at(turns, i));
                    words.into_iter().for_each(|word| to.push(word, self.ring));
                    *kept = rho.wrapping_neg() & low_mask(self.ring);
                }),
            }
        });
        to.finish();
    }

    /// Nothing of the turns, and `−ρ` of the value.
    fn share(&self, _: Range<usize>, kept: &[u64], out: WordsMut<'_>) {
        put_shares(out, kept.iter().copied());
    }
}

impl Opening<'_> {
    /// Writes the masked table of an element.
    fn table(&self, i: usize, delta: u64, to: &mut wire::Writer<'_>) {
        let both = table(self.select, delta);
        let (buckets, own) = (1u32 << self.select.p, u128::from(at(&self.record.bits, i)));
        let half = (1u128 << buckets) - 1;
        let masks = (own & 1).wrapping_neg() & half | ((own >> 1).wrapping_neg() & half) << buckets;
        let (per, bits) = self.select.table_words();
        for word in 0..per {
            let clear = ((both ^ masks) >> (64 * word)) as u64;
            to.push(clear ^ at(&self.record.table, i * per + word), bits);
        }
    }

    /// `ρ`, and the words of numbers 1 to 3 of an element, for the turn that party 1 returned.
    fn words(&self, i: usize, delta: u64, turn: u64) -> (u64, [u64; 3]) {
        let Select { k, t, .. } = *self.select;
        let ring = low_mask(self.ring);
        let own = at(&self.record.bits, i);
        let product = at(&self.record.product, i);
        let shifted = (delta & low_mask(k)) >> t;
        let wrap = 1u64.checked_shl(k - t).unwrap_or(0);
        // Party 0's part of z if party 1's half is that which has this number, under its pad.
        let masked = |number: u64| {
            let half = number ^ turn;
            let (b, v) = ((own ^ half) & 1, (own ^ half) >> 1);
            // b·(m >> t) is the shared product if party 1's bit is 0, and m >> t less it if it is 1.
            let share = product.wrapping_mul(1u64.wrapping_sub((half & 1) << 1));
            let part = b.wrapping_mul(shifted).wrapping_add(v.wrapping_mul(wrap));
            let pad = at(&self.record.words, 4 * i + number as usize);
            part.wrapping_sub(share).wrapping_add(pad)
        };
        let rho = masked(0).wrapping_neg();
        (rho & ring, [1, 2, 3].map(|number| masked(number).wrapping_add(rho) & ring))
    }
}

/// For a masked value, bit `j`: whether `y` is positive if the mask is the middle of bucket `j`; then likewise
/// whether `y + m` wrapped as well. The value is party 0's secret: only shifts of words depend on it.
pub(in crate::steps) fn table(select: &Select, delta: u64) -> u128 {
    let Select { k, p, .. } = *select;
    let (bucket, last) = (k - p, (1u32 << p) - 1);
    let middle = delta.wrapping_sub(1 << bucket >> 1) & low_mask(k);
    let (at, rest) = ((middle >> bucket) as u32, middle & low_mask(bucket));
    // From the bucket of y + m down, half a turn of them; it itself only if something is left.
    let start = (at + (last >> 1) + 2) & last;
    let run = low_mask(1 << (p - 1));
    let turned = (run << start | run >> 1 >> (last - start)) & low_mask(last + 1);
    let positive = turned & !(u64::from(rest == 0) << at);
    let from = (delta & low_mask(k)) >> bucket;
    let wrapped = positive & (u64::MAX << from << 1);
    u128::from(positive) | u128::from(wrapped) << (last + 1)
}

/// Party 1's side of one of the two round trips.
pub struct Responding<'a> {
    /// Parameters.
    pub select: &'a Select,
    /// Bits of the value.
    pub ring: u32,
    /// Its correlations.
    pub record: &'a Record1,
    /// Its masks of the operand.
    pub masks: &'a [u64],
    /// In the second round trip, the turns that it returned.
    pub turns: Option<&'a Words>,
}

impl steps::Responding for Responding<'_> {
    /// Words of the table, or three words.
    type Kept = u64;

    fn kept(&self) -> usize {
        words_kept(self.select, self.turns.is_some())
    }

    fn read(&self, bytes: &[u8], kept: &mut [u64]) -> bool {
        let bits = if self.turns.is_some() { self.ring } else { self.select.table_words().1 };
        let mut reader = Unpacker::new(bytes);
        kept.iter_mut().for_each(|word| *word = reader.next(bits));
        reader.is_exhausted()
    }

    fn respond(&self, range: Range<usize>, kept: &[u64], out: WordsMut<'_>) {
        let elements = range.zip(kept.chunks_exact(self.kept()));
        match self.turns {
            None => add_shares(out, 2, elements.map(|(i, kept)| self.turn(i, kept))),
            Some(turns) => {
                let shares = elements.map(|(i, kept)| self.value(i, kept, at(turns, i)));
                add_shares(out, self.ring, shares);
            }
        }
    }
}

impl Responding<'_> {
    fn turn(&self, i: usize, table: &[u64]) -> u64 {
        let words = table.iter().enumerate();
        let table = words.fold(0u128, |all, (n, &word)| all | u128::from(word) << (64 * n));
        let half = entry(self.select, table, bucket(self.select, self.masks[i]));
        half ^ at(&self.record.pad, i) ^ at(&self.record.choice, i)
    }

    fn value(&self, i: usize, words: &[u64], turn: u64) -> u64 {
        let choice = at(&self.record.choice, i);
        let half = turn ^ choice;
        // All words are read; that of number 0 is zero.
        let is = |number: u64| u64::from(choice == number).wrapping_neg();
        let chosen = (1..).zip(words).fold(0, |all, (number, &word)| all | word & is(number));
        let product = at(&self.record.product, i);
        let mask = shifted_mask(self.select, self.masks[i]);
        // The product's share if its bit is 0, m >> t less it if it is 1.
        let one = (half & 1).wrapping_neg();
        let own = (product & !one).wrapping_add(mask.wrapping_sub(product) & one);
        chosen.wrapping_sub(at(&self.record.word, i)).wrapping_sub(own) & low_mask(self.ring)
    }
}

/// Words that party 1 keeps of an element.
pub(in crate::steps) fn words_kept(select: &Select, is_second: bool) -> usize {
    if is_second { 3 } else { select.table_words().0 }
}

fn at(words: &Words, i: usize) -> u64 {
    each_width!(words, words => words[i].element())
}
