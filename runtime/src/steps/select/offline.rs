//! The correlations of a select step, by correlated oblivious transfers.
//!
//! An element takes `p` transfers that are turned to the bits of party 1's bucket, and one or two that keep their random
//! choices; of all elements first the first ones, then the second ones. A transfer has a key for either bit, of which
//! party 1 has one. *(a)* A key is hashed to as many bits as the table has; the pad of bucket `j` is the XOR, over the
//! transfers, of bits `j` and `2^p + j` of the hash of the key for bit `i` of `j`. *(b)* A key is hashed to two words; the pad
//! of number `a + 2b` is the XOR of word `b` of the first one's key for `a` and word `a` of the second one's key for `b`.
//! Without a wrap there is one transfer, and the pad of number `a` is a word of its key for `a`. So no bit of a hash
//! serves two entries, and an entry that is not party 1's has a bit or a word of a hash that it knows nothing of.
//! *(c)* is a product by party 0's random choice ([`gilboa`]).
//!
//! A key is hashed once, to one block of 128 bits or as many as the table needs: of an element with `p` = 5 party 0
//! hashes ten keys for (a) and four for (b), party 1 half of them.

use super::{bucket, entry, shifted_mask};
use crate::preprocess::transfer::gilboa::{self, Receiving, Sending, Widths, flip_bytes};
use crate::preprocess::transfer::hash::{Block, Hashes, select as masked_block, xor};
use crate::preprocess::transfer::{Received, TransferError, Transfers, expect_length};
use crate::secret::Elements;
use crate::wire;
use ir::plan::Select;
use ir::plan::preprocess::transfers::extension_bytes;
use ir::ring::{low_mask, packed_bytes};
use ir::word::vectorized;
use rayon::prelude::*;
use zeroize::Zeroizing;

/// Elements that are computed together, a multiple of four.
const SPAN: usize = 256;

/// Party 1 between its message and party 0's.
pub struct Asked {
    select: Select,
    ring: u32,
    masks: Elements,
    received: Received,
}

/// Party 0 between its message and party 1's last one.
pub struct Answered {
    table: Elements,
    words: Elements,
    /// The second bits of `c₀`, where there are any.
    wraps: Elements,
    received: Received,
}

/// Party 1's message for elements with the operand's masks `masks`, whose values have `ring` bits.
pub fn ask(
    transfers: &mut Transfers,
    select: &Select,
    ring: u32,
    masks: &[u64],
) -> (Asked, Vec<u8>) {
    let (count, p) = (masks.len(), select.p);
    let mut received = transfers.receiver.extend(count * select.transfers(ring));
    let mut message = std::mem::take(&mut received.message);
    let mut flips: Vec<u16> = vec![0; count];
    vectorized(
        #[inline(always)]
        || {
            flips.iter_mut().zip(masks).for_each(|(flip, &m)| *flip = bucket(select, m) as u16);
            for (i, choices) in
                received.choices.chunks_exact(count.max(1)).take(p as usize).enumerate()
            {
                let pairs = flips.iter_mut().zip(choices);
                pairs.for_each(|(flip, &choice)| *flip ^= u16::from(choice) << i);
            }
        },
    );
    message.extend(wire::pack(&flips, p));
    let masks = Zeroizing::new(masks.to_vec());
    (Asked { select: *select, ring, masks, received }, message)
}

/// Party 0's message; `wraps` are the second bits of its `c₀` of the same elements, of no use without a wrap. Its shares
/// follow from party 1's next message.
///
/// # Errors
/// If party 1's message has another length or set padding bits.
pub fn answer(
    transfers: &mut Transfers,
    select: &Select,
    ring: u32,
    wraps: &[u64],
    message: &[u8],
) -> Result<(Answered, Vec<u8>), TransferError> {
    let (count, all) = (wraps.len(), wraps.len() * select.transfers(ring));
    let extension = extension_bytes(all);
    expect_length(message, extension + packed_bytes(count, select.p))?;
    let (extension, packed) = message.split_at(extension);
    let mut flips: Vec<u16> = vec![0; count];
    if !wire::unpack(packed, select.p, &mut flips, |_, flip| flip) {
        return Err(TransferError::Padding);
    }
    let keys = transfers.sender.extend(all, extension)?;
    let ((per, _), numbers) = (select.table_words(ring), select.numbers(ring));
    let mut table = Zeroizing::new(vec![0; count * per]);
    let mut words = Zeroizing::new(vec![0; count * numbers]);
    let hashing = Hashing { hashes: &transfers.hashes, select, ring, keys: &keys };
    let delta = transfers.sender.delta();
    table
        .par_chunks_mut(SPAN * per)
        .zip(words.par_chunks_mut(SPAN * numbers))
        .zip(flips.par_chunks(SPAN))
        .enumerate()
        .for_each_init(Scratch::new, |scratch, (span, ((table, words), flips))| {
            hashing.pads(scratch, span * SPAN, delta, flips, table, words);
        });
    let mut received = transfers.receiver.extend(count);
    let message = std::mem::take(&mut received.message);
    let wraps = Zeroizing::new(wraps.to_vec());
    Ok((Answered { table, words, wraps, received }, message))
}

