//! Punctured (all-but-one) GGM trees: shares of `s·e_M` for a secret scalar `s` of party 0 and a secret place `M` of
//! party 1, one transfer per bit of `M`.
//!
//! *Use.* Both parties get additive shares, mod 2^Q, of the vectors that hold `s_j` in place `M` and zeros
//! in the other `2^p − 1`, for `J` scalars under one `M`. A public linear map of them is local, and with
//! `Σ_x F(x)·(s_j·e_M)[x] = s_j·F(M)` one tree serves every public function of `M` at once: all cosines and
//! sines of a phase, at any scale. The map is the caller's [`Fold`].
//!
//! *Trees.* Party 0's tree is Half-Tree's correlated one (Guo, Yang, Wang, Zhang, Xie, Liu, Zhao,
//! "Half-Tree: halving the cost of tree expansion in COT and DPF", EUROCRYPT 2023): the two nodes below
//! the root are `q_1` and `q_1 ⊕ Δ`; a node's right child is its hash `H`, the left one their XOR. So the
//! nodes of every level sum to Δ. Party 1 has `t_i = q_i ⊕ b_i·Δ` and gets, for every level but the
//! first, the XOR of the left children masked by `q_i`: with `t_i` it opens to the XOR of the children on
//! side `b_i`. It so computes all nodes but those on the path with bits `¬b_i`; `t_1` is the first level's
//! node off the path. The path ends in the leaf `M'`, uniform and known to party 1 alone; party 1 sends
//! `δ = M ⊕ M'`, and leaf `x` stands for place `x ⊕ δ`.
//!
//! *Shares.* A leaf is hashed to pads `r_x[j]`. Party 0 sends `c_j = s_j + Σ_x r_x[j]` and takes `−r_x[j]`;
//! party 1 takes `r_x[j]` and, at `M`, `c_j` less what it knows.
//!
//! *Why it is secure.* Party 0 sees `δ`, masked by the uniform `M'`. For party 1, let `w` be the XOR of the
//! nodes that it knows on a level, so that the one on the path is `w ⊕ Δ`. What it gets to know of the
//! next level is that node's child off the path, `H(w ⊕ Δ)` or `H(w ⊕ Δ) ⊕ (w ⊕ Δ)`: a query to the
//! oracle of circular correlation robustness ([`super::hash`]), one per `w`, whose answers look random.
//! The same holds for the pads of leaf `M'`, which mask `c_j`, and whose permutations are others. Distinct
//! levels and trees query distinct `w` up to a collision of 128-bit blocks, so one Δ serves all
//! trees of a session.
//!
//! *Constant time.* Party 1 keeps garbage in the nodes on its path and expands it like the rest. It holds
//! node `x` at `x ⊕ M'`, where the path is at 0, and brings leaves to their places `x ⊕ M' ⊕ M` by one masked
//! exchange of halves per bit of `M`: no address, length or branch depends on `M` or `M'`.
//!
//! *Cost* per element: `p` transfers, `p` bits to party 0, `16(p − 1)` bytes and `J·Q` bits to party 1;
//! `2^p·(1 + ⌈J/4⌉)` block cipher calls at each party, `2^p·(1 + ⌈J/2⌉)` for `Q > 32`.

use super::forest::{EARLY, Forest, Grow0, Grow1, Pads, is_early};
use super::hash::{Block, Cipher, Hashes, WithCipher};
use super::lanes::{Lane, add_all};
use super::{TransferError, expect_length, unpack_exact};
use crate::secret::Elements;
use ir::plan::preprocess::transfers::tree_bytes;
use ir::ring::{low_mask, pack};
use rayon::prelude::*;
use std::iter;
use zeroize::Zeroizing;

/// The parameters of a set of trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bits of a place, 1 to 14.
    pub p: u32,
    /// Number of scalars `J`, 1 to 32.
    pub scalars: usize,
    /// Ring width `Q` of the scalars and the shares, 1 to 64.
    pub q: u32,
}

/// A public linear map of one element's vectors.
pub trait Fold: Sync {
    /// Shares per element that come out.
    fn outputs(&self) -> usize;

    /// Maps the vectors to `out`, of which the low `Q` bits count. Entry `x` of vector `j` is
    /// `vectors[x·lanes + j]`; where `lanes` is more than the number of scalars the rest is without meaning.
    /// The vectors may be overwritten. To be marked `inline(always)`.
    fn fold<L: Lane>(&self, vectors: &mut [L], lanes: usize, out: &mut [u64]);
}

impl Shape {
    /// Transfers that `count` elements take.
    pub fn transfers(&self, count: usize) -> usize {
        count * self.p as usize
    }

    pub(super) fn leaves(&self) -> usize {
        1 << self.p
    }

