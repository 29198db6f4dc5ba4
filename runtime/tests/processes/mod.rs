//! What the tests of the binary share: processes that cannot outlive or hang a test, and a folder with a
//! plan.

#[allow(dead_code, reason = "shared with the unit tests, which use more of it")]
#[path = "../../src/testing/mod.rs"]
pub mod testing;

use ir::Tensor;
use ir::array_file::{read_npy, write_npy};
use ir::plan::{Digest, Evaluator, Plan, Rounding, StepWeights, Weights};
use polyrt::handshake::{Hello, Purpose};
use polyrt::preprocess::store::NoSupply;
use polyrt::preprocess::{DealId, Network, Role, Supply};
use polyrt::steps::Tables;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testing::plans;

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);
/// Inputs in `x.npy`.
pub const BATCH: usize = 3;

/// A process; killed when dropped, and when it has not ended in time.
pub struct Process {
    child: Child,
    what: String,
    out: Option<JoinHandle<Vec<u8>>>,
    lines: Receiver<String>,
    err: String,
}

impl Process {
    /// Starts a command.
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let out = std::thread::spawn(move || {
            let mut bytes = vec![];
            let _ = stdout.read_to_end(&mut bytes);
            bytes
        });
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, what, out: Some(out), lines, err: String::new() }
    }

    /// The next line of stderr.
    pub fn line(&mut self) -> String {
        let line = self.lines.recv_timeout(DEADLINE);
        let line = line.unwrap_or_else(|e| panic!("{}: {e} after {:?}", self.what, self.err));
        self.err += &format!("{line}\n");
        line
    }

    /// The address that party 0 says on its first line.
    pub fn address(&mut self) -> String {
        let line = self.line();
        let address = line.split(" at ").nth(1).and_then(|rest| rest.split([';', ' ']).next());
        address.unwrap_or_else(|| panic!("no address: {line}")).to_owned()
    }

    /// Why party 0 turns the next peer away.
    pub fn turned_away(&mut self) -> String {
        loop {
            let line = self.line();
            if let Some((_, why)) = line.split_once("turned away 127.0.0.1:") {
                return why.split_once(": ").unwrap().1.to_owned();
            }
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits for its end. None may ever panic or take for ever.
    pub fn finish(mut self) -> Output {
        let start = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > DEADLINE {
                self.kill();
                self.err.extend(self.lines.iter().map(|line| line + "\n"));
                panic!("{} hangs: {}", self.what, self.err);
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        self.err.extend(self.lines.iter().map(|line| line + "\n"));
        assert!(!self.err.contains("panicked"), "{}: {}", self.what, self.err);
        let stdout = self.out.take().unwrap().join().unwrap();
        Output { status, stdout, stderr: std::mem::take(&mut self.err).into_bytes() }
    }
}
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a plan, its weights and [`BATCH`] inputs; removed when dropped.
pub struct Bench(pub PathBuf);

impl Bench {
    /// One whose plan has a step of every kind.
    pub fn new(name: &str) -> Self {
        Self::with(name, &plans::every_kind())
    }

    /// One with this plan.
    pub fn with(name: &str, (plan, weights): &(Plan, Weights)) -> Self {
        let path = std::env::temp_dir().join(format!("polyrt-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("plan.bin"), plan.to_bytes().0).unwrap();
        std::fs::write(path.join("plan.weights"), weights.to_bytes(None)).unwrap();
        let inputs = plans::inputs(plan, BATCH, 8);
        let data = inputs.iter().flat_map(|x| x.data.clone()).collect();
        let mut shape = plan.input_shape().clone();
        shape.0[0] = BATCH;
        std::fs::write(path.join("x.npy"), write_npy(&Tensor::new(shape, data))).unwrap();
        Self(path)
    }

    /// `polyrt` with these arguments.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_polyrt"));
        command.current_dir(&self.0).args(arguments.split_whitespace());
        command
    }

    /// Starts `polyrt`.
    pub fn start(&self, arguments: &str) -> Process {
        Process::start(&mut self.command(arguments))
    }

    /// Runs `polyrt` to its end.
    pub fn run(&self, arguments: &str) -> Output {
        self.start(arguments).finish()
    }

    /// Runs `polyrt`, which must succeed, and returns what it printed.
    pub fn done(&self, arguments: &str) -> String {
        done(self.run(arguments))
    }

    /// Starts party 0 on a free port and returns it with the address.
    pub fn serve(&self, arguments: &str) -> (Process, String) {
        let mut party0 =
            self.start(&format!("party0 plan.bin --listen 127.0.0.1:0 --wait 30 {arguments}"));
        let address = party0.address();
        (party0, address)
    }

    /// Runs both parties to their ends.
    pub fn both(&self, arguments0: &str, arguments1: &str) -> [Output; 2] {
        let (party0, address) = self.serve(arguments0);
        let party1 = format!("party1 plan.bin --input x.npy --connect {address} {arguments1}");
        let party1 = self.run(&party1);
        [party0.finish(), party1]
    }

    /// Starts party 0, which turns party 1 away, and runs party 1, which fails: why, as each of them says.
    pub fn turned_away(&self, arguments0: &str, arguments1: &str) -> [String; 2] {
        let (mut party0, address) = self.serve(arguments0);
        let party1 = format!("party1 plan.bin --input x.npy --connect {address} {arguments1}");
        let party1 = refusal(&self.run(&party1), 1);
        [party0.turned_away(), party1.replace("error: ", "")]
    }

    /// Plan and digest.
    pub fn plan(&self) -> (Plan, Digest) {
        Plan::from_bytes(&std::fs::read(self.0.join("plan.bin")).unwrap()).unwrap()
    }

    /// What party 1 says about itself.
    pub fn hello(&self, purpose: Purpose, batch: u32) -> Hello {
        let (plan, digest) = self.plan();
        let supply = NoSupply::<()>::new(Role::Party1, Network::of_party1(digest), DealId([1; 16]));
        let tables = Tables::new(&plan).digest();
        Hello { batch, tables, purpose, is_replaceable: true, offer: supply.offer() }
    }

    /// Connects to party 0 and says hello as party 1 would.
    pub fn greet(&self, address: &str, purpose: Purpose, batch: u32) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&self.hello(purpose, batch).to_bytes()).unwrap();
        stream
    }

    /// Puts weights under the plan that differ in their salt, and if asked in numbers.
    pub fn change_weights(&self, are_numbers_changed: bool) {
        let path = self.0.join("plan.weights");
        let (plan, digest) = self.plan();
        let bytes = std::fs::read(&path).unwrap();
        let mut weights = Weights::from_bytes(&bytes, &plan, digest).unwrap();
        weights.salt[0] ^= 1;
        for step in &mut weights.steps {
            if let (true, StepWeights::Linear { weights, .. }) = (are_numbers_changed, step) {
                weights.reverse();
            }
        }
        std::fs::write(path, weights.to_bytes(None)).unwrap();
    }

    /// Both parties' JSON of a run that must succeed and be right.
    pub fn both_json(&self, arguments0: &str, arguments1: &str) -> [Value; 2] {
        let party1 = format!("--json --output y.npy {arguments1}");
        let outputs = self.both(&format!("--json {arguments0}"), &party1);
        self.check_output("y.npy");
        outputs.map(|output| serde_json::from_str(&done(output)).unwrap())
    }

    /// Runs `polyrt prepare` at both parties.
    pub fn prepare(&self, arguments0: &str, arguments1: &str) -> [Output; 2] {
        let mut party0 = self.start(&format!(
            "prepare plan.bin --party 0 --address 127.0.0.1:0 --wait 30 {arguments0}"
        ));
        let address = party0.address();
        let party1 = format!("prepare plan.bin --party 1 --address {address} {arguments1}");
        let party1 = self.run(&party1);
        [party0.finish(), party1]
    }

    /// What `polyrt store --json` lists.
    pub fn listing(&self, directory: &str) -> Vec<Value> {
        serde_json::from_str(&self.done(&format!("store {directory} --json"))).unwrap()
    }

    /// Compares the outputs with the plan's evaluator: within the bound that the plan states.
    pub fn check_output(&self, name: &str) {
        let read = |name: &str| std::fs::read(self.0.join(name)).unwrap();
        let (plan, digest) = Plan::from_bytes(&read("plan.bin")).unwrap();
        let weights = Weights::from_bytes(&read("plan.weights"), &plan, digest).unwrap();
        let inputs = plans::inputs(&plan, BATCH, 8);
        let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
        let evaluator = Evaluator::new(&plan, &weights);
        let noise = ir::plan::carry_noise(&evaluator, &encoded, 30);
        let exact = evaluator.run_batch(&encoded, Rounding::Nearest);
        let got = read_npy(&read(name)).unwrap().tensor;
        assert_eq!(got.shape.0[0], BATCH);
        let want: Vec<f32> = exact.iter().flat_map(|y| y.data.clone()).collect();
        assert_eq!(got.data.len(), want.len());
        for (a, b) in got.data.iter().zip(want) {
            assert!(f64::from(a - b).abs() <= noise.bound, "{a} {b} {}", noise.bound);
        }
    }
}
impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The stdout of a command that must succeed.
pub fn done(output: Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The last line of stderr of a command that must fail with `status`.
pub fn refusal(output: &Output, status: i32) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    let line = stderr.lines().last().unwrap_or_default().to_owned();
    assert!(line.starts_with("error: "), "{stderr}");
    line
}
