//! The correlations of a table step, by trees that both parties generate together.
//!
//! *Messages.* Both parties send at once in every flight. (0) Transfers in both directions with random choices, `mask_bits`
//! of an element each: three for the lowest bits of the place, one for every level of its tree. (1) The first level's
//! correction; from party 0 products of the place's bits, and from party 1 a small tree. (2 …) A level's correction each. (last)
//! The sums of the leaves' words, and shares of where the tree's places begin.
//!
//! *The place.* `α` has bits `α0 ⊕ α1`, the choices of the two directions (of the lowest three, party 0's are the place
//! of the small tree that it lacks: its choices turned over). So `α = Σ 2^j·(α0_j + α1_j − 2·α0_j·α1_j)`, with products of a
//! bit of each party ([`gilboa`]) by the same transfers. Nobody knows `α`; the opened `δ = u·2^b − M − α` says nothing of
//! `u` or `M`, and entry `x` of the tree stands for place `x + δ`.
//!
//! *The lowest bits.* Shares `ρ` of the one-hot vector at the lowest three bits come of a small one-sided tree
//! ([`tree`]), whose place is party 0's part of them. Party 1's scalars are the one-hot vector at its own part; the sum over `x` of
//! entry `x` of scalar `v ⊕ x` is one where `v` is the XOR of the parts, and zero elsewhere.
//!
//! *The entries.* Either party has words `W_n` and `V_nv` of every leaf `n`, the same as the other's but at the leaf of `α`. The
//! difference `w = ΣW⁰ − ΣW¹` is odd, as the leaves differ in their lowest bits there. With `c_v = Σ(V⁰_nv − V¹_nv) − ρ_v` and
//! `g_v = c_v/w` the shares of entry `8n + v` are `V_nv − g_v·W_n` at party 0 and the negative of that at party 1: they cancel
//! at every other leaf, and at that of `α` they leave `V⁰ − V¹ − c_v = ρ_v`. Both open their sums, and keep `g`.

use super::mask_number;
use crate::preprocess::Role;
use crate::preprocess::transfer::gilboa::{self, Receiving, Sending, Widths, flip_bytes};
use crate::preprocess::transfer::hash::{Block, select, xor};
use crate::preprocess::transfer::shared_tree::{ENTRIES, Leaves, Permutations, with_lane};
use crate::preprocess::transfer::tree::{self, Fold};
use crate::preprocess::transfer::{
    Received, TransferError, Transfers, expect_length, lanes, unpack_exact,
};
use crate::secret::Elements;
use ir::plan::Table;
use ir::plan::preprocess::transfers::tree_bytes;
use ir::ring::{low_mask, pack, packed_bytes};
use rayon::prelude::*;
use zeroize::Zeroizing;

/// What all trees of a step have in common.
#[derive(Clone, Copy)]
pub struct Parameters {
    /// Bits of a place.
    pub bits: u32,
    /// Levels of a tree.
    pub levels: usize,
    /// Bits of an entry.
    pub q: u32,
}

impl Parameters {
    /// Those of a table.
    pub fn of(table: &Table) -> Self {
        Self { bits: table.mask_bits, levels: table.levels() as usize, q: table.q }
    }

    /// Of the small trees.
    fn small(&self) -> tree::Shape {
        tree::Shape { p: Table::NODE_BITS, scalars: ENTRIES, q: self.q }
    }

    /// Per transfer of an element the width of the product of its bits.
    fn products(&self) -> Widths {
        let width = |bit| if bit + 1 < self.bits { vec![self.bits - 1 - bit] } else { vec![] };
        Widths::new((0..self.bits).map(width))
    }
}

/// A party's fields of the correlation, but for that of the whole step.
pub struct Made {
    /// Per element the first node and the corrections of its tree, blocks of two words.
    pub seeds: Elements,
    /// Per element `g`.
    pub factors: Elements,
    /// Per element `δ`.
    pub shifts: Elements,
}

