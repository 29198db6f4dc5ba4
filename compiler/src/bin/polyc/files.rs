//! Files that are written whole or not at all, and progress bars.

use anyhow::{Context, Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use ir::plan::{Digest, MAX_FILE_BYTES, Plan};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A file that was not written: the fault of neither the model nor an option; exit status 1.
#[derive(Debug)]
pub struct CannotWrite(PathBuf);

impl fmt::Display for CannotWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write {}", self.0.display())
    }
}

/// A file to write.
pub struct Output<'a> {
    /// Where it goes.
    pub path: &'a Path,
    /// What is in it.
    pub bytes: &'a [u8],
    /// Whether its owner alone may read it.
    pub is_secret: bool,
}

/// Checks that a file can be written, before hours of work go into it.
pub fn check_output(path: &Path) -> Result<()> {
    let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
    File::create_new(&temporary)
        .and_then(|_| fs::remove_file(&temporary))
        .with_context(|| CannotWrite(path.to_owned()))
}

/// Writes files that belong together, all or none: each through a temporary one beside it, synced before
/// the first takes its name. What stood under a name is put back if a later one cannot be written.
pub fn write(files: &[Output<'_>]) -> Result<()> {
    let beside = |path: &Path, kind: &str| {
        path.with_added_extension(format!("{}.{kind}", std::process::id()))
    };
    let stage = |file: &Output<'_>| -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(
            &mut options,
            if file.is_secret { 0o600 } else { 0o644 },
        );
        let mut temporary = options.open(beside(file.path, "tmp"))?;
        temporary.write_all(file.bytes)?;
        temporary.sync_all()
    };
    let publish = |file: &Output<'_>| -> std::io::Result<()> {
        let _ = fs::hard_link(file.path, beside(file.path, "old"));
        fs::rename(beside(file.path, "tmp"), file.path)
    };
    let each = |step: &dyn Fn(&Output<'_>) -> std::io::Result<()>| -> Result<(), (usize, Error)> {
        files.iter().enumerate().try_for_each(|(i, file)| {
            step(file).with_context(|| CannotWrite(file.path.to_owned())).map_err(|e| (i, e))
        })
    };
    let staged = each(&stage).map_err(|(_, e)| e);
    let written = staged.and_then(|()| {
        each(&publish).map_err(|(failed, error)| {
            for file in &files[..failed] {
                if fs::rename(beside(file.path, "old"), file.path).is_err() {
                    let _ = fs::remove_file(file.path);
                }
            }
            error
        })
    });
    for file in files {
        let _ = fs::remove_file(beside(file.path, "tmp"));
        let _ = fs::remove_file(beside(file.path, "old"));
    }
    written
}

/// Reads a whole file of a bounded size.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES as u64).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

/// Reads and verifies a plan.
pub fn read_plan(path: &Path) -> Result<(Plan, Digest)> {
    Plan::from_bytes(&read(path)?).with_context(|| path.display().to_string())
}

/// Where the weights of a plan lie by default: `plan.weights` beside `plan.bin`.
pub fn weights_path(plan: &Path) -> PathBuf {
    plan.with_extension("weights")
}

/// Steps of a progress bar.
const BAR_STEPS: u64 = 1000;

/// A progress bar with the time that is left, on stderr if that is a terminal.
pub fn bar(message: &'static str) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {percent}% {eta} left")?;
    Ok(ProgressBar::new(BAR_STEPS).with_style(style).with_message(message))
}

/// The position of a share of the work on the bar.
pub fn position(share: f64) -> u64 {
    (share * BAR_STEPS as f64) as u64
}
