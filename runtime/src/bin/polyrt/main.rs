//! `polyrt`: runs a compiled plan between a model's owner (party 0) and an input's owner (party 1).

/// Prints a line to the terminal; a reader that went away is no error.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($argument)*);
    }};
}

/// Prints a line beside the output; a reader that went away is no error.
macro_rules! note {
    ($($argument:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($argument)*);
    }};
}

mod correlations;
mod deal;
mod files;
mod keygen;
mod link;
mod local;
mod party0;
mod party1;
mod prepare;
mod relay;
mod report;
mod store;

use clap::{Parser, Subcommand};
use files::BadInput;
use polyrt::preprocess::store::StoreError;
use std::process::ExitCode;

/// Runs a compiled network between two parties: party 0 keeps its weights, party 1 keeps its input, and
/// party 1 alone learns the output.
///
/// Both have the same plan.bin, made by polyc. A run uses up correlated randomness, which the two parties
/// make with each other: during the run, or before anyone has an input by `polyrt prepare`. Security is
/// against parties that follow the protocol.
#[derive(Parser)]
#[command(
    name = "polyrt",
    version,
    after_help = "\
Try it on one machine:
  polyrt local plan.bin --input x.npy

As two parties:
  polyrt party0 plan.bin
  polyrt party1 plan.bin --input x.npy --output y.npy

The slow part before the inputs are there:
  polyrt prepare plan.bin --party 0 --count 100 --store DIR     (and --party 1 at the client)
  polyrt party0 plan.bin --store DIR

Over a network, each with its own key and the other's certificate:
  polyrt keygen --out party0
  polyrt party0 plan.bin --listen 0.0.0.0:7411 --key party0.key --peer-cert party1.crt

Exit status: 0 done; 1 failed (the peer, the link, correlations that ran out, the disk); 2 wrong usage, or
a file that cannot be used."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Party0(party0::Arguments),
    Party1(party1::Arguments),
    Prepare(prepare::Arguments),
    Store(store::Arguments),
    Local(local::Arguments),
    Deal(deal::Arguments),
    Keygen(keygen::Arguments),
    Relay(relay::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Deal(arguments) => deal::run(&arguments),
        Command::Party0(arguments) => party0::run(&arguments),
        Command::Party1(arguments) => party1::run(&arguments),
        Command::Prepare(arguments) => prepare::run(&arguments),
        Command::Store(arguments) => store::run(&arguments),
        Command::Local(arguments) => local::run(&arguments),
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Relay(arguments) => relay::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            note!("error: {e:#}");
            if is_bad_input(&e) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether the user must give something else.
fn is_bad_input(error: &anyhow::Error) -> bool {
    let is_bad_store = |e: &StoreError| e.is_bad_file();
    error.is::<BadInput>()
        || error.downcast_ref().is_some_and(is_bad_store)
        || error.downcast_ref().is_some_and(|e| match e {
            polyrt::Error::Store(e) => is_bad_store(e),
            polyrt::Error::Agreement(e) => e.is_bad_file(),
            _ => false,
        })
}
