//! Both parties in one process over the ideal functionality: what the reference of the protocol checks.

use super::{
    Kept, Opener, Opening, Parts0, Parts1, Prepared, Responder, Responding, Tables, each_kind,
    kept, phase, record0, record1, row, square, truncate,
};
use crate::preprocess::Role;
use crate::preprocess::dealer::deal;
use crate::preprocess::expand::Seed;
use crate::preprocess::item::{Origin, Party0Item, Party1Item, item_bytes};
use crate::testing::Random;
use crate::words::{Words, WordsMut, WordsRef};
use ir::Shape;
use ir::plan::{
    Interactive, Local, Phase, Plan, Polynomial, Select, Square, Step, StepOp, StepWeights,
    ValueId, Weights,
};
use ir::ring::{low_mask, packed_bytes, to_signed};
use ir::word::Word;
use zeroize::Zeroizing;

/// An input and one interactive step of it.
pub(super) struct Case {
    pub(super) plan: Plan,
    weights: Weights,
}

impl Case {
    pub(super) fn new(
        kind: impl Into<Interactive>,
        secrets: StepWeights,
        k: u32,
        ring: u32,
        elements: usize,
    ) -> Self {
        let (shape, op) = (Shape::new([1, 1, elements]), StepOp::Interactive(kind.into()));
        let step = |op: StepOp, operands: Vec<ValueId>, ring| Step {
            name: op.name().into(),
            op,
            operands,
            shape: shape.clone(),
            ring,
            fraction_bits: 0,
        };
        let plan = Plan::of_steps(
            "case",
            vec![step(StepOp::Input, vec![], k), step(op, vec![ValueId(0)], ring)],
            ValueId(1),
            (1.0, 1.0),
            1.0,
        );
        plan.verify().unwrap();
        let (_, digest) = plan.to_bytes();
        Self {
            plan,
            weights: Weights {
                plan: digest,
                salt: [0; 32],
                steps: vec![StepWeights::None, secrets],
            },
        }
    }

    pub(super) fn step(&self) -> &Step {
        &self.plan.steps[1]
    }

    pub(super) fn deal(&self, random: &mut Random) -> (Party0Item<'_>, Party1Item<'_>) {
        let mut seed = || {
            let words: Vec<u8> = (0..4).flat_map(|_| random.next().to_le_bytes()).collect();
            Seed::from_item(&words).unwrap()
        };
        let (item0, item1) = deal(&self.plan, &self.weights, seed(), seed());
        let bytes = |role| item_bytes(&self.plan, role, Origin::Dealer);
        assert_eq!((item0.len(), item1.len()), (bytes(Role::Party0), bytes(Role::Party1)));
        (Party0Item::new(&self.plan, item0).unwrap(), Party1Item::new(&self.plan, item1).unwrap())
    }
}

/// What both parties see and make of a step.
pub(super) struct Trip {
    /// Party 1's masks of the operand, and party 0's masked values.
    pub(super) m: Vec<u64>,
    pub(super) delta: Vec<u64>,
    /// The words that party 1 reads of the opening, as many per element as the kind has.
    pub(super) opening: Vec<u64>,
    /// The response of the round trip before the last, if there is one.
    pub(super) turns: Vec<u64>,
    pub(super) share0: Vec<u64>,
    pub(super) response: Vec<u64>,
}

impl Case {
    /// All round trips over dealt correlations for these values; party 1's share is added to `fresh`.
    pub(super) fn trip(&self, random: &mut Random, y: &[u64], fresh: Option<&[u64]>) -> Trip {
        let (party0, mut party1) = self.deal(random);
        let m = party1.mask(0).unwrap().data.clone();
        let fresh = match fresh {
            Some(fresh) => fresh.to_vec(),
            None => vec![0; y.len()],
        };
        self.trip_over(party0, party1, m, y, fresh)
    }

