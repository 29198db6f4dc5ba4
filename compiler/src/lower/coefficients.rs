//! Coefficients of activations as the integers and scaled reals of a plan.

use crate::error::CompileError;
use crate::scales::Line;
use ir::op::{Polynomial, Trigonometric};
use ir::plan::{Interactive, Phase, Square, StepOp, StepWeights};

/// The bound of amplitudes that a plan tells, unless one is larger: one deviation of the output has a
/// few bits less, so that it tells nothing in practice.
const AMPLITUDE: u32 = 8;

/// A phase step's parameters (its tables and `Q` are set with the rings) and coefficients in units of
/// its output.
pub(super) fn lower_phase(
    t: &Trigonometric,
    scale: f64,
    (p, spare): (u32, u32),
) -> (Phase, StepWeights) {
    let constant = t.constant.iter().map(|c| c * scale).collect();
    let harmonics: Vec<Vec<[f64; 2]>> = t
        .harmonics
        .iter()
        .map(|row| row.iter().map(|[a, b]| [a * scale, b * scale]).collect())
        .collect();
    let pairs = harmonics.iter().flatten();
    let largest = pairs.map(|[a, b]: &[f64; 2]| a.hypot(*b)).fold(0.0, f64::max);
    let holds = |bits: &u32| f64::from(*bits).exp2() >= largest;
    let amplitude = (AMPLITUDE..).find(holds).unwrap_or(AMPLITUDE);
    let order = t.order() as u32;
    let mask_bits = p + spare;
    let phase =
        Phase { p, mask_bits, q: 0, shift: 0, g2: 0, h: 0, guard: 0, harmonics: order, amplitude };
    let secrets = StepWeights::Phase { constant, harmonics };
    (phase, secrets)
}

/// A square where the polynomial is `x² + c`, otherwise a polynomial with integer coefficients at a
/// scale of `2^t₂` per unit of the output, such that rounding them costs under half a unit.
pub(super) fn lower_polynomial(
    polynomial: &Polynomial,
    line: Line,
    scale: f64,
    name: &str,
) -> Result<(StepOp, StepWeights), CompileError> {
    let degree = polynomial.degree();
    let is_square =
        degree == 2 && polynomial.coefficients.iter().all(|c| c[1] == 0.0 && c[2] == 1.0);
    let square_shift = 2.0 * line.scale.log2() - scale.log2();
    if is_square && square_shift >= 0.0 && square_shift.fract() == 0.0 {
        let square = Square { t: line.t, p: line.p, q: 0, shift: square_shift as u32 };
        let constant = polynomial
            .coefficients
            .iter()
            .map(|c| (c[0] * line.scale * line.scale).round() as i64)
            .collect();
        return Ok((
            StepOp::Interactive(Interactive::Square(square)),
            StepWeights::Square { constant },
        ));
    }
    let largest_bits = line.p - 2;
    let shift = largest_bits * degree as u32 + 2;
    let coefficients: Vec<Vec<i128>> = polynomial
        .coefficients
        .iter()
        .map(|row| {
            row.iter()
                .enumerate()
                .map(|(n, c)| {
                    (c * scale * f64::from(shift).exp2() / line.scale.powi(n as i32)).round()
                        as i128
                })
                .collect()
        })
        .collect();
    if shift > 100 {
        return Err(CompileError::Range(format!(
            "node {name}: a polynomial of degree {degree} of {largest_bits}-bit values needs {shift} bits before truncation, more than 100"
        )));
    }
    let square = Square { t: line.t, p: line.p, q: 0, shift };
    Ok((
        StepOp::Interactive(Interactive::Polynomial(ir::plan::Polynomial {
            square,
            degree: degree as u32,
        })),
        StepWeights::Polynomial { coefficients },
    ))
}

#[cfg(test)]
#[path = "coefficients_tests.rs"]
mod tests;
