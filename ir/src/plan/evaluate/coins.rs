//! The random bits behind the carries of truncations.

use super::Rounding;
use crate::ring::low_mask;

/// What a truncation adds before it drops bits: half of their range, or uniform bits, as a mask has them.
pub struct Coins {
    state: Option<u64>,
}

impl Coins {
    pub(in crate::plan) fn new(rounding: Rounding) -> Self {
        match rounding {
            Rounding::Nearest => Self { state: None },
            Rounding::Sampled(seed) => Self { state: Some(seed) },
        }
    }

    pub(in crate::plan) fn sampled(&self) -> bool {
        self.state.is_some()
    }

    pub(in crate::plan) fn low(&mut self, bits: u32) -> u64 {
        match self.state {
            None => 1 << (bits - 1),
            Some(_) => self.draw() & low_mask(bits),
        }
    }

    /// Independent coins by number; these are not advanced.
    pub(in crate::plan) fn apart(&self, number: usize) -> Self {
        Self { state: self.state.map(|state| mix(state ^ mix(number as u64))) }
    }

    pub(in crate::plan) fn draw(&mut self) -> u64 {
        let state = self.state.get_or_insert(0);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(*state)
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): a simulation's randomness, never a protocol's.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
