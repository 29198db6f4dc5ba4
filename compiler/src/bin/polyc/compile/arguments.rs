//! The options of `polyc compile`, and of inputs everywhere.

use crate::memory;
use crate::task::TaskArgs;
use clap::ValueEnum;
use ir::input::options::PreprocessingOptions;
use polyc::onnx::{BatchAxis, ImportOptions, MAX_VALUE};
use polyc::report::Network;
use polyc::search::Gate;
use std::path::PathBuf;

/// Compiles an ONNX model to a public plan and secret weights
///
/// Writes the plan to OUTPUT and the weights beside it with the extension `.weights`, readable by you
/// alone. Activations are fitted on calibration inputs: a few hundred inputs like those of the training
/// set, preprocessed as in training, no labels needed. Without them the fit uses made-up inputs, and the
/// accuracy is anybody's guess: measure it with `polyc evaluate`.
#[derive(clap::Args)]
pub struct Args {
    /// The ONNX model
    pub model: PathBuf,
    /// Where the public plan goes
    #[arg(short, long, default_value = "plan.bin")]
    pub output: PathBuf,
    /// Calibration inputs: .npy, .npz with an array `x`, or a folder of PNG and JPEG images; or `synthetic`
    /// for made-up ones
    ///
    /// A fifth of five inputs or more is held out to measure the accuracy. The inputs of a model that has
    /// several are arrays of their names in one .npz file, or files of their own: --calibrate NAME=PATH for
    /// each.
    #[arg(long, value_name = "[NAME=]PATH")]
    pub calibrate: Vec<String>,
    /// Use at most this many calibration inputs, made-up ones too; of a folder, taken evenly from all of it
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// Use at most about this much memory, such as 4GiB: fewer calibration inputs, fewer threads [default: half
    /// of what the machine or the control group has]
    #[arg(long, value_name = "SIZE", value_parser = memory::parse)]
    memory: Option<usize>,
    #[command(flatten)]
    pub task: TaskArgs,
    /// What activations are computed with
    #[arg(long, value_enum, default_value_t = Activation::Auto)]
    pub activation: Activation,
    /// For auto: the network that the plan is to be fast on: lan, wan, far, or RTT_MS:MBIT [default: wan]
    #[arg(long, value_name = "NETWORK", value_parser = Network::parse)]
    pub network: Option<Network>,
    /// For auto: correlations are prepared before anyone waits, so that only the online phase's time counts
    #[arg(long)]
    pub prepared: bool,
    /// Activations that are computed exactly, whatever the others are, by the names of their nodes
    #[arg(long, value_name = "NODE,…", value_delimiter = ',')]
    pub exact: Vec<String>,
    /// Activations that are fitted with phases, likewise
    #[arg(long, value_name = "NODE,…", value_delimiter = ',')]
    pub fit: Vec<String>,
    /// Fit phases with so many harmonics each [default: per layer, as few as fit it well, at most 6]: more are more
    /// accurate and need more correlations, not more traffic online
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8), value_name = "N")]
    pub harmonics: Option<u8>,
    /// What the plan may lose [default: 1]
    ///
    /// For auto: points of accuracy that simulated runs of two parties lose against the network in float, on held-out
    /// inputs (classes that change where labels are not known; of numbers, percent of the spread). For phases, or with
    /// --minimise: search the plan of the fewest bits that loses at most this against the fitted network in float, on the
    /// calibration inputs. Inputs that the network was not trained on tell more, and a thousand or two more than a few
    /// hundred. That compiles about a dozen times; fewer bytes online cost more offline.
    #[arg(long, value_name = "POINTS", value_parser = parse_points)]
    pub accuracy_loss: Option<f64>,
    /// Fit phases, and search the plan that has as little of this as --accuracy-loss allows
    #[arg(long, value_enum)]
    pub minimise: Option<MinimiseArg>,
    /// Refuse a plan whose simulated runs lose more than this against the network in float, on held-out
    /// inputs [default: 10]
    ///
    /// Of classes, points of accuracy where labels are known, otherwise percent of classes that change. Of
    /// numbers, percent of the labels' spread by which the root mean square error grows or, where labels are
    /// not known, the error against the network in percent of the spread of its outputs. A loss that fewer inputs than it takes to be sure show by luck,
    /// once in twenty times, is let pass.
    #[arg(long, value_name = "POINTS", value_parser = parse_points)]
    pub max_loss: Option<f64>,
    /// For auto: at most this many bytes an inference, online and one party's correlations together
    #[arg(long, value_name = "BYTES")]
    pub byte_budget: Option<usize>,
    /// Refuse polynomials from whose planned bounds more than this percentage of held-out inputs escapes
    /// [default: 0.5]
    #[arg(long, value_name = "PERCENT", value_parser = parse_points)]
    pub max_escape: Option<f64>,
    /// Write the plan even if it loses too much or escapes
    #[arg(long)]
    pub force: bool,
    /// Bits of an exact rectifier's bucket: one more halves the values near zero whose sign the masks decide, and
    /// doubles the table that party 0 sends [default: 6, up to 8 of small layers]
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=8), value_name = "BITS")]
    pub bucket_bits: Option<u8>,
    /// Bits of a phase [default: 8]
    #[arg(long, value_parser = clap::value_parser!(u8).range(5..=12), value_name = "BITS")]
    pub phase_bits: Option<u8>,
    /// What to do with maximum pooling, which needs comparisons
    #[arg(long, value_enum, default_value_t = Pool::Exact)]
    pub max_pool: Pool,
    /// The outputs to compute, by name [default: all]
    #[arg(long = "output-name", value_name = "NAME")]
    pub output_names: Vec<String>,
    /// What your own runtime gives for the first calibration inputs: .npy, or .npz by the outputs' names
    ///
    /// Every import is compared with tract's own evaluation of the file. Where tract cannot run a file, or
    /// you trust another runtime more, its outputs decide instead.
    #[arg(long, value_name = "[NAME=]FILE")]
    pub expect: Vec<String>,
    /// Names of the classes of an output, a text file of one name a line: they go into the plan, and polyrt
    /// prints them
    #[arg(long = "labels-file", value_name = "[NAME=]FILE")]
    pub labels_files: Vec<String>,
    /// A size that the file leaves open, by the file's name for it or as INPUT.AXIS
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_size)]
    pub dims: Vec<(String, usize)>,
    /// Whether the first axis of the model's inputs counts inputs
    #[arg(long, value_enum, default_value_t = BatchAxisArg::Auto)]
    pub batch_axis: BatchAxisArg,
    #[command(flatten)]
    pub preprocessing: PreprocessingArgs,
    /// Range of made-up inputs [default: 0,1]
    #[arg(long, value_name = "LOW,HIGH", allow_hyphen_values = true, value_parser = parse_range)]
    pub input_range: Option<(f32, f32)>,
    /// Print the compiled steps
    #[arg(long)]
    pub print_plan: bool,
    /// Print a JSON object instead of text; of a model that is refused, all its nodes that are in the way
    #[arg(long)]
    pub json: bool,
}