    pub(super) fn trip_over(
        &self,
        party0: Party0Item<'_>,
        party1: Party1Item<'_>,
        m: Vec<u64>,
        y: &[u64],
        fresh: Vec<u64>,
    ) -> Trip {
        let (plan, step, secrets, index) = (&self.plan, self.step(), &self.weights.steps[1], 1);
        let kind = step.op.interactive().unwrap();
        let k = low_mask(plan.steps[0].ring);
        let delta: Vec<u64> = y.iter().zip(&m).map(|(y, m)| y.wrapping_add(*m) & k).collect();
        let own = record0(step, secrets, index, &mut [party0]).unwrap();
        let other = record1(kind, step, index, &mut [party1]).unwrap();
        let (tables, prepared) = (Tables::new(plan), Prepared::new(kind, step, secrets));
        let (tables, masks) = (&tables, [Zeroizing::new(m.clone())]);
        let (mut opened, mut sent) = (vec![], vec![]);
        let (mut opening, mut turns) = (vec![], vec![]);
        let trips = plan.trips(index);
        let count = y.len();
        for (trip, messages) in trips.iter().enumerate() {
            let is_last = trip + 1 == trips.len();
            let opener = Opener::new(&Parts0 {
                plan,
                index,
                trip,
                secrets,
                prepared: &prepared,
                tables,
                record: &own,
                opened: &opened,
            });
            let opener = opener.unwrap();
            let mut memory = Kept::default();
            let mut bytes = vec![0xff; packed_bytes(count, messages.opening.bits)];
            let mut share0 = vec![0; count];
            each_kind!(Opener, &opener, o => {
                let kept = kept(&mut memory, count * o.kept());
                o.open(0..count, &[WordsRef::W64(&delta)], kept, &mut bytes);
                o.share(0..count, kept, WordsMut::W64(&mut share0));
            });
            let (record, masks, sent_before) = (&other, &masks[..], &sent[..]);
            let parts = Parts1 { plan, index, trip, tables, record, masks, sent: sent_before };
            let responder = Responder::new(&parts).unwrap();
            let mut response = if is_last { fresh.clone() } else { vec![0; count] };
            let mut memory = Kept::default();
            let words: Vec<u64> = each_kind!(Responder, &responder, r => {
                let kept = kept(&mut memory, count * r.kept());
                assert!(r.read(&bytes, kept));
                r.respond(0..count, kept, WordsMut::W64(&mut response));
                kept.iter().map(|&word| word.element()).collect()
            });
            opening.push(words);
            if is_last {
                let opening = opening.concat();
                return Trip { m, delta, opening, turns, share0, response };
            }
            let bits = messages.response.bits;
            let sum =
                response.iter().zip(&share0).map(|(r, s)| r.wrapping_add(*s) & low_mask(bits));
            opened.push(Zeroizing::new(Words::new(bits, sum)));
            sent.push(Zeroizing::new(Words::new(bits, response.iter().copied())));
            turns = response;
        }
        unreachable!("a step has a round trip")
    }
}

/// Elements at the bounds and at random within them, as ring elements.
fn bounded(random: &mut Random, square: &Square, k: u32, count: usize) -> Vec<i64> {
    let limit = (1i64 << (square.p - 2 + square.t)) - (1 << square.t);
    let edges = [-limit, limit - 1, 0, -1, 1];
    let inner = (edges.len()..count).map(|_| {
        let span = 2 * limit as u64;
        (random.next() % span) as i64 - limit
    });
    let y: Vec<i64> = edges.into_iter().chain(inner).collect();
    assert!(y.iter().all(|&y| to_signed(y as u64 & low_mask(k), k) == y));
    y
}

fn ring_elements(y: &[i64], k: u32) -> Vec<u64> {
    y.iter().map(|&y| y as u64 & low_mask(k)).collect()
}

/// `ŷ`, which must be `y >> t` or one more.
fn truncated(square: &Square, delta: u64, m: u64, y: i64) -> i64 {
    let mask = square::mask_and_top_bit(square, m).0;
    let difference = square::offset_truncated(square, delta).wrapping_sub(mask);
    let value = (difference & low_mask(square.p)) as i64 - (1 << (square.p - 2));
    assert!([0, 1].contains(&(value - (y >> square.t))), "{value} {y}");
    value
}

