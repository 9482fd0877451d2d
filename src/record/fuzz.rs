//! Batches and headers from arbitrary bytes, with valid checksums.

use bytes::Bytes;
use flate2::Crc;

use super::codec::compress;
use super::compression::Compression;
use super::format::{BATCH_HEADER_BYTES, LENGTH_END, i32_at, set_crc};
use super::varint::Reader;
use super::{Headers, legacy};

/// Returns a record set as a broker could send it; the first byte chooses how to read the others.
pub(crate) fn batches(data: &[u8]) -> Bytes {
    let [mode, rest @ ..] = data else { return Bytes::new() };
    let mut bytes = match (mode % 8, rest) {
        (codec @ 1..=4, [count, delta, section @ ..]) => batch(codec, *count, *delta, section),
        (5, [codec, count, delta, section @ ..]) => {
            let (codec, compression) = match codec % 5 {
                0 => (0, Compression::None),
                1 => (1, Compression::Gzip { level: 3 }),
                2 => (2, Compression::Snappy),
                3 => (3, Compression::Lz4),
                _ => (4, Compression::Zstd),
            };
            batch(
                codec,
                *count,
                *delta,
                &compress(compression, section, Vec::new()).map(|(_, out)| out).unwrap_or_default(),
            )
        }
        (magic @ 6..=7, [attributes, offset, value @ ..]) => message(magic - 6, *attributes, *offset, value),
        _ => rest.to_vec(),
    };
    fix_checksums(&mut bytes);
    bytes.into()
}

fn batch(codec: u8, count: u8, delta: u8, section: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    bytes[8..12].copy_from_slice(&((BATCH_HEADER_BYTES + section.len() - LENGTH_END) as u32).to_be_bytes());
    bytes[16] = 2;
    bytes[22] = codec;
    bytes[26] = delta;
    bytes[60] = count;
    bytes.extend_from_slice(section);
    bytes
}

fn message(magic: u8, attributes: u8, offset: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[7] = offset;
    bytes.extend([magic, attributes]);
    bytes.extend_from_slice(&[0; 8][..8 * usize::from(magic)]);
    bytes.extend((-1_i32).to_be_bytes());
    bytes.extend((value.len() as u32).to_be_bytes());
    bytes.extend_from_slice(value);
    let size = ((bytes.len() - LENGTH_END) as u32).to_be_bytes();
    bytes[8..12].copy_from_slice(&size);
    bytes
}

fn fix_checksums(bytes: &mut [u8]) {
    let mut rest = bytes;
    while rest.len() >= 17 {
        let (len, magic) = (usize::try_from(i32_at(rest, 8)).map_or(0, |n| n + LENGTH_END), rest[16]);
        let min = if magic < 2 { legacy::min_message_size(magic) } else { BATCH_HEADER_BYTES };
        if len < min || len > rest.len() {
            return;
        }
        let (this, behind) = rest.split_at_mut(len);
        if magic < 2 {
            let mut crc = Crc::new();
            crc.update(&this[16..]);
            this[12..16].copy_from_slice(&crc.sum().to_be_bytes());
        } else {
            set_crc(this);
        }
        rest = behind;
    }
}

/// Returns the headers of a record, whose number is the first byte; none if they are not valid.
pub(crate) fn headers(data: &[u8]) -> Option<Headers> {
    let (count, raw) = data.split_first()?;
    let mut reader = Reader::new(raw, 0);
    Headers::skip(&mut reader, u32::from(*count)).ok()?;
    Some(Headers { raw: Bytes::copy_from_slice(&raw[..reader.pos()]), count: u32::from(*count) })
}
