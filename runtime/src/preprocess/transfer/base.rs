//! 128 oblivious transfers of 16-byte keys by public-key cryptography: the seeds of all later ones.
//!
//! The protocol is Chou and Orlandi's ("The simplest protocol for oblivious transfer", Latincrypt
//! 2015) on ristretto255: the sender shows `A = a·G`; for its choice `c` the receiver answers
//! `B = b·G + c·A`, which is uniform whatever `c` is. The keys are hashes of `a·B` and `a·(B − A)`; the
//! receiver knows `b·A`, which is that of its choice, and to compute the other it would have to find
//! `a²·G`. Against a semi-honest peer this is secure if computing Diffie-Hellman is hard, with SHA-256 as
//! a random oracle. The hash covers the session, who sends, the transfer's index and both points.
//! One round trip: 32 bytes, then 32 per transfer.

use super::TransferError;
use super::hash::Block;
use crate::preprocess::Role;
use curve25519_dalek::{RistrettoPoint, Scalar, ristretto::CompressedRistretto, traits::Identity};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// The number of transfers.
pub const COUNT: usize = 128;
/// Bytes of an encoded point.
pub const POINT_BYTES: usize = 32;
/// Bytes of randomness that a scalar is reduced from.
pub const SCALAR_BYTES: usize = 64;

/// What the keys are bound to.
#[derive(Clone, Copy)]
pub struct Context {
    /// Both parties' contributions to the session.
    pub session: [u8; 32],
    /// The sender of these base transfers.
    pub sender: Role,
}

/// The party that gets both keys of every transfer.
pub struct BaseSender {
    secret: Scalar,
    public: CompressedRistretto,
}

impl BaseSender {
    /// Draws `a` from uniform bytes.
    pub fn new(randomness: &[u8; SCALAR_BYTES]) -> Self {
        let secret = Scalar::from_bytes_mod_order_wide(randomness);
        let public = RistrettoPoint::mul_base(&secret).compress();
        Self { secret, public }
    }

    /// `A`, the first message.
    pub fn message(&self) -> [u8; POINT_BYTES] {
        self.public.to_bytes()
    }

    /// Both keys of every transfer, from the receiver's points.
    ///
    /// # Errors
    /// If they are not [`COUNT`] valid points.
    pub fn keys(
        self,
        context: &Context,
        points: &[u8],
    ) -> Result<Zeroizing<Vec<[Block; 2]>>, TransferError> {
        super::expect_length(points, COUNT * POINT_BYTES)?;
        let shift = Zeroizing::new(RistrettoPoint::mul_base(&(self.secret * self.secret)));
        let mut keys = Zeroizing::new(Vec::with_capacity(COUNT));
        for (index, bytes) in points.as_chunks::<POINT_BYTES>().0.iter().enumerate() {
            let mut shared = Zeroizing::new(decode(bytes)? * self.secret);
            let hash = |point: &RistrettoPoint| key(context, index, &self.public, bytes, point);
            let zero = hash(&shared);
            *shared -= *shift;
            keys.push([zero, hash(&shared)]);
        }
        Ok(keys)
    }
}

impl Drop for BaseSender {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// The receiver's message and its key of every transfer, for choices that are the bits of `choices`.
///
/// # Errors
/// If the sender's message is not a valid point.
pub fn receive(
    context: &Context,
    message: &[u8; POINT_BYTES],
    choices: &Block,
    randomness: &[[u8; SCALAR_BYTES]; COUNT],
) -> Result<(Vec<u8>, Zeroizing<Vec<Block>>), TransferError> {
    let sender = decode(message)?;
    if sender == RistrettoPoint::identity() {
        return Err(TransferError::Point);
    }
    let public = CompressedRistretto(*message);
    let mut points = Vec::with_capacity(COUNT * POINT_BYTES);
    let mut keys = Zeroizing::new(Vec::with_capacity(COUNT));
    for (index, bytes) in randomness.iter().enumerate() {
        let secret = Zeroizing::new(Scalar::from_bytes_mod_order_wide(bytes));
        let choice = Zeroizing::new(Scalar::from(choices[index / 8] >> (index % 8) & 1));
        let point = (RistrettoPoint::mul_base(&secret) + sender * *choice).compress().to_bytes();
        let shared = Zeroizing::new(sender * *secret);
        keys.push(key(context, index, &public, &point, &shared));
        points.extend(point);
    }
    Ok((points, keys))
}

fn decode(bytes: &[u8; POINT_BYTES]) -> Result<RistrettoPoint, TransferError> {
    CompressedRistretto(*bytes).decompress().ok_or(TransferError::Point)
}

fn key(
    context: &Context,
    index: usize,
    sender: &CompressedRistretto,
    receiver: &[u8; POINT_BYTES],
    shared: &RistrettoPoint,
) -> Block {
    let hash = Sha256::new()
        .chain_update(b"polyrt base transfer")
        .chain_update(context.session)
        .chain_update([context.sender as u8, index as u8])
        .chain_update(sender.as_bytes())
        .chain_update(receiver);
    let encoded = Zeroizing::new(shared.compress().to_bytes());
    let digest = hash.chain_update(*encoded).finalize();
    let mut key = Block::default();
    key.copy_from_slice(&digest[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn randomness(of: u8) -> [[u8; SCALAR_BYTES]; COUNT] {
        std::array::from_fn(|i| std::array::from_fn(|j| of ^ (i * 67 + j * 29) as u8))
    }

    #[test]
    fn the_receiver_gets_the_key_of_its_choice() {
        let context = Context { session: [5; 32], sender: Role::Party1 };
        let choices: Block = std::array::from_fn(|i| (i * 37) as u8);
        let sender = BaseSender::new(&[9; SCALAR_BYTES]);
        let (points, got) = receive(&context, &sender.message(), &choices, &randomness(1)).unwrap();
        let other = Context { session: [6; 32], ..context };
        let foreign = BaseSender::new(&[9; SCALAR_BYTES]).keys(&other, &points).unwrap();
        let keys = sender.keys(&context, &points).unwrap();
        for i in 0..COUNT {
            let choice = usize::from(choices[i / 8] >> (i % 8) & 1);
            assert_eq!(got[i], keys[i][choice]);
            assert_ne!(got[i], keys[i][1 - choice]);
            assert_ne!(got[i], foreign[i][choice]);
        }
    }

    #[test]
    fn what_is_no_point_is_refused() {
        let context = Context { session: [5; 32], sender: Role::Party0 };
        let sender = || BaseSender::new(&[9; SCALAR_BYTES]);
        let (mut points, _) =
            receive(&context, &sender().message(), &[3; 16], &randomness(2)).unwrap();
        let length = sender().keys(&context, &points[1..]).err();
        assert_eq!(length, Some(TransferError::Length { found: 4095, expected: 4096 }));
        points[40..50].fill(0xff);
        assert_eq!(sender().keys(&context, &points).err(), Some(TransferError::Point));
        for message in [[0xff; 32], [0; 32]] {
            let refused = receive(&context, &message, &[3; 16], &randomness(2)).err();
            assert_eq!(refused, Some(TransferError::Point));
        }
    }
}
