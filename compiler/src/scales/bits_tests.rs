use super::*;

/// `⌊x + c⌋` about `x` for every fraction and carry of so many steps.
fn measured(steps: u32) -> f64 {
    let part = |i: u32| (f64::from(i) + 0.5) / f64::from(steps);
    let square = |x: f64, c: f64| ((x + c).floor() - x).powi(2);
    let all = (0..steps).flat_map(|i| (0..steps).map(move |j| square(part(i), part(j))));
    all.sum::<f64>() / f64::from(steps).powi(2)
}

#[test]
fn a_carry_has_the_variance_of_a_truncation() {
    assert!((CARRY - measured(400)).abs() < 1e-3, "{}", measured(400));
    assert_eq!(carry(0), CARRY);
}

/// One party's half of the error goes away, a fourth of what is left of it per bit.
#[test]
fn finer_masks_take_off_half_of_a_carry_at_most() {
    for spare in 1..20 {
        assert!(carry(spare) < carry(spare - 1));
        assert!(carry(spare) > CARRY / 2.0);
    }
    let left = |spare: u32| carry(spare) - CARRY / 2.0;
    assert!((left(3) / left(2) - 0.25).abs() < 1e-12);
    // Two bits take off fifteen sixteenths of it.
    assert!((left(SPARE_BITS) / left(0) - 1.0 / 16.0).abs() < 1e-12);
}

#[test]
fn a_turn_is_known_as_well_as_its_phase_and_its_weights() {
    let of = |p: u32, k: u32, units: f64| turn_error((p, 0), k, units);
    // A bit of the phase is worth a fourth, of exact weights; a bit of the ring, of exact phases.
    assert!((of(9, 20, 0.0) / of(8, 20, 0.0) - 0.25).abs() < 1e-12);
    let of_weights = |k: u32| of(8, k, 4.0) - of(8, k, 0.0);
    assert!((of_weights(21) / of_weights(20) - 0.25).abs() < 1e-6);
    // Steps of `2^(k−p)` units are as large as an error of `e` units where `k = p + log₂ e`: the phase makes
    // twice the noise of the weights.
    let (p, units) = (8, 16.0f64);
    let k = p + units.log2() as u32;
    assert!((of(p, k, 0.0) / (of(p, k, units) - of(p, k, 0.0)) - 2.0).abs() < 1e-9);
    assert!(turn_error((8, 2), 20, 4.0) < of(8, 20, 4.0));
}

#[test]
fn masks_are_finer_where_the_offline_phase_is() {
    let options = RingOptions::default();
    assert_eq!(options.spare_bits(), 0);
    assert_eq!(RingOptions { fine_offline: true, ..options }.spare_bits(), SPARE_BITS);
}
