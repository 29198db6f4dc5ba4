//! AVX2: `vpmaddwd` multiplies eight pairs of signed words and adds each pair in 32 bits, then a
//! wrapping addition. The one pair whose sum does not fit, −2^15·−2^15 twice, wraps to −2^31, which is
//! right mod 2^32. High limbs are words: the product of bytes, `vpmaddubsw`, saturates and is no use.
//!
//! A tile is `P ≤ 6` positions by one block, two registers each. The limbs are explained in
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

/// Adds the products of `positions` to `out`, their outputs, and reduces by `mask`. Words of 16 or 32 bits.
///
/// # Panics
/// If the machine does not have the instructions, or the buffers are too short.
pub fn apply<W: Word>(job: &Job<'_>, positions: Range<usize>, out: &mut [W], mask: W) {
    assert!(is_available() && (W::BITS == 16 || W::BITS == 32));
    assert!(out.len() == positions.len() * job.geometry.outputs() && job.is_sound(positions.end));
    for group in 0..job.geometry.groups {
        for &span in &job.weights.spans {
            for block in 0..span.blocks {
                let mut done = 0;
                while done < positions.len() {
                    let left = positions.len() - done;
                    let at = At { group, span, block, position: positions.start + done };
                    let out = &mut out[done * job.geometry.outputs()..];
                    // SAFETY: the instructions are there, and the limbs reach to the last position.
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
    position: usize,
}

/// Computes the largest tile of at most `left` positions; how many they were.
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
    job.geometry.bases(at.position, &mut bases);
    let mut sums = [[_mm256_setzero_si256(); 2]; P];
    for (i, &limb) in job.weights.limbs.iter().enumerate() {
        if i > 0 {
            sums.as_flattened_mut().iter_mut().for_each(|s| *s = _mm256_slli_epi32::<16>(*s));
        }
        let lines = job.weights.lines(limb, at.group, at.span)[at.block..].as_ptr();
        let (bytes, width) = job.limb(limb);
        let group = at.group * job.geometry.group_inputs;
        let steps = job.weights.steps(limb);
        // SAFETY: the caller's limbs reach as far as the positions; lines hold the span's of every step.
        unsafe {
            let bases = bases.map(|base| bytes.add((base + group) * width));
            multiply(&mut sums, lines, at.span.blocks, bases, &job.geometry.runs, steps);
        }
    }
    let outputs = job.geometry.outputs();
    let first = (at.span.first + at.block) * BLOCK;
    let lanes = BLOCK.min(job.geometry.group_outputs - first);
    for (position, sums) in sums.iter().enumerate() {
        let mut words = [0i32; BLOCK];
        let start = position * outputs + at.group * job.geometry.group_outputs + first;
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
