//! What a plan costs before anything runs: rounds, bytes, correlations, and time on named networks.

mod layer;
mod offline;
mod online;

pub use layer::{Alternative, LayerChoice, LayerTime, choices};
pub use offline::{OfflineEstimate, OfflineReport, offline};
pub use online::{NetworkReport, online};

use crate::text::{tail, thousands};
use ir::plan::{Digest, Direction, Message, Plan};
use serde::Serialize;

/// A network between the parties.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Round trip time in milliseconds.
    pub rtt_ms: f64,
    /// Bandwidth each way in megabits per second.
    pub mbit: f64,
}

impl Network {
    /// What `wan` is.
    pub fn wan() -> Self {
        Self { name: "wan".into(), rtt_ms: 40.0, mbit: 400.0 }
    }

    /// `lan`, `wan`, `far`, or `RTT_MS:MBIT`.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let network = |rtt_ms, mbit| Self { name: text.to_owned(), rtt_ms, mbit };
        match text {
            "lan" => return Ok(network(0.3, 3000.0)),
            "wan" => return Ok(Self::wan()),
            "far" => return Ok(network(100.0, 100.0)),
            _ => {}
        }
        let parsed = text.split_once(':').and_then(|(rtt, mbit)| {
            let (rtt, mbit): (f64, f64) = (rtt.parse().ok()?, mbit.parse().ok()?);
            (rtt >= 0.0 && mbit > 0.0 && rtt.is_finite() && mbit.is_finite()).then_some((rtt, mbit))
        });
        let (rtt, mbit) = parsed.ok_or_else(|| {
            format!("network {text:?}: expected lan, wan, far, or RTT_MS:MBIT such as 20:500")
        })?;
        Ok(network(rtt, mbit))
    }
}

/// Everything that `polyc report` says.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The plan's name.
    pub name: String,
    /// The plan's identity.
    pub digest: String,
    /// Inferences per run.
    pub batch: usize,
    /// Per step.
    pub steps: Vec<StepReport>,
    /// Round trips online, the input's and the output's way included.
    pub round_trips: usize,
    /// Messages online.
    pub messages: usize,
    /// Bytes online to party 0.
    pub bytes_to_party0: usize,
    /// Bytes online to party 1.
    pub bytes_to_party1: usize,
    /// Elements that interactive steps make, per inference: an activation function's, as a rule.
    pub activations: usize,
    /// Bytes of the messages of interactive steps, both ways, per element.
    pub bytes_per_activation: f64,
    /// Preprocessing the correlations.
    pub offline: OfflineReport,
    /// Correlations per inference, by kind.
    pub correlations: Vec<CorrelationReport>,
    /// Multiplications with weights per inference.
    pub multiplications: usize,
    /// Estimated time per network.
    pub networks: Vec<NetworkReport>,
    /// Of every layer that may be a phase or a rectifier, what either takes.
    pub choices: Vec<LayerChoice>,
}

/// One step of the plan.
#[derive(Debug, Serialize)]
pub struct StepReport {
    /// The value it makes.
    pub value: String,
    /// The ONNX node it comes from.
    pub name: String,
    /// The step's kind.
    pub operator: String,
    /// Its parameters: `p`, `t`, `Q`, harmonics, kernel.
    pub parameters: String,
    /// Shape of the value.
    pub shape: Vec<usize>,
    /// Ring width `k`.
    pub ring: u32,
    /// Fraction bits.
    pub fraction_bits: i32,
    /// Messages online.
    pub messages: usize,
    /// Bytes online to party 0, for the batch.
    pub bytes_to_party0: usize,
    /// Bytes online to party 1, for the batch.
    pub bytes_to_party1: usize,
    /// Shares used up per inference, each party.
    pub correlation_elements: usize,
    /// Bytes of one party's explicit shares per inference.
    pub correlation_bytes: usize,
    /// Messages offline, for the batch.
    pub offline_messages: usize,
    /// Bytes offline to party 0, for the batch.
    pub offline_bytes_to_party0: usize,
    /// Bytes offline to party 1, for the batch.
    pub offline_bytes_to_party1: usize,
    /// Multiplications with weights per inference.
    pub multiplications: usize,
}

/// Correlations of one kind per inference.
#[derive(Debug, Serialize)]
pub struct CorrelationReport {
    /// `linear`, `phase`, `square` or `polynomial`.
    pub kind: String,
    /// Shares per party.
    pub elements: usize,
    /// Bytes of one party's explicit shares.
    pub bytes: usize,
}

/// What every step of a plan is and costs in runs of `batch` inferences.
pub fn steps(plan: &Plan, batch: usize) -> Vec<StepReport> {
    let messages = plan.messages();
    plan.steps
        .iter()
        .zip(offline::steps(plan, batch))
        .enumerate()
        .map(|(index, (step, offline))| {
            let of_step = || messages.iter().filter(|m| m.step == index);
            let bytes = |to| of_step().filter(|m| m.direction == to).map(|m| m.bytes(batch)).sum();
            let correlation = plan.correlation(index);
            StepReport {
                value: format!("v{index}"),
                name: step.name.clone(),
                operator: step.op.name().into(),
                parameters: step.op.parameters(),
                shape: step.shape.0.clone(),
                ring: step.ring,
                fraction_bits: step.fraction_bits,
                messages: of_step().count(),
                bytes_to_party0: bytes(Direction::ToParty0),
                bytes_to_party1: bytes(Direction::ToParty1),
                correlation_elements: correlation.as_ref().map_or(0, |c| c.elements()),
                correlation_bytes: correlation.map_or(0, |c| c.bytes()[0]),
                offline_messages: offline.messages,
                offline_bytes_to_party0: offline.bytes.0,
                offline_bytes_to_party1: offline.bytes.1,
                multiplications: plan.multiplications(index),
            }
        })
        .collect()
}

