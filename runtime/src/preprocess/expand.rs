//! Expansion of a 32-byte seed into uniform ring elements: ChaCha20 with the seed as key and a nonce
//! of the step and a domain separator, so that no two streams of one item overlap.

use crate::secret::{Elements, WideElements};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use ir::ring::low_mask;
use ir::word::Word;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of a seed.
pub const SEED_BYTES: usize = 32;

/// The secret of one party's item. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; SEED_BYTES]);

/// Domain separators: what a stream of a seed is for.
#[derive(Clone, Copy)]
pub enum Domain {
    /// Party 1's masks: the input's, fresh ones of interactive steps, shares of `W·r`.
    Mask = 1,
    /// The first field of party 1's part of a dealt correlation.
    Field = 2,
    /// Party 0's `u`, the pad of an opening.
    Opening = 3,
    /// Party 0's `β` and `β'`.
    Bits = 4,
    /// The setup of oblivious transfers: scalars.
    Scalars = 5,
    /// The setup of oblivious transfers: a nonce, `Δ` and the roots of trees.
    Blocks = 6,
    /// The second field of party 1's part of a dealt correlation.
    Field1 = 7,
    /// The third.
    Field2 = 8,
    /// The fourth.
    Field3 = 9,
}

impl Domain {
    /// That of a field of party 1's part of a dealt correlation.
    ///
    /// # Panics
    /// If it is beyond the fourth; no kind of step has more.
    pub fn of_field(number: usize) -> Self {
        [Self::Field, Self::Field1, Self::Field2, Self::Field3][number]
    }
}

impl Seed {
    /// A fresh seed from the operating system.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn from_system() -> Result<Self, getrandom::Error> {
        let mut seed = Self([0; SEED_BYTES]);
        getrandom::fill(&mut seed.0)?;
        Ok(seed)
    }

    /// The seed in an item; `None` if `bytes` are not [`SEED_BYTES`] many.
    pub fn from_item(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// The bytes, to write them into an item.
    pub fn expose(&self) -> &[u8; SEED_BYTES] {
        &self.0
    }

    /// `count` uniform elements of `bits` bits, at most 64.
    pub fn elements(&self, step: usize, domain: Domain, count: usize, bits: u32) -> Elements {
        let mask = low_mask(bits);
        match bits {
            0..=8 => self.draw(step, domain, count, |[b]: [u8; 1]| u64::from(b) & mask),
            9..=16 => self.draw(step, domain, count, |b| u64::from(u16::from_le_bytes(b)) & mask),
            17..=32 => self.draw(step, domain, count, |b| u64::from(u32::from_le_bytes(b)) & mask),
            _ => self.draw(step, domain, count, |b| u64::from_le_bytes(b) & mask),
        }
    }

    /// As [`Self::elements`]; every call fills a slice with the next ones.
    pub fn stream<W: Word>(
        &self,
        step: usize,
        domain: Domain,
        bits: u32,
    ) -> impl FnMut(&mut [W]) + use<W> {
        let mask = low_mask(bits);
        let mut cipher = self.cipher(step, domain);
        move |out: &mut [W]| match bits {
            0..=8 => apply(&mut cipher, out, |[b]: [u8; 1]| W::low(u64::from(b) & mask)),
            9..=16 => {
                apply(&mut cipher, out, |b| W::low(u64::from(u16::from_le_bytes(b)) & mask));
            }
            17..=32 => {
                apply(&mut cipher, out, |b| W::low(u64::from(u32::from_le_bytes(b)) & mask));
            }
            _ => apply(&mut cipher, out, |b| W::low(u64::from_le_bytes(b) & mask)),
        }
    }

    /// `count` uniform elements of `bits` bits, at most 127.
    pub fn wide_elements(
        &self,
        step: usize,
        domain: Domain,
        count: usize,
        bits: u32,
    ) -> WideElements {
        let mask = crate::steps::truncate::wide_mask(bits);
        self.draw(step, domain, count, |b| u128::from_le_bytes(b) & mask)
    }

    /// The stream of a domain separator from 16 on, which no [`Domain`] has, and two numbers.
    pub(super) fn keystream(&self, domain: u8, number: u32, index: u32) -> ChaCha20 {
        let mut nonce = [0u8; 12];
        nonce[..4].copy_from_slice(&number.to_le_bytes());
        nonce[4] = domain;
        nonce[8..].copy_from_slice(&index.to_le_bytes());
        ChaCha20::new(&self.0.into(), &nonce.into())
    }

    /// `count` uniform strings of `N` bytes; `N` divides 4096.
    pub fn strings<const N: usize>(
        &self,
        step: usize,
        domain: Domain,
        count: usize,
    ) -> Zeroizing<Vec<[u8; N]>> {
        self.draw(step, domain, count, |bytes| bytes)
    }

    /// A seed that everyone knows.
    #[cfg(test)]
    pub fn insecure_for_tests(number: u8) -> Self {
        Self([number; SEED_BYTES])
    }

    fn draw<T: Zeroize, const BYTES: usize>(
        &self,
        step: usize,
        domain: Domain,
        count: usize,
        element: impl Fn([u8; BYTES]) -> T,
    ) -> Zeroizing<Vec<T>> {
        let mut cipher = self.cipher(step, domain);
        let mut buffer = Zeroizing::new([0u8; 4096]);
        let mut elements = Zeroizing::new(Vec::with_capacity(count));
        while elements.len() < count {
            let bytes = ((count - elements.len()) * BYTES).min(buffer.len());
            buffer[..bytes].fill(0);
            cipher.apply_keystream(&mut buffer[..bytes]);
            let (chunks, _) = buffer[..bytes].as_chunks::<BYTES>();
            elements.extend(chunks.iter().map(|&chunk| element(chunk)));
        }
        elements
    }

    fn cipher(&self, step: usize, domain: Domain) -> ChaCha20 {
        self.keystream(domain as u8, step as u32, 0)
    }
}

