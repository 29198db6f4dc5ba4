//! The offline phase in the report: what two parties exchange to preprocess the correlations of a run.

use super::Network;
use crate::text::thousands;
use ir::plan::{Cost, MAX_GROUP, Method, Plan, StepOp};
use serde::Serialize;

/// Seconds of one core for a transform of 4096 coefficients with the work around it, for a correlated
/// transfer, for a leaf of a tree, and for 128 bits of scalars at a leaf, which are hashed and summed, at one
/// party; measured where docs/performance.md says.
const TRANSFORM: f64 = 28e-6;
const TRANSFER: f64 = 0.12e-6;
const LEAF: f64 = 7.8e-9;
const PAD: f64 = 5.5e-9;
/// The same for a block of a key's hash, at the party that has both keys.
const KEY_BLOCK: f64 = 6e-9;
/// The same for a harmonic of an element whose products are made by encryption.
const SLOT: f64 = 0.4e-6;
/// Cores that the estimate assumes at each party.
const CORES: f64 = 2.0;

/// Preprocessing the correlations of a batch.
#[derive(Debug, Serialize)]
pub struct OfflineReport {
    /// Inferences whose correlations are preprocessed together.
    pub batch: usize,
    /// Messages, setup included.
    pub messages: usize,
    /// Bytes to party 0, setup included.
    pub bytes_to_party0: usize,
    /// Bytes to party 1, setup included.
    pub bytes_to_party1: usize,
    /// Bytes per inference, both ways, when 16 are preprocessed together.
    pub bytes_each_in_sixteen: usize,
    /// Of these bytes (for the batch), those of linear steps.
    pub linear_bytes: usize,
    /// Correlated oblivious transfers.
    pub transfers: usize,
    /// Number-theoretic transforms of either party, as if all had 4096 coefficients.
    pub transforms: usize,
    /// Leaves of the trees behind products of phases.
    pub leaves: usize,
    /// Harmonics of elements whose products are made by encryption instead.
    pub slots: usize,
    /// Parameters of the encryption: degree, and bits of the modulus.
    pub encryption: Vec<(usize, u32)>,
    /// Bytes of one item in party 0's and in party 1's store.
    pub item_bytes: usize,
    /// Estimated time per network.
    pub networks: Vec<OfflineEstimate>,
}

/// Estimated time of the offline phase on a network.
#[derive(Debug, Serialize)]
pub struct OfflineEstimate {
    /// The network.
    pub network: Network,
    /// Waiting for messages that must follow each other.
    pub latency_ms: f64,
    /// Sending bytes, the busier direction.
    pub transfer_ms: f64,
    /// Computation of the slower party.
    pub compute_ms: f64,
    /// Latency, and the longer of the other two.
    pub total_ms: f64,
}

/// What the offline phase of one step costs.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepCost {
    /// Bytes to party 0 and to party 1.
    pub bytes: (usize, usize),
    /// Messages.
    pub messages: usize,
}

/// Per step, the offline phase of `batch` inferences.
pub fn steps(plan: &Plan, batch: usize) -> Vec<StepCost> {
    let mut costs = vec![StepCost::default(); plan.steps.len()];
    each_group(plan, batch, |schedule, times| {
        for exchange in &schedule.exchanges {
            let cost = &mut costs[exchange.step];
            let (to0, to1) = exchange.cost.directions();
            cost.bytes.0 += times * to0;
            cost.bytes.1 += times * to1;
            cost.messages += times * exchange.cost.bytes.len();
        }
    });
    costs
}

fn each_group(plan: &Plan, batch: usize, mut visit: impl FnMut(&ir::plan::OfflineSchedule, usize)) {
    let group = plan.group(batch);
    for (size, times) in [(group, batch / group), (batch % group, 1)] {
        if size > 0 && times > 0 {
            visit(&plan.offline_schedule(size), times);
        }
    }
}

