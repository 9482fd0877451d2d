#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ailurus_broker::fuzzing::requests(data));
