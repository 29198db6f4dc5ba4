//! Channels over real sockets: TLS and its refusals, both directions at once, signs of life.

use polyrt::handshake::AgreementError;
use polyrt::net::{
    Channel, Identity, IdentityError, Limits, NetError, NewIdentity, TcpChannel, memory_pair,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(30);
/// A timeout that tests wait for.
const SHORT: Duration = Duration::from_millis(600);

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

fn plain(limits: impl Into<Limits>) -> (TcpChannel, TcpChannel) {
    let ((server, client), limits) = (sockets(), limits.into());
    (TcpChannel::new(server, limits).unwrap(), TcpChannel::new(client, limits).unwrap())
}

fn identity(own: &NewIdentity, peer: &NewIdentity) -> Identity {
    let pem = (own.key.as_bytes(), own.certificate.as_bytes(), peer.certificate.as_bytes());
    Identity::from_pem(pem.0, pem.1, pem.2).unwrap()
}

fn names<const N: usize>() -> [NewIdentity; N] {
    std::array::from_fn(|i| NewIdentity::generate(&format!("party{i}")).unwrap())
}

type Ends = (Result<TcpChannel, NetError>, Result<TcpChannel, NetError>);

/// Server and client of a handshake.
fn meet(server: &Identity, client: &Identity, limits: Limits) -> Ends {
    let (to_client, to_server) = sockets();
    thread::scope(|scope| {
        let server = scope.spawn(|| TcpChannel::tls_server(to_client, limits, server));
        let client = TcpChannel::tls_client(to_server, limits, client);
        (server.join().unwrap(), client)
    })
}

fn secured(limits: impl Into<Limits>) -> (TcpChannel, TcpChannel) {
    let [a, b] = names();
    let (server, client) = meet(&identity(&a, &b), &identity(&b, &a), limits.into());
    (server.unwrap(), client.unwrap())
}

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
    let damaged = crt.replace_after("-----\n", b'!');
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

trait Damage {
    fn replace_after(&self, mark: &str, by: u8) -> Vec<u8>;
}
impl Damage for [u8] {
    fn replace_after(&self, mark: &str, by: u8) -> Vec<u8> {
        let at = self.windows(mark.len()).position(|w| w == mark.as_bytes()).unwrap();
        let mut damaged = self.to_vec();
        damaged[at + mark.len()..][..20].fill(by);
        damaged
    }
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

/// Both directions at once, from two threads on either side.
fn exchange(a: &mut TcpChannel, b: &mut TcpChannel, megabytes: usize) {
    let message: Vec<u8> = (0..megabytes << 20).map(|i| (i ^ i >> 8 ^ i >> 16) as u8).collect();
    thread::scope(|scope| {
        for end in [a, b] {
            let (mut sending, mut receiving) = end.halves();
            let message = &message;
            scope.spawn(move || sending.send(message).unwrap());
            scope.spawn(move || assert!(receiving.receive(message.len()).unwrap() == *message));
        }
    });
}

#[test]
fn megabytes_pass_in_both_directions_at_once() {
    for (mut a, mut b) in [secured(LONG), plain(LONG)] {
        exchange(&mut a, &mut b, 64);
        a.keep_alive().unwrap();
        b.keep_alive().unwrap();
        let before = a.wire().read();
        exchange(&mut a, &mut b, 64);
        let after = a.wire().read();
        assert_eq!(after.sent_payload - before.sent_payload, 64 << 20);
        let beats = after.sent_beats + after.received_beats;
        if a.suite().is_none() {
            // Four frames of 16 MiB in either direction.
            assert_eq!(after.overhead(), 4 * (8 + beats));
        }
        // Each drop waits for the other's.
        thread::spawn(move || drop(a));
    }
}

#[test]
fn bare_messages_cost_nothing_and_framed_ones_four_bytes() {
    let (mut a, mut b) = plain(LONG);
    a.send(&[1; 1000]).unwrap();
    b.receive(1000).unwrap();
    assert_eq!((a.wire().read().overhead(), b.wire().read().overhead()), (0, 0));
    a.keep_alive().unwrap();
    a.keep_alive().unwrap();
    b.keep_alive().unwrap();
    for bytes in [1, 10, 100_000] {
        a.send(&vec![2; bytes]).unwrap();
    }
    // Taken in other pieces than sent.
    for bytes in [4, 90_000, 10_007] {
        assert_eq!(b.receive(bytes).unwrap(), vec![2; bytes]);
    }
    let wire = a.wire().read();
    assert_eq!((wire.sent, wire.sent_payload), (1000 + 100_011 + 12, 1000 + 100_011));
    thread::spawn(move || drop(a));
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

#[test]
fn a_living_peer_is_waited_for() {
    for (mut a, mut b) in [secured(SHORT), plain(SHORT)] {
        a.keep_alive().unwrap();
        b.keep_alive().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                // Computes for longer than the timeout, with a message unread and one to come.
                thread::sleep(3 * SHORT);
                assert_eq!(a.receive(32 << 20).unwrap().len(), 32 << 20);
                a.send(b"done").unwrap();
                thread::sleep(3 * SHORT);
                drop(a);
            });
            b.send(&vec![1; 32 << 20]).unwrap();
            assert_eq!(b.receive(4).unwrap(), b"done");
            assert!(matches!(b.receive(1), Err(NetError::Closed)));
        });
        let wire = b.wire().read();
        assert!(wire.received_beats >= 6, "{wire:?}");
        assert_eq!(wire.sent_payload, 32 << 20);
    }
}