/// The offline phase of a plan for runs of `batch` inferences.
pub fn offline(plan: &Plan, batch: usize, networks: &[Network]) -> OfflineReport {
    let (to0, to1, messages) = plan.offline_traffic(batch);
    let sixteen = plan.offline_traffic(MAX_GROUP);
    let (mut linear_bytes, mut flights, mut all) = (0, 0, Cost::default());
    each_group(plan, batch, |schedule, times| {
        for exchange in &schedule.exchanges {
            let cost = &exchange.cost;
            if let Method::Encryption(_) = exchange.method {
                linear_bytes += times * cost.total_bytes();
            }
            all.transforms[0] += times * cost.transforms[0];
            all.transforms[1] += times * cost.transforms[1];
            all.transfers += times * cost.transfers;
            all.reverse_transfers += times * cost.reverse_transfers;
            all.leaves += times * cost.leaves;
            all.pads += times * cost.pads;
            all.key_blocks += times * cost.key_blocks;
            all.slots += times * cost.slots;
            if exchange.method.is_mutual() {
                flights = cost.bytes.len().div_ceil(2).max(flights);
            }
        }
    });
    let depth = linear_depth(plan);
    let estimate = |network: &Network| {
        // The setup's three flights, then a wait per linear step that needs another one's result, and
        // one for the interactive steps behind the last; that one is longer if messages of trees follow each other,
        // half a wait each.
        let last = (flights as f64 / 2.0).max(1.0);
        let latency_ms = (2.0 + depth as f64 + last) * network.rtt_ms;
        let transfer_ms = to0.max(to1) as f64 * 8.0 / (network.mbit * 1e3);
        let compute_ms = seconds(&all) * 1e3;
        let total_ms = latency_ms + transfer_ms.max(compute_ms);
        let network = network.clone();
        OfflineEstimate { network, latency_ms, transfer_ms, compute_ms, total_ms }
    };
    OfflineReport {
        batch,
        messages,
        bytes_to_party0: to0,
        bytes_to_party1: to1,
        bytes_each_in_sixteen: (sixteen.0 + sixteen.1) / MAX_GROUP,
        linear_bytes,
        transfers: all.transfers + all.reverse_transfers,
        transforms: all.transforms.iter().sum(),
        leaves: all.leaves,
        slots: all.slots,
        encryption: plan.rlwe.iter().map(|set| (set.degree(), set.modulus_bits())).collect(),
        item_bytes: plan.item_bytes()[0],
        networks: networks.iter().map(estimate).collect(),
    }
}

/// Seconds of the slower party.
pub(super) fn seconds(cost: &Cost) -> f64 {
    let transfers = cost.transfers + cost.reverse_transfers;
    let of_all = cost.transforms.into_iter().max().unwrap_or(0) as f64 * TRANSFORM
        + transfers as f64 * TRANSFER
        + cost.leaves as f64 * LEAF
        + cost.pads as f64 * PAD
        + cost.key_blocks as f64 * KEY_BLOCK
        + cost.slots as f64 * SLOT;
    of_all / CORES
}

/// The longest chain of linear steps without an interactive step between.
fn linear_depth(plan: &Plan) -> usize {
    let mut depth = vec![0usize; plan.steps.len()];
    for (index, step) in plan.steps.iter().enumerate() {
        let before = step.operands.iter().map(|o| depth[o.index()]).max().unwrap_or(0);
        depth[index] = match &step.op {
            StepOp::Interactive(_) => 0,
            StepOp::Linear(_) => before + 1,
            StepOp::Input | StepOp::Constant | StepOp::Local(_) => before,
        };
    }
    depth.into_iter().max().unwrap_or(0) + 1
}

impl OfflineReport {
    /// The lines that people read.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("offline, by the two parties alone: {} messages", self.messages),
            format!(
                "  {} bytes to party 0, {} bytes to party 1, {} in all",
                thousands(self.bytes_to_party0),
                thousands(self.bytes_to_party1),
                thousands(self.bytes_to_party0 + self.bytes_to_party1)
            ),
            format!(
                "  {} bytes of them for linear steps; {} bytes per inference when {MAX_GROUP} are made together",
                thousands(self.linear_bytes),
                thousands(self.bytes_each_in_sixteen)
            ),
            format!(
                "  {} transforms, {} transfers, {} leaves of trees, {} slots; {} bytes per item in a store",
                thousands(self.transforms),
                thousands(self.transfers),
                thousands(self.leaves),
                thousands(self.slots),
                thousands(self.item_bytes)
            ),
        ];
        let sets = self.encryption.iter().map(|(degree, bits)| format!("{degree} of {bits} bits"));
        let sets: Vec<String> = sets.collect();
        if !sets.is_empty() {
            lines.push(format!("  ring-LWE of degree {}, 128 bits of security", sets.join(", ")));
        }
        lines.push("estimated time offline (two cores each):".into());
        for n in &self.networks {
            lines.push(format!(
                "  {:<10} {:>8.0} ms = {:.0} latency + the longer of {:.0} transfer, {:.0} compute",
                n.network.name, n.total_ms, n.latency_ms, n.transfer_ms, n.compute_ms
            ));
        }
        lines
    }
}
