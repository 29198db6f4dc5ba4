//! The growth of [`super::tree`]'s trees, and the memory in which they grow.
//!
//! A level is grown in place: the right children, which are the hashes, after the nodes, and the left
//! children over them. The bit of a path that was taken first is so the lowest of a leaf's index. All loops
//! run over whole slices of bytes, which become vectors of the widest registers there are.

use super::hash::{Block, Cipher, WithCipher, select, xor, xor_into};
use super::lanes::Lane;
use super::tree::Shape;
use zeroize::Zeroizing;

/// The trees of one batch, one after the other, the leaves of each in the order of their path's bits, the
/// first in the lowest place. Wiped when dropped.
pub struct Forest {
    /// Room for every tree's leaves; before that, its nodes so far.
    pub nodes: Zeroizing<Vec<Block>>,
    /// Ones in party 1's node on the path.
    on_path: Zeroizing<Vec<Block>>,
    /// Blocks of pads.
    pub hashed: Zeroizing<Vec<Block>>,
    /// For `Q` up to 32.
    pub narrow: Pads<u32>,
    /// For `Q` above 32.
    pub wide: Pads<u64>,
}

/// Leaves as lanes, and one tree's sums of them.
pub struct Pads<L: Lane> {
    /// Every leaf's pads, tree by tree.
    pub vectors: Zeroizing<Vec<L>>,
    /// One tree's sums, and room to add up in.
    pub sums: Zeroizing<Vec<L>>,
}

impl<L: Lane> Pads<L> {
    fn new() -> Self {
        Self { vectors: Zeroizing::new(vec![]), sums: Zeroizing::new(vec![]) }
    }
}

impl Forest {
    /// Empty memory for a batch of trees.
    pub fn new(shape: &Shape) -> Self {
        let blocks = || Zeroizing::new(Vec::with_capacity(shape.batch() * shape.leaves()));
        Self {
            nodes: blocks(),
            on_path: blocks(),
            hashed: blocks(),
            narrow: Pads::new(),
            wide: Pads::new(),
        }
    }
}

/// Replaces the `parents` first nodes by their left children and the next ones by their right children:
/// `H` and, to the left, the XOR of the node and `H`.
#[inline(always)]
fn grow<C: Cipher>(cipher: &C, nodes: &mut [Block], parents: usize) {
    let (left, right) = nodes[..2 * parents].split_at_mut(parents);
    cipher.hash(left, right);
    xor_into(left, right);
}

/// Party 0's trees; every level's message is written to `levels`.
pub struct Grow0<'a> {
    /// Where they grow.
    pub forest: &'a mut Forest,
    /// Levels.
    pub p: usize,
    /// `Δ`.
    pub delta: &'a Block,
    /// `q`, `p` per tree.
    pub transfers: &'a [Block],
    /// The message, `p − 1` blocks per tree.
    pub levels: &'a mut [Block],
}

impl WithCipher for Grow0<'_> {
    #[inline(always)]
    fn run<C: Cipher>(self, cipher: &C) {
        let Self { forest, p, delta, transfers, levels } = self;
        forest.nodes.resize((transfers.len() / p) << p, Block::default());
        for (nodes, q) in forest.nodes.chunks_exact_mut(1 << p).zip(transfers.chunks_exact(p)) {
            nodes[0] = q[0];
            nodes[1] = xor(q[0], *delta);
        }
        for level in 1..p {
            let trees = forest.nodes.chunks_exact_mut(1 << p).zip(transfers.chunks_exact(p));
            for ((nodes, q), levels) in trees.zip(levels.chunks_exact_mut(p - 1)) {
                grow(cipher, nodes, 1 << level);
                levels[level - 1] = xor(sum(&nodes[..1 << level]), q[level]);
            }
        }
    }
}

/// Party 1's trees, with garbage on the paths.
pub struct Grow1<'a> {
    /// Where they grow.
    pub forest: &'a mut Forest,
    /// Levels.
    pub p: usize,
    /// `t`, `p` per tree.
    pub transfers: &'a [Block],
    /// `b`, `p` per tree.
    pub choices: &'a [u8],
    /// Party 0's message, `p − 1` blocks per tree.
    pub levels: &'a [Block],
}

