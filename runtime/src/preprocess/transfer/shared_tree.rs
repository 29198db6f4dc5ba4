//! GGM trees that two parties share: either has all leaves of a tree, and the two trees are equal but at one leaf, whose
//! place neither party knows.
//!
//! *Use.* Shares of a one-hot vector at a place whose bits are shared. That of a place that a party knows is cheaper
//! ([`super::tree`]); to look a shared value up in a public table, none of them may know it.
//!
//! *Trees.* The correlated tree of Half-Tree (Guo, Yang, Wang, Zhang, Xie, Liu, Zhao, EUROCRYPT 2023) with both parties'
//! offsets, generated level by level as for oblivious memory (Doerner, shelat, "Scaling ORAM for secure computation", CCS
//! 2017). Let `Δ = Δ0 ⊕ Δ1` be the sum of the offsets of the transfers of both directions, whose lowest bits are 1 and 0, so
//! that `Δ` is odd. Bit `α_i = α0_i ⊕ α1_i` of the place is that of a transfer in each direction with random choices: from
//! its sides either party has a share `κ_i` of `α_i·Δ`. Of the two nodes of the first level the right one is `κ_1`, and
//! the left one `κ_1` ⊕ the party's own offset. For every further level both send `⊕ H(s)` over their nodes ⊕ `κ_i` at
//! once; the two messages' XOR is the level's *correction*. A node's right child is `H(s)`, plus the correction if `s` is
//! odd; the left one is the right one ⊕ `s`.
//!
//! *Why.* On every level the nodes are equal but at `α`, where they differ by `Δ`. There one of the two is odd, so exactly one
//! party adds the correction `H(s) ⊕ H(s ⊕ Δ) ⊕ α_i·Δ`; that makes right children differ by `α_i·Δ`, and left ones by
//! `(1 ⊕ α_i)·Δ`.
//!
//! *Seeds.* A tree follows from its first node, the corrections, and the party's offset: 16 bytes a level. The sum of the
//! nodes of any level is the offset, so whoever keeps a tree keeps the offset of its session.
//!
//! *Permutations* are those of one item and step, by a name that is kept with the trees; none is used by anything else.
//! One is for inner nodes, and one for every block of a leaf's pads. No address, length or branch depends on a node.

use super::Transfers;
use super::hash::{Block, Cipher, Key, WithCipher, xor};
use ir::word::{Word, vectorized};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

impl Transfers {
    /// The name of the permutations of a step's trees of one item; `group` is a number that no other group of items of
    /// the session has.
    pub fn trees_name(&self, group: u32, item: usize, step: usize) -> Block {
        let hash = Sha256::new().chain_update(b"polyrt shared trees").chain_update(self.session);
        let numbers = [group, item as u32, step as u32].map(u32::to_le_bytes);
        first_block(&hash.chain_update(numbers.as_flattened()).finalize())
    }
}

fn first_block(digest: &[u8]) -> Block {
    std::array::from_fn(|i| digest[i])
}

/// The permutations of a step's trees of one item.
pub struct Permutations {
    tree: Key,
    /// That of a leaf's bit, then those of its entries.
    pads: [Key; 5],
}

impl Permutations {
    /// Those of a name that both parties know.
    pub fn new(name: &Block) -> Self {
        let key = |index: u8| {
            let hash = Sha256::new().chain_update(b"polyrt shared tree").chain_update(name);
            Key::new(first_block(&hash.chain_update([index]).finalize()))
        };
        Self { tree: key(0), pads: std::array::from_fn(|i| key(i as u8 + 1)) }
    }

    /// Replaces `nodes` by those of the level that these seeds reach: a first node, and corrections.
    pub fn grow(&self, offset: &Block, seeds: &[Block], nodes: &mut Vec<Block>) {
        self.tree.with(Grow { offset, seeds, nodes, sum: None });
    }

    /// A party's message for the next level, with its share of that level's bit.
    pub fn level(
        &self,
        offset: &Block,
        seeds: &[Block],
        share: &Block,
        nodes: &mut Vec<Block>,
    ) -> Block {
        let mut message = *share;
        self.tree.with(Grow { offset, seeds, nodes, sum: Some(&mut message) });
        message
    }
}

