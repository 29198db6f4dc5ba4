//! Sums of products of looked-up rows with one-time shares: `Σ_j rows[e_i][j]·products[i][j]` for every
//! element `i`, wrapping in the words. Rows and products of an element are neighbours in storage, so that
//! one line of cache serves all harmonics.

use ir::word::{Word, vectorized};

/// Writes the sum of every element of `opening`; `per` words per row.
///
/// # Panics
/// If an element asks for a row that is not there, or there are too few products.
pub fn row_sums<Q: Word>(per: usize, rows: &[Q], opening: &[u16], products: &[Q], sums: &mut [Q]) {
    #[cfg(target_arch = "x86_64")]
    let done = super::sums_avx512::row_sums(per, rows, opening, products, sums);
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    let (opening, products) = (&opening[done..], &products[done * per..]);
    portable(per, rows, opening, products, &mut sums[done..]);
}

/// The reference implementation.
pub(super) fn portable<Q: Word>(
    per: usize,
    rows: &[Q],
    opening: &[u16],
    products: &[Q],
    sums: &mut [Q],
) {
    assert!(sums.len() == opening.len() && products.len() >= per * opening.len());
    vectorized(
        #[inline(always)]
        || match per {
            2 => of_rows::<Q, 2>(rows, opening, products, sums),
            4 => of_rows::<Q, 4>(rows, opening, products, sums),
            6 => of_rows::<Q, 6>(rows, opening, products, sums),
            _ => {
                let elements = opening.iter().zip(products.chunks_exact(per));
                for (sum, (&e, products)) in sums.iter_mut().zip(elements) {
                    let row = &rows[usize::from(e) * per..][..per];
                    let pairs = row.iter().zip(products);
                    *sum = pairs.fold(Q::default(), |z, (&r, &p)| z.multiply_add(r, p));
                }
            }
        },
    );
}

#[inline(always)]
fn of_rows<Q: Word, const PER: usize>(rows: &[Q], opening: &[u16], products: &[Q], sums: &mut [Q]) {
    let ((rows, _), (products, _)) = (rows.as_chunks::<PER>(), products.as_chunks::<PER>());
    for (sum, (&e, products)) in sums.iter_mut().zip(opening.iter().zip(products)) {
        let row = &rows[usize::from(e)];
        let mut z = Q::default();
        for i in 0..PER {
            z = z.multiply_add(row[i], products[i]);
        }
        *sum = z;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, property};
    use proptest::prelude::*;

    fn check<Q: Word + PartialEq>(
        (per, count, phases): (usize, usize, usize),
        seed: u64,
    ) -> Result<(), TestCaseError> {
        let mut random = Random::new(seed);
        let rows: Vec<Q> = (0..phases * per).map(|_| Q::low(random.next())).collect();
        let products: Vec<Q> = (0..count * per).map(|_| Q::low(random.next())).collect();
        let pick = |_| (random.next() % phases as u64) as u16;
        let opening: Vec<u16> = (0..count).map(pick).collect();
        let mut got = vec![Q::default(); count];
        row_sums(per, &rows, &opening, &products, &mut got);
        for (i, &e) in opening.iter().enumerate() {
            let row = &rows[usize::from(e) * per..][..per];
            let pairs = row.iter().zip(&products[i * per..][..per]);
            let want = pairs.fold(Q::default(), |z, (&r, &p)| z.multiply_add(r, p));
            prop_assert!(got[i] == want, "element {i}, {} bits", Q::BITS);
        }
        Ok(())
    }

    #[test]
    fn sums_equal_the_reference() {
        let shape = ((1..=8usize).prop_map(|pairs| 2 * pairs), 0..=130usize, 1..=520usize);
        property(400, (shape, any::<u64>()), |(shape, seed)| {
            check::<u16>(shape, seed)?;
            check::<u32>(shape, seed)?;
            check::<u64>(shape, seed)
        });
    }

    #[test]
    #[should_panic]
    fn rows_that_are_not_there_are_refused() {
        row_sums(4, &[0u32; 16], &[4; 16], &[0; 64], &mut [0; 16]);
    }
}
