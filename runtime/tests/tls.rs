//! TLS over real sockets: who is let in, who is not, and what either side is told.

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod support;

use polyrt::handshake::AgreementError;
use polyrt::net::{Channel, Identity, IdentityError, NetError, NewIdentity, TcpChannel};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use support::{LONG, SHORT, identity, meet, names, secured, sockets};

#[test]
fn two_parties_that_know_each_other() {
    let (mut server, mut client) = secured(LONG);
    assert!(server.suite().unwrap().starts_with("TLS13_"));
    client.send(b"question").unwrap();
    assert_eq!(server.receive(3).unwrap(), b"que");
    server.send(b"answer").unwrap();
    assert_eq!(server.receive(5).unwrap(), b"stion");
    assert_eq!(client.receive(6).unwrap(), b"answer");
    let (there, here) = (server.wire().read(), client.wire().read());
    assert_eq!((there.sent, there.received), (here.received, here.sent));
    assert_eq!((there.sent_payload, there.received_payload), (6, 8));
    let before = here.sent;
    client.send(&[7; 100_000]).unwrap();
    server.receive(100_000).unwrap();
    // Records hold 16 KiB of plaintext and 22 bytes besides; parts of 64 KiB begin new ones.
    let records = (65_532u64.div_ceil(16_384)) + (100_000u64 - 65_532).div_ceil(16_384);
    assert_eq!(client.wire().read().sent - before, 100_000 + 22 * records);
    drop(client);
    assert!(matches!(server.receive(1), Err(NetError::Closed)));
}

#[test]
fn any_other_certificate_is_refused_on_both_sides() {
    let [a, b, c] = names();
    // The client takes another server; the server hears of it.
    let (server, client) = meet(&identity(&a, &b), &identity(&b, &c), LONG.into());
    let (server, client) = (server.err().unwrap(), client.err().unwrap());
    let shown = format!("showed certificate {}, --peer-cert is {}", a.fingerprint, c.fingerprint);
    assert!(client.to_string().contains(&shown), "{client}");
    let refused = format!("the peer refused our certificate {}", a.fingerprint);
    assert!(server.to_string().starts_with(&refused), "{server}");
    // The server takes another client, which hears of it instead of an answer.
    for is_talkative in [false, true] {
        let (server, client) = meet(&identity(&a, &c), &identity(&b, &a), LONG.into());
        let (server, mut client) = (server.err().unwrap(), client.unwrap());
        let shown =
            format!("showed certificate {}, --peer-cert is {}", b.fingerprint, c.fingerprint);
        assert!(server.to_string().contains(&shown), "{server}");
        let sent = (0..if is_talkative { 50 } else { 0 }).find_map(|_| {
            thread::sleep(Duration::from_millis(1));
            client.send(&[1; 50_000]).err()
        });
        let client = sent.unwrap_or_else(|| client.receive(1).err().unwrap());
        let refused = format!("the peer refused our certificate {}", b.fingerprint);
        assert!(client.to_string().starts_with(&refused), "{client}");
    }
}

#[test]
fn the_same_name_is_not_the_same_certificate() {
    let [a, b] = names();
    let impostor = NewIdentity::generate("party1").unwrap();
    let (server, _) = meet(&identity(&a, &b), &identity(&impostor, &a), LONG.into());
    assert!(matches!(server, Err(NetError::WrongCertificate { .. })));
}

#[test]
fn a_certificate_without_its_key_is_of_no_use() {
    let [a, b] = names();
    let other = NewIdentity::generate("party1").unwrap();
    let stolen = Identity::from_pem(
        other.key.as_bytes(),
        b.certificate.as_bytes(),
        a.certificate.as_bytes(),
    );
    assert_eq!(stolen.err(), Some(IdentityError::Pair(b.fingerprint)));
    let mirror =
        Identity::from_pem(a.key.as_bytes(), a.certificate.as_bytes(), a.certificate.as_bytes());
    assert_eq!(mirror.err(), Some(IdentityError::Mirror(a.fingerprint)));
    let (key, crt) = (a.key.as_bytes(), a.certificate.as_bytes());
    let damaged = damaged(crt);
    for (key, own, peer) in [
        (crt, crt, crt),
        (key, key, crt),
        (key, crt, key),
        (key, crt, &damaged[..]),
        (b"", crt, crt),
    ] {
        let error = Identity::from_pem(key, own, peer).err().unwrap().to_string();
        assert!(error.starts_with("not a ") && error.lines().count() == 1, "{error}");
    }
}

/// PEM that holds no bytes.
fn damaged(pem: &[u8]) -> Vec<u8> {
    let begin = pem.iter().position(|&byte| byte == b'\n').unwrap();
    let mut damaged = pem.to_vec();
    damaged[begin + 1..][..20].fill(b'!');
    damaged
}

