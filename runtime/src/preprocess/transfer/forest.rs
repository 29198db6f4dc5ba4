//! How [`super::tree`]'s punctured GGM trees are expanded, and their memory.
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
        Self { nodes: blocks(), hashed: blocks(), narrow: Pads::new(), wide: Pads::new() }
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

/// Party 1's trees. Node `x` of a level is kept at `x ⊕ M'`, as far as the bits of `M'` go there: so the path
/// is always at 0, where there is garbage. In the lowest [`EARLY`] bits, once they are all there, `x` is moved
/// to its place `x ⊕ M' ⊕ M`, and the path to the lowest bits of `M`.
pub struct Grow1<'a> {
    /// Where they grow.
    pub forest: &'a mut Forest,
    /// Levels.
    pub p: usize,
    /// `t`, `p` per tree.
    pub transfers: &'a [Block],
    /// `b`, `p` per tree.
    pub choices: &'a [u8],
    /// `M`, one per tree.
    pub places: &'a [u64],
    /// Party 0's message, `p − 1` blocks per tree.
    pub levels: &'a [Block],
}

/// The bits of a place that [`Grow1`] takes care of, as far as there are as many; what exchanges a single
/// entry with the next is so done while there are few of them.
pub const EARLY: usize = 2;

impl WithCipher for Grow1<'_> {
    #[inline(always)]
    fn run<C: Cipher>(self, cipher: &C) {
        let Self { forest, p, transfers, choices, places, levels } = self;
        let nodes = &mut forest.nodes;
        nodes.resize((transfers.len() / p) << p, Block::default());
        for (nodes, t) in nodes.chunks_exact_mut(1 << p).zip(transfers.chunks_exact(p)) {
            (nodes[0], nodes[1]) = (Block::default(), t[0]);
        }
        for level in 1..=p {
            let trees = nodes.chunks_exact_mut(1 << p).zip(places);
            let own = transfers.chunks_exact(p).zip(choices.chunks_exact(p));
            for (tree, ((nodes, place), (t, b))) in trees.zip(own).enumerate() {
                if level == p.min(EARLY) {
                    exchange(&mut nodes[..1 << level], *place);
                }
                if level == p {
                    continue;
                }
                let (same, other) = nodes[..2 << level].split_at_mut(1 << level);
                cipher.hash(same, other);
                // Off the path are the right children, which are hashes, if this is all ones.
                let is_right = b[level].wrapping_neg();
                let pairs = same.as_flattened_mut().iter_mut().zip(other.as_flattened_mut());
                pairs.for_each(|(same, other)| {
                    let (node, hash) = (*same, *other);
                    (*same, *other) = (hash ^ (node & is_right), hash ^ (node & !is_right));
                });
                let known = xor(levels[tree * (p - 1) + level - 1], t[level]);
                let missing = xor(known, sum(other));
                let on_path = if level < EARLY { 0 } else { *place };
                add_early(other, missing, on_path);
            }
        }
    }
}

/// Moves node `x` to `x ⊕ place`, for at most `2^EARLY` nodes.
#[inline(always)]
fn exchange(nodes: &mut [Block], place: u64) {
    for bit in 0..nodes.len().ilog2() {
        for low in (0..nodes.len()).filter(|x| x >> bit & 1 == 0) {
            let high = low | 1 << bit;
            let difference = select(xor(nodes[low], nodes[high]), (place >> bit) as u8 & 1);
            nodes[low] = xor(nodes[low], difference);
            nodes[high] = xor(nodes[high], difference);
        }
    }
}

/// Adds `value` to the node that the lowest bits of `place` name.
#[inline(always)]
fn add_early(nodes: &mut [Block], value: Block, place: u64) {
    for (x, node) in nodes.iter_mut().enumerate().take(1 << EARLY) {
        *node = xor(*node, select(value, is_early(x, place)));
    }
}

/// 1 if the lowest bits of `place` name `x`, which is below `2^EARLY`, or else 0.
#[inline(always)]
pub fn is_early(x: usize, place: u64) -> u8 {
    (((x as u64 ^ place) % (1 << EARLY)).wrapping_sub(1) >> 63) as u8
}

/// The XOR of some blocks, a power of two many and at least two.
#[inline(always)]
fn sum(blocks: &[Block]) -> Block {
    let (wide, rest) = blocks.as_chunks::<4>();
    let mut sums = [Block::default(); 4];
    wide.iter().for_each(|blocks| xor_into(&mut sums, blocks));
    rest.iter().chain(&sums).fold(Block::default(), |sum, block| xor(sum, *block))
}
