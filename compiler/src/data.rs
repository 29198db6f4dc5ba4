//! Inputs from files: `.npy` and `.npz` arrays, brought to the model's shape and preprocessing.

use anyhow::{Context, Result, bail};
use ir::array_file::{read_npy, read_npz, split_batch};
use ir::{Shape, Tensor};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// How the arrays in a file become inputs of a model.
#[derive(Clone, Debug, Default)]
pub struct Preprocessing {
    /// Subtracted per channel, after bytes were divided by 255.
    pub mean: Vec<f32>,
    /// Divided by per channel.
    pub std: Vec<f32>,
    /// Leaves bytes as they are instead of dividing them by 255.
    pub raw: bool,
}

/// Reads at most `limit` inputs for a model whose input has shape `shape`. Byte arrays are images and
/// divided by 255 unless `raw` is set; channels last become channels first where the model wants that.
///
/// # Errors
/// If the file is unreadable or its array does not fit the model; one line that names both.
pub fn load_inputs(
    path: &Path,
    shape: &Shape,
    how: &Preprocessing,
    limit: Option<usize>,
) -> Result<Vec<Tensor<f32>>> {
    let array = read_array(path, None)?;
    let mut tensor = array.tensor;
    if let Some(limit) = limit
        && tensor.shape.rank() == shape.rank().max(2)
        && tensor.shape.0[0] > limit
    {
        let size = tensor.data.len() / tensor.shape.0[0];
        tensor.data.truncate(limit * size);
        tensor.shape.0[0] = limit;
    }
    if array.is_bytes && !how.raw {
        tensor.data.iter_mut().for_each(|v| *v /= 255.0);
    }
    normalise(&mut tensor, how)?;
    let tensor = arrange(tensor, shape);
    let mut inputs =
        split_batch(&tensor, shape).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))?;
    if let Some(limit) = limit {
        inputs.truncate(limit);
    }
    if inputs.iter().any(|x| x.data.iter().any(|v| !v.is_finite())) {
        bail!("{}: holds an element that is infinite or not a number", path.display());
    }
    Ok(inputs)
}

/// Reads integer labels: a `.npy` file, or array `y` or `labels` of an `.npz` file.
///
/// # Errors
/// If the file is unreadable or has no labels.
pub fn load_labels(path: &Path) -> Result<Vec<usize>> {
    let array = match read_array(path, Some("y")) {
        Ok(array) => array,
        Err(first) => read_array(path, Some("labels")).map_err(|_| first)?,
    };
    Ok(array.tensor.data.iter().map(|&v| v as usize).collect())
}

fn read_array(path: &Path, name: Option<&str>) -> Result<ir::array_file::Array> {
    let in_file = || format!("{}", path.display());
    let is_npz = path.extension().is_some_and(|e| e == "npz");
    if is_npz {
        let file = File::open(path).with_context(in_file)?;
        read_npz(BufReader::new(file), name).with_context(in_file)
    } else {
        read_npy(&std::fs::read(path).with_context(in_file)?).with_context(in_file)
    }
}

/// Channels last (the last dimension is as long as the mean) or first, whichever the array has.
fn normalise(tensor: &mut Tensor<f32>, how: &Preprocessing) -> Result<()> {
    let channels = how.mean.len().max(how.std.len());
    if channels == 0 {
        return Ok(());
    }
    let dims = &tensor.shape.0;
    let stride = if channels == 1 || dims.last() == Some(&channels) {
        1
    } else if dims.get(1) == Some(&channels) {
        dims[2..].iter().product()
    } else {
        bail!("{channels} values of mean or std do not fit an array of shape {}", tensor.shape);
    };
    for (i, v) in tensor.data.iter_mut().enumerate() {
        let channel = i / stride % channels;
        let at = |values: &[f32], default: f32| match values.len() {
            0 => default,
            1 => values[0],
            _ => values[channel],
        };
        *v = (*v - at(&how.mean, 0.0)) / at(&how.std, 1.0);
    }
    Ok(())
}

/// Channels last to channels first (or back) where only that makes the array fit, and images to rows
/// where the model takes rows.
fn arrange(tensor: Tensor<f32>, shape: &Shape) -> Tensor<f32> {
    let dims = tensor.shape.0.clone();
    if let (&[n, h, w, c], &[1, mc, mh, mw]) = (dims.as_slice(), shape.0.as_slice())
        && [h, w, c] != [mc, mh, mw]
    {
        if [c, h, w] == [mc, mh, mw] {
            return tensor.transpose(&[0, 3, 1, 2]);
        }
        if [w, c, h] == [mc, mh, mw] {
            let _ = n;
            return tensor.transpose(&[0, 2, 3, 1]);
        }
    }
    let per_input: usize = dims.iter().skip(1).product();
    let is_row = shape.0.iter().filter(|&&d| d != 1).count() <= 1;
    if is_row && per_input == shape.elements() && dims.len() > 1 {
        let rest = if shape.0.first() == Some(&1) { &shape.0[1..] } else { &shape.0[..] };
        let target = Shape([&dims[..1], rest].concat());
        return tensor.reshape(target);
    }
    tensor
}
