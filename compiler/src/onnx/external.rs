//! Tensors whose bytes lie in files beside the model.

use super::ImportError;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

/// Reads external data into the tensors themselves.
///
/// # Errors
/// If a file is missing, too short, or not inside `folder`.
pub(super) fn embed_external_data(
    graph: &mut GraphProto,
    folder: Option<&Path>,
) -> Result<(), ImportError> {
    embed(graph.initializer.iter_mut(), folder)?;
    embed_in_nodes(&mut graph.node, folder)
}

/// As [`embed_external_data`], for the tensors and graphs among the nodes' attributes.
///
/// # Errors
/// If a file is missing, too short, or not inside `folder`.
pub(super) fn embed_in_nodes(
    nodes: &mut [NodeProto],
    folder: Option<&Path>,
) -> Result<(), ImportError> {
    for attribute in nodes.iter_mut().flat_map(|n| &mut n.attribute) {
        embed(attribute.t.iter_mut().chain(&mut attribute.tensors), folder)?;
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            embed_external_data(graph, folder)?;
        }
    }
    Ok(())
}

fn embed<'a>(
    tensors: impl Iterator<Item = &'a mut TensorProto>,
    folder: Option<&Path>,
) -> Result<(), ImportError> {
    for tensor in tensors.filter(|t| t.data_location == Some(DataLocation::External as i32)) {
        let name = tensor.name.clone();
        tensor.raw_data = read(tensor, folder).map_err(|reason| {
            ImportError::Malformed(format!("external data of tensor {name:?}: {reason}"))
        })?;
        tensor.data_location = None;
        tensor.external_data.clear();
    }
    Ok(())
}

fn read(tensor: &TensorProto, folder: Option<&Path>) -> Result<Vec<u8>, String> {
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| &e.value);
    let number = |key: &str| {
        entry(key).map(|v| v.parse::<u64>()).transpose().map_err(|_| format!("{key} is no number"))
    };
    let location = entry("location").ok_or("it has no location")?;
    let path = resolve(folder.ok_or("the model was not read from a folder")?, location)?;
    let unreadable = |e: std::io::Error| format!("cannot read {location:?}: {}", e.kind());
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let offset = number("offset")?.unwrap_or(0);
    let available = size.checked_sub(offset).ok_or("its offset is behind the end of the file")?;
    let length = number("length")?.unwrap_or(available);
    if length > available {
        return Err(format!("{location:?} is shorter than the model says"));
    }
    file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// The file meant by a location relative to the model's folder, which it may not leave, also not
/// through links.
fn resolve(folder: &Path, location: &str) -> Result<PathBuf, String> {
    let outside = || format!("{location:?} is not inside the model's folder");
    let relative = Path::new(location);
    if relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let missing = |e: std::io::Error| format!("cannot read {location:?}: {}", e.kind());
    let folder = folder.canonicalize().map_err(missing)?;
    let path = folder.join(relative).canonicalize().map_err(missing)?;
    if path.starts_with(&folder) { Ok(path) } else { Err(outside()) }
}
