//! Select steps, both parties, on one core: the offline phase from the first message to both parties' fields, taking
//! the correlations of an item from their packed form, and both round trips online. Medians of repetitions; with the
//! argument `least` the least times, which count where other work disturbs.
//!
//! `cargo bench -p polyrt --bench selects`

mod support;

use ir::Shape;
use ir::plan::{Interactive, Plan, Select, Step, StepOp, StepWeights, ValueId, Weights};
use ir::ring::{low_mask, packed_bytes};
use polyrt::preprocess::dealer::deal;
use polyrt::preprocess::expand::Seed;
use polyrt::preprocess::item::{Party0Item, Party1Item};
use polyrt::preprocess::transfer::Transfers;
use polyrt::steps::select::{Opening, Responding, offline};
use polyrt::steps::{Opening as _, Record0, Record1, Responding as _, record0, record1};
use polyrt::words::{Words, WordsMut, WordsRef};
use std::time::Instant;
use support::{Failure, transfers};

const REPETITIONS: usize = 15;
/// Elements: as many as an exchange has, and as a part of a message.
const OFFLINE: usize = 1 << 14;
const ONLINE: usize = 1 << 15;

fn main() -> Result<(), Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(|| {
        let (mut party0, mut party1) = transfers()?;
        for (p, t, ring) in [(5, 7, 16), (5, 7, 9), (6, 7, 16), (8, 7, 16), (5, 7, 18)] {
            let select = Select { k: 16, p, t };
            println!("k 16 p {p} t {t}, value of {ring} bits, per element:");
            preprocess(&mut party0, &mut party1, &select, ring)?;
            run(&select, ring)?;
        }
        Ok(())
    })
}

/// Times of consecutive pieces of work, one list per piece.
struct Clock<const N: usize> {
    last: Instant,
    times: [Vec<f64>; N],
}

impl<const N: usize> Clock<N> {
    fn new() -> Self {
        Self { last: Instant::now(), times: [const { vec![] }; N] }
    }

    /// What passed since the call before was this piece.
    fn took(&mut self, piece: usize) {
        self.times[piece].push(self.last.elapsed().as_nanos() as f64);
        self.last = Instant::now();
    }

    fn skip(&mut self) {
        self.last = Instant::now();
    }

    fn medians(mut self, count: usize) -> [f64; N] {
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            let least = std::env::args().any(|argument| argument == "least");
            times[if least { 0 } else { times.len() / 2 }] / count as f64
        };
        std::array::from_fn(|n| median(&mut self.times[n]))
    }
}

fn preprocess(
    party0: &mut Transfers,
    party1: &mut Transfers,
    select: &Select,
    ring: u32,
) -> Result<(), Failure> {
    let masks: Vec<u64> = (0..OFFLINE as u64).map(|i| i * 40503 % 65536).collect();
    let wraps: Vec<u64> = (0..OFFLINE as u64).map(|i| i * 77 % 2).collect();
    let mut clock = Clock::<5>::new();
    let mut bytes = 0;
    for _ in 0..REPETITIONS {
        let (asked, first) = offline::ask(party1, select, ring, &masks);
        clock.took(0);
        let (answered, second) = offline::answer(party0, select, ring, &wraps, &first)?;
        clock.took(1);
        let (third, fields1) = asked.finish(party1, &second)?;
        clock.took(2);
        let fields0 = answered.finish(party0, select, ring, &third)?;
        clock.took(3);
        bytes = first.len() + second.len() + third.len();
        std::hint::black_box((fields0, fields1));
        clock.skip();
        // What of it are the transfers themselves.
        let received = party1.receiver.extend(OFFLINE * select.transfers(ring));
        std::hint::black_box(party0.sender.extend(received.choices.len(), &received.message)?);
        let received = party0.receiver.extend(OFFLINE);
        std::hint::black_box(party1.sender.extend(OFFLINE, &received.message)?);
        clock.took(4);
    }
    let [ask, answer, finish1, finish0, transfers] = clock.medians(OFFLINE);
    println!(
        "  offline: party 1 asks {ask:.0} ns, party 0 answers {answer:.0}, party 1 finishes {finish1:.0}, \
         party 0 {finish0:.0}; {:.0} in all, of which transfers {transfers:.0}; {:.2} bytes",
        ask + answer + finish1 + finish0,
        bytes as f64 / OFFLINE as f64
    );
    Ok(())
}

