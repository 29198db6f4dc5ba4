//! Functions that are looked up in public tables: which may be, and what of the operand counts.

use super::{Scales, Spreads};
use crate::error::CompileError;
use ir::graph::{Graph, NodeId};
use ir::op::{Elementary, Expression, Function};
use ir::plan::Table;

/// Bits of ring elements before rings are planned.
const WIDEST: u32 = 64;

/// What of an operand a table is looked up by, and the scale of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lookup {
    /// Bits of the operand that count.
    pub k: u32,
    /// Bits of the opening.
    pub p: u32,
    /// Bits of the mask that count.
    pub mask_bits: u32,
    /// Scale of the operand.
    pub scale: f64,
}

impl Lookup {
    /// The table of a function whose values have units of `1/scale`, in the widest ring: both parties may know it, since it
    /// holds nothing but the [public](is_public) function and the two scales.
    ///
    /// # Errors
    /// If the function is not public, or is larger than a ring element somewhere in the window.
    pub fn table(
        &self,
        name: &str,
        expression: &Expression,
        scale: f64,
    ) -> Result<Table, CompileError> {
        if !is_public(expression) {
            let reason = format!("node {name}: its function is not public");
            return Err(CompileError::Internal { stage: "tables", reason });
        }
        let Self { k, p, mask_bits, .. } = *self;
        // Zero is looked up within half a step of an opening: there a function that jumps at it has its value at it.
        let half_step = (f64::from(k - p) - 1.0).exp2();
        let jumps = jumps_at_zero(expression);
        let value = |y: f64| {
            let y = if jumps && y.abs() < half_step { 0.0 } else { y };
            expression.at(0, y / self.scale) * scale
        };
        Table::of((k, p, mask_bits, WIDEST), value).map_err(|reason| {
            let width = (f64::from(k) - 1.0).exp2() / self.scale;
            CompileError::Range(format!(
                "node {name}: no table of values from {:.3e} to {width:.3e}: {reason}; fit it instead (--fit {name})",
                -width
            ))
        })
    }
}

impl Scales {
    /// Settles the operand of a function that is looked up, at one scale for all channels. Operands are at most `bound`;
    /// beyond it they come back at the other end.
    ///
    /// # Errors
    /// If no ring holds the operand.
    pub fn lookup(
        &mut self,
        graph: &Graph,
        id: NodeId,
        bound: f64,
        spreads: &Spreads,
    ) -> Result<(), CompileError> {
        let operand = graph.operands(id)[0];
        let p = self.bits(id).table;
        let mask_bits = p + 1;
        let units = self.open_rounding_units(graph, operand, spreads).max(1.0);
        let k = self.turn_bits(id, p, units).max(mask_bits);
        let (k, scale) = self.meet(graph, id, (2.0 * bound.max(1e-9), None), k)?;
        self.lookup.insert(id, Lookup { k, p, mask_bits, scale });
        Ok(())
    }
}

/// Whether a function may stand in a plan: it has a value everywhere, and no number that may be a constant of the
/// file. Attributes of operators are part of the network's architecture, which is public.
pub fn is_public(expression: &Expression) -> bool {
    expression.operations.iter().all(|operation| match operation {
        Elementary::Sum(..) | Elementary::Product(..) => true,
        Elementary::Apply { function, .. } => has_only_attributes(*function),
        // Factors, summands and exponents are the file's; a quotient has poles.
        Elementary::Affine { .. } | Elementary::Power { .. } | Elementary::Quotient(..) => false,
    })
}

fn jumps_at_zero(expression: &Expression) -> bool {
    let sign = |operation: &Elementary| {
        matches!(operation, Elementary::Apply { function: Function::Sign, .. })
    };
    expression.operations.iter().any(sign)
}

