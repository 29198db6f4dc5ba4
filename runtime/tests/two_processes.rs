//! The binary as people use it: two processes over loopback, and its refusals.

#[allow(dead_code, reason = "shared with the other tests of the binary")]
mod processes;

use polyrt::handshake::{HELLO_BYTES, Purpose};
use processes::{BATCH, Bench, refusal, testing::plans, text};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

#[test]
fn two_processes_agree_with_the_evaluator_and_use_items_up() {
    let bench = Bench::new("agree");
    let dealt = bench.run("deal plan.bin --count 7");
    assert!(dealt.status.success(), "{}", text(&dealt.stderr));
    assert!(text(&dealt.stderr).contains("DEALER"));
    let exists = refusal(&bench.run("deal plan.bin --count 7"), 2);
    assert!(exists.ends_with("party0.correlations exists: add --force to replace it"));

    let (plan, _) = plans::every_kind();
    let (to0, to1, messages) = plan.traffic(3);
    let (party0, address) = bench.serve("--runs 2 --dealer-correlations");
    let party1 = format!(
        "party1 plan.bin --input x.npy --output y.npy --connect {address} --dealer-correlations"
    );
    let out = bench.done(&party1);
    assert!(
        out.contains(&format!(
            "{messages} messages, {to0} bytes to party 0, {to1} bytes to party 1"
        ))
    );
    assert!(out.contains("from a dealer") && out.contains("not encrypted"));
    assert_eq!(out.lines().filter(|l| l.starts_with("input ")).count(), 3);
    bench.check_output("y.npy");
    let json: serde_json::Value =
        serde_json::from_str(&bench.done(&format!("{party1} --json"))).unwrap();
    assert_eq!(json["online"]["bytes_to_party0"], to0);
    assert_eq!((&json["correlations"], &json["items"]["made_now"]), (&"dealer".into(), &0.into()));
    assert_eq!(json["results"].as_array().unwrap().len(), 3);
    assert_eq!(json["wire"]["overhead_bytes"], 4 * messages, "four bytes per message");
    assert!(party0.finish().status.success());

    let runs = bench.both("--dealer-correlations", "--dealer-correlations plan.correlations");
    let left = "party 0 has 1 of 7 correlations left, party 1 1 of 7, and 3 are needed";
    runs.iter().for_each(|run| assert!(refusal(run, 1).contains(left)));
}

#[test]
fn without_a_dealer_the_two_parties_make_what_they_need() {
    let bench = Bench::new("alone");
    let (plan, _) = plans::every_kind();
    let (online, offline) = (plan.traffic(BATCH), plan.offline_traffic(BATCH));
    let runs = bench.both_json("", "");
    for run in &runs {
        for (phase, (to0, to1, messages)) in [("online", online), ("offline", offline)] {
            let phase = &run[phase];
            assert_eq!(phase["bytes_to_party0"], to0);
            assert_eq!(phase["bytes_to_party1"], to1);
            assert_eq!(phase["messages"], messages);
        }
        assert_eq!((&run["correlations"], &run["batch"]), (&"parties".into(), &BATCH.into()));
        let items = &run["items"];
        assert_eq!(
            (&items["first"], &items["end"], &items["made_now"]),
            (&0.into(), &0.into(), &BATCH.into())
        );
        let plain = (online.0 + online.1 + offline.0 + offline.1) as u64;
        let wire = |name: &str| run["wire"][name].as_u64().unwrap();
        let all = wire("bytes_sent") + wire("bytes_received") - wire("overhead_bytes");
        assert_eq!(all, plain + run["handshake_bytes"].as_u64().unwrap());
    }
    let mut names: Vec<_> = bench
        .0
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["plan.bin", "plan.weights", "x.npy", "y.npy"], "nothing is kept");
}

#[test]
fn a_dealer_that_one_party_alone_trusts_is_refused_at_both() {
    let bench = Bench::new("half_dealt");
    assert!(bench.run("deal plan.bin --count 3").status.success());
    let (dealer, parties) = ("a trusted dealer", "the two parties");
    for (options, makers) in [
        (["--dealer-correlations", ""], [dealer, parties]),
        (["", "--dealer-correlations"], [parties, dealer]),
    ] {
        let line = format!(
            "party 0 uses correlations made by {}, party 1 by {}: give both --dealer-correlations, or \
             neither",
            makers[0], makers[1]
        );
        assert_eq!(bench.turned_away(options[0], options[1]), [&*line; 2]);
    }
    assert_eq!(bench.listing("plan.correlations")[0]["unused"], 3, "nothing was used up");
}

