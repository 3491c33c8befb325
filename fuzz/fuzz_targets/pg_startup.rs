//! Any bytes, as the first of a client: see `portcullis::session::pg::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis::session::pg::fuzz::fuzz_startup(data));
