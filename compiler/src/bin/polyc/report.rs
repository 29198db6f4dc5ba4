//! `polyc report`

use super::files;
use anyhow::Result;
use polyc::report::{Network, report};
use std::path::PathBuf;

/// Says what a plan costs, before anything runs
///
/// Bytes and messages are exact: a run's meter shows the same numbers. Times are estimates from the
/// networks' latency and bandwidth and the measured speed of one machine (docs/performance.md).
#[derive(clap::Args)]
pub struct Args {
    /// The plan
    plan: PathBuf,
    /// Inferences in one run
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Networks to estimate: lan (0.3 ms, 3 Gbit/s), wan (40 ms, 400 Mbit/s), far
    /// (100 ms, 100 Mbit/s), or RTT_MS:MBIT
    #[arg(long, value_name = "NETWORK", value_parser = Network::parse, default_values = ["lan", "wan", "far"])]
    network: Vec<Network>,
    /// Print a JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let (plan, digest) = files::read_plan(&args.plan)?;
    let report = report(&plan, digest, args.batch as usize, &args.network);
    if args.json {
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say!("{}", report.to_text());
    }
    Ok(())
}
