//! [`crate::wire::pack`]'s words to bits by BMI2: `pext` joins the low bits of the words that stand in 64
//! bits, and its time does not depend on them. Eight elements of `b` bits are `b` bytes; they are written
//! as 16 or 32, and the next eight begin behind the `b`.

// One call of a function that needs an instruction which is asked for.
#![allow(unsafe_code)]

use ir::ring::low_mask;
use ir::word::Word;
use std::arch::x86_64::_pext_u64;

/// Bytes that are written at most behind the last of the elements' own.
pub const SLACK: usize = 32;

/// Packs as many groups of eight words as there are, into at least [`SLACK`] bytes more than they need;
/// how many elements they were. Nothing for widths that it does not know, or on other machines.
pub fn pack<W: Word>(words: &[W], bits: u32, bytes: &mut [u8]) -> usize {
    if !matches!(W::BITS, 16 | 32) || bits > W::BITS || !is_x86_feature_detected!("bmi2") {
        return 0;
    }
    let (groups, _) = words.as_chunks::<8>();
    // SAFETY: the instruction is there.
    unsafe {
        match W::BITS {
            16 => halves(groups, bits, bytes),
            _ => words_of_32(groups, bits, bytes),
        }
    }
    groups.len() * 8
}

#[target_feature(enable = "bmi2")]
fn halves<W: Word>(groups: &[[W; 8]], bits: u32, bytes: &mut [u8]) {
    let mask = low_mask(bits) * 0x1_0001_0001_0001;
    for (i, words) in groups.iter().enumerate() {
        let four = |at: usize| {
            let word = |j: usize| words[at + j].element() << (16 * j);
            u128::from(_pext_u64(word(0) | word(1) | word(2) | word(3), mask))
        };
        let all = four(0) | four(4) << (4 * bits);
        let at = i * bits as usize;
        bytes[at..at + 16].copy_from_slice(&all.to_le_bytes());
    }
}

#[target_feature(enable = "bmi2")]
fn words_of_32<W: Word>(groups: &[[W; 8]], bits: u32, bytes: &mut [u8]) {
    let mask = low_mask(bits) * 0x1_0000_0001;
    for (i, words) in groups.iter().enumerate() {
        let two = |at: usize| {
            u128::from(_pext_u64(words[at].element() | words[at + 1].element() << 32, mask))
        };
        let (first, second) = (two(0) | two(2) << (2 * bits), two(4) | two(6) << (2 * bits));
        let low = first | second.unbounded_shl(4 * bits);
        let high = second.unbounded_shr(128 - 4 * bits);
        let at = i * bits as usize;
        bytes[at..at + 16].copy_from_slice(&low.to_le_bytes());
        bytes[at + 16..at + 32].copy_from_slice(&high.to_le_bytes());
    }
}
