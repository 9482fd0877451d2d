//! Batches as bytes, for benchmarks. Not part of the public interface: may change with any release.

use bytes::Bytes;

use super::compression::Compression;
use super::{BatchBuilder, ProducerSequence, decode_batches};
use crate::error::Result;

/// Encodes records with a key and a value each as one batch.
pub fn encode<'a>(
    records: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    room: usize,
    compression: Compression,
) -> Bytes {
    let mut builder = BatchBuilder::new(room);
    for (key, value) in records {
        builder.append(1_700_000_000_000, Some(key), Some(value), None);
    }
    builder.finish(compression, ProducerSequence::NONE)
}

/// Compresses data.
///
/// # Errors
/// Those of the codec.
pub fn compress(data: &[u8], compression: Compression) -> std::io::Result<Vec<u8>> {
    Ok(super::codec::compress(compression, data, Vec::new())?.1)
}

/// Decodes all batches and records; returns the number of records and of bytes in them.
///
/// # Errors
/// That of the first damaged batch or record.
pub fn decode(batches: Bytes, max_decompressed: usize) -> Result<(usize, usize)> {
    let (mut records, mut bytes) = (0, 0);
    for batch in decode_batches(batches, max_decompressed) {
        for record in batch?.records()? {
            let record = record?;
            records += 1;
            bytes += record.key.map_or(0, |k| k.len()) + record.value.map_or(0, |v| v.len());
            bytes +=
                record.headers.iter().map(|h| h.key_bytes().len() + h.value().map_or(0, <[u8]>::len)).sum::<usize>();
        }
    }
    Ok((records, bytes))
}
