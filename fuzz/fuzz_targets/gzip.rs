#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| _ = ailurus_gzip::fuzzing::round_trip(data));
