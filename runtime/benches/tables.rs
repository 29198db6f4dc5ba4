//! Table steps, both parties, on one core: the offline phase flight by flight, and the round trip online; beside them the
//! trees of a phase step with five harmonics. Medians of repetitions.
//!
//! `cargo bench -p polyrt --bench tables`

mod support;

use ir::Shape;
use ir::plan::{Interactive, Phase, Plan, Step, StepOp, StepWeights, Table, ValueId, Weights};
use ir::ring::packed_bytes;
use polyrt::preprocess::dealer::deal;
use polyrt::preprocess::expand::Seed;
use polyrt::preprocess::item::{Party0Item, Party1Item};
use polyrt::preprocess::transfer::Transfers;
use polyrt::steps::phase::trees;
use polyrt::steps::table::offline::{self, Turn};
use polyrt::steps::table::{Opening, Responding};
use polyrt::steps::{Opening as _, Record0, Record1, Responding as _, record0, record1};
use polyrt::words::{Words, WordsRef};
use std::time::Instant;
use support::{Failure, transfers};

const REPETITIONS: usize = 7;
const OFFLINE: usize = 1 << 14;
const ONLINE: usize = 1 << 13;

fn main() -> Result<(), Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(|| {
        let (mut party0, mut party1) = transfers()?;
        phases(&mut party0, &mut party1)?;
        for (bits, q) in [(8, 16), (9, 16), (10, 16), (12, 16), (9, 24)] {
            let table = Table::of((16, bits, bits, q), |y| y.max(0.0) / 64.0)?;
            println!("table of {bits} bits, values of {q}, per element:");
            preprocess(&mut party0, &mut party1, &table)?;
            run(&table)?;
        }
        Ok(())
    })
}

fn median(times: &mut [f64], count: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2] * 1e6 / count as f64
}

fn preprocess(
    party0: &mut Transfers,
    party1: &mut Transfers,
    table: &Table,
) -> Result<(), Failure> {
    let u: Vec<u64> = (0..OFFLINE as u64).map(|i| i * 77 % (1 << table.p)).collect();
    let masks: Vec<u64> = (0..OFFLINE as u64).map(|i| i * 40503 % 65536).collect();
    let names = [[7; 16]];
    let mut flights: Vec<Vec<f64>> = vec![];
    let (mut whole, mut bytes) = (vec![], 0);
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        let mut flight = 0;
        let mut took = |since: Instant| {
            flights.resize(flights.len().max(flight + 1), vec![]);
            flights[flight].push(since.elapsed().as_secs_f64());
            flight += 1;
        };
        let (making0, mut message0) = offline::open(party0, table, &names, &u);
        let (making1, mut message1) = offline::ask(party1, table, &names, &masks);
        let (mut making0, mut making1) = (Box::new(making0), Box::new(making1));
        took(start);
        bytes = message0.len() + message1.len();
        loop {
            let since = Instant::now();
            let next0 = making0.take(party0, &message1)?;
            let next1 = making1.take(party1, &message0)?;
            took(since);
            match (next0, next1) {
                (Turn::More(next0, sent0), Turn::More(next1, sent1)) => {
                    bytes += sent0.len() + sent1.len();
                    (making0, making1, message0, message1) = (next0, next1, sent0, sent1);
                }
                (made0, made1) => {
                    std::hint::black_box((made0, made1));
                    break;
                }
            }
        }
        whole.push(start.elapsed().as_secs_f64());
    }
    let flights: Vec<String> =
        flights.iter_mut().map(|times| format!("{:.2}", median(times, OFFLINE))).collect();
    println!(
        "  offline, both parties: {:.2} µs, {} bytes; by flight {}",
        median(&mut whole, OFFLINE),
        bytes / OFFLINE,
        flights.join(" ")
    );
    Ok(())
}

