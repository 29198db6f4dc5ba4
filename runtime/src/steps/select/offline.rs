//! The correlations of a select step, by correlated oblivious transfers.
//!
//! Of an element the first `p` transfers are turned to the bits of party 1's bucket, and two keep their random choices.
//! A transfer has a key for either bit, of which party 1 has one. *(a)* A key is hashed to 128 bits; the pad of bucket `j` is
//! the XOR, over the transfers, of bits `j` and `2^p + j` of the hash of the key for bit `i` of `j`. *(b)* A key is hashed
//! to two words; the pad of number `a + 2b` is the XOR of word `b` of the first one's key for `a` and word `a` of the
//! second one's key for `b`. So no bit of a hash serves two entries, and an entry that is not party 1's has a bit or a
//! word of a hash that it knows nothing of. *(c)* is a product by party 0's random choice ([`gilboa`]).

use super::{bucket, entry, shifted_mask};
use crate::preprocess::transfer::gilboa::{self, Receiving, Sending, Widths, flip_bytes};
use crate::preprocess::transfer::hash::{Block, Hashes, select as masked_block, xor};
use crate::preprocess::transfer::{Received, TransferError, Transfers, expect_length};
use crate::secret::Elements;
use ir::plan::Select;
use ir::plan::preprocess::transfers::extension_bytes;
use ir::ring::{Packer, Unpacker, low_mask, packed_bytes};
use zeroize::Zeroizing;

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
    /// The second bits of `c₀`.
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
    let per = select.p as usize + 2;
    let mut received = transfers.receiver.extend(masks.len() * per);
    let mut message = std::mem::take(&mut received.message);
    let mut flips = Packer::with_capacity(packed_bytes(masks.len(), select.p));
    for (&m, choices) in masks.iter().zip(received.choices.chunks_exact(per)) {
        flips.push(bucket(select, m) ^ number(&choices[..per - 2]), select.p);
    }
    message.extend(flips.finish());
    let masks = Zeroizing::new(masks.to_vec());
    (Asked { select: *select, ring, masks, received }, message)
}

/// Party 0's message; `wraps` are the second bits of its `c₀` of the same elements. Its shares follow from
/// party 1's next message.
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
    let (per, count) = (select.p as usize + 2, wraps.len());
    let extension = extension_bytes(count * per);
    expect_length(message, extension + packed_bytes(count, select.p))?;
    let (extension, flips) = message.split_at(extension);
    let mut keys = transfers.sender.extend(count * per, extension)?;
    let delta = *transfers.sender.delta();
    let mut flips = Unpacker::new(flips);
    for keys in keys[..count * per].chunks_exact_mut(per) {
        let turned = flips.next(select.p);
        for (i, key) in keys[..per - 2].iter_mut().enumerate() {
            *key = xor(*key, masked_block(delta, (turned >> i) as u8 & 1));
        }
    }
    if !flips.is_exhausted() {
        return Err(TransferError::Padding);
    }
    let keys = &mut keys[..count * per];
    let zero = hashed(&transfers.hashes, keys);
    keys.iter_mut().for_each(|key| *key = xor(*key, delta));
    let one = hashed(&transfers.hashes, keys);
    let (words_of_table, bits) = select.table_words();
    let mut table = Zeroizing::new(Vec::with_capacity(count * words_of_table));
    let mut words = Zeroizing::new(Vec::with_capacity(4 * count));
    let having = buckets_having(select);
    for (zero, one) in zero.chunks_exact(per).zip(one.chunks_exact(per)) {
        let pairs = zero.iter().zip(one).zip(&having);
        let pads = pairs.fold(0, |all, ((zero, one), having)| all ^ zero & !having ^ one & having);
        table.extend((0..words_of_table).map(|n| (pads >> (64 * n)) as u64 & low_mask(bits)));
        let ([first, second], ring) = ([per - 2, per - 1], low_mask(ring));
        words.extend([(0, 0), (1, 0), (0, 1), (1, 1)].map(|(a, b)| {
            let of_first = if a == 0 { zero[first] } else { one[first] };
            let of_second = if b == 0 { zero[second] } else { one[second] };
            (word(of_first, b) ^ word(of_second, a)) & ring
        }));
    }
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
        let (per, count) = (select.p as usize + 2, masks.len());
        expect_length(message, extension_bytes(count))?;
        let hashes = hashed(&transfers.hashes, &received.blocks[..count * per]);
        let room = || Zeroizing::new(Vec::with_capacity(count));
        let (mut pads, mut choices, mut words) = (room(), room(), room());
        let elements = hashes.chunks_exact(per).zip(received.choices.chunks_exact(per));
        for ((hashes, chosen), &m) in elements.zip(masks.iter()) {
            let all = hashes[..per - 2].iter().fold(0, |all, hash| all ^ hash);
            pads.push(entry(&select, all, bucket(&select, m)));
            let (a, b) = (u64::from(chosen[per - 2]), u64::from(chosen[per - 1]));
            choices.push(a | b << 1);
            let of_first = either(hashes[per - 2], b);
            words.push((of_first ^ either(hashes[per - 1], a)) & low_mask(ring));
        }
        let blocks = transfers.sender.extend(count, message)?;
        let (hashes, delta) = (&transfers.hashes, transfers.sender.delta());
        let sending = Sending { hashes, delta, blocks: &blocks };
        let scalars = |i: usize, to: &mut [u128]| {
            to[0] = u128::from(shifted_mask(&select, masks[i]) & low_mask(ring));
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
        ring: u32,
        message: &[u8],
    ) -> Result<[Elements; 4], TransferError> {
        let Self { table, words, wraps, received } = self;
        let count = wraps.len();
        let (blocks, bits) = (&received.blocks[..count], &received.choices[..count]);
        let receiving = Receiving { hashes: &transfers.hashes, blocks, bits };
        let low =
            move |shares: &[u128], out: &mut [u64]| out[0] = shares[0] as u64 & low_mask(ring);
        let widths = Widths::new([vec![ring]]);
        let products = gilboa::receive(&widths, &receiving, message, (count, 1), low)?;
        let own = bits.iter().zip(wraps.iter()).map(|(&bit, wrap)| u64::from(bit) | wrap << 1);
        let own = Zeroizing::new(own.collect());
        Ok([table, words, own, products])
    }
}