fn square_parameters(random: &mut Random, most_q: u32) -> (Square, u32) {
    let most_p = if random.bits(2) == 0 { 62 } else { 24 };
    let p = random.between(3, most_p) as u32;
    let t = random.between(0, u64::from(64 - p).min(19)) as u32;
    let k = (t + p + random.between(0, 6) as u32).min(64);
    let ring = random.between(1, 40) as u32;
    let shift = random.between(0, u64::from(most_q - ring)) as u32;
    (Square { t, p, q: ring + shift, shift }, k)
}

/// Runs one square case; `shift` is taken as it is, so the result is checked to the predicted carry.
fn check_square(random: &mut Random, parameters: Square, k: u32, elements: usize) {
    let constant = random.bits(20) as i64 - (1 << 19);
    let ring = parameters.q - parameters.shift;
    let secrets = StepWeights::Square { constant: vec![constant] };
    let case = Case::new(parameters, secrets, k, ring, elements);
    let y = bounded(random, &parameters, k, elements);
    let Trip { m, delta, opening, share0, response, .. } =
        case.trip(random, &ring_elements(&y, k), None);
    assert!(opening.iter().all(|q| q & !low_mask(parameters.p + 2) == 0));
    for i in 0..elements {
        let value = i128::from(truncated(&parameters, delta[i], m[i], y[i]));
        let z = (value * value + i128::from(constant)) as u128;
        assert_truncated(z, share0[i], response[i], &parameters);
    }
}

/// The shares must sum to `z >> shift`, or one more, in the ring.
fn assert_truncated(z: u128, share0: u64, share1: u64, square: &Square) {
    let ring = low_mask(square.q - square.shift);
    let exact = ((z & truncate::wide_mask(square.q)) >> square.shift) as u64;
    let carry = share0.wrapping_add(share1).wrapping_sub(exact) & ring;
    assert!(carry == 0 || (carry == 1 && square.shift > 0), "off by {carry}");
}

#[test]
fn squares_are_exact_bounds_included() {
    let mut random = Random::new(21);
    for _ in 0..400 {
        let (parameters, k) = square_parameters(&mut random, 64);
        check_square(&mut random, parameters, k, 67);
    }
}

fn check_polynomial(random: &mut Random, parameters: Square, k: u32, degree: u32, elements: usize) {
    let coefficients: Vec<i128> = (0..=degree)
        .map(|_| {
            let bits = random.between(1, 100) as u32;
            random.wide(bits) as i128 - (1i128 << (bits - 1))
        })
        .collect();
    let rows = vec![coefficients.clone()];
    let ring = parameters.q - parameters.shift;
    let secrets = StepWeights::Polynomial { coefficients: rows };
    let kind = Polynomial { square: parameters, degree };
    let case = Case::new(kind, secrets, k, ring, elements);
    let y = bounded(random, &parameters, k, elements);
    let Trip { m, delta, share0, response, .. } = case.trip(random, &ring_elements(&y, k), None);
    for i in 0..elements {
        let value = i128::from(truncated(&parameters, delta[i], m[i], y[i]));
        let horner = |z: i128, &c: &i128| z.wrapping_mul(value).wrapping_add(c);
        let z = coefficients.iter().rev().fold(0, horner) as u128;
        assert_truncated(z, share0[i], response[i], &parameters);
    }
}

#[test]
fn polynomials_are_exact_bounds_included() {
    let mut random = Random::new(22);
    for _ in 0..300 {
        let (parameters, k) = square_parameters(&mut random, 127);
        let degree = random.between(1, 6) as u32;
        check_polynomial(&mut random, parameters, k, degree, 35);
    }
}

