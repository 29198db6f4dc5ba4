//! `polyc evaluate`

use super::compile::PreprocessingArgs;
use super::files;
use anyhow::{Context, Result, bail};
use ir::plan::Weights;
use polyc::data::{load_inputs, load_labels};
use std::path::PathBuf;

/// Evaluates a plan in the clear, exactly, beside the network it came from
///
/// The plan's integers are evaluated as two parties would, truncations rounded to nearest; carries of a
/// run move outputs by the deviation that is printed.
#[derive(clap::Args)]
pub struct Args {
    /// The plan
    plan: PathBuf,
    /// Inputs (.npy, or .npz with an array `x`)
    #[arg(long)]
    inputs: PathBuf,
    /// Labels (.npy, or .npz with an array `y`); by default those of the inputs' .npz, where it has some
    #[arg(long)]
    labels: Option<PathBuf>,
    /// Use at most this many inputs
    #[arg(long, value_name = "N")]
    count: Option<usize>,
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
    let preprocessing = args.preprocessing.into_preprocessing()?;
    let inputs = load_inputs(&args.inputs, plan.input_shape(), &preprocessing, args.count)?;
    let labels = match &args.labels {
        Some(file) => Some(load_labels(file)?),
        None if args.inputs.extension().is_some_and(|e| e == "npz") => {
            load_labels(&args.inputs).ok()
        }
        None => None,
    };
    if labels.as_ref().is_some_and(|l| l.len() < inputs.len()) {
        bail!("{} labels for {} inputs", labels.map_or(0, |l| l.len()), inputs.len());
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
    let evaluation = evaluation?;
    if args.json {
        let mut json = serde_json::to_value(&evaluation)?;
        if args.logits {
            json["logits"] = serde_json::to_value(&evaluation.logits)?;
        }
        files::print(&serde_json::to_string_pretty(&json)?);
    } else {
        files::print(&evaluation.to_text());
    }
    Ok(())
}
