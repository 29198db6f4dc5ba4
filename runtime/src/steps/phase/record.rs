//! A phase step's correlations for a batch, in the order and the words of the online phase.

use crate::Error;
use crate::preprocess::expand::Domain;
use crate::preprocess::item::{Party0Item, Party1Item};
use crate::words::{Words, WordsMut};
use ir::plan::{Phase, Step};
use rayon::prelude::*;
use zeroize::Zeroizing;

/// Party 0's part.
pub struct Record0 {
    /// `u`, of `p` bits.
    pub u: Zeroizing<Vec<u16>>,
    /// Its shares of `G_1, H_1, G_2, …` per element, mod 2^Q.
    pub products: Zeroizing<Words>,
}

/// Party 1's part.
pub struct Record1 {
    /// Its shares of `G_1, H_1, G_2, …` per element, mod 2^Q.
    pub products: Zeroizing<Words>,
}

impl Record0 {
    /// Takes them from every item.
    pub fn take(
        phase: &Phase,
        step: &Step,
        index: usize,
        items: &mut [Party0Item<'_>],
    ) -> Result<Self, Error> {
        let (elements, per) = (step.shape.elements(), 2 * phase.harmonics as usize);
        let all = elements * items.len();
        let mut u = Zeroizing::new(vec![0; all]);
        let mut products = Zeroizing::new(Words::zeros(phase.q, all * per));
        let rooms = products.part_mut(0..all * per).chunks(elements * per);
        let mut work: Vec<_> =
            items.iter_mut().zip(u.chunks_exact_mut(elements).zip(rooms)).collect();
        work.par_iter_mut().try_for_each(|(item, (u, products))| {
            let record = item.take(index)?;
            record.draw(Domain::Opening, phase.p, 1, u);
            record.field(0, &step.shape, per, products.borrow())
        })?;
        drop(work);
        Ok(Self { u, products })
    }
}

impl Record1 {
    /// Takes them from every item.
    pub fn take(
        phase: &Phase,
        step: &Step,
        index: usize,
        items: &mut [Party1Item<'_>],
    ) -> Result<Self, Error> {
        let per = 2 * phase.harmonics as usize;
        let all = step.shape.elements() * items.len() * per;
        let mut products = Zeroizing::new(Words::zeros(phase.q, all));
        let rooms = products.part_mut(0..all).chunks(step.shape.elements() * per);
        let mut work: Vec<(_, WordsMut<'_>)> = items.iter_mut().zip(rooms).collect();
        work.par_iter_mut().try_for_each(|(item, room)| {
            item.take(index)?.field(0, &step.shape, per, room.borrow())
        })?;
        drop(work);
        Ok(Self { products })
    }
}
