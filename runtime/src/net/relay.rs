//! A network on one machine: a relay between two processes that delays and throttles what passes.
//!
//! Each direction is a line of a given rate with a given latency. What is read at time `t` enters the line
//! when the line is free, occupies it for its length divided by the rate, and is written a latency after
//! it left:
//!
//! ```text
//! leaves  = max(t, leaves of the part before) + bytes / rate
//! written = leaves + round trip / 2
//! ```
//!
//! One thread reads and one writes, with a queue between them. Times are absolute, so a late thread delays
//! what it holds and nothing after it, and bytes that lay ready while the reading thread was late enter the
//! line as if it had not been. How long a thread that waits for bytes takes to notice them on this machine is
//! measured when the relay starts, and taken off every part that was waited for. The queue holds what a line of
//! that rate has on its way and a little besides; when it is full the reader stops, and the sender is slowed
//! by its own connection. A part stands for the packets of a real line: what is read at once leaves at once, so parts are short. The
//! writing thread sleeps until shortly before a part is due and then watches the clock, which on an idle
//! machine keeps within a tenth of a millisecond.
//!
//! What it does not imitate: loss, jitter, the slow start of TCP, and packets, whose headers take 3 % of a
//! real line.

use super::NetError;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest part that is read at once.
const LARGEST_PART: usize = 1 << 16;
/// What a part should occupy the line for, at most.
const PART_TIME: Duration = Duration::from_micros(60);
/// How much of the line's time a queue holds besides its latency, for threads that are late.
const SLACK: Duration = Duration::from_millis(10);
/// A read that takes no longer than this did not wait.
const AT_ONCE: Duration = Duration::from_micros(50);
/// Sleeps end this much early: so late they may be on an idle machine.
const EARLY: Duration = Duration::from_micros(100);
/// How often the lateness of a thread that waits is measured, and what is waited for in between.
const MEASUREMENTS: usize = 31;
const PAUSE: Duration = Duration::from_micros(300);

/// A network between two machines, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    /// The time from one party to the other and back.
    pub round_trip: Duration,
    /// Bits per second, in each direction.
    pub rate: f64,
}

impl Network {
    /// Two machines in one building: 0.3 ms, 3 Gbit/s.
    pub const LAN: Self = Self { round_trip: Duration::from_micros(300), rate: 3e9 };
    /// Two machines in one country: 40 ms, 400 Mbit/s.
    pub const WAN: Self = Self { round_trip: Duration::from_millis(40), rate: 4e8 };
    /// Two machines on two continents: 100 ms, 100 Mbit/s.
    pub const FAR: Self = Self { round_trip: Duration::from_millis(100), rate: 1e8 };

    fn latency(self) -> Duration {
        self.round_trip / 2
    }

    /// How long so many bytes occupy a line.
    fn occupation(self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 8.0 / self.rate)
    }

    /// How many bytes a line takes in that time.
    fn bytes_in(self, time: Duration) -> usize {
        (self.rate / 8.0 * time.as_secs_f64()) as usize
    }

    fn part(self) -> usize {
        self.bytes_in(PART_TIME).clamp(1024, LARGEST_PART)
    }

    /// How many bytes a queue holds.
    fn room(self) -> usize {
        self.bytes_in(self.latency() + SLACK) + 2 * self.part()
    }
}

