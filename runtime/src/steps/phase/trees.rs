//! The products of a phase step: `G_n = α_n·cos nM + β_n·sin nM` and `H_n = α_n·sin nM − β_n·cos nM`.
//!
//! One punctured GGM tree per element ([`crate::preprocess::transfer::tree`]) with the `2H` scalars `α_n, β_n` and
//! party 1's phase `M`; the map of its vectors is the table of cosines and sines. Of the sums over `x` the
//! first half is taken with the second: `cos n(x + half a turn) = (−1)^n·cos nx` holds in the rounded tables as
//! well, and so for the sine.

use super::{Factors, phase_of};
use crate::preprocess::transfer::lanes::{Lane, add_up};
use crate::preprocess::transfer::tree::{self, Fold, Shape};
use crate::preprocess::transfer::{Received, TransferError, Transfers, expect_length};
use crate::secret::Elements;
use crate::steps::row;
use ir::plan::preprocess::transfers::extension_bytes;
use ir::plan::{Phase, PhaseTables, Step};
use ir::ring::packed_bytes;
use std::ops::Range;
use zeroize::Zeroizing;

/// Party 1 between its message and party 0's.
pub struct Asked {
    shape: Shape,
    fold: Tables,
    places: Elements,
    received: Received,
}

/// Party 1's message for elements with the masks `masks` of the operand, of `ring` bits.
pub fn ask(transfers: &mut Transfers, phase: &Phase, ring: u32, masks: &[u64]) -> (Asked, Vec<u8>) {
    let shape = shape(phase);
    let places: Elements =
        Zeroizing::new(masks.iter().map(|&m| phase_of(m, ring, phase.mask_bits)).collect());
    let mut received = transfers.receiver.extend(shape.transfers(masks.len()));
    let mut message = std::mem::take(&mut received.message);
    message.extend(tree::shifts(&shape, &places, &received.choices));
    (Asked { shape, fold: Tables::new(phase), places, received }, message)
}

/// Party 0's message and shares, for the same `elements` of the step, with its `u` for each of them and
/// the coefficients `[a_n, b_n]` of the step's channels.
///
/// # Errors
/// If party 1's message has another length or set padding bits.
pub fn answer(
    transfers: &mut Transfers,
    phase: &Phase,
    step: &Step,
    harmonics: &[Vec<[f64; 2]>],
    elements: Range<usize>,
    u: &[u64],
    message: &[u8],
) -> Result<(Vec<u8>, Elements), TransferError> {
    let (shape, count) = (shape(phase), elements.len());
    let extension = extension_bytes(shape.transfers(count));
    expect_length(message, extension + packed_bytes(count, phase.mask_bits))?;
    let (extension, shifts) = message.split_at(extension);
    let blocks = transfers.sender.extend(shape.transfers(count), extension)?;
    let factors = factors(phase, step, harmonics, elements, u);
    let mut scalars = Zeroizing::new(Vec::with_capacity(count * shape.scalars));
    scalars.extend(factors.iter().flatten().map(|&factor| factor as u64));
    let (hashes, delta) = (&transfers.hashes, transfers.sender.delta());
    tree::party0(&shape, hashes, delta, &blocks, shifts, &scalars, &Tables::new(phase))
}

/// `α_n, β_n` for every element and harmonic.
pub fn factors(
    phase: &Phase,
    step: &Step,
    harmonics: &[Vec<[f64; 2]>],
    elements: Range<usize>,
    u: &[u64],
) -> Zeroizing<Vec<[i64; 2]>> {
    let factors = Factors::new(phase);
    let mut all = Zeroizing::new(Vec::with_capacity(u.len() * phase.harmonics as usize));
    for (element, &u) in elements.zip(u) {
        let row = row::<Vec<_>>(harmonics, step, element % step.shape.elements());
        all.extend(factors.of(row, u));
    }
    all
}

impl Asked {
    /// Party 1's shares, from party 0's message.
    ///
    /// # Errors
    /// If it has another length or set padding bits.
    pub fn finish(self, transfers: &Transfers, message: &[u8]) -> Result<Elements, TransferError> {
        let Self { shape, fold, places, received } = self;
        let transferred = (&received.blocks[..], &received.choices[..]);
        tree::party1(&shape, &transfers.hashes, transferred, &places, message, &fold)
    }
}

fn shape(phase: &Phase) -> Shape {
    Shape { p: phase.mask_bits, scalars: 2 * phase.harmonics as usize, q: phase.q }
}

/// The map of a tree's vectors to `G_1, H_1, G_2, …`.
struct Tables {
    harmonics: usize,
    narrow: Table<u32>,
    wide: Table<u64>,
}

