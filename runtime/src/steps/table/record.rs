//! A table step's correlations for a batch, in the order of the online phase.

use super::fields;
use crate::Error;
use crate::preprocess::MaterialError;
use crate::preprocess::expand::Domain;
use crate::preprocess::item::{Party0Item, Party1Item, Record};
use crate::preprocess::transfer::Block;
use crate::preprocess::transfer::shared_tree::{ENTRIES, Lane, Leaves, Permutations};
use crate::words::{Words, WordsMut};
use ir::Shape;
use ir::plan::{Step, Table};
use rayon::prelude::*;
use std::ops::Range;
use zeroize::Zeroizing;

/// Either party's trees of a batch, and the table that they are multiplied with.
pub struct Trees {
    /// Of every item.
    items: Vec<(Permutations, Zeroizing<Block>)>,
    /// Elements of an item.
    elements: usize,
    /// Of every element the first node and the corrections.
    seeds: Zeroizing<Vec<u64>>,
    levels: usize,
    /// Of every element `g`.
    factors: Zeroizing<Words>,
    /// Of every element `δ`.
    shifts: Zeroizing<Vec<u16>>,
    /// The table twice, and its parameters.
    table: Words,
    spare: u32,
    wrap: usize,
}

/// Party 0's part.
pub struct Record0 {
    /// `u`, of `p` bits.
    pub u: Zeroizing<Vec<u16>>,
    /// Its trees.
    pub trees: Trees,
}

/// Party 1's part.
pub struct Record1 {
    /// Its trees.
    pub trees: Trees,
}

impl Record0 {
    /// Takes them from every item.
    pub fn take(
        table: &Table,
        step: &Step,
        index: usize,
        items: &mut [Party0Item<'_>],
    ) -> Result<Self, Error> {
        let elements = step.shape.elements();
        let mut u = Zeroizing::new(vec![0; elements * items.len()]);
        let mut work: Vec<_> = items.iter_mut().zip(u.chunks_exact_mut(elements)).collect();
        let trees = Trees::take(table, step, &mut work, |(item, u)| {
            let record = item.take(index)?;
            record.draw(Domain::Opening, table.p, 1, u);
            Ok(record)
        })?;
        drop(work);
        Ok(Self { u, trees })
    }
}

impl Record1 {
    /// Takes them from every item.
    pub fn take(
        table: &Table,
        step: &Step,
        index: usize,
        items: &mut [Party1Item<'_>],
    ) -> Result<Self, Error> {
        Ok(Self { trees: Trees::take(table, step, items, |item| item.take(index))? })
    }
}

impl Trees {
    fn take<I: Send>(
        table: &Table,
        step: &Step,
        items: &mut [I],
        take: impl Fn(&mut I) -> Result<Record<'_>, MaterialError> + Sync,
    ) -> Result<Self, Error> {
        let (elements, count) = (step.shape.elements(), items.len());
        let [(words, _), (_, q), (_, mask_bits)] = fields(table);
        let mut seeds = Zeroizing::new(vec![0; elements * count * words]);
        let mut factors = Zeroizing::new(Words::zeros(q, elements * count * ENTRIES));
        let mut shifts = Zeroizing::new(vec![0; elements * count]);
        let rooms = factors.part_mut(0..elements * count * ENTRIES).chunks(elements * ENTRIES);
        let seeds_of = seeds.par_chunks_mut(elements * words);
        let shifts_of = shifts.par_chunks_mut(elements);
        let rooms: Vec<WordsMut<'_>> = rooms.collect();
        let work = items.par_iter_mut().zip(rooms).zip(seeds_of.zip(shifts_of));
        let one = |((item, mut factors), (seeds, shifts)): ((&mut I, WordsMut<'_>), _)| {
            let record = take(item)?;
            let mut whole = Zeroizing::new([0u64; 4]);
            record.field(0, &Shape::new([4]), 1, WordsMut::W64(&mut whole[..]))?;
            record.field(1, &step.shape, words, WordsMut::W64(seeds))?;
            record.field(2, &step.shape, ENTRIES, factors.borrow())?;
            record.field(3, &step.shape, 1, WordsMut::W16(shifts))?;
            let offset = Zeroizing::new(block(&whole[2..]));
            Ok((Permutations::new(&block(&whole[..2])), offset))
        };
        let items = work.map(one).collect::<Result<Vec<_>, MaterialError>>()?;
        let entries = table.entries();
        let table_twice = Words::new(q, entries.iter().chain(&entries).copied());
        Ok(Self {
            items,
            elements,
            seeds,
            levels: words / 2,
            factors,
            shifts,
            table: table_twice,
            spare: table.spare_bits(),
            wrap: (1 << mask_bits) - 1,
        })
    }

    /// Party 0's shares of the values of a range, for the openings `e`; party 1's are the negatives of those of its own.
    pub(super) fn shares<'a, L: Lane>(
        &'a self,
        range: Range<usize>,
        openings: &'a [u16],
        (table, factors): (&'a [L], &'a [L]),
    ) -> impl Iterator<Item = u64> + 'a {
        let mut leaves = Leaves::<L>::default();
        let mut seeds = Zeroizing::new(vec![Block::default(); self.levels]);
        range.zip(openings).map(move |(i, &e)| {
            let words = self.seeds[2 * self.levels * i..].chunks_exact(2);
            seeds.iter_mut().zip(words).for_each(|(seed, words)| *seed = block(words));
            let (permutations, offset) = &self.items[i / self.elements];
            leaves.take(permutations, offset, &seeds);
            let first = (usize::from(e) << self.spare) + usize::from(self.shifts[i]);
            let first = first & self.wrap;
            let of_element = &factors[ENTRIES * i..][..ENTRIES];
            look_up(&leaves, &table[first..], of_element).element()
        })
    }

    /// The table twice.
    pub(super) fn table(&self) -> &Words {
        &self.table
    }

    /// `g` of every element.
    pub(super) fn factors(&self) -> &Words {
        &self.factors
    }
}

/// `Σ f_x·(V_x − g·W)` over all leaves and entries.
fn look_up<L: Lane>(leaves: &Leaves<L>, table: &[L], factors: &[L]) -> L {
    let sums = leaves.weigh(table);
    let pairs = sums.iter().zip(factors);
    pairs.fold(L::default(), |all, ((v, w), g)| all.plus(v.minus(g.times(*w))))
}

fn block(words: &[u64]) -> Block {
    let all = u128::from(words[0]) | u128::from(words[1]) << 64;
    all.to_le_bytes()
}
