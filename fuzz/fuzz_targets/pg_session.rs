//! Any conversation after the login, both sides hostile: see `portcullis::session::pg::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis::session::pg::fuzz::fuzz_session(data));
