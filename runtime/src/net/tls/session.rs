//! One TLS connection between two threads: turns plaintext into records and back, and moves no byte
//! itself.
//!
//! rustls keeps both directions in one state, so a lock stands around it. It is held while some
//! kilobytes are encrypted or decrypted, never while a socket is waited for, and whoever holds it takes
//! no other lock: a thread that is stuck in sending cannot hold up the one that receives, which is what
//! two parties that send each other megabytes at once depend on.

use super::pin::OtherCertificate;
use super::{Fingerprint, Identity};
use crate::net::NetError;
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use rustls::{
    AlertDescription, CertificateError, ClientConnection, Connection, Error, ServerConnection,
};
use std::io::{ErrorKind, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a peer is told that does not speak TLS: eight bytes, as many as every greeting has.
pub const NOT_TLS: &[u8; 8] = b"TLS only";
/// Plaintext that is encrypted at once.
const PART: usize = 1 << 16;

/// A TLS connection.
pub struct Tls {
    connection: Mutex<Connection>,
    own: Fingerprint,
}

impl Tls {
    /// The side that connects.
    pub fn client(identity: &Identity) -> Result<Self, NetError> {
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
        let connection = ClientConnection::new(identity.client.clone(), nobody);
        Self::new(identity, connection.map(Connection::from))
    }

    /// The side that listens.
    pub fn server(identity: &Identity) -> Result<Self, NetError> {
        let connection = ServerConnection::new(identity.server.clone());
        Self::new(identity, connection.map(Connection::from))
    }

    fn new(identity: &Identity, connection: Result<Connection, Error>) -> Result<Self, NetError> {
        let own = identity.own;
        let mut connection = connection.map_err(|e| explain(own, e))?;
        connection.set_buffer_limit(None);
        Ok(Self { connection: Mutex::new(connection), own })
    }

    /// Takes from the front of `raw` what the handshake needs and appends what it sends to `out`, an
    /// alert if it fails. Whether it is over.
    pub fn handshake(&self, raw: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, NetError> {
        let mut connection = self.lock();
        let mut status = Ok(());
        while status.is_ok() && connection.is_handshaking() && !raw.is_empty() {
            status = self.feed(&mut connection, raw);
        }
        collect(&mut connection, out);
        status.map(|()| !connection.is_handshaking())
    }

    /// Appends the records of `plain` to `out`.
    pub fn encrypt(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), NetError> {
        for part in plain.chunks(PART) {
            let mut connection = self.lock();
            connection.writer().write_all(part).map_err(NetError::Io)?;
            collect(&mut connection, out);
        }
        Ok(())
    }

    /// Decrypts from the front of `raw` into `plain` until there are some bytes; how many, and none if it
    /// takes more of `raw`. An end in good order is [`NetError::Closed`].
    pub fn decrypt(&self, raw: &mut &[u8], plain: &mut [u8]) -> Result<usize, NetError> {
        let mut connection = self.lock();
        loop {
            match connection.reader().read(plain) {
                Ok(0) if !plain.is_empty() => return Err(NetError::Closed),
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Err(NetError::Closed),
                Err(e) => return Err(NetError::Io(e)),
            }
            if raw.is_empty() {
                return Ok(0);
            }
            self.feed(&mut connection, raw)?;
        }
    }

    /// Appends whatever waits to be sent, and with `last` the alert that says that nothing will follow.
    pub fn flush(&self, last: bool, out: &mut Vec<u8>) {
        let mut connection = self.lock();
        if last {
            connection.send_close_notify();
        }
        collect(&mut connection, out);
    }

    /// The cipher suite.
    pub fn suite(&self) -> String {
        let suite = self.lock().negotiated_cipher_suite();
        suite.map_or_else(String::new, |suite| format!("{:?}", suite.suite()))
    }

    fn feed(&self, connection: &mut Connection, raw: &mut &[u8]) -> Result<(), NetError> {
        connection.read_tls(raw).map_err(NetError::Io)?;
        connection.process_new_packets().map(drop).map_err(|e| explain(self.own, e))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn collect(connection: &mut Connection, out: &mut Vec<u8>) {
    while connection.wants_write() && connection.write_tls(out).is_ok() {}
}

/// What an error of rustls means to two parties with pinned certificates; `own` is what we showed.
fn explain(own: Fingerprint, error: Error) -> NetError {
    match &error {
        Error::InvalidCertificate(CertificateError::Other(why)) => {
            match why.0.downcast_ref::<OtherCertificate>() {
                Some(&OtherCertificate { shown, pinned }) => {
                    NetError::WrongCertificate { shown, pinned }
                }
                None => NetError::Tls(error.to_string()),
            }
        }
        Error::NoCertificatesPresented => NetError::NoCertificate,
        Error::AlertReceived(
            AlertDescription::CertificateUnknown
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied,
        ) => NetError::Refused(own),
        _ => NetError::Tls(error.to_string()),
    }
}