impl Asked {
    /// Party 1's last message and its fields, from party 0's message.
    ///
    /// # Errors
    /// If it has another length.
    pub fn finish(
        self,
        transfers: &mut Transfers,
        message: &[u8],
    ) -> Result<(Vec<u8>, [Elements; 4]), TransferError> {
        let Self { select, ring, masks, received } = self;
        let count = masks.len();
        expect_length(message, extension_bytes(count))?;
        let room = || Zeroizing::new(vec![0; count]);
        let (mut pads, mut choices, mut words) = (room(), room(), room());
        let (hashes, keys, select) = (&transfers.hashes, &received.blocks[..], &select);
        let hashing = Hashing { hashes, select, ring, keys };
        pads.par_chunks_mut(SPAN)
            .zip(choices.par_chunks_mut(SPAN))
            .zip(words.par_chunks_mut(SPAN))
            .zip(masks.par_chunks(SPAN))
            .enumerate()
            .for_each_init(Scratch::new, |scratch, (span, (((pads, choices), words), masks))| {
                hashing.choices(span * SPAN, &received.choices, choices);
                hashing.own_pads(scratch, span * SPAN, masks, choices, pads, words);
            });
        let blocks = transfers.sender.extend(count, message)?;
        let (hashes, delta) = (&transfers.hashes, transfers.sender.delta());
        let sending = Sending { hashes, delta, blocks: &blocks };
        let scalars = |i: usize, to: &mut [u128]| {
            to[0] = u128::from(shifted_mask(select, masks[i]) & low_mask(ring));
        };
        // Party 0's choices stay random: nothing is turned.
        let flips = vec![0; flip_bytes(count)];
        let low =
            move |shares: &[u128], out: &mut [u64]| out[0] = shares[0] as u64 & low_mask(ring);
        let widths = Widths::new([vec![ring]]);
        let (last, products) = gilboa::send(&widths, &sending, &flips, (count, 1), scalars, low)?;
        Ok((last, [pads, choices, words, products]))
    }
}

impl Answered {
    /// Party 0's fields, from party 1's last message.
    ///
    /// # Errors
    /// If it has another length or set padding bits.
    pub fn finish(
        self,
        transfers: &Transfers,
        select: &Select,
        ring: u32,
        message: &[u8],
    ) -> Result<[Elements; 4], TransferError> {
        let Self { table, words, mut wraps, received } = self;
        let count = wraps.len();
        let (blocks, bits) = (&received.blocks[..count], &received.choices[..count]);
        let receiving = Receiving { hashes: &transfers.hashes, blocks, bits };
        let low =
            move |shares: &[u128], out: &mut [u64]| out[0] = shares[0] as u64 & low_mask(ring);
        let widths = Widths::new([vec![ring]]);
        let products = gilboa::receive(&widths, &receiving, message, (count, 1), low)?;
        let both = low_mask(select.entry_bits(ring));
        let pairs = wraps.iter_mut().zip(bits);
        pairs.for_each(|(own, &bit)| *own = (u64::from(bit) | *own << 1) & both);
        Ok([table, words, wraps, products])
    }
}

/// Pads from the keys of transfers.
struct Hashing<'a> {
    hashes: &'a Hashes,
    select: &'a Select,
    ring: u32,
    /// Of all elements the first transfer's, then the second one's, and so on.
    keys: &'a [Block],
}

