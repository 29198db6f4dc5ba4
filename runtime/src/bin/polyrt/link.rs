//! The link to the peer: what protects it, how long it is waited for, and what is said about it.

use crate::files::{self, BadInput};
use anyhow::{Context, Result};
use polyrt::Connected;
use polyrt::handshake::Hello;
use polyrt::net::{
    Door, Identity, IdentityError, Limits, NetError, TcpChannel, Wire, WireMeter, addresses,
    connect, loopback_only,
};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Says what protects the link.
pub const LOOPBACK: &str = "link: plain TCP on loopback, not encrypted";
/// Says what protects the link when it leaves the machine.
const INSECURE: &str = "link: plain TCP, NOT ENCRYPTED, PEER UNKNOWN: whoever is on the path reads every \
masked message, and with a party's correlations what is behind the masks; it can answer in the peer's \
place; and it can change messages, against which the protocol has no defence";

/// How the link is protected and timed.
#[derive(clap::Args)]
pub struct LinkArguments {
    /// The own private key, made by `polyrt keygen`: the link is encrypted by TLS 1.3, on loopback too
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The own certificate [default: the key's path with extension `crt`]
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The peer's certificate: a peer that does not show exactly this one is refused
    ///
    /// Get it from the peer itself, by a way on which nobody changes files, or compare the fingerprint that
    /// its `polyrt keygen` printed. Names and dates in it are not read: it is in force as long as it is
    /// given here.
    #[arg(long, value_name = "FILE")]
    peer_cert: Option<PathBuf>,
    /// Allow a link that leaves this machine without encryption
    ///
    /// Whoever is on the path then reads every message. Messages are masked, but whoever has a party's
    /// correlations besides opens the input and the model with them. It can also answer in the peer's
    /// place or change messages, against which the protocol has no defence.
    #[arg(long, conflicts_with_all = ["key", "peer_cert"])]
    insecure: bool,
    /// Seconds without a sign of life after which the peer is given up
    ///
    /// Holds for every wait: connecting, the handshakes, each message. A peer that computes for longer
    /// shows that it lives.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Seconds that one message may take although the peer lives
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::MESSAGE.as_secs())]
    longest_wait: u64,
}

impl LinkArguments {
    /// Reads the files; nothing is listened at or connected to yet.
    pub fn prepare(&self, address: &str) -> Result<Link> {
        let identity = self.identity()?;
        let is_guarded = identity.is_some() || self.insecure;
        let bad = |e: NetError| BadInput::error(e.to_string());
        let addresses = addresses(address, is_guarded).map_err(bad)?;
        let (silence, message) =
            (Duration::from_secs(self.timeout), Duration::from_secs(self.longest_wait));
        let limits = Limits::new(silence, message);
        Ok(Link { identity, addresses, address: address.into(), limits })
    }

    fn identity(&self) -> Result<Option<Identity>> {
        let (key_path, peer_path) = match (&self.key, &self.peer_cert) {
            (Some(key), Some(peer)) => (key, peer),
            (None, None) => return Ok(None),
            (Some(_), None) => {
                let line = "--key without --peer-cert: TLS needs the certificate of the peer as well, \
                            which its `polyrt keygen` made";
                return Err(BadInput::error(line));
            }
            (None, Some(_)) => {
                let line = "--peer-cert without --key: the peer must know us as well; make a key by \
                            `polyrt keygen` and give the peer its certificate";
                return Err(BadInput::error(line));
            }
        };
        let own_path = self.cert.clone().unwrap_or_else(|| key_path.with_extension("crt"));
        let key = zeroize::Zeroizing::new(files::read(key_path)?);
        warn_if_others_can_read(key_path);
        let identity = Identity::from_pem(&key, &files::read(&own_path)?, &files::read(peer_path)?);
        identity.map(Some).map_err(|e| {
            let path = match e {
                IdentityError::Key(_) | IdentityError::Pair(_) => key_path,
                IdentityError::Certificate(_) => &own_path,
                IdentityError::PeerCertificate(_) | IdentityError::Mirror(_) => peer_path,
            };
            BadInput::error(format!("{}: {e}", path.display()))
        })
    }
}

#[cfg(unix)]
fn warn_if_others_can_read(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if path.metadata().is_ok_and(|m| m.permissions().mode() & 0o077 != 0) {
        let path = path.display();
        note!("warning: others may read the private key: chmod 600 {path}");
    }
}
#[cfg(not(unix))]
fn warn_if_others_can_read(_: &Path) {}

/// A link that is allowed.
pub struct Link {
    identity: Option<Identity>,
    addresses: Vec<SocketAddr>,
    address: String,
    limits: Limits,
}

