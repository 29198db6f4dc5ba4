//! `polyc compile`

use super::files;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use polyc::data::{Preprocessing, load_inputs, load_labels};
use polyc::error::CompileError;
use polyc::fit::{Calibration, Family};
use polyc::onnx::{ImportOptions, import_file};
use polyc::passes::{MaxPool, PassOptions};
use polyc::{CompileOptions, compile, evaluate, prepare};
use std::path::{Path, PathBuf};

/// Compiles an ONNX model to a public plan and secret weights
///
/// Writes the plan to OUTPUT and the weights beside it with the extension `.weights`, readable by you
/// alone. Activations are fitted on calibration inputs: a few hundred inputs like those of the training
/// set, preprocessed as in training, no labels needed. Without them the fit uses made-up inputs, and the
/// accuracy is anybody's guess: measure it with `polyc evaluate`.
#[derive(clap::Args)]
pub struct Args {
    /// The ONNX model
    model: PathBuf,
    /// Where the public plan goes
    #[arg(short, long, default_value = "plan.bin")]
    output: PathBuf,
    /// Calibration inputs (.npy, or .npz with an array `x`), or `synthetic` for made-up ones
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Use at most this many calibration inputs
    #[arg(long, default_value_t = 1000, value_name = "N")]
    count: usize,
    /// What activations are fitted with
    #[arg(long, value_enum, default_value_t = Activation::Phase)]
    activation: Activation,
    /// Harmonics of a phase fit: more are more accurate and need more correlations, not more traffic
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    harmonics: u8,
    /// Bits of a phase
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(5..=12), value_name = "BITS")]
    phase_bits: u8,
    /// What to do with maximum pooling, which needs comparisons
    #[arg(long, value_enum, default_value_t = Pool::Refuse)]
    max_pool: Pool,
    /// The output to compute, by name, where the model has several
    #[arg(long = "output-name", value_name = "NAME")]
    output_name: Option<String>,
    #[command(flatten)]
    preprocessing: PreprocessingArgs,
    /// Range of made-up inputs
    #[arg(long, value_name = "LOW,HIGH", default_value = "0,1", allow_hyphen_values = true, value_parser = parse_range)]
    input_range: (f32, f32),
    /// Print the compiled steps
    #[arg(long)]
    print_plan: bool,
    /// Print a JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// How arrays become inputs.
#[derive(clap::Args)]
pub struct PreprocessingArgs {
    /// Mean per channel, subtracted (bytes are divided by 255 first)
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "M,…")]
    mean: Vec<f32>,
    /// Standard deviation per channel, divided by
    #[arg(long, value_delimiter = ',', value_name = "S,…")]
    std: Vec<f32>,
    /// Take bytes as they are, without dividing by 255
    #[arg(long)]
    raw: bool,
}

