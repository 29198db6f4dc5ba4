//! Elementwise values of a graph, each stored once: equal operations on equal operands are one value, so that what is
//! gathered grows with the number of nodes and not with the number of paths between them.
//!
//! Affine maps are kept composed: an affine map of an affine map, and a sum of two of one value, are one.

use ir::graph::NodeId;
use ir::op::{Elementary, Expression, Function};
use std::collections::{BTreeSet, HashMap};

/// The number of an elementwise value: an index into [`Values`]. (A value of a plan has an `ir::plan::ValueId`.)
pub(super) type ExpressionId = usize;

/// Equal for equal values; numbers by their bits.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Base(NodeId),
    Affine(ExpressionId, Vec<u64>, Vec<u64>),
    Sum(ExpressionId, ExpressionId),
    Product(ExpressionId, ExpressionId),
    Quotient(ExpressionId, ExpressionId),
    Power(ExpressionId, u64),
    // The text of a function has its parameters in full.
    Apply(String, ExpressionId),
}

/// All values of a graph.
#[derive(Default)]
pub(super) struct Values {
    /// The operation of every value, its operands numbered as values; none for a node as it stands.
    values: Vec<Option<Elementary>>,
    known: HashMap<Key, ExpressionId>,
}

impl Values {
    fn intern(&mut self, key: Key, value: Option<Elementary>) -> ExpressionId {
        let next = self.values.len();
        let id = *self.known.entry(key).or_insert(next);
        if id == next {
            self.values.push(value);
        }
        id
    }

    /// A node as it stands.
    pub(super) fn base(&mut self, id: NodeId) -> ExpressionId {
        self.intern(Key::Base(id), None)
    }

    /// `scale·x + shift`, one entry each or one per channel.
    pub(super) fn affine(&mut self, x: ExpressionId, scale: &[f64], shift: &[f64]) -> ExpressionId {
        let (x, inner_scale, inner_shift) = self.as_affine(x);
        let scaled_shift = zip(scale, &inner_shift, |s, t| s * t);
        let scale = compact(zip(scale, &inner_scale, |s, t| s * t));
        let shift = compact(zip(&scaled_shift, shift, |s, t| s + t));
        if scale == [1.0] && shift == [0.0] {
            return x;
        }
        let bits = |v: &[f64]| v.iter().map(|c| c.to_bits()).collect();
        let key = Key::Affine(x, bits(&scale), bits(&shift));
        self.intern(key, Some(Elementary::Affine { operand: x, scale, shift }))
    }

    /// A value as an affine map of one that is none.
    fn as_affine(&self, x: ExpressionId) -> (ExpressionId, Vec<f64>, Vec<f64>) {
        match &self.values[x] {
            Some(Elementary::Affine { operand, scale, shift }) => {
                (*operand, scale.clone(), shift.clone())
            }
            _ => (x, vec![1.0], vec![0.0]),
        }
    }

    /// `a + b`
    pub(super) fn sum(&mut self, a: ExpressionId, b: ExpressionId) -> ExpressionId {
        let (x, scale_a, shift_a) = self.as_affine(a);
        let (y, scale_b, shift_b) = self.as_affine(b);
        if x == y {
            let add = |s: f64, t: f64| s + t;
            return self.affine(x, &zip(&scale_a, &scale_b, add), &zip(&shift_a, &shift_b, add));
        }
        self.intern(Key::Sum(a, b), Some(Elementary::Sum(a, b)))
    }

    /// `a·b`
    pub(super) fn product(&mut self, a: ExpressionId, b: ExpressionId) -> ExpressionId {
        self.intern(Key::Product(a, b), Some(Elementary::Product(a, b)))
    }

    /// `a/b`
    pub(super) fn quotient(&mut self, a: ExpressionId, b: ExpressionId) -> ExpressionId {
        self.intern(Key::Quotient(a, b), Some(Elementary::Quotient(a, b)))
    }

    fn power(&mut self, operand: ExpressionId, exponent: f64) -> ExpressionId {
        let key = Key::Power(operand, exponent.to_bits());
        self.intern(key, Some(Elementary::Power { operand, exponent }))
    }

    fn apply(&mut self, function: Function, operand: ExpressionId) -> ExpressionId {
        let key = Key::Apply(format!("{function:?}"), operand);
        self.intern(key, Some(Elementary::Apply { function, operand }))
    }

