//! Bytes of an ONNX model.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    support::doors::model(bytes);
});
