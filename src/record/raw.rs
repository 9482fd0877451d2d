//! Batches as bytes, for benchmarks and fuzz targets. Not part of the interface: it may change with any release.

use bytes::Bytes;

use super::{BatchBuilder, ProducerSequence, decode_batches};
use crate::config::Compression;
use crate::error::Result;

/// One batch of records with a key and a value each.
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

/// What the records of a batch, or anything else, are compressed to.
///
/// # Errors
/// What the codec says.
pub fn compress(data: &[u8], compression: Compression) -> std::io::Result<Vec<u8>> {
    Ok(super::compress::compress(compression, data, Vec::new())?.1)
}

/// Reads all batches and records; gives the number of records and of bytes in them.
///
/// # Errors
/// What the first damaged batch or record says.
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
