//! Any bytes, read as frames of either side: see `portcullis::wire::pg::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis::wire::pg::fuzz::fuzz_frames(data));
