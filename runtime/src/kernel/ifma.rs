//! AVX-512 with IFMA, for rings of 33 to 52 bits: `vpmadd52luq` adds the low 52 bits of a product of 52-bit
//! numbers to a sum of 64 bits, so that the low 52 bits of the sum are right mod 2^52, and so mod 2^k.
//!
//! A tile is `P` positions by `B` blocks of 8 output channels, `P·B ≤ 24`; per element of a run it loads a line of
//! weights for every block and repeats the element of every position in all lanes. Bits of elements and weights
//! above the 52nd, signs among them, are not read.
//!
//! Cost: 8 products per instruction, where 64-bit words take a multiplication and an addition.

// Pointers into planes and lines, and instructions that the machine was asked for at run time.
#![allow(unsafe_code)]

use super::geometry::Geometry;
use super::portable::PortableWeights;
use std::arch::x86_64::*;
use std::ops::Range;

/// The widest ring.
pub const WIDEST: u32 = 52;
/// Output channels of a block, as [`PortableWeights`] has them for words of 64 bits.
const BLOCK: usize = 8;

/// Whether this machine has the instructions.
pub fn is_available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")
}

/// Adds the products of `positions` to `out`, their outputs, and reduces by `mask`, of at most [`WIDEST`] bits;
/// `planes` are the padded images.
///
/// # Panics
/// If the machine does not have the instructions, or the buffers are too short.
pub fn apply(
    geometry: &Geometry,
    weights: &PortableWeights<u64>,
    planes: &[u64],
    positions: Range<usize>,
    out: &mut [u64],
    mask: u64,
) {
    assert!(is_available() && mask >> WIDEST == 0);
    assert!(out.len() == positions.len() * geometry.outputs());
    let mut last = [0];
    if let Some(position) = positions.end.checked_sub(1) {
        geometry.bases(position, &mut last);
    }
    let run = geometry.runs.iter().max().copied().unwrap_or(0);
    let reach = last[0] + (geometry.groups - 1) * geometry.group_inputs + run + geometry.run;
    assert!(positions.is_empty() || reach <= planes.len(), "positions whose operands are there");
    let blocks = geometry.group_outputs.div_ceil(BLOCK);
    let lines = weights.words().as_chunks::<BLOCK>().0;
    assert!(lines.len() == geometry.groups * blocks * geometry.fan_in());
    for group in 0..geometry.groups {
        let mut block = 0;
        while block < blocks {
            let mut done = 0;
            let most = (blocks - block).min(4);
            while done < positions.len() {
                let at = At { group, block, blocks, position: positions.start + done };
                let left = positions.len() - done;
                let out = &mut out[done * geometry.outputs()..];
                // SAFETY: the instructions are there, the planes reach as far as the last position, and the lines are
                // those of all groups' blocks.
                done += unsafe { tile(geometry, lines, planes, at, most, left, out, mask) };
            }
            block += most;
        }
    }
}

/// Which outputs a tile makes: blocks of a group from one on, of so many.
#[derive(Clone, Copy)]
struct At {
    group: usize,
    block: usize,
    blocks: usize,
    position: usize,
}

/// Computes the largest tile of `blocks` and at most `left` positions; how many positions they were.
#[target_feature(enable = "avx512f,avx512ifma")]
#[allow(clippy::too_many_arguments)]
unsafe fn tile(
    geometry: &Geometry,
    lines: &[[u64; BLOCK]],
    planes: &[u64],
    at: At,
    blocks: usize,
    left: usize,
    out: &mut [u64],
    mask: u64,
) -> usize {
    macro_rules! first_that_fits {
        ($blocks:literal: $($positions:literal)*) => {{
            // SAFETY: as the caller's.
            $(if left >= $positions {
                unsafe { sums::<$positions, $blocks>(geometry, lines, planes, at, out, mask) };
                return $positions;
            })*
            unreachable!("a tile of one position fits")
        }};
    }
    match blocks {
        1 => first_that_fits!(1: 8 4 2 1),
        2 => first_that_fits!(2: 8 4 2 1),
        3 => first_that_fits!(3: 8 4 2 1),
        _ => first_that_fits!(4: 6 4 2 1),
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn sums<const P: usize, const B: usize>(
    geometry: &Geometry,
    lines: &[[u64; BLOCK]],
    planes: &[u64],
    at: At,
    out: &mut [u64],
    mask: u64,
) {
    let mut bases = [0; P];
    geometry.bases(at.position, &mut bases);
    let per_block = geometry.fan_in();
    let first = (at.group * at.blocks + at.block) * per_block;
    let mut sums = [[_mm512_setzero_si512(); B]; P];
    let mut line = lines[first..].as_ptr();
    for &run in &geometry.runs {
        let elements =
            bases.map(|base| planes[base + at.group * geometry.group_inputs + run..].as_ptr());
        for i in 0..geometry.run {
            // SAFETY: the caller's planes reach to the end of every run, and the lines to that of the last of
            // the blocks.
            unsafe {
                let weights: [__m512i; B] = std::array::from_fn(|b| {
                    _mm512_loadu_si512(line.wrapping_add(b * per_block).cast())
                });
                line = line.wrapping_add(1);
                for p in 0..P {
                    let x = _mm512_set1_epi64(elements[p].wrapping_add(i).read() as i64);
                    for b in 0..B {
                        sums[p][b] = _mm512_madd52lo_epu64(sums[p][b], x, weights[b]);
                    }
                }
            }
        }
    }
    let outputs = geometry.outputs();
    for (position, sums) in sums.iter().enumerate() {
        for (block, sum) in sums.iter().enumerate() {
            let first = (at.block + block) * BLOCK;
            let lanes = BLOCK.min(geometry.group_outputs - first);
            let start = position * outputs + at.group * geometry.group_outputs + first;
            let mut words = [0u64; BLOCK];
            // SAFETY: a register fills the words.
            unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), *sum) };
            for (out, word) in out[start..start + lanes].iter_mut().zip(words) {
                *out = out.wrapping_add(word) & mask;
            }
        }
    }
}
