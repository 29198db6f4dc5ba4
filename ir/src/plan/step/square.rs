//! `y²` of a truncated value. The protocol stands in the runtime's `steps::square`.

use super::{Exact, Field, Protocol, Step, Trip, err, widest};
use crate::plan::evaluate::{Coins, per_channel, truncate_signed};
use crate::plan::preprocess::transfers::extension_bytes;
use crate::plan::preprocess::{Cost, Method};
use crate::plan::{RingLwe, StepWeights};
use crate::ring::{low_mask, packed_bytes};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Parameters of a square or polynomial step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Square {
    /// Bits dropped from the input.
    pub t: u32,
    /// Bits of the truncated input, its sign and a spare bit.
    pub p: u32,
    /// Ring width `Q` of the shares before truncation: `k' + shift`; at most 64, in a polynomial 127.
    pub q: u32,
    /// Bits that the local truncation drops: `t₂`.
    pub shift: u32,
}

impl Square {
    pub(super) fn check(&self, most: u32, k: u32, operands: &[&Step]) -> Result<(), String> {
        if self.t > 63
            || !(3..=62).contains(&self.p)
            || self.shift >= self.q
            || self.q > most
            || self.q - self.shift != k
        {
            return err("t, p, Q and t₂ do not fit");
        }
        widest(operands, self.t + self.p)
    }

    pub(super) fn text(&self) -> String {
        format!("t {} p {} t2 {} Q {}", self.t, self.p, self.shift, self.q)
    }

    /// The bits of `M` below its top bit that matter mod 2^Q.
    pub fn low_bits(&self) -> u32 {
        (self.p - 1).min(self.q)
    }

    /// The bits of a polynomial's `N_j = M^j` and of `−w_j/2^p` that matter mod 2^Q. The latter is
    /// `c·(M^j − (M − 2^p)^j)/2^p`, which is 1 at most for `j = 1` and below `2^((j−1)p)` for others,
    /// because `2^p − M ≤ M < 2^p` where `c` is set.
    pub fn power_bits(&self, power: u32) -> (u32, u32) {
        let Self { p, q, .. } = *self;
        let n = (power * p).min(q);
        let w = ((power - 1) * p).max(1).min(q.saturating_sub(p));
        (n, w)
    }

    /// What the products of `count` elements cost: `u` is multiplied with the bits of `M` that stand
    /// below its top bit `c` and below `2^Q`; then five scalars with `c`; party 0's two bits with a number
    /// each.
    pub fn cost(&self, count: usize) -> Cost {
        let low = self.low_bits();
        let widths: u32 = (0..low).map(|i| self.q - i).sum::<u32>() + 5 * self.q;
        let transfers = count * (low as usize + 1);
        Cost {
            transfers,
            reverse_transfers: 2 * count,
            bytes: vec![
                extension_bytes(transfers) + packed_bytes(transfers, 1),
                packed_bytes(count, widths)
                    + extension_bytes(2 * count)
                    + packed_bytes(2 * count, 1),
                packed_bytes(count, 2 * self.q),
            ],
            ..Cost::default()
        }
    }

    /// `z >> shift` with a carry, mod `2^(q − shift)`.
    pub(super) fn shifted(&self, z: u128, coins: &mut Coins) -> u64 {
        let low = if self.shift == 0 {
            0
        } else if self.shift > 63 {
            u128::from(coins.low(63)) << (self.shift - 63)
        } else {
            u128::from(coins.low(self.shift))
        };
        (z.wrapping_add(low) >> self.shift) as u64 & low_mask(self.q - self.shift)
    }
}

impl Protocol for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    fn parameters(&self) -> String {
        self.text()
    }

    fn operand_bits(&self) -> u32 {
        self.t + self.p
    }

    fn check_rings(&self, k: u32, operands: &[&Step]) -> Result<(), String> {
        self.check(64, k, operands)
    }

    fn trips(&self, step: &Step) -> Vec<Trip> {
        let elements = step.shape.elements();
        let opening = Field { elements, bits: self.p + 2 };
        vec![Trip { opening, response: Field { elements, bits: step.ring } }]
    }

    /// Shares of eight products per element.
    fn correlation(&self, step: &Step) -> [Vec<Field>; 2] {
        let elements = 8 * step.shape.elements();
        [(); 2].map(|()| vec![Field { elements, bits: self.q }])
    }

    fn exchanges(&self, _: &Step, count: usize, _: &[RingLwe]) -> Vec<(Method, Cost)> {
        vec![(Method::Transfers, self.cost(count))]
    }

    /// An element has four times the shares of a harmonic.
    fn online_work(&self) -> u32 {
        4
    }

    fn fits(&self, step: &Step, secrets: &StepWeights) -> bool {
        let rows = |n: usize| n == 1 || n == step.shape.channels();
        matches!(secrets, StepWeights::Square { constant } if rows(constant.len()))
    }

    fn exact<'a>(
        &'a self,
        step: &'a Step,
        rings: &[u32],
        secrets: &'a StepWeights,
    ) -> Box<dyn Exact + 'a> {
        let StepWeights::Square { constant } = secrets else { unreachable!("checked at load") };
        Box::new(ExactSquare { square: self, step, ring: rings[0], constant })
    }
}

struct ExactSquare<'a> {
    square: &'a Square,
    step: &'a Step,
    ring: u32,
    constant: &'a [i64],
}

impl Exact for ExactSquare<'_> {
    fn value(&self, operands: &[&Tensor<u64>], coins: &mut Coins) -> Tensor<u64> {
        let Self { square, step, ring, constant } = self;
        let data = operands[0].data.iter().enumerate().map(|(i, &y)| {
            let y = truncate_signed(y, *ring, square.t, coins);
            let c = *per_channel(constant, step.shape.channel_of(i));
            square.shifted((i128::from(y) * i128::from(y) + i128::from(c)) as u128, coins)
        });
        Tensor::new(step.shape.clone(), data.collect())
    }
}
