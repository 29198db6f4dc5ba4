//! `polyrt party0`

use crate::link::{Link, LinkArguments};
use crate::{files, report};
use anyhow::Result;
use ir::plan::{Plan, Weights};
use polyrt::Connected;
use polyrt::handshake::MAX_BATCH;
use polyrt::offline::dealer::DealtParty0;
use polyrt::offline::store::Store;
use polyrt::offline::{Role, Supply};
use std::net::TcpStream;
use std::path::PathBuf;

/// Serve the model: wait for party 1, run the plan with it, and learn nothing.
///
/// Serves one run and exits; --runs N or --forever serve more, one after another. A run that fails (a
/// peer that vanishes, another plan) prints one line and counts.
#[derive(clap::Args)]
pub struct Arguments {
    /// The plan, as made by polyc
    plan: PathBuf,
    /// The weights [default: the plan's path with extension `weights`]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7411")]
    listen: String,
    /// Where party0.correlations lies [default: the plan's path with extension `correlations`]
    #[arg(long, value_name = "DIR")]
    dealer_correlations: Option<PathBuf>,
    /// Serve one run (the default)
    #[arg(long, conflicts_with_all = ["runs", "forever"])]
    once: bool,
    /// Serve this many runs
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: u64,
    /// Serve until interrupted
    #[arg(long, conflicts_with = "runs")]
    forever: bool,
    /// The largest batch that is accepted
    #[arg(long, value_name = "N", default_value_t = MAX_BATCH)]
    max_batch: u32,
    /// Seconds to wait for party 1 to connect [default: for ever]
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    #[command(flatten)]
    link: LinkArguments,
    /// Print JSON, one line per run
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (plan, digest) = files::plan(&arguments.plan)?;
    let weights = files::weights(arguments.weights.as_deref(), &arguments.plan, &plan, digest)?;
    let directory = arguments.dealer_correlations.as_deref();
    let path = files::correlation_file(directory, &arguments.plan, "party0.correlations")?;
    let mut store = Store::open_party0(&path, &plan, digest)?;
    let link = arguments.link.prepare(&arguments.listen)?;
    let (listener, address) = link.listen()?;
    let offer = store.offer();
    eprintln!(
        "party 0 of plan {digest} listens at {address}; {} of {} correlations left",
        offer.count - offer.next,
        offer.count
    );
    eprintln!("{}", report::DEALER);
    eprintln!("{}", link.line());
    let runs = if arguments.forever { u64::MAX } else { arguments.runs };
    let mut failed = 0;
    for _ in 0..runs {
        let stream = link.accept(&listener, arguments.wait)?;
        match serve(arguments, &plan, &weights, &mut store, stream, &link) {
            Ok(()) => {}
            Err(e) if runs == 1 => return Err(e),
            Err(e) => {
                eprintln!("error: {e:#}");
                failed += 1;
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {runs} runs failed");
    Ok(())
}

fn serve(
    arguments: &Arguments,
    plan: &Plan,
    weights: &Weights,
    store: &mut Store<'_, DealtParty0<'_>>,
    stream: TcpStream,
    link: &Link,
) -> Result<()> {
    let (channel, link) = link.serve(stream)?;
    let digest = store.offer().plan;
    let agreed =
        Connected::new(channel).agree(plan, digest, arguments.max_batch as usize, store)?;
    let batch = agreed.agreement().batch;
    let finished = agreed.prepare_party0(weights)?.run()?;
    if arguments.json {
        let mut json = report::json(Role::Party0, &finished, batch, &[], &link.line);
        link.add_to(&mut json);
        println!("{json}");
        return Ok(());
    }
    println!("served {batch} inputs");
    report::traffic(Role::Party0, &finished);
    println!("{}", report::DEALER);
    link.print();
    Ok(())
}
