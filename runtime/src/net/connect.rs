//! Where parties meet: addresses and connecting.

use super::{Limits, NetError};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// The least time that an attempt to connect gets.
const ATTEMPT: Duration = Duration::from_secs(1);

/// The socket addresses that `address` (`HOST:PORT`) names. With `is_guarded` they may leave this machine.
///
/// # Errors
/// If it names nothing, or leaves this machine unguarded.
pub fn addresses(address: &str, is_guarded: bool) -> Result<Vec<SocketAddr>, NetError> {
    let addresses: Vec<SocketAddr> = address
        .to_socket_addrs()
        .map_err(|e| NetError::Address { address: address.into(), reason: e.to_string() })?
        .collect();
    if addresses.is_empty() {
        let reason = "it names no host".into();
        return Err(NetError::Address { address: address.into(), reason });
    }
    if !is_guarded && !loopback_only(&addresses) {
        return Err(NetError::NotLoopback(address.into()));
    }
    Ok(addresses)
}

/// Whether no address leaves this machine.
pub fn loopback_only(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|a| a.ip().is_loopback())
}

/// Connects to the first of `addresses` that answers, and tries again for `wait` while none does. An
/// attempt takes no longer than the silence that is allowed.
///
/// # Errors
/// If none answers.
pub fn connect(
    addresses: &[SocketAddr],
    wait: Duration,
    limits: Limits,
) -> Result<TcpStream, NetError> {
    let start = Instant::now();
    let mut reason = String::from("no address");
    loop {
        for address in addresses {
            let left = wait.saturating_sub(start.elapsed()).max(ATTEMPT);
            match TcpStream::connect_timeout(address, left.min(limits.silence)) {
                Ok(stream) => return Ok(stream),
                Err(e) => reason = e.to_string(),
            }
        }
        if start.elapsed() >= wait {
            let address = addresses.first().map_or_else(String::new, SocketAddr::to_string);
            return Err(NetError::Connect { address, waited: wait, reason });
        }
        std::thread::sleep(Duration::from_millis(50).min(wait));
    }
}
