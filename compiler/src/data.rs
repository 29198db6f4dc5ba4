//! Inputs and labels from files: arrays, images, and folders of images.

use crate::task::Labels;
use anyhow::{Context, Result, bail};
use ir::array_file::{self, ArrayError};
use ir::input::Preprocessing;
use ir::input::options::assign;
use ir::plan::InputPort;
use ir::{Shape, Tensor};
use rayon::prelude::*;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Folders in folders are searched this deep.
const MAX_DEPTH: usize = 16;

/// Inputs as a model takes them.
pub struct Data {
    /// Per input of the model, one tensor per row of its file.
    pub parts: Vec<Vec<Tensor<f32>>>,
    /// One per row, where the images of a folder lie in subfolders.
    pub labels: Option<Labels>,
    /// What was decided where the files left a choice; for people.
    pub notes: Vec<String>,
}

/// Reads at most `limit` rows of every input of a model: the first ones of an `.npy` or `.npz` array, an
/// image, or the images of a folder, taken evenly from all of them. `arguments` are those of `option`:
/// `PATH`, or `NAME=PATH` for one input.
///
/// # Errors
/// If a file is unreadable or does not fit the model, or if inputs have different numbers of rows; one line.
pub fn load(
    arguments: &[String],
    option: &str,
    ports: &[InputPort],
    limit: Option<usize>,
) -> Result<Data> {
    let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
    let paths = assign(arguments, &names, option).map_err(anyhow::Error::msg)?;
    let mut data = Data { parts: vec![], labels: None, notes: vec![] };
    for (port, path) in ports.iter().zip(paths) {
        let Some(path) = path else {
            bail!("input {} has no file: give {option} {}=PATH", port.name, port.name);
        };
        let part = load_part(Path::new(path), port, ports.len() == 1, limit)?;
        if let Some(first) = data.parts.first()
            && first.len() != part.inputs.len()
        {
            let (found, expected) = (part.inputs.len(), first.len());
            bail!("input {} has {found} rows, input {} has {expected}", port.name, ports[0].name);
        }
        data.parts.push(part.inputs);
        data.labels = data.labels.or(part.labels);
        data.notes.extend(part.notes);
    }
    Ok(data)
}

/// The input values of a plan with these ports.
///
/// # Errors
/// If a part has another shape than its port.
pub fn join(ports: &[InputPort], parts: &[Vec<Tensor<f32>>]) -> Result<Vec<Tensor<f32>>> {
    let rows = parts.first().map_or(0, Vec::len);
    (0..rows)
        .map(|row| {
            let of_row: Vec<Tensor<f32>> = parts.iter().map(|part| part[row].clone()).collect();
            Ok(ir::plan::join(ports, &of_row)?)
        })
        .collect()
}

/// The rows of one input.
struct Part {
    inputs: Vec<Tensor<f32>>,
    labels: Option<Labels>,
    notes: Vec<String>,
}

fn load_part(path: &Path, port: &InputPort, is_only: bool, limit: Option<usize>) -> Result<Part> {
    let (how, shape) = (&port.preprocessing, &port.shape);
    how.check(shape).map_err(anyhow::Error::msg)?;
    if path.is_dir() {
        return load_folder(path, shape, how, limit);
    }
    let in_file = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(in_file)?;
    let read =
        port.read(&bytes, is_only, limit).map_err(anyhow::Error::msg).with_context(in_file)?;
    let notes = read.notes.iter().map(|note| format!("{}: {note}", path.display())).collect();
    Ok(Part { inputs: read.tensors, labels: None, notes })
}

/// Reads labels of every output: those of the files `given`, if there are some, otherwise those that stand
/// beside the inputs, in an archive among the `arguments` that name these, or as the names of subfolders.
/// `none` as a file stands for none.
///
/// # Errors
/// If a file is unreadable or has no labels; one line that names it.
pub fn labels_of(
    outputs: &[&str],
    arguments: &[String],
    of_folder: Option<&Labels>,
    given: &[String],
) -> Result<Vec<Option<Labels>>> {
    let of_files = |paths: Vec<Option<&str>>, is_asked: bool| {
        let of_output = |(name, path): (&&str, Option<&str>)| {
            let Some(path) = path.filter(|&path| path != "none") else { return Ok(None) };
            let found = load_labels(Path::new(path), name, outputs.len() == 1)?;
            if found.is_none() && is_asked && outputs.len() == 1 {
                bail!("{path}: no array named \"y\", \"labels\" or \"{name}\"");
            }
            Ok(found)
        };
        outputs.iter().zip(paths).map(of_output).collect::<Result<Vec<_>>>()
    };
    if !given.is_empty() {
        let found =
            of_files(assign(given, outputs, "--labels").map_err(anyhow::Error::msg)?, true)?;
        if found.iter().all(Option::is_none) && given.iter().any(|path| path != "none") {
            bail!(
                "{}: no array has the name of an output ({})",
                given.join(", "),
                outputs.join(", ")
            );
        }
        return Ok(found);
    }
    if let Some(labels) = of_folder {
        let is_first = |i: usize| (i == 0).then(|| labels.clone());
        return Ok((0..outputs.len()).map(is_first).collect());
    }
    let is_archive = |path: &&str| path.ends_with(".npz") && Path::new(path).is_file();
    let paths = arguments.iter().flat_map(|argument| {
        [Some(argument.as_str()), argument.split_once('=').map(|(_, path)| path)]
    });
    let archive = paths.flatten().find(is_archive);
    of_files(vec![archive; outputs.len()], false)
}

