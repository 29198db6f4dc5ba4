//! The inputs that a model is fitted on, and those that are held out.

use super::arguments::Args;
use super::check;
use crate::memory;
use crate::task::Subject;
use anyhow::{Result, bail};
use ir::graph::Graph;
use ir::plan::InputPort;
use ir::{ElementType, Tensor};
use polyc::fit::{Calibration, Needs, evenly};
use polyc::onnx::Imported;
use polyc::oracle::{Agreement, Outputs};
use polyc::task::{Labels, Output, Task, Truth, Truths};
use polyc::{Prepared, data, ports};
use std::path::Path;

/// Inputs, as they are used.
pub struct Inputs {
    /// What activations are fitted on.
    pub calibration: Calibration,
    /// What plans are measured on.
    pub measured: Vec<Tensor<f32>>,
    /// What is right of those, where it is known.
    pub truths: Truths,
    /// Whether no fit has seen them.
    pub are_held_out: bool,
    /// What the outputs mean.
    pub tasks: Vec<Task>,
    /// What an oracle says of the import.
    pub agreement: Agreement,
    /// The outputs of the file itself for `measured`, where tract came to an end.
    pub float: Option<Vec<Vec<Tensor<f32>>>>,
}

/// Of fewer inputs none is held out: all are fitted on and measured.
const LEAST_TO_SPLIT: usize = 5;
/// One of so many is held out.
const HELD_OUT: usize = 5;
/// Fewer inputs are not fitted on for want of memory.
const LEAST_FITTED: usize = 2;
/// Plans are measured on as many inputs as they are fitted on, or on this many.
const LEAST_MEASURED: usize = 16;
/// Made-up inputs that plans are evaluated on.
const MADE_UP: usize = 32;

/// Inputs as they were read or made up.
pub struct Read {
    /// The model's input values.
    pub inputs: Vec<Tensor<f32>>,
    /// Labels that their folders tell.
    labels: Option<Labels>,
    is_synthetic: bool,
    /// What an oracle says of the import.
    agreement: Agreement,
    /// The model's outputs, and its inputs as the file takes them.
    outputs: Outputs,
    parts: Vec<Vec<Tensor<f32>>>,
}

/// Reads the calibration inputs, or makes some up, checks the import on them, and settles the units of
/// several inputs.
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
            (data.parts, data.labels)
        }
        None => (made_up(args, &ports), None),
    };
    let agreement = check::import(args, imported, &parts)?;
    let outputs = Outputs::of(imported);
    ports::settle_inputs(imported, &mut ports, &parts);
    let inputs = data::join(&ports, &parts)?;
    let is_synthetic = args.calibration().is_none();
    Ok((ports, Read { inputs, labels, is_synthetic, agreement, outputs, parts }))
}

/// Reads the labels, and holds some of the inputs out.
pub fn split(args: &Args, prepared: &Prepared, read: Read) -> Result<Inputs> {
    let Read { inputs: all, labels, is_synthetic, agreement, outputs: of_file, parts } = read;
    let (count, most) = (all.len(), most_inputs(args, &prepared.graph)?);
    let outputs = Output::of_network(&prepared.inputs, &prepared.outputs, &prepared.original);
    if is_synthetic {
        let measured = all[..MADE_UP.min(count)].to_vec();
        let made = Calibration::new(all, "synthetic inputs");
        let mut calibration = Calibration { is_synthetic: true, ..made };
        calibration.limit(most);
        let tasks = args.task.of_network(&outputs)?;
        if args.calibrate.is_empty() {
            warn_of_made_up(args, &prepared.inputs);
        }
        let (truths, are_held_out, float) = (vec![], false, None);
        return Ok(Inputs { calibration, measured, truths, are_held_out, tasks, agreement, float });
    }
    let (tasks, truths) = args.task.read(&Subject {
        outputs: &outputs,
        planned: None,
        arguments: &args.calibrate,
        of_folder: labels.as_ref(),
        inputs: count,
    })?;
    warn(&args.calibration_name(), &all);
    let are_held_out = count >= LEAST_TO_SPLIT;
    let is_sorted = args.calibrate.iter().any(|path| Path::new(path).is_dir())
        || truths.iter().flatten().any(|truths| are_sorted(truths));
    let is_out = |i: usize| is_held_out(i, count, is_sorted);
    let positions = |wanted: bool| -> Vec<usize> {
        (0..count).filter(|&i| !are_held_out || is_out(i) == wanted).collect()
    };
    let pick = |positions: &[usize]| -> (Vec<Tensor<f32>>, Truths) {
        let of_output = |truths: &Option<Vec<Truth>>| {
            truths.as_ref().map(|t| positions.iter().map(|&i| t[i].clone()).collect())
        };
        let truths = truths.iter().map(of_output).collect();
        (positions.iter().map(|&i| all[i].clone()).collect(), truths)
    };
    let rows = positions(false);
    let (inputs, of_fitted) = pick(&rows);
    let chosen = evenly(positions(true), most.max(LEAST_MEASURED));
    let (measured, truths) = pick(&chosen);
    let float = check::outputs(args, &agreement, &of_file, &parts, &chosen)?;
    let description = format!("{} of {}", counted(inputs.len()), args.calibration_name());
    let mut calibration =
        Calibration { rows, truths: of_fitted, ..Calibration::new(inputs, description) };
    if calibration.limit(most) {
        let used = calibration.inputs.len();
        note!(
            "note: fitting on {used} inputs, as many as fit in {} of memory (--memory)",
            memory::text(args.memory())
        );
        calibration.description = format!("{} of {}", counted(used), args.calibration_name());
    }
    Ok(Inputs { calibration, measured, truths, are_held_out, tasks, agreement, float })
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
    let made_up = |port: &InputPort| {
        let range = made_up_range(args, port);
        let inputs = Calibration::synthetic(&port.shape, range, args.count as usize).inputs;
        let whole = |x: Tensor<f32>| if port.element.is_whole() { x.map(f32::round) } else { x };
        inputs.into_iter().map(whole).collect()
    };
    ports.iter().map(made_up).collect()
}

