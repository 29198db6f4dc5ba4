//! `polyrt prepare`

use crate::correlations::{self, Growing, keeper, store_file};
use crate::link::{LinkArguments, next};
use crate::{files, report};
use anyhow::{Context, Result};
use polyrt::Connected;
use polyrt::handshake::{MAX_BATCH, Purpose};
use polyrt::preprocess::store::Store;
use polyrt::preprocess::{Network, Role};
use std::path::PathBuf;

/// Make correlations with the other party before anyone has an input, and keep them.
///
/// Start it at both parties. A run with --store takes items from there, and is then as fast as the online
/// phase alone. Interrupted at any time, what both parties have stored is used.
#[derive(clap::Args)]
pub struct Arguments {
    /// The plan, as made by polyc; the same file at both parties
    plan: PathBuf,
    /// Which party this is: 0 owns the model and waits, 1 connects
    #[arg(long, value_name = "0|1", value_parser = clap::value_parser!(u8).range(0..=1))]
    party: u8,
    /// How many items to make, one per input of a later run; party 0's is the most that it accepts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BATCH)))]
    count: u32,
    /// Where the items are kept
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// The weights, for party 0 [default: the plan's path with extension `weights`]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Where party 0 listens, or party 1 connects
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7411")]
    address: String,
    /// Seconds to wait for the other party
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// Replace stores that do not belong together, and lose what is in them
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    link: LinkArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (plan, digest) = files::plan(&arguments.plan)?;
    let role = if arguments.party == 0 { Role::Party0 } else { Role::Party1 };
    let directory = &arguments.store;
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let path = store_file(directory, role, digest);
    let link = arguments.link.prepare(&arguments.address)?;
    let (count, force) = (arguments.count as usize, arguments.force);
    let (offline, agreement, store, link) = if role == Role::Party0 {
        let weights = files::weights(arguments.weights.as_deref(), &arguments.plan, &plan, digest)?;
        let network = Network::of_party0(digest, &weights);
        let (listener, address) = link.listen()?;
        note!("party 0 of plan {digest} waits at {address} to prepare up to {count} items");
        note!("{}", link.line());
        let hello = correlations::hello(&plan, network, false, Purpose::Prepare, arguments.count);
        let (connected, link) = next(&link.door(listener, hello)?, Some(arguments.wait))?;
        let mut growing = Growing::open(&path, role, &plan, network, Store::open_party0)?;
        let mut agreed = connected.agree_to_prepare(&plan, digest, count, &mut growing, force)?;
        let agreement = agreed.agreement().clone();
        let mut store =
            growing.for_agreement(&path, role, &plan, &agreement, Store::open_party0)?;
        let mut bar = correlations::progress_bar(agreement.fresh);
        let offline = agreed.offline_party0(&weights, &mut bar, keeper(&mut store))?;
        (offline, agreement, report::Stored::of(&store), link)
    } else {
        let network = Network::of_party1(digest);
        let mut growing = Growing::open(&path, role, &plan, network, Store::open_party1)?;
        let (channel, link) = link.connect(arguments.wait)?;
        let connected = Connected::new(channel);
        let mut agreed = connected.agree_to_prepare(&plan, digest, count, &mut growing, force)?;
        let agreement = agreed.agreement().clone();
        let mut store =
            growing.for_agreement(&path, role, &plan, &agreement, Store::open_party1)?;
        let mut bar = correlations::progress_bar(agreement.fresh);
        let offline = agreed.offline_party1(&mut bar, keeper(&mut store))?;
        (offline, agreement, report::Stored::of(&store), link)
    };
    if arguments.json {
        let mut json = report::prepared_json(role, &offline, &agreement, &store);
        link.add_to(&mut json);
        say!("{json}");
        return Ok(());
    }
    say!("prepared {} items of deal {}", offline.items, agreement.deal);
    report::offline(role, &offline);
    say!("{}: {} unused items, {} bytes each", path.display(), store.unused, store.item_bytes);
    link.print();
    Ok(())
}