/// A relay at work; it and the connections through it end when it is dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_stopped: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Listens at `listen`. Each connection there becomes one to `connect`, with a network of its own
    /// between them; `complain` gets a line about each that fails.
    ///
    /// # Errors
    /// If it cannot listen there.
    pub fn start(
        listen: &[SocketAddr],
        connect: SocketAddr,
        network: Network,
        complain: impl Fn(String) + Send + 'static,
    ) -> Result<Self, NetError> {
        let listener = TcpListener::bind(listen).map_err(NetError::Io)?;
        let address = listener.local_addr().map_err(NetError::Io)?;
        let shared = Arc::new(Shared::default());
        // A machine without a loopback of its own is taken to be prompt.
        let late = lateness().unwrap_or_default();
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || {
                while let Ok((client, _)) = listener.accept() {
                    if shared.is_stopped.load(SeqCst) {
                        return;
                    }
                    if let Err(e) = shared.join(client, connect, network, late) {
                        complain(format!("{connect}: {e}"));
                    }
                }
            }
        });
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Relays until the process ends.
    pub fn wait(mut self) {
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        let _ = self.thread.take().map(JoinHandle::join);
        for stream in &*lock(&self.shared.streams) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn join(
        &self,
        client: TcpStream,
        connect: SocketAddr,
        network: Network,
        late: Duration,
    ) -> std::io::Result<()> {
        let server = TcpStream::connect_timeout(&connect, Duration::from_secs(10))?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let mut streams = lock(&self.streams);
        streams.retain(|stream| stream.peer_addr().is_ok());
        streams.extend([client.try_clone()?, server.try_clone()?]);
        let back = (server.try_clone()?, client.try_clone()?);
        for (from, to) in [(client, server), back] {
            let line = Arc::new(Line::new(network, late));
            let (source, its_line) = (from.try_clone()?, line.clone());
            std::thread::spawn(move || its_line.read(source));
            std::thread::spawn(move || line.write(&from, to));
        }
        Ok(())
    }
}

/// One direction of one connection.
struct Line {
    network: Network,
    /// How long the reading thread takes to notice bytes that it waits for.
    late: Duration,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// What is on its way, and when it arrives.
    parts: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// Nothing more comes in, or goes out.
    is_over: bool,
}

impl Line {
    fn new(network: Network, late: Duration) -> Self {
        Self { network, late, queue: Mutex::default(), changed: Condvar::new() }
    }

    fn read(&self, mut from: TcpStream) {
        let mut part = vec![0; self.network.part()];
        let mut free = Instant::now();
        // When the last part had been read, and when this thread came back for more.
        let (mut before, mut ready) = (free, free);
        while let Ok(n @ 1..) = from.read(&mut part) {
            let now = Instant::now();
            // Bytes that need not be waited for lay there while this thread was late.
            let noticed = || (now - self.late).max(ready);
            let came = if now - ready < AT_ONCE { before } else { noticed() };
            free = free.max(came) + self.network.occupation(n);
            before = now;
            let mut queue = lock(&self.queue);
            while queue.bytes + n > self.network.room() && !queue.is_over {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                before = Instant::now();
            }
            if queue.is_over {
                return;
            }
            queue.bytes += n;
            queue.parts.push_back((free + self.network.latency(), part[..n].to_vec()));
            self.changed.notify_all();
            drop(queue);
            ready = Instant::now();
        }
        lock(&self.queue).is_over = true;
        self.changed.notify_all();
    }

    /// `from` is where the bytes come from: when they cannot be written, no more are taken.
    fn write(&self, from: &TcpStream, mut to: TcpStream) {
        while let Some((due, part)) = self.next() {
            sleep_until(due);
            let written = to.write_all(&part);
            let mut queue = lock(&self.queue);
            queue.bytes -= part.len();
            if written.is_err() {
                queue.is_over = true;
                queue.parts.clear();
                let _ = from.shutdown(Shutdown::Both);
            }
            self.changed.notify_all();
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    fn next(&self) -> Option<(Instant, Vec<u8>)> {
        let mut queue = lock(&self.queue);
        while queue.parts.is_empty() && !queue.is_over {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.parts.pop_front()
    }
}

/// How long a thread that waits for bytes of a connection takes to have them, the median.
fn lateness() -> std::io::Result<Duration> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    let (read, reads) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(1..) = far.read(&mut [0; 64]) {
            if read.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    let mut measured = Vec::with_capacity(MEASUREMENTS);
    for _ in 0..MEASUREMENTS {
        std::thread::sleep(PAUSE);
        let sent = Instant::now();
        near.write_all(&[0])?;
        let Ok(read) = reads.recv() else { break };
        measured.push(read.saturating_duration_since(sent));
    }
    measured.sort();
    Ok(measured.get(measured.len() / 2).copied().unwrap_or_default())
}

fn sleep_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > EARLY {
        std::thread::sleep(left - EARLY);
    }
    while Instant::now() < due {
        std::thread::yield_now();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
