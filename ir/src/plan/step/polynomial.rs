//! A polynomial with secret coefficients of a truncated value. The protocol stands in the runtime's
//! `steps::polynomial`.

use super::{Exact, Field, Protocol, Square, Step, Trip, err};
use crate::plan::evaluate::{Coins, per_channel, truncate_signed};
use crate::plan::preprocess::transfers::extension_bytes;
use crate::plan::preprocess::{Cost, Method};
use crate::plan::{RingLwe, StepWeights};
use crate::ring::packed_bytes;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// The highest degree of a polynomial step.
pub const MOST_DEGREE: u32 = 16;

/// Parameters of a polynomial step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polynomial {
    /// Truncation and rings.
    pub square: Square,
    /// Degree of the polynomial, at least 1.
    pub degree: u32,
}

impl Polynomial {
    /// What the products of `count` elements cost: for every power, one transfer per bit of `N_j` for
    /// `u_j` and one per bit of `−w_j/2^p` for `u_j` and `u_j·β`; party 0's bit with all `w_j`.
    pub fn cost(&self, count: usize) -> Cost {
        let Square { p, q, .. } = self.square;
        let (mut per_element, mut bits) = (0, 0);
        for power in 1..=self.degree {
            let (n, w) = self.square.power_bits(power);
            per_element += n as usize + w as usize;
            bits += (0..n).map(|i| (q - i) as usize).sum::<usize>();
            bits += (0..w).map(|i| 2 * (q - p - i) as usize).sum::<usize>();
        }
        let transfers = count * per_element;
        Cost {
            transfers,
            reverse_transfers: count,
            bytes: vec![
                extension_bytes(transfers) + packed_bytes(transfers, 1),
                (count * bits).div_ceil(8) + extension_bytes(count) + packed_bytes(count, 1),
                packed_bytes(count * self.degree as usize, q),
            ],
            ..Cost::default()
        }
    }
}

impl Protocol for Polynomial {
    fn name(&self) -> &'static str {
        "polynomial"
    }

    fn parameters(&self) -> String {
        format!("{} degree {}", self.square.text(), self.degree)
    }

    fn operand_bits(&self) -> u32 {
        self.square.t + self.square.p
    }

    fn check_rings(&self, k: u32, operands: &[&Step]) -> Result<(), String> {
        if !(1..=MOST_DEGREE).contains(&self.degree) {
            return err("degree out of range");
        }
        self.square.check(127, k, operands)
    }

    fn trips(&self, step: &Step) -> Vec<Trip> {
        let elements = step.shape.elements();
        let opening = Field { elements, bits: (self.degree - 1) * self.square.q + 1 };
        vec![Trip { opening, response: Field { elements, bits: step.ring } }]
    }

    /// Shares of four products per element and power.
    fn correlation(&self, step: &Step) -> [Vec<Field>; 2] {
        let elements = 4 * self.degree as usize * step.shape.elements();
        [(); 2].map(|()| vec![Field { elements, bits: self.square.q }])
    }

    fn exchanges(&self, _: &Step, count: usize, _: &[RingLwe]) -> Vec<(Method, Cost)> {
        vec![(Method::Transfers, self.cost(count))]
    }

    fn online_work(&self) -> u32 {
        2 * self.degree
    }

    fn fits(&self, step: &Step, secrets: &StepWeights) -> bool {
        let StepWeights::Polynomial { coefficients } = secrets else { return false };
        let is_row = |row: &Vec<i128>| row.len() == self.degree as usize + 1;
        (coefficients.len() == 1 || coefficients.len() == step.shape.channels())
            && coefficients.iter().all(is_row)
    }

    fn exact<'a>(
        &'a self,
        step: &'a Step,
        rings: &[u32],
        secrets: &'a StepWeights,
    ) -> Box<dyn Exact + 'a> {
        let StepWeights::Polynomial { coefficients } = secrets else {
            unreachable!("checked at load")
        };
        Box::new(ExactPolynomial { square: &self.square, step, ring: rings[0], coefficients })
    }
}

struct ExactPolynomial<'a> {
    square: &'a Square,
    step: &'a Step,
    ring: u32,
    coefficients: &'a [Vec<i128>],
}

impl Exact for ExactPolynomial<'_> {
    fn value(&self, operands: &[&Tensor<u64>], coins: &mut Coins) -> Tensor<u64> {
        let Self { square, step, ring, coefficients } = self;
        let data = operands[0].data.iter().enumerate().map(|(i, &y)| {
            let y = i128::from(truncate_signed(y, *ring, square.t, coins));
            let row = per_channel(coefficients, step.shape.channel_of(i));
            let next = |sum: i128, &c: &i128| sum.wrapping_mul(y).wrapping_add(c);
            square.shifted(row.iter().rev().fold(0, next) as u128, coins)
        });
        Tensor::new(step.shape.clone(), data.collect())
    }
}