#[test]
fn a_silent_peer_is_given_up() {
    let (mut a, mut b) = plain(SHORT);
    b.keep_alive().unwrap();
    // Never beats.
    let start = Instant::now();
    let error = b.receive(10).err().unwrap().to_string();
    assert_eq!(error, "timed out after 600.0ms: the peer sent 0 of 10 bytes");
    assert!(start.elapsed() >= SHORT && start.elapsed() < 15 * SHORT);
    let error = b.send(&vec![0; 64 << 20]).err().unwrap().to_string();
    assert!(error.starts_with("timed out after 600.0ms: the peer took "), "{error}");
    assert!(a.send(&[0; 10]).is_ok());
}

#[test]
fn a_peer_that_only_lives_is_given_up_as_well() {
    let (mut a, mut b) = plain(Limits::new(SHORT, 3 * SHORT));
    a.keep_alive().unwrap();
    b.keep_alive().unwrap();
    let start = Instant::now();
    let error = b.receive(10).err().unwrap().to_string();
    assert_eq!(error, "timed out after 1.8s: the peer sent 0 of 10 bytes");
    assert!(start.elapsed() >= 3 * SHORT);
    thread::spawn(move || drop(a));
}

#[test]
fn a_frame_that_no_peer_sends_is_refused() {
    let (server, mut client) = sockets();
    let mut server = TcpChannel::new(server, LONG).unwrap();
    server.keep_alive().unwrap();
    client.write_all(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1]).unwrap();
    let error = server.receive(1).err().unwrap().to_string();
    assert_eq!(
        error,
        "the peer announced a frame of 4294967295 bytes, at most 16777216 are allowed"
    );
    drop(client);
}

/// What was sent arrives, although the receiver's beats lie unread when the sender leaves.
#[test]
fn the_last_message_is_not_lost() {
    let (mut a, mut b) = plain(Duration::from_millis(40));
    a.keep_alive().unwrap();
    b.keep_alive().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(200));
            a.send(&[5; 3_000_000]).unwrap();
            drop(a);
        });
        assert_eq!(b.receive(3_000_000).unwrap(), [5; 3_000_000]);
        drop(b);
    });
}

#[test]
fn memory_needs_no_signs_of_life() {
    let (mut a, mut b) = memory_pair(SHORT);
    a.keep_alive().unwrap();
    a.send(b"x").unwrap();
    assert_eq!(b.receive(1).unwrap(), b"x");
}

const ADDRESS: &str = "POLYRT_TEST_PEER";

/// Not a test of its own: the process that other tests stop and kill.
#[test]
fn a_process_that_computes() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let stream = TcpStream::connect(address).unwrap();
    let mut channel = TcpChannel::new(stream, SHORT).unwrap();
    channel.keep_alive().unwrap();
    channel.send(b"here").unwrap();
    thread::sleep(LONG);
}

#[test]
fn a_process_that_is_stopped_or_killed_is_noticed() {
    for (signal, message) in [("STOP", "timed out after"), ("KILL", "the peer closed")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_that_computes"])
            .env(ADDRESS, listener.local_addr().unwrap().to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut channel = TcpChannel::new(listener.accept().unwrap().0, SHORT).unwrap();
        channel.keep_alive().unwrap();
        assert_eq!(channel.receive(4).unwrap(), b"here");
        let waiting = thread::spawn(move || channel.receive(1).err().unwrap().to_string());
        thread::sleep(3 * SHORT);
        assert!(!waiting.is_finished(), "{}", waiting.join().unwrap());
        let kill = format!("kill -{signal} {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let start = Instant::now();
        let error = waiting.join().unwrap();
        assert!(error.starts_with(message), "{error}");
        assert!(start.elapsed() < 15 * SHORT, "{:?}", start.elapsed());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
