//! `polyc evaluate`

use super::compile::PreprocessingArgs;
use super::task::{Subject, TaskArgs};
use super::{files, memory};
use anyhow::{Context, Result};
use ir::plan::Weights;
use polyc::data;
use polyc::evaluate::Sample;
use polyc::oracle::recall;
use polyc::task::{Output, Task};
use std::path::PathBuf;

/// Evaluates a plan in the clear, exactly, beside the network it came from
///
/// The plan's integers are evaluated as two parties would, in simulated runs that round as a run's masks do.
#[derive(clap::Args)]
pub struct Args {
    /// The plan
    plan: PathBuf,
    /// Inputs: .npy, .npz with an array `x`, an image, or a folder of PNG and JPEG images, read in name order
    ///
    /// The inputs of a model that has several are arrays of their names in one .npz file, or files of their
    /// own: --inputs NAME=PATH for each. Preprocessing is the plan's unless options say otherwise.
    #[arg(long, value_name = "[NAME=]PATH", required = true)]
    inputs: Vec<String>,
    #[command(flatten)]
    task: TaskArgs,
    /// Use at most this many inputs; of a folder, taken evenly from all of it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// The weights [default: beside the plan, with the extension .weights]
    #[arg(long)]
    weights: Option<PathBuf>,
    #[command(flatten)]
    preprocessing: PreprocessingArgs,
    /// Print a JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Add the plan's outputs without carries to the JSON object, `logits`, a list per input
    #[arg(long, requires = "json")]
    logits: bool,
}

pub fn run(args: Args) -> Result<()> {
    let (plan, digest) = files::read_plan(&args.plan)?;
    let path = args.weights.unwrap_or_else(|| files::weights_path(&args.plan));
    let bytes = files::read(&path)?;
    let in_weights = || path.display().to_string();
    let weights = Weights::from_bytes(&bytes, &plan, digest).with_context(in_weights)?;
    let reference = Weights::reference_from_bytes(&bytes).with_context(in_weights)?;
    let limit = args.count.map(|n| n as usize);
    let (ports, notes) =
        plan.ports_read_by(&args.preprocessing.to_options()).map_err(anyhow::Error::msg)?;
    let data = data::load(&args.inputs, "--inputs", &ports, limit)?;
    notes.iter().chain(&data.notes).for_each(|note| note!("note: {note}"));
    let inputs = data::join(&ports, &data.parts)?;
    let outputs = match &reference {
        Some(reference) => Output::of_network(&plan.inputs, &plan.outputs, &reference.original),
        None => Output::of_plan(&plan.inputs, &plan.outputs),
    };
    let planned: Vec<Task> = plan.outputs.iter().map(|port| port.task).collect();
    let (tasks, truths) = args.task.read(&Subject {
        outputs: &outputs,
        planned: Some(&planned),
        arguments: &args.inputs,
        of_folder: data.labels.as_ref(),
        inputs: inputs.len(),
    })?;
    for (port, task) in plan.outputs.iter().zip(&tasks).filter(|(port, task)| port.task != **task) {
        let (planned, task) = (port.task.name(), task.name());
        note!("note: judged as --task {task}; the plan says {planned}, and polyrt prints that");
    }
    let float = reference.as_ref().and_then(|r| r.source.as_ref()).and_then(|source| {
        let found = recall(source, memory::available() as u64);
        let (oracle, outputs) = found.inspect_err(|why| note!("note: {why:#}")).ok()?;
        outputs.all(&oracle, &data.parts)
    });
    let sample = Sample { inputs: &inputs, truths: &truths, float: float.as_deref() };
    let bar = files::bar("evaluating")?;
    let evaluation =
        polyc::evaluate::run(&plan, &weights, reference.as_ref(), &tasks, sample, &|share| {
            bar.set_position(files::position(share))
        });
    bar.finish_and_clear();
    let evaluation = evaluation.with_context(|| args.inputs.join(", "))?;
    if args.json {
        let mut json = evaluation.to_json()?;
        if args.logits {
            json["logits"] = serde_json::to_value(&evaluation.logits)?;
        }
        say!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        if reference.is_some() {
            let of_whom =
                if float.is_some() { "tract's, of the model's file" } else { "the import's" };
            say!("float is {of_whom}");
        }
        say!("{}", evaluation.to_text());
    }
    Ok(())
}
