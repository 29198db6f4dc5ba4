//! `polyrt party0`

use crate::correlations::{self, CorrelationArguments, Source};
use crate::link::{LinkArguments, Peer, next};
use crate::{files, report};
use anyhow::Result;
use ir::plan::{Plan, Weights};
use polyrt::handshake::{AgreementError, MAX_BATCH, Purpose, Stale};
use polyrt::online::Model;
use polyrt::preprocess::item::Party0Item;
use polyrt::preprocess::{Network, Role, Supply};
use std::path::PathBuf;
use std::sync::Arc;

/// Serve the model: wait for party 1, run the plan with it, and learn nothing.
///
/// Serves one run and exits; --runs N or --forever serve more, one after another. A peer that does not say
/// who it is within five seconds, or does not fit (another key, another plan), is turned away in a line and
/// does not count. A run that fails later prints one line and counts.
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
    #[command(flatten)]
    correlations: CorrelationArguments,
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
    let network = Network::of_party0(digest, &weights);
    let open = || arguments.correlations.party0(&arguments.plan, &plan, network);
    // A dealer's file is held from run to run; a store is free between runs, to be filled.
    let is_dealt = arguments.correlations.is_dealt();
    let mut dealt = if is_dealt { Some(open()?) } else { None };
    let link = arguments.link.prepare(&arguments.listen)?;
    let (listener, address) = link.listen()?;
    note!("party 0 of plan {digest} listens at {address}");
    if let Some(offer) = dealt.as_ref().map(Source::offer) {
        note!("{} of {} correlations left", offer.count - offer.next, offer.count);
        note!("{}", report::DEALER);
    }
    note!("{}", link.line());
    arguments.correlations.warn_of_other_weights(network);
    let runs = if arguments.forever { u64::MAX } else { arguments.runs };
    let model = Arc::new(Model::new(&plan, &weights));
    let hello = correlations::hello(&plan, network, is_dealt, Purpose::Run, arguments.max_batch);
    let door = link.door(listener, hello)?;
    let mut failed = 0;
    for _ in 0..runs {
        let peer = next(&door, arguments.wait)?;
        let party = (&weights, &model);
        let served = match &mut dealt {
            Some(source) => serve(arguments, &plan, party, source, peer),
            None => open().and_then(|mut source| serve(arguments, &plan, party, &mut source, peer)),
        };
        match served {
            Ok(()) => {}
            Err(e) if runs == 1 || is_our_fault(&e) => return Err(e),
            Err(e) => {
                note!("error: {e:#}");
                failed += 1;
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {runs} runs failed");
    Ok(())
}

/// Whether every run will fail in the same way: our items are for other weights than ours.
fn is_our_fault(error: &anyhow::Error) -> bool {
    let stale = |e: &polyrt::Error| match e {
        polyrt::Error::Agreement(AgreementError::Weights { of, .. }) => *of != Stale::Party1,
        _ => false,
    };
    error.downcast_ref().is_some_and(stale)
}

fn serve<'a>(
    arguments: &Arguments,
    plan: &'a Plan,
    (weights, model): (&Weights, &Arc<Model<'a>>),
    source: &mut Source<'a, Party0Item<'a>>,
    (connected, link): Peer,
) -> Result<()> {
    let (offer, most) = (source.offer(), arguments.max_batch as usize);
    let agreed = connected.agree(plan, offer.plan, most, source)?;
    let agreement = agreed.agreement().clone();
    correlations::note_unmatched(&offer, &agreement);
    let mut bar = correlations::progress_bar(agreement.fresh);
    let made = agreed.preprocess_party0(weights, &mut bar)?;
    let finished = made.prepare_model(model.clone())?.run()?;
    let (batch, is_dealt) = (agreement.batch, arguments.correlations.is_dealt());
    if arguments.json {
        let mut json = report::json(Role::Party0, &finished, batch, (plan, &[]), &link.line);
        correlations::add_to(&mut json, is_dealt, &agreement);
        link.add_to(&mut json);
        say!("{json}");
        return Ok(());
    }
    say!("served {batch} inputs");
    report::traffic(Role::Party0, &finished);
    say!("{}", correlations::line(is_dealt, &agreement));
    link.print();
    Ok(())
}
