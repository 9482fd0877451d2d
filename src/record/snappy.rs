//! Snappy as Kafka has it: written in the framing of Kafka's Java client, read in this and without any.
//!
//! The framing (of xerial's snappy-java, not Google's) is a header of 16 bytes and then blocks, each behind its length in
//! four bytes. Java, librdkafka, Redpanda and the Go clients read it; not all of them read more than one block without it.

use std::io;

use snap::raw::{Decoder, Encoder, decompress_len};

use super::compress::Damage;

/// Magic, version 1, readable since version 1.
const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const MAGIC: usize = 8;
/// Snappy finds no match further back than this, so larger blocks save nothing.
const BLOCK: usize = 64 << 10;
/// The longest copy makes 64 bytes of three; two bytes make 11.
const MAX_RATIO: usize = 22;

/// Appends `data`, compressed and framed, to `out`.
pub(super) fn compress(data: &[u8], mut out: Vec<u8>) -> io::Result<Vec<u8>> {
    out.extend_from_slice(&HEADER);
    let mut encoder = Encoder::new();
    for block in data.chunks(BLOCK) {
        let start = out.len() + 4;
        out.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let len = encoder.compress(block, &mut out[start..])?;
        out[start - 4..start].copy_from_slice(&(len as u32).to_be_bytes());
        out.truncate(start + len);
    }
    Ok(out)
}

/// Opens `data`, framed or not, up to `limit` bytes.
pub(super) fn decompress(data: &[u8], limit: usize) -> Result<Vec<u8>, Damage> {
    let mut out = Vec::new();
    // No snappy block begins like the header: its first element would be a copy of bytes that are not there yet.
    if !data.starts_with(&HEADER[..MAGIC]) {
        append(&mut out, data, limit)?;
        return Ok(out);
    }
    let mut rest = data.get(HEADER.len()..).ok_or_else(cut_off)?;
    // Twice what JSON shrinks to: most batches need no more.
    out.reserve(data.len().saturating_mul(4).min(limit));
    while !rest.is_empty() {
        let (len, behind) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let (block, behind) = behind.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or_else(cut_off)?;
        append(&mut out, block, limit)?;
        rest = behind;
    }
    Ok(out)
}

fn append(out: &mut Vec<u8>, block: &[u8], limit: usize) -> Result<(), Damage> {
    let size = decompress_len(block).map_err(Damage::invalid)?;
    let start = out.len();
    if size > block.len().saturating_mul(MAX_RATIO) {
        return Err(Damage::invalid("a block says that it is larger than it can be"));
    }
    if size > limit - start {
        return Err(Damage::TooLarge);
    }
    out.resize(start + size, 0);
    Decoder::new().decompress(block, &mut out[start..]).map_err(Damage::invalid)?;
    Ok(())
}

fn cut_off() -> Damage {
    Damage::invalid("the bytes end within a block")
}
