//! What one layer of interactive steps takes on a network, to compare kinds of them.

use super::{Network, offline, online};
use ir::plan::{RingLwe, Step};
use serde::Serialize;

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