fn run(select: &Select, ring: u32) -> Result<(), Failure> {
    let shape = Shape::new([1, 32, 32, ONLINE / 1024]);
    let step = |op, operands, ring| Step {
        name: "bench".into(),
        op,
        operands,
        shape: shape.clone(),
        ring,
        fraction_bits: 0,
    };
    let op = StepOp::Interactive(Interactive::Select(*select));
    let steps = vec![step(StepOp::Input, vec![], select.k), step(op, vec![ValueId(0)], ring)];
    let plan = Plan::of_steps("bench", steps, ValueId(1), (1.0, 1.0), 1.0);
    plan.verify()?;
    let (_, digest) = plan.to_bytes();
    let secrets = vec![StepWeights::None, StepWeights::None];
    let weights = Weights { plan: digest, salt: [0; 32], steps: secrets };
    let (item0, item1) = deal(&plan, &weights, Seed::from_system()?, Seed::from_system()?);
    let (step, trips) = (&plan.steps[1], plan.trips(1));
    let delta: Vec<u16> = (0..ONLINE).map(|i| (i * 40503) as u16).collect();
    let masks: Vec<u64> = (0..ONLINE as u64).map(|i| i * 9173 % 65536).collect();
    let kind = step.op.interactive().ok_or("interactive")?;
    let mut clock = Clock::<6>::new();
    for _ in 0..REPETITIONS {
        let mut items0 = vec![Party0Item::new(&plan, item0.clone()).ok_or("an item")?];
        let mut items1 = vec![Party1Item::new(&plan, item1.clone()).ok_or("an item")?];
        clock.skip();
        let Record0::Select(own) = record0(step, &StepWeights::None, 1, &mut items0)? else {
            return Err("another kind".into());
        };
        clock.took(0);
        let Record1::Select(other) = record1(kind, step, 1, &mut items1)? else {
            return Err("another kind".into());
        };
        clock.took(1);
        let (mut opened, mut sent) = (None, None);
        for (number, trip) in trips.iter().enumerate() {
            let (bits, response) = (trip.opening.bits, trip.response.bits);
            let opening = Opening { select, ring, record: &own, turns: opened.as_ref() };
            let mut kept = vec![0; ONLINE * opening.kept()];
            let mut bytes = vec![0; packed_bytes(ONLINE, bits)];
            let mut share = Words::zeros(response, ONLINE);
            clock.skip();
            opening.open(0..ONLINE, &[WordsRef::W16(&delta)], &mut kept, &mut bytes);
            opening.share(0..ONLINE, &kept, share.part_mut(0..ONLINE));
            clock.took(2 + 2 * number);
            let responding =
                Responding { select, ring, record: &other, masks: &masks, turns: sent.as_ref() };
            let mut kept = vec![0; ONLINE * responding.kept()];
            let mut out = Words::zeros(response, ONLINE);
            clock.skip();
            if !responding.read(&bytes, &mut kept) {
                return Err("padding".into());
            }
            responding.respond(0..ONLINE, &kept, out.part_mut(0..ONLINE));
            clock.took(3 + 2 * number);
            let pairs = share.elements().into_iter().zip(out.elements());
            let sums = pairs.map(|(a, b)| a.wrapping_add(b) & low_mask(response));
            (opened, sent) = (Some(Words::new(response, sums)), Some(out));
        }
        std::hint::black_box(
            sent.map(|mut words| matches!(words.part_mut(0..1), WordsMut::W16(_))),
        );
    }
    let [take0, take1, open, turn, words, value] = clock.medians(ONLINE);
    println!(
        "  online: first opening {open:.2} ns, response {turn:.2}, second opening {words:.2}, response \
         {value:.2}; {:.1} in all; taking correlations {take0:.1} at party 0, {take1:.1} at party 1",
        open + turn + words + value
    );
    Ok(())
}