    fn is_narrow(&self) -> bool {
        self.q <= 32
    }

    /// Trees that are grown side by side, so that their nodes stay in the first cache.
    pub(super) fn batch(&self) -> usize {
        (1024usize >> self.p).max(1)
    }
}

/// `δ` of every element, packed: party 1's message, for its places and the choices of its transfers.
pub fn shifts(shape: &Shape, places: &[u64], choices: &[u8]) -> Vec<u8> {
    let ends = choices.chunks_exact(shape.p as usize).map(end);
    let shift = |(place, end): (&u64, u64)| place ^ end;
    pack(&places.iter().zip(ends).map(shift).collect::<Vec<_>>(), shape.p)
}

/// `M'`, the leaf that party 1 does not know: the place that needs no shift.
pub fn end(choices: &[u8]) -> u64 {
    choices.iter().rev().fold(0, |path, &bit| path << 1 | u64::from(bit ^ 1))
}

/// Party 0's side, from its transfers, party 1's [`shifts`] and `J` scalars per element: its message and
/// its folded shares.
///
/// # Errors
/// If the shifts have another length than theirs or set padding bits.
pub fn party0<F: Fold>(
    shape: &Shape,
    hashes: &Hashes,
    delta: &Block,
    transfers: &[Block],
    shifts: &[u8],
    scalars: &[u64],
    fold: &F,
) -> Result<(Vec<u8>, Elements), TransferError> {
    let count = scalars.len() / shape.scalars;
    let shifts = unpack_exact(shifts, count, shape.p)?;
    let stride = level_bytes(shape).max(1);
    let mut message = vec![0; count * stride];
    let mut corrections = vec![0; count * shape.scalars];
    let mut shares = Zeroizing::new(vec![0; count * fold.outputs()]);
    let (batch, p) = (shape.batch(), shape.p as usize);
    message
        .par_chunks_mut(batch * stride)
        .zip(corrections.par_chunks_mut(batch * shape.scalars))
        .zip(shares.par_chunks_mut(batch * fold.outputs()))
        .zip(transfers.par_chunks(batch * p))
        .zip(shifts.par_chunks(batch).zip(scalars.par_chunks(batch * shape.scalars)))
        .for_each_init(
            || Forest::new(shape),
            |forest, ((((message, corrections), shares), transfers), (shifts, scalars))| {
                let levels = message.as_chunks_mut().0;
                let grow = Grow0 { forest, p, delta, transfers, levels };
                hashes.tree.with(grow);
                corrections.copy_from_slice(scalars);
                let ends = Ends::Party0 { corrections, shifts };
                forest.finish(shape, hashes, ends, fold, shares);
            },
        );
    message.truncate(count * level_bytes(shape));
    message.extend(pack(&corrections, shape.q));
    Ok((message, shares))
}

/// Party 1's side, from its transfers, their choices, its places and party 0's message: its folded shares.
///
/// # Errors
/// If the message has another length than its elements' or set padding bits.
pub fn party1<F: Fold>(
    shape: &Shape,
    hashes: &Hashes,
    (transfers, choices): (&[Block], &[u8]),
    places: &[u64],
    message: &[u8],
    fold: &F,
) -> Result<Elements, TransferError> {
    let (count, p) = (places.len(), shape.p as usize);
    expect_length(message, tree_bytes(count, shape.p, shape.scalars, shape.q))?;
    let (levels, corrections) = message.split_at(count * level_bytes(shape));
    let corrections = unpack_exact(corrections, count * shape.scalars, shape.q)?;
    let mut shares = Zeroizing::new(vec![0; count * fold.outputs()]);
    let batch = shape.batch();
    shares
        .par_chunks_mut(batch * fold.outputs())
        .zip(corrections.par_chunks(batch * shape.scalars))
        .zip(transfers.par_chunks(batch * p).zip(choices.par_chunks(batch * p)))
        .zip(places.par_chunks(batch))
        .enumerate()
        .for_each_init(
            || Forest::new(shape),
            |forest, (at, (((shares, corrections), (transfers, choices)), places))| {
                let levels =
                    &levels.as_chunks().0[at * batch * (p - 1)..][..places.len() * (p - 1)];
                hashes.tree.with(Grow1 { forest, p, transfers, choices, places, levels });
                let ends = Ends::Party1 { corrections, places };
                forest.finish(shape, hashes, ends, fold, shares);
            },
        );
    Ok(shares)
}

/// Bytes to party 1 for one element's levels.
fn level_bytes(shape: &Shape) -> usize {
    16 * (shape.p as usize - 1)
}

