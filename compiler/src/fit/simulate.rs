//! What two parties compute for an activation, in real numbers: values fall on phases or steps of a
//! truncation with a carry that is as good as random, and results are rounded to units. The formulas are those of
//! the exact evaluator ([`ir::plan::formula`]).
//!
//! The student sees these values, so that operators behind an activation are re-solved for the noise
//! that a run has. The carries are drawn from a fixed sequence: a simulation, nothing secret.

use super::Values;
use crate::scales::Line;
use ir::Tensor;
use ir::op::{Activation, Polynomial, Trigonometric};
use ir::plan::formula::{
    evaluated_phase, phase_angle, rectified, trigonometric, truncated, value_centre,
};
use ir::plan::{Select, Table};
use ir::ring::to_signed;
use rayon::prelude::*;
use std::sync::Arc;

/// A trigonometric polynomial of values whose phase is opened with `phase_bits` bits under a mask whose phase is
/// `spare` bits finer.
pub(super) fn phases(
    fit: &Trigonometric,
    (phase_bits, spare): (u32, u32),
    values: &[Tensor<f32>],
) -> Values {
    let (steps, finer) = (1usize << (phase_bits + spare), (1u32 << spare) as f32);
    let channels = values.first().map_or(1, |t| t.shape.channels());
    let rows = fit.harmonics.len().max(fit.period.len()).max(fit.constant.len());
    let tables: Vec<(f32, Vec<f32>)> = (0..rows.min(channels))
        .map(|channel| {
            let (constant, harmonics) = (fit.constant_of(channel), fit.harmonics_of(channel));
            let value = |number: usize| {
                let theta = phase_angle(number as u64, phase_bits, spare);
                trigonometric(constant, harmonics, theta) as f32
            };
            let per_unit = steps as f64 / fit.period_of(channel);
            (per_unit as f32, (0..steps).map(value).collect())
        })
        .collect();
    let table = |channel: usize| if tables.len() == 1 { &tables[0] } else { &tables[channel] };
    each(values, |channel, x, carry| {
        let (per_unit, table) = table(channel);
        // The carry is what the mask has below the opening's bits.
        let number = evaluated_phase(x * per_unit, carry * finer, spare, 0);
        table[number as i64 as usize & (steps - 1)]
    })
}

/// A polynomial of values that are truncated to the units of `line`.
pub(super) fn polynomial(fit: &Polynomial, line: Line, values: &[Tensor<f32>]) -> Values {
    let scale = line.scale;
    each(values, |channel, x, carry| {
        let units = truncated(f64::from(x) * scale, f64::from(carry), 0);
        fit.at(channel, units / scale) as f32
    })
}

/// Exact rectifiers whose values have units of `1/scale`. One number of the mask decides the sign of operands within
/// half a bucket of zero, by its highest bits, and the carry, by its lowest ones.
pub(super) fn select(select: &Select, scale: f64, values: &[Tensor<f32>]) -> Values {
    let Select { k, p, t } = *select;
    let (bucket, per_unit) = (f64::from(k - p).exp2(), f64::from(t).exp2());
    let (operand_scale, unit) = (scale * per_unit, (1.0 / scale) as f32);
    each(values, |_, x, carry| {
        let mask = (f64::from(carry) * bucket.max(per_unit)).floor();
        let low = (mask.rem_euclid(bucket), mask.rem_euclid(per_unit));
        rectified(f64::from(x) * operand_scale, bucket / 2.0, low, t) as f32 * unit
    })
}

/// A table that is looked up by operands of scale `scale`, and whose values have units of `unit`.
pub(super) fn table(table: &Table, (scale, unit): (f64, f64), values: &[Tensor<f32>]) -> Values {
    let (spare, finer) = (table.spare_bits(), f64::from(table.spare_bits()).exp2());
    let per_unit = scale * (f64::from(table.mask_bits) - f64::from(table.k)).exp2();
    let value = |&entry: &u64| (to_signed(entry, table.q) as f64 * unit) as f32;
    let entries: Vec<f32> = table.entries().iter().map(value).collect();
    each(values, |_, x, carry| {
        let number = evaluated_phase(f64::from(x) * per_unit, f64::from(carry) * finer, spare, 0);
        entries[number as i64 as usize & (entries.len() - 1)]
    })
}

/// The function itself, in real numbers.
pub(super) fn exact(activation: &Activation, values: &[Tensor<f32>]) -> Values {
    each(values, |channel, x, _| activation.at(channel, f64::from(x)) as f32)
}

