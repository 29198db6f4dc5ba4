//! Properties over random cases, made small where they fail.
//!
//! Every run tries the same cases; `PROPTEST_CASES=10000 PROPTEST_RNG_SEED=2` tries more of others.

mod packing;
mod ring;
mod shapes;
mod slots;

use proptest::test_runner::{Config, RngSeed};

/// So many cases of a fixed seed, if the environment does not ask for others.
fn config(cases: u32) -> Config {
    let asked = |name: &str| std::env::var_os(name).is_some();
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if !asked("PROPTEST_CASES") {
        config.cases = cases;
    }
    if !asked("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}