/// A party's next turn.
pub enum Turn {
    /// It sends this, and takes another message.
    More(Box<Making>, Vec<u8>),
    /// It is done.
    Done(Made),
}

/// A party between its message and the peer's.
pub struct Making {
    role: Role,
    parameters: Parameters,
    /// Of every item.
    permutations: Vec<Permutations>,
    offset: Zeroizing<Block>,
    /// Its share of where the places are to begin, less `α`.
    places: Elements,
    /// Its own transfers, until their last use.
    received: Received,
    /// Shares of the bits of `α` times the offsets' sum, level by level.
    shares: Zeroizing<Vec<Block>>,
    /// First nodes and corrections so far; of the last one its own message alone.
    seeds: Zeroizing<Vec<Block>>,
    /// `ρ`.
    small: Elements,
    /// Its own openings.
    openings: Elements,
    /// Messages taken so far.
    taken: usize,
}

/// Party 0's first message, for elements of some items, as many of each, whose permutations have these names, and its
/// `u` of all elements.
pub fn open(
    transfers: &mut Transfers,
    table: &Table,
    names: &[Block],
    u: &[u64],
) -> (Making, Vec<u8>) {
    let places = u.iter().map(|u| u << table.spare_bits()).collect();
    begin(transfers, Role::Party0, table, names, places)
}

/// Party 1's first message, as [`open`], for the operand's masks of the elements.
pub fn ask(
    transfers: &mut Transfers,
    table: &Table,
    names: &[Block],
    masks: &[u64],
) -> (Making, Vec<u8>) {
    let bits = low_mask(table.mask_bits);
    let place = |&m: &u64| mask_number(table, m).wrapping_neg() & bits;
    begin(transfers, Role::Party1, table, names, masks.iter().map(place).collect())
}

/// `places` are the party's part of where the entries' places are to begin: `u·2^b`, or `−M`.
fn begin(
    transfers: &mut Transfers,
    role: Role,
    table: &Table,
    names: &[Block],
    places: Vec<u64>,
) -> (Making, Vec<u8>) {
    let parameters = Parameters::of(table);
    let (count, Parameters { bits, levels, .. }) = (places.len(), parameters);
    let mut received = transfers.receiver.extend(count * bits as usize);
    let message = std::mem::take(&mut received.message);
    let room = || Zeroizing::new(vec![Block::default(); count * levels]);
    let making = Making {
        role,
        parameters,
        permutations: names.iter().map(Permutations::new).collect(),
        offset: Zeroizing::new(*transfers.sender.delta()),
        places: Zeroizing::new(places),
        received,
        shares: room(),
        seeds: room(),
        small: Zeroizing::new(vec![]),
        openings: Zeroizing::new(vec![]),
        taken: 0,
    };
    (making, message)
}

/// The field of the whole step for items of these names, with the party's offset: four words of each.
pub fn whole(names: &[Block], offset: &Block) -> Elements {
    let mut all = Zeroizing::new(Vec::with_capacity(4 * names.len()));
    names.iter().for_each(|name| all.extend_from_slice(&words(&[*name, *offset])));
    all
}

impl Making {
    /// Goes on with the peer's message.
    ///
    /// # Errors
    /// If it has another length or set padding bits, or the parties' openings fit no tree.
    pub fn take(
        mut self: Box<Self>,
        transfers: &mut Transfers,
        message: &[u8],
    ) -> Result<Turn, TransferError> {
        let taken = self.taken;
        self.taken += 1;
        let next = match taken {
            0 => {
                let other = self.transferred(transfers, message)?;
                [self.level(1), other].concat()
            }
            _ if taken < self.parameters.levels => {
                let (corrections, rest) = message.split_at_checked(16 * self.places.len()).ok_or(
                    TransferError::Length {
                        found: message.len(),
                        expected: 16 * self.places.len(),
                    },
                )?;
                self.correct(taken, corrections);
                match taken {
                    1 => self.received(transfers, rest)?,
                    _ => expect_length(rest, 0)?,
                }
                match taken + 1 {
                    level if level < self.parameters.levels => self.level(level),
                    _ => self.open(),
                }
            }
            _ => return Ok(Turn::Done((*self).finish(message)?)),
        };
        Ok(Turn::More(self, next))
    }

