#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ailurus::fuzzing::records(data));
