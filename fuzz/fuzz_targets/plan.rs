//! The payload of a plan.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    support::doors::plan(bytes);
});
