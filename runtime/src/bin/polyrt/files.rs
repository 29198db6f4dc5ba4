//! The files that every subcommand reads and writes.

use anyhow::{Context, Result};
use ir::array_file::{write_npy, write_npz};
use ir::input::options::{PreprocessingOptions, assign};
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
    /// An array holds one input of the plan's shape, or a batch of them along the first axis. Several inputs
    /// are arrays of their names in one .npz file, or files of their own: --input NAME=FILE for each. Bytes
    /// and images are divided by 255 unless the model takes integers; mean, deviation and layout are the
    /// plan's, as `polyc compile` was told, unless options say otherwise.
    #[arg(long, value_name = "[NAME=]FILE", required = true)]
    pub input: Vec<String>,
    /// Mean, subtracted: one, or one per channel (bytes and images are divided by 255 first) [default: the
    /// plan's]
    #[arg(long, allow_hyphen_values = true, value_name = "[NAME=]M,…")]
    mean: Vec<String>,
    /// Standard deviation, divided by: one, or one per channel [default: the plan's]
    #[arg(long, allow_hyphen_values = true, value_name = "[NAME=]S,…")]
    std: Vec<String>,
    /// Take bytes and images as they are, without dividing by 255
    #[arg(long)]
    raw: bool,
    /// Order of the axes of an array in the file: channels first (nchw), last (nhwc), or whichever fits the
    /// plan (auto; where both do, a note says which was taken) [default: the plan's]
    #[arg(long, value_name = "[NAME=]ORDER")]
    layout: Vec<String>,
}

/// Reads input values of the plan, one per row of the files.
pub fn inputs(arguments: &InputArguments, plan: &Plan) -> Result<Vec<Tensor<f32>>> {
    let options = PreprocessingOptions {
        mean: arguments.mean.clone(),
        std: arguments.std.clone(),
        raw: arguments.raw,
        layout: arguments.layout.clone(),
    };
    let (ports, notes) = plan.ports_read_by(&options).map_err(BadInput::error)?;
    notes.iter().for_each(|note| note!("note: {note}"));
    let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
    let paths = assign(&arguments.input, &names, "--input").map_err(BadInput::error)?;
    let mut parts: Vec<Vec<Tensor<f32>>> = vec![];
    for (port, path) in ports.iter().zip(paths) {
        let Some(path) = path.map(Path::new) else {
            let name = &port.name;
            return Err(BadInput::error(format!("input {name} has no file: --input {name}=FILE")));
        };
        let bad = |e: String| BadInput::error(format!("{}: {e}", path.display()));
        let read = port.read(&read(path)?, ports.len() == 1, None).map_err(bad)?;
        read.notes.iter().for_each(|note| note!("note: {}: {note}", path.display()));
        let rows = read.tensors.len();
        if rows > MAX_BATCH as usize {
            return Err(bad(format!("{rows} inputs, at most {MAX_BATCH} fit one run")));
        }
        if let Some(first) = parts.first()
            && first.len() != rows
        {
            return Err(bad(format!("{rows} rows, input {} has {}", ports[0].name, first.len())));
        }
        parts.push(read.tensors);
    }
    let rows = parts.first().map_or(0, Vec::len);
    let join = |row: usize| {
        let of_row: Vec<Tensor<f32>> = parts.iter().map(|part| part[row].clone()).collect();
        plan.join_inputs(&of_row).map_err(|e| BadInput::error(e.to_string()))
    };
    (0..rows).map(join).collect()
}

/// Encodes inputs; names the one that does not fit.
pub fn encode(
    arguments: &InputArguments,
    plan: &Plan,
    inputs: &[Tensor<f32>],
) -> Result<Vec<Tensor<u64>>> {
    let encode = |(i, x)| {
        let files = arguments.input.join(", ");
        let bad = |e| BadInput::error(format!("{files}: input {i}: {e}"));
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

/// Writes the outputs of a batch through a temporary file, so that it is whole or absent: as one `.npy`
/// array, or, where there are several or the path says so, as an `.npz` archive of their names.
pub fn write_outputs(path: &Path, plan: &Plan, outputs: &[Vec<Tensor<f32>>]) -> Result<()> {
    let arrays: Vec<(&str, Tensor<f32>)> = plan
        .outputs
        .iter()
        .enumerate()
        .filter_map(|(i, port)| Some((port.name.as_str(), batch(outputs, i)?)))
        .collect();
    let is_archive = path.extension().is_some_and(|e| e == "npz");
    let bytes = match arrays.as_slice() {
        [] => return Ok(()),
        [(_, only)] if !is_archive => write_npy(only),
        several => write_npz(several),
    };
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

/// Checks that a file of this name can hold the plan's outputs.
pub fn check_output_kind(path: &Path, plan: &Plan) -> Result<()> {
    if plan.outputs.len() == 1 || path.extension().is_some_and(|e| e == "npz") {
        return Ok(());
    }
    let (count, path) = (plan.outputs.len(), path.display());
    Err(BadInput::error(format!(
        "{path}: the plan has {count} outputs; give a name that ends in .npz"
    )))
}

/// One of the outputs of a batch as one array.
fn batch(outputs: &[Vec<Tensor<f32>>], index: usize) -> Option<Tensor<f32>> {
    let first = outputs.first()?.get(index)?;
    let mut dims = first.shape.0.clone();
    match dims.first_mut() {
        Some(batch) if *batch == 1 => *batch = outputs.len(),
        _ if outputs.len() == 1 => {}
        _ => dims.insert(0, outputs.len()),
    }
    let data = outputs.iter().flat_map(|of_input| of_input[index].data.iter().copied()).collect();
    Some(Tensor::new(Shape(dims), data))
}

/// What a file is called until it is whole.
fn temporary(path: &Path) -> PathBuf {
    path.with_added_extension(format!("{}.tmp", std::process::id()))
}
