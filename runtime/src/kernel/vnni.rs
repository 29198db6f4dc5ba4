//! AVX-512 with VNNI: 16 output channels per register, `vpdpwssd` for words and `vpdpbusd` for bytes.
//!
//! A tile is `P` positions by `B` blocks of sums in registers, `P·B ≤ 24`; per step it loads `B` lines of
//! weights and repeats the step of every position in all lanes. Both instructions are the wrapping forms,
//! never the saturating ones: a pair of words whose products sum to 2^31 wraps, as it should. The
//! bytes of elements are unsigned, those of weights signed, as `vpdpbusd` has them. The limbs
//! are explained in [`super::lines`].
//!
//! Cost: 32 products per instruction; the sums stay in registers for all of a position's inputs.

// Pointers into limbs and lines, and instructions that the machine was asked for at run time.
#![allow(unsafe_code)]

use super::lines::{BLOCK, Job, Limb, Line, Span};
use ir::word::Word;
use std::arch::x86_64::*;
use std::ops::Range;

/// Whether this machine has the instructions.
pub fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// Adds the products of `positions` to `out`, their outputs, and reduces by `mask`. Words of 16 or 32 bits.
///
/// # Panics
/// If the machine does not have the instructions, or the buffers are too short.
pub fn apply<W: Word>(job: &Job<'_>, positions: Range<usize>, out: &mut [W], mask: W) {
    assert!(is_available() && (W::BITS == 16 || W::BITS == 32));
    assert!(out.len() == positions.len() * job.geometry.outputs() && job.is_sound(positions.end));
    let tiles = job.geometry.groups * job.weights.spans.len() * positions.len().div_ceil(LARGEST);
    let lines = |&(address, bytes): &(usize, usize)| (address..address + bytes).step_by(LINE);
    let mut prefetch = job.prefetch.parts.iter().flat_map(lines);
    let bytes: usize = job.prefetch.parts.iter().map(|part| part.1).sum();
    let per_tile = bytes.div_ceil(LINE * tiles.max(1));
    for group in 0..job.geometry.groups {
        for &span in &job.weights.spans {
            let mut done = 0;
            while done < positions.len() {
                let left = positions.len() - done;
                let at = At { group, span, position: positions.start + done };
                let out = &mut out[done * job.geometry.outputs()..];
                // SAFETY: the instructions are there, and the limbs reach as far as the last position.
                done += unsafe { tile(job, at, left, out, mask) };
                prefetch.by_ref().take(per_tile).for_each(fetch);
            }
        }
    }
}

/// Positions of the largest tile.
const LARGEST: usize = 8;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Brings the line of an address into the second level of the cache.
fn fetch(address: usize) {
    // SAFETY: a hint, which reads nothing and does not fault, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(address)) };
}

/// Which outputs a tile makes.
#[derive(Clone, Copy)]
struct At {
    group: usize,
    span: Span,
    position: usize,
}

