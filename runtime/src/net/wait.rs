//! How long a party waits for its peer.
//!
//! Two limits. A peer may be *silent* for so long, whatever it does: between two signs of life, be they a
//! megabyte of a message or a beat ([`keep_alive`](super::Channel::keep_alive)), no more time may pass.
//! And a single message may *take* so long in all, so that a peer that only says that it lives does not
//! hold us for ever. Single bytes are no signs of life: one that drips them is let go.

use std::time::{Duration, Instant};

/// Bytes that count as a sign of life.
const SIGN: usize = 1 << 20;
/// The longest wait that is counted in full: a day.
const DAY: Duration = Duration::from_secs(86_400);

/// How long a party waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Between two signs of life of the peer.
    pub silence: Duration,
    /// For one message of a peer that lives, or one part of a message that is taken in parts; no less than
    /// `silence`.
    pub message: Duration,
}

impl Limits {
    /// How long one message may take unless said otherwise.
    pub const MESSAGE: Duration = Duration::from_secs(3600);

    /// Limits of at least a millisecond, and of a day at most.
    pub fn new(silence: Duration, message: Duration) -> Self {
        let silence = silence.clamp(Duration::from_millis(1), DAY);
        Self { silence, message: message.clamp(silence, DAY) }
    }

    /// The time between two beats: four fit into the silence that is allowed, so that one may be late.
    pub(super) fn beat(self) -> Duration {
        self.silence / 4
    }
}

impl From<Duration> for Limits {
    fn from(silence: Duration) -> Self {
        Self::new(silence, Self::MESSAGE)
    }
}

/// The wait for one message.
pub(super) struct Wait {
    limits: Limits,
    started: Instant,
    /// The last sign of life.
    heard: Instant,
    moved: usize,
}

impl Wait {
    /// Starts now.
    pub fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self { limits, started: now, heard: now, moved: 0 }
    }

    /// What is left until the next sign of life must have come; `None` when it is too late.
    pub fn left(&self) -> Option<Duration> {
        let end = (self.heard + self.limits.silence).min(self.started + self.limits.message);
        let left = end.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Bytes of the message moved.
    pub fn moved(&mut self, bytes: usize) {
        let before = self.moved;
        self.moved += bytes;
        if self.moved / SIGN > before / SIGN {
            self.alive(Instant::now());
        }
    }

    /// The peer lived at that time.
    pub fn alive(&mut self, at: Instant) {
        self.heard = self.heard.max(at);
    }

    /// How many bytes moved.
    pub fn total(&self) -> usize {
        self.moved
    }

    /// The limit that is over, or will be next.
    pub fn limit(&self) -> Duration {
        let Limits { silence, message } = self.limits;
        if self.heard + silence < self.started + message { silence } else { message }
    }
}
