//! What strangers do at party 0's door: nobody who is known waits for them, and they count for nothing.

#[allow(dead_code, reason = "shared with the other tests of the binary")]
mod processes;

use polyrt::handshake::Purpose;
use processes::{Bench, done, text};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Silent connections, to be held.
fn silent(address: &str, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

/// Connections that say too little, nonsense, or nothing and go. Those that are not done are returned.
fn noise(bench: &Bench, address: &str) -> Vec<TcpStream> {
    drop(silent(address, 100));
    let hello = bench.hello(Purpose::Run, 3).to_bytes();
    let mut other_plan = hello;
    other_plan[16] ^= 1;
    let said: [&[u8]; 5] = [
        &hello[..40],
        b"GET / HTTP/1.1\r\n\r\n",
        &[22, 3, 1, 0, 80, 1],
        &[0xff; 9999],
        &other_plan,
    ];
    let say = |bytes: &&[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        // It may be gone before it has heard all.
        let _ = stream.write_all(bytes);
        stream
    };
    said.iter().map(say).collect()
}

/// Both runs of a party 0 that serves two are a known client's.
fn serves_whom_it_knows(bench: &Bench, more: &str, [key0, key1]: [&str; 2]) {
    let (party0, address) = bench.serve(&format!("--runs 2 {more} {key0}"));
    let party1 =
        format!("party1 plan.bin --input x.npy --output y.npy --connect {address} {more} {key1}");
    for _ in 0..2 {
        let held = (silent(&address, 10), noise(bench, &address));
        done(bench.run(&party1));
        bench.check_output("y.npy");
        drop(held);
    }
    let served = party0.finish();
    let said = text(&served.stderr);
    assert_eq!(done(served).matches("served 3 inputs").count(), 2, "{said}");
    assert!(said.matches("turned away 127.0.0.1:").count() <= 20, "{said}");
    assert!(
        said.contains("others that are turned away within this minute are counted only"),
        "{said}"
    );
    assert!(!said.contains("error: "), "{said}");
}

#[test]
fn strangers_neither_count_nor_delay_a_known_client() {
    let bench = Bench::new("strangers");
    serves_whom_it_knows(&bench, "", [""; 2]);
    // A dealer's items: none is lost to a stranger.
    bench.done("deal plan.bin --count 6");
    serves_whom_it_knows(&bench, "--dealer-correlations", [""; 2]);
}

#[test]
fn strangers_neither_count_nor_delay_under_tls() {
    let bench = Bench::new("strangers_tls");
    for name in ["a", "b", "c"] {
        bench.done(&format!("keygen --out {name}"));
    }
    let keys = ["--key a.key --peer-cert b.crt", "--key b.key --peer-cert a.crt"];
    serves_whom_it_knows(&bench, "", keys);
}

#[test]
fn preparing_has_the_same_door() {
    let bench = Bench::new("strangers_prepare");
    let mut party0 = bench
        .start("prepare plan.bin --party 0 --count 9 --store s --address 127.0.0.1:0 --wait 30");
    let address = party0.address();
    let held = (silent(&address, 10), noise(&bench, &address));
    let party1 = format!("prepare plan.bin --party 1 --count 2 --store s --address {address}");
    done(bench.run(&party1));
    done(party0.finish());
    drop(held);
    let unused: Vec<_> = bench.listing("s").iter().map(|l| l["unused"].clone()).collect();
    assert_eq!(unused, [2, 2]);
}

/// More silent connections than there are places: those that are held longest make room.
#[test]
fn a_full_hall_lets_the_next_one_in() {
    let bench = Bench::new("crowd");
    let (party0, address) = bench.serve("");
    let mut held = silent(&address, 100);
    let party1 = format!("party1 plan.bin --input x.npy --output y.npy --connect {address}");
    done(bench.run(&party1));
    bench.check_output("y.npy");
    done(party0.finish());
    assert!(matches!(held[0].read(&mut [0]), Ok(0) | Err(_)), "the first one was let go");
}

/// Single bytes do not extend what a connection is given.
#[test]
fn a_hello_that_drips_is_let_go() {
    let bench = Bench::new("drips");
    let (mut party0, address) = bench.serve("--timeout 60");
    let mut stream = TcpStream::connect(&address).unwrap();
    let start = Instant::now();
    // The whole hello would take a minute and a half.
    for byte in bench.hello(Purpose::Run, 3).to_bytes() {
        if stream.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(700));
    }
    assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
    assert_eq!(party0.turned_away(), "it did not say who it is within 5s");
    let party1 = format!("party1 plan.bin --input x.npy --connect {address}");
    done(bench.run(&party1));
    done(party0.finish());
}

/// A client that gave up while another one was served is passed over.
#[test]
fn a_client_that_left_before_its_turn_does_not_count() {
    let bench = Bench::new("left");
    let (party0, address) = bench.serve("--runs 2 --timeout 3");
    // Keeps party 0 busy until it is given up; meanwhile another one comes and goes.
    let mut busy = bench.greet(&address, Purpose::Run, 1);
    busy.read_exact(&mut [0; 8]).unwrap();
    drop(bench.greet(&address, Purpose::Run, 1));
    done(bench.run(&format!("party1 plan.bin --input x.npy --output y.npy --connect {address}")));
    bench.check_output("y.npy");
    let served = party0.finish();
    assert_eq!(served.status.code(), Some(1), "the first run failed");
    assert_eq!(text(&served.stderr).matches("error: ").count(), 2, "{}", text(&served.stderr));
    assert_eq!(text(&served.stderr).matches("turned away").count(), 1, "{}", text(&served.stderr));
}
