//! The seeds of SoftSpokenOT: GGM trees of which one party knows every leaf and the other a punctured copy, all but one.
//!
//! A tree of depth `k` grows from a root by a length-doubling generator (Goldreich, Goldwasser, Micali,
//! JACM 1986): AES of 0 and of 1 under the node. For every level the owner offers, in a base transfer, the
//! XOR of the left children and that of the right ones; the peer takes the one off its path and, as it
//! knows all nodes off the path one level above, gets the missing sibling. That hides the leaf at the
//! path's end, and nothing else.
//!
//! The peer's path are `k` secret bits `Δ_i`. It keeps its nodes at `y = x ⊕ Δ_i` instead of `x`: there
//! the path is always node 0, so nothing is indexed by a secret, and leaf `y` is just the one that it
//! multiplies with `y` ([`super::softspoken`]). Two children change sides where a bit of `Δ_i` is set.

use super::TransferError;
use super::hash::{Block, Key, select, xor};
use ir::plan::preprocess::transfers::FIELD_BITS;
use std::hint::black_box;
use zeroize::Zeroizing;

/// Trees of one instance.
pub const TREES: usize = 128 / FIELD_BITS;
/// Leaves of a tree.
pub const LEAVES: usize = 1 << FIELD_BITS;
/// Bytes of the owner's message: two blocks per level.
pub const MESSAGE_BYTES: usize = 2 * 16 * FIELD_BITS * TREES;

/// The key schedules of every tree's leaves, [`LEAVES`] per tree. The peer's leaf 0 of every tree is a
/// dummy. Overwritten when dropped.
pub struct LeafKeys(Vec<Key>);

impl LeafKeys {
    fn new(leaves: &[Block]) -> Self {
        Self(leaves.iter().map(|leaf| Key::new(*leaf)).collect())
    }

    /// The leaves of a tree.
    pub fn tree(&self, tree: usize) -> &[Key] {
        &self.0[tree * LEAVES..(tree + 1) * LEAVES]
    }
}

impl Drop for LeafKeys {
    fn drop(&mut self) {
        self.0.fill(Key::new([0; 16]));
        black_box(&self.0);
    }
}

/// The owner's trees from its secret roots, and its message under both keys of every base transfer.
pub fn grow(roots: &[Block; TREES], keys: &[[Block; 2]]) -> (LeafKeys, Vec<u8>) {
    let mut message = Vec::with_capacity(MESSAGE_BYTES);
    let mut leaves = Zeroizing::new(Vec::with_capacity(TREES * LEAVES));
    for (root, keys) in roots.iter().zip(keys.chunks_exact(FIELD_BITS)) {
        let mut nodes = Zeroizing::new(vec![*root]);
        for [left_key, right_key] in keys {
            let mut next = Zeroizing::new(Vec::with_capacity(2 * nodes.len()));
            nodes.iter().for_each(|node| next.extend_from_slice(&*children(*node)));
            nodes = next;
            message.extend(xor(sum(&nodes, 0), *left_key));
            message.extend(xor(sum(&nodes, 1), *right_key));
        }
        leaves.extend_from_slice(&nodes);
    }
    (LeafKeys::new(&leaves), message)
}

/// Which keys the peer takes in the base transfers, for its secret `delta`: tree `i` has bits
/// `k·i … k·i + k − 1`, of which the highest stands for the level below the root.
pub fn choices(delta: &Block) -> Block {
    let delta = u128::from_le_bytes(*delta);
    let choice = |index: usize| !(delta >> delta_bit(index)) & 1;
    (0..128).fold(0u128, |choices, index| choices | choice(index) << index).to_le_bytes()
}

/// The peer's trees, from the owner's message and the keys of its [`choices`].
///
/// # Errors
/// If the message has another length than [`MESSAGE_BYTES`].
pub fn grow_punctured(
    delta: &Block,
    keys: &[Block],
    message: &[u8],
) -> Result<LeafKeys, TransferError> {
    super::expect_length(message, MESSAGE_BYTES)?;
    let offers = message.as_chunks::<16>().0.as_chunks::<2>().0;
    let mut leaves = Zeroizing::new(Vec::with_capacity(TREES * LEAVES));
    for tree in 0..TREES {
        let mut nodes = Zeroizing::new(vec![Block::default()]);
        for index in tree * FIELD_BITS..(tree + 1) * FIELD_BITS {
            let bit = (u128::from_le_bytes(*delta) >> delta_bit(index)) as u8 & 1;
            let mut next = Zeroizing::new(Vec::with_capacity(2 * nodes.len()));
            next.extend([Block::default(); 2]);
            for node in &nodes[1..] {
                let [left, right] = *children(*node);
                let exchanged = select(xor(left, right), bit);
                next.extend([xor(left, exchanged), xor(right, exchanged)]);
            }
            let [left, right] = offers[index];
            let offer = xor(right, select(xor(left, right), bit));
            next[1] = xor(xor(offer, keys[index]), sum(&next, 1));
            nodes = next;
        }
        leaves.extend_from_slice(&nodes);
    }
    Ok(LeafKeys::new(&leaves))
}

/// The bit of Δ that base transfer `index` is about.
fn delta_bit(index: usize) -> usize {
    let (tree, level) = (index / FIELD_BITS, index % FIELD_BITS);
    tree * FIELD_BITS + FIELD_BITS - 1 - level
}

fn children(node: Block) -> Zeroizing<[Block; 2]> {
    let mut children = Zeroizing::new([[0; 16], [0; 16]]);
    children[1][0] = 1;
    Key::new(node).encrypt(&mut *children);
    children
}

fn sum(nodes: &[Block], side: usize) -> Block {
    nodes.iter().skip(side).step_by(2).fold([0; 16], |sum, node| xor(sum, *node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn the_peer_knows_every_leaf_but_one() {
        let mut random = Random::new(8);
        let mut block = || u128::from_le_bytes([0; 16]) ^ random.wide(127);
        let roots: [Block; TREES] = std::array::from_fn(|_| block().to_le_bytes());
        let keys: Vec<[Block; 2]> =
            (0..128).map(|_| [block().to_le_bytes(), block().to_le_bytes()]).collect();
        let delta = (block() | 1 << 127).to_le_bytes();
        let chosen = choices(&delta);
        let taken: Vec<Block> =
            (0..128).map(|i| keys[i][usize::from(chosen[i / 8] >> (i % 8) & 1)]).collect();
        let (all, message) = grow(&roots, &keys);
        assert_eq!(message.len(), MESSAGE_BYTES);
        let punctured = grow_punctured(&delta, &taken, &message).unwrap();
        let print = |key: &Key| {
            let mut block = [[7; 16]];
            key.encrypt(&mut block);
            block[0]
        };
        for (tree, path) in delta.map(usize::from).into_iter().enumerate() {
            for y in 0..LEAVES {
                let same = print(&punctured.tree(tree)[y]) == print(&all.tree(tree)[y ^ path]);
                assert_eq!(same, y != 0);
            }
        }
        assert!(grow_punctured(&delta, &taken, &message[1..]).is_err());
    }
}
