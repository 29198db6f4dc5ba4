//! Any public function of the top `p` bits of a value, in one round trip. The protocol stands in the runtime's
//! `steps::table`.
//!
//! *Notation.* The low `k` bits of the operand are a turn, the *window*; a value that leaves it comes back at the other
//! end, as the phase of a phase step does. Party 0 opens `p` bits of it, party 1's mask counts with `mask_bits ≥ p`. What
//! is looked up is a number of `mask_bits` bits: the operand's phase, but for what opening and mask leave out. With
//! `k = p = mask_bits` nothing is left out, and the function is exact.
//!
//! *The function is public*: its entries stand in the plan, as ring elements of the value. So it may be an exponential, a
//! sign or a rounding with public scales. It may hold nothing of the weights, a factor per channel neither.

use super::{Exact, Field, Protocol, Step, Trip, err, widest};
use crate::plan::evaluate::{Coins, evaluated_index};
use crate::plan::formula::phase_centre;
use crate::plan::preprocess::{Cost, Method, transfers};
use crate::plan::{RingLwe, StepWeights};
use crate::ring::{low_mask, pack, unpack};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Parameters of a table step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Bits of the operand that count; it may have more.
    pub k: u32,
    /// Bits of party 0's opening.
    pub p: u32,
    /// Bits of party 1's mask that count, at least `p`: the error's variance is `(1 + 4^−b)/12` steps of an opening, with
    /// `b = mask_bits − p`.
    pub mask_bits: u32,
    /// Bits of the value.
    pub q: u32,
    /// The function at all `2^mask_bits` numbers, packed, `q` bits each.
    entries: Vec<u8>,
}

impl Table {
    /// What `p` may be.
    pub const OPENING_BITS: RangeInclusive<u32> = 6..=12;
    /// The most bits of the mask that may count.
    pub const MOST_MASK_BITS: u32 = 14;
    /// Bits of a number below the nodes of the tree: a node stands for `2^NODE_BITS` entries.
    pub const NODE_BITS: u32 = 3;
    /// Entries that a node of the tree stands for.
    pub const NODE: usize = 1 << Self::NODE_BITS;

    /// A table of these entries, ring elements of `q` bits.
    ///
    /// # Errors
    /// If the parameters are out of their bounds, or there are not `2^mask_bits` entries.
    pub fn new(k: u32, p: u32, mask_bits: u32, q: u32, entries: &[u64]) -> Result<Self, String> {
        if entries.iter().any(|&entry| entry > low_mask(q.min(64))) {
            return err("an entry has more bits than the value");
        }
        let table = Self { k, p, mask_bits, q, entries: pack(entries, q.min(64)) };
        table.check()?;
        Ok(table)
    }

    /// The table of a function from units of the operand, as a signed number of `k` bits, to units of the value. It is
    /// rounded to nearest, taken at places that make the mean error zero, and reduced to `q` bits.
    ///
    /// # Errors
    /// If the parameters are out of their bounds, or a value is no number of at most 63 bits.
    pub fn of(
        (k, p, mask_bits, q): (u32, u32, u32, u32),
        function: impl Fn(f64) -> f64,
    ) -> Result<Self, String> {
        if mask_bits > Self::MOST_MASK_BITS || k > 64 || !(1..=64).contains(&q) {
            return err("k, p, the mask's bits and the value's bits do not fit");
        }
        let places = 0..1u64 << mask_bits;
        let entry = |number| {
            let value = function(place(k, p, mask_bits, number)).round();
            let is_bounded = value.abs() < 63f64.exp2();
            let refused = || format!("the function has no value at number {number}");
            is_bounded.then_some(value as i64 as u64 & low_mask(q)).ok_or_else(refused)
        };
        let entries = places.map(entry).collect::<Result<Vec<u64>, String>>()?;
        Self::new(k, p, mask_bits, q, &entries)
    }

    /// The same entries reduced to a ring of `q` bits, at most those they have.
    #[must_use]
    pub fn in_ring(&self, q: u32) -> Self {
        let q = q.min(self.q);
        let entries: Vec<u64> = self.entries().iter().map(|&e| e & low_mask(q)).collect();
        Self { q, entries: pack(&entries, q), ..self.clone() }
    }

    /// Bits by which party 1's mask is finer than party 0's opening.
    pub fn spare_bits(&self) -> u32 {
        self.mask_bits - self.p
    }

    /// The function at all numbers.
    pub fn entries(&self) -> Vec<u64> {
        unpack(&self.entries, 1 << self.mask_bits, self.q).unwrap_or_default()
    }

