//! The parts of a round trip, computed one after the other.

use super::lcm;
use crate::kernel::{Prefetch, Running, cores};
use crate::online::device::{Part, PartMaker};
use crate::online::local;
use crate::online::messages::add_elements;
use crate::online::schedule::Interaction;
use crate::online::sizes::{ELEMENT, Sizes};
use crate::steps::{Kept, Opener, Opening, each_kind, kept};
use crate::words::{Words, WordsMut, WordsRef};
use ir::plan::{Plan, Step};
use ir::ring::packed_bytes;
use std::mem::take;
use std::ops::Range;

/// Computes the parts of one round trip.
pub struct HostPartMaker<'s, 'o> {
    pub(super) plan: &'s Plan,
    pub(super) step: &'s Step,
    pub(super) interaction: &'s Interaction,
    pub(super) values: &'s [Words],
    /// The products that begin the fusion chain.
    pub(super) running: Option<Running<'s>>,
    pub(super) opener: Opener<'s>,
    /// The rest of the fused operand, and of the shares.
    pub(super) fused: Option<WordsMut<'o>>,
    pub(super) left: Option<WordsMut<'o>>,
    pub(super) kept: &'s mut Kept,
    pub(super) sizes: Sizes,
    /// Elements of the value.
    pub(super) all: usize,
    pub(super) guard: u32,
}

/// The shares of a part.
pub struct HostPart<'o> {
    bits: u32,
    guard: u32,
    shares: WordsMut<'o>,
}

impl Part for HostPart<'_> {
    fn len(&self) -> usize {
        self.shares.len()
    }

    fn add_response(self, bytes: &[u8]) -> bool {
        add_elements(bytes, self.bits, self.guard, self.shares)
    }
}

impl<'o> PartMaker for HostPartMaker<'_, 'o> {
    type Part = HostPart<'o>;

    fn part(&self) -> usize {
        self.sizes.part
    }

    fn open(&mut self, range: Range<usize>, bytes: &mut [u8]) {
        let mut work = range.len() * ELEMENT;
        if let Some(running) = &mut self.running {
            running.prepare(range.clone());
            work += range.len() * running.linear().fan_in();
        }
        let fused = self.fused.take().map(|fused| fused.split_at(range.len()));
        let (fused, rest) = fused.unzip();
        self.fused = rest;
        let cores = cores(work);
        let mut memory = take(self.kept);
        each_kind!(Opener, &self.opener, opener => {
            let kept = kept(&mut memory, range.len() * opener.kept());
            self.opening(opener, cores, Piece { first: range.start, fused, kept, bytes });
        });
        *self.kept = memory;
    }

    fn share(&mut self, range: Range<usize>) -> HostPart<'o> {
        let left = self.left.take().unwrap_or(WordsMut::W64(&mut []));
        // Shares that are not one per element of the value are one part.
        let count = if range.len() == self.all { left.len() } else { range.len() };
        let (mut shares, rest) = left.split_at(count);
        self.left = Some(rest);
        let cores = cores(range.len() * ELEMENT);
        let mut memory = take(self.kept);
        each_kind!(Opener, &self.opener, opener => {
            let kept = kept(&mut memory, range.len() * opener.kept());
            let cores = if self.interaction.trip.is_elementwise { cores } else { 1 };
            sharing(opener, cores, range.start, kept, shares.borrow());
        });
        *self.kept = memory;
        let bits = self.interaction.trip.messages.response.bits;
        HostPart { bits, guard: self.guard, shares }
    }
}

impl HostPartMaker<'_, '_> {
    /// Computes the fusion chain for the operand's elements from `first` on, in the memory of the linear step's
    /// correlation.
    fn compute_chain(&self, first: usize, mut fused: WordsMut<'_>, prefetch: Prefetch) {
        if let Some(running) = &self.running {
            running.add(first, fused.borrow(), prefetch);
        }
        let range = first..first + fused.len();
        for link in self.interaction.chain.iter().skip(1) {
            let other = link.other.map(|other| self.values[other].part(range.clone()));
            local::in_place(&self.plan.steps[link.step], fused.borrow(), other);
        }
    }