/// Round trips online, the input's and the output's way included.
pub fn round_trips(plan: &Plan) -> usize {
    plan.rounds().iter().filter(|r| !r.trips.is_empty()).count() + 1
}

/// The messages of the online phase but the first, with the input, and the last, with the output: the openings
/// and responses of interactive steps.
fn interactive_messages(plan: &Plan) -> Vec<Message> {
    let mut messages = plan.messages();
    messages.pop();
    messages.drain(..1);
    messages
}

/// Computes the report of a plan for runs of `batch` inferences.
pub fn report(plan: &Plan, digest: Digest, batch: usize, networks: &[Network]) -> Report {
    let steps = steps(plan, batch);
    let (to0, to1, count) = plan.traffic(batch);
    let activations = plan.interactive_elements();
    let of_activations: usize = interactive_messages(plan).iter().map(|m| m.bytes(batch)).sum();
    let mut correlations: Vec<CorrelationReport> = vec![];
    for c in (0..plan.steps.len()).filter_map(|step| plan.correlation(step)) {
        let (elements, bytes) = (c.elements(), c.bytes()[0]);
        match correlations.iter_mut().find(|of| of.kind == c.kind) {
            Some(of) => {
                of.elements += elements;
                of.bytes += bytes;
            }
            None => {
                let kind = c.kind.into();
                correlations.push(CorrelationReport { kind, elements, bytes });
            }
        }
    }
    let round_trips = round_trips(plan);
    Report {
        name: plan.name.clone(),
        digest: digest.to_string(),
        batch,
        round_trips,
        messages: count,
        bytes_to_party0: to0,
        bytes_to_party1: to1,
        activations,
        bytes_per_activation: of_activations as f64 / (activations * batch).max(1) as f64,
        offline: offline(plan, batch, networks),
        correlations,
        multiplications: steps.iter().map(|s| s.multiplications).sum(),
        networks: networks.iter().map(|network| online(plan, batch, network)).collect(),
        choices: choices(plan, networks),
        steps,
    }
}

impl Report {
    /// The table that people read.
    pub fn to_text(&self) -> String {
        let mut lines = vec![
            format!("plan {} ({}), batch {}", self.name, self.digest, self.batch),
            String::new(),
            format!(
                "{:<5} {:<15} {:<18} {:>3} {:>3} {:>10} {:>10} {:>11}  {}",
                "value", "step", "shape", "k", "f", "to party 0", "to party 1", "offline", "node"
            ),
        ];
        for s in &self.steps {
            let number = |n: usize| if n == 0 { "-".into() } else { thousands(n) };
            let shape: Vec<String> = s.shape.iter().map(|d| d.to_string()).collect();
            lines.push(format!(
                "{:<5} {:<15} {:<18} {:>3} {:>3} {:>10} {:>10} {:>11}  {}{}",
                s.value,
                s.operator,
                shape.join("x"),
                s.ring,
                s.fraction_bits,
                number(s.bytes_to_party0),
                number(s.bytes_to_party1),
                number(s.offline_bytes_to_party0 + s.offline_bytes_to_party1),
                tail(&s.name, 28),
                if s.parameters.is_empty() {
                    String::new()
                } else {
                    format!(" [{}]", s.parameters)
                }
            ));
        }
        lines.extend([
            String::new(),
            format!("online: {} messages, {} round trips", self.messages, self.round_trips),
            format!(
                "  {} bytes to party 0, {} bytes to party 1, {} in all",
                thousands(self.bytes_to_party0),
                thousands(self.bytes_to_party1),
                thousands(self.bytes_to_party0 + self.bytes_to_party1)
            ),
            format!(
                "  {} activations, {:.2} bytes each both ways",
                thousands(self.activations),
                self.bytes_per_activation
            ),
            format!(
                "  {} multiplications with weights at party 0",
                thousands(self.multiplications)
            ),
            "correlations per inference, shares of each party:".into(),
        ]);
        for c in &self.correlations {
            lines.push(format!(
                "  {:<10} {:>12} elements {:>12} bytes",
                c.kind,
                thousands(c.elements),
                thousands(c.bytes)
            ));
        }
        lines.push("estimated time online (prepared; one core each, with AVX-512):".into());
        for n in &self.networks {
            let overlap = match n.overlap_ms {
                none if none < 0.05 => String::new(),
                ms => format!(" - {ms:.1} at once"),
            };
            lines.push(format!(
                "  {:<10} {:>8.1} ms = {:.1} latency + {:.1} transfer + {:.1} compute{overlap}  ({} ms, {} Mbit/s)",
                n.network.name,
                n.total_ms,
                n.latency_ms,
                n.transfer_ms,
                n.compute_ms,
                n.network.rtt_ms,
                n.network.mbit
            ));
        }
        lines.extend(self.offline.lines());
        let networks: Vec<Network> = self.networks.iter().map(|n| n.network.clone()).collect();
        lines.extend(layer::lines(&self.choices, &networks));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_names_and_numbers() {
        assert_eq!(Network::parse("20:500").unwrap().mbit, 500.0);
        for bad in ["", "lan2", "1:", "1:-3", "x:4", "1:0"] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }
}
