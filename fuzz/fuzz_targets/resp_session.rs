//! Any conversation, both sides hostile: see `portcullis::session::resp::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis::session::resp::fuzz::fuzz_session(data));
