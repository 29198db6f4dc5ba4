//! What a run prints, for people and as JSON.

use ir::Tensor;
use ir::plan::{OutputPort, Plan, Verdict};
use polyrt::Finished;
use polyrt::handshake::Agreement;
use polyrt::net::Traffic;
use polyrt::preprocess::store::Store;
use polyrt::preprocess::{Role, Supply};
use polyrt::session::Offline;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Says what a dealer means; part of every output of a run that used one.
pub const DEALER: &str = "correlations: from a dealer, who must be trusted: by party 0 with the model, \
by party 1 not to show party 0 the masks";

/// How many inputs are printed one by one.
const MOST_LINES: usize = 20;

/// A line per input and output: what it means.
pub fn answers(plan: &Plan, logits: &[Tensor<f32>]) {
    for (i, logits) in logits.iter().take(MOST_LINES).enumerate() {
        for (port, scores) in plan.outputs.iter().zip(plan.scores(logits)) {
            let of = if plan.outputs.len() == 1 { "" } else { &format!(", {}", port.name) };
            say!("input {i}{of}: {}", port.verdict(&scores).told(&port.classes));
        }
    }
    if logits.len() > MOST_LINES {
        say!("… and {} more inputs", logits.len() - MOST_LINES);
    }
}

fn verdict(port: &OutputPort, scores: &Tensor<f32>) -> Value {
    let mut json = match port.verdict(scores) {
        Verdict::Class { class, top } => {
            let top: Vec<Value> =
                top.iter().map(|&(c, score)| json!({"class": c, "logit": score})).collect();
            json!({"class": class, "top": top})
        }
        Verdict::Binary { class, score, is_probability } => {
            let name = if is_probability { "probability" } else { "logit" };
            json!({"class": class, name: score})
        }
        Verdict::Classes { shape, classes } => json!({"classes": classes, "shape": shape.0}),
        Verdict::Values(values) => json!({"values": values}),
        Verdict::Array { shape, range: (low, high) } => {
            json!({"shape": shape.0, "least": low, "largest": high})
        }
    };
    json["task"] = port.task.name().into();
    json
}

/// The traffic and the time of a party's run.
pub fn traffic<T>(role: Role, run: &Finished<T>) {
    if run.offline.items > 0 {
        offline(role, &run.offline);
    }
    phase("online", role, &run.online, run.elapsed);
}

/// What preprocessing took.
pub fn offline(role: Role, offline: &Offline) {
    phase("offline", role, &offline.traffic, offline.elapsed);
}

fn phase(name: &str, role: Role, traffic: &Traffic, elapsed: Duration) {
    let (to0, to1) = directions(role, traffic);
    say!(
        "{name}: {} messages, {to0} bytes to party 0, {to1} bytes to party 1, {:.1} ms",
        traffic.sent_messages + traffic.received_messages,
        elapsed.as_secs_f64() * 1e3
    );
}

fn directions(role: Role, traffic: &Traffic) -> (usize, usize) {
    match role {
        Role::Party0 => (traffic.received_bytes, traffic.sent_bytes),
        Role::Party1 => (traffic.sent_bytes, traffic.received_bytes),
    }
}

fn phase_json(role: Role, traffic: &Traffic, elapsed: Duration) -> Value {
    let (to0, to1) = directions(role, traffic);
    json!({
        "messages": traffic.sent_messages + traffic.received_messages,
        "bytes_to_party0": to0,
        "bytes_to_party1": to1,
        "seconds": elapsed.as_secs_f64(),
    })
}

/// What a store holds after items were prepared.
pub struct Stored {
    /// Unused items.
    pub unused: u64,
    /// Bytes of one.
    pub item_bytes: usize,
}

impl Stored {
    /// Of an open store.
    pub fn of<M>(store: &Store<'_, M>) -> Self {
        let offer = store.offer();
        Self { unused: offer.count - offer.next, item_bytes: store.item_bytes() }
    }
}

/// What `polyrt prepare` did.
pub fn prepared_json(
    role: Role,
    offline: &Offline,
    agreement: &Agreement,
    store: &Stored,
) -> Value {
    json!({
        "role": name(role),
        "deal": agreement.deal.to_string(),
        "first": agreement.serials.start,
        "items": offline.items,
        "offline": phase_json(role, &offline.traffic, offline.elapsed),
        "unused": store.unused,
        "item_bytes": store.item_bytes,
    })
}

fn name(role: Role) -> &'static str {
    if role == Role::Party0 { "party0" } else { "party1" }
}

/// The outputs of one input as plain numbers: a list, or a list per name.
pub fn plain(plan: &Plan, outputs: &[Tensor<f32>]) -> Value {
    match outputs {
        [only] => json!(only.data),
        several => {
            let named = plan.outputs.iter().zip(several);
            named.map(|(port, y)| (port.name.clone(), json!(y.data))).collect::<Map<_, _>>().into()
        }
    }
}

/// The same as JSON; `logits` are empty for party 0.
pub fn json<T>(
    role: Role,
    run: &Finished<T>,
    batch: usize,
    (plan, logits): (&Plan, &[Tensor<f32>]),
    link: &str,
) -> Value {
    let of_input = |y: &Tensor<f32>| match (&plan.outputs[..], &plan.scores(y)[..]) {
        ([port], [only]) => verdict(port, only),
        (ports, several) => {
            let named = ports.iter().zip(several);
            let named = named.map(|(port, y)| (port.name.clone(), verdict(port, y)));
            named.collect::<Map<_, _>>().into()
        }
    };
    let results: Vec<Value> = logits.iter().map(of_input).collect();
    let handshake = run.handshake;
    json!({
        "role": name(role),
        "batch": batch,
        "online": phase_json(role, &run.online, run.elapsed),
        "offline": phase_json(role, &run.offline.traffic, run.offline.elapsed),
        "handshake_bytes": handshake.sent_bytes + handshake.received_bytes,
        "link": link,
        "results": results,
    })
}