impl PreprocessingArgs {
    /// The options as the library takes them.
    pub fn into_preprocessing(self) -> Result<Preprocessing> {
        if self.std.iter().any(|&s| !(s.is_finite() && s > 0.0))
            || self.mean.iter().any(|m| !m.is_finite())
        {
            bail!("--mean and --std take finite numbers, --std positive ones");
        }
        Ok(Preprocessing { mean: self.mean, std: self.std, raw: self.raw })
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Activation {
    /// Trigonometric polynomials of the value's phase on the ring: cannot escape
    Phase,
    /// Polynomials of degree 2
    Square,
    /// Polynomials of degree 4
    Quartic,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Pool {
    /// Refuse the model, naming the nodes
    Refuse,
    /// Average over the window instead: no rounds and no correlations, but another network, for which the
    /// layers behind are re-solved
    Average,
    /// Compute it as a tree of fitted |a − b|, closest to the network: two rounds for 2x2 windows, four for
    /// 3x3, and a phase's correlations for each |a − b|; activations in front move behind, where they are
    /// fewer, so 2x2 windows need no more in total
    Fit,
}

pub fn run(args: Args) -> Result<()> {
    let is_input = |file: &Path| {
        file.canonicalize().is_ok_and(|f| args.output.canonicalize().is_ok_and(|o| o == f))
    };
    if is_input(&args.model) || args.calibrate.as_deref().is_some_and(is_input) {
        bail!("{} is an input; give the plan another name", args.output.display());
    }
    if args.output.is_dir() {
        bail!("cannot write {}: is a directory", args.output.display());
    }
    let import = ImportOptions { output: args.output_name.clone() };
    let imported = import_file(&args.model, &import)
        .map_err(CompileError::from)
        .with_context(|| args.model.display().to_string())?;
    for warning in &imported.warnings {
        eprintln!("note: {warning}");
    }
    let max_pool = match args.max_pool {
        Pool::Refuse => MaxPool::Refuse,
        Pool::Average => MaxPool::Average,
        Pool::Fit => MaxPool::Fit,
    };
    let prepared = prepare(imported.graph, &PassOptions { max_pool })
        .with_context(|| args.model.display().to_string())?;
    let shape = prepared.graph.node(prepared.graph.input()).shape.clone();
    let preprocessing = args.preprocessing.into_preprocessing()?;
    let file = args.calibrate.as_deref().filter(|f| *f != Path::new("synthetic"));
    let (calibration, held_out, labels) = match file {
        Some(file) => {
            let mut inputs = load_inputs(file, &shape, &preprocessing, Some(args.count))?;
            let labels = load_labels(file).ok();
            let count = inputs.len();
            let held_out =
                if count >= 50 { inputs.split_off(count - count / 5) } else { inputs.clone() };
            let labels = labels
                .filter(|l| l.len() >= count)
                .map(|l| l[count - held_out.len()..count].to_vec());
            let description = format!("{} inputs of {}", inputs.len(), file.display());
            (Calibration { inputs, is_synthetic: false, description }, held_out, labels)
        }
        None => {
            if args.calibrate.is_none() {
                eprintln!(
                    "WARNING: no calibration data: activations are fitted on made-up inputs in [{}, {}], and \
                     nothing can be promised about accuracy; give --calibrate FILE with a few hundred real inputs",
                    args.input_range.0, args.input_range.1
                );
            }
            let calibration = Calibration::synthetic(&shape, args.input_range);
            let held_out = calibration.inputs[..32].to_vec();
            (calibration, held_out, None)
        }
    };
    let family = match args.activation {
        Activation::Phase => Family::Phase { harmonics: args.harmonics.into() },
        Activation::Square => Family::Polynomial { degree: 2 },
        Activation::Quartic => Family::Polynomial { degree: 4 },
    };
    let mut options = CompileOptions { family, ..CompileOptions::default() };
    options.rings.phase_bits = args.phase_bits.into();
    let name = args.model.file_stem().map_or("model".into(), |n| n.to_string_lossy().into_owned());
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {percent}% {eta}")?;
    let bar = ProgressBar::new(1000).with_style(style).with_message("fitting");
    let compiled = compile(&name, prepared, &calibration, &options, &mut |share| {
        bar.set_position((share * 1000.0) as u64);
    });
    bar.finish_and_clear();
    let compiled = compiled.with_context(|| args.model.display().to_string())?;
    if compiled.outliers > 0 {
        eprintln!(
            "WARNING: {} of {} calibration inputs explode in this network's polynomials and leave the planned \
             bounds; the plan's answer to such inputs is garbage",
            compiled.outliers,
            calibration.inputs.len()
        );
    }
    let evaluation = evaluate::run(
        &compiled.plan,
        &compiled.weights,
        Some(&compiled.reference),
        &held_out,
        labels.as_deref(),
    )?;
    let weights = files::weights_path(&args.output);
    if weights == args.output {
        bail!("the plan cannot have the extension .weights");
    }
    files::write(&weights, &compiled.weights.to_bytes(Some(&compiled.reference)), true)?;
    files::write(&args.output, &compiled.plan.to_bytes().0, false)?;
    let (to0, to1, messages) = compiled.plan.traffic(1);
    if args.json {
        let summary = serde_json::json!({
            "plan": args.output, "weights": weights, "digest": compiled.digest.to_string(),
            "calibration": calibration.description, "messages": messages,
            "bytes_to_party0": to0, "bytes_to_party1": to1, "evaluation": evaluation,
        });
        files::print(&serde_json::to_string_pretty(&summary)?);
        return Ok(());
    }
    if args.print_plan {
        files::print(&compiled.plan.to_string());
    }
    files::print(&format!("fitted on {}; held out:", calibration.description));
    files::print(&evaluation.to_text());
    files::print(&format!(
        "{} (public) and {} (secret, stays home): {} steps, {messages} messages, {} bytes online",
        args.output.display(),
        weights.display(),
        compiled.plan.steps.len(),
        polyc::report::thousands(to0 + to1)
    ));
    Ok(())
}

fn parse_range(text: &str) -> Result<(f32, f32), String> {
    let parsed = text.split_once(',').and_then(|(l, h)| Some((l.parse().ok()?, h.parse().ok()?)));
    parsed
        .filter(|(low, high): &(f32, f32)| low < high && low.is_finite() && high.is_finite())
        .ok_or_else(|| "expected LOW,HIGH such as -1,1".into())
}
