//! A select step's correlations for a batch, in the order and the words of the online phase.

use crate::Error;
use crate::preprocess::MaterialError;
use crate::preprocess::item::{Party0Item, Party1Item, Record};
use crate::words::{Words, WordsMut};
use ir::plan::{Select, Step};
use rayon::prelude::*;
use zeroize::Zeroizing;

/// Party 0's part.
pub struct Record0 {
    /// The pads of the tables, in words of 64 bits or fewer.
    pub table: Zeroizing<Words>,
    /// The pads of the words, four per element or two.
    pub words: Zeroizing<Words>,
    /// `c₀`.
    pub bits: Zeroizing<Words>,
    /// Its share of `c₀₀·(m >> t)`.
    pub product: Zeroizing<Words>,
}

/// Party 1's part.
pub struct Record1 {
    /// The pad of its entry, two bits or one.
    pub pad: Zeroizing<Words>,
    /// Its choice among the words.
    pub choice: Zeroizing<Words>,
    /// The pad of that word.
    pub word: Zeroizing<Words>,
    /// Its share of `c₀₀·(m >> t)`.
    pub product: Zeroizing<Words>,
}

/// Reads all fields of a part of the correlation from every item: of each the words per element, and their bits.
fn read<const N: usize, I: Send>(
    step: &Step,
    items: &mut [I],
    fields: [(usize, u32); N],
    take: impl Fn(&mut I) -> Result<Record<'_>, MaterialError> + Sync,
) -> Result<[Zeroizing<Words>; N], Error> {
    let elements = step.shape.elements();
    let mut all =
        fields.map(|(per, bits)| Zeroizing::new(Words::zeros(bits, elements * items.len() * per)));
    let mut rooms: Vec<Vec<WordsMut<'_>>> = items.iter().map(|_| vec![]).collect();
    for (words, (per, _)) in all.iter_mut().zip(fields) {
        let whole = 0..words.len();
        let parts = words.part_mut(whole).chunks(elements * per);
        rooms.iter_mut().zip(parts).for_each(|(rooms, part)| rooms.push(part));
    }
    items.par_iter_mut().zip(&mut rooms).try_for_each(|(item, rooms)| {
        let record = take(item)?;
        let mut numbered = rooms.iter_mut().zip(fields).enumerate();
        numbered.try_for_each(|(number, (room, (per, _)))| {
            record.field(number, &step.shape, per, room.borrow())
        })
    })?;
    drop(rooms);
    Ok(all)
}

impl Record0 {
    /// Takes them from every item.
    pub fn take(
        select: &Select,
        step: &Step,
        index: usize,
        items: &mut [Party0Item<'_>],
    ) -> Result<Self, Error> {
        let q = step.ring;
        let entry = select.entry_bits(q);
        let fields = [select.table_words(q), (select.numbers(q), q), (1, entry), (1, q)];
        let [table, words, bits, product] = read(step, items, fields, |item| item.take(index))?;
        Ok(Self { table, words, bits, product })
    }
}

impl Record1 {
    /// Takes them from every item.
    pub fn take(
        select: &Select,
        step: &Step,
        index: usize,
        items: &mut [Party1Item<'_>],
    ) -> Result<Self, Error> {
        let (q, entry) = (step.ring, select.entry_bits(step.ring));
        let fields = [(1, entry), (1, entry), (1, q), (1, q)];
        let [pad, choice, word, product] = read(step, items, fields, |item| item.take(index))?;
        Ok(Self { pad, choice, word, product })
    }
}
