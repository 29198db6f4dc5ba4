//! The setup of a session's transfers: three flights, in each of which both parties send at once.
//!
//! | flight | bytes each way | what |
//! | --- | --- | --- |
//! | 1 | [`BEGIN_BYTES`] | a nonce, and `A` of the base transfers in which the party sends |
//! | 2 | [`POINTS_BYTES`] | `B` of the base transfers in which it receives |
//! | 3 | [`SEEDS_BYTES`] | the trees of seeds of which it owns all leaves |
//!
//! A party *receives* in the base transfers of the direction in which it later sends, as SoftSpokenOT
//! has it. The first messages of both name the session: base keys and fixed keys depend on them. The lowest bit of
//! party 0's `Δ` is 1 and that of party 1's is 0, so that their sum is odd ([`super::shared_tree`]).

use super::base::{self, BaseSender, Context, POINT_BYTES};
use super::hash::{Block, Hashes};
use super::seeds::{self, LeafKeys, TREES};
use super::softspoken::{CotReceiver, CotSender};
use super::{TransferError, Transfers, expect_length};
use crate::preprocess::Role;
use crate::preprocess::expand::{Domain, Seed};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of the first message.
pub const BEGIN_BYTES: usize = NONCE_BYTES + POINT_BYTES;
/// Bytes of the second message.
pub const POINTS_BYTES: usize = base::COUNT * POINT_BYTES;
/// Bytes of the third message.
pub const SEEDS_BYTES: usize = seeds::MESSAGE_BYTES;

const NONCE_BYTES: usize = 32;

/// After the first message was made.
pub struct Begun {
    role: Role,
    seed: Seed,
    base: BaseSender,
    message: Vec<u8>,
}

/// After the second message was made.
pub struct Chosen {
    role: Role,
    seed: Seed,
    base: BaseSender,
    session: [u8; 32],
    delta: Zeroizing<Block>,
    keys: Zeroizing<Vec<Block>>,
}

/// After the third message was made.
pub struct Grown {
    session: [u8; 32],
    delta: Zeroizing<Block>,
    keys: Zeroizing<Vec<Block>>,
    leaves: LeafKeys,
}

/// Begins a setup with a fresh seed ([`Seed::from_system`]); the message is the first.
pub fn begin(role: Role, seed: Seed) -> (Begun, Vec<u8>) {
    let scalar = seed.strings(0, Domain::Scalars, 1);
    let nonce = seed.strings::<NONCE_BYTES>(0, Domain::Blocks, 1);
    let base = BaseSender::new(&scalar[0]);
    let mut message = nonce[0].to_vec();
    message.extend(base.message());
    (Begun { role, seed, base, message: message.clone() }, message)
}

impl Begun {
    /// Takes the peer's first message and makes the second.
    ///
    /// # Errors
    /// If the peer's message has another length or holds no point.
    pub fn choose(self, peer: &[u8]) -> Result<(Chosen, Vec<u8>), TransferError> {
        expect_length(peer, BEGIN_BYTES)?;
        let Self { role, seed, base, message } = self;
        let (first, second) = match role {
            Role::Party0 => (&*message, peer),
            Role::Party1 => (peer, &*message),
        };
        let hash = Sha256::new().chain_update(b"polyrt transfers");
        let session = hash.chain_update(first).chain_update(second).finalize().into();
        let mut delta: Zeroizing<Block> = Zeroizing::new(seed.strings(1, Domain::Blocks, 1)[0]);
        delta[0] = delta[0] & !1 | u8::from(role == Role::Party0);
        let mut randomness = Zeroizing::new([[0; base::SCALAR_BYTES]; base::COUNT]);
        randomness.copy_from_slice(&seed.strings(1, Domain::Scalars, base::COUNT));
        let mut point = [0; POINT_BYTES];
        point.copy_from_slice(&peer[NONCE_BYTES..]);
        let context = Context { session, sender: role.other() };
        let choices = Zeroizing::new(seeds::choices(&delta));
        let (points, keys) = base::receive(&context, &point, &choices, &randomness)?;
        Ok((Chosen { role, seed, base, session, delta, keys }, points))
    }
}

impl Chosen {
    /// Takes the peer's second message and makes the third.
    ///
    /// # Errors
    /// If the peer's message has another length or holds what is no point.
    pub fn grow(self, peer: &[u8]) -> Result<(Grown, Vec<u8>), TransferError> {
        let Self { role, seed, base, session, delta, keys } = self;
        let pairs = base.keys(&Context { session, sender: role }, peer)?;
        let mut roots = Zeroizing::new([Block::default(); TREES]);
        roots.copy_from_slice(&seed.strings(2, Domain::Blocks, TREES));
        let (leaves, message) = seeds::grow(&roots, &pairs);
        Ok((Grown { session, delta, keys, leaves }, message))
    }
}

