//! Functions that are lines in pieces.

use ir::op::{Elementary, Expression, Function};

/// A continuous function of straight pieces: `slope·x + intercept`, and `by·max(x − at, 0)` for every knot `(at, by)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Piecewise {
    /// Slope left of the first knot.
    pub slope: f64,
    /// The value at zero of the line left of the first knot.
    pub intercept: f64,
    /// Where the slope changes, and by how much; in order.
    pub knots: Vec<(f64, f64)>,
}

/// More knots than this are no function worth so many rectifiers.
const MOST_KNOTS: usize = 8;

impl Piecewise {
    /// The expression in a channel, if all its operations keep lines in pieces, and they are few.
    pub fn of(expression: &Expression, channel: usize) -> Option<Self> {
        let mut values = vec![Self::line(1.0, 0.0)];
        for operation in &expression.operations {
            let value = match operation {
                Elementary::Affine { operand, scale, shift } => {
                    values[*operand].times(entry(scale, channel)).plus(entry(shift, channel))
                }
                Elementary::Sum(a, b) => values[*a].sum(&values[*b]),
                Elementary::Apply { function, operand } => values[*operand].applied(*function)?,
                Elementary::Product(..) | Elementary::Quotient(..) | Elementary::Power { .. } => {
                    return None;
                }
            };
            let is_finite = |(at, by): &(f64, f64)| at.is_finite() && by.is_finite();
            if value.knots.len() > MOST_KNOTS
                || !(value.slope + value.intercept).is_finite()
                || !value.knots.iter().all(is_finite)
            {
                return None;
            }
            values.push(value);
        }
        values.pop()
    }

    fn line(slope: f64, intercept: f64) -> Self {
        Self { slope, intercept, knots: vec![] }
    }

    /// The value at `x`.
    pub fn at(&self, x: f64) -> f64 {
        let line = if self.slope == 0.0 { self.intercept } else { self.slope * x + self.intercept };
        line + self.knots.iter().map(|(knot, by)| by * (x - knot).max(0.0)).sum::<f64>()
    }

    /// Slope right of the last knot.
    pub fn last_slope(&self) -> f64 {
        self.slope + self.knots.iter().map(|(_, by)| by).sum::<f64>()
    }

    fn times(&self, factor: f64) -> Self {
        let knots = self.knots.iter().map(|&(at, by)| (at, by * factor)).collect();
        Self { slope: self.slope * factor, intercept: self.intercept * factor, knots }.tidy()
    }

    fn plus(&self, constant: f64) -> Self {
        Self { intercept: self.intercept + constant, ..self.clone() }
    }

    fn sum(&self, other: &Self) -> Self {
        let knots = self.knots.iter().chain(&other.knots).copied().collect();
        Self { slope: self.slope + other.slope, intercept: self.intercept + other.intercept, knots }
            .tidy()
    }

    /// Knots in order, each once, and none that changes nothing.
    fn tidy(mut self) -> Self {
        self.knots.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.knots.dedup_by(|next, before| {
            let is_same = next.0 == before.0;
            if is_same {
                before.1 += next.1;
            }
            is_same
        });
        self.knots.retain(|(_, by)| by.abs() > 1e-12);
        self
    }

    /// The positive part.
    fn relu(&self) -> Self {
        // Ends of pieces where the value is known, and the pieces' slopes.
        let mut slope = self.slope;
        let mut pieces = vec![(f64::NEG_INFINITY, slope)];
        for (at, by) in &self.knots {
            slope += by;
            pieces.push((*at, slope));
        }
        let mut roots = Vec::new();
        for (i, &(start, slope)) in pieces.iter().enumerate() {
            let end = pieces.get(i + 1).map_or(f64::INFINITY, |next| next.0);
            let anchor = if start.is_finite() { start } else { end.min(0.0) };
            let root = anchor - self.at(anchor) / slope;
            if slope != 0.0 && root.is_finite() && start <= root && root < end {
                roots.push(root);
            }
        }
        let mut ends: Vec<f64> = self.knots.iter().map(|(at, _)| *at).chain(roots).collect();
        ends.sort_by(f64::total_cmp);
        ends.dedup();
        // Within every piece between ends the sign is one.
        let slope_between = |low: f64, high: f64| {
            let inside = match (low.is_finite(), high.is_finite()) {
                (true, true) => (low + high) / 2.0,
                (true, false) => low + low.abs().max(1.0),
                (false, true) => high - high.abs().max(1.0),
                (false, false) => 0.0,
            };
            let reached = self.knots.iter().take_while(|(at, _)| *at < inside);
            let slope = self.slope + reached.map(|(_, by)| by).sum::<f64>();
            if self.at(inside) > 0.0 { slope } else { 0.0 }
        };
        let first = ends.first().copied().unwrap_or(f64::INFINITY);
        let slope = slope_between(f64::NEG_INFINITY, first);
        let anchor = if first.is_finite() { first } else { 0.0 };
        let intercept = self.at(anchor).max(0.0) - slope * anchor;
        let mut before = slope;
        let knots = ends.iter().enumerate().map(|(i, &end)| {
            let next = ends.get(i + 1).copied().unwrap_or(f64::INFINITY);
            let slope = slope_between(end, next);
            let by = slope - before;
            before = slope;
            (end, by)
        });
        let knots = knots.collect();
        Self { slope, intercept, knots }.tidy()
    }

