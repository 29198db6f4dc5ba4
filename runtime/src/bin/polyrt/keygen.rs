//! `polyrt keygen`

use crate::files::BadInput;
use anyhow::{Context, Result};
use polyrt::net::NewIdentity;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Make a private key and its certificate, for links between two machines.
///
/// Writes NAME.key, which stays here and is readable by its owner alone, and NAME.crt, which the peer gets.
/// Each party makes its own pair, once, and both exchange certificates, by a way on which nobody changes
/// files; comparing the fingerprints by telephone does as well. No authority and no host name is involved,
/// and certificates do not expire: a party takes exactly the certificate that --peer-cert holds.
#[derive(clap::Args)]
#[command(after_help = "\
Then:
  polyrt party0 plan.bin --listen 0.0.0.0:7411 --key party0.key --peer-cert party1.crt
  polyrt party1 plan.bin --input x.npy --connect HOST:7411 --key party1.key --peer-cert party0.crt")]
pub struct Arguments {
    /// The files' name without extension; in a folder that exists they are called `polyrt`
    #[arg(long, value_name = "NAME|DIR", default_value = "polyrt")]
    out: PathBuf,
    /// Replace an existing key; peers must then get the new certificate
    #[arg(long)]
    force: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<()> {
    let out = &arguments.out;
    let name = if out.is_dir() { out.join("polyrt") } else { out.clone() };
    let label = name.file_name().unwrap_or(OsStr::new("polyrt")).to_string_lossy().into_owned();
    let (key, certificate) = (name.with_added_extension("key"), name.with_added_extension("crt"));
    if let Some(there) = [&key, &certificate].into_iter().find(|p| p.exists() && !arguments.force) {
        let line = format!("{} exists: add --force to replace it", there.display());
        return Err(BadInput::error(line));
    }
    let new = NewIdentity::generate(&label).map_err(|e| anyhow::anyhow!("no key: {e}"))?;
    let pair =
        [(&key, true, new.key.as_bytes()), (&certificate, false, new.certificate.as_bytes())];
    save(pair, arguments.force)?;
    say!("private key: {} (stays here)", key.display());
    say!("certificate: {} (give it to the peer)", certificate.display());
    say!("SHA-256 fingerprint: {}", new.fingerprint);
    say!(
        "next: get the peer's certificate, compare its fingerprint with the peer, and add to party0 or \
         party1: --key {} --peer-cert FILE",
        key.display()
    );
    Ok(())
}

/// Writes both files or neither. Without `force` nothing is replaced, even if it came in between.
fn save(files: [(&PathBuf, bool, &[u8]); 2], force: bool) -> Result<()> {
    let mut made = vec![];
    let write = |made: &mut Vec<(PathBuf, PathBuf)>| -> Result<()> {
        let failed = |path: &Path| format!("cannot write {}", path.display());
        for (path, is_secret, bytes) in files {
            let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
            let at = if force { temporary } else { path.clone() };
            let mut file = create(&at, is_secret).with_context(|| failed(path))?;
            made.push((at, path.clone()));
            let written = file.write_all(bytes).and_then(|()| file.sync_all());
            written.with_context(|| failed(path))?;
        }
        for (at, path) in made.iter().filter(|_| force) {
            std::fs::rename(at, path).with_context(|| failed(path))?;
        }
        Ok(())
    };
    let written = write(&mut made);
    if written.is_err() {
        made.iter().for_each(|(at, _)| drop(std::fs::remove_file(at)));
    }
    written
}

#[cfg(unix)]
fn create(path: &Path, is_secret: bool) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mode = if is_secret { 0o600 } else { 0o644 };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}
#[cfg(not(unix))]
fn create(path: &Path, _: bool) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}
