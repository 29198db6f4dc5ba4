//! A TCP stream whose reads and writes take a limited time, and whose bytes are counted.
//!
//! Between two machines in one building a party waits for less time than a sleeping thread takes to wake
//! and a core to come up to speed again, many times per inference. So a read that follows a short wait
//! watches the socket for a while before it sleeps, giving its core to whoever else has work. After a long
//! wait it sleeps at once, so that nothing is watched across a country, or while the peer computes.

use super::NetError;
use super::meter::Counters;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long the socket is watched: a round trip in one building, and what the peer computes meanwhile.
const WATCH: Duration = Duration::from_micros(600);
/// Waits no longer than this, by the clock of a thread that slept, are short.
const SHORT: Duration = Duration::from_micros(1200);

/// A connected stream, to be read from one thread and written from another.
pub(super) struct Socket {
    stream: TcpStream,
    counters: Arc<Counters>,
    /// Whether the last wait was a short one.
    is_quick: AtomicBool,
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
        let is_quick = AtomicBool::new(true);
        Ok(Self { stream, counters, is_quick, read_timeout, write_timeout })
    }

    /// Some bytes; `None` when none came within `patience`.
    pub fn read(&self, into: &mut [u8], patience: Duration) -> Result<Option<usize>, NetError> {
        let start = Instant::now();
        let mut read = None;
        if self.is_quick.load(Relaxed) && patience > WATCH {
            read = self.watch(into, start);
        }
        if read.is_none() {
            set(&self.read_timeout, patience, |t| self.stream.set_read_timeout(t))?;
            read = Some((&self.stream).read(into));
            self.is_quick.store(start.elapsed() < SHORT, Relaxed);
        }
        match read {
            Some(Ok(n @ 1..)) => {
                self.counters.received.fetch_add(n as u64, Relaxed);
                Ok(Some(n))
            }
            Some(Err(e)) => nothing_or(e),
            Some(Ok(0)) | None => Err(NetError::Closed),
        }
    }

    /// Reads what comes within [`WATCH`] of `start`, without sleeping; `None` when nothing did.
    #[cfg(unix)]
    fn watch(&self, into: &mut [u8], start: Instant) -> Option<std::io::Result<usize>> {
        use rustix::io::Errno;
        use rustix::net::{RecvFlags, recv};
        loop {
            match recv(&self.stream, &mut *into, RecvFlags::DONTWAIT) {
                Ok((n, _)) => return Some(Ok(n)),
                Err(Errno::AGAIN | Errno::INTR) if start.elapsed() < WATCH => {}
                Err(Errno::AGAIN | Errno::INTR) => return None,
                Err(e) => return Some(Err(e.into())),
            }
            std::thread::yield_now();
        }
    }

    /// Nothing is watched on other systems.
    #[cfg(not(unix))]
    fn watch(&self, _: &mut [u8], _: Instant) -> Option<std::io::Result<usize>> {
        None
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