fn run(table: &Table) -> Result<(), Failure> {
    let shape = Shape::new([1, 32, 16, ONLINE / 512]);
    let step = |op, operands, ring| Step {
        name: "bench".into(),
        op,
        operands,
        shape: shape.clone(),
        ring,
        fraction_bits: 0,
    };
    let op = StepOp::Interactive(Interactive::Table(table.clone()));
    let steps = vec![step(StepOp::Input, vec![], table.k), step(op, vec![ValueId(0)], table.q)];
    let plan = Plan::of_steps("bench", steps, ValueId(1), (1.0, 1.0), 1.0);
    plan.verify()?;
    let (_, digest) = plan.to_bytes();
    let secrets = vec![StepWeights::None, StepWeights::None];
    let weights = Weights { plan: digest, salt: [0; 32], steps: secrets };
    let (item0, item1) = deal(&plan, &weights, Seed::from_system()?, Seed::from_system()?);
    let step = &plan.steps[1];
    let kind = step.op.interactive().ok_or("interactive")?;
    let delta: Vec<u16> = (0..ONLINE).map(|i| (i * 40503) as u16).collect();
    let (mut taking, mut opening, mut responding) = (vec![], vec![], vec![]);
    for _ in 0..REPETITIONS {
        let mut items0 = vec![Party0Item::new(&plan, item0.clone()).ok_or("an item")?];
        let mut items1 = vec![Party1Item::new(&plan, item1.clone()).ok_or("an item")?];
        let start = Instant::now();
        let own = record0(step, &StepWeights::None, 1, &mut items0)?;
        taking.push(start.elapsed().as_secs_f64());
        let other = record1(kind, step, 1, &mut items1)?;
        let (Record0::Table(own), Record1::Table(other)) = (&own, &other) else {
            return Err("another kind".into());
        };
        let side = Opening { table, record: own };
        let (mut kept, mut share) = (vec![0; ONLINE], Words::zeros(table.q, ONLINE));
        let mut bytes = vec![0; packed_bytes(ONLINE, table.p)];
        let start = Instant::now();
        side.open(0..ONLINE, &[WordsRef::W16(&delta)], &mut kept, &mut bytes);
        side.share(0..ONLINE, &kept, share.part_mut(0..ONLINE));
        opening.push(start.elapsed().as_secs_f64());
        let side = Responding { table, record: other };
        let start = Instant::now();
        if !side.read(&bytes, &mut kept) {
            return Err("padding".into());
        }
        side.respond(0..ONLINE, &kept, share.part_mut(0..ONLINE));
        responding.push(start.elapsed().as_secs_f64());
        std::hint::black_box(share.len());
    }
    println!(
        "  online: party 0 {:.3} µs, party 1 {:.3}; taking correlations {:.3} at party 0; {} bytes in its store",
        median(&mut opening, ONLINE),
        median(&mut responding, ONLINE),
        median(&mut taking, ONLINE),
        (item0.len() - 32) / ONLINE
    );
    Ok(())
}

/// The measure: one tree per element that party 1 knows the place of.
fn phases(party0: &mut Transfers, party1: &mut Transfers) -> Result<(), Failure> {
    let phase = Phase {
        p: 8,
        mask_bits: 8,
        q: 32,
        shift: 16,
        g2: 7,
        h: 7,
        guard: 0,
        harmonics: 5,
        amplitude: 8,
    };
    let step = Step {
        name: "bench".into(),
        op: StepOp::Interactive(Interactive::Phase(phase)),
        operands: vec![ValueId(0)],
        shape: Shape::new([1, 16, 32, 32]),
        ring: 16,
        fraction_bits: 6,
    };
    let coefficients = vec![vec![[3.5, -1.25]; 5]];
    let masks: Vec<u64> = (0..OFFLINE as u64).map(|i| i * 40503 % 65536).collect();
    let u: Vec<u64> = (0..OFFLINE as u64).map(|i| i * 77 % 256).collect();
    let (mut times, mut bytes) = (vec![], 0);
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        let (asked, first) = trees::ask(party1, &phase, 16, &masks);
        let (second, shares) =
            trees::answer(party0, &phase, &step, &coefficients, 0..OFFLINE, &u, &first)?;
        std::hint::black_box((asked.finish(party1, &second)?, shares));
        bytes = first.len() + second.len();
        times.push(start.elapsed().as_secs_f64());
    }
    println!(
        "trees of phases of 8 bits, five harmonics: {:.2} µs, {} bytes, per element",
        median(&mut times, OFFLINE),
        bytes / OFFLINE
    );
    Ok(())
}
