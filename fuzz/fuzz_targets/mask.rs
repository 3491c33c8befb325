//! Any value under every mask: see `portcullis::mask::fuzz_mask`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis::mask::fuzz_mask(data));
