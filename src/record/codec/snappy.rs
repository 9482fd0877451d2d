//! Snappy in the framing of Kafka's Java client; reads it without framing too.
//!
//! The framing (of xerial's snappy-java, not Google's) is a header of 16 bytes and then blocks,
//! each after its length in four bytes. Java, librdkafka, Redpanda and the Go clients read it; not
//! all of them read several blocks without it.

use std::io;

use snap::raw::{Decoder, Encoder, decompress_len};

use super::error::CodecError;

/// Magic, version 1, minimum compatible version 1.
const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const MAGIC_BYTES: usize = 8;
/// Block size: snappy finds no match further back, so larger blocks save nothing.
const BLOCK_BYTES: usize = 64 << 10;
/// Maximum expansion: the longest copy makes 64 bytes of three; two bytes make 11.
const MAX_RATIO: usize = 22;

/// Compresses `data` and appends it to `out`, with framing.
pub(super) fn compress(data: &[u8], mut out: Vec<u8>) -> io::Result<Vec<u8>> {
    out.extend_from_slice(&HEADER);
    let mut encoder = Encoder::new();
    for block in data.chunks(BLOCK_BYTES) {
        let start = out.len() + 4;
        out.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let len = encoder.compress(block, &mut out[start..])?;
        out[start - 4..start].copy_from_slice(&(len as u32).to_be_bytes());
        out.truncate(start + len);
    }
    Ok(out)
}

/// Decompresses `data`, framed or not, up to `limit` bytes.
pub(super) fn decompress(data: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    // No snappy block begins like the header: its first element would be a copy of bytes before the
    // first.
    if !data.starts_with(&HEADER[..MAGIC_BYTES]) {
        append(&mut out, data, limit)?;
        return Ok(out);
    }
    let mut rest = data.get(HEADER.len()..).ok_or_else(truncated)?;
    // Twice the ratio of JSON: most batches need no more.
    out.reserve(data.len().saturating_mul(4).min(limit));
    while !rest.is_empty() {
        let (len, after) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
        let (block, after) = after.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or_else(truncated)?;
        append(&mut out, block, limit)?;
        rest = after;
    }
    Ok(out)
}

fn append(out: &mut Vec<u8>, block: &[u8], limit: usize) -> Result<(), CodecError> {
    let size = decompress_len(block).map_err(CodecError::invalid)?;
    let start = out.len();
    if size > block.len().saturating_mul(MAX_RATIO) {
        return Err(CodecError::invalid("a block says that it is larger than it can be"));
    }
    if size > limit - start {
        return Err(CodecError::TooLarge);
    }
    out.resize(start + size, 0);
    Decoder::new().decompress(block, &mut out[start..]).map_err(CodecError::invalid)?;
    Ok(())
}

fn truncated() -> CodecError {
    CodecError::invalid("the bytes end within a block")
}
