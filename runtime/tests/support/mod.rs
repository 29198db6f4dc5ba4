//! Two ends of a connection within one process.

use polyrt::net::{Identity, Limits, NetError, NewIdentity, TcpChannel};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Longer than anything takes here.
pub const LONG: Duration = Duration::from_secs(30);
/// A timeout that tests wait for.
pub const SHORT: Duration = Duration::from_secs(1);

/// A connection on loopback: the end that accepted, and the one that connected.
pub fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

/// Two ends without encryption.
pub fn plain(limits: impl Into<Limits>) -> (TcpChannel, TcpChannel) {
    let ((server, client), limits) = (sockets(), limits.into());
    (TcpChannel::new(server, limits).unwrap(), TcpChannel::new(client, limits).unwrap())
}

/// A party that knows its peer.
pub fn identity(own: &NewIdentity, peer: &NewIdentity) -> Identity {
    let pem = (own.key.as_bytes(), own.certificate.as_bytes(), peer.certificate.as_bytes());
    Identity::from_pem(pem.0, pem.1, pem.2).unwrap()
}

/// Fresh keys.
pub fn names<const N: usize>() -> [NewIdentity; N] {
    std::array::from_fn(|i| NewIdentity::generate(&format!("party{i}")).unwrap())
}

/// Server and client, or why not.
pub type Ends = (Result<TcpChannel, NetError>, Result<TcpChannel, NetError>);

/// Server and client of a handshake.
pub fn meet(server: &Identity, client: &Identity, limits: Limits) -> Ends {
    let (to_client, to_server) = sockets();
    thread::scope(|scope| {
        let server = scope.spawn(|| TcpChannel::tls_server(to_client, limits, server));
        let client = TcpChannel::tls_client(to_server, limits, client);
        (server.join().unwrap(), client)
    })
}

/// Two ends under TLS.
pub fn secured(limits: impl Into<Limits>) -> (TcpChannel, TcpChannel) {
    let [a, b] = names();
    let (server, client) = meet(&identity(&a, &b), &identity(&b, &a), limits.into());
    (server.unwrap(), client.unwrap())
}