/// Reads the labels of an output: a `.npy` file, or an array of an `.npz` file that has the output's name
/// or, for the only output, is `y` or `labels`; `None` where that has none of them.
fn load_labels(path: &Path, output: &str, is_only: bool) -> Result<Option<Labels>> {
    let in_file = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(in_file)?;
    let names = if is_only { vec!["y", "labels", output] } else { vec![output] };
    for name in names {
        match array_file::read(&bytes, Some(name)) {
            Err(ArrayError::Missing { .. }) => {}
            other => {
                let array = other.with_context(in_file)?.tensor;
                return Ok(Some(Labels { of: in_file(), array }));
            }
        }
    }
    Ok(None)
}

/// Reads the PNG and JPEG images of a folder in name order. Where all of them lie in subfolders, the
/// position of a subfolder among its sisters is the label of what is in it.
fn load_folder(
    folder: &Path,
    shape: &Shape,
    how: &Preprocessing,
    limit: Option<usize>,
) -> Result<Part> {
    let mut found = Found::default();
    found.search(folder, MAX_DEPTH)?;
    let Found { images, others } = found;
    if images.is_empty() {
        bail!("{}: holds no PNG or JPEG image", folder.display());
    }
    let mut notes = Vec::new();
    if others > 0 {
        notes.push(format!("{}: {others} files are no PNG or JPEG", folder.display()));
    }
    let count = limit.unwrap_or(images.len()).min(images.len());
    let chosen: Vec<&PathBuf> = (0..count).map(|i| &images[i * images.len() / count]).collect();
    let read = |path: &&PathBuf| {
        let bytes = std::fs::read(path)?;
        how.image(&bytes, shape).map_err(anyhow::Error::msg)
    };
    let read: Vec<_> = chosen.par_iter().map(read).collect();
    let mut inputs = Vec::with_capacity(count);
    for (image, path) in read.into_iter().zip(&chosen) {
        let (input, of_image) = image.with_context(|| path.display().to_string())?;
        inputs.push(input);
        for note in of_image {
            let note = format!("{}: {note}", folder.display());
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    Ok(Part { inputs, labels: folder_labels(folder, &chosen)?, notes })
}

/// What lies in a folder.
#[derive(Default)]
struct Found {
    /// Images in name order.
    images: Vec<PathBuf>,
    /// How many files are none.
    others: usize,
}

impl Found {
    fn search(&mut self, folder: &Path, depth: usize) -> Result<()> {
        for path in entries(folder)? {
            if path.is_dir() {
                if depth > 0 {
                    self.search(&path, depth - 1)?;
                }
            } else if is_image_name(&path) {
                self.images.push(path);
            } else {
                self.others += 1;
            }
        }
        Ok(())
    }
}

/// What lies in a folder and is not hidden, in name order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let in_folder = || folder.display().to_string();
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(in_folder)? {
        let entry = entry.with_context(in_folder)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    extension.is_some_and(|e| e == "png" || e == "jpg" || e == "jpeg")
}

fn folder_labels(folder: &Path, images: &[&PathBuf]) -> Result<Option<Labels>> {
    let classes: Vec<PathBuf> = entries(folder)?.into_iter().filter(|p| p.is_dir()).collect();
    let label = |image: &&PathBuf| classes.iter().position(|class| image.starts_with(class));
    let labels: Option<Vec<f32>> = images.iter().map(|i| Some(label(i)? as f32)).collect();
    Ok(labels.map(|data| {
        let of = format!("{} ({} subfolders)", folder.display(), classes.len());
        Labels { of, array: Tensor::new(Shape::new([data.len()]), data) }
    }))
}
