//! `polyrt deal`

use crate::files::{self, BadInput};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use polyrt::preprocess::dealer::deal;
use polyrt::preprocess::expand::Seed;
use polyrt::preprocess::item::{Origin, item_bytes};
use polyrt::preprocess::store::{MAX_ITEMS, StoreWriter};
use polyrt::preprocess::{DealId, Role};
use rayon::prelude::*;
use std::path::PathBuf;

/// Make correlated randomness for both parties, as a trusted dealer.
///
/// Writes DIR/party0.correlations and DIR/party1.correlations, each with N items; a run uses up one per
/// input. Whoever deals holds both files: together with a recording of a run they open the input to
/// party 0 and the model to party 1. Deal on a machine that both trust, hand each party its own file,
/// and delete the originals.
#[derive(clap::Args)]
pub struct Arguments {
    /// The plan, as made by polyc
    plan: PathBuf,
    /// The weights [default: the plan's path with extension `weights`]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// How many items to make: one per input
    #[arg(long, value_name = "N")]
    count: u64,
    /// Where to write [default: the plan's path with extension `correlations`]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace existing files; what is left in them is lost
    #[arg(long)]
    force: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<()> {
    let count = arguments.count;
    if count == 0 || count > MAX_ITEMS {
        return Err(BadInput::error(format!("--count is {count}, expected 1 to {MAX_ITEMS}")));
    }
    let (plan, digest) = files::plan(&arguments.plan)?;
    let weights = files::weights(arguments.weights.as_deref(), &arguments.plan, &plan, digest)?;
    let directory = files::correlations(arguments.out.as_deref(), &arguments.plan);
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let paths = ["party0.correlations", "party1.correlations"].map(|name| directory.join(name));
    if let Some(there) = paths.iter().find(|p| p.exists() && !arguments.force) {
        let line = format!("{} exists: add --force to replace it", there.display());
        return Err(BadInput::error(line));
    }
    note!("DEALER: this process knows every mask of the runs that use these files. Trust it as");
    note!(
        "        party 0 with the model, as party 1 with the inputs; give each party only its file."
    );
    let mut id = DealId([0; 16]);
    getrandom::fill(&mut id.0).context("no randomness from the operating system")?;
    let made_for = (digest, weights.commitment());
    let mut writer0 = StoreWriter::create(&paths[0], Role::Party0, &plan, made_for, id, count)?;
    let mut writer1 = StoreWriter::create(&paths[1], Role::Party1, &plan, made_for, id, count)?;
    let bar = ProgressBar::new(count);
    bar.set_style(ProgressStyle::with_template("dealing {bar:40} {pos}/{len} {eta}")?);
    let at_once = rayon::current_num_threads() as u64;
    let mut done = 0;
    while done < count {
        let chunk = at_once.min(count - done);
        let make = |_| Ok(deal(&plan, &weights, Seed::from_system()?, Seed::from_system()?));
        let items: Vec<_> = (0..chunk)
            .into_par_iter()
            .map(make)
            .collect::<std::result::Result<_, getrandom::Error>>()
            .context("no randomness from the operating system")?;
        for (item0, item1) in &items {
            writer0.append(item0)?;
            writer1.append(item1)?;
        }
        done += chunk;
        bar.set_position(done);
    }
    writer0.finish()?;
    writer1.finish()?;
    bar.finish_and_clear();
    let size = |role| item_bytes(&plan, role, Origin::Dealer);
    say!("plan {digest}, deal {id}: {count} items");
    say!("party 0: {} ({} bytes per item)", paths[0].display(), size(Role::Party0));
    say!("party 1: {} ({} bytes per item)", paths[1].display(), size(Role::Party1));
    Ok(())
}
