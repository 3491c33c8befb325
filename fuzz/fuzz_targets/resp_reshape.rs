//! What a reply owes, and a reply: see `portcullis::session::resp::reshape::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    portcullis::session::resp::reshape::fuzz::fuzz_reshape(data);
});