    /// With both directions' transfers: its shares of the bits, and its part of the first level's message beside the
    /// correction.
    fn transferred(
        &mut self,
        transfers: &mut Transfers,
        extension: &[u8],
    ) -> Result<Vec<u8>, TransferError> {
        let Parameters { bits, levels, q } = self.parameters;
        let (count, bits) = (self.places.len(), bits as usize);
        let sent = transfers.sender.extend(count * bits, extension)?;
        let received = self.received.blocks.chunks_exact(bits);
        let elements = received.zip(self.received.choices.chunks_exact(bits));
        let elements = elements.zip(sent.chunks_exact(bits));
        let rooms = self.shares.chunks_exact_mut(levels).zip(self.seeds.chunks_exact_mut(levels));
        for (((t, b), q), (shares, seeds)) in elements.zip(rooms) {
            let own = t.iter().zip(b).zip(q).skip(bits - levels);
            for (share, ((t, b), q)) in shares.iter_mut().zip(own) {
                *share = xor(select(*self.offset, *b), xor(*t, *q));
            }
            seeds[0] = shares[0];
        }
        let (hashes, delta) = (&transfers.hashes, transfers.sender.delta());
        match self.role {
            Role::Party0 => {
                let (parameters, own) = (self.parameters, self.own_bits());
                let sending = Sending { hashes, delta, blocks: &sent };
                let of = |i: usize| &own[i * bits..][..bits];
                let scalars = |i: usize, to: &mut [u128]| {
                    to.iter_mut().zip(of(i)).for_each(|(to, bit)| *to = u128::from(*bit));
                };
                let flips = vec![0; flip_bytes(count * bits)];
                let widths = parameters.products();
                let fold = |shares: &[u128], out: &mut [u64]| out[0] = weigh(shares);
                let (message, products) =
                    gilboa::send(&widths, &sending, &flips, (count, 1), scalars, fold)?;
                self.place(&own, &products);
                Ok(message)
            }
            Role::Party1 => {
                let small = self.parameters.small();
                let (low, _) = self.low_transfers(&sent);
                let mut scalars = Zeroizing::new(vec![0; count * ENTRIES]);
                let own = self.received.choices.chunks_exact(bits);
                for (scalars, own) in scalars.chunks_exact_mut(ENTRIES).zip(own) {
                    let place = number(&own[..Table::NODE_BITS as usize]);
                    for (scalar, x) in scalars.iter_mut().zip(0u64..) {
                        *scalar = (x ^ place).wrapping_sub(1) >> 63;
                    }
                }
                // Party 0's places are those that it lacks anyway.
                let shifts = vec![0; packed_bytes(count, small.p)];
                let fold = &Diagonals;
                let (message, shares) =
                    tree::party0(&small, hashes, delta, &low, &shifts, &scalars, fold)?;
                expect_length(&message, tree_bytes(count, small.p, ENTRIES, q))?;
                self.small = shares;
                Ok(message)
            }
        }
    }

    /// The peer's part of the first level's message beside the correction.
    fn received(&mut self, transfers: &Transfers, message: &[u8]) -> Result<(), TransferError> {
        let (count, hashes) = (self.places.len(), &transfers.hashes);
        match self.role {
            Role::Party0 => {
                let small = self.parameters.small();
                let (blocks, choices) = self.low_transfers(&self.received.blocks);
                let ends = choices.chunks_exact(small.p as usize).map(tree::end);
                let places: Elements = Zeroizing::new(ends.collect());
                let transferred = (&blocks[..], &choices[..]);
                self.small =
                    tree::party1(&small, hashes, transferred, &places, message, &Diagonals)?;
            }
            Role::Party1 => {
                let own = self.own_bits();
                let blocks = &self.received.blocks;
                let receiving = Receiving { hashes, blocks, bits: &self.received.choices };
                let widths = self.parameters.products();
                let fold = |shares: &[u128], out: &mut [u64]| out[0] = weigh(shares);
                let products = gilboa::receive(&widths, &receiving, message, (count, 1), fold)?;
                self.place(&own, &products);
            }
        }
        // They are not used again.
        self.received.blocks = Zeroizing::new(vec![]);
        self.received.choices = Zeroizing::new(vec![]);
        Ok(())
    }

