//! What a run prints, for people and as JSON.

use ir::Tensor;
use polyrt::Finished;
use polyrt::offline::Role;
use serde_json::{Value, json};

/// Says what a dealer means; part of every output of a run that used one.
pub const DEALER: &str = "correlations: from a dealer, who must be trusted: by party 0 with the model, \
by party 1 not to show party 0 the masks";

/// How many logits are printed per input.
const TOP: usize = 3;
/// Outputs larger than this are not classes.
const MOST_CLASSES: usize = 100_000;
/// How many inputs are printed one by one.
const MOST_LINES: usize = 20;

/// The indices of the largest logits, the largest first.
fn top(logits: &Tensor<f32>) -> Vec<usize> {
    if logits.data.len() > MOST_CLASSES {
        return vec![];
    }
    let mut order: Vec<usize> = (0..logits.data.len()).collect();
    order.sort_by(|&a, &b| logits.data[b].total_cmp(&logits.data[a]));
    order.truncate(TOP);
    order
}

/// A line per input.
pub fn classes(logits: &[Tensor<f32>]) {
    for (i, logits) in logits.iter().take(MOST_LINES).enumerate() {
        let top = top(logits);
        let Some(class) = top.first() else { continue };
        let values: Vec<String> =
            top.iter().map(|&c| format!("{c}: {:.3}", logits.data[c])).collect();
        println!("input {i}: class {class} ({})", values.join(", "));
    }
    if logits.len() > MOST_LINES {
        println!("… and {} more inputs", logits.len() - MOST_LINES);
    }
}

/// The traffic and the time of a party's run.
pub fn traffic<T>(role: Role, run: &Finished<T>) {
    let (to0, to1) = directions(role, run);
    println!(
        "online: {} messages, {to0} bytes to party 0, {to1} bytes to party 1, {:.1} ms",
        run.online.sent_messages + run.online.received_messages,
        run.elapsed.as_secs_f64() * 1e3
    );
}

fn directions<T>(role: Role, run: &Finished<T>) -> (usize, usize) {
    match role {
        Role::Party0 => (run.online.received_bytes, run.online.sent_bytes),
        Role::Party1 => (run.online.sent_bytes, run.online.received_bytes),
    }
}

/// The same as JSON; `logits` are empty for party 0.
pub fn json<T>(
    role: Role,
    run: &Finished<T>,
    batch: usize,
    logits: &[Tensor<f32>],
    link: &str,
) -> Value {
    let (to0, to1) = directions(role, run);
    let results: Vec<Value> = logits
        .iter()
        .map(|y| {
            let top = top(y);
            let values: Vec<Value> =
                top.iter().map(|&c| json!({"class": c, "logit": y.data[c]})).collect();
            json!({"class": top.first(), "top": values})
        })
        .collect();
    let handshake = run.handshake;
    json!({
        "role": if role == Role::Party0 { "party0" } else { "party1" },
        "batch": batch,
        "online": {
            "messages": run.online.sent_messages + run.online.received_messages,
            "bytes_to_party0": to0,
            "bytes_to_party1": to1,
            "seconds": run.elapsed.as_secs_f64(),
        },
        "handshake_bytes": handshake.sent_bytes + handshake.received_bytes,
        "correlations": "dealer",
        "link": link,
        "results": results,
    })
}
