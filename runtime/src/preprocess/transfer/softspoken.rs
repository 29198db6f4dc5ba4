//! Random correlated oblivious transfers by SoftSpokenOT: the sender has `Δ` and blocks `q`, the
//! receiver random bits `b` and blocks `t = q ⊕ b·Δ`.
//!
//! *Idea* (Roy, "SoftSpokenOT: quieter OT extension from small-field silent VOLE in the Minicrypt
//! model", CRYPTO 2022, in its semi-honest form). Δ is cut into `128/k` pieces `Δ_i` of `k` bits. Of the
//! `2^k` seeds of piece `i` the receiver knows all and the sender all but the one at `Δ_i`
//! ([`super::seeds`]). Each seed `x` expands to a stream `r_x` of one bit per transfer. With
//! `u_i = ⊕_x r_x` and `v_i = ⊕_x x·r_x`, `k` bits per transfer, the sender computes
//! `⊕_x (x ⊕ Δ_i)·r_x = v_i ⊕ Δ_i·u_i`, because the seed that it does not know has factor 0. The
//! receiver's choices are `b = u_0`; it sends `u_i ⊕ u_0` for the other pieces, and the sender adds
//! `Δ_i·(u_i ⊕ u_0)`: `128/k − 1` bits per transfer. These are masked by the stream that the sender lacks,
//! so it learns nothing of `b`; the receiver gets no message.
//!
//! *Streams.* AES-128 in counter mode under the seed, 128 blocks at a time: with a processor's AES
//! instructions it was measured to be six times as fast as ChaCha20, and it needs no assumption beyond
//! AES being pseudorandom. The sums take two XORs per block: leaves are merged like the carries of a binary
//! counter, where the right one of two partial sums at level `j` is what bit `j` of `v` lacks.
//!
//! *Layout.* A batch is up to 128·128 transfers; its message has, for pieces 1 to `128/k − 1`, one
//! bit per transfer. The number of transfers is rounded up to 128, and what is too many is thrown away.
//! A counter that never goes back stands for the position in the streams.

use super::TransferError;
use super::hash::{Block, Cipher, Key, WithCipher, select, xor_into};
use super::seeds::{LEAVES, LeafKeys, TREES};
use super::transpose::{SIZE, transpose};
use ir::plan::preprocess::transfers::{FIELD_BITS, extension_bytes};
use rayon::prelude::*;
use zeroize::Zeroizing;

/// Blocks of 128 transfers that are made at once.
const BATCH: usize = 128;
/// Bytes of a whole batch's message.
const BATCH_BYTES: usize = extension_bytes(BATCH * SIZE);

/// The sender of correlated transfers.
pub struct CotSender {
    delta: Zeroizing<Block>,
    leaves: LeafKeys,
    used: u64,
}

/// The receiver of correlated transfers.
pub struct CotReceiver {
    leaves: LeafKeys,
    used: u64,
}

/// The receiver's side of some transfers.
pub struct Received {
    /// What the sender needs.
    pub message: Vec<u8>,
    /// `b`, 0 or 1.
    pub choices: Zeroizing<Vec<u8>>,
    /// `t = q ⊕ b·Δ`.
    pub blocks: Zeroizing<Vec<Block>>,
}

impl CotSender {
    /// A sender from what [`seeds::grow_punctured`](super::seeds::grow_punctured) made for `delta`.
    pub fn new(delta: Zeroizing<Block>, leaves: LeafKeys) -> Self {
        Self { delta, leaves, used: 0 }
    }

    /// `Δ`, the same in all transfers.
    pub fn delta(&self) -> &Block {
        &self.delta
    }

    /// The blocks `q` of `count` transfers.
    ///
    /// # Errors
    /// If the receiver's message has another length than [`extension_bytes`].
    pub fn extend(
        &mut self,
        count: usize,
        message: &[u8],
    ) -> Result<Zeroizing<Vec<Block>>, TransferError> {
        super::expect_length(message, extension_bytes(count))?;
        let rows = count.div_ceil(SIZE) * SIZE;
        let mut blocks = Zeroizing::new(vec![Block::default(); rows]);
        let (start, leaves, delta) = (self.used, &self.leaves, &*self.delta);
        self.used += (rows / SIZE) as u64;
        blocks
            .par_chunks_mut(BATCH * SIZE)
            .zip(message.par_chunks(BATCH_BYTES))
            .enumerate()
            .for_each_init(Scratch::new, |scratch, (batch, (rows, message))| {
                let width = rows.len() / SIZE;
                let counter = start + (batch * BATCH) as u64;
                for tree in 0..TREES {
                    scratch.expand(tree, leaves.tree(tree), 1, counter, width);
                    let corrections = match tree {
                        0 => continue,
                        _ => &message.as_chunks::<16>().0[(tree - 1) * width..tree * width],
                    };
                    for bit in 0..FIELD_BITS {
                        let index = tree * FIELD_BITS + bit;
                        let set = delta[index / 8] >> (index % 8) & 1;
                        let column = scratch.column(index);
                        for (block, correction) in column.iter_mut().zip(corrections) {
                            *block = super::hash::xor(*block, select(*correction, set));
                        }
                    }
                }
                scratch.rows(rows);
            });
        blocks.truncate(count);
        Ok(blocks)
    }
}

impl CotReceiver {
    /// A receiver from what [`seeds::grow`](super::seeds::grow) made.
    pub fn new(leaves: LeafKeys) -> Self {
        Self { leaves, used: 0 }
    }

