//! Speed of the offline phase on one core: transforms, one convolution's correlation, correlated
//! transfers, products of phases by trees and by encryption; medians of repetitions.
//!
//! `cargo bench -p polyrt --bench offline --profile dev`

mod support;

use ir::Shape;
use ir::op::Convolution;
use ir::plan::{Interactive, Linear, Phase, Plan, Step, StepOp, ValueId};
use polyrt::preprocess::expand::Seed;
use polyrt::preprocess::rlwe::{PublicKeys, SecretKeys};
use polyrt::preprocess::transfer::Transfers;
use polyrt::steps::phase::trees as phase;
use std::time::Instant;
use support::{Failure, transfers};
use zeroize::Zeroizing;

const REPETITIONS: usize = 7;

fn main() -> Result<(), Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(|| {
        transforms()?;
        convolution()?;
        let start = Instant::now();
        let (mut party0, mut party1) = transfers()?;
        println!("setup of transfers, both parties: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        correlated(&mut party0, &mut party1)?;
        for harmonics in [1, 2, 5] {
            trees(&mut party0, &mut party1, harmonics)?;
        }
        Ok(())
    })
}

/// The median time of `work`, in seconds.
fn median(mut work: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut times = vec![];
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REPETITIONS / 2])
}

fn transforms() -> Result<(), Failure> {
    for (degree, bits) in [(4096usize, 39u32), (8192, 45)] {
        let step = 2 * degree as u64;
        let plan = (1..(1u64 << bits) / step)
            .rev()
            .find_map(|i| tfhe_ntt::prime64::Plan::try_new(degree, i * step + 1))
            .ok_or("no prime")?;
        let mut data: Vec<u64> = (0..degree as u64).map(|i| i * 12345 % plan.modulus()).collect();
        let seconds = median(|| {
            (0..100).for_each(|_| plan.fwd(&mut data));
            Ok(())
        })?;
        println!("transform of {degree}, prime of {bits} bits: {:.2} µs", seconds * 1e4);
    }
    Ok(())
}

/// 64 to 64 channels at 8×8, three by three: ring of 17 bits, weights of 8.
fn convolution() -> Result<(), Failure> {
    let shape = Shape::new([1, 64, 8, 8]);
    let geometry = Convolution {
        groups: 1,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [1; 4],
    };
    let step = |op, operands| Step {
        name: "bench".into(),
        op,
        operands,
        shape: shape.clone(),
        ring: 17,
        fraction_bits: 8,
    };
    let linear = StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 });
    let mut plan = Plan::of_steps(
        "bench",
        vec![step(StepOp::Input, vec![]), step(linear, vec![ValueId(0)])],
        ValueId(1),
        (1.0, 1.0),
        1.0,
    );
    assert!(plan.choose_encryption(), "parameters for 8-bit weights");
    let (secret, message) = SecretKeys::generate(&plan.rlwe)?;
    let public = PublicKeys::read(&plan.rlwe, &message, Seed::from_system()?)?;
    let weights: Vec<i32> = (0..64 * 64 * 9).map(|i| i % 251 - 125).collect();
    for items in [1, 16] {
        let packing = plan.packing(1, items).ok_or("no packing")?;
        let masks = vec![vec![1234u64; shape.elements()]; items];
        let masks: Vec<&[u64]> = masks.iter().map(Vec::as_slice).collect();
        let shares: Vec<_> =
            (0..items).map(|_| Zeroizing::new(vec![77u64; shape.elements()])).collect();
        let up = secret.encrypt(&packing, 0, &masks);
        let down = public.answer(&packing, 0, &weights, &up, &shares)?;
        let encrypt = median(|| {
            std::hint::black_box(secret.encrypt(&packing, 0, &masks));
            Ok(())
        })?;
        let answer = median(|| {
            std::hint::black_box(public.answer(&packing, 0, &weights, &up, &shares)?);
            Ok(())
        })?;
        let decrypt = median(|| {
            std::hint::black_box(secret.decrypt(&packing, &down)?);
            Ok(())
        })?;
        let per = 1e3 / items as f64;
        println!(
            "convolution 64 to 64 at 8, {items} together, each: encrypt {:.2} ms, answer {:.2} ms, \
             decrypt {:.2} ms, {} bytes",
            encrypt * per,
            answer * per,
            decrypt * per,
            (up.len() + down.len()) / items
        );
    }
    Ok(())
}

fn correlated(party0: &mut Transfers, party1: &mut Transfers) -> Result<(), Failure> {
    const COUNT: usize = 1 << 19;
    let mut messages = vec![];
    let receive = median(|| {
        messages.push(party1.receiver.extend(COUNT).message);
        Ok(())
    })?;
    let mut messages = messages.into_iter();
    let send = median(|| {
        let message = messages.next().ok_or("a message per repetition")?;
        std::hint::black_box(party0.sender.extend(COUNT, &message)?);
        Ok(())
    })?;
    let rate = |seconds: f64| COUNT as f64 / seconds / 1e6;
    println!(
        "correlated transfers: {:.1} million/s received, {:.1} million/s sent",
        rate(receive),
        rate(send)
    );
    Ok(())
}

fn trees(party0: &mut Transfers, party1: &mut Transfers, harmonics: u32) -> Result<(), Failure> {
    const COUNT: usize = 1 << 14;
    let phase = Phase {
        p: 8,
        mask_bits: 8,
        q: 32,
        shift: 16,
        g2: 7,
        h: 7,
        guard: 0,
        harmonics,
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
    let coefficients = vec![vec![[3.5, -1.25]; harmonics as usize]];
    let masks: Vec<u64> = (0..COUNT as u64).map(|i| i * 40503 % 65536).collect();
    let u: Vec<u64> = (0..COUNT as u64).map(|i| i * 77 % 256).collect();
    let mut bytes = 0;
    let (mut asking, mut answering) = (vec![], vec![]);
    let both = median(|| {
        let start = Instant::now();
        let (asked, first) = phase::ask(party1, &phase, 16, &masks);
        let middle = Instant::now();
        let (second, _) =
            phase::answer(party0, &phase, &step, &coefficients, 0..COUNT, &u, &first)?;
        let answered = Instant::now();
        std::hint::black_box(asked.finish(party1, &second)?);
        bytes = first.len() + second.len();
        answering.push((answered - middle).as_secs_f64());
        asking.push((middle - start + answered.elapsed()).as_secs_f64());
        Ok(())
    })?;
    let per = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2] * 1e6 / COUNT as f64
    };
    println!(
        "phases by trees, {harmonics} harmonics: {:.2} µs per element at party 1, {:.2} at party 0, \
         {:.2} in all, {} bytes",
        per(&mut asking),
        per(&mut answering),
        both * 1e6 / COUNT as f64,
        bytes / COUNT
    );
    Ok(())
}
