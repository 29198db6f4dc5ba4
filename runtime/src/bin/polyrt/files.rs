//! The files that every subcommand reads and writes.

use anyhow::{Context, Result};
use ir::array_file::write_npy;
use ir::input::{Layout, Preprocessing};
use ir::plan::{Digest, MAX_FILE_BYTES, Plan, Weights};
use ir::{Shape, Tensor};
use polyrt::handshake::MAX_BATCH;
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A file or option that the user must change; exit status 2.
#[derive(Debug)]
pub struct BadInput(String);

impl BadInput {
    /// An error with this line.
    pub fn error(line: impl Into<String>) -> anyhow::Error {
        Self(line.into()).into()
    }
}
impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for BadInput {}

/// Reads a file, of limited length.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let read = || {
        let mut bytes = vec![];
        let file = File::open(path)?;
        file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes =
        read().map_err(|e: std::io::Error| BadInput::error(format!("{}: {e}", path.display())))?;
    if bytes.len() > MAX_FILE_BYTES {
        let line = format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display());
        return Err(BadInput::error(line));
    }
    Ok(bytes)
}

/// Reads and verifies a plan.
pub fn plan(path: &Path) -> Result<(Plan, Digest)> {
    Plan::from_bytes(&read(path)?).map_err(|e| BadInput::error(format!("{} {e}", path.display())))
}

/// Reads the weights of a plan; without a path those that stand beside it.
pub fn weights(
    path: Option<&Path>,
    plan_path: &Path,
    plan: &Plan,
    digest: Digest,
) -> Result<Weights> {
    let path = path.map_or_else(|| plan_path.with_extension("weights"), Path::to_owned);
    let bytes = zeroize::Zeroizing::new(read(&path)?);
    Weights::from_bytes(&bytes, plan, digest)
        .map_err(|e| BadInput::error(format!("{} {e}", path.display())))
}

/// The correlation directory of a plan; without one given, the one beside it.
pub fn correlations(directory: Option<&Path>, plan_path: &Path) -> PathBuf {
    directory.map_or_else(|| plan_path.with_extension("correlations"), Path::to_owned)
}

/// A party's file in the correlation directory, which must be there.
pub fn correlation_file(directory: Option<&Path>, plan_path: &Path, name: &str) -> Result<PathBuf> {
    let path = correlations(directory, plan_path).join(name);
    if !path.exists() {
        let plan = plan_path.display();
        let line = format!(
            "no correlations at {}: make some with `polyrt deal {plan} --count N`",
            path.display()
        );
        return Err(BadInput::error(line));
    }
    Ok(path)
}

/// The input and how it is preprocessed.
#[derive(clap::Args)]
pub struct InputArguments {
    /// The input: .npy, .npz with an array `x`, or a PNG or JPEG image
    ///
    /// An array holds one input of the plan's shape, or a batch of them along the first axis. Bytes and
    /// images are divided by 255, as `polyc evaluate` does; what training did besides goes into --mean and
    /// --std.
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Mean, subtracted: one, or one per channel (bytes and images are divided by 255 first)
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "M,…")]
    mean: Vec<f32>,
    /// Standard deviation, divided by: one, or one per channel
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "S,…")]
    std: Vec<f32>,
    /// Take bytes and images as they are, without dividing by 255
    #[arg(long)]
    raw: bool,
    /// Order of the axes of an array in the file: channels first (nchw) or last (nhwc); images that become
    /// rows are read in this order
    #[arg(long, value_enum, default_value_t = LayoutArgument::Auto)]
    layout: LayoutArgument,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LayoutArgument {
    /// Whichever fits the plan; where both do, a note says which was taken
    Auto,
    /// Channels first
    Nchw,
    /// Channels last
    Nhwc,
}

/// Reads inputs of the plan's shape.
pub fn inputs(arguments: &InputArguments, plan: &Plan) -> Result<Vec<Tensor<f32>>> {
    let path = &arguments.input;
    let how = Preprocessing {
        mean: arguments.mean.clone(),
        std: arguments.std.clone(),
        raw: arguments.raw,
        layout: match arguments.layout {
            LayoutArgument::Auto => Layout::Auto,
            LayoutArgument::Nchw => Layout::Nchw,
            LayoutArgument::Nhwc => Layout::Nhwc,
        },
    };
    how.check(plan.input_shape()).map_err(BadInput::error)?;
    let bad = |e: String| BadInput::error(format!("{}: {e}", path.display()));
    let inputs = how.read(&read(path)?, plan.input_shape(), None).map_err(bad)?;
    inputs.notes.iter().for_each(|note| note!("note: {}: {note}", path.display()));
    let inputs = inputs.tensors;
    if inputs.len() > MAX_BATCH as usize {
        return Err(bad(format!("{} inputs, at most {MAX_BATCH} fit one run", inputs.len())));
    }
    Ok(inputs)
}

/// Encodes inputs; names the one that does not fit.
pub fn encode(path: &Path, plan: &Plan, inputs: &[Tensor<f32>]) -> Result<Vec<Tensor<u64>>> {
    let encode = |(i, x)| {
        let bad = |e| BadInput::error(format!("{}: input {i}: {e}", path.display()));
        plan.encode_input(x).map_err(bad)
    };
    inputs.iter().enumerate().map(encode).collect()
}

/// Checks that a file can be written, before anything is used up for what goes into it.
pub fn check_output(path: &Path) -> Result<()> {
    let temporary = temporary(path);
    let check = || -> std::io::Result<()> {
        if path.is_dir() {
            return Err(std::io::ErrorKind::IsADirectory.into());
        }
        File::create_new(&temporary)?;
        std::fs::remove_file(&temporary)
    };
    check().with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a batch of outputs as one `.npy` array through a temporary file, so that it is whole or absent.
pub fn write_outputs(path: &Path, outputs: &[Tensor<f32>]) -> Result<()> {
    let Some(first) = outputs.first() else { return Ok(()) };
    let mut dims = first.shape.0.clone();
    match dims.first_mut() {
        Some(batch) if *batch == 1 => *batch = outputs.len(),
        _ if outputs.len() == 1 => {}
        _ => dims.insert(0, outputs.len()),
    }
    let data = outputs.iter().flat_map(|y| y.data.iter().copied()).collect();
    let bytes = write_npy(&Tensor::new(Shape(dims), data));
    let temporary = temporary(path);
    let write = || {
        let mut file = File::create_new(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What a file is called until it is whole.
fn temporary(path: &Path) -> PathBuf {
    path.with_added_extension(format!("{}.tmp", std::process::id()))
}