/// Values in units of `1/scale`, of which party 0 keeps `guard` bits more.
pub(super) fn units(scale: f64, guard: u32, values: &[Tensor<f32>]) -> Values {
    let kept = f64::from(guard).exp2();
    let (scale, unit) = ((scale * kept) as f32, (1.0 / (scale * kept)) as f32);
    let (kept, centre) = (kept as f32, value_centre(guard) as f32);
    each(values, |_, x, carry| truncated(x * scale + centre, carry * kept, 0) * unit)
}

/// Applies a function of channel, value and carry to every element.
fn each(values: &[Tensor<f32>], f: impl Fn(usize, f32, f32) -> f32 + Sync) -> Values {
    let apply = |(image, x): (usize, &Tensor<f32>)| {
        let (stride, channels) = (x.shape.channel_stride(), x.shape.channels());
        let mut carries = Carries(0x9e37_79b9 ^ image as u32);
        let mut data = Vec::with_capacity(x.data.len());
        for (block, run) in x.data.chunks_exact(stride).enumerate() {
            data.extend(run.iter().map(|&v| f(block % channels, v, carries.next())));
        }
        Tensor::new(x.shape.clone(), data)
    };
    Arc::new(values.par_iter().enumerate().map(apply).collect())
}

/// Uniform numbers in [0, 1): a linear congruential generator (Numerical Recipes) read from its high
/// bits.
pub(crate) struct Carries(pub u32);

impl Carries {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 24) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ir::Shape;

    fn line() -> Vec<Tensor<f32>> {
        let data = (0..4000).map(|i| i as f32 / 500.0 - 4.0).collect();
        vec![Tensor::new(Shape::new([1, 1, 40, 100]), data)]
    }

    #[test]
    fn phases_are_right_on_average_and_wrap() {
        let fit = Trigonometric {
            period: vec![5.0],
            constant: vec![0.25],
            harmonics: vec![vec![[1.0, -0.5]]],
        };
        let values = line();
        let errors = |spare: u32| {
            let got = phases(&fit, (6, spare), &values);
            let differences = got[0].data.iter().zip(&values[0].data);
            let (mut sum, mut squares, mut worst) = (0.0, 0.0, 0.0f64);
            for (g, x) in differences {
                let d = f64::from(*g) - fit.at(0, f64::from(*x));
                sum += d;
                squares += d * d;
                worst = worst.max(d.abs());
            }
            // One step of 2π/64 times a slope of at most 1.12.
            assert!(worst < 0.12 && worst > 0.05, "{worst}");
            assert!((sum / 4000.0).abs() < 0.005, "{sum}");
            squares
        };
        let ratio = errors(2) / errors(0);
        assert!((0.48..0.58).contains(&ratio), "{ratio}, expected 17/32");
    }

    /// The real values of operands give what the exact evaluator gives of their integers, but for the carries.
    #[test]
    fn tables_are_right_on_average_and_wrap() {
        let values = line();
        let (scale, unit) = (512.0, 1.0 / 256.0);
        // A window of four: the operands' other half comes from its other end.
        let of = |mask_bits: u32| {
            let of = (11, 6, mask_bits, 64);
            Table::of(of, |y| ((y / scale * std::f64::consts::FRAC_PI_2).sin() / unit).round())
                .unwrap()
        };
        let errors = |mask_bits: u32| {
            let got = table(&of(mask_bits), (scale, unit), &values);
            let errors =
                got[0].data.iter().zip(&values[0].data).map(|(&g, &x)| {
                    f64::from(g) - (f64::from(x) * std::f64::consts::FRAC_PI_2).sin()
                });
            let errors: Vec<f64> = errors.collect();
            let worst = errors.iter().fold(0.0, |a: f64, e| a.max(e.abs()));
            // One step of 4/64 times the slope, and half a unit.
            assert!(worst < 0.102 && worst > 0.04, "{worst}");
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            assert!(mean.abs() < 0.005, "{mean}");
            errors.iter().map(|e| e * e).sum::<f64>()
        };
        let ratio = errors(8) / errors(6);
        assert!((0.48..0.58).contains(&ratio), "{ratio}, expected 17/32");
    }

    #[test]
    fn units_are_unbiased() {
        let values = line();
        let errors = |guard: u32| {
            let got = units(2.0, guard, &values);
            let finest = f64::from(guard + 1).exp2() as f32;
            assert!(got[0].data.iter().all(|v| (v * finest).fract() == 0.0));
            let pairs = got[0].data.iter().zip(&values[0].data);
            let differences: Vec<f32> = pairs.map(|(a, b)| a - b).collect();
            let sum: f32 = differences.iter().sum();
            assert!((sum / 4000.0).abs() < 0.02, "{sum}");
            differences.iter().map(|d| d * d).sum::<f32>()
        };
        let ratio = errors(2) / errors(0);
        assert!((0.48..0.58).contains(&ratio), "{ratio}, expected 17/32");
    }
}