impl Hashing<'_> {
    /// Transfer `number` of elements from `start` on, of what there is of every transfer.
    fn of<'t, T>(&self, all: &'t [T], number: u32, start: usize, count: usize) -> &'t [T] {
        let elements = all.len() / self.select.transfers(self.ring);
        &all[number as usize * elements + start..][..count]
    }

    /// Party 0's pads of elements from `start` on, whose transfers are to be turned by the bits of `flips`.
    fn pads(
        &self,
        scratch: &mut Scratch,
        start: usize,
        delta: &Block,
        flips: &[u16],
        table: &mut [u64],
        words: &mut [u64],
    ) {
        let Self { hashes, select, ring, keys } = *self;
        let ((per, bits), count) = (select.table_words(ring), flips.len());
        scratch.begin(count);
        let blocks = select.table_blocks(ring);
        for (number, having) in (0..).zip(buckets_having(select)) {
            let keys = self.of(keys, number, start, count).iter();
            for (key, (q, flip)) in scratch.keys.iter_mut().zip(keys.zip(flips)) {
                *key = xor(*q, masked_block(*delta, (flip >> number) as u8 & 1));
            }
            scratch.add(hashes, blocks, &having.map(|bits| !bits));
            scratch.turn(delta);
            scratch.add(hashes, blocks, &having);
        }
        for (element, table) in table.chunks_exact_mut(per).enumerate() {
            let of_table = scratch.table(element);
            table.iter_mut().zip(of_table).for_each(|(to, word)| *to = word & low_mask(bits));
        }
        let (entry, numbers, ring) =
            (select.entry_bits(ring), select.numbers(ring), low_mask(ring));
        for transfer in 0..entry {
            let keys = self.of(keys, select.p + transfer, start, count);
            scratch.keys[..count].copy_from_slice(keys);
            for bit in 0..2 {
                if bit == 1 {
                    scratch.turn(delta);
                }
                hashes.pad(0, &scratch.keys, &mut scratch.hashed);
                for (words, hash) in words.chunks_exact_mut(numbers).zip(scratch.hashed.iter()) {
                    for other in 0..entry as usize {
                        let number =
                            if transfer == 0 { bit | other << 1 } else { other | bit << 1 };
                        words[number] ^= half(hash, other) & ring;
                    }
                }
            }
        }
    }

    /// Party 1's random choices of elements from `start` on, of those of all transfers.
    fn choices(&self, start: usize, all: &[u8], choices: &mut [u64]) {
        for transfer in 0..self.select.entry_bits(self.ring) {
            let bits = self.of(all, self.select.p + transfer, start, choices.len());
            let pairs = choices.iter_mut().zip(bits);
            pairs.for_each(|(choice, &bit)| *choice |= u64::from(bit) << transfer);
        }
    }

    /// Party 1's pads of elements from `start` on.
    fn own_pads(
        &self,
        scratch: &mut Scratch,
        start: usize,
        masks: &[u64],
        choices: &[u64],
        pads: &mut [u64],
        words: &mut [u64],
    ) {
        let Self { hashes, select, ring, keys } = *self;
        let count = masks.len();
        scratch.begin(count);
        for number in 0..select.p {
            scratch.keys[..count].copy_from_slice(self.of(keys, number, start, count));
            scratch.add(hashes, select.table_blocks(ring), &[u128::MAX; MOST_BLOCKS]);
        }
        for (element, (pad, &m)) in pads.iter_mut().zip(masks).enumerate() {
            *pad = entry(select, ring, &scratch.table(element), bucket(select, m));
        }
        let (entry, ring) = (select.entry_bits(ring), low_mask(ring));
        for transfer in 0..entry {
            let keys = self.of(keys, select.p + transfer, start, count);
            scratch.keys[..count].copy_from_slice(keys);
            hashes.pad(0, &scratch.keys, &mut scratch.hashed);
            let of_elements = scratch.hashed.iter().zip(choices);
            for (word, (hash, choice)) in words.iter_mut().zip(of_elements) {
                // The other transfer's choice; without one it is 0.
                let other = if transfer == 0 { choice >> 1 } else { choice & 1 };
                let [low, high] = [half(hash, 0), half(hash, 1)];
                *word ^= (low ^ (low ^ high) & other.wrapping_neg()) & ring;
            }
        }
    }
}