/// Makes the keys of two parties; how either is started.
fn keys(bench: &Bench) -> [String; 2] {
    for name in ["a", "b"] {
        let made = bench.run(&format!("keygen --out {name}"));
        assert!(made.status.success(), "{}", text(&made.stderr));
    }
    ["--key a.key --peer-cert b.crt".into(), "--key b.key --peer-cert a.crt".into()]
}

#[test]
fn two_processes_over_tls() {
    let bench = Bench::new("tls");
    let [key0, key1] = keys(&bench);
    let (plan, _) = plans::every_kind();
    let online = plan.traffic(BATCH);
    let offline = plan.offline_traffic(BATCH);
    let (party0, address) = bench.serve(&format!("--runs 2 {key0}"));
    let party1 = format!("party1 plan.bin --input x.npy --output y.npy --connect {address} {key1}");
    let out = bench.done(&party1);
    bench.check_output("y.npy");
    for (phase, (to0, to1, messages)) in [("online", online), ("offline", offline)] {
        let line =
            format!("{phase}: {messages} messages, {to0} bytes to party 0, {to1} bytes to party 1");
        assert!(out.contains(&line), "{out} lacks {line}");
    }
    assert!(out.contains("correlations: by the two parties alone, 3 made now"), "{out}");
    assert!(out.contains("link: TLS 1.3, encrypted both ways; we are "), "{out}");
    assert!(out.contains("TLS framing: "), "{out}");
    let json: serde_json::Value =
        serde_json::from_str(&bench.done(&format!("{party1} --json"))).unwrap();
    let wire = &json["wire"];
    assert_eq!(
        (&wire["tls"], &json["online"]["bytes_to_party0"]),
        (&true.into(), &online.0.into())
    );
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let plain = (online.0 + online.1 + offline.0 + offline.1) as u64;
    let all = number(&wire["bytes_sent"]) + number(&wire["bytes_received"]);
    assert_eq!(number(&wire["overhead_bytes"]), all - plain - number(&json["handshake_bytes"]));
    let served = party0.finish();
    assert!(served.status.success() && text(&served.stdout).contains("link: TLS 1.3"));
}

#[test]
fn a_stranger_is_refused_in_a_line_on_both_sides() {
    let bench = Bench::new("stranger");
    let [key0, key1] = keys(&bench);
    assert!(bench.run("keygen --out c").status.success());
    let out = text(&bench.run("keygen --out d").stdout);
    assert!(
        out.contains("private key: d.key (stays here)") && out.contains("--key d.key"),
        "{out}"
    );
    let cases = [
        (&*key0, "--key c.key --peer-cert a.crt", "showed certificate", "refused our certificate"),
        (&key0, "--key b.key --peer-cert c.crt", "refused our certificate", "showed certificate"),
        (&key0, "", "the peer does not speak TLS", "the peer speaks TLS, this side does not"),
        ("", &key1, "the peer speaks TLS, this side does not", "the peer does not speak TLS"),
    ];
    for (link0, link1, line0, line1) in cases {
        let [error0, error1] = bench.turned_away(&format!("--timeout 20 {link0}"), link1);
        assert!(error0.contains(line0), "{error0}");
        assert!(error1.contains(line1), "{error1}");
    }
}

#[test]
fn keys_are_made_once_and_read_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new("keygen");
    std::fs::create_dir(bench.0.join("keys")).unwrap();
    for (out, key, certificate) in
        [("keys", "keys/polyrt.key", "keys/polyrt.crt"), ("us.v1", "us.v1.key", "us.v1.crt")]
    {
        let made = bench.run(&format!("keygen --out {out}"));
        let fingerprint = text(&made.stdout);
        let read = |name: &str| std::fs::read(bench.0.join(name)).unwrap();
        let mode = |name: &str| bench.0.join(name).metadata().unwrap().permissions().mode() & 0o777;
        let before = (read(key), read(certificate));
        assert_eq!((mode(key), mode(certificate) & 0o400), (0o600, 0o400));
        let again = refusal(&bench.run(&format!("keygen --out {out}")), 2);
        assert!(again.ends_with(&format!("{key} exists: add --force to replace it")), "{again}");
        assert_eq!((read(key), read(certificate)), before);
        let forced = bench.run(&format!("keygen --force --out {out}"));
        assert!(forced.status.success() && text(&forced.stdout) != fingerprint);
        assert!(read(key) != before.0 && read(certificate) != before.1 && mode(key) == 0o600);
    }
    let mut names: Vec<_> = bench
        .0
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["keys", "plan.bin", "plan.weights", "us.v1.crt", "us.v1.key", "x.npy"]);
}