    /// `count` transfers with random choices.
    pub fn extend(&mut self, count: usize) -> Received {
        let rows = count.div_ceil(SIZE) * SIZE;
        let mut message = vec![0; extension_bytes(count)];
        let mut choices = Zeroizing::new(vec![0u8; rows]);
        let mut blocks = Zeroizing::new(vec![Block::default(); rows]);
        let (start, leaves) = (self.used, &self.leaves);
        self.used += (rows / SIZE) as u64;
        blocks
            .par_chunks_mut(BATCH * SIZE)
            .zip(message.par_chunks_mut(BATCH_BYTES))
            .zip(choices.par_chunks_mut(BATCH * SIZE))
            .enumerate()
            .for_each_init(Scratch::new, |scratch, (batch, ((rows, message), choices))| {
                let width = rows.len() / SIZE;
                let counter = start + (batch * BATCH) as u64;
                for tree in 0..TREES {
                    scratch.expand(tree, leaves.tree(tree), 0, counter, width);
                    let sum = &scratch.partial[FIELD_BITS * BATCH..][..width];
                    if tree == 0 {
                        scratch.choices[..width].copy_from_slice(sum);
                        continue;
                    }
                    let correction =
                        &mut message.as_chunks_mut::<16>().0[(tree - 1) * width..tree * width];
                    correction.copy_from_slice(sum);
                    xor_into(correction, &scratch.choices[..width]);
                }
                let bytes = scratch.choices[..width].as_flattened();
                for (choices, byte) in choices.as_chunks_mut::<8>().0.iter_mut().zip(bytes) {
                    *choices = std::array::from_fn(|bit| byte >> bit & 1);
                }
                scratch.rows(rows);
            });
        blocks.truncate(count);
        choices.truncate(count);
        Received { message, choices, blocks }
    }
}

/// One thread's working memory, wiped when dropped.
struct Scratch {
    /// The columns of a batch, [`BATCH`] blocks each.
    columns: Zeroizing<Vec<Block>>,
    /// The sums of `2^j` leaves, for `j` up to `k`.
    partial: Zeroizing<Vec<Block>>,
    /// The stream of one leaf.
    stream: Zeroizing<Vec<Block>>,
    /// `u_0`.
    choices: Zeroizing<Vec<Block>>,
}

impl Scratch {
    fn new() -> Self {
        let blocks = |count: usize| Zeroizing::new(vec![Block::default(); count * BATCH]);
        Self {
            columns: blocks(SIZE),
            partial: blocks(FIELD_BITS + 1),
            stream: blocks(1),
            choices: blocks(1),
        }
    }

    fn column(&mut self, index: usize) -> &mut [Block] {
        &mut self.columns[index * BATCH..(index + 1) * BATCH]
    }

    /// `v` of a tree into its columns and `u` into the last of the partial sums, from `width` blocks of
    /// every leaf's stream, beginning at block `counter`; leaves before `first` count as zero.
    fn expand(&mut self, tree: usize, leaves: &[Key], first: usize, counter: u64, width: usize) {
        let columns = &mut self.columns[tree * FIELD_BITS * BATCH..][..FIELD_BITS * BATCH];
        columns.fill(Block::default());
        if first == 1 {
            self.partial[..width].fill(Block::default());
        }
        for (index, leaf) in leaves.iter().enumerate().skip(first) {
            let (partial, stream) = (&mut self.partial, &mut self.stream[..width]);
            leaf.with(Leaf { index, counter, columns, partial, stream });
        }
    }

    /// The transposed columns.
    fn rows(&self, rows: &mut [Block]) {
        for (block, rows) in rows.chunks_exact_mut(SIZE).enumerate() {
            transpose(|column| self.columns[column * BATCH + block], rows);
        }
    }
}

/// One leaf's part in the sums.
struct Leaf<'a> {
    index: usize,
    counter: u64,
    columns: &'a mut [Block],
    partial: &'a mut [Block],
    stream: &'a mut [Block],
}

impl WithCipher for Leaf<'_> {
    #[inline(always)]
    fn run<C: Cipher>(self, cipher: &C) {
        let Self { index, counter, columns, partial, stream } = self;
        for (block, position) in stream.iter_mut().zip(counter..) {
            *block = u128::from(position).to_le_bytes();
        }
        cipher.encrypt(stream);
        let width = stream.len();
        let merged = index.trailing_ones() as usize;
        for level in 0..merged {
            xor_into(&mut columns[level * BATCH..][..width], stream);
            xor_into(stream, &partial[level * BATCH..][..width]);
        }
        partial[merged * BATCH..][..width].copy_from_slice(stream);
    }
}

const _: () = assert!(LEAVES == 1 << FIELD_BITS && 128 % FIELD_BITS == 0);

/// The ideal functionality: both parties' sides of `count` transfers under the sender's `delta`.
#[cfg(test)]
pub fn ideal(
    random: &mut crate::testing::Random,
    delta: &Block,
    count: usize,
) -> (Vec<Block>, Vec<u8>, Vec<Block>) {
    let sender: Vec<Block> = (0..count)
        .map(|_| (u128::from(random.next()) << 64 | u128::from(random.next())).to_le_bytes())
        .collect();
    let choices: Vec<u8> = (0..count).map(|_| random.bits(1) as u8).collect();
    let receiver = sender
        .iter()
        .zip(&choices)
        .map(|(q, b)| super::hash::xor(*q, select(*delta, *b)))
        .collect();
    (sender, choices, receiver)
}
