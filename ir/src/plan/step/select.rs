//! `relu(y) >> t` exactly but for `y` within half a bucket of zero, in two round trips of few bytes. The protocol
//! stands in the runtime's `steps::select`.
//!
//! *Notation.* `y` has `k` bits. The top `p` bits of party 1's mask name its *bucket* of `2^(k−p)`; the offset of the
//! mask in it, `l`, is uniform and decides the sign of a `y` within half a bucket of zero:
//! `b = [y + l − 2^(k−p−1) > 0]`. The value is `b·⌊(y + m mod 2^t) / 2^t⌋`, one of `t` bits' carries. For
//! `|y| ≤ 2^(k−1) − 2^(k−p−1)` nothing else can go wrong.
//!
//! *The wrap.* Whether `y + m` wrapped is worth `2^(k−t)` in the value. Where the value has no more than `k − t` bits
//! that is nothing: the parties then share one bit, not two, and what is sent and used up for the second falls away.

use super::{Exact, Field, Protocol, Step, Trip, err, widest};
use crate::plan::evaluate::Coins;
use crate::plan::formula::rectified;
use crate::plan::preprocess::transfers::extension_bytes;
use crate::plan::preprocess::{Cost, Method};
use crate::plan::{RingLwe, StepWeights};
use crate::ring::{low_mask, packed_bytes, to_signed};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Parameters of a select step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Select {
    /// Bits of the operand that count; it may have more.
    pub k: u32,
    /// Bits of a bucket's number.
    pub p: u32,
    /// Bits that are dropped of the value.
    pub t: u32,
}

impl Select {
    /// What `p` may be: tables double with every bit of it.
    pub const BUCKET_BITS: RangeInclusive<u32> = 2..=8;

    /// Bits that the parties share for a value of `ring` bits: whether `y` is positive and, unless it makes no
    /// difference mod `2^ring`, whether it wrapped.
    pub fn entry_bits(&self, ring: u32) -> u32 {
        if ring > self.k - self.t { 2 } else { 1 }
    }

    /// Numbers that two bits or one can have: words of the second opening, of which the first is zero and not sent.
    pub fn numbers(&self, ring: u32) -> usize {
        1 << self.entry_bits(ring)
    }

    /// Bits of the table that party 0 sends of an element: for every bucket whether `y` is positive, then, where
    /// that counts, whether it wrapped.
    pub fn table_bits(&self, ring: u32) -> u32 {
        self.entry_bits(ring) << self.p
    }

    /// Words of the table, and bits of each.
    pub fn table_words(&self, ring: u32) -> (usize, u32) {
        let bits = self.table_bits(ring);
        (bits.div_ceil(64) as usize, bits.min(64))
    }

    /// Blocks of 128 bits to which a key of a bucket's transfer is hashed: a bit for every bit of the table.
    pub fn table_blocks(&self, ring: u32) -> usize {
        self.table_bits(ring).div_ceil(128) as usize
    }

    /// Transfers of an element in which party 1 chooses: `p` by its bucket, and one or two at random.
    pub fn transfers(&self, ring: u32) -> usize {
        (self.p + self.entry_bits(ring)) as usize
    }

    /// What the correlations of `count` elements cost whose value has `ring` bits: [`Self::transfers`], and one in
    /// which party 0 chooses among numbers of `ring` bits. Party 0 hashes both keys of each of the former.
    pub fn cost(&self, count: usize, ring: u32) -> Cost {
        let transfers = count * self.transfers(ring);
        let blocks = self.p as usize * self.table_blocks(ring) + self.entry_bits(ring) as usize;
        Cost {
            transfers,
            reverse_transfers: count,
            key_blocks: count * 2 * blocks,
            bytes: vec![
                extension_bytes(transfers) + packed_bytes(count, self.p),
                extension_bytes(count),
                packed_bytes(count, ring),
            ],
            ..Cost::default()
        }
    }
}

impl Protocol for Select {
    fn name(&self) -> &'static str {
        "select"
    }

    fn parameters(&self) -> String {
        format!("k {} p {} t {}", self.k, self.p, self.t)
    }

    fn operand_bits(&self) -> u32 {
        self.k
    }

    fn check_rings(&self, _: u32, operands: &[&Step]) -> Result<(), String> {
        let fits = Self::BUCKET_BITS.contains(&self.p)
            && (self.p + 1..=64).contains(&self.k)
            && self.t < self.k;
        if !fits {
            return err("k, p and t do not fit");
        }
        widest(operands, self.k)
    }

    fn trips(&self, step: &Step) -> Vec<Trip> {
        let field = |bits| Field { elements: step.shape.elements(), bits };
        let ring = step.ring;
        let sent = self.numbers(ring) as u32 - 1;
        vec![
            Trip { opening: field(self.table_bits(ring)), response: field(self.entry_bits(ring)) },
            Trip { opening: field(sent * ring), response: field(ring) },
        ]
    }

    /// Party 0: the pads of the table, those of the words, one or two bits, its share of a product. Party 1: the pad of
    /// its entry, its choice among the words and the pad of that one, its share.
    fn correlation(&self, step: &Step) -> [Vec<Field>; 2] {
        let (elements, ring) = (step.shape.elements(), step.ring);
        let field = |per: usize, bits| Field { elements: per * elements, bits };
        let ((words, bits), entry) = (self.table_words(ring), self.entry_bits(ring));
        let pads = field(self.numbers(ring), ring);
        [
            vec![field(words, bits), pads, field(1, entry), field(1, ring)],
            vec![field(1, entry), field(1, entry), field(1, ring), field(1, ring)],
        ]
    }

    fn exchanges(&self, step: &Step, count: usize, _: &[RingLwe]) -> Vec<(Method, Cost)> {
        vec![(Method::Transfers, self.cost(count, step.ring))]
    }

    fn online_work(&self) -> u32 {
        // Five where a table is a word, and two for every other word.
        3 + 2 * (2u32 << self.p).div_ceil(64)
    }

    fn fits(&self, _: &Step, secrets: &StepWeights) -> bool {
        matches!(secrets, StepWeights::None)
    }

    fn exact<'a>(&'a self, step: &'a Step, _: &[u32], _: &'a StepWeights) -> Box<dyn Exact + 'a> {
        Box::new(ExactSelect { select: self, step })
    }
}

struct ExactSelect<'a> {
    select: &'a Select,
    step: &'a Step,
}

impl Exact for ExactSelect<'_> {
    fn value(&self, operands: &[&Tensor<u64>], coins: &mut Coins) -> Tensor<u64> {
        let Self { select, step } = self;
        let Select { k, p, t } = **select;
        let (ring, bucket) = (low_mask(step.ring), k - p);
        let value = |&y: &u64| {
            let y = i128::from(to_signed(y & low_mask(k), k));
            // One mask decides both: its offset in the bucket, and the carry.
            let half = 1i128 << bucket >> 1;
            let (offset, low) = match coins.sampled() {
                true => {
                    let mask = coins.low(bucket.max(t).max(1));
                    (mask & low_mask(bucket), mask & low_mask(t))
                }
                false => (half as u64, 1 << t >> 1),
            };
            rectified(y, half, (offset.into(), low.into()), t) as u64 & ring
        };
        Tensor::new(step.shape.clone(), operands[0].data.iter().map(value).collect())
    }
}