/// Runs one phase case and returns the largest error beyond one unit, in units of the step's value.
fn check_phase(random: &mut Random, phase: Phase, k: u32, amplitude: f64, elements: usize) -> f64 {
    let mut value = || (random.unit() - 0.5) * amplitude;
    let constant = value();
    let terms: Vec<[f64; 2]> = (0..phase.harmonics).map(|_| [value(), value()]).collect();
    let secrets = StepWeights::Phase { constant: vec![constant], harmonics: vec![terms.clone()] };
    let ring = phase.q - phase.shift;
    let case = Case::new(phase, secrets, k, ring, elements);
    let y: Vec<u64> = (0..elements).map(|_| random.bits(k)).collect();
    let Trip { m, delta, opening, share0, response, .. } = case.trip(random, &y, None);
    assert!(opening.iter().all(|q| q >> phase.p == 0));
    let mut worst = 0f64;
    for i in 0..elements {
        let index = (phase::phase_of(delta[i], k, phase.p) << phase.spare_bits())
            .wrapping_sub(phase::phase_of(m[i], k, phase.mask_bits))
            & low_mask(phase.mask_bits);
        // The opening's part falls on its steps, the mask's on finer ones: together less than a step
        // below, and less than a finer one above.
        let finer = k - phase.mask_bits;
        let error = (index << finer).wrapping_sub(y[i]) & low_mask(k);
        let error = to_signed(error, k);
        assert!(-(1 << (k - phase.p)) < error && error < 1 << finer, "{error}");
        let theta = phase.angle(index);
        let term = |(n, [a, b]): (usize, &[f64; 2])| {
            let (sin, cos) = (theta * (n + 1) as f64).sin_cos();
            a * cos + b * sin
        };
        let want = constant + terms.iter().enumerate().map(term).sum::<f64>();
        assert_eq!(response[i] >> (ring - phase.guard), 0);
        let sum = share0[i].wrapping_add(response[i] << phase.guard);
        let got = to_signed(sum & low_mask(ring), ring);
        let unit = 0.5 + 0.5 * f64::from(phase.guard).exp2();
        worst = worst.max((got as f64 - want).abs() - unit);
    }
    worst
}

/// What the rounding of `α`, `β` and of both tables can add, in units of the step's value: every one of
/// the four products per harmonic is off by at most half a unit of each factor times the others.
fn table_rounding(phase: &Phase, amplitude: f64) -> f64 {
    let unit = |bits: u32| 0.5 / f64::from(bits).exp2();
    let largest = amplitude / std::f64::consts::SQRT_2;
    let relative = unit(phase.g2) + unit(phase.h);
    let absolute = unit(phase.shift - phase.g2 - phase.h);
    4.0 * f64::from(phase.harmonics) * (largest * relative + absolute) * 1.1 + 1e-6
}

#[test]
fn phases_are_within_a_unit_and_the_tables_rounding_for_any_value() {
    let mut random = Random::new(23);
    for _ in 0..300 {
        let p = random.between(2, 11) as u32;
        let k = random.between(u64::from(p), 24) as u32;
        let (g2, h) = (random.between(6, 12) as u32, random.between(6, 12) as u32);
        let ring = random.between(14, 24) as u32;
        let shift = g2 + h + random.between(2, 12) as u32;
        let harmonics = random.between(1, 5) as u32;
        let mask_bits = random.between(u64::from(p), u64::from(k.min(p + 3))) as u32;
        let (q, guard) = (ring + shift, random.between(0, 4) as u32);
        let phase = Phase { p, mask_bits, q, shift, g2, h, guard, harmonics, amplitude: 20 };
        let worst = check_phase(&mut random, phase, k, 200.0, 200);
        assert!(worst <= table_rounding(&phase, 200.0), "{phase:?}: {worst}");
    }
}

