//! The relay delays and throttles as it says. Bounds are wide: other work shares the machine.

use polyrt::net::relay::{Network, Relay};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// A relay, the client's end in front of it, and the server's behind it.
fn through(network: Network) -> (Relay, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = ["127.0.0.1:0".parse().unwrap()];
    let relay =
        Relay::start(&listen, listener.local_addr().unwrap(), network, |e| panic!("{e}")).unwrap();
    let client = TcpStream::connect(relay.address()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    }
    (relay, client, server)
}

/// The shortest of some round trips of one byte.
fn round_trip(client: &mut TcpStream, mut server: TcpStream) -> Duration {
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while let Ok(1) = server.read(&mut byte) {
            server.write_all(&byte).unwrap();
        }
    });
    let trips = (0..9).map(|i| {
        let start = Instant::now();
        client.write_all(&[i]).unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [i]);
        start.elapsed()
    });
    let shortest = trips.min().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    echo.join().unwrap();
    shortest
}

#[test]
fn round_trips_take_what_was_asked_for() {
    for network in [Network::LAN, Network::WAN, Network::FAR] {
        let (_relay, mut client, server) = through(network);
        let took = round_trip(&mut client, server);
        let asked = network.round_trip;
        // The lateness of threads is taken off, as it is in the middle.
        assert!(took + Duration::from_micros(100) >= asked, "{took:?} of {asked:?}");
        assert!(took < asked + Duration::from_millis(30), "{took:?} of {asked:?}");
        // Its end passes as well.
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn bytes_take_their_time_and_arrive_in_order() {
    let bytes: Vec<u8> = (0..2_500_000u32).map(|i| (i ^ i >> 8) as u8).collect();
    for (network, least) in [(Network::FAR, 0.2 + 0.05), (Network::WAN, 0.05 + 0.02)] {
        let (_relay, mut client, mut server) = through(network);
        let start = Instant::now();
        let took = thread::scope(|scope| {
            // The other direction has its own line.
            let (mut back, mut from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let bytes = &bytes;
            scope.spawn(move || back.write_all(bytes));
            scope.spawn(move || client.write_all(bytes));
            let receive = move |stream: &mut TcpStream| {
                let mut got = vec![0; bytes.len()];
                stream.read_exact(&mut got).unwrap();
                assert!(got == *bytes);
                start.elapsed().as_secs_f64()
            };
            let there = scope.spawn(move || receive(&mut server));
            [receive(&mut from), there.join().unwrap()]
        });
        for took in took {
            assert!(took >= least - 0.001, "{took} of {least}");
            assert!(took < least + 1.0, "{took} of {least}");
        }
    }
}

#[test]
fn a_sender_is_held_back_while_nobody_reads() {
    let (relay, client, mut server) = through(Network::LAN);
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    let part = vec![7; 1 << 20];
    while let Ok(n) = (&client).write(&part) {
        sent += n;
        assert!(sent < 256 << 20, "nothing holds the sender back");
    }
    let mut got = vec![0; sent];
    server.read_exact(&mut got).unwrap();
    assert!(got.iter().all(|&byte| byte == 7));
    drop(relay);
    assert!(matches!(server.read(&mut [0]), Ok(0) | Err(_)), "it ends with the relay");
}

#[test]
fn a_peer_that_vanishes_is_noticed_through_the_relay() {
    let (_relay, client, mut server) = through(Network::WAN);
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
}