impl Grown {
    /// Takes the peer's third message.
    ///
    /// # Errors
    /// If it has another length.
    pub fn finish(self, peer: &[u8]) -> Result<Transfers, TransferError> {
        let punctured = seeds::grow_punctured(&self.delta, &self.keys, peer)?;
        Ok(Transfers {
            hashes: Hashes::new(&self.session, 0),
            session: self.session,
            sender: CotSender::new(self.delta, punctured),
            receiver: CotReceiver::new(self.leaves),
        })
    }
}

/// Both parties' transfers from two seeds, by the real setup.
#[cfg(test)]
pub fn both(seed0: Seed, seed1: Seed) -> (Transfers, Transfers) {
    let (begun0, m0) = begin(Role::Party0, seed0);
    let (begun1, m1) = begin(Role::Party1, seed1);
    assert_eq!((m0.len(), m1.len()), (BEGIN_BYTES, BEGIN_BYTES));
    let (chosen0, m0_next) = begun0.choose(&m1).unwrap();
    let (chosen1, m1_next) = begun1.choose(&m0).unwrap();
    assert_eq!((m0_next.len(), m1_next.len()), (POINTS_BYTES, POINTS_BYTES));
    let (grown0, m0) = chosen0.grow(&m1_next).unwrap();
    let (grown1, m1) = chosen1.grow(&m0_next).unwrap();
    assert_eq!((m0.len(), m1.len()), (SEEDS_BYTES, SEEDS_BYTES));
    (grown0.finish(&m1).unwrap(), grown1.finish(&m0).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::transfer::hash::{select, xor};
    use ir::plan::preprocess::transfers::extension_bytes;

    fn check(sender: &mut CotSender, receiver: &mut CotReceiver, count: usize) -> Vec<u8> {
        let received = receiver.extend(count);
        assert_eq!(received.message.len(), extension_bytes(count));
        assert_eq!((received.choices.len(), received.blocks.len()), (count, count));
        let blocks = sender.extend(count, &received.message).unwrap();
        assert_eq!(blocks.len(), count);
        for ((q, t), b) in blocks.iter().zip(&*received.blocks).zip(&*received.choices) {
            assert_eq!(*t, xor(*q, select(*sender.delta(), *b)));
        }
        received.choices.to_vec()
    }

    #[test]
    fn transfers_are_correlated_in_both_directions() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(1), seed(2));
        assert_eq!(party0.sender.delta()[0] & 1, 1);
        assert_eq!(party1.sender.delta()[0] & 1, 0);
        assert_ne!(party0.sender.delta()[1..], party1.sender.delta()[1..]);
        for count in [1, 127, 128, 129, 8191, 8192, 8193, 20_000] {
            let a = check(&mut party0.sender, &mut party1.receiver, count);
            let b = check(&mut party1.sender, &mut party0.receiver, count);
            assert!(count < 100 || a != b);
        }
        let ones: usize = check(&mut party0.sender, &mut party1.receiver, 100_000)
            .iter()
            .map(|&b| usize::from(b))
            .sum();
        assert!(ones.abs_diff(50_000) < 1000, "{ones}");
    }

    /// With fixed seeds, so that a change of any stream shows.
    #[test]
    fn known_answer() {
        let seed = Seed::insecure_for_tests;
        let (mut party0, mut party1) = both(seed(1), seed(2));
        let received = party1.receiver.extend(300);
        let blocks = party0.sender.extend(300, &received.message).unwrap();
        let mut hash = Sha256::new().chain_update(&received.message);
        hash.update(blocks.as_flattened());
        let digest = hash.finalize();
        let digest: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, "7904011fa89b5e87");
    }

    #[test]
    fn malformed_messages_are_refused() {
        let seed = Seed::insecure_for_tests;
        let (begun, _) = begin(Role::Party0, seed(1));
        assert!(begun.choose(&[0; BEGIN_BYTES - 1]).is_err());
        let (begun, _) = begin(Role::Party0, seed(1));
        assert_eq!(begun.choose(&[0xff; BEGIN_BYTES]).err(), Some(TransferError::Point));
        let (mut party0, mut party1) = both(seed(1), seed(2));
        let received = party1.receiver.extend(5);
        let refused = party0.sender.extend(200, &received.message).err();
        assert_eq!(refused, Some(TransferError::Length { found: 240, expected: 480 }));
    }

    #[test]
    #[ignore = "prints timings"]
    fn throughput() {
        let seed = Seed::insecure_for_tests;
        let started = std::time::Instant::now();
        let (mut party0, mut party1) = both(seed(1), seed(2));
        println!("setup of both parties: {:?}", started.elapsed());
        let count = 1 << 22;
        for _ in 0..6 {
            let started = std::time::Instant::now();
            let received = party1.receiver.extend(count);
            let receiver = started.elapsed().as_secs_f64();
            let started = std::time::Instant::now();
            party0.sender.extend(count, &received.message).unwrap();
            let sender = started.elapsed().as_secs_f64();
            let rate = |seconds: f64| count as f64 / seconds / 1e6;
            println!("transfers: sender {:.2}, receiver {:.2} M/s", rate(sender), rate(receiver));
        }
    }
}
