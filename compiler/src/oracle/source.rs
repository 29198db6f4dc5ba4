//! The file that a plan was compiled from, remembered so that `polyc evaluate` can ask its oracle.

use super::{Oracle, Outputs};
use crate::onnx::{ImportOptions, import_file};
use anyhow::{Context, Result, bail};
use ir::plan::Source;
use std::path::{Path, PathBuf};

/// What to remember of a model's file.
///
/// # Errors
/// If it cannot be read.
pub fn remember(model: &Path, options: &ImportOptions) -> Result<Source> {
    let bytes = std::fs::read(model).with_context(|| model.display().to_string())?;
    let path = std::path::absolute(model).unwrap_or_else(|_| model.to_owned());
    let import = bincode::serde::encode_to_vec(options, bincode::config::standard())?;
    Ok(Source::new(path.to_string_lossy().into_owned(), &bytes, import))
}

/// The oracle of a file that is remembered, and what it is to be asked for.
///
/// # Errors
/// If the file is gone or another one; one line.
pub fn recall(source: &Source, memory: u64) -> Result<(Oracle, Outputs)> {
    let model = PathBuf::from(&source.path);
    let bytes = std::fs::read(&model).with_context(|| format!("{} is gone", source.path))?;
    if !source.is(&bytes) {
        bail!("{} is another file now", source.path);
    }
    let config = bincode::config::standard();
    let (options, _): (ImportOptions, _) =
        bincode::serde::decode_from_slice(&source.import, config)?;
    let outputs = Outputs::of(&import_file(&model, &options)?);
    Ok((Oracle::new(model, options, memory)?, outputs))
}