/// Grows a tree; `sum` gets the XOR of the hashes of its last level.
struct Grow<'a> {
    offset: &'a Block,
    seeds: &'a [Block],
    nodes: &'a mut Vec<Block>,
    sum: Option<&'a mut Block>,
}

impl WithCipher for Grow<'_> {
    #[inline(always)]
    fn run<C: Cipher>(self, cipher: &C) {
        let Self { offset, seeds, nodes, sum } = self;
        let Some((first, corrections)) = seeds.split_first() else { return };
        let width = 1 << seeds.len();
        nodes.resize(if sum.is_some() { 2 * width } else { width }, Block::default());
        (nodes[0], nodes[1]) = (xor(*first, *offset), *first);
        // As in `forest`: right children follow the nodes, left ones replace them.
        for (level, correction) in corrections.iter().enumerate() {
            let parents = 2 << level;
            let (left, right) = nodes[..2 * parents].split_at_mut(parents);
            cipher.hash(left, right);
            let correction = u128::from_ne_bytes(*correction);
            for (left, right) in left.iter_mut().zip(right) {
                let is_odd = u128::from(left[0] & 1).wrapping_neg();
                let child = u128::from_ne_bytes(*right) ^ correction & is_odd;
                *right = child.to_ne_bytes();
                *left = (u128::from_ne_bytes(*left) ^ child).to_ne_bytes();
            }
        }
        if let Some(sum) = sum {
            let (nodes, hashes) = nodes.split_at_mut(width);
            cipher.hash(nodes, hashes);
            *sum = hashes.iter().fold(*sum, |sum, hash| xor(sum, *hash));
        }
    }
}

/// A word that a leaf's entries are computed in.
pub trait Lane: Word + Zeroize {
    /// Lanes of a block.
    const PER_BLOCK: usize;

    /// The first lane of a block.
    fn first(block: &Block) -> Self;

    /// Adds the lanes of all blocks to `sums`. To be inlined.
    fn add(blocks: &[Block], sums: &mut [Self]);

    /// Adds the products of lanes with numbers of a table, [`ENTRIES`] for every block, of which those from `first` on
    /// count, to the first of every pair; those of a factor per block with the same numbers to the second. To be inlined.
    fn weigh(
        blocks: &[Block],
        factors: &[Self],
        table: &[Self],
        first: usize,
        sums: &mut [(Self, Self)],
    );
}

macro_rules! lane {
    ($lane:ty, $per_block:literal) => {
        impl Lane for $lane {
            const PER_BLOCK: usize = $per_block;

            #[inline(always)]
            fn first(block: &Block) -> Self {
                Self::from_le_bytes(block.as_chunks().0[0])
            }

            #[inline(always)]
            fn add(blocks: &[Block], sums: &mut [Self]) {
                let mut all = [0; $per_block];
                for block in blocks {
                    let lanes = block.as_chunks().0;
                    for i in 0..$per_block {
                        all[i] = Self::wrapping_add(all[i], Self::from_le_bytes(lanes[i]));
                    }
                }
                sums.iter_mut().zip(all).for_each(|(sum, lane)| *sum = sum.wrapping_add(lane));
            }

            #[inline(always)]
            fn weigh(
                blocks: &[Block],
                factors: &[Self],
                table: &[Self],
                first: usize,
                sums: &mut [(Self, Self)],
            ) {
                let (mut of_lanes, mut of_factors) = ([0; $per_block], [0; $per_block]);
                let numbers = table.as_chunks::<ENTRIES>().0;
                for ((block, factor), numbers) in blocks.iter().zip(factors).zip(numbers) {
                    let lanes = block.as_chunks().0;
                    let numbers = &numbers[first..first + $per_block];
                    for i in 0..$per_block {
                        let product = numbers[i].wrapping_mul(Self::from_le_bytes(lanes[i]));
                        of_lanes[i] = Self::wrapping_add(of_lanes[i], product);
                        let product = numbers[i].wrapping_mul(*factor);
                        of_factors[i] = Self::wrapping_add(of_factors[i], product);
                    }
                }
                for (sum, (a, b)) in sums.iter_mut().zip(of_lanes.into_iter().zip(of_factors)) {
                    *sum = (sum.0.wrapping_add(a), sum.1.wrapping_add(b));
                }
            }
        }
    };
}
lane!(u16, 8);
lane!(u32, 4);
lane!(u64, 2);

