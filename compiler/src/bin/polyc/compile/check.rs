//! Whether the import is what the file says.

use super::arguments::Args;
use crate::files;
use anyhow::{Context, Result, bail};
use ir::array_file::{self, ArrayError};
use ir::input::options::assign;
use ir::tensor::Tensor;
use polyc::onnx::Imported;
use polyc::oracle::{Agreement, Oracle, Outputs, compare, expected};
use std::path::Path;

/// Inputs that the import is checked on.
const INPUTS: usize = 4;

/// Compares the import with the user's outputs, or else with tract's evaluation of the file.
pub fn import(args: &Args, imported: &Imported, parts: &[Vec<Tensor<f32>>]) -> Result<Agreement> {
    let in_model = || args.model.display().to_string();
    let agreement = if args.expect.is_empty() {
        compare(imported, parts, &oracle(args)?, INPUTS)
    } else {
        expected(imported, parts, read(&args.expect, imported)?)
    };
    let agreement = agreement.with_context(in_model)?;
    if let Agreement::Unchecked { .. } = agreement {
        note!("WARNING: {agreement}");
    }
    Ok(agreement)
}

/// The outputs of the file itself for these rows, where tract is the oracle and comes to an end.
pub fn outputs(
    args: &Args,
    agreement: &Agreement,
    outputs: &Outputs,
    parts: &[Vec<Tensor<f32>>],
    rows: &[usize],
) -> Result<Option<Vec<Vec<Tensor<f32>>>>> {
    if !matches!(agreement, Agreement::Checked { by: "tract", .. }) {
        return Ok(None);
    }
    let chosen: Vec<Vec<Tensor<f32>>> =
        parts.iter().map(|part| rows.iter().map(|&row| part[row].clone()).collect()).collect();
    Ok(outputs.all(&oracle(args)?, &chosen))
}

fn oracle(args: &Args) -> Result<Oracle> {
    Ok(Oracle::new(args.model.clone(), args.import_options(), args.memory() as u64)?)
}

/// The outputs that the user gives, one tensor per output of the import.
fn read(arguments: &[String], imported: &Imported) -> Result<Vec<Tensor<f32>>> {
    let names: Vec<&str> = imported.outputs.iter().map(|o| o.name.as_str()).collect();
    let paths = assign(arguments, &names, "--expect").map_err(anyhow::Error::msg)?;
    let array = |(name, path): (&&str, Option<&str>)| {
        let Some(path) = path.map(Path::new) else {
            bail!("--expect: output {name} has no file: give --expect {name}=FILE");
        };
        let bytes = files::read(path)?;
        let array = match array_file::read(&bytes, Some(name)) {
            Err(ArrayError::Missing { .. }) if names.len() == 1 => {
                array_file::read(&bytes, None).or_else(|_| array_file::read(&bytes, Some("y")))
            }
            other => other,
        };
        Ok(array.with_context(|| path.display().to_string())?.tensor)
    };
    names.iter().zip(paths).map(array).collect()
}
