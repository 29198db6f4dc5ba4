//! What the first axis of a model's inputs is: a batch, where a proof shows it, or an axis like any other.

use super::batch::{self, NoBatch};
use super::file::Model;
use super::translate::{Translated, translate};
use super::{Batch, ImportError, MAX_VALUE, UnsupportedNode};

/// Batch sizes for which an open first axis is translated: nothing counts along it if both give the same
/// graph of one input.
const OPEN: [usize; 2] = [2, 3];

/// The graph of one input where the first axis is a batch, otherwise of the whole.
///
/// # Errors
/// If nodes are not supported, or an axis of open size is no batch.
pub(super) fn proven(model: &Model) -> Result<(Translated, Batch), ImportError> {
    if model.inputs.iter().all(|i| i.open.is_some()) {
        return open(model);
    }
    if let Some(open) = model.inputs.iter().find(|i| i.open.is_some()) {
        let fixed = model.inputs.iter().find(|i| i.open.is_none()).map_or("", |i| &i.name);
        return Err(no_batch(open, format!("that of input {fixed} is fixed")));
    }
    let lengths = model.inputs.iter().map(|i| i.shape.0.first().copied());
    let first = model.inputs[0].shape.0.first().copied();
    match first.filter(|&items| items > 1 && lengths.clone().all(|l| l == first)) {
        Some(items) => fixed(model, items),
        None => Ok((whole(model)?, Batch::None)),
    }
}

/// The graph of the whole: the first axis is an axis like any other.
///
/// # Errors
/// If nodes are not supported, or the axis is of open size.
pub(super) fn whole(model: &Model) -> Result<Translated, ImportError> {
    if let Some(open) = model.inputs.iter().find(|i| i.open.is_some()) {
        return Err(no_batch(open, "--batch-axis none says so".into()));
    }
    translate(model, 1, false)
}

fn open(model: &Model) -> Result<(Translated, Batch), ImportError> {
    let input = &model.inputs[0];
    let [few, more] = OPEN.map(|items| translate(model, items, true));
    let (mut few, mut more) = match (few, more) {
        (Ok(few), Ok(more)) => (few, more),
        // What refuses several rows is perhaps a size that the file fixes elsewhere: then it is for one row.
        (Err(why), _) | (_, Err(why)) => {
            let mut single = translate(model, 1, true).map_err(|one| fewer(one, why))?;
            single.warnings.push(format!(
                "the open size {} is taken as 1: nodes of the file accept no other",
                input.open.as_deref().unwrap_or("?")
            ));
            return Ok((single, Batch::None));
        }
    };
    let failed = |at: NoBatch| no_batch(input, at.to_string());
    batch::single(&mut few.graph, OPEN[0]).map_err(failed)?;
    batch::single(&mut more.graph, OPEN[1]).map_err(failed)?;
    if let Some(at) = batch::difference(&few.graph, &more.graph) {
        return Err(failed(at));
    }
    Ok((few, Batch::Open))
}

fn fixed(model: &Model, items: usize) -> Result<(Translated, Batch), ImportError> {
    // Several outputs, of which some have no such axis, are no rows of items.
    let apart = translate(model, 1, true).map(|mut translated| {
        let proof = batch::single(&mut translated.graph, items);
        (translated, proof.map_err(|at| at.to_string()))
    });
    let reason = match apart {
        Ok((mut translated, Ok(()))) => {
            let note = format!("the batch of {items} in the file is taken as 1");
            translated.warnings.push(note);
            return Ok((translated, Batch::Fixed(items)));
        }
        Ok((_, Err(reason))) => reason,
        Err(ImportError::Malformed(reason)) => reason,
        Err(why) => return Err(why),
    };
    let mut whole = translate(model, 1, false)?;
    whole.warnings.push(format!(
        "the first axis of length {items} is no batch: {reason}; one input is all of it (--batch-axis 0 says \
         otherwise)"
    ));
    Ok((whole, Batch::None))
}

/// Convolutions of several images at once as convolutions of one.
///
/// # Errors
/// If their weights become too many.
pub(super) fn join_images(translated: &mut Translated) -> Result<(), ImportError> {
    let replaced = batch::join_images(&mut translated.graph, MAX_VALUE).map_err(|at| {
        ImportError::Unsupported(vec![UnsupportedNode {
            name: at.node,
            operator: "Conv".into(),
            reason: at.reason.into(),
            advice: "export the model with a first axis of length 1".into(),
        }])
    })?;
    translated.replace(&replaced);
    Ok(())
}

fn no_batch(input: &super::file::FileInput, reason: String) -> ImportError {
    let size = input.open.clone().unwrap_or_default();
    ImportError::NoBatch { input: input.name.clone(), size, reason }
}

/// Of two refusals the one that names fewer nodes.
fn fewer(first: ImportError, second: ImportError) -> ImportError {
    match (&first, &second) {
        (ImportError::Unsupported(a), ImportError::Unsupported(b)) if a.len() <= b.len() => first,
        _ => second,
    }
}
