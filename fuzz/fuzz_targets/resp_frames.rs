//! Any bytes, read as a client's commands and as a server's replies: see `portcullis::wire::resp::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis::wire::resp::fuzz::fuzz_frames(data));