/// What stands beside the entries of the first half of a tree's vectors, lane by lane.
struct Table<L> {
    cos: Vec<L>,
    sin: Vec<L>,
    /// All bits set in lanes of odd harmonics.
    odd: Vec<L>,
}

impl<L: Lane> Table<L> {
    fn new(phase: &Phase) -> Self {
        let tables = PhaseTables::new(phase.mask_bits, phase.harmonics, phase.g2);
        let factors = 2 * phase.harmonics as usize;
        let lanes = factors.next_multiple_of(L::PER_BLOCK);
        let lay_out = |entry: &dyn Fn(usize, usize) -> u64| {
            let entries =
                (0..1usize << (phase.mask_bits - 1)).flat_map(|x| (0..lanes).map(move |j| (x, j)));
            let value = |(x, j)| if j < factors { entry(x, j / 2) } else { 0 };
            entries.map(|at| L::from_u64(value(at))).collect()
        };
        Self {
            cos: lay_out(&|x, n| tables.cos[n][x] as u64),
            sin: lay_out(&|x, n| tables.sin[n][x] as u64),
            odd: lay_out(&|_, n| u64::from(n.is_multiple_of(2)).wrapping_neg()),
        }
    }

    fn none() -> Self {
        Self { cos: vec![], sin: vec![], odd: vec![] }
    }
}

impl Tables {
    fn new(phase: &Phase) -> Self {
        let harmonics = phase.harmonics as usize;
        if phase.q <= 32 {
            Self { harmonics, narrow: Table::new(phase), wide: Table::none() }
        } else {
            Self { harmonics, narrow: Table::none(), wide: Table::new(phase) }
        }
    }
}

impl Fold for Tables {
    fn outputs(&self) -> usize {
        2 * self.harmonics
    }

    #[inline(always)]
    fn fold<L: Lane>(&self, vectors: &mut [L], lanes: usize, out: &mut [u64]) {
        let cos = L::choose(&self.narrow.cos, &self.wide.cos);
        let sin = L::choose(&self.narrow.sin, &self.wide.sin);
        let odd = L::choose(&self.narrow.odd, &self.wide.odd);
        let (by_cos, by_sin) = vectors.split_at_mut(vectors.len() / 2);
        let pairs = by_cos.iter_mut().zip(by_sin.iter_mut());
        for ((a, b), ((cos, sin), odd)) in pairs.zip(cos.iter().zip(sin).zip(odd)) {
            let sum = a.add(b.negate_if(*odd));
            (*a, *b) = (sum.mul(*cos), sum.mul(*sin));
        }
        add_up(by_cos, lanes);
        add_up(by_sin, lanes);
        for (n, pair) in out.chunks_exact_mut(2).enumerate() {
            pair[0] = by_cos[2 * n].add(by_sin[2 * n + 1]).to_u64();
            pair[1] = by_sin[2 * n].sub(by_cos[2 * n + 1]).to_u64();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::preprocess::expand::Seed;
    use crate::preprocess::transfer::setup::both;
    use crate::steps::phase::products;
    use crate::testing::Random;
    use ir::Shape as TensorShape;
    use ir::plan::preprocess::transfers;
    use ir::ring::low_mask;
    use sha2::{Digest, Sha256};

    pub(in super::super) fn step(phase: Phase, shape: &[usize]) -> Step {
        Step {
            name: String::new(),
            op: phase.into(),
            operands: vec![],
            shape: TensorShape::new(shape),
            ring: phase.q - phase.shift,
            fraction_bits: 0,
        }
    }

    pub(in super::super) fn coefficients(
        random: &mut Random,
        phase: &Phase,
        rows: usize,
    ) -> Vec<Vec<[f64; 2]>> {
        let mut value = || random.unit() - 0.5;
        let mut row = || (0..phase.harmonics).map(|_| [value(), value()]).collect();
        (0..rows).map(|_| row()).collect()
    }

    #[test]
    fn shares_sum_to_the_ideal_products() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(3), seed(4));
        let mut random = Random::new(31);
        for round in 0..60 {
            let (g2, h) = (random.between(0, 10) as u32, random.between(0, 10) as u32);
            let p = [2, 3, 7, 8][round % 4] + (round / 40) as u32;
            let shift = g2 + h + random.between(0, 8) as u32;
            let q = random.between(u64::from(shift) + 1, [32, 64][round % 2]) as u32;
            let harmonics = random.between(1, 6) as u32;
            let mask_bits = p + (round % 3) as u32;
            let phase = Phase { p, mask_bits, q, shift, g2, h, guard: 0, harmonics, amplitude: 0 };
            let step = step(phase, &[1, 3, 5, 7]);
            let coefficients = coefficients(&mut random, &phase, [1, 3][round / 2 % 2]);
            let start = random.between(0, 104) as usize;
            let elements = start..random.between(start as u64 + 1, 105) as usize;
            let ring = random.between(u64::from(mask_bits), 40) as u32;
            let masks: Vec<u64> = (0..105).map(|_| random.bits(ring)).collect();
            let u: Vec<u64> = (0..105).map(|_| random.bits(p)).collect();
            let ideal = products(&phase, &step, &coefficients, ring, &masks, &u);
            let ideal = &ideal[2 * harmonics as usize * start..];

            let cost = transfers::trees(&phase, elements.len());
            let (masks, u) = (&masks[elements.clone()], &u[elements.clone()]);
            let (asked, first) = ask(&mut party1, &phase, ring, masks);
            assert_eq!(first.len(), cost.bytes[0]);
            let short = &first[1..];
            let range = elements.clone();
            assert!(answer(&mut party0, &phase, &step, &coefficients, range, u, short).is_err());
            let (second, share0) =
                answer(&mut party0, &phase, &step, &coefficients, elements, u, &first).unwrap();
            assert_eq!(second.len(), cost.bytes[1]);
            let share1 = asked.finish(&party1, &second).unwrap();
            assert_eq!(share0.len(), 2 * harmonics as usize * u.len());
            for ((a, b), product) in share0.iter().zip(share1.iter()).zip(ideal) {
                assert_eq!(a.wrapping_add(*b) & low_mask(q), product & low_mask(q));
                assert!(a | b <= low_mask(q));
            }
        }
    }

