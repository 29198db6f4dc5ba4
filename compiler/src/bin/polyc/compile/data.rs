//! The inputs that a model is fitted on, and those that are held out.

use super::arguments::Args;
use anyhow::Result;
use ir::graph::Graph;
use ir::input::Preprocessing;
use ir::{Shape, Tensor};
use polyc::data::{load_inputs, load_labels};
use polyc::evaluate::class_count;
use polyc::fit::Calibration;
use std::path::Path;

/// Inputs, as they are used.
pub struct Inputs {
    /// What activations are fitted on.
    pub calibration: Calibration,
    /// What plans are measured on.
    pub held_out: Vec<Tensor<f32>>,
    /// Their classes, where they are known.
    pub labels: Option<Vec<usize>>,
}

/// Fewer inputs are both fitted on and held out.
const LEAST_TO_SPLIT: usize = 50;
/// Made-up inputs that plans are measured on.
const MADE_UP: usize = 32;

/// Reads the calibration inputs and their labels, or makes some up.
pub fn load(args: &Args, graph: &Graph, preprocessing: &Preprocessing) -> Result<Inputs> {
    let shape = &graph.node(graph.input()).shape;
    let Some(file) = args.calibration_file() else { return Ok(made_up(args, shape)) };
    let data = load_inputs(file, shape, preprocessing, Some(args.count as usize))?;
    data.notes.iter().for_each(|note| note!("note: {note}"));
    let labels = labels(file, data.labels, class_count(&graph.node(graph.output()).shape));
    let labels = labels.filter(|l| l.len() >= data.inputs.len());
    let count = data.inputs.len();
    let is_few = count < LEAST_TO_SPLIT;
    let is_out = |i: usize| is_held_out(i, count, file.is_dir());
    let out: Vec<usize> = (0..count).filter(|&i| is_few || is_out(i)).collect();
    let fitted: Vec<usize> = (0..count).filter(|&i| is_few || !is_out(i)).collect();
    let pick = |positions: &[usize]| -> Option<Vec<usize>> {
        labels.as_ref().map(|l| positions.iter().map(|&i| l[i]).collect())
    };
    let (of_fitted, labels) = (pick(&fitted), pick(&out));
    let held_out: Vec<_> = out.iter().map(|&i| data.inputs[i].clone()).collect();
    let inputs: Vec<_> = fitted.iter().map(|&i| data.inputs[i].clone()).collect();
    let description = format!("{} inputs of {}", inputs.len(), file.display());
    let mut calibration =
        Calibration { rows: fitted, labels: of_fitted, ..Calibration::new(inputs, description) };
    if calibration.limit(graph) {
        let used = calibration.inputs.len();
        note!("note: fitting on {used} inputs, as many as fit in memory");
        calibration.description = format!("{used} inputs of {}", file.display());
    }
    Ok(Inputs { calibration, held_out, labels })
}

fn made_up(args: &Args, shape: &Shape) -> Inputs {
    if args.calibrate.is_none() {
        note!(
            "WARNING: no calibration data: activations are fitted on made-up inputs in [{}, {}], and \
             nothing can be promised about accuracy; give --calibrate FILE with a few hundred real inputs",
            args.input_range.0,
            args.input_range.1
        );
    }
    let calibration = Calibration::synthetic(shape, args.input_range);
    let held_out = calibration.inputs[..MADE_UP].to_vec();
    Inputs { calibration, held_out, labels: None }
}

/// The classes of the inputs of `file`, where it tells them.
fn labels(file: &Path, of_folder: Option<Vec<usize>>, classes: usize) -> Option<Vec<usize>> {
    let is_npz = file.extension().is_some_and(|e| e == "npz");
    match of_folder {
        None if is_npz => load_labels(file, classes).unwrap_or_else(|why| {
            note!("note: {why:#}; labels are left out");
            None
        }),
        Some(labels) if labels.iter().any(|&label| label >= classes) => {
            note!(
                "note: {}: has more subfolders than the model has classes ({classes}); labels are left out",
                file.display()
            );
            None
        }
        labels => labels,
    }
}

/// Which of `count` inputs are held out: the last fifth, or every fifth where classes follow one another;
/// all are both fitted on and held out where there are few.
fn is_held_out(i: usize, count: usize, is_sorted: bool) -> bool {
    if is_sorted { i % 5 == 4 } else { i >= count - count / 5 }
}
