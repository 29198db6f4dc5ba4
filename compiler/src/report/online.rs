//! Estimated time of the online phase.
//!
//! Its messages follow one another and no party computes while it waits, so that latency, transfer and
//! computation add up. The rates are those of the runtime's kernels on the machine of
//! docs/performance.md, one core of each party; on another machine computation differs, which matters
//! on fast networks only.

use super::{Network, round_trips};
use ir::plan::{Plan, StepOp};
use serde::Serialize;

/// Multiplications per second in rings up to so many bits (`cargo bench -p polyrt --bench kernels`).
const RATES: [(u32, f64); 4] = [(16, 110e9), (24, 74e9), (32, 56e9), (64, 19e9)];
/// Seconds of both parties for an element of an activation, and for each of its harmonics: bits, sums,
/// and correlations that come from memory. From whole runs.
const ELEMENT: f64 = 2e-9;
const HARMONIC: f64 = 8e-9;
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
    /// The sum.
    pub total_ms: f64,
}

/// The estimate for a batch.
pub fn online(plan: &Plan, batch: usize, network: &Network) -> NetworkReport {
    let (to0, to1, messages) = plan.traffic(batch);
    let of_step = |index: usize| {
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
    };
    let of_inference: f64 = (0..plan.steps.len()).map(of_step).sum();
    let latency_ms = round_trips(plan) as f64 * network.rtt_ms;
    let transfer_ms = (to0 + to1) as f64 * 8.0 / (network.mbit * 1e3);
    let compute_ms = 1e3 * (batch as f64 * of_inference + messages as f64 * MESSAGE);
    let total_ms = latency_ms + transfer_ms + compute_ms;
    NetworkReport { network: network.clone(), latency_ms, transfer_ms, compute_ms, total_ms }
}
