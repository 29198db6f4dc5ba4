//! Estimated time of the online phase.
//!
//! Messages follow one another. Where they are sent whole, no party computes while it waits, so that latency,
//! transfer and computation add up. Long ones are sent in parts: then party 0's computation, the opening's
//! transfer, party 1's computation and the response's transfer overlap, so that the longest of them takes its
//! whole time and each of the others the time of one part. The rates are those of the runtime's kernels on the machine of
//! docs/performance.md, one core of each party; on another machine computation differs, which matters
//! on fast networks only.

use super::{Network, round_trips};
use ir::plan::{Field, PART, Plan, Round, RoundTrip, Step, Trip};
use ir::ring::packed_bytes;
use serde::Serialize;

/// Multiplications per second in rings up to so many bits (`cargo bench -p polyrt --bench kernels`).
const RATES: [(u32, f64); 4] = [(16, 110e9), (24, 74e9), (32, 56e9), (64, 19e9)];
/// Seconds of both parties for an element of an interactive step, and for each of its harmonics: bits, sums,
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
    /// What of it happens at the same time, because long messages are sent in parts.
    pub overlap_ms: f64,
    /// The sum, less the overlap.
    pub total_ms: f64,
}

/// The estimate for a batch.
pub fn online(plan: &Plan, batch: usize, network: &Network) -> NetworkReport {
    let (to0, to1, count) = plan.traffic(batch);
    let of_bytes = |bytes: usize| bytes as f64 * 8.0 / (network.mbit * 1e6);
    let of_step = |index: usize| batch as f64 * seconds(plan, index);
    let mut compute = count as f64 * MESSAGE;
    let mut overlap = 0.0;
    for round in plan.rounds() {
        let linear: f64 = round.local.iter().map(|&step| of_step(step)).sum();
        let elements: f64 =
            round.trips.iter().filter(|t| t.number == 0).map(|t| of_step(t.step)).sum();
        compute += linear + elements;
        let count = |t: &RoundTrip| plan.steps[t.step].shape.elements() * batch;
        let largest = round.trips.iter().map(count).max().unwrap_or(0);
        if largest < 2 * PART {
            continue;
        }
        let (opening, response) = round_bytes(&round, batch);
        let (opening, response) = (of_bytes(opening), of_bytes(response));
        let stages = [linear + elements / 2.0, opening, elements / 2.0, response];
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

/// Bytes of the openings of a round, to party 1, and of the responses, to party 0.
fn round_bytes(round: &Round, batch: usize) -> (usize, usize) {
    let bytes = |of: fn(&Trip) -> Field| {
        let field = |t: &RoundTrip| of(&t.messages);
        let bytes = |f: Field| packed_bytes(f.elements * batch, f.bits);
        round.trips.iter().map(field).map(bytes).sum()
    };
    (bytes(|t| t.opening), bytes(|t| t.response))
}

/// Seconds of both parties for an interactive step of one inference.
pub(super) fn interactive_seconds(step: &Step) -> f64 {
    let products = step.op.interactive().map_or(0, |kind| kind.protocol().online_work());
    step.shape.elements() as f64 * (ELEMENT + HARMONIC * f64::from(products))
}

/// Seconds of both parties for a step of one inference.
fn seconds(plan: &Plan, index: usize) -> f64 {
    let step = &plan.steps[index];
    let rate = RATES.iter().find(|(bits, _)| step.ring <= *bits).map_or(RATES[3].1, |r| r.1);
    match step.op.interactive() {
        Some(_) => interactive_seconds(step),
        None => plan.multiplications(index) as f64 / rate,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{report, steps};
    use super::*;
    use ir::Shape;
    use ir::plan::{Digest, Direction, Linear, Phase, StepOp, ValueId};

    /// input → product → phase → product → phase, which is the output too; the first phase's values have
    /// guard bits.
    fn plan(guard: u32) -> Plan {
        let step = |op, operands: &[u32], ring| Step {
            name: String::new(),
            op,
            operands: operands.iter().map(|&v| ValueId(v)).collect(),
            shape: Shape::new([1, 3 * PART]),
            ring,
            fraction_bits: 4,
        };
        let product = || Linear::Hadamard { weight_bits: 8 }.into();
        let phase = |p, guard| {
            let (q, shift, g2, h) = (32, 18, 7, 7);
            let (harmonics, amplitude) = (1, 8);
            Phase { p, mask_bits: p, q, shift, g2, h, guard, harmonics, amplitude }.into()
        };
        let steps = vec![
            step(StepOp::Input, &[], 14),
            step(product(), &[0], 14),
            step(phase(14, guard), &[1], 11 + guard),
            step(product(), &[2], 11 + guard),
            step(phase(6, 0), &[3], 13),
        ];
        let mut plan = Plan::of_steps("guarded", steps, ValueId(4), (1.0, 16.0), 16.0);
        assert!(plan.choose_encryption());
        plan
    }

    /// Every message of the plan is in the report with the bytes that the plan says.
    #[test]
    fn reported_bytes_are_those_of_the_plans_messages() {
        for (guard, batch) in [(0, 1), (3, 1), (3, 2)] {
            let plan = plan(guard);
            let messages = plan.messages();
            let bytes = |step: usize, direction| -> usize {
                let of_step =
                    messages.iter().filter(|m| (m.step, m.direction) == (step, direction));
                of_step.map(|m| m.bytes(batch)).sum()
            };
            for (index, step) in steps(&plan, batch).iter().enumerate() {
                assert_eq!(step.bytes_to_party0, bytes(index, Direction::ToParty0));
                assert_eq!(step.bytes_to_party1, bytes(index, Direction::ToParty1));
            }
            let rounds: Vec<(usize, usize)> =
                plan.rounds().iter().map(|r| round_bytes(r, batch)).collect();
            let elements = 3 * PART * batch;
            // Openings of 14 and 6 bits; responses without the guard bits.
            let of_bits = |bits: usize| elements * bits / 8;
            let expected = [(of_bits(14), of_bits(11)), (of_bits(6), of_bits(13)), (0, 0)];
            assert_eq!(rounds, expected);
            let input = of_bits(14);
            let output = of_bits(13);
            let (openings, responses) =
                rounds.iter().fold((0, 0), |(q, a), of| (q + of.0, a + of.1));
            assert_eq!(plan.traffic(batch), (input + responses, output + openings, 6));
            let report = report(&plan, Digest([0; 32]), batch, &[]);
            let per_activation = (openings + responses) as f64 / (2 * elements) as f64;
            assert_eq!(report.bytes_per_activation, per_activation);
        }
    }

    /// Guard bits are in no message, so they change nothing of what overlaps where messages take all the time. The
    /// first response is shorter than its opening: it is what overlaps.
    #[test]
    fn guard_bits_take_no_time_on_the_network() {
        let network = Network { name: "slow".into(), rtt_ms: 0.0, mbit: 1e-3 };
        let times = [0, 3].map(|guard| online(&plan(guard), 1, &network));
        assert_eq!(times[0].transfer_ms, times[1].transfer_ms);
        let ratio = times[0].overlap_ms / times[1].overlap_ms;
        assert!((ratio - 1.0).abs() < 1e-4, "{ratio}");
    }
}
