//! Helpers of the unit tests.

pub mod plans;

/// SplitMix64 (Steele, Lea, Flood 2014): repeatable test data, never a protocol's randomness.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn bits(&mut self, bits: u32) -> u64 {
        self.next() & ir::ring::low_mask(bits)
    }

    pub fn wide(&mut self, bits: u32) -> u128 {
        (u128::from(self.next()) << 64 | u128::from(self.next())) & ((1 << bits) - 1)
    }

    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Whether messages of one length look like fair coins, bit by bit and in all.
pub fn assert_uniform(messages: &[Vec<u8>]) {
    let sigmas = |ones: usize, of: usize| (2.0 * ones as f64 - of as f64) / (of as f64).sqrt();
    let bits = messages[0].len() * 8;
    let mut total = 0;
    for bit in 0..bits {
        let ones = messages.iter().filter(|m| m[bit / 8] >> (bit % 8) & 1 == 1).count();
        assert!(sigmas(ones, messages.len()).abs() < 5.0, "bit {bit}: {ones} ones");
        total += ones;
    }
    assert!(sigmas(total, bits * messages.len()).abs() < 5.0, "{total} ones");
}
