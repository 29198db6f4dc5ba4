//! [`super::sums`] by AVX-512. Four words of a row (a *quad*) of several elements fill a register, are
//! multiplied with the elements' products, and the four registers of a block of elements are added
//! across by the transposition of 4 × 4 words; a last pair of words is a quad with zeros.

// Loads of rows and products, whose bounds are checked for a whole block of elements.
#![allow(unsafe_code)]

use ir::word::Word;
use std::arch::x86_64::*;

/// Writes the sums of as many blocks of elements as there are; how many elements they were.
///
/// # Panics
/// If an element asks for a row that is not there, or there are too few products.
pub fn row_sums<Q: Word>(
    per: usize,
    rows: &[Q],
    opening: &[u16],
    products: &[Q],
    sums: &mut [Q],
) -> usize {
    let is_available = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
    if Q::BITS == 16 || !is_available {
        return 0;
    }
    match per {
        2 => blocks::<Q, 2>(rows, opening, products, sums),
        4 => blocks::<Q, 4>(rows, opening, products, sums),
        6 => blocks::<Q, 6>(rows, opening, products, sums),
        8 => blocks::<Q, 8>(rows, opening, products, sums),
        _ => 0,
    }
}

fn blocks<Q: Word, const PER: usize>(
    rows: &[Q],
    opening: &[u16],
    products: &[Q],
    sums: &mut [Q],
) -> usize {
    let per = PER;
    assert!(sums.len() == opening.len() && products.len() >= per * opening.len());
    let most = opening.iter().copied().max().map_or(0, |e| usize::from(e) + 1);
    assert!(most * per <= rows.len(), "a row that is not there");
    let (rows, products, out) = (rows.as_ptr(), products.as_ptr(), sums.as_mut_ptr());
    // SAFETY: the instructions are there; rows, products and sums reach as far as was checked.
    unsafe { all_blocks::<Q, PER>(rows, opening, products, out) }
}

#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn all_blocks<Q: Word, const PER: usize>(
    rows: *const Q,
    opening: &[u16],
    products: *const Q,
    out: *mut Q,
) -> usize {
    let block = 512 / Q::BITS as usize;
    let mut at = 0;
    while at + block <= opening.len() {
        // SAFETY: as the caller's; the words are as wide as the branch says.
        unsafe {
            let opening = opening.as_ptr().add(at);
            let (products, out) = (products.add(at * PER), out.add(at));
            if Q::BITS == 32 {
                block32::<PER>(rows.cast(), opening, products.cast(), out.cast());
            } else {
                block64::<PER>(rows.cast(), opening, products.cast(), out.cast());
            }
        }
        at += block;
    }
    at
}

/// Sixteen elements of 32-bit words.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
unsafe fn block32<const PER: usize>(
    rows: *const u32,
    opening: *const u16,
    products: *const u32,
    out: *mut u32,
) {
    let mut sums = [_mm512_setzero_si512(); 4];
    // Volatile, or the compiler computes addresses in vector registers, from which each must be moved.
    // SAFETY: the block's elements are there.
    let row = |i: usize| unsafe { rows.add(usize::from(opening.add(i).read_volatile()) * PER) };
    // SAFETY: quads and pairs lie within the rows and products of the block's elements.
    unsafe {
        for quad in (0..PER - PER % 4).step_by(4) {
            for (v, sum) in sums.iter_mut().enumerate() {
                let looked_up = four(|i| load_quad(row(4 * v + i).add(quad)));
                let own = products.add(4 * v * PER + quad);
                let own = if PER == 4 {
                    _mm512_loadu_si512(own.cast())
                } else {
                    four(|i| load_quad(own.add(i * PER)))
                };
                *sum = _mm512_add_epi32(*sum, _mm512_mullo_epi32(looked_up, own));
            }
        }
        let [a, b, c, d] = sums;
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let mut all = _mm512_permutexvar_epi32(order, all);
        if PER % 4 == 2 {
            let low = last_pairs32::<PER>(rows, opening, products);
            let high = last_pairs32::<PER>(rows, opening.add(8), products.add(8 * PER));
            let pairs = _mm512_inserti32x8::<1>(_mm512_castsi256_si512(low), high);
            all = if PER == 2 { pairs } else { _mm512_add_epi32(all, pairs) };
        }
        _mm512_storeu_si512(out.cast(), all);
    }
}

