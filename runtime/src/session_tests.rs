//! What a peer may do to a session: not fit, lie, hang, vanish.

use crate::Error;
use crate::handshake::{AgreementError, HELLO_BYTES, Hello, Purpose, VERSION};
use crate::net::{Channel, MemoryChannel, NetError, memory_pair};
use crate::preprocess::store::MemorySupply;
use crate::preprocess::{DealId, Network, Offer, Role, Supply};
use crate::session::Connected;
use crate::steps::Tables;
use crate::testing::plans;
use ir::plan::{Commitment, Digest, Plan};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(20);

struct Side<'a> {
    plan: &'a Plan,
    digest: Digest,
    batch: usize,
    deal: DealId,
    count: usize,
    /// Of party 0, or of party 1's items.
    weights: u8,
}

impl Side<'_> {
    fn agree(&self, role: Role, end: MemoryChannel) -> Result<(), Error> {
        let items = vec![(); self.count];
        let weights = Some(Commitment([self.weights; 32]));
        let network = Network { plan: self.digest, weights };
        let mut supply = MemorySupply::new(role, network, self.deal, items);
        Connected::new(end).agree(self.plan, self.digest, self.batch, &mut supply).map(|_| ())
    }
}

fn both(side0: &Side<'_>, side1: &Side<'_>, roles: [Role; 2]) -> [Result<(), Error>; 2] {
    let (end0, end1) = memory_pair(WAIT);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| side1.agree(roles[1], end1));
        let own = side0.agree(roles[0], end0);
        [own, other.join().unwrap()]
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
        weights: 8,
    };
    let parties = [Role::Party0, Role::Party1];
    let good = side(4, 1, 4, digest);
    assert!(both(&good, &side(4, 1, 4, digest), parties).iter().all(Result::is_ok));
    let other = Digest([9; 32]);
    for (side1, roles, text) in [
        (side(4, 2, 4, digest), parties, "of deal 0101010101010101, party 1 of deal 02"),
        (side(4, 1, 4, other), parties, "party 1 has plan 0909090909090909"),
        (side(5, 1, 9, digest), parties, "party 1 has 5 inputs, party 0 accepts 1 to 4"),
        (side(0, 1, 9, digest), parties, "party 1 has 0 inputs, party 0 accepts 1 to 4"),
        (side(4, 1, 3, digest), parties, "party 0 has 4 of 4 correlations left, party 1 3 of 3"),
        (side(4, 1, 4, digest), [Role::Party1; 2], "both sides are party 1"),
        (
            Side { weights: 7, ..side(4, 1, 4, digest) },
            parties,
            "party 1's correlations are for other weights than party 0 has now: deal new ones",
        ),
    ] {
        let [a, b] = both(&good, &side1, roles).map(|end| end.unwrap_err().to_string());
        assert_eq!(a, b);
        assert!(a.contains(text) && !a.contains('\n'), "{a}");
    }
}

/// What party 0 makes of a party 1 that says this; its hello as it should be is given.
fn against(peer: impl FnOnce(&mut MemoryChannel, Hello) + Send) -> Error {
    let (plan, weights) = plans::tiny();
    let (_, digest) = plan.to_bytes();
    let (mut supply, _) = crate::in_process::deal_in_memory(&plan, digest, &weights, 4).unwrap();
    let (end0, mut end1) = memory_pair(Duration::from_millis(300));
    let hello = Hello {
        batch: 2,
        tables: Tables::new(&plan).digest(),
        purpose: Purpose::Run,
        is_replaceable: false,
        offer: Offer { role: Role::Party1, ..supply.offer() },
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            peer(&mut end1, hello);
            std::thread::sleep(Duration::from_millis(10));
        });
        let agreed = Connected::new(end0).agree(&plan, digest, 4, &mut supply);
        let run = agreed.and_then(|a| a.prepare_party0(&weights)).and_then(|p| p.run());
        run.map(|_| ()).unwrap_err()
    })
}

/// Shakes hands as party 1 would.
fn shake_hands(peer: &mut MemoryChannel, hello: Hello) {
    peer.send(&hello.to_bytes()).unwrap();
    peer.receive(HELLO_BYTES).unwrap();
    let confirm = peer.receive(16).unwrap();
    peer.send(&confirm).unwrap();
}

#[test]
fn peers_that_lie_hang_or_vanish_end_the_run_with_one_line() {
    let garbage = against(|peer, _| peer.send(b"GET / HTTP/1.1\r\n\r\n").unwrap());
    let expected = "the peer does not speak polyrt's protocol: it began with \"GET / HT\"";
    assert_eq!(garbage.to_string(), expected);

    let silent = against(|_, _| std::thread::sleep(Duration::from_millis(600)));
    let is_timeout =
        |e: &Error| matches!(e, Error::Net { cause: NetError::ReceiveTimeout(..), .. });
    assert!(is_timeout(&silent), "{silent}");

    let closed = |e: &Error| matches!(e, Error::Net { cause: NetError::Closed, .. });
    let gone = against(|_, _| ());
    assert!(closed(&gone), "{gone}");

    let half = against(|peer, hello| {
        shake_hands(peer, hello);
        peer.send(&[0; 3]).unwrap();
    });
    assert!(closed(&half), "{half}");
    assert!(half.to_string().starts_with("waiting for the input v0"), "{half}");

    let hanging = against(|peer, hello| {
        shake_hands(peer, hello);
        std::thread::sleep(Duration::from_millis(600));
    });
    assert!(is_timeout(&hanging), "{hanging}");

    let padded = against(|peer, hello| {
        shake_hands(peer, Hello { batch: 1, ..hello });
        peer.send(&[0xff; 14]).unwrap();
    });
    assert!(matches!(padded, Error::Peer(_)), "{padded}");

    let other_item = against(|peer, hello| {
        peer.send(&hello.to_bytes()).unwrap();
        peer.receive(HELLO_BYTES).unwrap();
        let mut confirm = peer.receive(16).unwrap();
        confirm[8] = 3;
        peer.send(&confirm).unwrap();
    });
    let expected = AgreementError::Confirmation(0, 3);
    assert!(matches!(other_item, Error::Agreement(e) if e == expected));
}

#[test]
fn hellos_of_other_versions_name_both() {
    // A hello of theirs may be shorter; they find the version in ours where it always was.
    let error = against(|peer, hello| {
        let mut bytes = hello.to_bytes()[..60].to_vec();
        bytes[8] = 7;
        peer.send(&bytes).unwrap();
        assert_eq!(peer.receive(HELLO_BYTES).unwrap()[8..10], VERSION.to_le_bytes());
    });
    assert_eq!(
        error.to_string(),
        format!("party 0 speaks protocol version {VERSION}, party 1 version 7")
    );
}
