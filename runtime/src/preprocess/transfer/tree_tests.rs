//! Trees over ideal transfers: the shares sum to one-hot vectors, whatever the shape.

use super::hash::{Block, Hashes};
use super::lanes::Lane;
use super::softspoken::ideal;
use super::tree::{Fold, Shape, party0, party1, shifts};
use super::{TransferError, tree};
use crate::testing::{Random, assert_uniform};
use ir::plan::preprocess::transfers::tree_bytes;
use ir::ring::{low_mask, packed_bytes};

/// Every entry of every vector.
struct All(Shape);

impl Fold for All {
    fn outputs(&self) -> usize {
        self.0.scalars << self.0.p
    }

    #[inline(always)]
    fn fold<L: Lane>(&self, vectors: &mut [L], lanes: usize, out: &mut [u64]) {
        for (entry, out) in vectors.chunks_exact(lanes).zip(out.chunks_exact_mut(self.0.scalars)) {
            out.iter_mut().zip(entry).for_each(|(out, lane)| *out = lane.to_u64());
        }
    }
}

struct Sides {
    shifts: Vec<u8>,
    message: Vec<u8>,
    party0: Vec<u64>,
    party1: Vec<u64>,
}

fn run(random: &mut Random, shape: &Shape, places: &[u64], scalars: &[u64]) -> Sides {
    let delta: Block = (u128::from(random.next()) << 64 | u128::from(random.next())).to_le_bytes();
    let hashes = Hashes::new(&[random.bits(8) as u8; 32], 0);
    let (q, choices, t) = ideal(random, &delta, shape.transfers(places.len()));
    let shifts = shifts(shape, places, &choices);
    assert_eq!(shifts.len(), packed_bytes(places.len(), shape.p));
    let fold = All(*shape);
    let (message, shares0) = party0(shape, &hashes, &delta, &q, &shifts, scalars, &fold).unwrap();
    assert_eq!(message.len(), tree_bytes(places.len(), shape.p, shape.scalars, shape.q));
    let shares1 = party1(shape, &hashes, (&t, &choices), places, &message, &fold).unwrap();
    Sides { shifts, message, party0: shares0.to_vec(), party1: shares1.to_vec() }
}

fn check(random: &mut Random, shape: &Shape, places: &[u64]) {
    let count = places.len() * shape.scalars;
    let scalars: Vec<u64> = (0..count).map(|_| random.bits(shape.q)).collect();
    let sides = run(random, shape, places, &scalars);
    let mut shares = sides.party0.iter().zip(&sides.party1);
    for (place, scalars) in places.iter().zip(scalars.chunks(shape.scalars)) {
        for x in 0..1 << shape.p {
            for scalar in scalars {
                let (a, b) = shares.next().unwrap();
                assert!(a | b <= low_mask(shape.q));
                let sum = a.wrapping_add(*b) & low_mask(shape.q);
                assert_eq!(sum, if x == *place { *scalar } else { 0 }, "{shape:?} {place} {x}");
            }
        }
    }
}

#[test]
fn shares_sum_to_the_scalar_in_its_place() {
    let mut random = Random::new(21);
    for p in 1..=10 {
        for scalars in 1..=12 {
            for q in [1, 13, 31, 32, 33, 64] {
                let count = random.between(1, if p < 8 { 5 } else { 2 });
                let places: Vec<u64> = (0..count).map(|_| random.bits(p)).collect();
                check(&mut random, &Shape { p, scalars, q }, &places);
            }
        }
    }
    check(&mut random, &Shape { p: 2, scalars: 32, q: 64 }, &[3]);
}

#[test]
fn every_place_is_hit() {
    let mut random = Random::new(22);
    for p in 1..=9 {
        let places: Vec<u64> = (0..1 << p).collect();
        check(&mut random, &Shape { p, scalars: 1, q: 20 }, &places);
    }
}

/// With fixed secrets, every bit of both messages and of both parties' shares is a fair coin.
#[test]
fn messages_and_shares_look_uniform_for_fixed_secrets() {
    let mut random = Random::new(23);
    let shape = Shape { p: 4, scalars: 4, q: 16 };
    let (places, scalars) = ([0, 5], [0, 1, 0xffff, 77, 0, 0, 3, 0x8000]);
    let runs: Vec<Sides> = (0..2000).map(|_| run(&mut random, &shape, &places, &scalars)).collect();
    let bytes = |shares: &[u64]| shares.iter().flat_map(|s| (*s as u16).to_le_bytes()).collect();
    assert_uniform(&runs.iter().map(|run| run.shifts.clone()).collect::<Vec<_>>());
    assert_uniform(&runs.iter().map(|run| run.message.clone()).collect::<Vec<_>>());
    assert_uniform(&runs.iter().map(|run| bytes(&run.party0)).collect::<Vec<_>>());
    assert_uniform(&runs.iter().map(|run| bytes(&run.party1)).collect::<Vec<_>>());
}

#[test]
fn malformed_messages_are_refused() {
    let mut random = Random::new(24);
    let shape = Shape { p: 3, scalars: 1, q: 5 };
    let (delta, hashes) = ([9; 16], Hashes::new(&[0; 32], 0));
    let (q, choices, t) = ideal(&mut random, &delta, shape.transfers(1));
    let fold = All(shape);
    let party0 = |shifts: &[u8]| {
        tree::party0(&shape, &hashes, &delta, &q, shifts, &[7], &fold).map(|(message, _)| message)
    };
    assert_eq!(party0(&[8]), Err(TransferError::Padding));
    assert_eq!(party0(&[1, 0]), Err(TransferError::Length { found: 2, expected: 1 }));
    let mut message = party0(&[1]).unwrap();
    let party1 =
        |message: &[u8]| tree::party1(&shape, &hashes, (&t, &choices), &[2], message, &fold).err();
    assert_eq!(party1(&message), None);
    assert!(party1(&message[1..]).is_some());
    *message.last_mut().unwrap() |= 0x20;
    assert_eq!(party1(&message), Some(TransferError::Padding));
}

#[test]
#[ignore = "prints timings"]
fn throughput() {
    /// The sum of every vector.
    struct Sum;
    impl Fold for Sum {
        fn outputs(&self) -> usize {
            1
        }
        #[inline(always)]
        fn fold<L: Lane>(&self, vectors: &mut [L], _: usize, out: &mut [u64]) {
            out[0] = vectors[0].to_u64();
        }
    }
    let mut random = Random::new(25);
    let shape = Shape { p: 8, scalars: 4, q: 32 };
    let (delta, hashes, count) = ([9; 16], Hashes::new(&[0; 32], 0), 100_000);
    let (q, choices, t) = ideal(&mut random, &delta, shape.transfers(count));
    let places: Vec<u64> = (0..count).map(|_| random.bits(8)).collect();
    let scalars = vec![1; 4 * count];
    for _ in 0..6 {
        let shifts = shifts(&shape, &places, &choices);
        let started = std::time::Instant::now();
        let (message, _) = party0(&shape, &hashes, &delta, &q, &shifts, &scalars, &Sum).unwrap();
        let elapsed0 = started.elapsed().as_secs_f64();
        let started = std::time::Instant::now();
        party1(&shape, &hashes, (&t, &choices), &places, &message, &Sum).unwrap();
        let elapsed1 = started.elapsed().as_secs_f64();
        let rate = |seconds: f64| count as f64 / seconds / 1e3;
        println!("trees: party 0 {:.0}, party 1 {:.0} k/s", rate(elapsed0), rate(elapsed1));
    }
}
