//! `polyc compile`

use super::files;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use ir::graph::{Graph, Op};
use ir::input::{Layout, Preprocessing};
use polyc::data::{load_inputs, load_labels};
use polyc::error::CompileError;
use polyc::fit::{Calibration, Family, Harmonics};
use polyc::onnx::{ImportError, ImportOptions, import_file};
use polyc::passes::{MaxPool, PassOptions};
use polyc::report::{round_trips, steps};
use polyc::search::{Gate, Goal, HeldOut, Measured, Minimise, check, search};
use polyc::{CompileOptions, evaluate, prepare};
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
    /// Calibration inputs: .npy, .npz with an array `x`, or a folder of PNG and JPEG images; or `synthetic`
    /// for made-up ones
    ///
    /// A fifth of fifty inputs or more is held out to measure the accuracy. Labels are array `y` of
    /// an .npz file; images that lie in subfolders have the position of theirs, sorted by name, as label.
    #[arg(long, value_name = "PATH")]
    calibrate: Option<PathBuf>,
    /// Use at most this many calibration inputs; of a folder, taken evenly from all of it
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// What activations are fitted with
    #[arg(long, value_enum, default_value_t = Activation::Phase)]
    activation: Activation,
    /// Harmonics of every phase fit [default: per layer, as few as fit it well, at most 6]: more are more
    /// accurate and need more correlations, not more traffic
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8), value_name = "N")]
    harmonics: Option<u8>,
    /// Search the plan of the fewest bits that loses at most this: points of accuracy, on the calibration
    /// inputs, of what two parties compute against the fitted network in float (agreement with the network
    /// in float where labels are not known). Inputs that the network was not trained on tell more, and a
    /// thousand or two more than a few hundred. Compiles about a dozen times; fewer bytes online cost more
    /// offline. For auto, harmonics are searched instead, against the network in float on held-out inputs
    /// [default for auto: 1]
    #[arg(long, value_name = "POINTS", value_parser = parse_points)]
    accuracy_loss: Option<f64>,
    /// What --accuracy-loss has as little of as it can
    #[arg(long, value_enum, default_value_t = MinimiseArg::Online, requires = "accuracy_loss")]
    minimise: MinimiseArg,
    /// Refuse a plan that loses more than this on held-out inputs: points of accuracy where labels are
    /// known, otherwise percent of inputs whose class changes
    #[arg(long, value_name = "POINTS", default_value_t = 10.0, value_parser = parse_points)]
    max_loss: f64,
    /// For auto: at most this many bytes an inference, online and one party's correlations together
    #[arg(long, value_name = "BYTES")]
    byte_budget: Option<usize>,
    /// Refuse polynomials from whose planned bounds more than this percentage of held-out inputs escapes
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5, value_parser = parse_points)]
    max_escape: f64,
    /// Write the plan even if it loses too much or escapes
    #[arg(long)]
    force: bool,
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
    /// Print a JSON object instead of text; of a model that is refused, all its nodes that are in the way
    #[arg(long)]
    json: bool,
}

/// How arrays and images become inputs.
#[derive(clap::Args)]
pub struct PreprocessingArgs {
    /// Mean, subtracted: one, or one per channel (bytes and images are divided by 255 first)
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "M,…")]
    mean: Vec<f32>,
    /// Standard deviation, divided by: one, or one per channel
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "S,…")]
    std: Vec<f32>,
    /// Take bytes and images as they are, without dividing by 255
    #[arg(long)]
    raw: bool,
    /// Order of the axes of an array in the file: channels first (nchw) or last (nhwc); images that become
    /// rows are read in this order
    #[arg(long, value_enum, default_value_t = LayoutArg::Auto)]
    layout: LayoutArg,
}

#[derive(Clone, Copy, ValueEnum)]
enum LayoutArg {
    /// Whichever fits the model; where both do, a note says which was taken
    Auto,
    /// Channels first
    Nchw,
    /// Channels last
    Nhwc,
}

