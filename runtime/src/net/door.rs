//! The door of a party that listens: a connection is secured and heard before anything is opened, computed or
//! counted for it.
//!
//! A connection costs its peer next to nothing, so it is given little: a thread, for [`PATIENCE`] at most however
//! its bytes drip in, and a place among [`PLACES`], of which a newcomer takes the one that is held longest. What
//! comes of it then waits to be served, or is turned away in a line. Peers are let in while one is served, so
//! that those who say nothing do not stand in the way of the next.

use super::NetError;
use std::collections::VecDeque;
use std::fmt::Display;
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// From the connection to the last byte that is needed to let it in.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that are heard at once, and those that wait to be served.
pub const PLACES: usize = 64;
/// A pause when the system has no more sockets or threads.
const PAUSE: Duration = Duration::from_millis(50);

/// Hands out peers that were let in, in the order in which they were.
pub struct Door<T> {
    hall: Arc<Hall<T>>,
}

/// Told of a peer that was turned away, and why.
type TurnedAway = dyn Fn(SocketAddr, &dyn Display) + Send + Sync;

struct Hall<T> {
    visitors: Mutex<Visitors<T>>,
    changed: Condvar,
    turned_away: Box<TurnedAway>,
}

struct Visitors<T> {
    /// Being heard, by the time of their arrival.
    heard: VecDeque<Visitor>,
    /// Waiting to be served.
    ready: VecDeque<(Visitor, T)>,
    arrived: u64,
    is_closed: bool,
}

struct Visitor {
    number: u64,
    address: SocketAddr,
    since: Instant,
    stream: TcpStream,
}

