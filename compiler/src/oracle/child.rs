//! The process of the oracle, from both sides. A request goes in whole; answers come out one by one, so that
//! those in time count.

use super::{Answer, Answers, Request};
use crate::onnx;
use anyhow::{Context, Result};
use ir::tensor::{Shape, Tensor};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Bytes of one answer, at most.
const MOST_BYTES: u64 = 1 << 32;

/// Plays the oracle: reads a request from standard input and writes answers to standard output.
///
/// # Errors
/// If the request cannot be read or an answer written; what is wrong with the model is an answer.
pub fn answer() -> Result<()> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    let (request, _): (Request, usize) =
        bincode::serde::decode_from_slice(&bytes, bincode::config::standard())?;
    drop(bytes);
    limit(Resource::As, request.memory)?;
    limit(Resource::Cpu, request.seconds.saturating_mul(2).max(1))?;
    limit(Resource::Core, 0)?;
    let values = request.values.as_deref();
    let oracle =
        match onnx::TractModel::load(&request.model, &request.options, request.rows, values) {
            Ok(oracle) => oracle,
            Err(why) => return write(&Err(why.to_string())),
        };
    for case in request.cases {
        let inputs: Vec<Tensor<f32>> =
            case.into_iter().map(|x| Tensor::new(Shape::new([x.len()]), x)).collect();
        let values = oracle.run(&inputs).map_err(|e| e.to_string());
        write(&values.map(|v| v.into_iter().map(|y| (y.shape.0, y.data)).collect()))?;
    }
    Ok(())
}

/// Limits this process, which may be limited already.
fn limit(resource: Resource, most: u64) -> Result<()> {
    let most = getrlimit(resource).maximum.map_or(most, |allowed| allowed.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

fn write(answer: &Answer) -> Result<()> {
    let bytes = bincode::serde::encode_to_vec(answer, bincode::config::standard())?;
    let mut out = std::io::stdout().lock();
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(&bytes)?;
    Ok(out.flush()?)
}

fn read(from: &mut impl Read) -> Result<Answer> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut bytes = Vec::new();
    from.take(length.min(MOST_BYTES)).read_to_end(&mut bytes)?;
    let config = bincode::config::standard();
    Ok(bincode::serde::decode_from_slice(&bytes, config).context("a damaged answer")?.0)
}

/// Asks `program` and takes the answers that come in time.
pub(super) fn ask(program: &Path, request: &Request, time: Duration) -> Answers {
    let mut answers = Answers { cases: Vec::new(), stopped: None };
    let bytes = match bincode::serde::encode_to_vec(request, bincode::config::standard()) {
        Ok(bytes) => bytes,
        Err(why) => return Answers { stopped: Some(why.to_string()), ..answers },
    };
    let mut command = Command::new(program);
    command.arg("oracle").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => Process(child),
        Err(why) => {
            return Answers { stopped: Some(format!("it did not start: {why}")), ..answers };
        }
    };
    let (Some(mut stdin), Some(stdout)) = (child.0.stdin.take(), child.0.stdout.take()) else {
        return answers;
    };
    let end = Instant::now() + time;
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        // A process that is gone takes no request: what is missing then says so.
        scope.spawn(move || drop(stdin.write_all(&bytes)));
        scope.spawn(move || {
            let mut stdout = BufReader::new(stdout);
            while let Ok(answer) = read(&mut stdout) {
                if sender.send(answer).is_err() {
                    break;
                }
            }
        });
        while answers.cases.len() < request.cases.len() && answers.stopped.is_none() {
            let left = end.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left) {
                Ok(Ok(values)) => {
                    let tensor = |(dims, data)| Tensor { shape: Shape(dims), data };
                    answers.cases.push(values.into_iter().map(tensor).collect());
                }
                Ok(Err(why)) => answers.stopped = Some(why),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    answers.stopped = Some(format!("it took longer than {} s", time.as_secs()));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let within = request.memory >> 20;
                    answers.stopped = Some(format!("it stopped; it may take {within} MiB"));
                }
            }
        }
        child.stop();
    });
    answers
}

/// A process that does not outlive its owner.
struct Process(Child);

impl Process {
    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
