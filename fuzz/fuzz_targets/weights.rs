//! The payload of the weights of a small plan.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    support::doors::weights(bytes);
});
