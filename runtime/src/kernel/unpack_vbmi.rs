//! [`crate::wire::unpack`]'s bits to words by AVX-512 VBMI. Every 64-bit lane takes the eight bytes in which
//! its elements lie, by one permutation of bytes; then every byte of a word is cut out of its lane at a
//! bit of its own. Four words of 16 bits per lane need `4b + 4 ≤ 64`, two of 32 bits `2b + 6 ≤ 64`.

// Loads and stores whose bounds are checked for a whole block.
#![allow(unsafe_code)]

use ir::ring::low_mask;
use ir::word::Word;
use std::arch::x86_64::*;

/// Unpacks as many whole blocks as there are words and bytes for; how many elements they were, always a
/// multiple of eight. Nothing for widths that it does not know, or on other machines.
pub fn unpack<W: Word>(bytes: &[u8], bits: u32, words: &mut [W]) -> usize {
    let is_available = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi");
    let fits = match W::BITS {
        16 => bits <= 15,
        32 => bits <= 29,
        _ => false,
    };
    if !is_available || !fits {
        return 0;
    }
    let block = 512 / W::BITS as usize;
    let step = block * bits as usize / 8;
    let blocks = (words.len() / block).min((bytes.len() + step).saturating_sub(64) / step);
    // SAFETY: the instructions are there, the last block's 64 bytes lie within `bytes`, and its words
    // within `words`.
    unsafe {
        blocks_of::<W>(bytes.as_ptr(), bits as usize, words.as_mut_ptr().cast(), blocks, step)
    };
    blocks * block
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn blocks_of<W: Word>(
    bytes: *const u8,
    bits: usize,
    words: *mut u8,
    blocks: usize,
    step: usize,
) {
    let size = W::BITS as usize / 8;
    let per_lane = 8 / size;
    let (mut indices, mut cuts) = ([0u8; 64], [0u8; 64]);
    for lane in 0..8 {
        let first = lane * per_lane * bits;
        for byte in 0..8 {
            let (word, part) = (byte / size, byte % size);
            indices[lane * 8 + byte] = (first / 8 + byte) as u8;
            cuts[lane * 8 + byte] = ((first % 8 + word * bits + part * 8) % 64) as u8;
        }
    }
    let repeated = if size == 2 { 0x1_0001_0001_0001 } else { 0x1_0000_0001u64 };
    let mask = _mm512_set1_epi64((low_mask(bits as u32) * repeated) as i64);
    // SAFETY: tables of 64 bytes, and blocks that the caller has.
    unsafe {
        let indices = _mm512_loadu_si512(indices.as_ptr().cast());
        let cuts = _mm512_loadu_si512(cuts.as_ptr().cast());
        for block in 0..blocks {
            let source = _mm512_loadu_si512(bytes.add(block * step).cast());
            let lanes = _mm512_permutexvar_epi8(indices, source);
            let cut = _mm512_multishift_epi64_epi8(cuts, lanes);
            _mm512_storeu_si512(words.add(block * 64).cast(), _mm512_and_si512(cut, mask));
        }
    }
}
