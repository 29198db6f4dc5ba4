//! Matrix products: real ones through `matrixmultiply` (ndarray), ring ones as the portable meaning
//! that every faster kernel is tested against.

use crate::word::{Word, vectorized};
use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul, s};
use std::ops::Range;

/// `out[m][n] += Σ_k weights[m][k]·x[k][n]`, wrapping; all row-major.
pub fn multiply_words<W: Word>(weights: &[W], x: &[W], out: &mut [W], k: usize, n: usize) {
    vectorized(
        #[inline(always)]
        || {
            if n == 1 {
                multiply_vector(weights, x, out, k);
            } else {
                multiply_panels(weights, x, out, k, n);
            }
        },
    );
}

#[inline(always)]
fn multiply_vector<W: Word>(weights: &[W], x: &[W], out: &mut [W], k: usize) {
    const LANES: usize = 32;
    for (row, out) in weights.chunks_exact(k).zip(out) {
        let mut lanes = [W::default(); LANES];
        let (row_blocks, x_blocks) = (row.chunks_exact(LANES), x.chunks_exact(LANES));
        let rest = row_blocks.remainder().iter().zip(x_blocks.remainder());
        let mut sum = *out;
        for (&w, &v) in rest {
            sum = sum.multiply_add(w, v);
        }
        for (ws, vs) in row_blocks.zip(x_blocks) {
            for lane in 0..LANES {
                lanes[lane] = lanes[lane].multiply_add(ws[lane], vs[lane]);
            }
        }
        for lane in lanes {
            sum = sum.multiply_add(lane, W::weight(1));
        }
        *out = sum;
    }
}

/// Register blocks of `ROWS` rows by `COLUMNS` columns; the columns of a block stay in cache.
#[inline(always)]
fn multiply_panels<W: Word>(weights: &[W], x: &[W], out: &mut [W], k: usize, n: usize) {
    const ROWS: usize = 4;
    const COLUMNS: usize = 32;
    let m = out.len() / n;
    for first_column in (0..n).step_by(COLUMNS) {
        let columns = COLUMNS.min(n - first_column);
        let mut row = 0;
        while row < m {
            let rows = ROWS.min(m - row);
            let mut sums = [[W::default(); COLUMNS]; ROWS];
            if columns == COLUMNS && rows == ROWS {
                for i in 0..k {
                    let start = i * n + first_column;
                    let line = &x[start..start + COLUMNS];
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let w = weights[(row + r) * k + i];
                        for c in 0..COLUMNS {
                            sums[c] = sums[c].multiply_add(w, line[c]);
                        }
                    }
                }
            } else {
                for i in 0..k {
                    let start = i * n + first_column;
                    let line = &x[start..start + columns];
                    for (r, sums) in sums.iter_mut().enumerate().take(rows) {
                        let w = weights[(row + r) * k + i];
                        for (sum, &v) in sums.iter_mut().zip(line) {
                            *sum = sum.multiply_add(w, v);
                        }
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate().take(rows) {
                let start = (row + r) * n + first_column;
                for (out, &sum) in out[start..start + columns].iter_mut().zip(sums) {
                    *out = out.multiply_add(sum, W::weight(1));
                }
            }
            row += rows;
        }
    }
}

/// Some columns of `out[m][n] = Σ_k weights[m][k]·x[k][n]` over the reals; `x` has those columns alone.
pub(super) fn multiply_reals_into(
    weights: &[f32],
    x: &[f32],
    out: &mut [f32],
    k: usize,
    (columns, n): (Range<usize>, usize),
) {
    let m = out.len() / n;
    let shapes = "slices have the sizes that their dimensions say";
    let w = ArrayView2::from_shape((m, k), weights).expect(shapes);
    let x = ArrayView2::from_shape((k, columns.len()), x).expect(shapes);
    let mut out = ArrayViewMut2::from_shape((m, n), out).expect(shapes);
    let mut out = out.slice_mut(s![.., columns]);
    general_mat_mul(1.0, &w, &x, 0.0, &mut out);
}

/// `out[m][n] = Σ_k weights[m][k]·x[k][n]` over the reals.
pub fn multiply_reals(weights: &[f32], x: &[f32], out: &mut [f32], k: usize, n: usize) {
    let m = out.len() / n;
    let shapes = "slices have the sizes that their dimensions say";
    let w = ArrayView2::from_shape((m, k), weights).expect(shapes);
    let x = ArrayView2::from_shape((k, n), x).expect(shapes);
    let mut out = ArrayViewMut2::from_shape((m, n), out).expect(shapes);
    general_mat_mul(1.0, &w, &x, 0.0, &mut out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<W: Word>(m: usize, k: usize, n: usize) {
        let mut state = (m * 31 + k * 7 + n) as u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 13
        };
        let weights: Vec<W> = (0..m * k).map(|_| W::weight(next() as i32)).collect();
        let x: Vec<W> = (0..k * n).map(|_| W::low(next())).collect();
        let mut out = vec![W::weight(5); m * n];
        multiply_words(&weights, &x, &mut out, k, n);
        for row in 0..m {
            for column in 0..n {
                let sum = (0..k).fold(5u64, |sum, i| {
                    sum.wrapping_add(
                        weights[row * k + i].element().wrapping_mul(x[i * n + column].element()),
                    )
                });
                assert_eq!(out[row * n + column].element(), W::low(sum).element());
            }
        }
    }

    #[test]
    fn ring_products_equal_the_definition() {
        for (m, k, n) in [(1, 1, 1), (5, 7, 1), (3, 100, 1), (4, 9, 32), (7, 13, 70), (9, 3, 33)] {
            check::<u16>(m, k, n);
            check::<u32>(m, k, n);
            check::<u64>(m, k, n);
        }
    }
}
