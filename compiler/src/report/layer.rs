//! What one layer of interactive steps takes on a network, to compare kinds of them.

use super::{Network, offline, online};
use crate::scales::bits::{RingOptions, buckets};
use crate::text::{tail, thousands};
use ir::plan::{Interactive, Phase, Plan, RingLwe, Select, Step, StepOp};
use serde::Serialize;

/// Harmonics of the phase that a rectifier is compared with.
const COMPARED: u32 = 3;
/// Bits of a phase, and of the words of its correlations, likewise.
const COMPARED_BITS: (u32, u32) = (8, 32);
/// Bits that the rectifier drops that a phase is compared with.
const COMPARED_DROPPED: u32 = 7;

/// An activation layer as a phase or as a rectifier.
#[derive(Debug, Serialize)]
pub struct LayerChoice {
    /// The node.
    pub name: String,
    /// Elements of one inference.
    pub elements: usize,
    /// What the plan has.
    pub chosen: Alternative,
    /// The other family.
    pub other: Alternative,
}

/// What a layer takes in one family.
#[derive(Debug, Serialize)]
pub struct Alternative {
    /// The step.
    pub step: String,
    /// On every network of the report, for one inference.
    pub times: Vec<LayerTime>,
}

/// The layers of a plan that may be phases or rectifiers, with what either takes.
pub fn choices(plan: &Plan, networks: &[Network]) -> Vec<LayerChoice> {
    let choice = |step: &Step| {
        let ring = step.ring - step.op.guard();
        let other: Interactive = match step.op.interactive()? {
            Interactive::Phase(_) => {
                let RingOptions { bucket_bits, same_buckets, .. } = RingOptions::default();
                let p = buckets(bucket_bits, same_buckets, step.shape.elements());
                let k = plan.steps[step.operands[0].index()].ring.max(p + 1);
                Select { k, p, t: COMPARED_DROPPED.min(k - 1) }.into()
            }
            Interactive::Select(_) => {
                let (p, q) = COMPARED_BITS;
                let (harmonics, shift) = (COMPARED, q.saturating_sub(ring));
                let (mask_bits, guard) = (p, 0);
                Phase { p, mask_bits, q, shift, g2: 7, h: 7, guard, harmonics, amplitude: 8 }.into()
            }
            Interactive::Square(_) | Interactive::Polynomial(_) | Interactive::Table(_) => {
                return None;
            }
        };
        let other = Step { op: StepOp::Interactive(other), ring, ..step.clone() };
        let alternative = |step: &Step| Alternative {
            step: match step.op.interactive() {
                Some(Interactive::Phase(phase)) => match phase.harmonics {
                    1 => "phase, 1 harmonic".into(),
                    n => format!("phase, {n} harmonics"),
                },
                Some(Interactive::Select(select)) => format!("select, p {}", select.p),
                _ => step.op.name().into(),
            },
            times: networks
                .iter()
                .map(|network| LayerTime::of(std::slice::from_ref(step), &[], network))
                .collect(),
        };
        Some(LayerChoice {
            name: step.name.clone(),
            elements: step.shape.elements(),
            chosen: alternative(step),
            other: alternative(&other),
        })
    };
    plan.steps.iter().filter_map(choice).collect()
}

/// The lines that people read.
pub(super) fn lines(choices: &[LayerChoice], networks: &[Network]) -> Vec<String> {
    if choices.is_empty() {
        return vec![];
    }
    let names: Vec<&str> = networks.iter().map(|n| n.name.as_str()).collect();
    let mut lines = vec![
        format!(
            "activation layers, one inference with nothing prepared: bytes of both phases, ms on {}",
            names.join(" / ")
        ),
        format!(
            "  {:<28} {:>9}  {:<20} {:>10} {:>20}   {:<20} {:>10} {:>20}",
            "node", "elements", "chosen", "bytes", "ms", "other", "bytes", "ms"
        ),
    ];
    let column = |alternative: &Alternative| {
        let bytes = alternative.times.first().map_or(0, |t| t.online_bytes + t.offline_bytes);
        let times: Vec<String> =
            alternative.times.iter().map(|t| format!("{:.1}", t.total_ms(false))).collect();
        format!("{:<20} {:>10} {:>20}", alternative.step, thousands(bytes), times.join(" / "))
    };
    lines.extend(choices.iter().map(|choice| {
        format!(
            "  {:<28} {:>9}  {}   {}",
            tail(&choice.name, 28),
            thousands(choice.elements),
            column(&choice.chosen),
            column(&choice.other)
        )
    }));
    lines
}

/// What a layer takes for one inference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LayerTime {
    /// Round trips online.
    pub round_trips: usize,
    /// Bytes online, both ways.
    pub online_bytes: usize,
    /// Bytes offline, both ways.
    pub offline_bytes: usize,
    /// Milliseconds online.
    pub online_ms: f64,
    /// Milliseconds offline, without the latency, which all layers share.
    pub offline_ms: f64,
}

impl LayerTime {
    /// The time of interactive steps side by side; encryption takes one of `sets`, or those that suit the steps best.
    pub fn of(steps: &[Step], sets: &[RingLwe], network: &Network) -> Self {
        let per_byte = 8.0 / (network.mbit * 1e3);
        let mut all = Self::default();
        for step in steps {
            let Some(kind) = step.op.interactive() else { continue };
            let (kind, count) = (kind.protocol(), step.shape.elements());
            let trips = kind.trips(step);
            all.round_trips = all.round_trips.max(trips.len());
            let bytes: usize = trips.iter().map(|t| t.opening.bytes() + t.response.bytes()).sum();
            all.online_bytes += bytes;
            all.online_ms += bytes as f64 * per_byte + 1e3 * online::interactive_seconds(step);
            let own = if sets.is_empty() { kind.encryption(count) } else { sets.to_vec() };
            for (_, cost) in kind.exchanges(step, count, &own) {
                all.offline_bytes += cost.total_bytes();
                let (to0, to1) = cost.directions();
                let busier = to0.max(to1);
                all.offline_ms += (busier as f64 * per_byte).max(1e3 * offline::seconds(&cost));
            }
        }
        all.online_ms += all.round_trips as f64 * network.rtt_ms;
        all
    }

    /// Milliseconds until the answer: with nothing prepared, of both phases.
    pub fn total_ms(&self, is_prepared: bool) -> f64 {
        if is_prepared { self.online_ms } else { self.online_ms + self.offline_ms }
    }
}