impl<T: Send + 'static> Door<T> {
    /// Lets in whom `greet` makes something of. `turned_away` is told of all others.
    ///
    /// # Errors
    /// If the system has no threads.
    pub fn open<E: Display>(
        listener: TcpListener,
        greet: impl Fn(TcpStream) -> Result<T, E> + Send + Sync + 'static,
        turned_away: impl Fn(SocketAddr, &dyn Display) + Send + Sync + 'static,
    ) -> Result<Self, NetError> {
        let (heard, ready) = (VecDeque::new(), VecDeque::new());
        let hall = Arc::new(Hall {
            visitors: Mutex::new(Visitors { heard, ready, arrived: 0, is_closed: false }),
            changed: Condvar::new(),
            turned_away: Box::new(turned_away),
        });
        let door = Self { hall: hall.clone() };
        let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
            Builder::new().name(name.into()).spawn(work).map_err(NetError::Io)
        };
        let watching = hall.clone();
        start("door clock", Box::new(move || watching.keep_time()))?;
        start("door", Box::new(move || hall.let_in(&listener, &Arc::new(greet))))?;
        Ok(door)
    }

    /// The next peer; waits for one, for ever or for so long. One that has gone meanwhile is passed over.
    ///
    /// # Errors
    /// If none comes in time.
    pub fn next(&self, wait: Option<Duration>) -> Result<T, NetError> {
        let start = Instant::now();
        loop {
            let (visitor, peer) = self.take(start, wait)?;
            if visitor.is_there() {
                return Ok(peer);
            }
            drop(peer);
            (self.hall.turned_away)(visitor.address, &NetError::Closed);
        }
    }

    fn take(&self, start: Instant, wait: Option<Duration>) -> Result<(Visitor, T), NetError> {
        let hall = &self.hall;
        let mut visitors = hall.lock();
        loop {
            if let Some(next) = visitors.ready.pop_front() {
                return Ok(next);
            }
            visitors = match wait.map(|wait| (wait, wait.saturating_sub(start.elapsed()))) {
                None => hall.changed.wait(visitors).unwrap_or_else(PoisonError::into_inner),
                Some((wait, Duration::ZERO)) => return Err(NetError::Accept(wait)),
                Some((_, left)) => {
                    let woken = hall.changed.wait_timeout(visitors, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl<T> Drop for Door<T> {
    fn drop(&mut self) {
        // The thread that listens ends with the next connection, or with the process; nobody waits for it.
        let mut visitors = self.hall.lock();
        visitors.is_closed = true;
        let heard = std::mem::take(&mut visitors.heard);
        let ready = std::mem::take(&mut visitors.ready);
        drop(visitors);
        self.hall.changed.notify_all();
        heard.iter().for_each(|visitor| drop(visitor.stream.shutdown(Shutdown::Both)));
        drop(ready);
    }
}

impl<T> Hall<T> {
    fn lock(&self) -> MutexGuard<'_, Visitors<T>> {
        self.visitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go whom nothing was heard of in time.
    fn keep_time(&self) {
        let mut visitors = self.lock();
        while !visitors.is_closed {
            let age = visitors.heard.front().map(|oldest| oldest.since.elapsed());
            visitors = match age {
                None => self.changed.wait(visitors).unwrap_or_else(PoisonError::into_inner),
                Some(age) if age < PATIENCE => {
                    let woken = self.changed.wait_timeout(visitors, PATIENCE - age);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    let late = visitors.heard.pop_front();
                    drop(visitors);
                    self.let_go(late, &NetError::Unheard(PATIENCE));
                    self.lock()
                }
            };
        }
    }

    /// Ends a connection whose thread may still read from it.
    fn let_go(&self, visitor: Option<Visitor>, why: &NetError) {
        let Some(visitor) = visitor else { return };
        let _ = visitor.stream.shutdown(Shutdown::Both);
        (self.turned_away)(visitor.address, why);
    }
}

impl<T: Send + 'static> Hall<T> {
    fn let_in<E: Display>(
        self: Arc<Self>,
        listener: &TcpListener,
        greet: &Arc<impl Fn(TcpStream) -> Result<T, E> + Send + Sync + 'static>,
    ) {
        loop {
            let accepted = listener.accept();
            if self.lock().is_closed {
                return;
            }
            let received = accepted.and_then(|(stream, address)| {
                let (visitor, greet) = (stream.try_clone()?, greet.clone());
                let (number, eldest) = self.enter(address, visitor);
                self.let_go(eldest, &NetError::Crowd(PLACES));
                let hall = self.clone();
                let hear = move || hall.settle(number, greet(stream));
                let begun = Builder::new().name("handshake".into()).spawn(hear);
                begun.map(drop).inspect_err(|_| drop(self.leave(number)))
            });
            match received {
                Err(e) if e.kind() != ErrorKind::ConnectionAborted => std::thread::sleep(PAUSE),
                _ => {}
            }
        }
    }

    /// Takes a place; if there was none left, that of the returned one.
    fn enter(&self, address: SocketAddr, stream: TcpStream) -> (u64, Option<Visitor>) {
        let mut visitors = self.lock();
        let eldest = if visitors.heard.len() < PLACES { None } else { visitors.heard.pop_front() };
        let (number, since) = (visitors.arrived, Instant::now());
        visitors.arrived += 1;
        visitors.heard.push_back(Visitor { number, address, since, stream });
        self.changed.notify_all();
        (number, eldest)
    }

    /// Gives up a place; `None` if it was taken away.
    fn leave(&self, number: u64) -> Option<Visitor> {
        let mut visitors = self.lock();
        let at = visitors.heard.iter().position(|v| v.number == number)?;
        visitors.heard.remove(at)
    }

    /// What came of hearing a visitor. One that was let go meanwhile is told of already.
    fn settle(&self, number: u64, greeted: Result<T, impl Display>) {
        let Some(visitor) = self.leave(number) else { return };
        let peer = match greeted {
            Ok(peer) => peer,
            Err(why) => return (self.turned_away)(visitor.address, &why),
        };
        let mut visitors = self.lock();
        if visitors.is_closed {
            return;
        }
        if visitors.ready.len() >= PLACES {
            visitors.ready.retain(|(visitor, _)| visitor.is_there());
        }
        if visitors.ready.len() < PLACES {
            visitors.ready.push_back((visitor, peer));
            self.changed.notify_all();
        } else {
            drop(visitors);
            self.let_go(Some(visitor), &NetError::Crowd(PLACES));
        }
    }
}

impl Visitor {
    /// Whether the peer waits for us: has neither gone nor said more than it should have.
    fn is_there(&self) -> bool {
        let peeked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let waits = peeked.is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).is_ok() && waits
    }
}