impl WithCipher for Grow1<'_> {
    #[inline(always)]
    fn run<C: Cipher>(self, cipher: &C) {
        let Self { forest, p, transfers, choices, levels } = self;
        let Forest { nodes, on_path, .. } = forest;
        nodes.resize((transfers.len() / p) << p, Block::default());
        on_path.resize(nodes.len(), Block::default());
        let sides = |b: u8| [b ^ 1, b].map(|side| select([0xff; 16], side));
        let trees = nodes.chunks_exact_mut(1 << p).zip(on_path.chunks_exact_mut(1 << p));
        let own = transfers.chunks_exact(p).zip(choices.chunks_exact(p));
        for ((nodes, on_path), (t, b)) in trees.zip(own) {
            let [left, right] = sides(b[0]);
            (nodes[0], nodes[1]) = (and(t[0], left), and(t[0], right));
            (on_path[0], on_path[1]) = (right, left);
        }
        for level in 1..p {
            let trees = nodes.chunks_exact_mut(1 << p).zip(on_path.chunks_exact_mut(1 << p));
            let own = transfers.chunks_exact(p).zip(choices.chunks_exact(p));
            for (tree, ((nodes, on_path), (t, b))) in trees.zip(own).enumerate() {
                let parents = 1 << level;
                grow(cipher, nodes, parents);
                let (left, right) = nodes[..2 * parents].split_at_mut(parents);
                let [off_left, off_right] = sides(b[level]);
                let known = xor(and(sum(left), off_left), and(sum(right), off_right));
                let missing = xor(xor(levels[tree * (p - 1) + level - 1], t[level]), known);
                let (left_path, right_path) = on_path[..2 * parents].split_at_mut(parents);
                put(left, left_path, and(missing, off_left));
                put(right, left_path, and(missing, off_right));
                right_path.copy_from_slice(left_path);
                mask(right_path, off_left);
                mask(left_path, off_right);
            }
        }
    }
}

#[inline(always)]
fn and(a: Block, b: Block) -> Block {
    (u128::from_ne_bytes(a) & u128::from_ne_bytes(b)).to_ne_bytes()
}

/// The XOR of some blocks, a power of two many and at least two.
#[inline(always)]
fn sum(blocks: &[Block]) -> Block {
    let (wide, rest) = blocks.as_chunks::<4>();
    let mut sums = [Block::default(); 4];
    wide.iter().for_each(|blocks| xor_into(&mut sums, blocks));
    rest.iter().chain(&sums).fold(Block::default(), |sum, block| xor(sum, *block))
}

/// `blocks ⊕= masks ∧ value`.
#[inline(always)]
fn put(blocks: &mut [Block], masks: &[Block], value: Block) {
    let (wide, rest) = blocks.as_chunks_mut::<4>();
    let (wide_masks, rest_masks) = masks.as_chunks::<4>();
    let values = [value; 4];
    for (blocks, masks) in wide.iter_mut().zip(wide_masks) {
        let (values, masks) = (values.as_flattened(), masks.as_flattened());
        let bytes = blocks.as_flattened_mut().iter_mut();
        bytes.zip(values.iter().zip(masks)).for_each(|(byte, (v, m))| *byte ^= v & m);
    }
    rest.iter_mut()
        .zip(rest_masks)
        .for_each(|(block, mask)| *block = xor(*block, and(*mask, value)));
}

/// `blocks ∧= value`.
#[inline(always)]
fn mask(blocks: &mut [Block], value: Block) {
    let (wide, rest) = blocks.as_chunks_mut::<4>();
    let values = [value; 4];
    for blocks in wide {
        let bytes = blocks.as_flattened_mut().iter_mut();
        bytes.zip(values.as_flattened()).for_each(|(byte, v)| *byte &= v);
    }
    rest.iter_mut().for_each(|block| *block = and(*block, value));
}