    /// Blocks of 128 bits that a leaf of the tree is hashed to: one for its bit, and those of its entries.
    pub fn pad_blocks(&self) -> u32 {
        1 + self.q.next_power_of_two().max(16) / 16
    }

    /// Levels of the tree of an element.
    pub fn levels(&self) -> u32 {
        self.mask_bits - Self::NODE_BITS
    }

    fn check(&self) -> Result<(), String> {
        let fits = Self::OPENING_BITS.contains(&self.p)
            && (self.p..=Self::MOST_MASK_BITS).contains(&self.mask_bits)
            && (self.mask_bits..=64).contains(&self.k)
            && (1..=64).contains(&self.q);
        if !fits {
            return err("k, p, the mask's bits and the value's bits do not fit");
        }
        if unpack(&self.entries, 1 << self.mask_bits, self.q).is_none() {
            return err("its entries do not fit its parameters");
        }
        Ok(())
    }

    /// What the correlations of `count` elements cost.
    pub fn cost(&self, count: usize) -> Cost {
        transfers::shared_trees(self, count)
    }
}

/// Where a number's entry is taken: the middle of what it may stand for, in signed units of the operand.
fn place(k: u32, p: u32, mask_bits: u32, number: u64) -> f64 {
    let spare = mask_bits.saturating_sub(p);
    let turn = number as f64 / f64::from(spare).exp2() + phase_centre(spare);
    let turn = turn / f64::from(p).exp2();
    let signed = if turn >= 0.5 { turn - 1.0 } else { turn };
    signed * f64::from(k).exp2()
}

impl Protocol for Table {
    fn name(&self) -> &'static str {
        "table"
    }

    fn parameters(&self) -> String {
        format!("k {} p {} mask {}", self.k, self.p, self.mask_bits)
    }

    fn operand_bits(&self) -> u32 {
        self.k
    }

    fn check_rings(&self, k: u32, operands: &[&Step]) -> Result<(), String> {
        self.check()?;
        if k != self.q {
            return err("its entries are those of another ring");
        }
        widest(operands, self.k)
    }

    fn trips(&self, step: &Step) -> Vec<Trip> {
        let field = |bits| Field { elements: step.shape.elements(), bits };
        vec![Trip { opening: field(self.p), response: field(self.q) }]
    }

    /// Of the whole step: the name of the permutations, and the party's offset. Of an element: the first node of its
    /// tree and a correction per further level, blocks of two words; what stands beside the nodes' bits in its
    /// entries; where the tree's places begin.
    fn correlation(&self, step: &Step) -> [Vec<Field>; 2] {
        let elements = step.shape.elements();
        let field = |per: usize, bits| Field { elements: per * elements, bits };
        let blocks = field(2 * self.levels() as usize, 64);
        let whole = Field { elements: 4, bits: 64 };
        [(); 2].map(|()| vec![whole, blocks, field(Self::NODE, self.q), field(1, self.mask_bits)])
    }

    fn expands(&self) -> bool {
        false
    }

    fn exchanges(&self, _: &Step, count: usize, _: &[RingLwe]) -> Vec<(Method, Cost)> {
        vec![(Method::SharedTrees, self.cost(count))]
    }

    /// A leaf is hashed to its pads, and the tree above it once more; a hash at both parties takes as long as three
    /// sums.
    fn online_work(&self) -> u32 {
        (3 * (1 + self.pad_blocks())) << self.levels()
    }

    fn fits(&self, _: &Step, secrets: &StepWeights) -> bool {
        matches!(secrets, StepWeights::None)
    }

    fn exact<'a>(&'a self, step: &'a Step, _: &[u32], _: &'a StepWeights) -> Box<dyn Exact + 'a> {
        Box::new(ExactTable { table: self, step, entries: self.entries() })
    }
}

struct ExactTable<'a> {
    table: &'a Table,
    step: &'a Step,
    entries: Vec<u64>,
}