/// Takes every server.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous))
        .with_no_client_auth();
    let [a, b] = names();
    let (server, mut client) = sockets();
    let server = thread::spawn(move || TcpChannel::tls_server(server, LONG, &identity(&a, &b)));
    let mut tls = ClientConnection::new(Arc::new(config), "nobody".try_into().unwrap()).unwrap();
    while tls.complete_io(&mut client).is_ok_and(|moved| moved != (0, 0)) {}
    drop(client);
    let refused = server.join().unwrap().err().unwrap();
    assert!(matches!(refused, NetError::NoCertificate), "{refused}");
}

#[test]
fn a_peer_in_the_clear_is_told_so() {
    for is_server in [true, false] {
        let [a, b] = names();
        let (server, client) = sockets();
        let (ours, theirs) = if is_server { (server, client) } else { (client, server) };
        let peer = thread::spawn(move || {
            let mut peer = TcpChannel::new(theirs, LONG).unwrap();
            peer.send(b"polyrt\r\nand so on").unwrap();
            peer.receive(8).unwrap()
        });
        let identity = identity(&a, &b);
        let error = match is_server {
            true => TcpChannel::tls_server(ours, LONG, &identity),
            false => TcpChannel::tls_client(ours, LONG, &identity),
        };
        assert!(matches!(error.err().unwrap(), NetError::NotTls));
        let got = peer.join().unwrap();
        assert!(is_server && got == b"TLS only" || !is_server && got.starts_with(&[22, 3]));
    }
    let line = AgreementError::Tls.to_string();
    assert_eq!(
        line,
        "the peer speaks TLS, this side does not: start both with --key and --peer-cert"
    );
}

#[test]
fn a_peer_that_hangs_in_the_handshake_is_let_go() {
    let [a, b] = names();
    for is_server in [true, false] {
        let (server, client) = sockets();
        let (ours, mut theirs) = if is_server { (server, client) } else { (client, server) };
        let identity = identity(&a, &b);
        // A byte at a time is no progress.
        let dripping = thread::spawn(move || {
            let hello = [22, 3, 1, 1, 0];
            let mut drip = |byte: u8| {
                thread::sleep(SHORT / 3);
                theirs.write_all(&[byte]).is_ok()
            };
            hello.into_iter().chain([1; 100]).take_while(|&byte| drip(byte)).count()
        });
        let start = Instant::now();
        let error = match is_server {
            true => TcpChannel::tls_server(ours, SHORT, &identity),
            false => TcpChannel::tls_client(ours, SHORT, &identity),
        };
        let error = error.err().unwrap().to_string();
        assert!(error.starts_with("TLS: "), "{error}");
        assert!(start.elapsed() < 15 * SHORT, "{:?}", start.elapsed());
        dripping.join().unwrap();
    }
}

/// Passes bytes on until `limit` of them passed, then cuts the connection.
fn pass(mut from: TcpStream, mut to: TcpStream, limit: &AtomicU64) {
    let (mut part, mut passed) = ([0; 1 << 16], 0);
    while let Ok(n @ 1..) = from.read(&mut part) {
        let allowed = (limit.load(SeqCst) - passed).min(n as u64);
        passed += allowed;
        if to.write_all(&part[..allowed as usize]).is_err() || allowed < n as u64 {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_connection_that_is_cut_is_closed() {
    // In the second message's record, and between two.
    for more in [500, 0] {
        let [a, b] = names();
        let ((to_front, front), (back, to_back)) = (sockets(), sockets());
        let limit = AtomicU64::new(u64::MAX);
        thread::scope(|scope| {
            let (from_back, back_to_front) =
                (to_back.try_clone().unwrap(), to_front.try_clone().unwrap());
            scope.spawn(|| pass(to_front, to_back, &limit));
            scope.spawn(|| pass(from_back, back_to_front, &AtomicU64::new(u64::MAX)));
            let server = identity(&a, &b);
            let server = scope.spawn(move || TcpChannel::tls_server(back, LONG, &server).unwrap());
            let mut client = TcpChannel::tls_client(front, LONG, &identity(&b, &a)).unwrap();
            let mut server = server.join().unwrap();
            client.send(&[1; 1000]).unwrap();
            assert_eq!(server.receive(1000).unwrap(), [1; 1000]);
            limit.store(client.wire().read().sent + more, SeqCst);
            client.send(&[2; 1000]).unwrap();
            assert!(matches!(server.receive(1000), Err(NetError::Closed)));
            assert!(matches!(client.receive(1), Err(NetError::Closed)));
        });
    }
}
