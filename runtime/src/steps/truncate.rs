//! Local truncation of shares that also drops the top bits, and of masked values.
//!
//! The parties hold `s₀ + s₁ = z mod 2^Q` and want shares of `z >> t` mod 2^(Q−t). Party 0 takes
//! `s₀ >> t`; party 1 takes `−((−s₁ mod 2^Q) >> t)`. With `n = −s₁ mod 2^Q` the first is `(z + n) >> t`
//! up to a multiple of 2^(Q−t), which the smaller ring does not see, so the sum is
//! `⌊(z + n mod 2^t) / 2^t⌋`: `z >> t`, or one more with the probability of `z`'s dropped bits.
//! A wrap lies in the bits that are dropped, so nothing can fail.

use ir::ring::low_mask;
use ir::word::Word;

/// Party 0's share of `z >> shift` mod 2^(q − shift); `q` at most the word's bits.
#[inline(always)]
pub fn party0<W: Word>(share: W, q: u32, shift: u32) -> W {
    share.and(W::low(low_mask(q))).shift_right(shift)
}

/// Party 1's share of `z >> shift` mod 2^(q − shift); `q` at most the word's bits.
#[inline(always)]
pub fn party1<W: Word>(share: W, q: u32, shift: u32) -> W {
    let zero = W::default();
    zero.minus(party0(zero.minus(share), q, shift)).and(W::low(low_mask(q - shift)))
}

/// As [`party0`] for `q` up to 127; `q − shift` at most 64.
pub fn wide_party0(share: u128, q: u32, shift: u32) -> u64 {
    ((share & wide_mask(q)) >> shift) as u64
}

/// As [`party1`] for `q` up to 127; `q − shift` at most 64.
pub fn wide_party1(share: u128, q: u32, shift: u32) -> u64 {
    (((share.wrapping_neg() & wide_mask(q)) >> shift) as u64).wrapping_neg() & low_mask(q - shift)
}

/// What either party does with its side of a masked value of `ring + shift` bits, to divide by
/// `2^shift`: `Δ >> shift` and `m >> shift` are a masked value of `ring` bits.
#[inline(always)]
pub fn masked<W: Word>(side: W, ring: u32, shift: u32) -> W {
    side.and(W::low(low_mask(ring + shift))).shift_right(shift)
}

/// The low `bits` bits set; `bits` from 0 to 127.
pub fn wide_mask(bits: u32) -> u128 {
    (1 << bits) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn carry_is_exact(z: u64, low: u64, got: u64, shift: u32, ring: u32) -> bool {
        let want = ((u128::from(z) + u128::from(low)) >> shift) as u64 & low_mask(ring);
        got == want
    }

    #[test]
    fn shares_truncate_to_one_unit_with_the_predicted_carry() {
        let mut random = Random::new(1);
        for _ in 0..200_000 {
            let q = random.between(2, 64) as u32;
            let shift = random.between(0, u64::from(q) - 1) as u32;
            let edges = [0, 1, low_mask(q), low_mask(q) >> 1, low_mask(shift)];
            let pick = random.between(0, 9) as usize;
            let z = edges.get(pick).copied().unwrap_or_else(|| random.bits(q));
            let s1 = edges.get(pick / 2).copied().unwrap_or_else(|| random.bits(q));
            let s0 = z.wrapping_sub(s1) & low_mask(q);
            let sum = party0(s0, q, shift).wrapping_add(party1(s1, q, shift));
            let low = s1.wrapping_neg() & low_mask(shift);
            assert!(carry_is_exact(z, low, sum & low_mask(q - shift), shift, q - shift));
            let wide =
                wide_party0(s0.into(), q, shift).wrapping_add(wide_party1(s1.into(), q, shift));
            assert_eq!(wide & low_mask(q - shift), sum & low_mask(q - shift));
        }
    }

    #[test]
    fn wide_shares_truncate_to_one_unit() {
        let mut random = Random::new(2);
        for _ in 0..100_000 {
            let q = random.between(65, 127) as u32;
            let shift = random.between(u64::from(q) - 64, u64::from(q) - 1) as u32;
            let z = random.wide(q);
            let s1 = random.wide(q);
            let s0 = z.wrapping_sub(s1) & wide_mask(q);
            let sum = wide_party0(s0, q, shift).wrapping_add(wide_party1(s1, q, shift));
            let low = s1.wrapping_neg() & wide_mask(shift);
            let want = ((z + low) >> shift) as u64 & low_mask(q - shift);
            assert_eq!(sum & low_mask(q - shift), want);
        }
    }

    #[test]
    fn masked_values_rescale_to_one_unit() {
        let mut random = Random::new(3);
        for _ in 0..100_000 {
            let ring = random.between(1, 40) as u32;
            let shift = random.between(0, 64 - u64::from(ring)) as u32;
            let (y, m) = (random.bits(ring + shift), random.bits(ring + shift));
            let delta = y.wrapping_add(m);
            let got = masked(delta, ring, shift).wrapping_sub(masked(m, ring, shift));
            assert!(carry_is_exact(y, m & low_mask(shift), got & low_mask(ring), shift, ring));
        }
    }
}
