//! A polynomial step's correlations for a batch, in the order online.

use super::PRODUCTS;
use crate::Error;
use crate::preprocess::expand::Domain;
use crate::preprocess::item::{Party0Item, Party1Item};
use crate::secret::{Elements, WideElements};
use ir::plan::{Polynomial, Step};
use std::ops::Range;
use zeroize::Zeroizing;

/// Party 0's part.
pub struct Record0 {
    /// `u_1 … u_(d−1)` per element, mod 2^Q.
    pub u: WideElements,
    /// `β`, one per element.
    pub bits: Elements,
    /// Its shares of [`PRODUCTS`] products per element and power, mod 2^Q.
    pub products: WideElements,
}

/// Party 1's part.
pub struct Record1 {
    /// Its shares of [`PRODUCTS`] products per element and power, mod 2^Q.
    pub products: WideElements,
}

impl Record0 {
    /// Takes them from every item.
    pub fn take(
        kind: &Polynomial,
        step: &Step,
        index: usize,
        items: &mut [Party0Item<'_>],
    ) -> Result<Self, Error> {
        let (elements, degree) = (step.shape.elements(), kind.degree as usize);
        let all = elements * items.len();
        let mut bits = Zeroizing::new(vec![0; all]);
        let mut u = Zeroizing::new(Vec::with_capacity(all * (degree - 1)));
        let mut products = Zeroizing::new(Vec::with_capacity(all * PRODUCTS * degree));
        for (item, bits) in items.iter_mut().zip(bits.chunks_exact_mut(elements)) {
            let record = item.take(index)?;
            record.draw(Domain::Bits, 1, 1, bits);
            u.extend_from_slice(&record.draw_wide(Domain::Opening, kind.square.q, degree - 1));
            products.extend_from_slice(&record.wide_field(0, PRODUCTS * degree)?);
        }
        Ok(Self { u, bits, products })
    }
}

impl Record1 {
    /// Takes them from every item.
    pub fn take(
        kind: &Polynomial,
        step: &Step,
        index: usize,
        items: &mut [Party1Item<'_>],
    ) -> Result<Self, Error> {
        let per = PRODUCTS * kind.degree as usize;
        let all = step.shape.elements() * items.len() * per;
        let mut products = Zeroizing::new(Vec::with_capacity(all));
        for item in items {
            products.extend_from_slice(&item.take(index)?.wide_field(0, per)?);
        }
        Ok(Self { products })
    }
}

/// The shares of a range of elements, for a polynomial of this degree.
pub fn part(products: &[u128], degree: u32, range: Range<usize>) -> &[u128] {
    let per = PRODUCTS * degree as usize;
    &products[range.start * per..range.end * per]
}
