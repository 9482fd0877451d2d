//! The encoder against flate2's decoder, as a function of any bytes, for tests and `fuzz/`.

use std::io::Read;

use flate2::bufread::GzDecoder;

/// Asserts that data is the same after compression and decompression, and grows little if it can't
/// be compressed. Returns the compressed data.
///
/// # Panics
/// If it differs, or has grown by more.
pub fn round_trip(data: &[u8]) -> Vec<u8> {
    let mut out = b"before".to_vec();
    crate::compress(data, &mut out);
    let packed = out.split_off(6);
    assert_eq!(out, b"before");
    assert!(packed.len() < data.len() + data.len() / 50 + 100, "{} bytes to {}", data.len(), packed.len());
    let mut plain = Vec::new();
    let read = GzDecoder::new(&packed[..]).read_to_end(&mut plain);
    assert!(read.is_ok_and(|_| plain == data), "{} bytes differ", data.len());
    packed
}