fn has_only_attributes(function: Function) -> bool {
    match function {
        Function::Relu
        | Function::Sigmoid
        | Function::Tanh
        | Function::Gelu
        | Function::GeluTanh
        | Function::Silu
        | Function::HardSigmoid { .. }
        | Function::HardSwish
        | Function::Elu { .. }
        | Function::Selu { .. }
        | Function::Softplus
        | Function::Softsign
        | Function::Mish
        | Function::Erf
        | Function::Exp
        | Function::Abs
        | Function::Sin
        | Function::Cos
        | Function::Sign
        | Function::Asinh
        | Function::Atan
        | Function::Cosh
        | Function::Sinh => true,
        // Slopes of PRelu and bounds of Clip may be constants.
        Function::LeakyRelu { .. } | Function::Clip { .. } => false,
        // Not defined everywhere, or with poles.
        Function::Log
        | Function::Sqrt
        | Function::Acos
        | Function::Acosh
        | Function::Asin
        | Function::Atanh
        | Function::Tan => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::plan::formula::evaluated_phase;

    fn apply(function: Function) -> Elementary {
        Elementary::Apply { function, operand: 0 }
    }

    fn affine() -> Elementary {
        Elementary::Affine { operand: 0, scale: vec![2.0], shift: vec![0.0] }
    }

    #[test]
    fn functions_with_constants_of_the_file_are_not_public() {
        let public = |operations| is_public(&Expression::new(operations));
        assert!(public(vec![apply(Function::Tanh)]));
        assert!(public(vec![apply(Function::Elu { alpha: 0.7 })]));
        assert!(public(vec![apply(Function::Sigmoid), Elementary::Product(0, 1)]));
        assert!(!public(vec![
            affine(),
            Elementary::Apply { function: Function::Tanh, operand: 1 }
        ]));
        assert!(!public(vec![
            apply(Function::Tanh),
            Elementary::Power { operand: 1, exponent: 3.0 }
        ]));
        assert!(!public(vec![
            apply(Function::Clip { low: -0.3, high: 0.3 }),
            Elementary::Product(0, 1)
        ]));
        assert!(!public(vec![apply(Function::LeakyRelu { alpha: 0.2 })]));
        assert!(!public(vec![apply(Function::Log)]));
        assert!(!public(vec![apply(Function::Tanh), Elementary::Quotient(1, 0)]));
    }

    /// Whatever a mask makes of zero, its sign is zero, and that of what is a step away its own.
    #[test]
    fn the_sign_of_zero_is_zero() {
        let lookup = Lookup { k: 14, p: 9, mask_bits: 10, scale: 4.0 };
        let sign = Expression::new(vec![apply(Function::Sign)]);
        let entries = lookup.table("n", &sign, 8.0).unwrap().entries();
        let value = |y: i64, low: i64| {
            let number = evaluated_phase(y, low, 1, 4);
            entries[number as usize & (entries.len() - 1)] as i64
        };
        let step = 1 << 5;
        for low in 0..step {
            assert_eq!(value(0, low), 0);
            assert!((0..=8).contains(&value(step, low)) && (-8..=0).contains(&value(-step, low)));
            assert_eq!((value(2 * step, low), value(-2 * step, low)), (8, -8));
        }
    }

    #[test]
    fn what_has_no_value_or_is_not_public_is_refused() {
        let lookup = Lookup { k: 12, p: 9, mask_bits: 10, scale: 4.0 };
        let table = |operations| lookup.table("n", &Expression::new(operations), 8.0);
        let tanh = table(vec![apply(Function::Tanh)]).unwrap();
        assert_eq!((tanh.k, tanh.p, tanh.mask_bits, tanh.q), (12, 9, 10, 64));
        assert_eq!(tanh.entries()[1 << 8], 8, "tanh at 128 in units of an eighth");
        let refused = table(vec![apply(Function::Exp)]).unwrap_err();
        assert!(
            matches!(&refused, CompileError::Range(why) if why.contains("--fit n")),
            "{refused}"
        );
        let refused = table(vec![affine()]).unwrap_err();
        assert!(matches!(refused, CompileError::Internal { .. }), "{refused}");
    }
}