    /// A function of a value.
    pub(super) fn expression(&mut self, x: ExpressionId, expression: &Expression) -> ExpressionId {
        let mut made = vec![x];
        for operation in &expression.operations {
            made.push(match operation {
                Elementary::Affine { operand, scale, shift } => {
                    self.affine(made[*operand], scale, shift)
                }
                Elementary::Sum(a, b) => self.sum(made[*a], made[*b]),
                Elementary::Product(a, b) => self.product(made[*a], made[*b]),
                Elementary::Quotient(a, b) => self.quotient(made[*a], made[*b]),
                Elementary::Power { operand, exponent } => self.power(made[*operand], *exponent),
                Elementary::Apply { function, operand } => self.apply(*function, made[*operand]),
            });
        }
        made[expression.operations.len()]
    }

    /// A value as an expression of the one base that it is made of, or `None` if it takes more than `most`
    /// operations.
    pub(super) fn as_expression(&self, id: ExpressionId, most: usize) -> Option<Expression> {
        let mut needed = BTreeSet::new();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if let Some(operation) = &self.values[id]
                && needed.insert(id)
            {
                if needed.len() > most {
                    return None;
                }
                open.extend(operands(operation));
            }
        }
        // Operands are made before what is made of them; a base is operand 0.
        let position: HashMap<ExpressionId, usize> =
            needed.iter().enumerate().map(|(i, &id)| (id, i + 1)).collect();
        let at = |id: ExpressionId| position.get(&id).copied().unwrap_or(0);
        let operation = |id: &ExpressionId| self.values[*id].as_ref().map(|op| renumber(op, at));
        Some(Expression::new(needed.iter().filter_map(operation).collect()))
    }
}

fn operands(operation: &Elementary) -> Vec<usize> {
    match operation {
        Elementary::Affine { operand, .. }
        | Elementary::Power { operand, .. }
        | Elementary::Apply { operand, .. } => vec![*operand],
        Elementary::Sum(a, b) | Elementary::Product(a, b) | Elementary::Quotient(a, b) => {
            vec![*a, *b]
        }
    }
}

/// An operation on operands of other numbers.
pub(super) fn renumber(operation: &Elementary, at: impl Fn(usize) -> usize) -> Elementary {
    let mut operation = operation.clone();
    match &mut operation {
        Elementary::Affine { operand, .. }
        | Elementary::Power { operand, .. }
        | Elementary::Apply { operand, .. } => *operand = at(*operand),
        Elementary::Sum(a, b) | Elementary::Product(a, b) | Elementary::Quotient(a, b) => {
            (*a, *b) = (at(*a), at(*b));
        }
    }
    operation
}

/// Entry by entry, where one entry stands for all channels.
fn zip(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let entry = |v: &[f64], i: usize| if v.len() == 1 { v[0] } else { v[i] };
    (0..a.len().max(b.len())).map(|i| f(entry(a, i), entry(b, i))).collect()
}

/// One entry where all are equal.
fn compact(mut values: Vec<f64>) -> Vec<f64> {
    if values.iter().all(|v| v.to_bits() == values[0].to_bits()) {
        values.truncate(1);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Shape;
    use ir::graph::Graph;

    fn base(values: &mut Values) -> ExpressionId {
        values.base(Graph::new("x", Shape::new([1])).input())
    }

    #[test]
    fn sums_of_a_value_with_itself_stay_one_operation() {
        let mut values = Values::default();
        let mut total = base(&mut values);
        for _ in 0..40 {
            total = values.sum(total, total);
        }
        let expression = values.as_expression(total, 1).unwrap();
        assert_eq!(expression.at(0, 3.0), 3.0 * 2f64.powi(40));
    }

    #[test]
    fn repeated_products_take_an_operation_each() {
        let mut values = Values::default();
        let mut x = base(&mut values);
        for _ in 0..2000 {
            x = values.product(x, x);
        }
        assert_eq!(values.as_expression(x, 2000).unwrap().operations.len(), 2000);
        assert!(values.as_expression(x, 1999).is_none());
    }

    #[test]
    fn an_expression_computes_what_its_parts_do() {
        let mut values = Values::default();
        let x = base(&mut values);
        let scaled = values.affine(x, &[2.0, 3.0], &[1.0]);
        let shifted = values.affine(scaled, &[0.5], &[-1.0, 1.0]);
        let bent = values.expression(
            shifted,
            &Expression::new(vec![Elementary::Apply { function: Function::Relu, operand: 0 }]),
        );
        let again = values.quotient(bent, scaled);
        let sum = values.sum(again, shifted);
        let expression = values.as_expression(sum, 10).unwrap();
        for (channel, x) in [(0, 2.0f64), (1, 0.5)] {
            let scaled = [2.0, 3.0][channel] * x + 1.0;
            let shifted = 0.5 * scaled + [-1.0, 1.0][channel];
            let want = shifted.max(0.0) / scaled + shifted;
            assert!((expression.at(channel, x) - want).abs() < 1e-12);
        }
    }
}
