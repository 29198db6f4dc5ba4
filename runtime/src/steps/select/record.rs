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
    /// Four pads per element.
    pub words: Zeroizing<Words>,
    /// `c₀`.
    pub bits: Zeroizing<Words>,
    /// Its share of `c₀₀·(m >> t)`.
    pub product: Zeroizing<Words>,
}

/// Party 1's part.
pub struct Record1 {
    /// The pad of its entry, two bits.
    pub pad: Zeroizing<Words>,
    /// Its choice among the words.
    pub choice: Zeroizing<Words>,
    /// The pad of that word.
    pub word: Zeroizing<Words>,
    /// Its share of `c₀₀·(m >> t)`.
    pub product: Zeroizing<Words>,
}

/// A field of every item, `per` words of `bits` bits an element.
struct FieldOf {
    number: usize,
    per: usize,
    bits: u32,
}

/// Reads fields of all items.
fn read<const N: usize, I: Send>(
    step: &Step,
    items: &mut [I],
    fields: [FieldOf; N],
    take: impl Fn(&mut I) -> Result<Record<'_>, MaterialError> + Sync,
) -> Result<[Zeroizing<Words>; N], Error> {
    let elements = step.shape.elements();
    let mut all = fields
        .each_ref()
        .map(|f| Zeroizing::new(Words::zeros(f.bits, elements * items.len() * f.per)));
    let mut rooms: Vec<Vec<WordsMut<'_>>> = items.iter().map(|_| vec![]).collect();
    for (words, field) in all.iter_mut().zip(&fields) {
        let whole = 0..words.len();
        let parts = words.part_mut(whole).chunks(elements * field.per);
        rooms.iter_mut().zip(parts).for_each(|(rooms, part)| rooms.push(part));
    }
    items.par_iter_mut().zip(&mut rooms).try_for_each(|(item, rooms)| {
        let record = take(item)?;
        let mut pairs = rooms.iter_mut().zip(&fields);
        pairs.try_for_each(|(room, field)| {
            record.field(field.number, &step.shape, field.per, room.borrow())
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
        let (per, bits) = select.table_words();
        let q = step.ring;
        let fields = [(per, bits), (4, q), (1, 2), (1, q)];
        let mut number = 0;
        let fields = fields.map(|(per, bits)| {
            number += 1;
            FieldOf { number: number - 1, per, bits }
        });
        let [table, words, bits, product] = read(step, items, fields, |item| item.take(index))?;
        Ok(Self { table, words, bits, product })
    }
}

impl Record1 {
    /// Takes them from every item.
    pub fn take(step: &Step, index: usize, items: &mut [Party1Item<'_>]) -> Result<Self, Error> {
        let q = step.ring;
        let mut number = 0;
        let fields = [2, 2, q, q].map(|bits| {
            number += 1;
            FieldOf { number: number - 1, per: 1, bits }
        });
        let [pad, choice, word, product] = read(step, items, fields, |item| item.take(index))?;
        Ok(Self { pad, choice, word, product })
    }
}
