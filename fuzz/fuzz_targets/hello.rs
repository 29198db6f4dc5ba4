//! What a peer sends before a run.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    support::doors::hello(bytes);
});