    fn applied(&self, function: Function) -> Option<Self> {
        let above = |bound: f64| self.plus(-bound).relu();
        Some(match function {
            Function::Relu => self.relu(),
            Function::LeakyRelu { alpha } => self.times(alpha).sum(&self.relu().times(1.0 - alpha)),
            Function::Clip { low, high } if low <= high => {
                match (low.is_finite(), high.is_finite()) {
                    (true, true) => above(low).sum(&above(high).times(-1.0)).plus(low),
                    (true, false) => above(low).plus(low),
                    (false, true) => self.sum(&above(high).times(-1.0)),
                    (false, false) => self.clone(),
                }
            }
            Function::HardSigmoid { alpha, beta } => {
                let line = self.times(alpha).plus(beta);
                let high = line.plus(-1.0).relu();
                line.relu().sum(&high.times(-1.0))
            }
            Function::Abs => self.relu().sum(&self.times(-1.0).relu()),
            Function::Clip { .. }
            | Function::Sigmoid
            | Function::Tanh
            | Function::Gelu
            | Function::GeluTanh
            | Function::Silu
            | Function::HardSwish
            | Function::Elu { .. }
            | Function::Selu { .. }
            | Function::Softplus
            | Function::Softsign
            | Function::Mish
            | Function::Erf
            | Function::Exp
            | Function::Log
            | Function::Sqrt
            | Function::Sin
            | Function::Cos
            | Function::Sign
            | Function::Acos
            | Function::Acosh
            | Function::Asin
            | Function::Asinh
            | Function::Atan
            | Function::Atanh
            | Function::Cosh
            | Function::Sinh
            | Function::Tan => return None,
        })
    }
}

fn entry(values: &[f64], channel: usize) -> f64 {
    if values.len() == 1 { values[0] } else { values[channel] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(function: Function, operand: usize) -> Elementary {
        Elementary::Apply { function, operand }
    }

    fn affine(operand: usize, scale: f64, shift: f64) -> Elementary {
        Elementary::Affine { operand, scale: vec![scale], shift: vec![shift] }
    }

    fn knots(operations: Vec<Elementary>) -> usize {
        let expression = Expression::new(operations);
        let pieces = Piecewise::of(&expression, 0).unwrap();
        for i in -400..=400 {
            let x = f64::from(i) / 31.0;
            let (got, want) = (pieces.at(x), expression.at(0, x));
            assert!((got - want).abs() < 1e-9, "{got} instead of {want} at {x}: {pieces:?}");
        }
        assert!(pieces.knots.is_sorted_by(|a, b| a.0 < b.0));
        pieces.knots.len()
    }

    #[test]
    fn functions_of_straight_pieces_are_recognised_exactly() {
        use Function::*;
        assert_eq!(knots(vec![apply(Relu, 0)]), 1);
        assert_eq!(knots(vec![apply(LeakyRelu { alpha: 0.1 }, 0)]), 1);
        assert_eq!(knots(vec![apply(LeakyRelu { alpha: 1.5 }, 0)]), 1);
        assert_eq!(knots(vec![apply(Clip { low: 0.0, high: 6.0 }, 0)]), 2);
        assert_eq!(knots(vec![apply(Clip { low: f64::NEG_INFINITY, high: 2.0 }, 0)]), 1);
        assert_eq!(knots(vec![apply(HardSigmoid { alpha: 0.2, beta: 0.5 }, 0)]), 2);
        assert_eq!(knots(vec![apply(Abs, 0)]), 1);
        // | |x − 1| − 2 |: three knots; its positive part beyond 1: two more.
        let nested = vec![affine(0, 1.0, -1.0), apply(Abs, 1), affine(2, 1.0, -2.0), apply(Abs, 3)];
        assert_eq!(knots(nested.clone()), 3);
        let beyond = [nested, vec![affine(4, -1.0, 1.0), apply(Relu, 5)]].concat();
        assert_eq!(knots(beyond), 6);
        // Of a slope: relu(x) − 0.25·relu(−x), and turned round.
        let slope = |side: f64| {
            vec![
                apply(Relu, 0),
                affine(0, -1.0, 0.0),
                apply(Relu, 2),
                affine(3, -0.25 * side, 0.0),
                Elementary::Sum(1, 4),
            ]
        };
        assert_eq!(knots(slope(1.0)), 1);
        assert_eq!(knots(slope(-1.0)), 1);
        // Nothing but a line is left.
        assert_eq!(
            knots(vec![
                apply(Relu, 0),
                affine(0, -1.0, 0.0),
                apply(Relu, 2),
                affine(3, -1.0, 0.0),
                Elementary::Sum(1, 4)
            ]),
            0
        );
        assert_eq!(knots(vec![affine(0, 0.0, -1.0), apply(Relu, 1)]), 0);
    }

    #[test]
    fn curves_and_jumps_are_not() {
        for function in [Function::Sigmoid, Function::Sign, Function::HardSwish] {
            assert_eq!(Piecewise::of(&Expression::new(vec![apply(function, 0)]), 0), None);
        }
        assert_eq!(Piecewise::of(&Expression::new(vec![Elementary::Product(0, 0)]), 0), None);
    }
}
