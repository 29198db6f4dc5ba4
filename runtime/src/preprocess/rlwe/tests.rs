use super::*;
use ir::plan::{Linear, Plan, Planes, StepOp};
use ir::ring::to_signed;

/// Keys from seeds that everybody knows.
pub fn insecure_keys_for_tests(sets: &[RingLwe]) -> (SecretKeys, PublicKeys) {
    let seed = |byte| Seed::from_item(&[byte; 32]).unwrap();
    let (secret, message) = SecretKeys::from_seeds(sets, seed(1), seed(2));
    assert_eq!(message.len(), key_bytes(sets));
    (secret, PublicKeys::read(sets, &message, seed(3)).unwrap())
}

#[test]
fn fractions_are_what_was_encoded() {
    for lwe in [
        RingLwe { log_degree: 12, prime_bits: 37, primes: 2 },
        RingLwe { log_degree: 13, prime_bits: 50, primes: 4 },
    ] {
        let ring = Ring::new(&lwe);
        for k in [1, 16, 33, 64] {
            let encoder = ring.encoder(k);
            let mut polynomial = vec![0; ring.words()];
            let plain = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) & low_mask(k);
            (0..ring.degree()).for_each(|at| encoder.add(&mut polynomial, at, plain(at)));
            ring.forward(&mut polynomial);
            ring.inverse(&mut polynomial);
            for at in 0..ring.degree() {
                let found = ring.fraction(&polynomial, at);
                let error = found.wrapping_sub(u128::from(plain(at)) << (128 - k)) as i128;
                // Half a unit of 1/q, and one of the fraction per prime and for its carry.
                let primes = f64::from(lwe.primes) + 1.0;
                let bound = (128.1 - f64::from(lwe.modulus_bits()) - 1.0).exp2() + primes;
                assert!((error as f64).abs() <= bound, "{lwe:?} k {k}: {error}");
            }
        }
    }
}

/// Shares, how many of them are a unit off, and how many were expected.
#[derive(Default)]
struct Tally {
    shares: f64,
    off: f64,
    /// The sum of the errors.
    sum: f64,
    expected: f64,
}

/// Runs one exchange of a step of a plan; no share is further off than a unit.
fn exchange(tally: &mut Tally, plan: &Plan, step: usize, items: usize, extreme: bool) {
    let planes = Planes::of(plan, step).unwrap();
    let sets = vec![planes.cheapest().unwrap()];
    let packing = Packing::new(planes, items, &sets).unwrap();
    let (secret, public) = insecure_keys_for_tests(&sets);
    let (ring, seed) = (packing.ring(), Seed::from_item(&[9; 32]).unwrap());
    let shape = &plan.step(plan.steps[step].operands[0]).shape;
    let draw = |item: usize, what, count| seed.elements(item, what, count, ring);
    use crate::preprocess::expand::Domain;
    let masks: Vec<Elements> =
        (0..items).map(|i| draw(i, Domain::Mask, shape.elements())).collect();
    let shares: Vec<Elements> =
        (0..items).map(|i| draw(i, Domain::Field, planes.result_elements())).collect();
    let (bits, count) = match &plan.steps[step].op {
        StepOp::Linear(Linear::Convolution { geometry, weight_bits }) => {
            (*weight_bits, plan.steps[step].shape.0[1] * geometry.fan_in(shape))
        }
        StepOp::Linear(Linear::MatrixProduct { weight_bits }) => {
            (*weight_bits, shape.0.last().unwrap() * plan.steps[step].shape.0.last().unwrap())
        }
        _ => panic!("no linear step"),
    };
    let most = (1i64 << (bits - 1)) - 1;
    let weights: Vec<i32> = seed
        .elements(99, Domain::Opening, count, 64)
        .iter()
        .map(|&v| {
            if extreme {
                (most * (1 - 2 * (v as i64 & 1))) as i32
            } else {
                (v as i64 % most) as i32
            }
        })
        .collect();
    let slices: Vec<&[u64]> = masks.iter().map(|m| m.as_slice()).collect();
    let up = secret.encrypt(&packing, 7, &slices);
    let down = public.answer(&packing, 7, &weights, &up, &shares).unwrap();
    assert_eq!((up.len(), down.len()), packing.bytes());
    let rate = packing.lwe.off_by_one(ring);
    let got = secret.decrypt(&packing, &down).unwrap();
    let linear = ir::plan::StepWeights::Linear { weights, bias: vec![] };
    for ((got, mask), share) in got.iter().zip(&masks).zip(&shares) {
        let operand = ir::Tensor::new(shape.clone(), mask.to_vec());
        let product = plan.steps[step].apply(&linear, &[&operand]);
        for ((got, share), want) in got.iter().zip(share.iter()).zip(&product.data) {
            let error =
                to_signed(got.wrapping_add(*share).wrapping_sub(*want) & low_mask(ring), ring);
            // In a ring of a bit, one is minus one.
            assert!(error.abs() <= 1, "{error} units");
            tally.shares += 1.0;
            tally.off += error.abs() as f64;
            tally.sum += error as f64;
            tally.expected += rate;
        }
    }
}

