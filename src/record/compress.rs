//! The codecs of a batch: whole record sections in, whole record sections out.

use std::io::{Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::error::{Error, ErrorKind, Result};

/// The codec of a batch, from the lowest three bits of its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Gzip,
}

impl Codec {
    pub(crate) fn of(attributes: i16) -> Result<Self> {
        let name = match attributes & 7 {
            0 => return Ok(Self::None),
            1 => return Ok(Self::Gzip),
            2 => "snappy".to_owned(),
            3 => "lz4".to_owned(),
            4 => "zstd".to_owned(),
            n => format!("number {n}"),
        };
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("the batch is compressed with codec {name}, which is not supported"),
        ))
    }

    pub(crate) fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
        }
    }
}

/// Appends `data`, compressed, to `out`.
pub(crate) fn gzip(data: &[u8], level: u32, out: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(out, flate2::Compression::new(level));
    encoder.write_all(data)?;
    encoder.finish()
}

/// Decompresses `data` into at most `limit` bytes.
///
/// What is allocated grows with what has really come out, so that a forged size can't make it large.
pub(crate) fn gunzip(data: &[u8], limit: usize) -> Result<Vec<u8>> {
    let mut decoder = MultiGzDecoder::new(data);
    let mut out = Vec::new();
    let mut len = 0;
    loop {
        if len == out.len() {
            if len > limit {
                return Err(too_large(data.len(), limit));
            }
            // One byte beyond the limit is room enough to see that it is passed.
            let next = if len == 0 { first_guess(data) } else { len * 2 };
            out.resize(next.min(limit.saturating_add(1)), 0);
        }
        match decoder.read(&mut out[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::with_source(ErrorKind::Corrupt, "the batch is not valid gzip", e)),
        }
    }
    if len > limit {
        return Err(too_large(data.len(), limit));
    }
    out.truncate(len);
    Ok(out)
}

/// The size that gzip data says it has, believed up to a ratio that JSON reaches, and one byte more, so that the end is
/// seen without growing.
fn first_guess(data: &[u8]) -> usize {
    let said = data.last_chunk::<4>().map_or(0, |n| u32::from_le_bytes(*n) as usize);
    said.saturating_add(1).clamp(64, data.len().saturating_mul(16).max(64))
}

fn too_large(compressed: usize, limit: usize) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "a batch of {compressed} compressed bytes holds more than the {limit} that are allowed: raise the consumer's \
             max_decompressed_bytes if this is no accident"
        ),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pack(data: &[u8]) -> Vec<u8> {
        gzip(data, 6, Vec::new()).unwrap()
    }

    #[test]
    fn sizes_around_every_step_round_trip() {
        for size in [0, 1, 63, 64, 65, 1000, 100_000, 1 << 20] {
            let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            assert_eq!(gunzip(&pack(&data), size).unwrap(), data, "{size}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = pack(&vec![0; 64 << 20]);
        let error = gunzip(&bomb, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("max_decompressed_bytes"), "{error}");
        assert!(gunzip(&pack(&[0; 101]), 100).is_err());
        assert!(gunzip(&pack(&[0; 100]), 100).is_ok());
    }

    #[test]
    fn members_one_after_another_are_one_stream() {
        let mut both = pack(b"one ");
        both.extend(pack(b"two"));
        assert_eq!(gunzip(&both, 100).unwrap(), b"one two");
    }

    #[test]
    fn damage_is_an_error() {
        let good = pack(b"some bytes that are worth compressing, compressing, compressing");
        for cut in 0..good.len() {
            assert!(gunzip(&good[..cut], 1000).is_err(), "cut at {cut}");
        }
        for i in [0, 1, 15, good.len() - 5, good.len() - 1] {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            assert!(gunzip(&bad, 1000).is_err(), "flipped at {i}");
        }
    }
}
