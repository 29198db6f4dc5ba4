//! The two directions of a TCP connection, each with its own lock and its own thread.
//!
//! # Layers
//!
//! ```text
//! message    what `Channel::send` is given; the meter counts these
//! frame      a length of four bytes, then as many bytes; length 0 is a beat        (after keep_alive)
//! record     TLS 1.3: at most 16 KiB with 22 bytes around them                     (under TLS)
//! socket     what the wire meter counts
//! ```
//!
//! # Signs of life
//!
//! A party may compute for minutes between two messages, and one that is stopped or whose machine lost
//! power closes nothing: silence alone does not tell the two apart. So a living party *beats*, from a
//! thread of its own, four times within the silence that is allowed, whatever its other threads do. A
//! peer that beats is waited for; one that does not is reported after `Limits::silence`.
//!
//! Beats travel in the same stream, since nothing else reaches a peer through tunnels and firewalls, and
//! a stream of bare messages has no place for them; hence the frames. The alternatives were worse: keep-
//! alive of the system's TCP is not in the standard library and sees a living kernel, not a living
//! process; TLS has empty records and key updates, but peers limit their number, and loopback has no TLS;
//! a second connection must be secured, tunnelled and timed once more. The price is four bytes per
//! message, counted apart from the messages, so that the meter equals the plan's prediction still. The
//! first messages, up to [`Channel::keep_alive`](super::Channel::keep_alive), are bare, so that parties of
//! different versions can tell each other so. When a beat leaves depends on the clock alone, and how
//! often on how long a party computes: on nothing that messages do not show.
//!
//! A party whose send is stuck because the peer computes and reads nothing listens for beats meanwhile:
//! it reads ahead, up to [`AHEAD`] bytes. When those are full it cannot hear, and counts no silence against
//! the peer until it reads again.

mod incoming;
mod outgoing;

use super::meter::Counters;
use super::socket::Socket;
use super::tls::{NOT_TLS, Tls};
use super::wait::{Limits, Wait};
use super::{NetError, WireMeter};
use incoming::Incoming;
use outgoing::Outgoing;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Bytes that are read or written at once.
const PART: usize = 1 << 16;
/// The longest frame; longer messages become several.
const MAX_FRAME: usize = 1 << 24;
/// Bytes that are read ahead while a send is stuck.
const AHEAD: usize = 1 << 22;
/// The shortest wait that the system knows.
const INSTANT: Duration = Duration::from_millis(1);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection, shared by the threads that send, receive and beat.
pub(super) struct Line {
    socket: Socket,
    tls: Option<Tls>,
    pub limits: Limits,
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing>,
    /// The last beat of the peer.
    heard: Mutex<Instant>,
    counters: Arc<Counters>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Line {
    pub fn new(stream: TcpStream, limits: Limits, tls: Option<Tls>) -> Result<Self, NetError> {
        let counters = Arc::new(Counters::default());
        let line = Self {
            socket: Socket::new(stream, counters.clone())?,
            tls,
            limits,
            incoming: Mutex::new(Incoming::default()),
            outgoing: Mutex::new(Outgoing::default()),
            heard: Mutex::new(Instant::now()),
            counters,
        };
        if let Some(tls) = &line.tls
            && let Err(e) = line.handshake(tls)
        {
            // The peer must read why before the connection is gone.
            line.socket.finish();
            line.drain(FAREWELL.min(limits.silence));
            return Err(e);
        }
        Ok(line)
    }

    pub fn wire(&self) -> WireMeter {
        WireMeter::new(self.counters.clone())
    }

    pub fn suite(&self) -> Option<String> {
        self.tls.as_ref().map(Tls::suite)
    }

    /// Messages travel in frames from here on.
    pub fn frame(&self) {
        lock(&self.incoming).frame();
        lock(&self.outgoing).framed = true;
    }

    fn handshake(&self, tls: &Tls) -> Result<(), NetError> {
        let incoming = &mut *lock(&self.incoming);
        let outgoing = &mut *lock(&self.outgoing);
        let silence = self.limits.silence;
        let mut wait = Wait::new(Limits { silence, message: silence });
        let mut began = false;
        loop {
            let mut raw = incoming.raw();
            if let Some(&first) = raw.first().filter(|_| !began) {
                began = true;
                if !(20..24).contains(&first) {
                    outgoing.out.extend_from_slice(NOT_TLS);
                    self.push(outgoing, &mut wait)?;
                    return Err(NetError::NotTls);
                }
            }
            let status = tls.handshake(&mut raw, &mut outgoing.out);
            incoming.keep(raw.len());
            let pushed = self.push(outgoing, &mut wait);
            if status? {
                return pushed;
            }
            pushed?;
            let Some(left) = wait.left() else {
                return Err(NetError::Tls(format!("no handshake within {silence:.1?}")));
            };
            incoming.fill(&self.socket, left)?;
        }
    }

    /// Ends the connection so that the peer still gets what was sent. A socket that is closed while bytes
    /// of the peer lie unread is reset, and what the peer has not got is lost; beats make that likely. So
    /// the last bytes of the peer are waited for, unless the connection is broken.
    pub fn close(&self) {
        let incoming_is_whole = !lock(&self.incoming).broken;
        let outgoing = &mut *lock(&self.outgoing);
        if outgoing.broken {
            return;
        }
        if let Some(tls) = &self.tls {
            tls.flush(true, &mut outgoing.out);
        }
        let brief = FAREWELL.min(self.limits.silence);
        let pushed = self.push(outgoing, &mut Wait::new(Limits { silence: brief, message: brief }));
        outgoing.broken = true;
        self.socket.finish();
        if outgoing.framed && incoming_is_whole && pushed.is_ok() && !std::thread::panicking() {
            self.drain(self.limits.silence);
        }
    }

    /// Reads and forgets until the peer is done, or for `limit`.
    fn drain(&self, limit: Duration) {
        let incoming = &mut *lock(&self.incoming);
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || incoming.fill(&self.socket, left).is_err() {
                return;
            }
        }
    }
}
