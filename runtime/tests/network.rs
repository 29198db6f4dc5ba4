//! Channels over real sockets: both directions at once, and signs of life.

#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod support;

use polyrt::net::{Channel, Identity, Limits, NetError, NewIdentity, TcpChannel, memory_pair};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use support::{LONG, SHORT, identity, names, plain, secured, sockets};

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
    assert_eq!(error, "timed out after 1.0s: the peer sent 0 of 10 bytes");
    assert!(start.elapsed() >= SHORT && start.elapsed() < 15 * SHORT);
    let error = b.send(&vec![0; 64 << 20]).err().unwrap().to_string();
    assert!(error.starts_with("timed out after 1.0s: the peer took "), "{error}");
    assert!(a.send(&[0; 10]).is_ok());
}

#[test]
fn a_peer_that_only_lives_is_given_up_as_well() {
    let (mut a, mut b) = plain(Limits::new(SHORT, 3 * SHORT));
    a.keep_alive().unwrap();
    b.keep_alive().unwrap();
    let start = Instant::now();
    let error = b.receive(10).err().unwrap().to_string();
    assert_eq!(error, "timed out after 3.0s: the peer sent 0 of 10 bytes");
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

/// Where the other process finds its peer, and its key, certificate and peer's certificate.
const PEER: [&str; 4] =
    ["POLYRT_TEST_ADDRESS", "POLYRT_TEST_KEY", "POLYRT_TEST_CERTIFICATE", "POLYRT_TEST_PEER"];

/// Not a test of its own: the process that other tests stop and kill.
#[test]
fn a_process_that_computes() {
    let Ok(address) = std::env::var(PEER[0]) else { return };
    let stream = TcpStream::connect(address).unwrap();
    let mut channel = match [1, 2, 3].map(|i| std::env::var(PEER[i])) {
        [Ok(key), Ok(own), Ok(peer)] => {
            let us = Identity::from_pem(key.as_bytes(), own.as_bytes(), peer.as_bytes()).unwrap();
            TcpChannel::tls_client(stream, SHORT, &us).unwrap()
        }
        _ => TcpChannel::new(stream, SHORT).unwrap(),
    };
    channel.keep_alive().unwrap();
    channel.send(b"here").unwrap();
    thread::sleep(LONG);
}

/// Waits for a process that lives, and gives the signal to it: what is said then.
fn last_words(signal: &str, is_secured: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let [a, b]: [NewIdentity; 2] = names();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_process_that_computes"]).stdout(Stdio::null());
    child.env(PEER[0], listener.local_addr().unwrap().to_string());
    if is_secured {
        let files = [&*b.key, &b.certificate, &a.certificate];
        child.envs(PEER[1..].iter().zip(files));
    }
    let mut child = child.spawn().unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut channel = match is_secured {
        true => TcpChannel::tls_server(stream, SHORT, &identity(&a, &b)).unwrap(),
        false => TcpChannel::new(stream, SHORT).unwrap(),
    };
    channel.keep_alive().unwrap();
    assert_eq!(channel.receive(4).unwrap(), b"here");
    let waiting = thread::spawn(move || channel.receive(1).err().unwrap().to_string());
    thread::sleep(3 * SHORT);
    assert!(!waiting.is_finished(), "{}", waiting.join().unwrap());
    let kill = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let start = Instant::now();
    let said = waiting.join().unwrap();
    assert!(start.elapsed() < 15 * SHORT, "{:?}", start.elapsed());
    child.kill().unwrap();
    child.wait().unwrap();
    said
}

#[test]
fn a_process_that_is_stopped_is_noticed() {
    for is_secured in [false, true] {
        let said = last_words("STOP", is_secured);
        assert_eq!(said, "timed out after 1.0s: the peer sent 0 of 1 bytes");
    }
}

#[test]
fn a_process_that_is_killed_is_noticed() {
    for is_secured in [false, true] {
        assert_eq!(last_words("KILL", is_secured), "the peer closed the connection");
    }
}
