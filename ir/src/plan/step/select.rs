//! `relu(y) >> t` exactly but for `y` within half a bucket of zero, in two round trips of few bytes. The protocol
//! stands in the runtime's `steps::select`.
//!
//! *Notation.* `y` has `k` bits. The top `p` bits of party 1's mask name its *bucket* of `2^(k−p)`; the offset of the
//! mask in it, `l`, is uniform and decides the sign of a `y` within half a bucket of zero:
//! `b = [y + l − 2^(k−p−1) > 0]`. The value is `b·⌊(y + m mod 2^t) / 2^t⌋`, one of `t` bits' carries. For
//! `|y| ≤ 2^(k−1) − 2^(k−p−1)` nothing else can go wrong.

use super::{Exact, Field, Protocol, Step, Trip, err, widest};
use crate::plan::evaluate::Coins;
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
    /// What `p` may be: a table of `2·2^p` bits is masked by a block of 128 bits.
    pub const BUCKET_BITS: RangeInclusive<u32> = 2..=6;

    /// Bits of the table that party 0 sends of an element: for every bucket whether `y` is positive, then whether
    /// it wrapped.
    pub fn table_bits(&self) -> u32 {
        2 << self.p
    }

    /// Words of the table, and bits of each.
    pub fn table_words(&self) -> (usize, u32) {
        let bits = self.table_bits();
        (bits.div_ceil(64) as usize, bits.min(64))
    }

    /// What the correlations of `count` elements cost whose value has `ring` bits: `p` transfers that party 1's
    /// bucket chooses in, two random ones, and one in which party 0 chooses among numbers of `ring` bits.
    pub fn cost(&self, count: usize, ring: u32) -> Cost {
        let transfers = count * (self.p as usize + 2);
        Cost {
            transfers,
            reverse_transfers: count,
            bytes: [
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
        vec![
            Trip { opening: field(self.table_bits()), response: field(2) },
            Trip { opening: field(3 * step.ring), response: field(step.ring) },
        ]
    }

    /// Party 0: the masks of the table, four masks of words, two bits, its share of a product. Party 1: its entry of
    /// the first, its choice among the words and the mask of that one, its share.
    fn correlation(&self, step: &Step) -> [Vec<Field>; 2] {
        let elements = step.shape.elements();
        let field = |per: usize, bits| Field { elements: per * elements, bits };
        let (words, bits) = self.table_words();
        [
            vec![field(words, bits), field(4, step.ring), field(1, 2), field(1, step.ring)],
            vec![field(1, 2), field(1, 2), field(1, step.ring), field(1, step.ring)],
        ]
    }

    fn exchanges(&self, step: &Step, count: usize, _: &[RingLwe]) -> Vec<(Method, Cost)> {
        vec![(Method::Transfers, self.cost(count, step.ring))]
    }

    fn online_work(&self) -> u32 {
        6
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
            let offset = if coins.sampled() { coins.low(bucket.max(t).max(1)) } else { 0 };
            let (sign, carry) = match coins.sampled() {
                true => (
                    y + i128::from(offset & low_mask(bucket)) - (1 << bucket >> 1),
                    i128::from(offset & low_mask(t)),
                ),
                false => (y, 1 << t >> 1),
            };
            if sign > 0 { ((y + carry) >> t) as u64 & ring } else { 0 }
        };
        Tensor::new(step.shape.clone(), operands[0].data.iter().map(value).collect())
    }
}
