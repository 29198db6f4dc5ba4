//! Fixed-key AES as a correlation-robust hash.
//!
//! A transfer leaves its sender with `q` and `q ⊕ Δ` and its receiver with one of them; what hides the
//! other is a hash that stays random on `w ⊕ Δ` for any `w` that the receiver knows. Guo, Katz, Wang and
//! Yu ("Efficient and secure multiparty computation from fixed-key block ciphers", IEEE S&P 2020) prove that `H(x) = π(σ(x)) ⊕ σ(x)` with `σ(l ‖ r) = (l ⊕ r) ‖ l` is *circular* correlation robust for an
//! ideal permutation π: `H(w ⊕ Δ) ⊕ b·Δ` looks random for distinct `w`, even though Δ itself is added.
//! π is AES-128 under a public key, drawn anew for every session from both parties' randomness, so that
//! nothing can be prepared against it. Where one block hides more than 128 bits, block `i` of the pad
//! uses the `i`-th of several such permutations; to distinguish one of them from random takes as much as
//! for one, times their number. The inputs `w` are pseudorandom blocks of 128 bits, so that two are the
//! same with probability `n²/2^129`, and no tweak is needed.
//!
//! *Speed.* The cipher's backend is chosen at run time. What runs in [`WithCipher::run`] is compiled once
//! per backend with its vector instructions, the loops around the cipher too, which is why work is handed
//! in as a value and everything in it is inlined.

use aes::Aes128Enc;
use aes::cipher::consts::U16;
use aes::cipher::typenum::Unsigned;
use aes::cipher::{
    Array, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser,
    InOutBuf, KeyInit,
};
use sha2::{Digest, Sha256};

/// 128 bits, the first in the lowest bit of the first byte.
pub type Block = [u8; 16];

/// The most blocks of one pad.
pub const PAD_BLOCKS: usize = 16;

/// Backends that take more blocks than these at once (those of wide vectors) are given one by one
/// instead: the processor overlaps these just as well, and the crate's code for wide vectors spends more
/// in calls than it gains.
const INTERLEAVED: usize = 8;

/// `a ⊕ b`.
#[inline(always)]
pub fn xor(a: Block, b: Block) -> Block {
    (u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b)).to_ne_bytes()
}

/// `a` where `bit` is 1, zeros where it is 0.
#[inline(always)]
pub fn select(a: Block, bit: u8) -> Block {
    (u128::from_ne_bytes(a) & u128::from(bit).wrapping_neg()).to_ne_bytes()
}

/// `to ⊕= from`, block by block.
#[inline(always)]
pub fn xor_into(to: &mut [Block], from: &[Block]) {
    to.as_flattened_mut().iter_mut().zip(from.as_flattened()).for_each(|(t, f)| *t ^= f);
}

/// A block cipher under a key, in code that was compiled for its backend.
pub trait Cipher {
    /// Encrypts in place.
    fn encrypt(&self, blocks: &mut [Block]);

    /// `H` of every input, under this key.
    fn hash(&self, inputs: &[Block], outputs: &mut [Block]);
}

impl<B: BlockCipherEncBackend<BlockSize = U16>> Cipher for B {
    #[inline(always)]
    fn encrypt(&self, blocks: &mut [Block]) {
        let blocks = InOutBuf::from(Array::cast_slice_from_core_mut(blocks));
        if B::ParBlocksSize::USIZE <= INTERLEAVED {
            let (chunks, tail) = blocks.into_chunks::<B::ParBlocksSize>();
            for chunk in chunks {
                self.encrypt_par_blocks(chunk);
            }
            self.encrypt_tail_blocks(tail);
        } else {
            for block in blocks {
                self.encrypt_block(block);
            }
        }
    }

    #[inline(always)]
    fn hash(&self, inputs: &[Block], outputs: &mut [Block]) {
        outputs.iter_mut().zip(inputs).for_each(|(o, i)| *o = sigma(*i));
        self.encrypt(outputs);
        for (output, input) in outputs.iter_mut().zip(inputs) {
            let ([a, b], [low, high]) = (halves(*output), halves(*input));
            *output = join([a ^ low ^ high, b ^ low]);
        }
    }
}

/// `σ(l ‖ r) = (l ⊕ r) ‖ l`, a linear permutation without fixed points, as is `σ(x) ⊕ x`.
#[inline(always)]
fn sigma(x: Block) -> Block {
    let [low, high] = halves(x);
    join([low ^ high, low])
}