/// Per transfer, bits `j` and `2^p + j` of the buckets `j` that have its bit set.
fn buckets_having(select: &Select) -> Vec<u128> {
    let buckets = 1u128 << select.p;
    let of_bit = |i: u32| (0..buckets).filter(|j| j >> i & 1 == 1).fold(0, |all, j| all | 1 << j);
    (0..select.p).map(of_bit).map(|half: u128| half | half << buckets).collect()
}

fn hashed(hashes: &Hashes, keys: &[Block]) -> Zeroizing<Vec<u128>> {
    let mut blocks = Zeroizing::new(vec![Block::default(); keys.len()]);
    hashes.pad(0, keys, &mut blocks);
    Zeroizing::new(blocks.iter().map(|block| u128::from_le_bytes(*block)).collect())
}

/// One of the two words of a hash, by a public number.
fn word(hash: u128, number: u32) -> u64 {
    (hash >> (64 * number)) as u64
}

/// One of the two words of a hash, by a secret bit.
fn either(hash: u128, bit: u64) -> u64 {
    let (low, high) = (hash as u64, (hash >> 64) as u64);
    low ^ (low ^ high) & bit.wrapping_neg()
}

/// The number of which these are the bits.
fn number(bits: &[u8]) -> u64 {
    bits.iter().rev().fold(0, |number, &bit| number << 1 | u64::from(bit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::expand::Seed;
    use crate::preprocess::transfer::setup::both;
    use crate::testing::Random;

    #[test]
    fn the_two_parties_have_what_a_dealer_deals() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(11), seed(12));
        let mut random = Random::new(81);
        for _ in 0..60 {
            let p = random.between(2, 6) as u32;
            let k = random.between(u64::from(p) + 1, 40) as u32;
            let select = Select { k, p, t: random.between(0, u64::from(k) - 1) as u32 };
            let ring = random.between(1, 64) as u32;
            let count = random.between(1, 200) as usize;
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
            let [table, all_words, own, shares0] = answered.finish(&party0, ring, &third).unwrap();
            let (per, bits) = select.table_words();
            assert_eq!((table.len(), all_words.len()), (per * count, 4 * count));
            assert!(table.iter().all(|word| word & !low_mask(bits) == 0));
            for i in 0..count {
                let parts = table[i * per..(i + 1) * per].iter().enumerate();
                let table = parts.fold(0, |all, (n, &word)| all | u128::from(word) << (64 * n));
                assert_eq!(entry(&select, table, bucket(&select, masks[i])), pads[i]);
                assert_eq!(all_words[4 * i + choices[i] as usize], words[i]);
                assert_eq!(own[i] >> 1, wraps[i]);
                let product = (own[i] & 1) * shifted_mask(&select, masks[i]);
                let sum = shares0[i].wrapping_add(shares1[i]);
                assert_eq!((sum ^ product) & low_mask(ring), 0);
                assert!((all_words[4 * i] | shares0[i] | shares1[i]) & !low_mask(ring) == 0);
            }
        }
    }

    /// Pads that party 1 does not choose are fair, also beside the one that it knows: every bit of every entry
    /// is set in half of the elements, and differs from that of every other entry in half of them.
    #[test]
    fn pads_of_other_entries_are_fair_and_alike_to_none() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(13), seed(14));
        let (select, ring, count) = (Select { k: 16, p: 4, t: 7 }, 16, 40_000);
        let masks: Vec<u64> = (0..count).map(|i| (i as u64 * 40503) & 0xffff).collect();
        let (_, first) = ask(&mut party1, &select, ring, &masks);
        let (answered, _) = answer(&mut party0, &select, ring, &vec![0; count], &first).unwrap();
        let fair = |ones: usize| {
            let off = (ones as f64 - count as f64 / 2.0).abs() / (count as f64).sqrt() * 2.0;
            assert!(off < 6.0, "{off} deviations");
        };
        let bit = |table: u64, j: u32| (table >> j & 1) as usize;
        for j in 0..32 {
            fair(answered.table.iter().map(|&table| bit(table, j)).sum());
            for other in 0..j {
                fair(answered.table.iter().map(|&t| bit(t, j) ^ bit(t, other)).sum());
            }
        }
        // Any four entries whose numbers cancel: 0, 1, 2, 3.
        let four = |&table: &u64| (0..4).fold(0, |all, j| all ^ bit(table, j));
        fair(answered.table.iter().map(four).sum());
        let words = answered.words.chunks_exact(4);
        for n in 0..ring {
            let sum = words.clone().map(|w| ((w[0] ^ w[1] ^ w[2] ^ w[3]) >> n & 1) as usize).sum();
            fair(sum);
        }
    }
}
