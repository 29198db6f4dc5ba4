//! Peers that do not keep to the protocol.

use super::cases::another_plan;
use super::{all_right, command, compare, start};
use polyrt::handshake::{HELLO_BYTES, Hello};
use polyrt::preprocess::store::list;
use polyrt::preprocess::{Offer, Role};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use support::doors;
use support::{Folder, Listening, run, stderr};

/// What a peer does to party 0 or party 1. As party 1 it is given a hello that fits.
pub type Peer = fn(&mut TcpStream, Option<Hello>);

/// Says hello as party 1, or as party 0 by copying what it hears, changed, and hears the other hello.
fn say_hello(peer: &mut TcpStream, hello: Option<Hello>, change: impl Fn(&mut [u8])) {
    let mut theirs = [0; HELLO_BYTES];
    let mut ours = hello.as_ref().map_or(theirs, Hello::to_bytes);
    if hello.is_none() {
        let _ = peer.read_exact(&mut theirs);
        (ours, ours[10]) = (theirs, 0);
    }
    change(&mut ours);
    let _ = peer.write_all(&ours);
    if hello.is_some() {
        let _ = peer.read_exact(&mut theirs);
    }
}

pub const PEERS: &[(&str, Peer)] = &[
    ("garbage", |peer, _| {
        let _ = peer.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let _ = peer.read_to_end(&mut vec![]);
    }),
    ("closes_at_once", |peer, _| drop(peer.shutdown(Shutdown::Both))),
    ("closes_in_the_hello", |peer, _| {
        let _ = peer.write_all(b"polyrt\r\n\x01");
        let _ = peer.shutdown(Shutdown::Write);
        let _ = peer.read_to_end(&mut vec![]);
    }),
    ("is_silent", |peer, _| drop(peer.read_to_end(&mut vec![]))),
    ("echoes", |peer, hello| {
        let role = u8::from(hello.is_none());
        say_hello(peer, hello, |ours| ours[10] = role);
        let _ = peer.read_to_end(&mut vec![]);
    }),
    ("speaks_another_version", |peer, hello| {
        say_hello(peer, hello, |ours| ours[8] = 9);
        let _ = peer.read_to_end(&mut vec![]);
    }),
    ("closes_after_the_agreement", |peer, hello| {
        say_hello(peer, hello, |ours| ours[12..16].copy_from_slice(&1u32.to_le_bytes()));
        let mut confirmation = [0; 16];
        let _ = peer.read_exact(&mut confirmation);
        let _ = peer.write_all(&confirmation);
        let _ = peer.shutdown(Shutdown::Write);
        let _ = peer.read_to_end(&mut vec![]);
    }),
];

/// Party 1's hello with its correlations from the dealer.
fn dealt_hello(folder: &Folder) -> Hello {
    let listing = list(&folder.file("plan.correlations/party1.correlations")).unwrap();
    let hello = doors::own_hello(Role::Party1);
    let (weights, deal, count) = (Some(listing.weights), listing.deal, listing.items.0);
    Hello { offer: Offer { weights, deal, next: 0, count, ..hello.offer }, ..hello }
}

/// A peer's port is any.
fn without_port(text: &str) -> String {
    let (before, port) = text.split_once("turned away 127.0.0.1:").unwrap_or((text, ""));
    match port.split_once(':') {
        Some((_, rest)) => format!("{before}turned away 127.0.0.1:PORT:{rest}"),
        None => text.into(),
    }
}

/// A line on stderr of party 0 that is not one of its four when it starts.
fn after_start(text: &str) -> String {
    text.lines().skip(4).map(|line| format!("{line}\n")).collect()
}

#[test]
fn peers_of_party_0() {
    let check = |&(name, peer): &(&str, Peer)| {
        let folder = start();
        let hello = dealt_hello(&folder);
        let party0 = Listening::start(&folder, &["--timeout", "1", "--wait", "2"]);
        let mut stream = TcpStream::connect(&party0.address).unwrap();
        peer(&mut stream, Some(hello));
        let (status, out, err) = party0.finish();
        assert!(out.is_empty(), "{name}: {out}");
        let err = without_port(&after_start(&err));
        // Who does not fit is turned away, and nobody else comes.
        let lines = if name == "closes_after_the_agreement" { 1 } else { 2 };
        assert_eq!((status, err.lines().count()), (Some(1), lines), "{name}: {err}");
        compare(&format!("party0_peer_{name}"), status, &err)
    };
    all_right(PEERS.iter().filter_map(check));
}

#[test]
fn peers_of_party_1() {
    let check = |&(name, peer): &(&str, Peer)| {
        let folder = start();
        let before = folder.listing();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || peer(&mut listener.accept().unwrap().0, None));
        let line = format!(
            "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy --output y.npy --timeout 1 --connect {address}"
        );
        let output = run(&mut command(&folder, &line));
        server.join().unwrap();
        let (status, err) = (output.status.code(), stderr(&output));
        assert_eq!((status, err.lines().count()), (Some(1), 1), "{name}: {err}");
        assert_eq!(folder.listing(), before, "{name}");
        compare(&format!("party1_peer_{name}"), status, &err)
    };
    all_right(PEERS.iter().filter_map(check));
}

#[test]
fn a_peer_with_another_plan() {
    let (owner, client) = (start(), start());
    another_plan(client.path(), "plan");
    let deal = "polyrt deal plan.bin --count 2 --force";
    assert!(run(&mut command(&client, deal)).status.success());
    let party0 = Listening::start(&owner, &["--wait", "2"]);
    let line = format!(
        "polyrt party1 plan.bin --dealer-correlations plan.correlations --input x.npy --connect {}",
        party0.address
    );
    let party1 = run(&mut command(&client, &line));
    let (status, _, err) = party0.finish();
    let (err0, err1) = (without_port(&after_start(&err)), stderr(&party1));
    let line = err1.strip_prefix("error: ").unwrap();
    assert!(err0.starts_with(&format!("turned away 127.0.0.1:PORT: {line}")), "{err0} {err1}");
    assert_eq!((status, party1.status.code()), (Some(1), Some(1)));
    all_right(compare("peer_with_another_plan", status, &err0).into_iter());
}