/// Converts the next bytes of a stream into elements.
fn apply<T, const BYTES: usize>(
    cipher: &mut ChaCha20,
    out: &mut [T],
    element: impl Fn([u8; BYTES]) -> T,
) {
    let mut buffer = Zeroizing::new([0u8; 4096]);
    for out in out.chunks_mut(buffer.len() / BYTES) {
        let bytes = &mut buffer[..out.len() * BYTES];
        bytes.fill(0);
        cipher.apply_keystream(bytes);
        let (chunks, _) = bytes.as_chunks::<BYTES>();
        out.iter_mut().zip(chunks).for_each(|(out, &chunk)| *out = element(chunk));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_separate_bounded_and_repeatable() {
        let seed = Seed::from_item(&[7; 32]).unwrap();
        let again = Seed::from_item(&[7; 32]).unwrap();
        for bits in [1, 8, 9, 16, 20, 32, 33, 64] {
            let a = seed.elements(3, Domain::Mask, 5000, bits);
            assert_eq!(a.len(), 5000);
            assert!(a.iter().all(|&v| v <= low_mask(bits)));
            assert!(*a == *again.elements(3, Domain::Mask, 5000, bits));
            let mut streamed = vec![0u64; 5000];
            let mut next = seed.stream(3, Domain::Mask, bits);
            streamed.chunks_mut(1048).for_each(&mut next);
            assert!(*a == streamed);
            assert!(*a != *seed.elements(4, Domain::Mask, 5000, bits));
            assert!(*a != *seed.elements(3, Domain::Field, 5000, bits));
            let ones: u32 = a.iter().map(|v| v.count_ones()).sum();
            let mean = f64::from(ones) / (5000.0 * f64::from(bits));
            assert!((mean - 0.5).abs() < 0.03, "{bits} bits: {mean}");
        }
        assert!(seed.wide_elements(3, Domain::Mask, 9, 100).iter().all(|&v| v >> 100 == 0));
    }
}
