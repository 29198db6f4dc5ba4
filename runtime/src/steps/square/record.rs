//! A square step's correlations for a batch, in the order online.

use super::PRODUCTS;
use crate::Error;
use crate::preprocess::expand::Domain;
use crate::preprocess::item::{Party0Item, Party1Item};
use crate::secret::Elements;
use crate::words::WordsMut;
use ir::plan::{Square, Step};
use std::ops::Range;
use zeroize::Zeroizing;

/// Party 0's part.
pub struct Record0 {
    /// `u`, one per element, `p` bits.
    pub u: Elements,
    /// `β + 2β'`, one per element.
    pub bits: Elements,
    /// Its shares of [`PRODUCTS`] products per element, mod 2^Q.
    pub products: Elements,
}

/// Party 1's part.
pub struct Record1 {
    /// Its shares of [`PRODUCTS`] products per element, mod 2^Q.
    pub products: Elements,
}

impl Record0 {
    /// Takes them from every item.
    pub fn take(
        square: &Square,
        step: &Step,
        index: usize,
        items: &mut [Party0Item<'_>],
    ) -> Result<Self, Error> {
        let elements = step.shape.elements();
        let all = elements * items.len();
        let room = |count: usize| Zeroizing::new(vec![0; count]);
        let (mut u, mut bits, mut products) = (room(all), room(all), room(all * PRODUCTS));
        for (n, item) in items.iter_mut().enumerate() {
            let record = item.take(index)?;
            let of = n * elements..(n + 1) * elements;
            record.draw(Domain::Opening, square.p, 1, &mut u[of.clone()]);
            record.draw(Domain::Bits, 2, 1, &mut bits[of.clone()]);
            let out = WordsMut::W64(&mut products[shares(of)]);
            record.field(0, &step.shape, PRODUCTS, out)?;
        }
        Ok(Self { u, bits, products })
    }

    /// The shares of a range of elements.
    pub fn products(&self, range: Range<usize>) -> &[u64] {
        &self.products[shares(range)]
    }
}

impl Record1 {
    /// Takes them from every item.
    pub fn take(step: &Step, index: usize, items: &mut [Party1Item<'_>]) -> Result<Self, Error> {
        let elements = step.shape.elements();
        let mut products = Zeroizing::new(vec![0; elements * items.len() * PRODUCTS]);
        for (item, room) in items.iter_mut().zip(products.chunks_exact_mut(elements * PRODUCTS)) {
            item.take(index)?.field(0, &step.shape, PRODUCTS, WordsMut::W64(room))?;
        }
        Ok(Self { products })
    }

    /// The shares of a range of elements.
    pub fn products(&self, range: Range<usize>) -> &[u64] {
        &self.products[shares(range)]
    }
}

fn shares(range: Range<usize>) -> Range<usize> {
    range.start * PRODUCTS..range.end * PRODUCTS
}
