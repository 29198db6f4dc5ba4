//! A TCP connection as a channel, bare or under TLS.

use super::line::Line;
use super::tls::Tls;
use super::{Channel, Identity, Limits, NetError, Receiving, Sending, WireMeter};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};

/// A connected TCP stream. Dropping it ends the connection in good order.
pub struct TcpChannel {
    line: Arc<Line>,
    beats: Option<Beats>,
}

impl TcpChannel {
    /// Takes over a connected stream, without encryption.
    ///
    /// # Errors
    /// If the stream is not connected any more.
    pub fn new(stream: TcpStream, limits: impl Into<Limits>) -> Result<Self, NetError> {
        Self::over(stream, limits.into(), None)
    }

    /// Takes over a stream that was connected, and agrees on TLS 1.3 as its client within the silence that
    /// is allowed.
    ///
    /// # Errors
    /// If the peer is gone, does not speak TLS, or is not the one whose certificate is pinned. That it
    /// refuses us may be seen here or by the first message that is received.
    pub fn tls_client(
        stream: TcpStream,
        limits: impl Into<Limits>,
        identity: &Identity,
    ) -> Result<Self, NetError> {
        Self::over(stream, limits.into(), Some(Tls::client(identity)?))
    }

    /// Takes over a stream that was accepted, and agrees on TLS 1.3 as its server, as
    /// [`tls_client`](Self::tls_client) does.
    ///
    /// # Errors
    /// If the peer is gone, does not speak TLS, is not the one whose certificate is pinned, or refuses us.
    pub fn tls_server(
        stream: TcpStream,
        limits: impl Into<Limits>,
        identity: &Identity,
    ) -> Result<Self, NetError> {
        Self::over(stream, limits.into(), Some(Tls::server(identity)?))
    }

    fn over(stream: TcpStream, limits: Limits, tls: Option<Tls>) -> Result<Self, NetError> {
        Ok(Self { line: Arc::new(Line::new(stream, limits, tls)?), beats: None })
    }

    /// Counts what passes the socket, also after the channel is given away.
    pub fn wire(&self) -> WireMeter {
        self.line.wire()
    }

    /// The cipher suite, under TLS.
    pub fn suite(&self) -> Option<String> {
        self.line.suite()
    }
}

impl Channel for TcpChannel {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        (Box::new(&*self.line), Box::new(&*self.line))
    }

    fn keep_alive(&mut self) -> Result<(), NetError> {
        if self.beats.is_none() {
            self.line.frame();
            self.beats = Some(Beats::start(self.line.clone())?);
        }
        Ok(())
    }
}

impl Sending for &Line {
    fn send_part(&mut self, part: &[u8], _: bool) -> Result<(), NetError> {
        Line::send(self, part)
    }
}

impl Receiving for &Line {
    fn receive_part(&mut self, part: &mut [u8], _: bool) -> Result<(), NetError> {
        Line::receive(self, part)
    }
}

impl Drop for TcpChannel {
    fn drop(&mut self) {
        drop(self.beats.take());
        self.line.close();
    }
}

/// The thread that beats, until dropped.
struct Beats {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Beats {
    fn start(line: Arc<Line>) -> Result<Self, NetError> {
        let (stop, stopped) = channel::<()>();
        let until_stopped = move || {
            let pause = line.limits.beat();
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) && line.beat() {}
        };
        let thread = Builder::new().name("beats".into()).spawn(until_stopped);
        Ok(Self { stop: Some(stop), thread: Some(thread.map_err(NetError::Io)?) })
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
