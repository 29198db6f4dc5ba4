//! `polyrt relay`

use crate::files::BadInput;
use anyhow::{Context, Result};
use polyrt::net::relay::{Network, Relay};
use polyrt::net::{NetError, addresses};
use std::time::Duration;

/// Put a network between two parties on one machine, to measure what a run takes over it.
///
/// Listens, connects every peer on to party 0, and passes bytes both ways, delayed by half a round trip and
/// no faster than the rate. Bytes pass as they are. Runs until interrupted.
#[derive(clap::Args)]
#[command(after_help = "\
To measure a run at 40 ms and 400 Mbit/s:
  polyrt party0 plan.bin --listen 127.0.0.1:7411
  polyrt relay --listen 127.0.0.1:7412 --connect 127.0.0.1:7411 --network wan
  polyrt party1 plan.bin --input x.npy --connect 127.0.0.1:7412")]
pub struct Arguments {
    /// Where to listen, on this machine
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7412")]
    listen: String,
    /// Where party 0 listens, on this machine
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7411")]
    connect: String,
    /// A network by name; --rtt and --rate change it
    #[arg(long, value_enum, required_unless_present_all = ["rtt", "rate"])]
    network: Option<Name>,
    /// The round trip in milliseconds
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    rtt: Option<f64>,
    /// The rate of each direction in Mbit/s
    #[arg(long, value_name = "MBIT", allow_negative_numbers = true)]
    rate: Option<f64>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Name {
    /// 0.3 ms, 3000 Mbit/s
    Lan,
    /// 40 ms, 400 Mbit/s
    Wan,
    /// 100 ms, 100 Mbit/s
    Far,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> Result<()> {
    let network = network(arguments)?;
    let resolve = |address: &str| {
        addresses(address, false).map_err(|e| {
            BadInput::error(match e {
                NetError::NotLoopback(_) => {
                    format!("{address} is not a loopback address, and a relay is for one machine")
                }
                _ => e.to_string(),
            })
        })
    };
    let (listen, connect) = (resolve(&arguments.listen)?, resolve(&arguments.connect)?);
    let relay = Relay::start(&listen, connect[0], network, |line| note!("error: {line}"))
        .with_context(|| arguments.listen.clone())?;
    note!(
        "relay listens at {}; passes on to {} with a round trip of {} ms and {} Mbit/s each way",
        relay.address(),
        connect[0],
        network.round_trip.as_secs_f64() * 1e3,
        network.rate / 1e6
    );
    relay.wait();
    Ok(())
}

fn network(arguments: &Arguments) -> Result<Network> {
    let named = match arguments.network {
        Some(Name::Lan) | None => Network::LAN,
        Some(Name::Wan) => Network::WAN,
        Some(Name::Far) => Network::FAR,
    };
    let (mut round_trip, mut rate) = (named.round_trip, named.rate);
    if let Some(ms) = arguments.rtt {
        if !(0.0..=60_000.0).contains(&ms) {
            return Err(BadInput::error(format!("--rtt is {ms}, expected 0 to 60000 ms")));
        }
        round_trip = Duration::from_secs_f64(ms / 1e3);
    }
    if let Some(megabits) = arguments.rate {
        if !(0.001..=1e6).contains(&megabits) {
            let line = format!("--rate is {megabits}, expected 0.001 to 1000000 Mbit/s");
            return Err(BadInput::error(line));
        }
        rate = megabits * 1e6;
    }
    Ok(Network { round_trip, rate })
}