    /// Its part of the bits of `α`, the lowest first.
    fn own_bits(&self) -> Zeroizing<Vec<u8>> {
        let bits = self.parameters.bits as usize;
        let turned = match self.role {
            Role::Party0 => Table::NODE_BITS as usize,
            Role::Party1 => 0,
        };
        let mut own = self.received.choices.clone();
        for own in own.chunks_exact_mut(bits) {
            own[..turned].iter_mut().for_each(|bit| *bit ^= 1);
        }
        own
    }

    /// The transfers of the lowest bits, of blocks of all, and its choices in them.
    fn low_transfers(&self, blocks: &[Block]) -> (Zeroizing<Vec<Block>>, Zeroizing<Vec<u8>>) {
        let (bits, low) = (self.parameters.bits as usize, Table::NODE_BITS as usize);
        let of_blocks = blocks.chunks_exact(bits).flat_map(|all| &all[..low]).copied();
        let choices = self.received.choices.chunks_exact(bits);
        let of_choices = choices.flat_map(|all| &all[..low]).copied();
        (Zeroizing::new(of_blocks.collect()), Zeroizing::new(of_choices.collect()))
    }

    /// Takes its share of `α` off the places.
    fn place(&mut self, own: &[u8], products: &[u64]) {
        let Parameters { bits, .. } = self.parameters;
        let own = own.chunks_exact(bits as usize).map(number);
        for (place, (own, products)) in self.places.iter_mut().zip(own.zip(products)) {
            let share = own.wrapping_sub(products << 1);
            *place = place.wrapping_sub(share) & low_mask(bits);
        }
    }

    /// Its message for a level, from 1 on: what is missing of the correction is the peer's.
    fn level(&mut self, level: usize) -> Vec<u8> {
        let Parameters { levels, .. } = self.parameters;
        let (permutations, offset) = (&self.permutations, &self.offset);
        let per_item = self.places.len() / permutations.len().max(1);
        let mut message = vec![Block::default(); self.places.len()];
        let seeds = self.seeds.par_chunks_mut(levels).zip(self.shares.par_chunks(levels));
        message.par_iter_mut().zip(seeds).enumerate().with_min_len(MIN).for_each_init(
            || Zeroizing::new(vec![]),
            |nodes, (i, (message, (seeds, shares)))| {
                let permutations = &permutations[i / per_item];
                *message = permutations.level(offset, &seeds[..level], &shares[level], nodes);
                seeds[level] = *message;
            },
        );
        message.as_flattened().to_vec()
    }

    fn correct(&mut self, level: usize, corrections: &[u8]) {
        let seeds = self.seeds.chunks_exact_mut(self.parameters.levels);
        for (seeds, correction) in seeds.zip(corrections.as_chunks().0) {
            seeds[level] = xor(seeds[level], *correction);
        }
    }

