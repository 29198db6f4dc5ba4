//! What `polyc report` expects of time, against two processes over a shaped network. Bounds are wide: other
//! work shares the machine.

use polyc::report::{Network, report};
use polyrt::net::relay::{self, Relay};
use serde_json::Value;
use std::time::Duration;
use support::{Listening, compiled, polyrt, run, shipped, stderr, stdout};

#[test]
fn a_run_takes_what_the_report_expects() {
    let owner = compiled("digits_resnet");
    let mut deal = polyrt(&owner.folder);
    assert!(run(deal.args(["deal", "plan.bin", "--count", "20"])).status.success());
    // Slow enough that latency and transfer are most of it, each of them.
    let (rtt_ms, mbit) = (30.0, 2.0);
    let network = Network { name: "slow".into(), rtt_ms, mbit };
    let expected = report(&owner.plan, owner.weights.plan, 20, &[network]);
    let [expected] = expected.networks.as_slice() else { panic!("one network") };
    assert!(expected.transfer_ms > 100.0 && expected.latency_ms > 100.0, "{expected:?}");
    let party0 = Listening::start(&owner.folder, &[]);
    let network =
        relay::Network { round_trip: Duration::from_secs_f64(rtt_ms / 1e3), rate: mbit * 1e6 };
    let listen = ["127.0.0.1:0".parse().unwrap()];
    let to = party0.address.parse().unwrap();
    let relay = Relay::start(&listen, to, network, |e| panic!("{e}")).unwrap();
    let mut party1 = polyrt(&owner.folder);
    party1.args(["party1", "plan.bin", "--dealer-correlations", "plan.correlations", "--json"]);
    party1.args(["--connect", &relay.address().to_string(), "--input"]);
    let output = run(party1.arg(shipped("digits_20.npy")));
    assert!(output.status.success(), "{}", stderr(&output));
    let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let took = 1e3 * answer["online"]["seconds"].as_f64().unwrap();
    let floor = expected.latency_ms + expected.transfer_ms;
    assert!(took >= 0.97 * floor, "{took} ms, and {expected:?}");
    assert!(took <= 1.3 * expected.total_ms + 300.0, "{took} ms, and {expected:?}");
}
