//! The inputs that a model is fitted on, and those that are held out.

use super::arguments::Args;
use crate::memory;
use anyhow::{Result, bail};
use ir::graph::Graph;
use ir::plan::InputPort;
use ir::{ElementType, Tensor};
use polyc::evaluate::class_count;
use polyc::fit::{Calibration, Needs, evenly};
use polyc::onnx::Imported;
use polyc::{data, ports};
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
/// Fewer inputs are not fitted on for want of memory.
const LEAST_FITTED: usize = 2;
/// Plans are measured on as many inputs as they are fitted on, or on this many.
const LEAST_MEASURED: usize = 16;
/// Made-up inputs that plans are measured on.
const MADE_UP: usize = 32;

/// Inputs as they were read or made up.
pub struct Read {
    /// The model's input values.
    pub inputs: Vec<Tensor<f32>>,
    /// Labels that their files have.
    labels: Option<Vec<usize>>,
    is_synthetic: bool,
}

/// Reads the calibration inputs, or makes some up, and settles the units of several inputs.
pub fn read(args: &Args, imported: &mut Imported) -> Result<(Vec<InputPort>, Read)> {
    let declared: Vec<_> = imported.inputs.iter().map(|i| (i.name.as_str(), i.element)).collect();
    let preprocessing =
        args.preprocessing.to_options().resolve(&declared).map_err(anyhow::Error::msg)?;
    let mut ports = ports::inputs(&imported.inputs, &preprocessing);
    for port in &ports {
        port.preprocessing.check(&port.shape).map_err(anyhow::Error::msg)?;
    }
    let (parts, labels) = match args.calibration() {
        Some(arguments) => {
            let data = data::load(arguments, "--calibrate", &ports, Some(args.count as usize))?;
            data.notes.iter().for_each(|note| note!("note: {note}"));
            let outputs = imported.outputs.first().map(|o| class_count(&o.shape)).unwrap_or(2);
            (data.parts, labels(arguments, data.labels, outputs))
        }
        None => (made_up(args, &ports), None),
    };
    ports::settle_inputs(imported, &mut ports, &parts);
    let inputs = data::join(&ports, &parts)?;
    Ok((ports, Read { inputs, labels, is_synthetic: args.calibration().is_none() }))
}

/// Holds some of the inputs out.
pub fn split(args: &Args, graph: &Graph, read: Read) -> Result<Inputs> {
    let Read { inputs: all, labels, is_synthetic } = read;
    let (count, most) = (all.len(), most_inputs(args, graph)?);
    if is_synthetic {
        let held_out = all[..MADE_UP.min(count)].to_vec();
        let made = Calibration::new(all, "synthetic inputs");
        let mut calibration = Calibration { is_synthetic: true, ..made };
        calibration.limit(most);
        return Ok(Inputs { calibration, held_out, labels: None });
    }
    let labels = labels.filter(|l| l.len() >= count);
    let is_sorted = args.calibrate.iter().any(|path| Path::new(path).is_dir());
    let is_few = count < LEAST_TO_SPLIT;
    let is_out = |i: usize| is_held_out(i, count, is_sorted);
    let out: Vec<usize> = (0..count).filter(|&i| is_few || is_out(i)).collect();
    let fitted: Vec<usize> = (0..count).filter(|&i| is_few || !is_out(i)).collect();
    let pick = |positions: &[usize]| -> Option<Vec<usize>> {
        labels.as_ref().map(|l| positions.iter().map(|&i| l[i]).collect())
    };
    let (of_fitted, labels) = (pick(&fitted), pick(&out));
    let measured = most.max(LEAST_MEASURED);
    let (out, labels) = (evenly(out, measured), labels.map(|labels| evenly(labels, measured)));
    let held_out: Vec<_> = out.iter().map(|&i| all[i].clone()).collect();
    let inputs: Vec<_> = fitted.iter().map(|&i| all[i].clone()).collect();
    let description = format!("{} inputs of {}", inputs.len(), args.calibration_name());
    let mut calibration =
        Calibration { rows: fitted, labels: of_fitted, ..Calibration::new(inputs, description) };
    if calibration.limit(most) {
        let used = calibration.inputs.len();
        note!(
            "note: fitting on {used} inputs, as many as fit in {} of memory (--memory)",
            memory::text(args.memory())
        );
        calibration.description = format!("{used} inputs of {}", args.calibration_name());
    }
    Ok(Inputs { calibration, held_out, labels })
}

/// How many inputs a fit within the memory holds.
fn most_inputs(args: &Args, graph: &Graph) -> Result<usize> {
    let (needs, memory) = (Needs::of(graph), args.memory());
    let most = needs.inputs(memory);
    if most < LEAST_FITTED {
        bail!(
            "{}: a fit takes {} and {} for every input, more than {}: give --memory {}, or more",
            args.model.display(),
            memory::text(needs.fixed),
            memory::text(needs.per_input),
            memory::text(memory),
            memory::text(needs.fixed + (LEAST_FITTED + 1) * needs.per_input).replace(' ', "")
        );
    }
    Ok(most)
}

fn made_up(args: &Args, ports: &[InputPort]) -> Vec<Vec<Tensor<f32>>> {
    let ranges: Vec<(f32, f32)> = ports.iter().map(|port| made_up_range(args, port)).collect();
    if args.calibrate.is_empty() {
        let mut named: Vec<String> = ranges.iter().map(|(l, h)| format!("[{l}, {h}]")).collect();
        named.dedup();
        note!(
            "WARNING: no calibration data: activations are fitted on made-up inputs in {}, and \
             nothing can be promised about accuracy; give --calibrate FILE with a few hundred real inputs",
            named.join(", ")
        );
    }
    let made_up = |(port, range): (&InputPort, &(f32, f32))| {
        let inputs = Calibration::synthetic(&port.shape, *range, args.count as usize).inputs;
        let whole = |x: Tensor<f32>| if port.element.is_whole() { x.map(f32::round) } else { x };
        inputs.into_iter().map(whole).collect()
    };
    ports.iter().zip(&ranges).map(made_up).collect()
}

/// Where a port's made-up inputs lie: of small integers, anywhere.
fn made_up_range(args: &Args, port: &InputPort) -> (f32, f32) {
    match port.element {
        ElementType::Bool | ElementType::Integer { bits: ..=8, .. } => {
            port.element.range().map_or(args.input_range, |(l, h)| (l as f32, h as f32))
        }
        _ => args.input_range,
    }
}

/// The classes of the inputs, where a folder's names or array `y` of an archive tell them.
fn labels(
    arguments: &[String],
    of_folder: Option<Vec<usize>>,
    classes: usize,
) -> Option<Vec<usize>> {
    match of_folder {
        None => data::labels_beside(arguments, classes).unwrap_or_else(|why| {
            note!("note: {why:#}; labels are left out");
            None
        }),
        Some(labels) if labels.iter().any(|&label| label >= classes) => {
            note!(
                "note: {}: has more subfolders than the model has classes ({classes}); labels are left out",
                arguments.join(", ")
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
