//! Activations: one function per channel, first as the file states it, then as a polynomial or a
//! trigonometric polynomial that two parties can evaluate.

use super::function::Function;
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// What is applied to every element of a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Activation {
    /// The function that stands in the model.
    Exact(Expression),
    /// A polynomial per channel, evaluated as it stands.
    Polynomial(Polynomial),
    /// A trigonometric polynomial per channel: the fit on the circle.
    Trigonometric(Trigonometric),
}

impl Activation {
    /// The activation that applies one elementary function.
    pub fn function(function: Function) -> Self {
        Self::Exact(Expression::new(vec![Elementary::Apply { function, operand: 0 }]))
    }

    /// The value at `x` in channel `channel`.
    pub fn at(&self, channel: usize, x: f64) -> f64 {
        match self {
            Self::Exact(expression) => expression.at(channel, x),
            Self::Polynomial(polynomial) => polynomial.at(channel, x),
            Self::Trigonometric(trigonometric) => trigonometric.at(channel, x),
        }
    }

    /// A name for people: `relu`, `degree 2`, `3 harmonics`.
    pub fn name(&self) -> String {
        match self {
            Self::Exact(expression) => expression.name(),
            Self::Polynomial(p) => format!("degree {}", p.degree()),
            Self::Trigonometric(t) => match t.order() {
                1 => "1 harmonic".into(),
                n => format!("{n} harmonics"),
            },
        }
    }
}

/// A function of one variable as a list of elementary operations: operand 0 is the variable, operand
/// `i` is the result of operation `i − 1`; the last result is the value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
pub struct Expression {
    /// The operations in order.
    pub operations: Vec<Elementary>,
}

/// One operation of an [`Expression`]. Constants have one entry, or one per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Elementary {
    /// `scale·x + shift`
    Affine {
        /// index of the operand
        operand: usize,
        /// one entry, or one per channel
        scale: Vec<f64>,
        /// one entry, or one per channel
        shift: Vec<f64>,
    },
    /// Sum of two operands
    Sum(usize, usize),
    /// Product of two operands
    Product(usize, usize),
    /// First operand over second
    Quotient(usize, usize),
    /// Operand to a constant power
    Power {
        /// index of the operand
        operand: usize,
        /// the exponent
        exponent: f64,
    },
    /// An elementary function of an operand
    Apply {
        /// the function
        function: Function,
        /// index of the operand
        operand: usize,
    },
}

impl Expression {
    /// An expression from its operations.
    pub fn new(operations: Vec<Elementary>) -> Self {
        Self { operations }
    }

    /// The value at `x` in channel `channel`.
    pub fn at(&self, channel: usize, x: f64) -> f64 {
        if let [Elementary::Apply { function, operand: 0 }] = self.operations.as_slice() {
            return function.at(x);
        }
        // Expressions of real models are short; longer ones pay for the heap.
        let mut short = [0.0; 16];
        let mut long = Vec::new();
        let values = if self.operations.len() < short.len() {
            &mut short[..]
        } else {
            long.resize(self.operations.len() + 1, 0.0);
            &mut long[..]
        };
        values[0] = x;
        for (i, operation) in self.operations.iter().enumerate() {
            values[i + 1] = match operation {
                Elementary::Affine { operand, scale, shift } => {
                    per_channel(scale, channel) * values[*operand] + per_channel(shift, channel)
                }
                Elementary::Sum(a, b) => values[*a] + values[*b],
                Elementary::Product(a, b) => values[*a] * values[*b],
                Elementary::Quotient(a, b) => values[*a] / values[*b],
                Elementary::Power { operand, exponent } => values[*operand].powf(*exponent),
                Elementary::Apply { function, operand } => function.at(values[*operand]),
            };
        }
        values[self.operations.len()]
    }

    /// Whether it surely never falls where its variable grows, in any channel: then it commutes with a
    /// maximum. An expression may rise without this test seeing it.
    pub fn is_non_decreasing(&self) -> bool {
        let mut rises = vec![true];
        for operation in &self.operations {
            let value = match operation {
                Elementary::Affine { operand, scale, .. } => {
                    rises[*operand] && scale.iter().all(|&s| s >= 0.0)
                }
                Elementary::Sum(a, b) => rises[*a] && rises[*b],
                Elementary::Apply { function, operand } => {
                    rises[*operand] && function.is_non_decreasing()
                }
                Elementary::Product(..) | Elementary::Quotient(..) | Elementary::Power { .. } => {
                    false
                }
            };
            rises.push(value);
        }
        rises[self.operations.len()]
    }