/// How arrays and images become inputs.
#[derive(clap::Args)]
pub struct PreprocessingArgs {
    /// Mean, subtracted: one, or one per channel (bytes and images are divided by 255 first); of one of several
    /// inputs as NAME=M,…
    #[arg(long, allow_hyphen_values = true, value_name = "[NAME=]M,…")]
    mean: Vec<String>,
    /// Standard deviation, divided by: one, or one per channel; of one of several inputs as NAME=S,…
    #[arg(long, allow_hyphen_values = true, value_name = "[NAME=]S,…")]
    std: Vec<String>,
    /// Take bytes and images as they are, without dividing by 255; integers of the model are never divided
    #[arg(long)]
    raw: bool,
    /// Order of the axes of an array in the file: channels first (nchw), last (nhwc), or whichever fits the
    /// model (auto, the default; where both do, a note says which was taken); images that become rows are
    /// read in this order
    #[arg(long, value_name = "[NAME=]ORDER")]
    layout: Vec<String>,
}

impl PreprocessingArgs {
    /// The options as the library takes them.
    pub fn to_options(&self) -> PreprocessingOptions {
        PreprocessingOptions {
            mean: self.mean.clone(),
            std: self.std.clone(),
            raw: self.raw,
            layout: self.layout.clone(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Activation {
    /// Rectifiers and maxima as they are, in two round trips each; other functions by public tables, in one, or by
    /// phases where a constant of the model is part of them
    Exact,
    /// Trigonometric polynomials of the value's phase on the ring: cannot escape
    Phase,
    /// Polynomials of degree 2
    Square,
    /// Polynomials of degree 4
    Quartic,
    /// Of every layer, phases or rectifiers as they are, whichever takes least time on --network, as long as the plan
    /// loses no more than --accuracy-loss; with --byte-budget, the most accurate phases within it
    Auto,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum BatchAxisArg {
    /// Where a proof shows that nothing mixes, moves or counts along it
    Auto,
    /// It does, whatever the nodes do along it: the model is compiled for a length of 1
    #[value(name = "0")]
    First,
    /// It is an axis like any other: one input is all of it
    None,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum MinimiseArg {
    /// Bytes of the online phase: fewer bits of phases and of the rings that values travel in
    Online,
    /// Bytes of the offline phase: fewer harmonics and bits
    Offline,
    /// Bytes of both, which a run sends that has nothing prepared
    Latency,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Pool {
    /// Compute it: log2 of the window's size comparisons one after the other, two round trips each
    Exact,
    /// Average over the window instead: no rounds and no correlations, but another network, for which the
    /// layers behind are re-solved
    Average,
    /// Compute it as a tree of fitted |a − b|, closest to the network: two rounds for 2x2 windows, four for
    /// 3x3, and a phase's correlations for each |a − b|; activations in front move behind, where they are
    /// fewer, so 2x2 windows need no more in total
    Fit,
}

impl Args {
    /// Bytes of memory to use.
    pub fn memory(&self) -> usize {
        self.memory.unwrap_or_else(memory::available)
    }

    /// The arguments of --calibrate, unless inputs are made up.
    pub fn calibration(&self) -> Option<&[String]> {
        match self.calibrate.as_slice() {
            [] => None,
            [only] if only == "synthetic" => None,
            given => Some(given),
        }
    }

    /// Where the calibration inputs come from, for people.
    pub fn calibration_name(&self) -> String {
        self.calibrate.join(", ")
    }

    /// The range of made-up inputs.
    pub fn input_range(&self) -> (f32, f32) {
        self.input_range.unwrap_or((0.0, 1.0))
    }

    /// What a plan must reach.
    pub fn gate(&self) -> Gate {
        Gate {
            max_escape: self.max_escape.unwrap_or(0.5) / 100.0,
            max_loss: self.max_loss.unwrap_or(10.0) / 100.0,
        }
    }

    /// What the import is asked for.
    pub fn import_options(&self) -> ImportOptions {
        ImportOptions {
            outputs: self.output_names.clone(),
            dims: self.dims.iter().cloned().collect(),
            batch_axis: match self.batch_axis {
                BatchAxisArg::Auto => BatchAxis::Proven,
                BatchAxisArg::First => BatchAxis::First,
                BatchAxisArg::None => BatchAxis::None,
            },
            keeps_rounding: false,
        }
    }
}

fn parse_size(text: &str) -> Result<(String, usize), String> {
    let size = text.rsplit_once('=').and_then(|(name, size)| Some((name, size.parse().ok()?)));
    size.filter(|&(name, size)| !name.is_empty() && (1..=MAX_VALUE).contains(&size))
        .map(|(name, size)| (name.to_owned(), size))
        .ok_or_else(|| "expected NAME=N such as height=224".into())
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
