//! What a peer may do to a session: not fit, lie, hang, vanish.

use crate::Error;
use crate::handshake::{AgreementError, Hello, VERSION};
use crate::net::{Channel, MemoryChannel, NetError, memory_pair};
use crate::offline::store::MemorySupply;
use crate::offline::{DealId, Role};
use crate::session::Connected;
use crate::testing::plans;
use ir::plan::{Digest, Plan};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(20);

struct Side<'a> {
    plan: &'a Plan,
    digest: Digest,
    batch: usize,
    deal: DealId,
    count: usize,
}

impl Side<'_> {
    fn agree(&self, role: Role, end: MemoryChannel) -> Result<(), Error> {
        let items = vec![(); self.count];
        let mut supply = MemorySupply::new(role, self.digest, self.deal, items);
        Connected::new(end).agree(self.plan, self.digest, self.batch, &mut supply).map(|_| ())
    }
}

fn both(side0: &Side<'_>, side1: &Side<'_>, role1: Role) -> (Result<(), Error>, Result<(), Error>) {
    let (end0, end1) = memory_pair(WAIT);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| side1.agree(role1, end1));
        let own = side0.agree(Role::Party0, end0);
        (own, other.join().unwrap())
    })
}

#[test]
fn mismatches_give_the_same_line_on_both_sides() {
    let (plan, _) = plans::tiny();
    let (_, digest) = plan.to_bytes();
    let side = |batch, deal, count, digest| Side {
        plan: &plan,
        digest,
        batch,
        deal: DealId([deal; 16]),
        count,
    };
    let good = side(4, 1, 4, digest);
    assert!(matches!(both(&good, &side(4, 1, 4, digest), Role::Party1), (Ok(()), Ok(()))));
    let other = Digest([9; 32]);
    for (side1, role, text) in [
        (side(4, 2, 4, digest), Role::Party1, "of deal 0101010101010101, party 1 of deal 02"),
        (side(4, 1, 4, other), Role::Party1, "party 1 has plan 0909090909090909"),
        (side(5, 1, 9, digest), Role::Party1, "party 1 has 5 inputs, party 0 accepts 1 to 4"),
        (side(0, 1, 9, digest), Role::Party1, "party 1 has 0 inputs, party 0 accepts 1 to 4"),
        (
            side(4, 1, 3, digest),
            Role::Party1,
            "party 0 has 4 of 4 correlations left, party 1 3 of 3",
        ),
        (side(4, 1, 4, digest), Role::Party0, "both sides are party 0"),
    ] {
        let (a, b) = both(&good, &side1, role);
        let (a, b) = (a.unwrap_err().to_string(), b.unwrap_err().to_string());
        assert_eq!(a, b);
        assert!(a.contains(text) && !a.contains('\n'), "{a}");
    }
}

fn against(peer: impl FnOnce(&mut MemoryChannel) + Send) -> Error {
    let (plan, weights) = plans::tiny();
    let (_, digest) = plan.to_bytes();
    let (mut supply, _) = crate::local::deal_in_memory(&plan, digest, &weights, 4).unwrap();
    let (end0, mut end1) = memory_pair(Duration::from_millis(300));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            peer(&mut end1);
            std::thread::sleep(Duration::from_millis(10));
        });
        let agreed = Connected::new(end0).agree(&plan, digest, 4, &mut supply);
        let run = agreed.and_then(|a| a.prepare_party0(&weights)).and_then(|p| p.run());
        run.map(|_| ()).unwrap_err()
    })
}

/// Shakes hands as party 1 would, by copying what party 0 says about itself.
fn shake_hands(peer: &mut MemoryChannel, batch: u32) {
    let mut hello = peer.receive(96).unwrap();
    hello[10] = 1;
    hello[12..16].copy_from_slice(&batch.to_le_bytes());
    peer.send(&hello).unwrap();
    let confirm = peer.receive(16).unwrap();
    peer.send(&confirm).unwrap();
}

#[test]
fn peers_that_lie_hang_or_vanish_end_the_run_with_one_line() {
    let garbage = against(|peer| peer.send(b"GET / HTTP/1.1\r\n\r\n").unwrap());
    let expected = "the peer does not speak polyrt's protocol: it began with \"GET / HT\"";
    assert_eq!(garbage.to_string(), expected);

    let silent = against(|_| std::thread::sleep(Duration::from_millis(600)));
    let is_timeout =
        |e: &Error| matches!(e, Error::Net { cause: NetError::ReceiveTimeout(..), .. });
    assert!(is_timeout(&silent), "{silent}");

    let closed = |e: &Error| matches!(e, Error::Net { cause: NetError::Closed, .. });
    let gone = against(|_| ());
    assert!(closed(&gone), "{gone}");

    let half = against(|peer| {
        shake_hands(peer, 2);
        peer.send(&[0; 3]).unwrap();
    });
    assert!(closed(&half), "{half}");
    assert!(half.to_string().starts_with("waiting for the input v0"), "{half}");

    let hanging = against(|peer| {
        shake_hands(peer, 2);
        std::thread::sleep(Duration::from_millis(600));
    });
    assert!(is_timeout(&hanging), "{hanging}");

    let padded = against(|peer| {
        shake_hands(peer, 1);
        peer.send(&[0xff; 14]).unwrap();
    });
    assert!(matches!(padded, Error::Peer(_)), "{padded}");

    let other_item = against(|peer| {
        let mut hello = peer.receive(96).unwrap();
        hello[10] = 1;
        peer.send(&hello).unwrap();
        let mut confirm = peer.receive(16).unwrap();
        confirm[8] = 3;
        peer.send(&confirm).unwrap();
    });
    let expected = AgreementError::Confirmation(0, 3);
    assert!(matches!(other_item, Error::Agreement(e) if e == expected));
}

#[test]
fn hellos_of_other_versions_name_both() {
    let error = against(|peer| {
        let mut hello = peer.receive(96).unwrap();
        hello[8] = 7;
        hello[10] = 1;
        peer.send(&hello).unwrap();
    });
    assert_eq!(
        error.to_string(),
        format!("party 0 speaks protocol version {VERSION}, party 1 version 7")
    );
    let _: fn(&Hello) -> [u8; 96] = Hello::to_bytes;
}
