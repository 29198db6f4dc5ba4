//! Helpers of the unit tests.

pub mod plans;

use proptest::prelude::{Strategy, TestCaseError};
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Checks a property on so many cases of a fixed seed, or as many of any seed as `PROPTEST_CASES` and
/// `PROPTEST_RNG_SEED` ask for; fails with the smallest case found.
pub fn property<S: Strategy>(
    cases: u32,
    strategy: S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let asked = |name: &str| std::env::var_os(name).is_some();
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if !asked("PROPTEST_CASES") {
        config.cases = cases;
    }
    if !asked("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(1);
    }
    if let Err(error) = TestRunner::new(config).run(&strategy, test) {
        panic!("{error}");
    }
}

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