#[test]
fn a_link_that_is_half_described_is_refused() {
    let bench = Bench::new("half");
    keys(&bench);
    for (link, line) in [
        ("--key a.key", "--key without --peer-cert: "),
        ("--peer-cert a.crt", "--peer-cert without --key: "),
        ("--key a.key --peer-cert none.crt", "none.crt: No such file"),
        ("--key a.crt --peer-cert b.crt", "a.crt: not a private key: "),
        ("--key a.key --peer-cert plan.bin", "plan.bin: not a certificate: "),
        ("--key a.key --cert b.crt --peer-cert b.crt", "a.key: the key does not belong to "),
        ("--key a.key --peer-cert a.crt", "a.crt: this is our own certificate "),
    ] {
        for party in ["party0 plan.bin", "party1 plan.bin --input x.npy"] {
            let refused = refusal(&bench.run(&format!("{party} {link}")), 2);
            assert!(refused.contains(line), "{refused}");
        }
    }
    let both = bench.run("party0 plan.bin --insecure --key a.key --peer-cert b.crt");
    assert_eq!(both.status.code(), Some(2));
    let insecure = bench.run("party0 plan.bin --listen 0.0.0.0:0 --insecure --wait 0");
    assert!(text(&insecure.stderr).contains("NOT ENCRYPTED, PEER UNKNOWN: whoever is on the path"));
    assert!(refusal(&insecure, 1).contains("waiting for party 1: nobody connected within 0"));
}

#[test]
fn a_relay_makes_a_network_between_two_processes() {
    let bench = Bench::new("relay");
    assert!(bench.run("deal plan.bin --count 3").status.success());
    let [key0, key1] = keys(&bench);
    let (party0, address0) = bench.serve(&format!("{key0} --dealer-correlations"));
    let relay = format!("relay --listen 127.0.0.1:0 --connect {address0} --rtt 30 --rate 1000");
    let mut relay = bench.start(&relay);
    let line = relay.line();
    assert!(line.ends_with("with a round trip of 30 ms and 1000 Mbit/s each way"), "{line}");
    let address = line.split("listens at ").nth(1).and_then(|t| t.split(';').next()).unwrap();
    let party1 = "party1 plan.bin --input x.npy --json --dealer-correlations";
    let run = bench.done(&format!("{party1} --connect {address} {key1}"));
    let json: serde_json::Value = serde_json::from_str(&run).unwrap();
    let (plan, _) = plans::every_kind();
    // Input and output besides an opening and a response per round.
    let trips = plan.rounds().iter().filter(|round| !round.trips.is_empty()).count() + 1;
    let seconds = json["online"]["seconds"].as_f64().unwrap();
    assert!(seconds >= trips as f64 * 0.03, "{trips} round trips took {seconds} s");
    assert!(party0.finish().status.success());
    drop(relay);
    for (arguments, line) in [
        ("--network lan --rate 0", "--rate is 0, expected 0.001 to 1000000 Mbit/s"),
        ("--network far --rtt -1", "--rtt is -1, expected 0 to 60000 ms"),
        ("--network wan --connect 192.0.2.1:9", "and a relay is for one machine"),
    ] {
        let refused = refusal(&bench.run(&format!("relay {arguments}")), 2);
        assert!(refused.ends_with(line), "{refused}");
    }
    assert_eq!(bench.run("relay --rtt 30").status.code(), Some(2));
}

#[test]
fn local_runs_both_parties() {
    let bench = Bench::new("local");
    for dealer in ["", "--dealer"] {
        bench.done(&format!("local plan.bin --input x.npy --output y.npy {dealer}"));
        bench.check_output("y.npy");
        std::fs::remove_file(bench.0.join("y.npy")).unwrap();
    }
    assert!(!bench.0.join("plan.correlations").exists());
}

