//! Files that are written whole or not at all, and output that may be piped away.

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use ir::plan::{Digest, MAX_FILE_BYTES, Plan};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Writes a file through a temporary one beside it, synced before it takes the final name. Secret files
/// can be read by their owner alone.
pub fn write(path: &Path, bytes: &[u8], is_secret: bool) -> Result<()> {
    let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
    let written = (|| -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(
            &mut options,
            if is_secret { 0o600 } else { 0o644 },
        );
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
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

/// Prints a line; a reader that went away is no error.
pub fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
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