impl Exact for ExactTable<'_> {
    fn value(&self, operands: &[&Tensor<u64>], coins: &mut Coins) -> Tensor<u64> {
        let Self { table, step, entries } = self;
        let value = |&y: &u64| {
            let y = y & low_mask(table.k);
            let index = evaluated_index(y, table.k, (table.p, table.spare_bits()), coins);
            entries[index as usize]
        };
        Tensor::new(step.shape.clone(), operands[0].data.iter().map(value).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Rounding;
    use crate::ring::to_signed;
    use crate::tensor::Shape;

    fn step(table: &Table, elements: usize) -> Step {
        Step {
            name: String::new(),
            op: table.clone().into(),
            operands: vec![],
            shape: Shape::new([elements]),
            ring: table.q,
            fraction_bits: 0,
        }
    }

    /// Without anything left out, every value has the function's; otherwise it is the function's within a step,
    /// and right on average.
    #[test]
    fn values_are_the_functions() {
        let step_of = |table: &Table| step(table, 1 << table.k);
        let run = |table: &Table, rounding| {
            let y = (0..1u64 << table.k).collect();
            let step = step_of(table);
            let y = Tensor::new(step.shape.clone(), y);
            let exact = table.exact(&step, &[table.k], &StepWeights::None);
            exact.value(&[&y], &mut Coins::new(rounding)).data
        };
        let exact = Table::of((8, 8, 8, 20), |y| y * y - 3.0).unwrap();
        for rounding in [Rounding::Nearest, Rounding::Sampled(3)] {
            for (y, value) in (0..).zip(run(&exact, rounding)) {
                let y = to_signed(y, 8);
                assert_eq!(to_signed(value, 20), y * y - 3);
            }
        }
        for spare in 0..3 {
            let table = Table::of((12, 6, 6 + spare, 20), |y| 16.0 * y).unwrap();
            let error = |y: u64, value: u64| {
                let error = value.wrapping_sub(16 * y) & low_mask(16);
                to_signed(error, 16) as f64 / 16.0
            };
            let most = |limit: f64, rounding| {
                let all = (0..).zip(run(&table, rounding));
                let errors: Vec<f64> = all.map(|(y, value)| error(y, value)).collect();
                assert!(errors.iter().all(|e| e.abs() <= limit), "{spare} {errors:?}");
                errors
            };
            most(32.0, Rounding::Nearest);
            let errors = most(64.0, Rounding::Sampled(5));
            let count = errors.len() as f64;
            let mean = errors.iter().sum::<f64>() / count;
            let variance = errors.iter().map(|e| e * e).sum::<f64>() / count / 4096.0;
            let expected = (1.0 + (-2.0 * f64::from(spare)).exp2()) / 12.0;
            assert!(mean.abs() < 2.0, "{spare}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.1, "{spare}: {variance} {expected}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let entries = vec![3; 64];
        assert!(Table::new(8, 6, 6, 2, &entries).is_ok());
        assert!(Table::new(8, 6, 6, 1, &entries).is_err(), "an entry is too wide");
        assert!(Table::new(8, 6, 7, 2, &entries).is_err(), "entries are missing");
        assert!(Table::new(5, 6, 6, 2, &entries).is_err(), "a narrow window");
        assert!(Table::new(8, 5, 6, 2, &entries).is_err());
        assert!(Table::new(70, 6, 6, 2, &entries).is_err());
        assert!(Table::new(8, 6, 6, 0, &[0; 64]).is_err());
        assert!(Table::new(8, 6, 6, 65, &entries).is_err());
        assert!(Table::of((20, 13, 13, 8), |y| y).is_err());
        assert!(Table::of((20, 6, 60, 8), |y| y).is_err());
        assert!(Table::of((8, 6, 6, 8), |y| 1.0 / y).is_err(), "not defined at zero");
        let mut table = Table::new(8, 6, 6, 2, &entries).unwrap();
        table.entries.push(0);
        assert!(table.check().is_err());
        let wide = Table::of((64, 12, 14, 64), |y| y / 4.0).unwrap();
        assert_eq!(wide.entries.len(), 1 << 17);
        assert!(wide.check_rings(63, &[]).is_err());
    }

    #[test]
    fn entries_are_reduced_to_another_ring() {
        let wide = Table::of((10, 8, 9, 64), |y| 3.0 * y).unwrap();
        assert_eq!(wide.in_ring(7), Table::of((10, 8, 9, 7), |y| 3.0 * y).unwrap());
        assert_eq!(wide.in_ring(64), wide);
        assert!(wide.in_ring(7).check().is_ok());
    }

    #[test]
    fn a_table_has_the_bytes_of_its_formula() {
        let table = Table::of((16, 9, 9, 16), |y| y.max(0.0)).unwrap();
        let cost = table.cost(128);
        assert_eq!((cost.transfers, cost.reverse_transfers), (9 * 128, 9 * 128));
        let extension = 9 * 128 * 15 / 8;
        let (levels, products, small) = (16 * 128, 16 * 36, 128 * (32 + 16));
        let last = 128 * 18 + 16 * 9;
        let mut expected = vec![extension, extension, levels + small, levels + products];
        expected.extend([levels; 8]);
        expected.extend([last, last]);
        assert_eq!(cost.bytes, expected);
        assert_eq!(2 * cost.total_bytes(), 569 * 128);
    }
}