    /// Writes the opening of a piece, on so many cores.
    fn opening<O: Opening>(&self, opener: &O, cores: usize, piece: Piece<'_, O::Kept>) {
        let operand = |i: usize| &self.values[self.step.operands[i].index()];
        let operands = self.step.operands.len();
        if !self.interaction.trip.is_elementwise {
            let whole: Vec<WordsRef<'_>> = (0..operands).map(|i| operand(i).whole()).collect();
            return opener.open(0..self.all, &whole, piece.kept, piece.bytes);
        }
        let (per, bits) = (opener.kept(), self.interaction.trip.messages.opening.bits);
        let unit = self.running.as_ref().map_or(8, |r| lcm(r.linear().outputs(), 8));
        let count = piece.kept.len() / per;
        let half = (count / 2).next_multiple_of(unit);
        if cores > 1 && half < count {
            let (left, right) = piece.split(half, per, bits);
            rayon::join(
                || self.opening(opener, cores / 2, left),
                || self.opening(opener, cores - cores / 2, right),
            );
            return;
        }
        let mut rest = piece;
        while !rest.kept.is_empty() {
            let count = self.sizes.grain.min(rest.kept.len() / per);
            let (now, mut later) = rest.split(count, per, bits);
            let range = now.first..now.first + count;
            match now.fused {
                Some(mut fused) => {
                    let mut prefetch = opener.prefetch(range.clone());
                    if let Some(next) = &mut later.fused {
                        let count = self.sizes.grain.min(next.len());
                        prefetch = prefetch.and(next.borrow().split_at(count).0.as_ref());
                    }
                    self.compute_chain(range.start, fused.borrow(), prefetch);
                    opener.open(range, &[fused.as_ref()], now.kept, now.bytes);
                }
                None if operands == 1 => {
                    let part = [operand(0).part(range.clone())];
                    opener.open(range, &part, now.kept, now.bytes);
                }
                None => {
                    let of = |i| operand(i).part(range.clone());
                    let parts: Vec<WordsRef<'_>> = (0..operands).map(of).collect();
                    opener.open(range, &parts, now.kept, now.bytes);
                }
            }
            rest = later;
        }
    }
}

/// Computes the shares of elements from `first` on, on so many cores.
fn sharing<O: Opening>(
    opener: &O,
    cores: usize,
    first: usize,
    kept: &[O::Kept],
    out: WordsMut<'_>,
) {
    let count = out.len();
    if cores > 1 && count > 1 {
        let half = count / 2;
        let (left, right) = out.split_at(half);
        let (now, next) = kept.split_at(half * opener.kept());
        rayon::join(
            || sharing(opener, cores / 2, first, now, left),
            || sharing(opener, cores - cores / 2, first + half, next, right),
        );
        return;
    }
    opener.share(first..first + count, kept, out);
}

/// Consecutive elements, and the memory for their opening.
struct Piece<'a, K> {
    first: usize,
    fused: Option<WordsMut<'a>>,
    kept: &'a mut [K],
    bytes: &'a mut [u8],
}

impl<K> Piece<'_, K> {
    /// The first `count` elements, whole bytes of `bits` bits each unless they are all, and the rest.
    fn split(self, count: usize, per: usize, bits: u32) -> (Self, Self) {
        let (kept, kept_rest) = self.kept.split_at_mut(count * per);
        let (bytes, bytes_rest) = self.bytes.split_at_mut(packed_bytes(count, bits));
        let (fused, fused_rest) = self.fused.map(|fused| fused.split_at(count)).unzip();
        let first = self.first + count;
        (
            Self { first: self.first, fused, kept, bytes },
            Self { first, fused: fused_rest, kept: kept_rest, bytes: bytes_rest },
        )
    }
}
