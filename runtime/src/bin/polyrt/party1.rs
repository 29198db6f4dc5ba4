//! `polyrt party1`

use crate::correlations::{self, CorrelationArguments};
use crate::link::LinkArguments;
use crate::{files, report};
use anyhow::Result;
use ir::Tensor;
use polyrt::Connected;
use polyrt::preprocess::{Network, Role, Supply};
use std::path::PathBuf;

/// Bring an input: connect to party 0, run the plan with it, and learn the output.
///
/// The input is an array or an image, preprocessed as in training. It never leaves this process unmasked.
#[derive(clap::Args)]
pub struct Arguments {
    /// The plan, as made by polyc; the same file as party 0's
    plan: PathBuf,
    #[command(flatten)]
    input: files::InputArguments,
    /// Where party 0 listens
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7411")]
    connect: String,
    /// Where to write the output, .npy; several outputs as .npz, by their names
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    correlations: CorrelationArguments,
    /// Seconds to keep trying while party 0 is not there yet
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
    #[command(flatten)]
    link: LinkArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (plan, digest) = files::plan(&arguments.plan)?;
    let inputs = files::inputs(&arguments.input, &plan)?;
    let encoded = files::encode(&arguments.input, &plan, &inputs)?;
    if let Some(path) = &arguments.output {
        files::check_output_kind(path, &plan)?;
        files::check_output(path)?;
    }
    let is_dealt = arguments.correlations.is_dealt();
    let mut source =
        arguments.correlations.party1(&arguments.plan, &plan, Network::of_party1(digest))?;
    let (channel, link) = arguments.link.prepare(&arguments.connect)?.connect(arguments.wait)?;
    let offer = source.offer();
    let agreed = Connected::new(channel).agree(&plan, digest, encoded.len(), &mut source)?;
    let agreement = agreed.agreement().clone();
    correlations::note_unmatched(&offer, &agreement);
    let made = agreed.preprocess_party1(&mut correlations::progress_bar(agreement.fresh))?;
    let finished = made.prepare_party1()?.run(&encoded)?;
    let logits: Vec<Tensor<f32>> = finished.output.iter().map(|y| plan.decode_output(y)).collect();
    let lost = arguments.output.as_deref().and_then(|path| {
        let outputs: Vec<Vec<Tensor<f32>>> = logits.iter().map(|y| plan.finish(y)).collect();
        files::write_outputs(path, &plan, &outputs).err().map(|why| (why, outputs))
    });
    if arguments.json {
        let mut json =
            report::json(Role::Party1, &finished, encoded.len(), (&plan, &logits), &link.line);
        correlations::add_to(&mut json, is_dealt, &agreement);
        link.add_to(&mut json);
        if let Some((_, outputs)) = &lost {
            json["outputs"] = outputs.iter().map(|y| report::plain(&plan, y)).collect();
        }
        say!("{json}");
        return said(lost);
    }
    if let Some((_, outputs)) = &lost {
        for output in outputs.iter().flatten() {
            let values: Vec<String> = output.data.iter().map(|v| v.to_string()).collect();
            say!("{}", values.join(","));
        }
    }
    report::answers(&plan, &logits);
    report::traffic(Role::Party1, &finished);
    say!("{}", correlations::line(is_dealt, &agreement));
    link.print();
    said(lost)
}

/// An answer that could not be written is no success; what it cost is used up, so it is printed.
fn said(lost: Option<(anyhow::Error, Vec<Vec<Tensor<f32>>>)>) -> Result<()> {
    match lost {
        None => Ok(()),
        Some((why, _)) => anyhow::bail!("{why:#}; the outputs are printed instead"),
    }
}