    /// The polynomial that this expression is, if every operation is one, of degree at most
    /// `max_degree`; one entry per channel.
    pub fn as_polynomial(&self, channels: usize, max_degree: usize) -> Option<Polynomial> {
        let coefficients: Option<Vec<Vec<f64>>> =
            (0..channels).map(|c| self.channel_polynomial(c, max_degree)).collect();
        let mut coefficients = coefficients?;
        let degree = coefficients.iter().map(|c| c.len()).max()?;
        for channel in &mut coefficients {
            channel.resize(degree, 0.0);
        }
        Some(Polynomial { coefficients })
    }

    fn channel_polynomial(&self, channel: usize, max_degree: usize) -> Option<Vec<f64>> {
        let mut values: Vec<Vec<f64>> = vec![vec![0.0, 1.0]];
        for operation in &self.operations {
            let value = match operation {
                Elementary::Affine { operand, scale, shift } => {
                    let s = per_channel(scale, channel);
                    let mut out: Vec<f64> = values[*operand].iter().map(|c| c * s).collect();
                    out[0] += per_channel(shift, channel);
                    out
                }
                Elementary::Sum(a, b) => add_coefficients(&values[*a], &values[*b]),
                Elementary::Product(a, b) => multiply_coefficients(&values[*a], &values[*b]),
                Elementary::Quotient(a, b) => {
                    let divisor = values[*b][0];
                    if trimmed_degree(&values[*b]) > 0 || divisor == 0.0 {
                        return None;
                    }
                    values[*a].iter().map(|c| c / divisor).collect()
                }
                Elementary::Power { operand, exponent } => {
                    if exponent.fract() != 0.0 || !(0.0..=max_degree as f64).contains(exponent) {
                        return None;
                    }
                    (0..*exponent as usize)
                        .fold(vec![1.0], |acc, _| multiply_coefficients(&acc, &values[*operand]))
                }
                Elementary::Apply { .. } => return None,
            };
            let degree = trimmed_degree(&value);
            if degree > max_degree {
                return None;
            }
            values.push(value[..=degree].to_vec());
        }
        values.pop()
    }

    fn name(&self) -> String {
        let mut names = self.operations.iter().filter_map(|operation| match operation {
            Elementary::Apply { function, .. } => {
                let text = format!("{function:?}");
                Some(text.split([' ', '{']).next().unwrap_or_default().to_lowercase())
            }
            _ => None,
        });
        match (names.next(), names.next()) {
            (Some(name), None) => name,
            (None, _) => "elementwise".into(),
            (Some(first), Some(_)) => format!("{first} composite"),
        }
    }
}

/// A polynomial per channel (or one for all): `Σ coefficients[channel][n]·x^n`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Polynomial {
    /// Coefficients from the constant up, per channel or one row for all; rows of one length.
    pub coefficients: Vec<Vec<f64>>,
}

impl Polynomial {
    /// The degree that the rows have room for.
    pub fn degree(&self) -> usize {
        self.coefficients.first().map_or(0, |c| c.len().saturating_sub(1))
    }

    /// The coefficients of a channel.
    pub fn channel(&self, channel: usize) -> &[f64] {
        if self.coefficients.len() == 1 {
            &self.coefficients[0]
        } else {
            &self.coefficients[channel]
        }
    }

    /// The value at `x`, by Horner's rule.
    pub fn at(&self, channel: usize, x: f64) -> f64 {
        self.channel(channel).iter().rev().fold(0.0, |acc, c| acc * x + c)
    }
}

/// `c0 + Σ_n a_n cos(2πn·x/period) + b_n sin(2πn·x/period)` per channel (or one for all).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trigonometric {
    /// One turn of the circle in units of `x`; one entry, or one per channel.
    pub period: Vec<f64>,
    /// `c0`; one entry, or one per channel.
    pub constant: Vec<f64>,
    /// `(a_n, b_n)` for n = 1, 2, …; one row, or one per channel, of one length.
    pub harmonics: Vec<Vec<[f64; 2]>>,
}

/// The squared derivative of trigonometric polynomials by turns of the circle, a mean over the circle and the
/// rows of `(a_n, b_n)`: `(2π)²·Σ n²(a_n² + b_n²)/2`.
pub fn mean_square_slope(rows: &[Vec<[f64; 2]>]) -> f64 {
    let of_row = |row: &Vec<[f64; 2]>| -> f64 {
        let terms = row.iter().enumerate();
        terms.map(|(n, [a, b])| ((n + 1) as f64).powi(2) * (a * a + b * b) / 2.0).sum()
    };
    TAU * TAU * rows.iter().map(of_row).sum::<f64>() / rows.len().max(1) as f64
}

