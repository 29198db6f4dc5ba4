//! `polyrt store`

use anyhow::{Context, Result};
use polyrt::preprocess::store::{Listing, list};
use serde_json::{Value, json};
use std::path::PathBuf;

/// List the correlations in a directory: for which plan, whose, by whom made, and how many are unused.
#[derive(clap::Args)]
pub struct Arguments {
    /// A directory that `polyrt prepare` or `polyrt deal` wrote
    directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<()> {
    let directory = &arguments.directory;
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .with_context(|| directory.display().to_string())?;
    paths.retain(|p| {
        let extension = p.extension().and_then(|e| e.to_str()).unwrap_or_default();
        matches!(extension, "party0" | "party1" | "correlations")
    });
    paths.sort();
    let mut listings = vec![];
    for path in &paths {
        match list(path) {
            Ok(listing) => listings.push((path.display().to_string(), listing)),
            Err(e) => note!("warning: {e}"),
        }
    }
    if arguments.json {
        say!("{}", listings.iter().map(|(path, l)| as_json(path, l)).collect::<Value>());
        return Ok(());
    }
    if listings.is_empty() {
        say!("no correlations in {}", directory.display());
    }
    for (path, listing) in &listings {
        let Listing { role, origin, plan, weights, deal, items: (all, unused), item_bytes } =
            listing;
        say!("{path}");
        say!("  {role} of plan {plan} with weights {weights}, made by {origin} (deal {deal})");
        say!("  {unused} of {all} items unused, {item_bytes} bytes each");
    }
    Ok(())
}

fn as_json(path: &str, listing: &Listing) -> Value {
    json!({
        "path": path,
        "role": listing.role.to_string(),
        "made_by": listing.origin.to_string(),
        "plan": listing.plan.to_string(),
        "weights": listing.weights.to_string(),
        "deal": listing.deal.to_string(),
        "items": listing.items.0,
        "unused": listing.items.1,
        "item_bytes": listing.item_bytes,
    })
}