/// Entries that a leaf stands for.
pub const ENTRIES: usize = ir::plan::Table::NODE;

/// The words of one tree's leaves, and room for its nodes. Wiped when dropped.
pub struct Leaves<L: Lane> {
    nodes: Zeroizing<Vec<Block>>,
    /// Of every leaf a pad whose lowest bit is that of the leaf: the two parties' words of a leaf are equal, or differ by
    /// an odd number.
    bits: Zeroizing<Vec<L>>,
    /// Of every leaf [`ENTRIES`] pads, the first blocks of all leaves before the second ones.
    entries: Zeroizing<Vec<Block>>,
}

impl<L: Lane> Default for Leaves<L> {
    fn default() -> Self {
        let blocks = || Zeroizing::new(vec![]);
        Self { nodes: blocks(), bits: Zeroizing::new(vec![]), entries: blocks() }
    }
}

impl<L: Lane> Leaves<L> {
    /// Takes up the tree of these seeds.
    pub fn take(&mut self, permutations: &Permutations, offset: &Block, seeds: &[Block]) {
        let Self { nodes, bits, entries } = self;
        permutations.grow(offset, seeds, nodes);
        let count = nodes.len();
        bits.resize(count, L::default());
        entries.resize(count * ENTRIES / L::PER_BLOCK, Block::default());
        let [of_bits, of_entries @ ..] = &permutations.pads;
        of_bits.hash(nodes, &mut entries[..count]);
        for ((word, hash), node) in bits.iter_mut().zip(entries.iter()).zip(nodes.iter()) {
            let pad = L::first(hash);
            *word = pad.minus(pad.and(L::low(1))).plus(L::low(u64::from(node[0] & 1)));
        }
        for (entries, key) in entries.chunks_exact_mut(count).zip(of_entries) {
            key.hash(nodes, entries);
        }
    }

    /// The sum of all leaves' bits, then those of their entries.
    pub fn sums(&self) -> [L; ENTRIES + 1] {
        let mut sums = [L::default(); ENTRIES + 1];
        let (of_bits, of_entries) = sums.split_at_mut(1);
        vectorized(
            #[inline(always)]
            || {
                of_bits[0] = self.bits.iter().fold(L::default(), |sum, bit| sum.plus(*bit));
                let planes = self.entries.chunks_exact(self.bits.len());
                for (blocks, sums) in planes.zip(of_entries.chunks_exact_mut(L::PER_BLOCK)) {
                    L::add(blocks, sums);
                }
            },
        );
        sums
    }

    /// Per entry of a leaf the sum of its pads times these numbers, one for every leaf and entry, and that of the leaf's
    /// bits times the same numbers.
    pub fn weigh(&self, numbers: &[L]) -> [(L, L); ENTRIES] {
        let mut sums = [(L::default(), L::default()); ENTRIES];
        vectorized(
            #[inline(always)]
            || {
                let planes = self.entries.chunks_exact(self.bits.len());
                let sums = sums.chunks_exact_mut(L::PER_BLOCK);
                for (plane, (blocks, sums)) in planes.zip(sums).enumerate() {
                    L::weigh(blocks, &self.bits, numbers, plane * L::PER_BLOCK, sums);
                }
            },
        );
        sums
    }
}

/// Runs an expression with `$lane` as the type of the words that `$bits` bits are computed in.
macro_rules! with_lane {
    ($bits:expr, $lane:ident => $body:expr) => {
        match $crate::words::Words::bits($bits) {
            16 => {
                type $lane = u16;
                $body
            }
            32 => {
                type $lane = u32;
                $body
            }
            _ => {
                type $lane = u64;
                $body
            }
        }
    };
}
pub(crate) use with_lane;
