//! Transposition of bit matrices: a batch of transfers is made as 128 columns and used as rows.
//!
//! A matrix of 128×128 bits is four of 64×64, which are transposed side by side so that every step is
//! one of vectors: `a[i]` and `a[i + j]` exchange the bits that stand in each other's place (Warren,
//! "Hacker's Delight", section 7-3).

use super::hash::Block;

/// Rows of a matrix, and bits of a row.
pub const SIZE: usize = 128;

/// Bit `c` of row `r` becomes bit `r` of `columns[c]`; `column` gives the columns.
#[inline(always)]
pub fn transpose(column: impl Fn(usize) -> Block, rows: &mut [Block]) {
    let mut words = [[0u64; 4]; 64];
    for (c, words) in words.iter_mut().enumerate() {
        let halves = [u128::from_le_bytes(column(c)), u128::from_le_bytes(column(c + 64))];
        let [low, high] = halves;
        *words = [low as u64, high as u64, (low >> 64) as u64, (high >> 64) as u64];
    }
    exchange::<32>(&mut words, 0x0000_0000_ffff_ffff);
    exchange::<16>(&mut words, 0x0000_ffff_0000_ffff);
    exchange::<8>(&mut words, 0x00ff_00ff_00ff_00ff);
    exchange::<4>(&mut words, 0x0f0f_0f0f_0f0f_0f0f);
    exchange::<2>(&mut words, 0x3333_3333_3333_3333);
    exchange::<1>(&mut words, 0x5555_5555_5555_5555);
    let (first, second) = rows.split_at_mut(64);
    for (words, (a, b)) in words.iter().zip(first.iter_mut().zip(second)) {
        *a = (u128::from(words[0]) | u128::from(words[1]) << 64).to_le_bytes();
        *b = (u128::from(words[2]) | u128::from(words[3]) << 64).to_le_bytes();
    }
}

#[inline(always)]
fn exchange<const J: usize>(words: &mut [[u64; 4]; 64], mask: u64) {
    for group in words.as_chunks_mut::<J>().0.as_chunks_mut::<2>().0 {
        let [low, high] = group;
        for (low, high) in low.iter_mut().zip(high) {
            for (low, high) in low.iter_mut().zip(high) {
                let t = ((*low >> J) ^ *high) & mask;
                *high ^= t;
                *low ^= t << J;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn rows_are_columns() {
        let mut random = Random::new(4);
        let columns: Vec<Block> = (0..SIZE).map(|_| random.wide(127).to_le_bytes()).collect();
        let mut rows = vec![[0; 16]; SIZE];
        transpose(|c| columns[c], &mut rows);
        let bit = |block: &Block, at: usize| block[at / 8] >> (at % 8) & 1;
        for (r, row) in rows.iter().enumerate() {
            for (c, column) in columns.iter().enumerate() {
                assert_eq!(bit(row, c), bit(column, r));
            }
        }
    }
}
