//! Both parties' computation online, by blocks of elements in words of 64 bits.

use super::{Record0, Record1, table};
use crate::steps::{self, add_shares, put_shares};
use crate::wire;
use crate::words::{Words, WordsMut, WordsRef, each_slice, each_width};
use ir::plan::Select;
use ir::ring::{low_mask, packed_bytes};
use ir::word::{Word, vectorized};
use std::ops::Range;
use zeroize::Zeroizing;

/// Elements that are computed together, a multiple of eight.
const BLOCK: usize = 256;
/// Words of a block with so many per element. Wiped when dropped.
type Columns<const PER: usize> = Zeroizing<[[u64; PER]; BLOCK]>;

fn columns<const PER: usize>() -> Columns<PER> {
    Zeroizing::new([[0; PER]; BLOCK])
}

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
        let (entry, words) = (self.select.entry_bits(self.ring), self.words_of_table());
        let delta = operands[0];
        match (self.turns, entry, words) {
            (None, 1, 1) => self.tables::<1, 1>(range, delta, kept, bytes),
            (None, 1, 2) => self.tables::<1, 2>(range, delta, kept, bytes),
            (None, 1, _) => self.tables::<1, 4>(range, delta, kept, bytes),
            (None, _, 1) => self.tables::<2, 1>(range, delta, kept, bytes),
            (None, _, 2) => self.tables::<2, 2>(range, delta, kept, bytes),
            (None, _, 4) => self.tables::<2, 4>(range, delta, kept, bytes),
            (None, ..) => self.tables::<2, 8>(range, delta, kept, bytes),
            (Some(turns), 1, _) => self.words::<2, 1>(turns, range, delta, kept, bytes),
            (Some(turns), ..) => self.words::<4, 3>(turns, range, delta, kept, bytes),
        }
    }

    /// Nothing of the turns, and `−ρ` of the value.
    fn share(&self, _: Range<usize>, kept: &[u64], out: WordsMut<'_>) {
        put_shares(out, kept.iter().copied());
    }
}

