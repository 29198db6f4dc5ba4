//! `polyrt local`

use crate::{files, link, report};
use anyhow::{Context, Result};
use polyrt::in_process::{run_over, run_without_dealer};
use polyrt::net::TcpChannel;
use polyrt::preprocess::Role;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

/// Try a plan on one machine: play both parties over loopback TCP, correlations included.
///
/// Nothing is secret here: one process holds the weights, the input and all masks. The traffic is that
/// of a real run.
#[derive(clap::Args)]
pub struct Arguments {
    /// The plan, as made by polyc
    plan: PathBuf,
    #[command(flatten)]
    input: files::InputArguments,
    /// The weights [default: the plan's path with extension `weights`]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Where to write the output, .npy; several outputs as .npz, by their names
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Seconds that a party may be silent in the middle of a run
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Deal the correlations instead of making them as the two parties would
    #[arg(long)]
    dealer: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (plan, digest) = files::plan(&arguments.plan)?;
    let weights = files::weights(arguments.weights.as_deref(), &arguments.plan, &plan, digest)?;
    let inputs = files::inputs(&arguments.input, &plan)?;
    files::encode(&arguments.input, &plan, &inputs)?;
    if let Some(path) = &arguments.output {
        files::check_output_kind(path, &plan)?;
        files::check_output(path)?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("loopback")?;
    let address = listener.local_addr().context("loopback")?;
    let client = TcpStream::connect(address).context("loopback")?;
    let (server, _) = listener.accept().context("loopback")?;
    let timeout = Duration::from_secs(arguments.timeout);
    let channels = (TcpChannel::new(server, timeout)?, TcpChannel::new(client, timeout)?);
    let run = if arguments.dealer {
        run_over(&plan, &weights, &inputs, channels)?
    } else {
        run_without_dealer(&plan, &weights, &inputs, channels)?
    };
    if let Some(path) = &arguments.output {
        files::write_outputs(path, &plan, &run.outputs)?;
    }
    if arguments.json {
        let link = link::LOOPBACK;
        let mut json =
            report::json(Role::Party1, &run.party1, inputs.len(), (&plan, &run.logits), link);
        json["correlations"] = if arguments.dealer { "dealer" } else { "parties" }.into();
        say!("{json}");
        return Ok(());
    }
    report::answers(&plan, &run.logits);
    report::traffic(Role::Party1, &run.party1);
    if arguments.dealer {
        say!("{}", report::DEALER);
    } else {
        say!("correlations: by the two parties alone, {} made now", inputs.len());
    }
    say!("{}", link::LOOPBACK);
    say!("both parties ran in one process: a trial, nothing is secret from anyone here");
    Ok(())
}