impl Link {
    /// The line about what protects it.
    pub fn line(&self) -> String {
        match &self.identity {
            Some(identity) => format!(
                "link: TLS 1.3, encrypted both ways; we are {}, the peer must be {}",
                identity.own(),
                identity.peer()
            ),
            None if loopback_only(&self.addresses) => LOOPBACK.into(),
            None => INSECURE.into(),
        }
    }

    /// Listens; the second is the address in full.
    pub fn listen(&self) -> Result<(TcpListener, String)> {
        let listener = TcpListener::bind(&self.addresses[..]);
        let listener = listener.with_context(|| self.address.clone())?;
        let address =
            listener.local_addr().map_or_else(|_| self.address.clone(), |a| a.to_string());
        Ok((listener, address))
    }

    /// Lets in peers whose hello fits party 0's, `hello`, which is without items.
    pub fn door(self, listener: TcpListener, hello: Hello) -> Result<Door<Peer>> {
        let greet = move |stream| -> Result<Peer, String> {
            let (channel, report) = self.secure(stream).map_err(|e| format!("{e:#}"))?;
            let connected = Connected::new(channel).hear(&hello).map_err(|e| e.to_string())?;
            Ok((connected, report))
        };
        let notices = Mutex::new(Notices::default());
        let turned_away = move |address: SocketAddr, why: &dyn std::fmt::Display| {
            let mut notices = notices.lock().unwrap_or_else(PoisonError::into_inner);
            notices.say(format!("turned away {address}: {why}"));
        };
        Ok(Door::open(listener, greet, turned_away)?)
    }

    /// Secures a stream that was accepted.
    fn secure(&self, stream: TcpStream) -> Result<(TcpChannel, LinkReport)> {
        let channel = match &self.identity {
            Some(identity) => TcpChannel::tls_server(stream, self.limits, identity),
            None => TcpChannel::new(stream, self.limits),
        };
        self.report(channel)
    }

    /// Connects, trying for so many seconds.
    pub fn connect(&self, wait: u64) -> Result<(TcpChannel, LinkReport)> {
        if self.line() == INSECURE {
            note!("{INSECURE}");
        }
        let stream = connect(&self.addresses, Duration::from_secs(wait), self.limits)?;
        let channel = match &self.identity {
            Some(identity) => TcpChannel::tls_client(stream, self.limits, identity),
            None => TcpChannel::new(stream, self.limits),
        };
        self.report(channel)
    }

    fn report(&self, channel: Result<TcpChannel, NetError>) -> Result<(TcpChannel, LinkReport)> {
        let channel = channel.context("securing the link")?;
        let (wire, suite) = (channel.wire(), channel.suite());
        Ok((channel, LinkReport { line: self.line(), wire, suite }))
    }
}

/// A party 1 that fits, and the link to it.
pub type Peer = (Connected<TcpChannel>, LinkReport);

/// Waits for the next peer, for ever or for so many seconds.
pub fn next(door: &Door<Peer>, wait: Option<u64>) -> Result<Peer> {
    door.next(wait.map(Duration::from_secs)).context("waiting for party 1")
}

/// Lines that peers cause before anybody knows them: so many a minute, and no more.
#[derive(Default)]
struct Notices {
    minute: Option<Instant>,
    said: usize,
    unsaid: usize,
}

impl Notices {
    const MOST: usize = 20;

    fn say(&mut self, line: String) {
        if self.minute.is_none_or(|minute| minute.elapsed() > Duration::from_secs(60)) {
            if self.unsaid > 0 {
                note!("turned away {} more", self.unsaid);
            }
            *self = Self { minute: Some(Instant::now()), said: 0, unsaid: 0 };
        }
        if self.said < Self::MOST {
            self.said += 1;
            note!("{line}");
        } else {
            if self.unsaid == 0 {
                note!("others that are turned away within this minute are counted only");
            }
            self.unsaid += 1;
        }
    }
}

/// What is said about a link that was used.
pub struct LinkReport {
    /// What protects it.
    pub line: String,
    wire: WireMeter,
    suite: Option<String>,
}

impl LinkReport {
    /// Prints what protects the link, and what it cost.
    pub fn print(&self) {
        say!("{}", self.line);
        let overhead = self.wire.read().overhead();
        match &self.suite {
            Some(suite) => say!("TLS framing: {overhead} bytes ({suite})"),
            None => say!("framing: {overhead} bytes"),
        }
    }

    /// The same, as a member of a run's JSON.
    pub fn add_to(&self, run: &mut Value) {
        let wire = self.wire.read();
        let Wire { sent, received, sent_beats, received_beats, .. } = wire;
        run["wire"] = json!({
            "tls": self.suite.is_some(),
            "suite": self.suite,
            "bytes_sent": sent,
            "bytes_received": received,
            "overhead_bytes": wire.overhead(),
            "beats": sent_beats + received_beats,
        });
    }
}