impl Forest {
    /// Turns leaves into shares: hashes them to pads in their places, settles the element's scalars and
    /// folds.
    fn finish<F: Fold>(
        &mut self,
        shape: &Shape,
        hashes: &Hashes,
        ends: Ends,
        fold: &F,
        shares: &mut [u64],
    ) {
        let shifts = match &ends {
            Ends::Party0 { shifts, .. } => shifts,
            Ends::Party1 { .. } => &[][..],
        };
        if shape.is_narrow() {
            let Self { nodes, hashed, narrow, .. } = self;
            let lanes = pads(shape, hashes, shifts, (nodes, hashed), narrow);
            let settle = Settle { shape, lanes, pads: narrow, ends, fold, shares };
            hashes.tree.with(settle);
        } else {
            let Self { nodes, hashed, wide, .. } = self;
            let lanes = pads(shape, hashes, shifts, (nodes, hashed), wide);
            let settle = Settle { shape, lanes, pads: wide, ends, fold, shares };
            hashes.tree.with(settle);
        }
    }
}

/// What differs between the parties once leaves are pads.
enum Ends<'a> {
    /// The scalars, to which the sums of the pads are added; shares are negated.
    Party0 { corrections: &'a mut [u64], shifts: &'a [u64] },
    /// Party 0's corrections, from which the sums are taken away to be put in their places, which are those
    /// of the paths. All but the lowest bits of leaves are then still to be moved to their places.
    Party1 { corrections: &'a [u64], places: &'a [u64] },
}

/// Hashes leaves `x` to pads in places `x ⊕ δ`, where there is a shift, and returns the lanes per leaf.
fn pads<L: Lane>(
    shape: &Shape,
    hashes: &Hashes,
    shifts: &[u64],
    (nodes, hashed): (&[Block], &mut Vec<Block>),
    Pads { vectors, .. }: &mut Pads<L>,
) -> usize {
    let blocks = shape.scalars.div_ceil(L::PER_BLOCK);
    let lanes = blocks * L::PER_BLOCK;
    hashed.resize(nodes.len(), Block::default());
    vectors.resize(nodes.len() * lanes, L::default());
    for block in 0..blocks {
        hashes.pad(block, nodes, hashed);
        let trees = hashed.chunks_exact(shape.leaves());
        let trees = trees.zip(vectors.chunks_exact_mut(shape.leaves() * lanes));
        for ((hashed, vectors), &shift) in trees.zip(shifts.iter().chain(iter::repeat(&0))) {
            L::spread(hashed, vectors, lanes, block * L::PER_BLOCK, shift as usize);
        }
    }
    lanes
}

struct Settle<'a, L: Lane, F> {
    shape: &'a Shape,
    lanes: usize,
    pads: &'a mut Pads<L>,
    ends: Ends<'a>,
    fold: &'a F,
    shares: &'a mut [u64],
}

impl<L: Lane, F: Fold> WithCipher for Settle<'_, L, F> {
    #[inline(always)]
    fn run<C: Cipher>(self, _: &C) {
        let Self { shape, lanes, pads: Pads { vectors, sums }, mut ends, fold, shares } = self;
        let (scalars, low) = (shape.scalars, low_mask(shape.q));
        let trees = vectors.chunks_exact_mut(shape.leaves() * lanes);
        for (tree, (vectors, out)) in trees.zip(shares.chunks_exact_mut(fold.outputs())).enumerate()
        {
            add_all(vectors, lanes, sums);
            match &mut ends {
                Ends::Party0 { corrections, .. } => {
                    let corrections = &mut corrections[tree * scalars..][..scalars];
                    for (correction, sum) in corrections.iter_mut().zip(sums.iter()) {
                        *correction = correction.wrapping_add(sum.to_u64()) & low;
                    }
                    fold.fold(vectors, lanes, out);
                    out.iter_mut().for_each(|share| *share = share.wrapping_neg() & low);
                }
                Ends::Party1 { corrections, places } => {
                    let corrections = &corrections[tree * scalars..][..scalars];
                    for (sum, correction) in sums.iter_mut().zip(corrections) {
                        *sum = L::from_u64(*correction).sub(*sum);
                    }
                    let place = places[tree];
                    for (x, entry) in vectors.chunks_exact_mut(lanes).take(1 << EARLY).enumerate() {
                        let here = L::from_u64(is_early(x, place).into());
                        let entry = entry.iter_mut().zip(sums.iter());
                        entry.for_each(|(lane, sum)| *lane = lane.add(sum.mul(here)));
                    }
                    for bit in EARLY..shape.p as usize {
                        for pair in vectors.chunks_exact_mut(lanes << (bit + 1)) {
                            let (low, high) = pair.split_at_mut(lanes << bit);
                            L::exchange(low, high, place >> bit & 1);
                        }
                    }
                    fold.fold(vectors, lanes, out);
                    out.iter_mut().for_each(|share| *share &= low);
                }
            }
        }
    }
}
