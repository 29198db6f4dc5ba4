//! Both parties' computation online.

use super::{Record0, Record1};
use crate::steps::{self, add_shares, put_shares};
use crate::wire;
use crate::words::{Words, WordsMut, WordsRef, each_slice};
use ir::plan::Table;
use ir::ring::low_mask;
use ir::word::Word;
use std::ops::Range;

/// Party 0's side.
pub struct Opening<'a> {
    /// Parameters.
    pub table: &'a Table,
    /// Its correlations.
    pub record: &'a Record0,
}

impl steps::Opening for Opening<'_> {
    /// `e`.
    type Kept = u16;

    fn kept(&self) -> usize {
        1
    }

    fn open(
        &self,
        range: Range<usize>,
        operands: &[WordsRef<'_>],
        kept: &mut [u16],
        bytes: &mut [u8],
    ) {
        let Table { k, p, .. } = *self.table;
        let (shift, wrap) = (k - p, low_mask(p) as u16);
        each_slice!(WordsRef, operands[0], delta => {
            // What lies above the window wraps away with the rest.
            for (e, (&d, &u)) in kept.iter_mut().zip(delta.iter().zip(&self.record.u[range])) {
                *e = (Word::shift_right(d, shift).element() as u16).wrapping_sub(u) & wrap;
            }
        });
        wire::pack_into(kept, p, bytes);
    }

    fn share(&self, range: Range<usize>, kept: &[u16], out: WordsMut<'_>) {
        let (trees, ring) = (&self.record.trees, low_mask(self.table.q));
        each_lane!(trees, table, factors => {
            put_shares(out, trees.shares(range, kept, (table, factors)).map(|share| share & ring));
        });
    }
}

/// Party 1's side.
pub struct Responding<'a> {
    /// Parameters.
    pub table: &'a Table,
    /// Its correlations.
    pub record: &'a Record1,
}

impl steps::Responding for Responding<'_> {
    /// `e`.
    type Kept = u16;

    fn kept(&self) -> usize {
        1
    }

    fn read(&self, bytes: &[u8], kept: &mut [u16]) -> bool {
        wire::unpack(bytes, self.table.p, kept, |_, e| e)
    }

    fn respond(&self, range: Range<usize>, kept: &[u16], out: WordsMut<'_>) {
        let trees = &self.record.trees;
        each_lane!(trees, table, factors => {
            let shares = trees.shares(range, kept, (table, factors)).map(u64::wrapping_neg);
            add_shares(out, self.table.q, shares);
        });
    }
}

/// Evaluates an expression for a table and factors, whose words have one width.
macro_rules! each_lane {
    ($trees:expr, $table:ident, $factors:ident => $body:expr) => {
        match ($trees.table(), $trees.factors()) {
            (Words::W16($table), Words::W16($factors)) => $body,
            (Words::W32($table), Words::W32($factors)) => $body,
            (Words::W64($table), Words::W64($factors)) => $body,
            _ => unreachable!("a table and its factors have words of one width"),
        }
    };
}
use each_lane;
