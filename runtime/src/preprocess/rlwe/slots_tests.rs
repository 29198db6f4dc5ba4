use super::super::tests::insecure_keys_for_tests;
use super::*;
use ir::plan::Phase;

fn phase(amplitude: u32) -> Phase {
    Phase { p: 8, mask_bits: 8, q: 32, shift: 16, g2: 7, h: 8, guard: 0, harmonics: 1, amplitude }
}

/// Packings of every degree and number of primes for `count` elements.
fn packings(phase: &Phase, count: usize) -> Vec<SlotPacking> {
    let candidates = SlotPacking::candidates(phase);
    candidates.iter().map(|&lwe| SlotPacking::new(phase, count, &[lwe]).unwrap()).collect()
}

/// The largest factors that the bound of a packing allows, with random signs.
fn extremes(packing: &SlotPacking, amplitude: f64) -> (Vec<[i32; 2]>, Vec<[i64; 2]>) {
    let mut random = crate::testing::Random::new(5);
    let mut angle = || random.unit() * std::f64::consts::TAU;
    let pairs = (0..packing.pairs).map(|_| {
        let (sin, cos) = angle().sin_cos();
        let (s, c) = angle().sin_cos();
        let (party1, party0) = ([cos, sin], [c, s]);
        (party1.map(|v| (v * 128.0).round() as i32), party0.map(|v| (v * amplitude).round() as i64))
    });
    pairs.unzip()
}

#[test]
fn slots_and_shares_sum_to_the_products() {
    for (amplitude, count) in [(0, 1), (8, 5000), (8, 40_000), (18, 9000)] {
        for packing in packings(&phase(amplitude), count) {
            let (secret, public) = insecure_keys_for_tests(&[packing.lwe]);
            let (party1, party0) = extremes(&packing, f64::from(amplitude + 1).exp2());
            let up = secret.encrypt_slots(&packing, 3, &party1);
            assert_eq!(up.len(), packing.ciphertext_bytes());
            let (down, shares) = public.answer_slots(&packing, 3, &party0, &up).unwrap();
            assert_eq!(down.len(), packing.answer_bytes());
            let values = secret.decrypt_slots(&packing, &down).unwrap();
            assert_eq!(values.len(), 2 * count);
            for (i, ([cos, sin], [alpha, beta])) in party1.iter().zip(&party0).enumerate() {
                let (cos, sin) = (i64::from(*cos), i64::from(*sin));
                let t = packing.modulus(i) as i64;
                for (j, want) in
                    [alpha * cos + beta * sin, alpha * sin - beta * cos].iter().enumerate()
                {
                    assert!(want.unsigned_abs() <= packing.bound);
                    let (a, d) = (shares[2 * i + j] as i64, values[2 * i + j] as i64);
                    assert!((0..t).contains(&a) && (0..t).contains(&d));
                    assert_eq!((a + d - packing.bound as i64 - want) % t, 0, "{packing:?} {i} {j}");
                }
            }
        }
    }
}

#[test]
fn malformed_slots_are_refused() {
    for packing in packings(&phase(8), 100) {
        let (secret, public) = insecure_keys_for_tests(&[packing.lwe]);
        let ones = vec![0xff; packing.ciphertext_bytes()];
        for message in [&ones[..], &ones[1..], &[]] {
            assert!(public.answer_slots(&packing, 0, &[[1, 1]; 100], message).is_err());
        }
        let answer = vec![0xff; packing.answer_bytes() - 1];
        assert!(secret.decrypt_slots(&packing, &answer).is_err());
    }
}

/// The noise of real runs, before flooding, against the bound.
#[test]
fn noise_of_slots_stays_below_its_bound() {
    for packing in packings(&phase(8), 40_000) {
        let (secret, public) = insecure_keys_for_tests(&[packing.lwe]);
        let ring = &secret.keys[0].ring;
        let (party1, party0) = extremes(&packing, 512.0);
        let up = secret.encrypt_slots(&packing, 1, &party1);
        let slots = Slots::new(ring, &packing);
        let bytes = packing.lwe.ciphertext_bytes();
        let mut sums = vec![vec![0; ring.words()]; 2];
        for side in 0..2 {
            let factor = slots.factor(ring, 0, |pair| party0[pair][side]);
            let first = &up[side * bytes..(side + 1) * bytes];
            let first = unpack_residues(first, ring, &packing.lwe).unwrap();
            ring.multiply_add(&mut sums[0], &factor, &first);
            ring.multiply_add(&mut sums[1], &factor, &uniform(ring, &public.public, 1, side));
        }
        public.refresh(0, 1, 0, &mut sums);
        sums.iter_mut().for_each(|sum| ring.forward(sum));
        let (first, second) = sums.split_at_mut(1);
        ring.multiply_add(&mut first[0], &second[0], &secret.keys[0].secret);
        // The plaintext is taken off, N times as the two inverse transforms leave it.
        let products = slots.coefficients(0, |pair, t| {
            let ([cos, sin], [alpha, beta]) = (party1[pair], party0[pair]);
            residue(alpha * i64::from(cos) + beta * i64::from(sin), t)
        });
        ring.inverse(&mut first[0]);
        let degree = ring.degree() as u128;
        let scale = (f64::from(packing.lwe.modulus_bits()) - 128.0).exp2() / degree as f64;
        let (bound, mut squares) = (packing.noise_bound(), 0.0);
        for at in 0..ring.degree() {
            let parts = slots.primes.iter().zip(&products).map(|(p, m)| (m[at], p.reciprocal));
            let plain = sum_of_fractions(parts).wrapping_mul(degree);
            let noise = ring.fraction(&first[0], at).wrapping_sub(plain) as i128 as f64 * scale;
            assert!(noise.abs() < bound, "{packing:?}: {noise} {bound}");
            squares += noise * noise;
        }
        let deviation = (squares / degree as f64).sqrt();
        // The bound has nine deviations, and factors of the largest magnitude instead of random ones.
        let (least, most) = (bound / 60.0, bound / 9.0);
        println!("bound 2^{:.1}, deviation 2^{:.1}", bound.log2(), deviation.log2());
        assert!((least..most).contains(&deviation), "{packing:?}: {deviation} {bound}");
    }
}
