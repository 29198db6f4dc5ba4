//! Sums of products of looked-up rows with one-time shares: `Σ_j rows[e_i][j]·products[i][j]` for every
//! element `i`, wrapping in the words. Rows and products of an element are neighbours in storage, so that
//! one line of cache serves all harmonics.

use ir::op::matrix::{Word, vectorized};

/// Writes the sum of every element of `question`; `per` words per row.
///
/// # Panics
/// If an element asks for a row that is not there, or there are too few products.
pub fn row_sums<Q: Word>(per: usize, rows: &[Q], question: &[u16], products: &[Q], sums: &mut [Q]) {
    #[cfg(target_arch = "x86_64")]
    let done = super::sums_avx512::row_sums(per, rows, question, products, sums);
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    let (question, products) = (&question[done..], &products[done * per..]);
    portable(per, rows, question, products, &mut sums[done..]);
}

/// The meaning.
pub(super) fn portable<Q: Word>(
    per: usize,
    rows: &[Q],
    question: &[u16],
    products: &[Q],
    sums: &mut [Q],
) {
    assert!(sums.len() == question.len() && products.len() >= per * question.len());
    vectorized(
        #[inline(always)]
        || match per {
            2 => of_rows::<Q, 2>(rows, question, products, sums),
            4 => of_rows::<Q, 4>(rows, question, products, sums),
            6 => of_rows::<Q, 6>(rows, question, products, sums),
            _ => {
                let elements = question.iter().zip(products.chunks_exact(per));
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
fn of_rows<Q: Word, const PER: usize>(
    rows: &[Q],
    question: &[u16],
    products: &[Q],
    sums: &mut [Q],
) {
    let ((rows, _), (products, _)) = (rows.as_chunks::<PER>(), products.as_chunks::<PER>());
    for (sum, (&e, products)) in sums.iter_mut().zip(question.iter().zip(products)) {
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
    use crate::testing::Random;

    fn check<Q: Word + PartialEq>(random: &mut Random) {
        for per in [2, 4, 6, 8, 10, 12] {
            for count in [0, 1, 7, 8, 15, 16, 17, 64, 99] {
                let phases = 1 << random.between(2, 9);
                let rows: Vec<Q> = (0..phases * per).map(|_| Q::low(random.next())).collect();
                let products: Vec<Q> = (0..count * per).map(|_| Q::low(random.next())).collect();
                let pick = |_| (random.next() % phases as u64) as u16;
                let question: Vec<u16> = (0..count).map(pick).collect();
                let (mut got, mut want) = (vec![Q::default(); count], vec![Q::default(); count]);
                row_sums(per, &rows, &question, &products, &mut got);
                portable(per, &rows, &question, &products, &mut want);
                assert!(got == want, "{} bits, {per} words, {count} elements", Q::BITS);
            }
        }
    }

    #[test]
    fn sums_equal_the_meaning() {
        let mut random = Random::new(61);
        check::<u16>(&mut random);
        check::<u32>(&mut random);
        check::<u64>(&mut random);
    }

    #[test]
    #[should_panic]
    fn rows_that_are_not_there_are_refused() {
        row_sums(4, &[0u32; 16], &[4; 16], &[0; 64], &mut [0; 16]);
    }
}