#[inline(always)]
fn halves(x: Block) -> [u64; 2] {
    let (words, _) = x.as_chunks::<8>();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

#[inline(always)]
fn join([low, high]: [u64; 2]) -> Block {
    let mut block = Block::default();
    let (words, _) = block.as_chunks_mut::<8>();
    (words[0], words[1]) = (low.to_le_bytes(), high.to_le_bytes());
    block
}

/// Work around a block cipher, compiled for the backend's vector instructions: `run` is to be marked
/// `inline(always)`, and what it calls.
pub trait WithCipher {
    /// Does the work.
    fn run<C: Cipher>(self, cipher: &C);
}

struct Closure<W>(W);

impl<W> BlockSizeUser for Closure<W> {
    type BlockSize = U16;
}

impl<W: WithCipher> BlockCipherEncClosure for Closure<W> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        self.0.run(backend);
    }
}

/// AES-128 under a key, to encrypt with.
#[derive(Clone)]
pub struct Key(Aes128Enc);

impl Key {
    /// The key's schedule.
    pub fn new(key: Block) -> Self {
        Self(Aes128Enc::new(&key.into()))
    }

    /// Runs `work` with this key.
    #[inline(always)]
    pub fn with(&self, work: impl WithCipher) {
        self.0.encrypt_with_backend(Closure(work));
    }

    /// `H` of every input, under this key.
    pub fn hash(&self, inputs: &[Block], outputs: &mut [Block]) {
        struct Hash<'a>(&'a [Block], &'a mut [Block]);
        impl WithCipher for Hash<'_> {
            #[inline(always)]
            fn run<C: Cipher>(self, cipher: &C) {
                cipher.hash(self.0, self.1);
            }
        }
        self.with(Hash(inputs, outputs));
    }

    /// Encrypts in place.
    pub fn encrypt(&self, blocks: &mut [Block]) {
        struct Encrypt<'a>(&'a mut [Block]);
        impl WithCipher for Encrypt<'_> {
            #[inline(always)]
            fn run<C: Cipher>(self, cipher: &C) {
                cipher.encrypt(self.0);
            }
        }
        self.with(Encrypt(blocks));
    }
}

/// The public permutations of an exchange.
pub struct Hashes {
    /// Of the inner nodes of trees.
    pub tree: Key,
    /// Of pads, one per block of a pad.
    pads: Vec<Key>,
}

impl Hashes {
    /// The permutations of an exchange in the session named `session`, to which both parties contributed.
    pub fn new(session: &[u8; 32], exchange: u32) -> Self {
        let key = |index: u8| {
            let hash = Sha256::new().chain_update(b"polyrt fixed-key hash").chain_update(session);
            let hash = hash.chain_update(exchange.to_le_bytes());
            let mut key = Block::default();
            key.copy_from_slice(&hash.chain_update([index]).finalize()[..16]);
            Key::new(key)
        };
        Self { tree: key(0), pads: (1..=PAD_BLOCKS as u8).map(key).collect() }
    }

    /// Block `index` (below [`PAD_BLOCKS`]) of every input's pad.
    pub fn pad(&self, index: usize, inputs: &[Block], outputs: &mut [Block]) {
        self.pads[index].hash(inputs, outputs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_answers_the_standards_example() {
        // FIPS 197, appendix C.1.
        let key: Block = std::array::from_fn(|i| i as u8);
        let mut blocks = vec![std::array::from_fn(|i| (i * 0x11) as u8); 130];
        Key::new(key).encrypt(&mut blocks);
        let want = 0x69c4_e0d8_6a7b_0430_d8cd_b780_70b4_c55a_u128.to_be_bytes();
        assert!(blocks.iter().all(|b| *b == want));
    }

    #[test]
    fn hashes_differ_between_inputs_uses_and_sessions() {
        let hashes = Hashes::new(&[1; 32], 0);
        let inputs: Vec<Block> = (0..200u128).map(u128::to_le_bytes).collect();
        let mut outputs = vec![[0; 16]; 200];
        let mut seen = std::collections::HashSet::new();
        hashes.tree.hash(&inputs, &mut outputs);
        seen.extend(outputs.clone());
        for index in 0..PAD_BLOCKS {
            hashes.pad(index, &inputs, &mut outputs);
            seen.extend(outputs.clone());
        }
        Hashes::new(&[2; 32], 0).tree.hash(&inputs, &mut outputs);
        seen.extend(outputs.clone());
        assert_eq!(seen.len(), 200 * (PAD_BLOCKS + 2));
        let mut plain = vec![sigma(inputs[3])];
        Key(hashes.tree.0.clone()).encrypt(&mut plain);
        hashes.tree.hash(&inputs[3..4], &mut outputs[..1]);
        assert_eq!(outputs[0], xor(plain[0], sigma(inputs[3])));
    }
}