#[test]
fn refusals_are_one_line_and_have_a_status() {
    let bench = Bench::new("refusals");
    for party in ["party0 plan.bin", "party1 plan.bin --input x.npy"] {
        let missing = refusal(&bench.run(&format!("{party} --dealer-correlations")), 2);
        assert!(missing.ends_with("make some with `polyrt deal plan.bin --count N`"), "{missing}");
    }
    let closed =
        refusal(&bench.run("party1 plan.bin --input x.npy --connect 127.0.0.1:1 --wait 0"), 1);
    assert!(closed.contains("nothing listens at 127.0.0.1:1"), "{closed}");
    for arguments in [
        "party1 plan.bin --input x.npy --connect 192.0.2.1:9",
        "party0 plan.bin --listen 0.0.0.0:0",
    ] {
        assert!(refusal(&bench.run(arguments), 2).contains("not a loopback address"));
    }
    let none = refusal(&bench.run("local none.bin --input x.npy"), 2);
    assert!(none.contains("none.bin: No such file"), "{none}");
    let swapped = refusal(&bench.run("local plan.weights --input x.npy"), 2);
    assert!(swapped.ends_with("plan.weights is not a polyc plan"), "{swapped}");
    let array = refusal(&bench.run("local plan.bin --input plan.bin"), 2);
    assert!(array.contains("plan.bin: not a readable NumPy array"), "{array}");
    assert_eq!(bench.run("deal plan.bin").status.code(), Some(2));
    refusal(&bench.run("deal plan.bin --count 0 --force"), 2);
    assert!(bench.run("--help").status.success());
}

#[test]
fn one_process_at_a_time_has_a_correlation_file() {
    let bench = Bench::new("locked");
    assert!(bench.run("deal plan.bin --count 1").status.success());
    let (_party0, _) = bench.serve("--dealer-correlations");
    let second = "party0 plan.bin --listen 127.0.0.1:0 --wait 30 --dealer-correlations";
    let second = refusal(&bench.run(second), 1);
    assert!(second.contains("is in use by another process"), "{second}");
}

/// A peer that shakes hands, and then has nothing to say that makes sense.
#[test]
fn a_peer_that_agrees_and_then_lies_is_told_in_a_line() {
    let bench = Bench::new("lies");
    // Party 0 says about the weights what it likes.
    let agree = |stream: &mut TcpStream, is_party0: bool| {
        let (mut hello, mut confirmation) = ([0; HELLO_BYTES], [0; 16]);
        stream.read_exact(&mut hello).unwrap();
        if is_party0 {
            hello[10] = 0;
            hello[96..].fill(3);
            stream.write_all(&hello).unwrap();
        }
        stream.read_exact(&mut confirmation).unwrap();
        stream.write_all(&confirmation).unwrap();
    };
    type Lie = fn(&mut TcpStream);
    let lies: [(&str, Lie); 4] = [
        ("ones", |stream| drop(stream.write_all(&[0xff; 1 << 20]))),
        ("zeros", |stream| drop(stream.write_all(&[0; 1 << 20]))),
        ("goes", |stream| drop(stream.shutdown(Shutdown::Both))),
        ("is silent", |_| ()),
    ];
    for (name, lie) in lies {
        let (party0, address) = bench.serve("--timeout 1");
        let mut stream = bench.greet(&address, Purpose::Run, 1);
        agree(&mut stream, false);
        lie(&mut stream);
        let line0 = refusal(&party0.finish(), 1);
        drop(stream);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::fs::write(bench.0.join("one.npy"), one_input()).unwrap();
        let party1 = bench
            .start(&format!("party1 plan.bin --input one.npy --connect {address} --timeout 1"));
        let (mut stream, _) = listener.accept().unwrap();
        agree(&mut stream, true);
        lie(&mut stream);
        let line1 = refusal(&party1.finish(), 1);
        for line in [line0, line1] {
            assert!(line.starts_with("error: setting up the offline phase: "), "{name}: {line}");
        }
    }
}

/// An input array of one.
fn one_input() -> Vec<u8> {
    let (plan, _) = plans::every_kind();
    ir::array_file::write_npy(&plans::inputs(&plan, 1, 8)[0])
}
