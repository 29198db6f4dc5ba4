//! Products of one step's weights with a batch, made part by part.

use super::{Packed, PackedLinear, Prefetch, Scratch, cores};
#[cfg(target_arch = "x86_64")]
use super::{avx2, ifma, lines, vnni};
use crate::words::{Words, WordsMut, WordsRef, each_slice};
use ir::ring::low_mask;
use ir::word::{Word, vectorized};
use std::ops::Range;

/// The products of one step's weights with a batch.
pub struct Running<'a> {
    pub(super) linear: &'a PackedLinear,
    pub(super) x: WordsRef<'a>,
    pub(super) scratch: &'a mut Scratch,
    /// The items whose padded images are in the scratch memory.
    pub(super) items: Range<usize>,
}

impl Running<'_> {
    /// The step.
    pub fn linear(&self) -> &PackedLinear {
        self.linear
    }

    /// Prepares the inputs that the outputs of `elements` are computed from.
    pub fn prepare(&mut self, elements: Range<usize>) {
        let PackedLinear { geometry, ring, weights } = self.linear;
        let cores = cores(elements.len() * self.linear.fan_in());
        let scratch = &mut *self.scratch;
        match (weights, Words::bits(*ring)) {
            (Packed::Fast(fast), 16) => {
                return fast.prepare(self.x, elements, cores, &mut scratch.fast16);
            }
            (Packed::Fast(fast), 32) => {
                return fast.prepare(self.x, elements, cores, &mut scratch.fast32);
            }
            (Packed::Fast(fast), _) => {
                return fast.prepare(self.x, elements, cores, &mut scratch.fast64);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Tiles(weights), _) => {
                let outputs = geometry.outputs();
                let positions = elements.start / outputs..elements.end / outputs;
                return weights.prepare(geometry, self.x, positions, cores, &mut scratch.tiles);
            }
            _ => {}
        }
        let result = self.linear.result();
        let items = elements.start / result..elements.end.div_ceil(result);
        if items.start >= self.items.start && items.end <= self.items.end {
            return;
        }
        let image = geometry.input_elements();
        let images = items.start * image..items.end * image;
        match weights {
            Packed::Hadamard(_) | Packed::Fast(_) => {}
            #[cfg(target_arch = "x86_64")]
            Packed::Tiles(_) => {}
            Packed::Words16(_) => each_slice!(WordsRef, self.x, x => {
                geometry.pad(&x[images], &mut scratch.words16, |v| v.element() as u16);
            }),
            Packed::Words32(_) => each_slice!(WordsRef, self.x, x => {
                geometry.pad(&x[images], &mut scratch.words32, |v| v.element() as u32);
            }),
            Packed::Words64(_) => each_slice!(WordsRef, self.x, x => {
                geometry.pad(&x[images], &mut scratch.words64, |v| v.element());
            }),
            #[cfg(target_arch = "x86_64")]
            Packed::Ifma(_) => each_slice!(WordsRef, self.x, x => {
                geometry.pad(&x[images], &mut scratch.words64, |v| v.element());
            }),
            #[cfg(target_arch = "x86_64")]
            Packed::Avx2(weights) | Packed::Vnni(weights) => {
                if matches!(self.x, WordsRef::W16(_)) && lines::reads_in_place(geometry, weights) {
                    self.items = 0..self.x.len() / image;
                    return;
                }
                each_slice!(WordsRef, self.x, x => scratch.limbs.split(geometry, weights, &x[images]));
            }
        }
        self.items = items;
    }

    /// Adds the products of consecutive elements from `first` on, which were prepared, to `out`, and reduces;
    /// fetches memory that is read next meanwhile.
    ///
    /// # Panics
    /// If the elements are not those of whole output positions or were not prepared, or `out` has words of another
    /// ring.
    pub fn add(&self, first: usize, out: WordsMut<'_>, prefetch: Prefetch) {
        let linear = self.linear;
        let ring = linear.ring;
        let outputs = linear.outputs();
        if let Packed::Fast(fast) = &linear.weights {
            let mask = low_mask(ring);
            return match out {
                WordsMut::W16(out) => fast.add(&self.scratch.fast16, first, out, mask as u16),
                WordsMut::W32(out) => fast.add(&self.scratch.fast32, first, out, mask as u32),
                WordsMut::W64(out) => fast.add(&self.scratch.fast64, first, out, mask),
            };
        }
        #[cfg(target_arch = "x86_64")]
        if let Packed::Tiles(weights) = &linear.weights {
            let (memory, mask) = (&self.scratch.tiles, low_mask(ring));
            let positions = first / outputs..(first + out.len()) / outputs;
            return match out {
                WordsMut::W16(out) => weights.add(memory, positions, outputs, out, mask as u16),
                WordsMut::W32(out) => weights.add(memory, positions, outputs, out, mask as u32),
                WordsMut::W64(_) => panic!("words of another ring than of {ring} bits"),
            };
        }
        assert!(
            first >= self.items.start * linear.result()
                && first + out.len() <= self.items.end * linear.result()
                && first.is_multiple_of(outputs)
                && out.len().is_multiple_of(outputs),
            "positions that were prepared"
        );
        if let Packed::Hadamard(factors) = &linear.weights {
            return each_slice!(WordsMut, out, out => {
                let mask = Word::low(low_mask(ring));
                each_slice!(WordsRef, self.x, x => hadamard(factors, first, x, out, mask));
            });
        }
        let first = first / outputs - self.items.start * linear.geometry.positions();
        let positions = first..first + out.len() / outputs;
        let geometry = &linear.geometry;
        let mask = low_mask(ring);
        match (&linear.weights, out) {
            (Packed::Words16(weights), WordsMut::W16(out)) => {
                weights.apply(geometry, &self.scratch.words16, positions, out, mask as u16);
            }
            (Packed::Words32(weights), WordsMut::W32(out)) => {
                weights.apply(geometry, &self.scratch.words32, positions, out, mask as u32);
            }
            (Packed::Words64(weights), WordsMut::W64(out)) => {
                weights.apply(geometry, &self.scratch.words64, positions, out, mask);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Ifma(weights), WordsMut::W64(out)) => {
                ifma::apply(geometry, weights, &self.scratch.words64, positions, out, mask);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Avx2(weights), WordsMut::W16(out)) => {
                avx2::apply(&self.job(weights, prefetch), positions, out, mask as u16);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Avx2(weights), WordsMut::W32(out)) => {
                avx2::apply(&self.job(weights, prefetch), positions, out, mask as u32);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Vnni(weights), WordsMut::W16(out)) => {
                vnni::apply(&self.job(weights, prefetch), positions, out, mask as u16);
            }
            #[cfg(target_arch = "x86_64")]
            (Packed::Vnni(weights), WordsMut::W32(out)) => {
                vnni::apply(&self.job(weights, prefetch), positions, out, mask as u32);
            }
            _ => panic!("words of another ring than of {ring} bits"),
        }
    }

    /// As [`Self::add`], on so many cores.
    pub(super) fn add_on(&self, cores: usize, first: usize, out: WordsMut<'_>) {
        let positions = out.len() / self.linear.outputs();
        if cores < 2 || positions < 2 {
            return self.add(first, out, Prefetch::default());
        }
        let half = positions / 2 * self.linear.outputs();
        let (left, right) = out.split_at(half);
        rayon::join(
            || self.add_on(cores / 2, first, left),
            || self.add_on(cores - cores / 2, first + half, right),
        );
    }

    #[cfg(target_arch = "x86_64")]
    fn job<'a>(&'a self, weights: &'a lines::LineWeights, prefetch: Prefetch) -> lines::Job<'a> {
        let geometry = &self.linear.geometry;
        let limbs = match self.x {
            WordsRef::W16(x) if lines::reads_in_place(geometry, weights) => lines::Limbs::words(x),
            _ => self.scratch.limbs.limbs(),
        };
        lines::Job { geometry, weights, limbs, prefetch }
    }
}

/// `out += factors · x` for the elements from `first` on, counted over the items of a batch.
fn hadamard<S: Word, W: Word>(factors: &[i32], first: usize, x: &[S], out: &mut [W], mask: W) {
    let (mut x, mut out) = (&x[first..first + out.len()], out);
    let mut at = first % factors.len();
    while !out.is_empty() {
        let factors = &factors[at..(at + out.len()).min(factors.len())];
        let (now, later) = out.split_at_mut(factors.len());
        let (of_now, of_later) = x.split_at(factors.len());
        vectorized(
            #[inline(always)]
            || {
                for ((out, &x), &w) in now.iter_mut().zip(of_now).zip(factors) {
                    *out = out.multiply_add(W::low(x.element()), W::weight(w)).and(mask);
                }
            },
        );
        (x, out, at) = (of_later, later, 0);
    }
}