/// Exactly, but for two roundings in place of one: as often as predicted.
#[test]
fn shares_sum_to_the_product_or_to_a_unit_beside_it() {
    let mut tally = Tally::default();
    for (ring, bits, extreme) in
        [(16, 8, false), (16, 8, true), (20, 16, true), (33, 8, true), (64, 32, true)]
    {
        let plan = crate::testing::plans::linear(ring, bits);
        for step in 1..plan.steps.len() {
            for items in [1, 3] {
                exchange(&mut tally, &plan, step, items, extreme);
            }
        }
    }
    let Tally { shares, off, sum, expected } = tally;
    println!("{off} of {shares} shares are a unit off, {expected:.1} expected");
    assert!(expected > 100.0 && (off - expected).abs() < 6.0 * expected.sqrt(), "{off} {expected}");
    assert!(sum.abs() < 6.0 * expected.sqrt(), "up as often as down: {sum} of {off}");
}

#[test]
fn malformed_messages_are_refused() {
    let plan = crate::testing::plans::linear(16, 8);
    let planes = Planes::of(&plan, 1).unwrap();
    let sets = vec![planes.cheapest().unwrap()];
    let packing = Packing::new(planes, 1, &sets).unwrap();
    let (secret, public) = insecure_keys_for_tests(&sets);
    let share = Zeroizing::new(vec![0; planes.result_elements()]);
    let ones = vec![0xff; packing.bytes().0];
    let count = plan.steps[1].shape.0[1] * planes.operand_elements();
    let weights = vec![1; count];
    for message in [&ones[..], &ones[1..], &[]] {
        let shares = std::slice::from_ref(&share);
        assert!(public.answer(&packing, 0, &weights, message, shares).is_err());
    }
    assert!(secret.decrypt(&packing, &[]).is_err());
    assert!(PublicKeys::read(&sets, &ones, Seed::from_item(&[0; 32]).unwrap()).is_err());
}

/// The noise of real runs, before it is rounded away, against the bound and against its predicted deviation.
#[test]
fn noise_stays_below_its_bound() {
    let plan = crate::testing::plans::linear(16, 8);
    for step in 1..plan.steps.len() {
        let planes = Planes::of(&plan, step).unwrap();
        let sets = vec![planes.cheapest().unwrap()];
        let packing = Packing::new(planes, 1, &sets).unwrap();
        let (secret, public) = insecure_keys_for_tests(&sets);
        let (ring, degree) = (&secret.keys[0].ring, sets[0].degree());
        let plain = vec![0; planes.operand_elements()];
        let up = secret.encrypt(&packing, 1, &[&plain]);
        let largest = vec![127; 1 << 16];
        let (_, channels, _) = packing.groups();
        let mut sums = vec![vec![0; ring.words()]; 2];
        for (channel, bytes) in up.chunks_exact(sets[0].ciphertext_bytes()).enumerate() {
            let mut weights = vec![0; ring.words()];
            public.put_weights(&packing, (0, channel % channels), &largest, &mut weights);
            ring.forward(&mut weights);
            let first = unpack_residues(bytes, ring, &sets[0]).unwrap();
            ring.multiply_add(&mut sums[0], &weights, &first);
            let second = uniform(ring, &public.public, 1, channel);
            ring.multiply_add(&mut sums[1], &weights, &second);
            if channel + 1 == channels {
                break;
            }
        }
        public.refresh(0, 1, 0, &mut sums);
        sums.iter_mut().for_each(|sum| ring.forward(sum));
        let (first, second) = sums.split_at_mut(1);
        ring.multiply_add(&mut first[0], &second[0], &secret.keys[0].secret);
        ring.inverse(&mut first[0]);
        // Two inverse transforms, one division: N times the noise.
        let scale = (f64::from(sets[0].modulus_bits()) - 128.0).exp2() / degree as f64;
        let bound = packing.demand().noise_bound(sets[0].log_degree);
        let mut squares = 0.0;
        let mut wanted = 0;
        packing.results((0, 0), |at, _, _| {
            let noise = ring.fraction(&first[0], at) as i128 as f64 * scale;
            assert!(noise.abs() < bound, "step {step}: {noise} {bound}");
            squares += noise * noise;
            wanted += 1;
        });
        let deviation = (squares / f64::from(wanted)).sqrt();
        assert!(deviation > bound / 200.0 && deviation < bound / 7.0, "{deviation} {bound}");
    }
}