impl Trigonometric {
    /// The number of harmonics.
    pub fn order(&self) -> usize {
        self.harmonics.first().map_or(0, Vec::len)
    }

    /// The period of a channel.
    pub fn period_of(&self, channel: usize) -> f64 {
        per_channel(&self.period, channel)
    }

    /// `c0` of a channel.
    pub fn constant_of(&self, channel: usize) -> f64 {
        per_channel(&self.constant, channel)
    }

    /// `(a_n, b_n)` of a channel.
    pub fn harmonics_of(&self, channel: usize) -> &[[f64; 2]] {
        if self.harmonics.len() == 1 { &self.harmonics[0] } else { &self.harmonics[channel] }
    }

    /// The value at `x`.
    pub fn at(&self, channel: usize, x: f64) -> f64 {
        let theta = TAU * x / self.period_of(channel);
        let (sin, cos) = theta.sin_cos();
        let (mut sin_n, mut cos_n) = (sin, cos);
        let mut sum = self.constant_of(channel);
        for [a, b] in self.harmonics_of(channel) {
            sum += a * cos_n + b * sin_n;
            (cos_n, sin_n) = (cos_n * cos - sin_n * sin, sin_n * cos + cos_n * sin);
        }
        sum
    }
}

fn per_channel(values: &[f64], channel: usize) -> f64 {
    if values.len() == 1 { values[0] } else { values[channel] }
}

fn trimmed_degree(coefficients: &[f64]) -> usize {
    coefficients.iter().rposition(|&c| c != 0.0).unwrap_or(0)
}

fn add_coefficients(a: &[f64], b: &[f64]) -> Vec<f64> {
    let (longer, shorter) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let mut sum = longer.to_vec();
    for (s, c) in sum.iter_mut().zip(shorter) {
        *s += c;
    }
    sum
}

fn multiply_coefficients(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut product = vec![0.0; a.len() + b.len() - 1];
    for (i, x) in a.iter().enumerate() {
        for (j, y) in b.iter().enumerate() {
            product[i + j] += x * y;
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2·(x² − 1) + x/4, per channel scales.
    fn quadratic() -> Expression {
        Expression::new(vec![
            Elementary::Product(0, 0),
            Elementary::Affine { operand: 1, scale: vec![2.0, 4.0], shift: vec![-2.0] },
            Elementary::Affine { operand: 0, scale: vec![0.25], shift: vec![0.0] },
            Elementary::Sum(2, 3),
        ])
    }

    #[test]
    fn expressions_of_products_and_sums_are_polynomials() {
        let polynomial = quadratic().as_polynomial(2, 6).unwrap();
        assert_eq!(polynomial.coefficients, [[-2.0, 0.25, 2.0], [-2.0, 0.25, 4.0]]);
        for channel in 0..2 {
            assert_eq!(polynomial.at(channel, 1.5), quadratic().at(channel, 1.5));
        }
    }

    #[test]
    fn functions_and_high_degrees_are_not_polynomials() {
        let relu =
            Expression::new(vec![Elementary::Apply { function: Function::Relu, operand: 0 }]);
        assert!(relu.as_polynomial(1, 6).is_none());
        let seventh = Expression::new(vec![Elementary::Power { operand: 0, exponent: 7.0 }]);
        assert!(seventh.as_polynomial(1, 6).is_none());
        assert!(quadratic().as_polynomial(2, 1).is_none());
    }

    #[test]
    fn rising_expressions_are_told_from_others() {
        let relu = |operand| Elementary::Apply { function: Function::Relu, operand };
        let affine = |operand, scale| Elementary::Affine { operand, scale, shift: vec![0.5, -1.0] };
        let rises = |operations| Expression::new(operations).is_non_decreasing();
        assert!(rises(vec![affine(0, vec![0.0, 2.0]), relu(1), affine(2, vec![3.0])]));
        assert!(rises(vec![relu(0), affine(0, vec![0.1]), Elementary::Sum(1, 2)]));
        assert!(!rises(vec![relu(0), affine(1, vec![1.0, -0.1])]));
        assert!(!rises(vec![relu(0), Elementary::Product(0, 1)]));
    }

    #[test]
    fn trigonometric_polynomials_have_their_period() {
        let t = Trigonometric {
            period: vec![3.0],
            constant: vec![0.5],
            harmonics: vec![vec![[1.0, 2.0], [0.0, -1.0]]],
        };
        assert!((t.at(0, 0.7) - t.at(0, 3.7)).abs() < 1e-12);
        assert!((t.at(0, 0.0) - 1.5).abs() < 1e-12);
    }
}
