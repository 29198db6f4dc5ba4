//! Estimated time of the online phase.
//!
//! Messages follow one another. Where they leave whole, no party computes while it waits, so that latency,
//! transfer and computation add up. Long ones leave in parts: then party 0's computation, the question's
//! way, party 1's computation and the answer's way overlap, so that the longest of them takes its time and
//! the others that of one part. The rates are those of the runtime's kernels on the machine of
//! docs/performance.md, one core of each party; on another machine computation differs, which matters
//! on fast networks only.

use super::{Network, round_trips};
use ir::plan::{PART, Plan, StepOp};
use ir::ring::packed_bytes;
use serde::Serialize;

/// Multiplications per second in rings up to so many bits (`cargo bench -p polyrt --bench kernels`).
const RATES: [(u32, f64); 4] = [(16, 110e9), (24, 74e9), (32, 56e9), (64, 19e9)];
/// Seconds of both parties for an element of an activation, and for each of its harmonics: bits, sums,
/// and correlations that come from memory. From whole runs.
const ELEMENT: f64 = 2e-9;
const HARMONIC: f64 = 3e-9;
/// Seconds until a message is on its way and its receiver awake.
const MESSAGE: f64 = 30e-6;

/// Estimated time of the online phase on a network.
#[derive(Debug, Serialize)]
pub struct NetworkReport {
    /// The network.
    pub network: Network,
    /// Round trips.
    pub latency_ms: f64,
    /// Bytes, both ways one after the other.
    pub transfer_ms: f64,
    /// Computation of both parties, one after the other.
    pub compute_ms: f64,
    /// What of it happens at the same time, because long messages leave in parts.
    pub overlap_ms: f64,
    /// The sum, less the overlap.
    pub total_ms: f64,
}

/// The estimate for a batch.
pub fn online(plan: &Plan, batch: usize, network: &Network) -> NetworkReport {
    let (to0, to1, messages) = plan.traffic(batch);
    let of_bytes = |bytes: usize| bytes as f64 * 8.0 / (network.mbit * 1e6);
    let of_step = |index: usize| batch as f64 * seconds(plan, index);
    let mut compute = messages as f64 * MESSAGE;
    let mut overlap = 0.0;
    for round in plan.rounds() {
        let linear: f64 = round.local.iter().map(|&step| of_step(step)).sum();
        let elements: f64 = round.activations.iter().map(|&step| of_step(step)).sum();
        compute += linear + elements;
        let count = |&step: &usize| plan.steps[step].shape.elements() * batch;
        let largest = round.activations.iter().map(count).max().unwrap_or(0);
        if largest < 2 * PART {
            continue;
        }
        let bytes = |bits: &dyn Fn(usize) -> u32| {
            let of = |step: &usize| packed_bytes(count(step), bits(*step));
            of_bytes(round.activations.iter().map(of).sum())
        };
        let question = bytes(&|step| plan.question_bits(step));
        let answer = bytes(&|step| plan.steps[step].ring);
        let stages = [linear + elements / 2.0, question, elements / 2.0, answer];
        let longest = stages.into_iter().fold(0.0, f64::max);
        let others = stages.iter().sum::<f64>() - longest;
        overlap += others * (1.0 - PART as f64 / largest as f64);
    }
    let latency_ms = round_trips(plan) as f64 * network.rtt_ms;
    let (transfer_ms, compute_ms) = (1e3 * of_bytes(to0 + to1), 1e3 * compute);
    let overlap_ms = 1e3 * overlap;
    let total_ms = latency_ms + transfer_ms + compute_ms - overlap_ms;
    let network = network.clone();
    NetworkReport { network, latency_ms, transfer_ms, compute_ms, overlap_ms, total_ms }
}

/// Seconds of both parties for a step of one inference.
fn seconds(plan: &Plan, index: usize) -> f64 {
    let step = &plan.steps[index];
    let rate = RATES.iter().find(|(bits, _)| step.ring <= *bits).map_or(RATES[3].1, |r| r.1);
    let products = match &step.op {
        StepOp::Phase(phase) => phase.harmonics,
        // An element of a square has four times the shares of a harmonic, one of a polynomial more.
        StepOp::Square(_) => 4,
        StepOp::Polynomial { degree, .. } => 2 * degree,
        _ => return plan.multiplications(index) as f64 / rate,
    };
    step.shape.elements() as f64 * (ELEMENT + HARMONIC * f64::from(products))
}
