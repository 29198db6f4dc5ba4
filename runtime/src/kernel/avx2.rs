//! AVX2: `vpmaddwd` multiplies eight pairs of signed words and adds each pair in 32 bits, then a
//! wrapping addition. The one pair whose sum does not fit, −2^15·−2^15 twice, wraps to −2^31, which is
//! right mod 2^32. High limbs are words: the product of bytes, `vpmaddubsw`, saturates and is no use.
//!
//! A tile is `P ≤ 6` places by one block, two registers each. The meaning of the limbs stands in
//! [`super::lines`].

// Pointers into limbs and lines, and instructions that the machine was asked for at run time.
#![allow(unsafe_code)]

use super::lines::{BLOCK, Job, Line, Span};
use ir::word::Word;
use std::arch::x86_64::*;
use std::ops::Range;

/// Whether this machine has the instructions.
pub fn is_available() -> bool {
    is_x86_feature_detected!("avx2")
}

/// Adds the products of `places` to `out`, their outputs, and reduces by `mask`. Words of 16 or 32 bits.
///
/// # Panics
/// If the machine does not have the instructions, or the buffers are too short.
pub fn apply<W: Word>(job: &Job<'_>, places: Range<usize>, out: &mut [W], mask: W) {
    assert!(is_available() && (W::BITS == 16 || W::BITS == 32));
    assert!(out.len() == places.len() * job.walk.outputs() && job.is_sound(places.end));
    for group in 0..job.walk.groups {
        for &span in &job.weights.spans {
            for block in 0..span.blocks {
                let mut done = 0;
                while done < places.len() {
                    let left = places.len() - done;
                    let at = At { group, span, block, place: places.start + done };
                    let out = &mut out[done * job.walk.outputs()..];
                    // SAFETY: the instructions are there, and the limbs reach to the last place.
                    done += unsafe { tile(job, at, left, out, mask) };
                }
            }
        }
    }
}

/// Which outputs a tile makes.
#[derive(Clone, Copy)]
struct At {
    group: usize,
    span: Span,
    block: usize,
    place: usize,
}

/// Computes the largest tile of at most `left` places; how many they were.
#[target_feature(enable = "avx2")]
unsafe fn tile<W: Word>(job: &Job<'_>, at: At, left: usize, out: &mut [W], mask: W) -> usize {
    // SAFETY: as the caller's.
    unsafe {
        match left {
            6.. => sums::<W, 6>(job, at, out, mask),
            4.. => sums::<W, 4>(job, at, out, mask),
            2.. => sums::<W, 2>(job, at, out, mask),
            _ => sums::<W, 1>(job, at, out, mask),
        }
    }
}

#[target_feature(enable = "avx2")]
unsafe fn sums<W: Word, const P: usize>(job: &Job<'_>, at: At, out: &mut [W], mask: W) -> usize {
    let mut bases = [0; P];
    job.walk.bases(at.place, &mut bases);
    let mut sums = [[_mm256_setzero_si256(); 2]; P];
    for (i, &limb) in job.weights.limbs.iter().enumerate() {
        if i > 0 {
            sums.as_flattened_mut().iter_mut().for_each(|s| *s = _mm256_slli_epi32::<16>(*s));
        }
        let lines = job.weights.lines(limb, at.group, at.span)[at.block..].as_ptr();
        let (bytes, width) = job.limb(limb);
        let group = at.group * job.walk.group_inputs;
        let steps = job.weights.steps(limb);
        // SAFETY: the caller's limbs reach as far as the places; lines hold the span's of every step.
        unsafe {
            let bases = bases.map(|base| bytes.add((base + group) * width));
            multiply(&mut sums, lines, at.span.blocks, bases, &job.walk.runs, steps);
        }
    }
    let outputs = job.walk.outputs();
    let first = (at.span.first + at.block) * BLOCK;
    let lanes = BLOCK.min(job.walk.group_outputs - first);
    for (place, sums) in sums.iter().enumerate() {
        let mut words = [0i32; BLOCK];
        let start = place * outputs + at.group * job.walk.group_outputs + first;
        // SAFETY: two registers fill the words.
        unsafe {
            _mm256_storeu_si256(words.as_mut_ptr().cast(), sums[0]);
            _mm256_storeu_si256(words.as_mut_ptr().add(8).cast(), sums[1]);
        }
        for (out, word) in out[start..start + lanes].iter_mut().zip(words) {
            *out = out.plus(W::low(word as u64)).and(mask);
        }
    }
    P
}

/// `sums += lines · steps` over all runs; lines of other blocks lie between.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn multiply<const P: usize>(
    sums: &mut [[__m256i; 2]; P],
    mut lines: *const Line,
    blocks: usize,
    bases: [*const u8; P],
    runs: &[usize],
    steps: usize,
) {
    let mut kept = *sums;
    for &run in runs {
        for step in 0..steps {
            let at = run * 2 + step * 4;
            // SAFETY: the caller's bases reach as far as every run's steps, and the lines are the
            // span's per step of every run.
            unsafe {
                let low = _mm256_load_si256(lines.cast());
                let high = _mm256_load_si256(lines.cast::<__m256i>().wrapping_add(1));
                lines = lines.wrapping_add(blocks);
                for p in 0..P {
                    let x =
                        _mm256_set1_epi32(bases[p].wrapping_add(at).cast::<i32>().read_unaligned());
                    kept[p][0] = _mm256_add_epi32(kept[p][0], _mm256_madd_epi16(x, low));
                    kept[p][1] = _mm256_add_epi32(kept[p][1], _mm256_madd_epi16(x, high));
                }
            }
        }
    }
    *sums = kept;
}
