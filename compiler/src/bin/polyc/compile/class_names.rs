//! Names of classes, from a text file of one name a line.

use crate::files;
use anyhow::{Context, Result, bail};
use ir::input::options::assign;
use ir::plan::OutputPort;
use std::path::Path;

/// Gives outputs the names of their classes. `arguments` are those of --labels-file.
pub fn give(arguments: &[String], outputs: &mut [OutputPort]) -> Result<()> {
    let names: Vec<String> = outputs.iter().map(|o| o.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let paths = assign(arguments, &names, "--labels-file").map_err(anyhow::Error::msg)?;
    for (output, path) in outputs.iter_mut().zip(paths) {
        if let Some(path) = path {
            output.classes = read(Path::new(path), output)?;
        }
    }
    Ok(())
}

fn read(path: &Path, output: &OutputPort) -> Result<Vec<String>> {
    let in_file = || path.display().to_string();
    let text = String::from_utf8(files::read(path)?).with_context(in_file)?;
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    let count = output.judged_shape(output.task).and_then(|s| output.task.class_count(&s));
    let Some(expected) = count else {
        bail!("--labels-file: output {} is judged as numbers, which have no classes", output.name);
    };
    if names.len() != expected {
        bail!(
            "{}: {} names, output {} has {expected} classes",
            in_file(),
            names.len(),
            output.name
        );
    }
    if let Some(line) = names.iter().position(|n| n.is_empty() || n.chars().any(char::is_control)) {
        bail!("{}: line {} is no name", in_file(), line + 1);
    }
    Ok(names)
}
