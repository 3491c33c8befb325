//! Messages and passwords of SCRAM exchanges: see `portcullis::session::pg::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis::session::pg::fuzz::fuzz_scram(data));