impl Opening<'_> {
    fn words_of_table(&self) -> usize {
        self.select.table_words(self.ring).0
    }

    /// Writes the masked tables of elements, of `ENTRY` bits per bucket in `PER` words.
    fn tables<const ENTRY: u32, const PER: usize>(
        &self,
        range: Range<usize>,
        delta: WordsRef<'_>,
        kept: &mut [u64],
        bytes: &mut [u8],
    ) {
        kept.fill(0);
        let bits = self.select.table_words(self.ring).1;
        let (mut deltas, mut own) = (columns::<1>(), columns::<1>());
        let (mut tables, mut clear) = (columns::<PER>(), columns::<1>());
        for (block, bytes) in blocks(&range, bytes, PER as u32 * bits) {
            let count = block.len();
            copy_slice(delta, block.start - range.start, deltas[..count].as_flattened_mut());
            copy(&self.record.bits, block.start, own[..count].as_flattened_mut());
            copy(&self.record.table, block.start * PER, tables[..count].as_flattened_mut());
            for word in 0..PER {
                vectorized(
                    #[inline(always)]
                    || {
                        let operands = deltas.iter().zip(own.iter());
                        for ([clear], (&[delta], &[own])) in clear.iter_mut().zip(operands) {
                            *clear = table::masked::<ENTRY, PER>(self.select, delta, own, word);
                        }
                    },
                );
                tables.iter_mut().zip(clear.iter()).for_each(|(pads, [clear])| pads[word] ^= clear);
            }
            wire::pack_into(tables[..count].as_flattened(), bits, bytes);
        }
    }

    /// Writes the words of all numbers but the first of `NUMBERS`, for the turns that party 1 returned, and keeps `−ρ`.
    fn words<const NUMBERS: usize, const SENT: usize>(
        &self,
        turns: &Words,
        range: Range<usize>,
        delta: WordsRef<'_>,
        kept: &mut [u64],
        bytes: &mut [u8],
    ) {
        let Select { k, t, .. } = *self.select;
        let (ring, low) = (low_mask(self.ring), low_mask(k));
        let wrap = 1u64.unbounded_shl(k - t);
        let (mut deltas, mut own, mut turned) = (columns::<1>(), columns::<1>(), columns::<1>());
        let (mut products, mut pads) = (columns::<1>(), columns::<NUMBERS>());
        let mut sent = columns::<SENT>();
        let kept = kept.chunks_mut(BLOCK);
        for ((block, bytes), kept) in blocks(&range, bytes, SENT as u32 * self.ring).zip(kept) {
            let (start, count) = (block.start, block.len());
            copy_slice(delta, start - range.start, deltas[..count].as_flattened_mut());
            copy(&self.record.bits, start, own[..count].as_flattened_mut());
            copy(turns, start, turned[..count].as_flattened_mut());
            copy(&self.record.product, start, products[..count].as_flattened_mut());
            copy(&self.record.words, start * NUMBERS, pads[..count].as_flattened_mut());
            vectorized(
                #[inline(always)]
                || {
                    let operands = deltas.iter().zip(own.iter()).zip(turned.iter());
                    let operands = operands.zip(products.iter()).zip(pads.iter());
                    let out = sent.iter_mut().zip(kept.iter_mut());
                    for ((sent, kept), ((((&[delta], &[own]), &[turn]), &[product]), pads)) in
                        out.zip(operands)
                    {
                        let shifted = (delta & low) >> t;
                        // Party 0's part of z if party 1's half is that which has this number, under its pad.
                        let masked: [u64; NUMBERS] = std::array::from_fn(|number| {
                            let half = number as u64 ^ turn;
                            let bits = own ^ half;
                            let (b, v) = ((bits & 1).wrapping_neg(), (bits >> 1).wrapping_neg());
                            // b·(m >> t) is the shared product if party 1's bit is 0, and m >> t less it if
                            // it is 1.
                            let negative = (half & 1).wrapping_neg();
                            let share = (product ^ negative).wrapping_sub(negative);
                            let part = (b & shifted).wrapping_add(v & wrap);
                            part.wrapping_sub(share).wrapping_add(pads[number])
                        });
                        // ρ makes the first word zero.
                        *kept = masked[0] & ring;
                        *sent =
                            std::array::from_fn(|n| masked[n + 1].wrapping_sub(masked[0]) & ring);
                    }
                },
            );
            wire::pack_into(sent[..count].as_flattened(), self.ring, bytes);
        }
    }
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
    /// Words of the table, or the words that are sent of all numbers.
    type Kept = u64;

    fn kept(&self) -> usize {
        words_kept(self.select, self.ring, self.turns.is_some())
    }

    fn read(&self, bytes: &[u8], kept: &mut [u64]) -> bool {
        let of_table = self.select.table_words(self.ring).1;
        let bits = if self.turns.is_some() { self.ring } else { of_table };
        wire::unpack(bytes, bits, kept, |_, word| word)
    }

    fn respond(&self, range: Range<usize>, kept: &[u64], mut out: WordsMut<'_>) {
        let per = self.kept();
        let (mut shares, mut rest) = (columns::<1>(), out.borrow());
        for (start, kept) in range.step_by(BLOCK).zip(kept.chunks(BLOCK * per)) {
            let shares = shares[..kept.len() / per].as_flattened_mut();
            let bits = match self.turns {
                None => {
                    self.turn(start, kept, shares);
                    self.select.entry_bits(self.ring)
                }
                Some(turns) => {
                    match self.select.entry_bits(self.ring) {
                        1 => self.value::<1>(turns, start, kept, shares),
                        _ => self.value::<3>(turns, start, kept, shares),
                    }
                    self.ring
                }
            };
            let (now, later) = rest.split_at(shares.len());
            add_shares(now, bits, shares.iter().copied());
            rest = later;
        }
    }
}

