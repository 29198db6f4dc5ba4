//! Plain TCP with a deadline on every message.

use super::{Channel, NetError, Receiving, Sending};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Bytes that a peer must at least move per timeout, so that one that drips bytes does not hold us
/// forever.
const BYTES_PER_TIMEOUT: usize = 1 << 20;

/// A connected TCP stream. Not encrypted.
pub struct TcpChannel {
    stream: TcpStream,
    timeout: Duration,
}

impl TcpChannel {
    /// Takes over a connected stream. A message must arrive or leave within `timeout`, long ones within
    /// as many timeouts as they have megabytes.
    ///
    /// # Errors
    /// If the stream is not connected any more.
    pub fn new(stream: TcpStream, timeout: Duration) -> Result<Self, NetError> {
        stream.set_nodelay(true).map_err(NetError::Io)?;
        stream.set_nonblocking(false).map_err(NetError::Io)?;
        Ok(Self { stream, timeout: timeout.max(Duration::from_millis(1)) })
    }

    fn deadline(&self, bytes: usize) -> (Instant, Duration) {
        let allowed = self.timeout.saturating_mul(1 + (bytes / BYTES_PER_TIMEOUT) as u32);
        let now = Instant::now();
        (now.checked_add(allowed).unwrap_or(now + Duration::from_secs(86_400)), allowed)
    }

    /// The wait for the next progress; `None` when the deadline is over.
    fn patience(&self, deadline: Instant) -> Option<Duration> {
        let left = deadline.saturating_duration_since(Instant::now()).min(self.timeout);
        (!left.is_zero()).then_some(left)
    }
}

impl Channel for TcpChannel {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        (Box::new(&*self), Box::new(&*self))
    }
}

impl Sending for &TcpChannel {
    fn send(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        let (deadline, allowed) = self.deadline(bytes.len());
        let mut sent = 0;
        let late = |sent| NetError::SendTimeout(allowed, sent, bytes.len());
        while sent < bytes.len() {
            let patience = self.patience(deadline).ok_or_else(|| late(sent))?;
            self.stream.set_write_timeout(Some(patience)).map_err(NetError::Io)?;
            match (&self.stream).write(&bytes[sent..]) {
                Ok(0) => return Err(NetError::Closed),
                Ok(n) => sent += n,
                Err(e) if is_timeout(&e) => {
                    return Err(NetError::SendTimeout(patience, sent, bytes.len()));
                }
                Err(e) => interrupted_or(e)?,
            }
        }
        Ok(())
    }
}

impl Receiving for &TcpChannel {
    fn receive(&mut self, bytes: usize) -> Result<Vec<u8>, NetError> {
        let (deadline, allowed) = self.deadline(bytes);
        let mut message = vec![0; bytes];
        let mut received = 0;
        let late = |received| NetError::ReceiveTimeout(allowed, received, bytes);
        while received < bytes {
            let patience = self.patience(deadline).ok_or_else(|| late(received))?;
            self.stream.set_read_timeout(Some(patience)).map_err(NetError::Io)?;
            match (&self.stream).read(&mut message[received..]) {
                Ok(0) => return Err(NetError::Closed),
                Ok(n) => received += n,
                Err(e) if is_timeout(&e) => {
                    return Err(NetError::ReceiveTimeout(patience, received, bytes));
                }
                Err(e) => interrupted_or(e)?,
            }
        }
        Ok(message)
    }
}

/// Connects to `address`, trying again for `wait` while nothing listens there.
///
/// # Errors
/// If nothing listens, the address names nothing, or it leaves this machine without `insecure`.
pub fn connect(
    address: &str,
    wait: Duration,
    timeout: Duration,
    insecure: bool,
) -> Result<TcpChannel, NetError> {
    let addresses = listen_addresses(address, insecure)?;
    let start = Instant::now();
    loop {
        let mut reason = String::from("no address");
        for address in &addresses {
            match TcpStream::connect_timeout(address, timeout.max(Duration::from_millis(1))) {
                Ok(stream) => return TcpChannel::new(stream, timeout),
                Err(e) => reason = e.to_string(),
            }
        }
        if start.elapsed() >= wait {
            return Err(NetError::Connect { address: address.into(), waited: wait, reason });
        }
        std::thread::sleep(Duration::from_millis(50).min(wait));
    }
}

/// The socket addresses that `address` (`HOST:PORT`) names.
///
/// # Errors
/// If it names nothing, or one that leaves this machine without `insecure`.
pub fn listen_addresses(address: &str, insecure: bool) -> Result<Vec<SocketAddr>, NetError> {
    let addresses: Vec<SocketAddr> = address
        .to_socket_addrs()
        .map_err(|e| NetError::Address { address: address.into(), reason: e.to_string() })?
        .collect();
    if addresses.is_empty() {
        let reason = "it names no host".into();
        return Err(NetError::Address { address: address.into(), reason });
    }
    if !insecure && !loopback_only(&addresses) {
        return Err(NetError::NotLoopback(address.into()));
    }
    Ok(addresses)
}

/// Whether no address leaves this machine.
pub fn loopback_only(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|a| a.ip().is_loopback())
}

fn is_timeout(e: &std::io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn interrupted_or(e: std::io::Error) -> Result<(), NetError> {
    match e.kind() {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => Err(NetError::Closed),
        _ => Err(NetError::Io(e)),
    }
}
