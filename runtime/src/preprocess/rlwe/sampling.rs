//! What is drawn from seeds: uniform residues, secrets and errors. Streams are named by what they are for, an
//! exchange and an index.

use super::ring::Ring;
use crate::preprocess::expand::Seed;
use chacha20::cipher::StreamCipher;
use ir::ring::low_mask;
use zeroize::Zeroizing;

/// Coins per side of the centred binomial distribution of errors.
const COINS: u32 = 21;

/// What a stream of a seed is for.
#[derive(Clone, Copy)]
pub enum Stream {
    /// The second component of a public key or of ciphertext `.0` of an exchange.
    Second = 16,
    /// A secret key.
    Secret = 17,
    /// Errors of ciphertexts.
    Error = 18,
    /// `u` of an answer.
    Refresh = 19,
    /// Errors of an answer.
    RefreshError = 20,
    /// Flooding.
    Flood = 21,
    /// Party 0's shares of slots.
    Share = 22,
}

/// Small signed secrets.
pub type Small = Zeroizing<Vec<i64>>;

/// Uniform residues from the public seed; what is rejected is public.
pub fn uniform(ring: &Ring, public: &Seed, number: u32, index: usize) -> Vec<u64> {
    let mut stream = public.keystream(Stream::Second as u8, number, index as u32);
    let mut words = Vec::with_capacity(ring.words());
    let mut buffer = [0u8; 4096];
    for p in ring.moduli() {
        let (low, end) = (low_mask(64 - p.leading_zeros()), words.len() + ring.degree());
        while words.len() < end {
            buffer.fill(0);
            stream.apply_keystream(&mut buffer);
            let (draws, _) = buffer.as_chunks::<8>();
            let draws = draws.iter().map(|&draw| u64::from_le_bytes(draw) & low);
            words.extend(draws.filter(|&v| v < p).take(end - words.len()));
        }
    }
    words
}

/// Uniform in {−1, 0, 1}; what is rejected does not depend on what is kept.
pub fn ternary(own: &Seed, stream: Stream, number: u32, index: usize, count: usize) -> Small {
    let mut stream = own.keystream(stream as u8, number, index as u32);
    let mut values = Zeroizing::new(Vec::with_capacity(count));
    let mut buffer = Zeroizing::new([0u8; 1024]);
    while values.len() < count {
        buffer.fill(0);
        stream.apply_keystream(&mut *buffer);
        let kept = buffer.iter().filter(|&&b| b < 255).take(count - values.len());
        values.extend(kept.map(|&b| i64::from(b % 3) - 1));
    }
    values
}

/// Centred binomial errors of variance [`ir::plan::rlwe::ERROR_VARIANCE`].
pub fn errors(own: &Seed, stream: Stream, number: u32, index: usize, count: usize) -> Small {
    let mut stream = own.keystream(stream as u8, number, index as u32);
    let mut values = Zeroizing::new(Vec::with_capacity(count));
    let mut buffer = Zeroizing::new([0u8; 4096]);
    while values.len() < count {
        buffer.fill(0);
        stream.apply_keystream(&mut *buffer);
        let (draws, _) = buffer.as_chunks::<8>();
        let missing = count - values.len();
        values.extend(draws.iter().take(missing).map(|&draw| {
            let coins = u64::from_le_bytes(draw);
            let heads = |coins: u64| i64::from((coins & low_mask(COINS)).count_ones());
            heads(coins) - heads(coins >> COINS)
        }));
    }
    values
}