/// The error of the phase that party 0's opening leads to, in steps of it, for every mask of a small ring:
/// its mean is zero, with half a step added to `Δ` it would be half a step; its variance, over all values
/// as well, is that of a subtractive dither as fine as the mask's phase.
#[test]
fn the_phase_is_unbiased_and_finer_masks_halve_its_variance() {
    let (k, p) = (9, 4);
    for spare in 0..=3 {
        let (mask_bits, q) = (p + spare, 30);
        let phase = Phase {
            p,
            mask_bits,
            q,
            shift: 20,
            g2: 8,
            h: 8,
            guard: 0,
            harmonics: 1,
            amplitude: 20,
        };
        let step = f64::from(k - p).exp2();
        let masks: Vec<u64> = (0..1 << k).collect();
        let u: Vec<u64> = masks.iter().map(|m| (m * 7 + 3) & low_mask(p)).collect();
        let narrow: Vec<u16> = u.iter().map(|&u| u as u16).collect();
        let errors = |y: u64, added: u64| -> Vec<f64> {
            let delta: Vec<u64> = masks.iter().map(|m| y + m + added).collect();
            let mut opening = vec![0; delta.len()];
            phase::online::opening(&phase, k, &delta, &narrow, &mut opening);
            let error = |((e, u), m): ((&u16, &u64), &u64)| {
                let mask = phase::phase_of(*m, k, mask_bits);
                let index = ((u64::from(*e) + u) << spare).wrapping_sub(mask);
                let error = (index << (k - mask_bits)).wrapping_sub(y) & low_mask(k);
                to_signed(error, k) as f64 / step + phase.centre()
            };
            opening.iter().zip(&u).zip(&masks).map(error).collect()
        };
        let mean = |errors: &[f64]| errors.iter().sum::<f64>() / errors.len() as f64;
        let mut squares = 0.0;
        for y in 0..1u64 << k {
            let exact = errors(y, 0);
            squares += exact.iter().map(|e| e * e).sum::<f64>();
            // Bits of the ring below the mask's phase are whole numbers, whose mean is half a unit less.
            let unit = if spare == 0 { 0.0 } else { 0.5 / step };
            assert!(mean(&exact).abs() <= unit + 1e-12, "{y}: {}", mean(&exact));
            let biased = mean(&errors(y, 1 << (k - p - 1)));
            assert!((biased - 0.5).abs() <= unit + 1e-12, "{y}: {biased}");
        }
        let variance = squares / f64::from(2 * k).exp2();
        let expected = (1.0 + (-2.0 * f64::from(spare)).exp2()) / 12.0;
        assert!((variance / expected - 1.0).abs() < 0.02, "{spare}: {variance}, {expected}");
    }
}

#[test]
fn channels_have_their_own_coefficients() {
    let shape = Shape::new([1, 2, 3]);
    let op = StepOp::Local(Local::Reshape);
    let step = Step { name: "".into(), op, operands: vec![], shape, ring: 8, fraction_bits: 0 };
    let channels: Vec<i32> = (0..6).map(|i| *row(&[7, 9], &step, i)).collect();
    assert_eq!(channels, [7, 7, 7, 9, 9, 9]);
    assert_eq!(*row(&[7], &step, 5), 7);
}

/// Every value of a small ring under every mask is what the definition says: the sign by the mask's offset in its
/// bucket, the carry by what is dropped of it.
#[test]
fn selects_are_exact_for_every_value_and_mask() {
    let mut random = Random::new(25);
    let with_wrap =
        [(6, 2, 0, 7), (7, 3, 2, 9), (7, 3, 6, 4), (8, 5, 3, 6), (8, 6, 1, 17), (9, 7, 2, 9)];
    let without = [(6, 2, 0, 6), (7, 3, 2, 5), (7, 5, 6, 1), (8, 6, 3, 5), (9, 7, 2, 7)];
    let all_of_them = with_wrap.into_iter().chain(without).chain([(9, 8, 3, 9), (9, 8, 1, 8)]);
    for (k, p, t, ring) in all_of_them {
        let all: Vec<u64> = (0..1 << k).collect();
        let select = Select { k, p, t };
        let case = Case::new(select, StepWeights::None, k, ring, all.len());
        for _ in 0..1 << k {
            let (party0, mut party1) = case.deal(&mut random);
            let m = party1.mask(0).unwrap().data.clone();
            let Trip { m, share0, response, .. } =
                case.trip_over(party0, party1, m, &all, vec![0; all.len()]);
            for ((&y, &m), (a, b)) in all.iter().zip(&m).zip(share0.iter().zip(&response)) {
                let signed = to_signed(y, k);
                let bucket = 1i64 << (k - p);
                if signed.abs() > (1 << (k - 1)) - bucket / 2 {
                    continue;
                }
                let is_positive = signed + m as i64 % bucket - bucket / 2 > 0;
                let z = if is_positive { (signed + m as i64 % (1 << t)) >> t } else { 0 };
                let sum = a.wrapping_add(*b) & low_mask(ring);
                assert_eq!(sum, z as u64 & low_mask(ring), "{select:?}: {signed} {m}");
            }
        }
    }
}