/// Blocks of a table with the most bits.
const MOST_BLOCKS: usize = {
    let most = *Select::BUCKET_BITS.end();
    (2usize << most).div_ceil(128)
};

/// A bit for every bit of a table.
type TableMask = [u128; MOST_BLOCKS];

/// One thread's working memory, wiped when dropped.
struct Scratch {
    keys: Blocks,
    hashed: Blocks,
    /// Sums of hashes, the tables' first blocks, then the second ones, and so on.
    sums: [Blocks; MOST_BLOCKS],
}

type Blocks = Zeroizing<Vec<Block>>;

impl Scratch {
    fn new() -> Self {
        let blocks = || Zeroizing::new(vec![]);
        Self { keys: blocks(), hashed: blocks(), sums: std::array::from_fn(|_| blocks()) }
    }

    /// Zeros for so many elements' tables.
    fn begin(&mut self, count: usize) {
        let count = count.next_multiple_of(TOGETHER);
        self.keys.resize(count, Block::default());
        self.hashed.resize(count, Block::default());
        for sums in &mut self.sums {
            sums.clear();
            sums.resize(count, Block::default());
        }
    }

    /// Turns keys to the other ones.
    fn turn(&mut self, delta: &Block) {
        let delta: [u8; TOGETHER * 16] = std::array::from_fn(|i| delta[i % 16]);
        let keys = self.keys.as_flattened_mut().as_chunks_mut::<{ TOGETHER * 16 }>().0;
        vectorized(
            #[inline(always)]
            || keys.iter_mut().for_each(|keys| xor_array(keys, &delta)),
        );
    }

    /// Adds hashes of the keys to the first blocks of tables, where `having` has a bit set.
    fn add(&mut self, hashes: &Hashes, blocks: usize, having: &TableMask) {
        for (block, (sums, having)) in self.sums.iter_mut().zip(having).take(blocks).enumerate() {
            hashes.pad(block, &self.keys, &mut self.hashed);
            let having = having.to_le_bytes();
            let having: [u8; TOGETHER * 16] = std::array::from_fn(|i| having[i % 16]);
            let sums = sums.as_flattened_mut().as_chunks_mut::<{ TOGETHER * 16 }>().0;
            let hashed = self.hashed.as_flattened().as_chunks::<{ TOGETHER * 16 }>().0;
            vectorized(
                #[inline(always)]
                || {
                    for (sums, hashed) in sums.iter_mut().zip(hashed) {
                        xor_array(sums, &std::array::from_fn(|i| hashed[i] & having[i]));
                    }
                },
            );
        }
    }

    /// The words of an element's table.
    fn table(&self, element: usize) -> [u64; 2 * MOST_BLOCKS] {
        std::array::from_fn(|word| half(&self.sums[word / 2][element], word % 2))
    }
}

/// Blocks that a vector holds.
const TOGETHER: usize = 4;

#[inline(always)]
fn xor_array<const N: usize>(to: &mut [u8; N], from: &[u8; N]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to ^= from);
}

/// Per transfer, the bits of a table, for the wrap as well, of the buckets that have its bit set.
fn buckets_having(select: &Select) -> Vec<TableMask> {
    let buckets = 1usize << select.p;
    let is_set = |number: u32, at: usize| (at % buckets) >> number & 1 == 1;
    let block = |number: u32, block: usize| {
        (0..128).filter(|at| is_set(number, 128 * block + at)).fold(0, |all, at| all | 1u128 << at)
    };
    (0..select.p).map(|number| std::array::from_fn(|n| block(number, n))).collect()
}

/// One of the two words of a block.
fn half(block: &Block, number: usize) -> u64 {
    (u128::from_le_bytes(*block) >> (64 * number)) as u64
}

#[cfg(test)]
mod tests {
    use super::super::entry as entry_of;
    use super::*;
    use crate::preprocess::expand::Seed;
    use crate::preprocess::transfer::setup::both;
    use crate::testing::Random;