/// Computes the largest tile of at most `left` positions; how many they were.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<W: Word>(job: &Job<'_>, at: At, left: usize, out: &mut [W], mask: W) -> usize {
    macro_rules! first_that_fits {
        ($blocks:literal: $($positions:literal)*) => {{
            // SAFETY: as the caller's.
            $(if left >= $positions {
                unsafe { sums::<W, $positions, $blocks>(job, at, out, mask) };
                return $positions;
            })*
            unreachable!("a tile of one position fits")
        }};
    }
    match at.span.blocks {
        1 => first_that_fits!(1: 8 6 4 3 2 1),
        2 => first_that_fits!(2: 8 6 4 3 2 1),
        3 => first_that_fits!(3: 8 6 4 3 2 1),
        _ => first_that_fits!(4: 6 5 4 3 2 1),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn sums<W: Word, const P: usize, const B: usize>(
    job: &Job<'_>,
    at: At,
    out: &mut [W],
    mask: W,
) {
    let mut bases = [0; P];
    job.geometry.bases(at.position, &mut bases);
    let mut sums = [[_mm512_setzero_si512(); B]; P];
    for (i, &limb) in job.weights.limbs.iter().enumerate() {
        if i > 0 {
            sums.as_flattened_mut().iter_mut().for_each(|s| *s = _mm512_slli_epi32::<16>(*s));
        }
        let lines = job.weights.lines(limb, at.group, at.span).as_ptr();
        let (bytes, width) = job.limb(limb);
        let group = at.group * job.geometry.group_inputs;
        let steps = job.weights.steps(limb);
        // SAFETY: the caller's limbs reach as far as the positions; lines hold `B` of every step.
        unsafe {
            let bases = bases.map(|base| bytes.add((base + group) * width));
            if limb == Limb::HighBytes {
                multiply::<P, B, true>(&mut sums, lines, bases, &job.geometry.runs, width, steps);
            } else {
                multiply::<P, B, false>(&mut sums, lines, bases, &job.geometry.runs, width, steps);
            }
        }
    }
    let outputs = job.geometry.outputs();
    for (position, sums) in sums.iter().enumerate() {
        for (block, &sum) in sums.iter().enumerate() {
            let first = (at.span.first + block) * BLOCK;
            let lanes = BLOCK.min(job.geometry.group_outputs - first);
            let start = position * outputs + at.group * job.geometry.group_outputs + first;
            let out = &mut out[start..start + lanes];
            // SAFETY: the lanes are the length of `out`.
            unsafe { add(sum, out, mask) };
        }
    }
}

/// `sums += lines · steps` over all runs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn multiply<const P: usize, const B: usize, const BYTES: bool>(
    sums: &mut [[__m512i; B]; P],
    mut lines: *const Line,
    bases: [*const u8; P],
    runs: &[usize],
    width: usize,
    steps: usize,
) {
    let mut kept = *sums;
    for &run in runs {
        for step in 0..steps {
            let at = run * width + step * 4;
            // SAFETY: the caller's bases reach as far as every run's steps, and the lines are `B` per
            // step of every run.
            unsafe {
                let weights: [__m512i; B] =
                    std::array::from_fn(|b| _mm512_load_si512(lines.wrapping_add(b).cast()));
                lines = lines.wrapping_add(B);
                for p in 0..P {
                    let x =
                        _mm512_set1_epi32(bases[p].wrapping_add(at).cast::<i32>().read_unaligned());
                    for b in 0..B {
                        kept[p][b] = if BYTES {
                            _mm512_dpbusd_epi32(kept[p][b], x, weights[b])
                        } else {
                            _mm512_dpwssd_epi32(kept[p][b], x, weights[b])
                        };
                    }
                }
            }
        }
    }
    *sums = kept;
}

/// `out = (out + sum) & mask`, as many lanes as `out` has.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn add<W: Word>(sum: __m512i, out: &mut [W], mask: W) {
    let lanes = ((1u32 << out.len()) - 1) as __mmask16;
    let pointer = out.as_mut_ptr();
    // SAFETY: only lanes of `out` are read and written; the word is as wide as the branch says.
    unsafe {
        if W::BITS == 16 {
            let old = _mm256_maskz_loadu_epi16(lanes, pointer.cast());
            let new = _mm256_add_epi16(old, _mm512_cvtepi32_epi16(sum));
            let new = _mm256_and_si256(new, _mm256_set1_epi16(mask.element() as i16));
            _mm256_mask_storeu_epi16(pointer.cast(), lanes, new);
        } else {
            let old = _mm512_maskz_loadu_epi32(lanes, pointer.cast());
            let new = _mm512_add_epi32(old, sum);
            let new = _mm512_and_si512(new, _mm512_set1_epi32(mask.element() as i32));
            _mm512_mask_storeu_epi32(pointer.cast(), lanes, new);
        }
    }
}

/// Products per nanosecond where nothing is loaded.
///
/// # Panics
/// If the machine does not have the instructions.
pub fn peak() -> f64 {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn chains(rounds: usize) -> i32 {
        let x = _mm512_set1_epi32(std::hint::black_box(0x0003_0005));
        let mut sums: [__m512i; 24] =
            std::array::from_fn(|i| _mm512_set1_epi32(std::hint::black_box(i as i32)));
        for _ in 0..rounds {
            sums.iter_mut().for_each(|s| *s = _mm512_dpwssd_epi32(*s, x, x));
        }
        sums.iter().fold(0, |sum, s| sum.wrapping_add(_mm512_reduce_add_epi32(*s)))
    }
    assert!(is_available());
    let rounds = 20_000;
    let start = std::time::Instant::now();
    // SAFETY: the instructions are there.
    std::hint::black_box(unsafe { chains(rounds) });
    (rounds * 24 * 32) as f64 / start.elapsed().as_nanos() as f64
}
