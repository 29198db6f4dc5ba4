//! `polyc compile`

mod arguments;
mod check;
mod class_names;
mod data;
mod goal;
mod output;

pub use arguments::{Args, PreprocessingArgs};

use crate::{files, memory};
use anyhow::{Context, Result};
use arguments::Pool;
use data::Inputs;
use ir::Tensor;
use ir::graph::{Graph, Op};
use ir::plan::InputPort;
use polyc::error::CompileError;
use polyc::evaluate::Sample;
use polyc::fit::{Needs, name_rows};
use polyc::onnx::{ImportError, Imported, import_file};
use polyc::oracle::{Agreement, remember};
use polyc::passes::{MaxPool, PassOptions};
use polyc::search::{Measured, check, search};
use polyc::{Prepared, prepare};
use std::path::Path;
use std::time::Instant;

/// Runs the subcommand.
pub fn run(args: Args) -> Result<()> {
    let start = Instant::now();
    let weights = output::check(&args)?;
    goal::check(&args)?;
    let mut imported = import(&args)?;
    let (ports, read) = data::read(&args, &mut imported)?;
    let (mut prepared, passes) = prepared(&args, imported, ports, &read.inputs)?;
    let inputs = data::split(&args, &prepared, read)?;
    prepared.outputs.iter_mut().zip(&inputs.tasks).for_each(|(port, task)| port.task = *task);
    class_names::give(&args.labels_files, &mut prepared.outputs)?;
    let opened = prepared
        .open_clips(&inputs.calibration, &passes)
        .map_err(|e| refused(e, &args.model, args.json))?;
    if !opened.is_empty() {
        note!(
            "note: clips whose bounds no calibration input reaches are left out: {}",
            opened.len()
        );
    }
    let Measured { mut compiled, evaluation, .. } = compile(&args, &prepared, &inputs)?;
    if let Agreement::Checked { by: "tract", .. } = inputs.agreement {
        compiled.reference.source = Some(remember(&args.model, &args.import_options())?);
    }
    output::write(&args, &weights, &compiled)?;
    output::print(&args, &weights, &compiled, evaluation, &inputs)?;
    if !args.json {
        let seconds = start.elapsed().as_secs_f64();
        let peak = memory::peak().map_or("unknown".into(), memory::text);
        say!("peak {peak}, {seconds:.0} s");
    }
    Ok(())
}

/// The network as the file has it.
fn import(args: &Args) -> Result<Imported> {
    let imported = import_file(&args.model, &args.import_options())
        .map_err(|e| refused(e.into(), &args.model, args.json))?;
    for warning in &imported.warnings {
        note!("note: {warning}");
    }
    Ok(imported)
}

/// The network, ready to be fitted.
fn prepared(
    args: &Args,
    imported: Imported,
    ports: Vec<InputPort>,
    sample: &[Tensor<f32>],
) -> Result<(Prepared, PassOptions)> {
    let max_pool = match args.max_pool {
        Pool::Exact => MaxPool::Exact,
        Pool::Average => MaxPool::Average,
        Pool::Fit => MaxPool::Fit,
    };
    let passes = PassOptions { max_pool };
    let prepared = prepare(imported, ports, sample, &passes)
        .map_err(|e| refused(e, &args.model, args.json))?;
    if args.max_pool == Pool::Average {
        note_averages(&prepared.graph);
    }
    Ok((prepared, passes))
}

/// Compiles until the goal is reached, and refuses what nobody should ship.
fn compile(args: &Args, prepared: &Prepared, inputs: &Inputs) -> Result<Measured> {
    let Inputs { calibration, measured, truths, float, .. } = inputs;
    let (goal, options) = (goal::goal(args), goal::compile_options(args, &prepared.graph)?);
    // The plan's identity is what is computed: the model's file may have any name.
    let name = prepared.outputs.first().map_or("model", |output| output.name.as_str());
    let bar = files::bar("fitting")?;
    let sample = Sample { inputs: measured, truths, float: float.as_deref() };
    let progress = |stage: &str, share: f64| {
        bar.set_message(stage.to_owned());
        bar.set_position(files::position(share));
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = Needs::of(&prepared.graph).threads(args.memory()).min(cores);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let measured =
        pool.install(|| search(name, prepared, calibration, sample, &options, goal, &progress));
    bar.finish_and_clear();
    let in_model = || args.model.display().to_string();
    let measured = measured.with_context(in_model)?;
    measured.notes.iter().for_each(|note| note!("note: {note}"));
    if !measured.compiled.outliers.is_empty() {
        note!(
            "WARNING: {} of {} calibration inputs ({}) explode in this network's polynomials and leave the planned \
             bounds; the plan's answer to such inputs is garbage",
            measured.compiled.outliers.len(),
            calibration.inputs.len(),
            name_rows(&measured.compiled.outliers)
        );
    }
    if !args.force && !calibration.is_synthetic {
        check(&measured, args.gate()).with_context(in_model)?;
    }
    Ok(measured)
}

/// How many nodes are named.
const MOST_NAMED: usize = 5;

/// Names the maxima and minima that become averages: reductions over axes as well as pooling.
fn note_averages(graph: &Graph) {
    let order = graph.order();
    let maxima = order.iter().filter(|&&id| matches!(graph.node(id).op, Op::MaxWindows { .. }));
    let mut names: Vec<&str> = maxima.map(|&id| graph.node(id).name.as_str()).collect();
    names.dedup();
    if !names.is_empty() {
        note!("note: averages take the place of maxima or minima: {}", first(names));
    }
}

/// The first few of a list of names that may be long.
fn first(mut names: Vec<&str>) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.truncate(MOST_NAMED);
    format!("{}{more}", names.join(", "))
}

/// What is wrong with a model, behind its name. Prints every node that is in the way if JSON is asked for;
/// the error names the first ones.
fn refused(error: CompileError, model: &Path, json: bool) -> anyhow::Error {
    if let (true, Some(nodes)) = (json, error.unsupported()) {
        say!("{:#}", serde_json::json!({ "unsupported": nodes }));
    }
    if matches!(error, CompileError::Import(ImportError::Unreadable { .. })) {
        return error.into();
    }
    anyhow::Error::new(error).context(model.display().to_string())
}