    /// With fixed seeds, so that a change of any message or share shows.
    #[test]
    fn known_answer() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(3), seed(4));
        let mut hash = Sha256::new();
        for q in [32, 40] {
            let phase = Phase {
                p: 7,
                mask_bits: 7,
                q,
                shift: 20,
                g2: 7,
                h: 9,
                guard: 0,
                harmonics: 3,
                amplitude: 8,
            };
            let step = step(phase, &[1, 1, 50]);
            let coefficients = vec![vec![[0.5, -0.25], [0.0, 1.0], [0.125, 0.75]]];
            let masks: Vec<u64> = (0..50).map(|i| i * 1009).collect();
            let u: Vec<u64> = (0..50).map(|i| i * 7 % 128).collect();
            let (asked, first) = ask(&mut party1, &phase, 16, &masks);
            let (second, share0) =
                answer(&mut party0, &phase, &step, &coefficients, 0..50, &u, &first).unwrap();
            let share1 = asked.finish(&party1, &second).unwrap();
            hash.update(first);
            hash.update(second);
            share0.iter().chain(&*share1).for_each(|share| hash.update(share.to_le_bytes()));
        }
        let digest: String = hash.finalize()[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, "8dbaee6af1da7521");
    }

    /// What the fold relies on, for every table that a plan may have.
    #[test]
    fn half_a_turn_changes_the_sign_of_odd_harmonics() {
        for (p, g2) in (2..=14).flat_map(|p| (0..=24).map(move |g2| (p, g2))) {
            let tables = PhaseTables::new(p, 4, g2);
            let half = 1 << (p - 1);
            for table in [&tables.cos, &tables.sin] {
                for (n, values) in table.iter().enumerate() {
                    let sign = if n % 2 == 0 { -1 } else { 1 };
                    assert!(
                        (0..half).all(|x| values[x + half] == sign * values[x]),
                        "{p} {g2} {n}"
                    );
                }
            }
        }
    }

    #[test]
    #[ignore = "prints timings"]
    fn throughput() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(3), seed(4));
        let mut random = Random::new(32);
        let phase = Phase {
            p: 8,
            mask_bits: 8,
            q: 32,
            shift: 16,
            g2: 7,
            h: 9,
            guard: 0,
            harmonics: 2,
            amplitude: 0,
        };
        let count = 190_000;
        let step = step(phase, &[1, 10, count / 10]);
        let coefficients = coefficients(&mut random, &phase, 10);
        let masks: Vec<u64> = (0..count).map(|_| random.bits(16)).collect();
        let u: Vec<u64> = (0..count).map(|_| random.bits(8)).collect();
        for _ in 0..6 {
            let started = std::time::Instant::now();
            let (asked, first) = ask(&mut party1, &phase, 16, &masks);
            let asking = started.elapsed();
            let (second, _) =
                answer(&mut party0, &phase, &step, &coefficients, 0..count, &u, &first).unwrap();
            let answering = started.elapsed() - asking;
            asked.finish(&party1, &second).unwrap();
            let finishing = started.elapsed() - asking - answering;
            println!("phase: ask {asking:?}, answer {answering:?}, finish {finishing:?}");
            println!("phase: {} and {} bytes", first.len(), second.len());
        }
    }
}
