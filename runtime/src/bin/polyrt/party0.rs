//! `polyrt party0`

use crate::{files, report};
use anyhow::{Context, Result};
use ir::plan::Plan;
use polyrt::Connected;
use polyrt::handshake::MAX_BATCH;
use polyrt::net::{TcpChannel, listen_addresses, loopback_only};
use polyrt::offline::dealer::DealtParty0;
use polyrt::offline::store::Store;
use polyrt::offline::{Role, Supply};
use polyrt::online::Model;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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
    /// Seconds that party 1 may be silent in the middle of a run
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Accept an address that leaves this machine, although the link is not encrypted
    #[arg(long)]
    insecure: bool,
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
    let addresses = listen_addresses(&arguments.listen, arguments.insecure)
        .map_err(|e| files::BadInput::error(e.to_string()))?;
    let listener = TcpListener::bind(&addresses[..]).with_context(|| arguments.listen.clone())?;
    let offer = store.offer();
    let link = report::link(loopback_only(&addresses));
    eprintln!(
        "party 0 of plan {digest} listens at {}; {} of {} correlations left",
        listener.local_addr().map_or_else(|_| arguments.listen.clone(), |a| a.to_string()),
        offer.count - offer.next,
        offer.count
    );
    eprintln!("{}", report::DEALER);
    eprintln!("{link}");
    let runs = if arguments.forever { u64::MAX } else { arguments.runs };
    let model = Arc::new(Model::new(&plan, &weights));
    let mut failed = 0;
    for _ in 0..runs {
        let (stream, _) = listener.accept().context("waiting for party 1")?;
        match serve(arguments, &plan, &model, &mut store, stream, link) {
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

fn serve<'a>(
    arguments: &Arguments,
    plan: &'a Plan,
    model: &Arc<Model<'a>>,
    store: &mut Store<'a, DealtParty0<'a>>,
    stream: TcpStream,
    link: &str,
) -> Result<()> {
    let channel = TcpChannel::new(stream, Duration::from_secs(arguments.timeout))?;
    let digest = store.offer().plan;
    let agreed =
        Connected::new(channel).agree(plan, digest, arguments.max_batch as usize, store)?;
    let batch = agreed.agreement().batch;
    let finished = agreed.prepare_model(model.clone())?.run()?;
    if arguments.json {
        println!("{}", report::json(Role::Party0, &finished, batch, &[], link));
        return Ok(());
    }
    println!("served {batch} inputs");
    report::traffic(Role::Party0, &finished);
    println!("{}", report::DEALER);
    println!("{link}");
    Ok(())
}
