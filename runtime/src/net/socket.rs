//! A TCP stream whose reads and writes take a limited time, and whose bytes are counted.

use super::NetError;
use super::meter::Counters;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A connected stream, to be read from one thread and written from another.
pub(super) struct Socket {
    stream: TcpStream,
    counters: Arc<Counters>,
    /// The timeouts that the system has, in milliseconds: setting them costs a call.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
}

impl Socket {
    /// Takes over a connected stream.
    pub fn new(stream: TcpStream, counters: Arc<Counters>) -> Result<Self, NetError> {
        stream.set_nodelay(true).map_err(NetError::Io)?;
        stream.set_nonblocking(false).map_err(NetError::Io)?;
        let (read_timeout, write_timeout) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { stream, counters, read_timeout, write_timeout })
    }

    /// Some bytes; `None` when none came within `patience`.
    pub fn read(&self, into: &mut [u8], patience: Duration) -> Result<Option<usize>, NetError> {
        set(&self.read_timeout, patience, |t| self.stream.set_read_timeout(t))?;
        match (&self.stream).read(into) {
            Ok(0) => Err(NetError::Closed),
            Ok(n) => {
                self.counters.received.fetch_add(n as u64, Relaxed);
                Ok(Some(n))
            }
            Err(e) => nothing_or(e),
        }
    }

    /// Writes some of `bytes`; `None` when none were taken within `patience`.
    pub fn write(&self, bytes: &[u8], patience: Duration) -> Result<Option<usize>, NetError> {
        set(&self.write_timeout, patience, |t| self.stream.set_write_timeout(t))?;
        match (&self.stream).write(bytes) {
            Ok(0) => Err(NetError::Closed),
            Ok(n) => {
                self.counters.sent.fetch_add(n as u64, Relaxed);
                Ok(Some(n))
            }
            Err(e) => nothing_or(e),
        }
    }

    /// Tells the peer that nothing more will come.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

fn set(
    current: &AtomicU64,
    patience: Duration,
    apply: impl FnOnce(Option<Duration>) -> std::io::Result<()>,
) -> Result<(), NetError> {
    let millis = (patience.as_nanos().div_ceil(1_000_000) as u64).max(1);
    if current.swap(millis, Relaxed) != millis {
        apply(Some(Duration::from_millis(millis))).map_err(NetError::Io)?;
    }
    Ok(())
}

fn nothing_or(e: std::io::Error) -> Result<Option<usize>, NetError> {
    match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected
        | ErrorKind::UnexpectedEof => Err(NetError::Closed),
        _ => Err(NetError::Io(e)),
    }
}