    #[test]
    fn the_two_parties_have_what_a_dealer_deals() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(11), seed(12));
        let mut random = Random::new(81);
        let mut variants = [0; 2];
        for round in 0..80 {
            let p = 2 + round % 7;
            let k = random.between(u64::from(p) + 1, 40) as u32;
            let select = Select { k, p, t: random.between(0, u64::from(k) - 1) as u32 };
            let ring = random.between(1, 64) as u32;
            let count = random.between(1, 600) as usize;
            let (entry, numbers) = (select.entry_bits(ring), select.numbers(ring));
            variants[entry as usize - 1] += 1;
            let masks: Vec<u64> = (0..count).map(|_| random.bits(k + 2)).collect();
            let wraps: Vec<u64> = (0..count).map(|_| random.bits(1)).collect();

            let cost = select.cost(count, ring);
            let (asked, first) = ask(&mut party1, &select, ring, &masks);
            assert_eq!(first.len(), cost.bytes[0]);
            assert!(answer(&mut party0, &select, ring, &wraps, &first[1..]).is_err());
            let (answered, second) = answer(&mut party0, &select, ring, &wraps, &first).unwrap();
            assert_eq!(second.len(), cost.bytes[1]);
            let (third, [pads, choices, words, shares1]) =
                asked.finish(&mut party1, &second).unwrap();
            assert_eq!(third.len(), cost.bytes[2]);
            let [table, all_words, own, shares0] =
                answered.finish(&party0, &select, ring, &third).unwrap();
            let (per, bits) = select.table_words(ring);
            assert_eq!((table.len(), all_words.len()), (per * count, numbers * count));
            assert!(table.iter().all(|word| word & !low_mask(bits) == 0));
            for i in 0..count {
                let table = &table[i * per..(i + 1) * per];
                assert_eq!(entry_of(&select, ring, table, bucket(&select, masks[i])), pads[i]);
                assert_eq!(all_words[numbers * i + choices[i] as usize], words[i]);
                assert_eq!(own[i] >> 1, if entry == 2 { wraps[i] } else { 0 });
                assert!(own[i] | pads[i] | choices[i] <= low_mask(entry));
                let product = (own[i] & 1) * shifted_mask(&select, masks[i]);
                let sum = shares0[i].wrapping_add(shares1[i]);
                assert_eq!((sum ^ product) & low_mask(ring), 0);
                assert!((all_words[numbers * i] | shares0[i] | shares1[i]) & !low_mask(ring) == 0);
            }
        }
        assert!(variants.iter().all(|&seen| seen > 10), "{variants:?}");
    }

    /// Pads that party 1 does not choose are fair, also beside the one that it knows: every bit of every entry
    /// is set in half of the elements, and differs from that of every other entry in half of them. With and without the
    /// bit of the wrap, and where a key is hashed to more blocks than one.
    #[test]
    fn pads_of_other_entries_are_fair_and_alike_to_none() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(13), seed(14));
        for (p, t, ring, count) in [(4, 7, 16, 40_000), (4, 7, 9, 40_000), (7, 7, 16, 10_000)] {
            let select = Select { k: 16, p, t };
            let masks: Vec<u64> = (0..count).map(|i| (i as u64 * 40503) & 0xffff).collect();
            let (_, first) = ask(&mut party1, &select, ring, &masks);
            let answered = answer(&mut party0, &select, ring, &vec![0; count], &first);
            let (answered, _) = answered.unwrap();
            let fair = |ones: usize| {
                let off = (ones as f64 - count as f64 / 2.0).abs() / (count as f64).sqrt() * 2.0;
                assert!(off < 6.0, "{off} deviations");
            };
            let (per, bits) = select.table_words(ring);
            let bits = bits as usize * per;
            let bit = |table: &[u64], j: usize| (table[j / 64] >> (j % 64) & 1) as usize;
            let tables = answered.table.chunks_exact(per);
            for j in 0..bits {
                fair(tables.clone().map(|table| bit(table, j)).sum());
                for other in 0..j {
                    fair(tables.clone().map(|t| bit(t, j) ^ bit(t, other)).sum());
                }
            }
            // Any four entries whose numbers cancel: 0, 1, 2, 3.
            fair(tables.map(|table| (0..4).fold(0, |all, j| all ^ bit(table, j))).sum());
            let words = answered.words.chunks_exact(select.numbers(ring));
            for n in 0..ring {
                let sum = |w: &[u64]| w.iter().fold(0, |all, word| all ^ word) >> n & 1;
                fair(words.clone().map(|w| sum(w) as usize).sum());
            }
        }
    }
}