/// In wide rings, with bits above `k`, as far from zero as the sign is settled.
#[test]
fn selects_in_wide_rings_are_rectifiers() {
    let mut random = Random::new(26);
    let mut variants = [0; 2];
    for round in 0..100 {
        let p = random.between(2, 8) as u32;
        let k = random.between(u64::from(p) + 1, 50) as u32;
        let (t, ring) = (random.between(0, u64::from(k) - 1) as u32, random.between(1, 64) as u32);
        variants[usize::from(ring > k - t)] += 1;
        let above = random.between(0, 4) as u32;
        let case = Case::new(Select { k, p, t }, StepWeights::None, k + above, ring, 100);
        let y: Vec<u64> = (0..100).map(|_| random.bits(k + above)).collect();
        let Trip { share0, response, .. } = case.trip(&mut random, &y, None);
        let mut settled = 0;
        for ((&y, a), b) in y.iter().zip(&share0).zip(&response) {
            let signed = i128::from(to_signed(y & low_mask(k), k));
            let half = (1i128 << (k - p)) / 2;
            if signed.abs() <= half || signed.abs() > (1 << (k - 1)) - half {
                continue;
            }
            settled += 1;
            let z = (signed.max(0) >> t) as u64;
            let carry = a.wrapping_add(*b).wrapping_sub(z) & low_mask(ring);
            assert!(carry == 0 || carry == 1 && t > 0 && signed > 0, "{carry}");
        }
        assert!(settled > 20 || p == 2, "{round}: {settled}");
    }
    assert!(variants.iter().all(|&seen| seen > 10), "{variants:?}");
}

/// The long run: `POLYRT_ELEMENTS` elements of every interactive step, 10^7 by default.
#[test]
#[ignore = "minutes; run with --ignored, POLYRT_ELEMENTS sets the number of elements"]
fn long_run() {
    let elements = std::env::var("POLYRT_ELEMENTS").map_or(1e7, |v| v.parse::<f64>().unwrap());
    let size = 100_000;
    let mut random = Random::new(24);
    let mut worst = 0f64;
    let cases = (elements / size as f64).ceil() as usize;
    for _ in 0..cases {
        let (parameters, k) = square_parameters(&mut random, 64);
        check_square(&mut random, parameters, k, size);
        let (parameters, k) = square_parameters(&mut random, 127);
        let degree = random.between(1, 5) as u32;
        check_polynomial(&mut random, parameters, k, degree, size);
        let (p, k) = (random.between(6, 9) as u32, random.between(14, 20) as u32);
        let ring = random.between(14, 24) as u32;
        let (mask_bits, q) = (p + random.between(0, 3) as u32, ring + 26);
        let guard = random.between(0, 3) as u32;
        let phase =
            Phase { p, mask_bits, q, shift: 26, g2: 8, h: 8, guard, harmonics: 3, amplitude: 20 };
        let excess = check_phase(&mut random, phase, k, 200.0, size);
        let stated = table_rounding(&phase, 200.0);
        assert!(excess <= stated, "{phase:?}: {excess}");
        worst = worst.max(excess / stated);
    }
    println!(
        "{} elements of each interactive step; table rounding reached {worst:.3} of its bound",
        cases * size
    );
}