impl Responding<'_> {
    /// Of elements from `start` on the half of the bits, turned by the choice.
    fn turn(&self, start: usize, tables: &[u64], out: &mut [u64]) {
        match (self.select.entry_bits(self.ring), tables.len() / out.len()) {
            (1, 1) => self.turn_in::<1, 1>(start, tables, out),
            (1, 2) => self.turn_in::<1, 2>(start, tables, out),
            (1, _) => self.turn_in::<1, 4>(start, tables, out),
            (_, 1) => self.turn_in::<2, 1>(start, tables, out),
            (_, 2) => self.turn_in::<2, 2>(start, tables, out),
            (_, 4) => self.turn_in::<2, 4>(start, tables, out),
            _ => self.turn_in::<2, 8>(start, tables, out),
        }
    }

    fn turn_in<const ENTRY: u32, const PER: usize>(
        &self,
        start: usize,
        tables: &[u64],
        out: &mut [u64],
    ) {
        let count = out.len();
        let (mut pads, mut choices) = (columns::<1>(), columns::<1>());
        copy(&self.record.pad, start, pads[..count].as_flattened_mut());
        copy(&self.record.choice, start, choices[..count].as_flattened_mut());
        let (masks, select) = (&self.masks[start..start + count], self.select);
        vectorized(
            #[inline(always)]
            || {
                let operands = tables.as_chunks::<PER>().0.iter().zip(masks);
                let operands = operands.zip(pads.iter().zip(choices.iter()));
                for (out, ((tables, &m), (&[pad], &[choice]))) in out.iter_mut().zip(operands) {
                    *out = table::entry::<ENTRY, PER>(select, tables, m) ^ pad ^ choice;
                }
            },
        );
    }

    /// Of elements from `start` on the share of the value, from the `SENT` words of each.
    fn value<const SENT: usize>(
        &self,
        turns: &Words,
        start: usize,
        words: &[u64],
        out: &mut [u64],
    ) {
        let Select { k, t, .. } = *self.select;
        let (count, low) = (out.len(), low_mask(k));
        let (mut choices, mut turned) = (columns::<1>(), columns::<1>());
        let (mut pads, mut products) = (columns::<1>(), columns::<1>());
        copy(&self.record.choice, start, choices[..count].as_flattened_mut());
        copy(turns, start, turned[..count].as_flattened_mut());
        copy(&self.record.word, start, pads[..count].as_flattened_mut());
        copy(&self.record.product, start, products[..count].as_flattened_mut());
        let masks = &self.masks[start..start + count];
        vectorized(
            #[inline(always)]
            || {
                let operands = words.as_chunks::<SENT>().0.iter().zip(masks);
                let operands = operands.zip(choices.iter().zip(turned.iter()));
                let operands = operands.zip(pads.iter().zip(products.iter()));
                for (out, (((words, &m), (&[choice], &[turn])), (&[pad], &[product]))) in
                    out.iter_mut().zip(operands)
                {
                    // All words are read; that of number 0 is zero.
                    let chosen = words.iter().zip(1..).fold(0, |all, (&word, number)| {
                        all | word & u64::from(choice == number).wrapping_neg()
                    });
                    // The product's share if its bit is 0, m >> t less it if it is 1.
                    let one = ((turn ^ choice) & 1).wrapping_neg();
                    let shifted = (m & low) >> t;
                    let own = (product ^ one).wrapping_sub(one).wrapping_add(shifted & one);
                    *out = chosen.wrapping_sub(pad).wrapping_sub(own);
                }
            },
        );
    }
}

/// Words that party 1 keeps of an element.
pub(in crate::steps) fn words_kept(select: &Select, ring: u32, is_second: bool) -> usize {
    if is_second { select.numbers(ring) - 1 } else { select.table_words(ring).0 }
}

/// The blocks of a range, each with the bytes of its elements of `bits` bits.
fn blocks<'b>(
    range: &Range<usize>,
    mut bytes: &'b mut [u8],
    bits: u32,
) -> impl Iterator<Item = (Range<usize>, &'b mut [u8])> {
    let end = range.end;
    range.clone().step_by(BLOCK).map(move |start| {
        let block = start..end.min(start + BLOCK);
        let (now, later) = std::mem::take(&mut bytes).split_at_mut(packed_bytes(block.len(), bits));
        bytes = later;
        (block, now)
    })
}

/// Copies elements from `first` on to words of 64 bits.
fn copy(words: &Words, first: usize, to: &mut [u64]) {
    each_width!(words, words => widen(&words[first..first + to.len()], to));
}

/// As [`copy`].
fn copy_slice(words: WordsRef<'_>, first: usize, to: &mut [u64]) {
    each_slice!(WordsRef, words, words => widen(&words[first..first + to.len()], to));
}

fn widen<W: Word>(words: &[W], to: &mut [u64]) {
    vectorized(
        #[inline(always)]
        || to.iter_mut().zip(words).for_each(|(to, word)| *to = word.element()),
    );
}
