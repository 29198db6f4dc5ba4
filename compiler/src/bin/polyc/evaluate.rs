//! `polyc evaluate`

use super::compile::PreprocessingArgs;
use super::files;
use anyhow::{Context, Result, bail};
use ir::plan::Weights;
use polyc::data::{self, load_labels};
use polyc::evaluate::class_count;
use std::path::PathBuf;

/// Evaluates a plan in the clear, exactly, beside the network it came from
///
/// The plan's integers are evaluated as two parties would, truncations rounded to nearest; carries of a
/// run move outputs by the deviation that is printed.
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
    /// Labels: .npy, or .npz with an array `y`
    ///
    /// By default those of the inputs' .npz, where it has some; for images that lie in subfolders, the
    /// position of theirs among all, sorted by name (the convention of torchvision's ImageFolder).
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
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
    /// Add the plan's outputs to the JSON object, `logits`, a list per input
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
    let files = args.inputs.join(", ");
    let classes = class_count(&plan.step(plan.output).shape);
    let (labels, of) = match &args.labels {
        Some(file) => {
            let labels = load_labels(file, classes)?;
            let missing = || format!("{}: no array named \"y\" or \"labels\"", file.display());
            (Some(labels.with_context(missing)?), file.display().to_string())
        }
        None if data.labels.is_some() => (data.labels, files.clone()),
        None => (data::labels_beside(&args.inputs, classes)?, files.clone()),
    };
    if let Some(labels) = &labels {
        if labels.len() < inputs.len() {
            bail!("{of}: {} labels for {} inputs", labels.len(), inputs.len());
        }
        if let Some(label) = labels.iter().find(|&&label| label >= classes) {
            bail!("{of}: has a class {label}, the model has {classes} classes");
        }
    }
    let labels = labels.map(|l| l[..inputs.len()].to_vec());
    let bar = files::bar("evaluating")?;
    let evaluation = polyc::evaluate::run(
        &plan,
        &weights,
        reference.as_ref(),
        &inputs,
        labels.as_deref(),
        &|share| bar.set_position(files::position(share)),
    );
    bar.finish_and_clear();
    let evaluation = evaluation.with_context(|| files)?;
    if args.json {
        let mut json = serde_json::to_value(&evaluation)?;
        if args.logits {
            json["logits"] = serde_json::to_value(&evaluation.logits)?;
        }
        say!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        say!("{}", evaluation.to_text());
    }
    Ok(())
}