/// Where a port's made-up inputs lie: of small integers, anywhere.
fn made_up_range(args: &Args, port: &InputPort) -> (f32, f32) {
    let range = args.input_range();
    match port.element {
        ElementType::Bool | ElementType::Integer { bits: ..=8, .. } => {
            port.element.range().map_or(range, |(l, h)| (l as f32, h as f32))
        }
        _ => range,
    }
}

fn warn_of_made_up(args: &Args, ports: &[InputPort]) {
    let range = |port| made_up_range(args, port);
    let mut named: Vec<String> =
        ports.iter().map(range).map(|(l, h)| format!("[{l}, {h}]")).collect();
    named.dedup();
    note!(
        "WARNING: no calibration data: activations are fitted on made-up inputs in {}, and \
         nothing can be promised about accuracy; give --calibrate FILE with a few hundred real inputs",
        named.join(", ")
    );
}

fn counted(inputs: usize) -> String {
    format!("{inputs} {}", if inputs == 1 { "input" } else { "inputs" })
}

/// Says of inputs that tell little what they lack.
fn warn(files: &str, inputs: &[Tensor<f32>]) {
    let elements = || inputs.iter().flat_map(|x| &x.data);
    let value = inputs[0].data.first().copied().unwrap_or(0.0);
    let found = if elements().all(|&v| v == value) {
        match value {
            0.0 => "nothing but zeros".to_owned(),
            value => format!("the number {value} everywhere"),
        }
    } else if inputs.len() == 1 {
        "one input".to_owned()
    } else if inputs.iter().all(|x| x.data == inputs[0].data) {
        format!("{} times the same input", inputs.len())
    } else {
        return;
    };
    note!(
        "WARNING: {files} holds {found}: activations are fitted where that puts them, and other inputs may lie \
         anywhere else; give a few hundred inputs like those of the training set"
    );
}

/// Whether inputs of a label stand together.
fn are_sorted(truths: &[Truth]) -> bool {
    let label = |truth: &Truth| match truth {
        Truth::Classes(classes) => {
            classes.first().filter(|_| classes.len() == 1).map(|&class| class as f32)
        }
        Truth::Numbers(numbers) => numbers.first().copied().filter(|_| numbers.len() == 1),
    };
    let Some(labels) = truths.iter().map(label).collect::<Option<Vec<f32>>>() else {
        return false;
    };
    labels.is_sorted() && labels.first() != labels.last()
}

/// Which of `count` inputs are held out: the last fifth, or every fifth where classes follow one another.
fn is_held_out(i: usize, count: usize, is_sorted: bool) -> bool {
    if is_sorted { i % HELD_OUT == HELD_OUT - 1 } else { i >= count - count / HELD_OUT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_is_held_out_of_all_classes() {
        for count in LEAST_TO_SPLIT..200 {
            for is_sorted in [false, true] {
                let out = (0..count).filter(|&i| is_held_out(i, count, is_sorted)).count();
                assert_eq!(out, count / 5, "of {count}");
            }
        }
        let classes = |of: &[usize]| -> Vec<Truth> {
            of.iter().map(|&class| Truth::Classes(vec![class])).collect()
        };
        assert!(are_sorted(&classes(&[0, 0, 1, 1, 2])));
        assert!(!are_sorted(&classes(&[0, 1, 0])) && !are_sorted(&classes(&[3, 3])));
        assert!(!are_sorted(&[Truth::Classes(vec![0, 1]), Truth::Classes(vec![1, 1])]));
        let numbers = |of: &[f32]| -> Vec<Truth> {
            of.iter().map(|&number| Truth::Numbers(vec![number])).collect()
        };
        assert!(are_sorted(&numbers(&[-1.0, 0.5, 2.0])) && !are_sorted(&numbers(&[1.0, 0.5])));
    }
}
