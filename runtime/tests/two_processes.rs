//! The binary as people use it: two processes over loopback, and its refusals.

#[allow(dead_code, reason = "shared with the unit tests, which use more of it")]
#[path = "../src/testing/mod.rs"]
mod testing;

use ir::Tensor;
use ir::array_file::{read_npy, write_npy};
use ir::plan::{Evaluator, Rounding};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use testing::plans;

struct Bench(PathBuf);

impl Bench {
    /// A directory with a plan, its weights and three inputs.
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("polyrt-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let (plan, weights) = plans::every_kind();
        std::fs::write(path.join("plan.bin"), plan.to_bytes().0).unwrap();
        std::fs::write(path.join("plan.weights"), weights.to_bytes(None)).unwrap();
        let inputs = plans::inputs(&plan, 3, 8);
        let data = inputs.iter().flat_map(|x| x.data.clone()).collect();
        let mut shape = plan.input_shape().clone();
        shape.0[0] = 3;
        std::fs::write(path.join("x.npy"), write_npy(&Tensor::new(shape, data))).unwrap();
        Self(path)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_polyrt"));
        command.current_dir(&self.0).args(arguments.split_whitespace());
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts party 0 on a free port and returns it with the address.
    fn serve(&self, arguments: &str) -> (Child, String) {
        let mut child = self
            .command(&format!("party0 plan.bin --listen 127.0.0.1:0 {arguments}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = address(&lines.next().unwrap().unwrap());
        std::thread::spawn(move || lines.for_each(drop));
        (child, address)
    }
}
impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where party 0 says that it listens.
fn address(line: &str) -> String {
    line.split("listens at ").nth(1).unwrap().split(';').next().unwrap().into()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The last line of stderr of a command that must fail with `status`.
fn refusal(output: &Output, status: i32) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    let line = stderr.lines().last().unwrap_or_default().to_owned();
    assert!(line.starts_with("error: "), "{stderr}");
    line
}

fn check_output(path: &Path) {
    let (plan, weights) = plans::every_kind();
    let encoded: Vec<_> =
        plans::inputs(&plan, 3, 8).iter().map(|x| plan.encode_input(x).unwrap()).collect();
    let evaluator = Evaluator::new(&plan, &weights);
    let noise = ir::plan::carry_noise(&evaluator, &encoded, 30);
    let exact = evaluator.run_batch(&encoded, Rounding::Nearest);
    let got = read_npy(&std::fs::read(path).unwrap()).unwrap().tensor;
    assert_eq!(got.shape.0, [3, 5]);
    for (a, b) in got.data.iter().zip(exact.iter().flat_map(|y| &y.data)) {
        assert!(f64::from(a - b).abs() <= noise.bound, "{a} {b} {}", noise.bound);
    }
}

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
    let (party0, address) = bench.serve("--runs 2");
    let run =
        bench.run(&format!("party1 plan.bin --input x.npy --output y.npy --connect {address}"));
    let out = text(&run.stdout);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(
        out.contains(&format!(
            "{messages} messages, {to0} bytes to party 0, {to1} bytes to party 1"
        ))
    );
    assert!(out.contains("from a dealer") && out.contains("not encrypted"));
    assert_eq!(out.lines().filter(|l| l.starts_with("input ")).count(), 3);
    check_output(&bench.0.join("y.npy"));
    let run = bench.run(&format!("party1 plan.bin --input x.npy --json --connect {address}"));
    let json: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(json["online"]["bytes_to_party0"], to0);
    assert_eq!(json["results"].as_array().unwrap().len(), 3);
    assert_eq!(json["wire"]["overhead_bytes"], 4 * messages, "four bytes per message");
    assert!(party0.wait_with_output().unwrap().status.success());

    let (party0, address) = bench.serve("");
    let run = bench.run(&format!("party1 plan.bin --input x.npy --connect {address}"));
    let left = "party 0 has 1 of 7 correlations left, party 1 1 of 7, and 3 are needed";
    assert!(refusal(&run, 1).contains(left));
    assert_eq!(party0.wait_with_output().unwrap().status.code(), Some(1));
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
    assert!(bench.run("deal plan.bin --count 6").status.success());
    let [key0, key1] = keys(&bench);
    let (plan, _) = plans::every_kind();
    let (to0, to1, messages) = plan.traffic(3);
    let (party0, address) = bench.serve(&format!("--runs 2 {key0}"));
    let party1 = format!("party1 plan.bin --input x.npy --output y.npy --connect {address} {key1}");
    let run = bench.run(&party1);
    assert!(run.status.success(), "{}", text(&run.stderr));
    check_output(&bench.0.join("y.npy"));
    let out = text(&run.stdout);
    assert!(
        out.contains(&format!(
            "{messages} messages, {to0} bytes to party 0, {to1} bytes to party 1"
        ))
    );
    assert!(out.contains("link: TLS 1.3, encrypted both ways; we are "), "{out}");
    assert!(out.contains("TLS framing: "), "{out}");
    let run = bench.run(&format!("{party1} --json"));
    let json: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let (wire, online) = (&json["wire"], &json["online"]);
    assert_eq!((&wire["tls"], &online["bytes_to_party0"]), (&true.into(), &to0.into()));
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let plain = (to0 + to1) as u64 + number(&json["handshake_bytes"]);
    let all = number(&wire["bytes_sent"]) + number(&wire["bytes_received"]);
    assert_eq!(number(&wire["overhead_bytes"]), all - plain);
    let served = party0.wait_with_output().unwrap();
    assert!(served.status.success() && text(&served.stdout).contains("link: TLS 1.3"));
}

#[test]
fn a_stranger_is_refused_in_a_line_on_both_sides() {
    let bench = Bench::new("stranger");
    assert!(bench.run("deal plan.bin --count 1").status.success());
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
        let mut party0 =
            bench.command(&format!("party0 plan.bin --listen 127.0.0.1:0 --timeout 20 {link0}"));
        let mut party0 = party0.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(party0.stderr.take().unwrap()).lines().map(Result::unwrap);
        let address = address(&lines.next().unwrap());
        let party1 =
            bench.run(&format!("party1 plan.bin --input x.npy --connect {address} {link1}"));
        let (error0, error1) = (lines.last().unwrap(), refusal(&party1, 1));
        assert!(error0.starts_with("error: ") && error0.contains(line0), "{error0}");
        assert!(error1.contains(line1), "{error1}");
        assert_eq!(party0.wait().unwrap().code(), Some(1));
        assert_eq!(text(&party1.stderr).lines().count(), 1);
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
    assert!(bench.run("deal plan.bin --count 1").status.success());
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
    let (party0, address0) = bench.serve(&key0);
    let mut relay = bench
        .command(&format!("relay --listen 127.0.0.1:0 --connect {address0} --rtt 30 --rate 1000"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(relay.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with("with a round trip of 30 ms and 1000 Mbit/s each way\n"), "{line}");
    let run = bench
        .run(&format!("party1 plan.bin --input x.npy --json --connect {} {key1}", address(&line)));
    assert!(run.status.success(), "{}", text(&run.stderr));
    let json: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let (plan, _) = plans::every_kind();
    // Input and output besides a question and an answer per round.
    let trips = plan.rounds().iter().filter(|round| !round.activations.is_empty()).count() + 1;
    let seconds = json["online"]["seconds"].as_f64().unwrap();
    assert!(seconds >= trips as f64 * 0.03, "{trips} round trips took {seconds} s");
    assert!(party0.wait_with_output().unwrap().status.success());
    relay.kill().unwrap();
    relay.wait().unwrap();
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
    let run = bench.run("local plan.bin --input x.npy --output y.npy");
    assert!(run.status.success(), "{}", text(&run.stderr));
    check_output(&bench.0.join("y.npy"));
    assert!(!bench.0.join("plan.correlations").exists());
}

#[test]
fn refusals_are_one_line_and_have_a_status() {
    let bench = Bench::new("refusals");
    let missing = refusal(&bench.run("party1 plan.bin --input x.npy"), 2);
    assert!(missing.ends_with("make some with `polyrt deal plan.bin --count N`"), "{missing}");
    assert!(bench.run("deal plan.bin --count 1").status.success());
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
    let (mut party0, _) = bench.serve("");
    let second = refusal(&bench.run("party0 plan.bin --listen 127.0.0.1:0"), 1);
    assert!(second.contains("is in use by another process"), "{second}");
    party0.kill().unwrap();
    party0.wait().unwrap();
}

#[test]
fn a_client_that_hangs_is_let_go() {
    let bench = Bench::new("hang");
    assert!(bench.run("deal plan.bin --count 1").status.success());
    let (party0, address) = bench.serve("--timeout 1");
    let stream = std::net::TcpStream::connect(&address).unwrap();
    assert_eq!(party0.wait_with_output().unwrap().status.code(), Some(1));
    drop(stream);
}
