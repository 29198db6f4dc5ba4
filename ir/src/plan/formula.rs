//! What two parties compute in interactive steps, as formulas over any kind of number: the exact evaluator uses them
//! over ring elements, a fit, which knows scales before it knows rings, over reals.

use std::f64::consts::TAU;

/// A number that can be truncated.
pub trait Cut: Copy {
    /// The sum.
    fn plus(self, other: Self) -> Self;
    /// The difference.
    fn minus(self, other: Self) -> Self;
    /// The quotient by `2^bits`, rounded down.
    fn cut(self, bits: u32) -> Self;
    /// The number times `2^bits`.
    fn times(self, bits: u32) -> Self;
}

macro_rules! integers {
    ($($integer:ty)*) => {$(
        impl Cut for $integer {
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn cut(self, bits: u32) -> Self {
                self >> bits
            }
            fn times(self, bits: u32) -> Self {
                self << bits
            }
        }
    )*};
}

macro_rules! reals {
    ($($real:ty)*) => {$(
        impl Cut for $real {
            fn plus(self, other: Self) -> Self {
                self + other
            }
            fn minus(self, other: Self) -> Self {
                self - other
            }
            fn cut(self, bits: u32) -> Self {
                (self / <$real>::from(2.0).powi(bits as i32)).floor()
            }
            fn times(self, bits: u32) -> Self {
                self * <$real>::from(2.0).powi(bits as i32)
            }
        }
    )*};
}

integers!(u64 i64 i128);
reals!(f32 f64);

/// Truncates a masked value by `bits` bits; `low`, the mask's bits below, decides the carry.
pub fn truncated<T: Cut>(value: T, low: T, bits: u32) -> T {
    value.plus(low).cut(bits)
}

/// The number of the phase at which a value is evaluated, before reduction to one turn. The mask's phase has `spare`
/// bits more than an opening, and a step of it is `2^finest` units of the value. `low` are the mask's bits below a step
/// of an opening.
pub fn evaluated_phase<T: Cut>(value: T, low: T, spare: u32, finest: u32) -> T {
    truncated(value, low, finest + spare).times(spare).minus(low.cut(finest))
}

/// The positive part of a value, truncated by `bits` bits. `offset` is where the mask lies in its bucket, which is
/// `2·half` wide and decides the sign of values within half of it; `low` is what the mask has below a unit, which
/// decides the carry.
pub fn rectified<T: Cut + PartialOrd>(value: T, half: T, (offset, low): (T, T), bits: u32) -> T {
    if value.plus(offset) > half { truncated(value, low, bits) } else { value.minus(value) }
}

/// What party 0 adds to its phase so that the error has mean zero, in steps of an opening: half of
/// what the opening leaves out, less half of what party 1's phase does.
pub fn phase_centre(spare: u32) -> f64 {
    0.5 - 0.5 * (-f64::from(spare)).exp2()
}

/// The angle of the phase with this number, of `2^(p + spare)` phases.
pub fn phase_angle(number: u64, p: u32, spare: u32) -> f64 {
    let turn = f64::from(p).exp2();
    TAU * (number as f64 / f64::from(spare).exp2() + phase_centre(spare)) / turn
}

/// What party 0 adds to a value of which it keeps `guard` bits more than party 1 so that its error has mean zero, in
/// units of party 0's: party 1's share is rounded up to multiples of `2^guard`, party 0's down to units, together
/// half the difference too much.
pub fn value_centre(guard: u32) -> f64 {
    0.5 - 0.5 * f64::from(guard).exp2()
}

/// `c0 + Σ a_n cos nθ + b_n sin nθ`
pub fn trigonometric(constant: f64, harmonics: &[[f64; 2]], theta: f64) -> f64 {
    let terms = harmonics.iter().enumerate().map(|(n, [a, b])| {
        let (sin, cos) = (theta * (n + 1) as f64).sin_cos();
        a * cos + b * sin
    });
    constant + terms.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over whole numbers, reals and integers of every width do the same.
    #[test]
    fn formulas_are_the_same_over_every_kind_of_number() {
        for (spare, finest) in [(0, 0), (0, 3), (2, 0), (2, 1), (3, 2)] {
            for value in 0..200u64 {
                for low in 0..1u64 << (finest + spare) {
                    let number = evaluated_phase(value, low, spare, finest) as i64;
                    assert_eq!(evaluated_phase(value as i64, low as i64, spare, finest), number);
                    let real = evaluated_phase(value as f32, low as f32, spare, finest);
                    assert_eq!(real, number as f32);
                    // In units of a step of the mask's phase, as a fit has them.
                    let unit = f64::from(finest).exp2();
                    let (value, low) = (value as f64 / unit, low as f64 / unit);
                    assert_eq!(evaluated_phase(value, low, spare, 0), number as f64);
                }
            }
        }
        for value in -50..50i64 {
            let real = truncated(value as f64, 3.0, 2);
            assert_eq!(truncated(value, 3, 2) as f64, real);
        }
    }

    /// The phase that is evaluated is the value's, but for an error of mean zero.
    #[test]
    fn phases_are_right_on_average() {
        for spare in 0..4 {
            let finest = 2;
            let lows = 1u64 << (spare + finest);
            let units = f64::from(spare + finest).exp2();
            let error = |value: u64, low: u64| {
                let number = evaluated_phase(value, low, spare, finest) as i64 as f64;
                let steps = number / f64::from(spare).exp2() + phase_centre(spare);
                steps - value as f64 / units
            };
            let all = (0..lows).flat_map(|value| (0..lows).map(move |low| (value, low)));
            let sum: f64 = all.map(|(value, low)| error(value, low)).sum();
            let mean = sum / (lows * lows) as f64;
            // Low bits are whole units, so the mean is off by at most one of them.
            assert!(mean.abs() <= 1.0 / units, "{mean} with {spare} bits");
        }
    }
}
