//! Scales that are multiples of one another.

/// A period may be this much longer than the least one, so that it is a whole number of units.
const MAX_WASTE: f64 = 1.25;
/// How far a sum's operand may be from its exact scale.
const TOLERANCE: f64 = 1.0 / 128.0;

/// Whether `units` of a settled value per turn, rounded down to a whole number, waste too much of it.
pub(super) fn is_too_coarse(units: f64) -> bool {
    units < 1.0 || units / units.floor() > MAX_WASTE
}

/// The power of two that gives `width` at least `bits` bits.
pub(super) fn power_of_two(bits: f64, width: f64) -> f64 {
    (bits - width.log2()).round().exp2()
}

/// The smallest scale that all of `scales` reach by integer factors up to 256, within the tolerance;
/// the largest one where there is none.
pub(super) fn common_scale(scales: &[f64]) -> f64 {
    let largest = scales.iter().copied().fold(0.0, f64::max);
    let misfit = |scale: f64| {
        let off = |s: &f64| ((scale / s).round().max(1.0) * s / scale - 1.0).abs();
        scales.iter().map(off).fold(0.0, f64::max)
    };
    let candidates = (1..=64).map(|n| largest * f64::from(n));
    candidates
        .clone()
        .find(|&s| misfit(s) < 1e-9)
        .or_else(|| candidates.clone().find(|&s| misfit(s) < TOLERANCE))
        .unwrap_or(largest)
}

/// The largest scale of which all of `scales` are integer multiples up to 64 of the smallest's, within the
/// tolerance; the smallest one where there is none.
pub(super) fn common_part(scales: &[f64]) -> f64 {
    let smallest = scales.iter().copied().fold(f64::INFINITY, f64::min);
    let misfit = |part: f64| {
        let off = |s: &f64| ((s / part).round() * part / s - 1.0).abs();
        scales.iter().map(off).fold(0.0, f64::max)
    };
    let candidates = (1..=64).map(|n| smallest / f64::from(n));
    candidates
        .clone()
        .find(|&s| misfit(s) < 1e-9)
        .or_else(|| candidates.clone().find(|&s| misfit(s) < TOLERANCE))
        .unwrap_or(smallest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_scales_are_integer_multiples() {
        assert_eq!(common_scale(&[64.0, 16.0]), 64.0);
        assert_eq!(common_scale(&[64.0, 48.0]), 192.0);
        assert_eq!(common_scale(&[100.0]), 100.0);
    }

    #[test]
    fn common_parts_divide_every_scale() {
        assert_eq!(common_part(&[64.0, 16.0]), 16.0);
        assert_eq!(common_part(&[64.0, 48.0]), 16.0);
        assert_eq!(common_part(&[100.0]), 100.0);
    }

    #[test]
    fn turns_of_whole_units_waste_little() {
        for fine in [1.0, 1.25, 2.4, 3.7, 4.99, 100.5] {
            assert!(!is_too_coarse(fine), "{fine}");
        }
        for coarse in [0.3, 0.99, 1.3, 1.99, 2.6] {
            assert!(is_too_coarse(coarse), "{coarse}");
        }
    }
}
