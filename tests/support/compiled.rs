//! Compiled models: the shipped ones as the README compiles them, kept between tests and between runs.
//!
//! What is kept stands below the target directory under the hash of everything that it depends on: the
//! compiler's executable, the model, the calibration data and the options. So it is never stale, and a plan by
//! another compiler is removed when the next one is kept. Where compiling is what is tested, use [`compile_shipped`].

use crate::programs::{folder_of_programs, polyc, run, stderr};
use crate::{Folder, shipped};
use ir::plan::{Digest, Plan, Reference, Weights};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The files that `polyc compile` writes.
const FILES: [&str; 2] = ["plan.bin", "plan.weights"];

/// What `polyc compile` wrote.
pub struct Written {
    /// The folder of `plan.bin` and `plan.weights`.
    pub folder: Folder,
    /// The plan.
    pub plan: Plan,
    /// Its identity.
    pub digest: Digest,
    /// Party 0's secrets.
    pub weights: Weights,
    /// The graphs behind them.
    pub reference: Reference,
}

impl Written {
    /// Reads what was written to a folder.
    fn read(folder: Folder) -> Self {
        let (plan, digest) = Plan::from_bytes(&fs::read(folder.file("plan.bin")).unwrap()).unwrap();
        let bytes = fs::read(folder.file("plan.weights")).unwrap();
        let weights = Weights::from_bytes(&bytes, &plan, digest).unwrap();
        let reference = Weights::reference_from_bytes(&bytes).unwrap().unwrap();
        Self { folder, plan, digest, weights, reference }
    }

    /// The bytes of a file in the folder.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.file(name)).unwrap()
    }
}

/// Compiles a shipped model as the README does; `threads` is how many work.
pub fn compile_shipped(model: &str, threads: usize) -> Written {
    let folder = Folder::new();
    let mut command = polyc(&folder);
    command.env("RAYON_NUM_THREADS", threads.to_string());
    let output = run(command.args(arguments(model)));
    assert!(output.status.success(), "{}", stderr(&output));
    Written::read(folder)
}

fn arguments(model: &str) -> [PathBuf; 4] {
    let file = shipped(&format!("{model}.onnx"));
    ["compile".into(), file, "--calibrate".into(), shipped("digits_train.npz")]
}

/// A shipped model as [`compile_shipped`] compiles it on two threads, in a folder of its own: by another test
/// perhaps, but by this compiler.
pub fn compiled(model: &str) -> Written {
    let kept = kept(model);
    // One test compiles, others wait for it. The lock goes with the file, however the process ends.
    let lock = File::create(kept.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let folder = Folder::new();
    if copy(&kept, folder.path()).is_ok() {
        return Written::read(folder);
    }
    let written = compile_shipped(model, 2);
    keep(&written, &kept).unwrap();
    written
}

/// Where a compiled model is kept.
fn kept(model: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let programs = folder_of_programs();
        let lock = File::create(programs.join("compiled-models.lock")).unwrap();
        lock.lock().unwrap();
        let all = programs.join("compiled-models");
        let folder = all.join(hash([fs::read(programs.join("polyc")).unwrap()]));
        if !folder.exists() {
            // Those by other compilers.
            let _ = fs::remove_dir_all(&all);
        }
        fs::create_dir_all(&folder).unwrap();
        folder
    });
    // The arguments as they stand, and the files that they name.
    let of_argument = |argument: PathBuf| {
        [argument.as_os_str().as_encoded_bytes().to_vec(), fs::read(argument).unwrap_or_default()]
    };
    folder.join(hash(arguments(model).into_iter().flat_map(of_argument)))
}

/// The hash of a list of bytes and their lengths.
fn hash(parts: impl IntoIterator<Item = Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    FILES.iter().try_for_each(|name| fs::copy(from.join(name), to.join(name)).map(|_| ()))
}

/// Keeps all files or none: their folder gets its name when they are in it.
fn keep(written: &Written, kept: &Path) -> io::Result<()> {
    let unfinished = kept.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir(&unfinished)?;
    copy(written.folder.path(), &unfinished)?;
    fs::rename(unfinished, kept)
}
