//! Any bytes, read as a client's commands: see `portcullis::wire::resp::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis::wire::resp::fuzz::fuzz_commands(data));