impl PreprocessingArgs {
    /// The options as the library takes them.
    pub fn into_preprocessing(self) -> Preprocessing {
        let layout = match self.layout {
            LayoutArg::Auto => Layout::Auto,
            LayoutArg::Nchw => Layout::Nchw,
            LayoutArg::Nhwc => Layout::Nhwc,
        };
        Preprocessing { mean: self.mean, std: self.std, raw: self.raw, layout }
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
    /// Phases with the fewest harmonics that --accuracy-loss or --byte-budget allow; compiles a few times
    Auto,
}

#[derive(Clone, Copy, ValueEnum)]
enum MinimiseArg {
    /// Bytes of the online phase: fewer bits of phases and of the rings that values travel in
    Online,
    /// Bytes of the offline phase: fewer harmonics and bits
    Offline,
    /// Bytes of both, which a run sends that has nothing prepared
    Latency,
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
    let weights = files::weights_path(&args.output);
    if weights == args.output {
        bail!("the plan cannot have the extension .weights");
    }
    if let Some(folder) = [&args.output, &weights].into_iter().find(|f| f.is_dir()) {
        bail!("cannot write {}: is a directory", folder.display());
    }
    files::check_output(&args.output)?;
    let goal = goal(&args)?;
    let import = ImportOptions { output: args.output_name.clone() };
    let imported =
        import_file(&args.model, &import).map_err(|e| refused(e.into(), &args.model, args.json))?;
    for warning in &imported.warnings {
        note!("note: {warning}");
    }
    let max_pool = match args.max_pool {
        Pool::Refuse => MaxPool::Refuse,
        Pool::Average => MaxPool::Average,
        Pool::Fit => MaxPool::Fit,
    };
    let prepared = prepare(imported.graph, &PassOptions { max_pool })
        .map_err(|e| refused(e, &args.model, args.json))?;
    let shape = prepared.graph.node(prepared.graph.input()).shape.clone();
    if args.max_pool == Pool::Average {
        note_averages(&prepared.graph);
    }
    let classes = evaluate::class_count(&prepared.graph.node(prepared.graph.output()).shape);
    let preprocessing = args.preprocessing.into_preprocessing();
    preprocessing.check(&shape).map_err(anyhow::Error::msg)?;
    let file = args.calibrate.as_deref().filter(|f| *f != Path::new("synthetic"));
    let (calibration, held_out, labels) = match file {
        Some(file) => {
            let data = load_inputs(file, &shape, &preprocessing, Some(args.count as usize))?;
            data.notes.iter().for_each(|note| note!("note: {note}"));
            let is_npz = file.extension().is_some_and(|e| e == "npz");
            let labels = match data.labels {
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
            };
            let labels = labels.filter(|l| l.len() >= data.inputs.len());
            let count = data.inputs.len();
            let is_few = count < 50;
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
                Calibration { inputs, labels: of_fitted, is_synthetic: false, description };
            if calibration.limit(&prepared.graph) {
                let used = calibration.inputs.len();
                note!("note: fitting on {used} inputs, as many as fit in memory");
                calibration.description = format!("{used} inputs of {}", file.display());
            }
            (calibration, held_out, labels)
        }
        None => {
            if args.calibrate.is_none() {
                note!(
                    "WARNING: no calibration data: activations are fitted on made-up inputs in [{}, {}], and \
                     nothing can be promised about accuracy; give --calibrate FILE with a few hundred real inputs",
                    args.input_range.0,
                    args.input_range.1
                );
            }
            let calibration = Calibration::synthetic(&shape, args.input_range);
            let held_out = calibration.inputs[..32].to_vec();
            (calibration, held_out, None)
        }
    };
    let family = match args.activation {
        Activation::Phase | Activation::Auto => {
            let harmonics =
                args.harmonics.map_or(Harmonics::default(), |n| Harmonics::Fixed(n.into()));
            Family::Phase { harmonics }
        }
        Activation::Square => Family::Polynomial { degree: 2 },
        Activation::Quartic => Family::Polynomial { degree: 4 },
    };
    let mut options = CompileOptions { family, ..CompileOptions::default() };
    options.rings.phase_bits = args.phase_bits.into();
    let name = args.model.file_stem().map_or("model".into(), |n| n.to_string_lossy().into_owned());
    let bar = files::bar("fitting")?;
    let held_out = HeldOut { inputs: &held_out, labels: labels.as_deref() };
    let measured =
        search(&name, &prepared, &calibration, held_out, &options, goal, &|stage, share| {
            bar.set_message(stage.to_owned());
            bar.set_position(files::position(share));
        });
    bar.finish_and_clear();
    let in_model = || args.model.display().to_string();
    let measured = measured.with_context(in_model)?;
    measured.notes.iter().for_each(|note| note!("note: {note}"));
    if measured.compiled.outliers > 0 {
        note!(
            "WARNING: {} of {} calibration inputs explode in this network's polynomials and leave the planned \
             bounds; the plan's answer to such inputs is garbage",
            measured.compiled.outliers,
            calibration.inputs.len()
        );
    }
    if !args.force && !calibration.is_synthetic {
        let gate = Gate { max_escape: args.max_escape / 100.0, max_loss: args.max_loss / 100.0 };
        check(&measured, gate).with_context(in_model)?;
    }
    let Measured { compiled, evaluation, .. } = measured;
    let secret = compiled.weights.to_bytes(Some(&compiled.reference));
    files::write(&[
        files::Output { path: &weights, bytes: &secret, is_secret: true },
        files::Output { path: &args.output, bytes: &compiled.plan.to_bytes().0, is_secret: false },
    ])?;
    let (to0, to1, messages) = compiled.plan.traffic(1);
    if args.json {
        let summary = serde_json::json!({
            "plan": args.output, "weights": weights, "digest": compiled.digest.to_string(),
            "calibration": calibration.description, "messages": messages,
            "bytes_to_party0": to0, "bytes_to_party1": to1,
            "round_trips": round_trips(&compiled.plan), "activations": compiled.plan.activations(),
            "steps": steps(&compiled.plan, 1), "evaluation": evaluation,
        });
        say!("{}", serde_json::to_string_pretty(&summary)?);
        return Ok(());
    }
    if args.print_plan {
        say!("{}", compiled.plan);
    }
    say!("fitted on {}; held out:", calibration.description);
    say!("{}", evaluation.to_text());
    say!(
        "{} (public) and {} (secret, stays home): {} steps, {messages} messages, {} bytes online",
        args.output.display(),
        weights.display(),
        compiled.plan.steps.len(),
        polyc::report::thousands(to0 + to1)
    );
    Ok(())
}

/// What is searched for.
fn goal(args: &Args) -> Result<Goal> {
    let is_synthetic = args.calibrate.as_deref().is_none_or(|f| f == Path::new("synthetic"));
    let is_auto = matches!(args.activation, Activation::Auto);
    if args.byte_budget.is_some() && !is_auto {
        bail!("--byte-budget needs --activation auto");
    }
    if matches!(args.activation, Activation::Square | Activation::Quartic) {
        if args.accuracy_loss.is_some() {
            bail!(
                "--accuracy-loss searches the bits of phases; --max-loss refuses plans that lose too much"
            );
        }
        return Ok(Goal::AsGiven);
    }
    if is_auto && !matches!(args.minimise, MinimiseArg::Online) {
        bail!("--minimise is for phases; auto looks for the fewest harmonics");
    }
    if is_synthetic && is_auto {
        bail!("--activation auto measures accuracy: it needs --calibrate with real inputs");
    }
    if is_synthetic && args.accuracy_loss.is_some() {
        bail!("--accuracy-loss measures accuracy: it needs --calibrate with real inputs");
    }
    let loss = args.accuracy_loss.map(|points| points / 100.0);
    let minimise = match args.minimise {
        MinimiseArg::Online => Minimise::Online,
        MinimiseArg::Offline => Minimise::Offline,
        MinimiseArg::Latency => Minimise::Latency,
    };
    Ok(match (is_auto, loss, args.byte_budget) {
        (true, None, bytes @ Some(_)) => Goal::Cheapest { loss: None, bytes },
        (true, loss, bytes) => Goal::Cheapest { loss: Some(loss.unwrap_or(0.01)), bytes },
        (false, Some(loss), _) => Goal::Narrowest { loss, minimise },
        (false, None, _) => Goal::AsGiven,
    })
}

/// How many replaced nodes are named.
const MOST_NAMED: usize = 5;

/// Names the maxima and minima that become averages: reductions over axes as well as pooling.
fn note_averages(graph: &Graph) {
    let order = graph.order();
    let maxima = order.iter().filter(|&&id| matches!(graph.node(id).op, Op::MaxWindows { .. }));
    let mut names: Vec<&str> = maxima.map(|&id| graph.node(id).name.as_str()).collect();
    names.dedup();
    if names.is_empty() {
        return;
    }
    let more = names.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.truncate(MOST_NAMED);
    note!("note: averages take the place of maxima or minima: {}{more}", names.join(", "));
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

/// Which of `count` inputs are held out: the last fifth, or every fifth where classes follow one another;
/// all are both fitted on and held out where there are few.
fn is_held_out(i: usize, count: usize, is_sorted: bool) -> bool {
    if is_sorted { i % 5 == 4 } else { i >= count - count / 5 }
}

fn parse_points(text: &str) -> Result<f64, String> {
    let points = text.parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p));
    points.ok_or_else(|| "expected a number from 0 to 100".into())
}

fn parse_range(text: &str) -> Result<(f32, f32), String> {
    let parsed = text.split_once(',').and_then(|(l, h)| Some((l.parse().ok()?, h.parse().ok()?)));
    parsed
        .filter(|(low, high): &(f32, f32)| low < high && low.is_finite() && high.is_finite())
        .ok_or_else(|| "expected LOW,HIGH such as -1,1".into())
}
