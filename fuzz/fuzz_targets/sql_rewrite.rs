#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis::analysis::sql::fuzz_rewrite(data));