/// The sums of the last two products of eight elements, 32-bit words.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
unsafe fn last_pairs32<const PER: usize>(
    rows: *const u32,
    opening: *const u16,
    products: *const u32,
) -> __m256i {
    // SAFETY: as the caller's block.
    unsafe {
        let row = |i: usize| rows.add(usize::from(opening.add(i).read_volatile()) * PER + PER - 2);
        let own = |i: usize| products.add(i * PER + PER - 2);
        let two = |a: *const u32, b: *const u32| _mm_unpacklo_epi64(load_pair(a), load_pair(b));
        let looked_up =
            [two(row(0), row(1)), two(row(2), row(3)), two(row(4), row(5)), two(row(6), row(7))];
        let own = if PER == 2 {
            _mm512_loadu_si512(products.cast())
        } else {
            let pairs = [
                two(own(0), own(1)),
                two(own(2), own(3)),
                two(own(4), own(5)),
                two(own(6), own(7)),
            ];
            four(|i| pairs[i])
        };
        let pairs = _mm512_mullo_epi32(four(|i| looked_up[i]), own);
        _mm512_cvtepi64_epi32(_mm512_add_epi32(pairs, _mm512_srli_epi64::<32>(pairs)))
    }
}

/// The last two products of four elements, 64-bit words.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
unsafe fn last_pairs64<const PER: usize>(
    rows: *const u64,
    opening: *const u16,
    products: *const u64,
) -> __m512i {
    // SAFETY: as the caller's block.
    unsafe {
        let row = |i: usize| rows.add(usize::from(opening.add(i).read_volatile()) * PER + PER - 2);
        let own = |i: usize| products.add(i * PER + PER - 2);
        let looked_up = four(|i| load_quad(row(i).cast()));
        let own = if PER == 2 {
            _mm512_loadu_si512(products.cast())
        } else {
            four(|i| load_quad(own(i).cast()))
        };
        _mm512_mullo_epi64(looked_up, own)
    }
}

/// Eight elements of 64-bit words.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
unsafe fn block64<const PER: usize>(
    rows: *const u64,
    opening: *const u16,
    products: *const u64,
    out: *mut u64,
) {
    let mut sums = [_mm512_setzero_si512(); 4];
    // Volatile, or the compiler computes addresses in vector registers, from which each must be moved.
    // SAFETY: the block's elements are there.
    let row = |i: usize| unsafe { rows.add(usize::from(opening.add(i).read_volatile()) * PER) };
    // SAFETY: quads and pairs lie within the rows and products of the block's elements.
    unsafe {
        for quad in (0..PER - PER % 4).step_by(4) {
            for (v, sum) in sums.iter_mut().enumerate() {
                let looked_up = two(|i| _mm256_loadu_si256(row(2 * v + i).add(quad).cast()));
                let own = products.add(2 * v * PER + quad);
                let own = two(|i| _mm256_loadu_si256(own.add(i * PER).cast()));
                *sum = _mm512_add_epi64(*sum, _mm512_mullo_epi64(looked_up, own));
            }
        }
        let [a, b, c, d] = sums;
        let ab = _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        let cd = _mm512_add_epi64(_mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d));
        let even = _mm512_shuffle_i64x2::<0b10_00_10_00>(ab, cd);
        let odd = _mm512_shuffle_i64x2::<0b11_01_11_01>(ab, cd);
        let order = _mm512_setr_epi64(0, 2, 1, 3, 4, 6, 5, 7);
        let mut all = _mm512_permutexvar_epi64(order, _mm512_add_epi64(even, odd));
        if PER % 4 == 2 {
            let a = last_pairs64::<PER>(rows, opening, products);
            let b = last_pairs64::<PER>(rows, opening.add(4), products.add(4 * PER));
            let sums = _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
            let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
            let pairs = _mm512_permutexvar_epi64(order, sums);
            all = if PER == 2 { pairs } else { _mm512_add_epi64(all, pairs) };
        }
        _mm512_storeu_si512(out.cast(), all);
    }
}

#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
unsafe fn load_quad(at: *const u32) -> __m128i {
    // SAFETY: the caller's sixteen bytes.
    unsafe { _mm_loadu_si128(at.cast()) }
}

#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
unsafe fn load_pair(at: *const u32) -> __m128i {
    // SAFETY: the caller's eight bytes.
    unsafe { _mm_loadl_epi64(at.cast()) }
}

/// Four quads in one register.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn four(quad: impl Fn(usize) -> __m128i) -> __m512i {
    let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(quad(0)), quad(1));
    _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, quad(2)), quad(3))
}

/// Two quads of 64-bit words in one register.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn two(quad: impl Fn(usize) -> __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(quad(0)), quad(1))
}