    /// Its openings: the leaves' sums less its share of `ρ`, and its share of `δ`.
    fn open(&mut self) -> Vec<u8> {
        let Parameters { levels, q, bits } = self.parameters;
        let (permutations, offset, role) = (&self.permutations, &self.offset, self.role);
        let per_item = self.places.len() / permutations.len().max(1);
        let per = ENTRIES + 1;
        let mut openings = Zeroizing::new(vec![0; self.places.len() * per]);
        let elements = openings.par_chunks_mut(per).zip(self.seeds.par_chunks(levels));
        let elements = elements.zip(self.small.par_chunks(ENTRIES)).enumerate().with_min_len(MIN);
        with_lane!(q, L => elements.for_each_init(
            Leaves::<L>::default,
            |leaves, (i, ((openings, seeds), small))| {
                leaves.take(&permutations[i / per_item], offset, seeds);
                let sums = leaves.sums().map(ir::word::Word::element);
                let none = [0];
                let shared = none.iter().chain(small);
                for (opening, (sum, small)) in openings.iter_mut().zip(sums.iter().zip(shared)) {
                    let signed = match role {
                        Role::Party0 => *sum,
                        Role::Party1 => sum.wrapping_neg(),
                    };
                    *opening = signed.wrapping_sub(*small) & low_mask(q);
                }
            },
        ));
        let message = [pack(&openings, q), pack(&self.places, bits)].concat();
        self.openings = openings;
        message
    }

    fn finish(self, message: &[u8]) -> Result<Made, TransferError> {
        let Parameters { q, bits, .. } = self.parameters;
        let (count, per) = (self.places.len(), ENTRIES + 1);
        let of_openings = packed_bytes(count * per, q);
        expect_length(message, of_openings + packed_bytes(count, bits))?;
        let (openings, places) = message.split_at(of_openings);
        let (openings, places) =
            (unpack_exact(openings, count * per, q)?, unpack_exact(places, count, bits)?);
        let mut factors = Zeroizing::new(Vec::with_capacity(count * ENTRIES));
        let mut is_sound = true;
        for (own, other) in self.openings.chunks_exact(per).zip(openings.chunks_exact(per)) {
            let inverse = inverse(own[0].wrapping_add(other[0]));
            is_sound &= own[0].wrapping_add(other[0]) & 1 == 1;
            let sums = own[1..].iter().zip(&other[1..]).map(|(a, b)| a.wrapping_add(*b));
            factors.extend(sums.map(|c| c.wrapping_mul(inverse) & low_mask(q)));
        }
        if !is_sound {
            return Err(TransferError::Openings);
        }
        let places = self.places.iter().zip(&places).map(|(a, b)| (a + b) & low_mask(bits));
        let shifts = Zeroizing::new(places.collect());
        Ok(Made { seeds: words(&self.seeds), factors, shifts })
    }
}

/// Trees that are worth handing to another core.
const MIN: usize = 64;

/// Two words of every block.
pub fn words(blocks: &[Block]) -> Elements {
    let of = |block: &Block| {
        let all = u128::from_le_bytes(*block);
        [all as u64, (all >> 64) as u64]
    };
    Zeroizing::new(blocks.iter().flat_map(of).collect())
}

/// The inverse of an odd number mod 2^64, by Newton's iteration.
pub fn inverse(odd: u64) -> u64 {
    (0..6).fold(1u64, |x, _| x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x))))
}

/// The number with these bits, the lowest first.
fn number(bits: &[u8]) -> u64 {
    bits.iter().rev().fold(0, |number, &bit| number << 1 | u64::from(bit))
}

/// `Σ 2^j·share_j` of one element.
fn weigh(shares: &[u128]) -> u64 {
    gilboa::weigh(shares.iter().copied()) as u64
}

/// Sums over entry `x` of scalar `v ⊕ x`: where the scalars are a one-hot vector, the tree's is shifted by its place.
struct Diagonals;

impl Fold for Diagonals {
    fn outputs(&self) -> usize {
        ENTRIES
    }

    #[inline(always)]
    fn fold<L: lanes::Lane>(&self, vectors: &mut [L], lanes: usize, out: &mut [u64]) {
        for (v, out) in out.iter_mut().enumerate() {
            let entries = vectors.chunks_exact(lanes).enumerate();
            let sum = entries.fold(L::default(), |sum, (x, entry)| sum.add(entry[v ^ x]));
            *out = sum.to_u64();
        }
    }
}

#[cfg(test)]
#[path = "offline_tests.rs"]
mod tests;
