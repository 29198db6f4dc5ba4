//! The two programs as processes.

use super::{Folder, workspace};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::SystemTime;

/// `polyc` in a folder.
pub fn polyc(folder: &Folder) -> Command {
    program("polyc", folder)
}

/// `polyrt` in a folder.
pub fn polyrt(folder: &Folder) -> Command {
    program("polyrt", folder)
}

/// The folder of the two programs, which are built.
pub(crate) fn folder_of_programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(built)
}

fn program(name: &str, folder: &Folder) -> Command {
    let mut command = Command::new(folder_of_programs().join(name));
    command.current_dir(folder.path()).stdin(Stdio::null());
    command
}

/// The folder of the two programs: beside the tests' `deps`, built if they are missing or older than
/// their sources.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap().to_owned();
    let mut newest = SystemTime::UNIX_EPOCH;
    for source in ["ir", "compiler", "runtime", "Cargo.toml", "Cargo.lock"] {
        newest = newest.max(last_change(&workspace().join(source)));
    }
    let is_fresh = |name: &str| {
        let built = folder.join(name).metadata().and_then(|m| m.modified());
        built.is_ok_and(|built| built >= newest)
    };
    if is_fresh("polyc") && is_fresh("polyrt") {
        return folder;
    }
    let profile = folder.file_name().unwrap().to_string_lossy().replace("debug", "dev");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--quiet", "-p", "polyc", "-p", "polyrt", "--profile"])
        .args([&profile, "--target-dir"])
        .arg(folder.parent().unwrap())
        .current_dir(workspace())
        .status();
    assert!(status.unwrap().success(), "polyc and polyrt do not build");
    folder
}

fn last_change(path: &Path) -> SystemTime {
    if path.is_dir() {
        let entries = path.read_dir().unwrap().map(|e| last_change(&e.unwrap().path()));
        return entries.max().unwrap_or(SystemTime::UNIX_EPOCH);
    }
    let is_source = path.extension().is_some_and(|e| e == "rs" || e == "toml" || e == "lock");
    if !is_source {
        return SystemTime::UNIX_EPOCH;
    }
    path.metadata().and_then(|m| m.modified()).unwrap()
}

/// Runs a command to its end. None may ever panic.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = stderr(&output);
    assert!(!text.contains("panicked"), "{command:?}: {text}");
    output
}

/// What a command wrote to stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command wrote to stdout.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A `polyrt party0` that listens; killed when dropped.
pub struct Listening {
    child: Child,
    ready: String,
    rest: Option<JoinHandle<String>>,
    /// Where it listens.
    pub address: String,
}

impl Listening {
    /// Starts `polyrt party0 plan.bin` on a free port.
    pub fn start(folder: &Folder, options: &[&str]) -> Self {
        let mut command = polyrt(folder);
        command
            .args([
                "party0",
                "plan.bin",
                "--dealer-correlations",
                "plan.correlations",
                "--listen",
                "127.0.0.1:0",
            ])
            .args(options);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("polyrt starts");
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut ready = String::new();
        lines.read_line(&mut ready).unwrap();
        let address = ready.split("listens at ").nth(1).map(str::trim);
        let address = address.unwrap_or_else(|| panic!("not ready: {ready}")).to_owned();
        let rest = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = lines.read_to_string(&mut text);
            text
        });
        Self { child, ready, rest: Some(rest), address }
    }

    /// Waits for its end: the exit status, stdout and stderr.
    pub fn finish(mut self) -> (Option<i32>, String, String) {
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let status = self.child.wait().unwrap();
        let rest = self.rest.take().unwrap().join().unwrap();
        let err = format!("{}{rest}", self.ready);
        assert!(!err.contains("panicked"), "{err}");
        (status.code(), out, err)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
