//! From what a fetch brought of a partition to its records.

use bytes::Bytes;

use crate::error::Error;
use crate::record::{BATCH_HEADER, Batch, Record, decode_batches};

/// What is in the bytes of a partition.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) records: Vec<Record>,
    /// The offset to go on at.
    pub(crate) next_offset: i64,
    /// Bytes that the records keep in memory, besides those that came.
    pub(crate) grown: usize,
    /// Why what follows can't be read.
    pub(crate) damage: Option<Error>,
}

/// Whether the first batch is compressed; its attributes are 21 bytes in.
pub(crate) fn is_compressed(bytes: &[u8]) -> bool {
    bytes.len() >= BATCH_HEADER && bytes[22] & 7 != 0
}

/// Takes the records from `offset` on: a fetch brings whole batches, so it may begin before it. Markers of transactions are
/// no records, but they move the position, as do offsets whose records compaction has taken.
pub(crate) fn unpack(bytes: Bytes, offset: i64, max_decompressed: usize) -> Unpacked {
    let mut out = Unpacked { records: Vec::new(), next_offset: offset, grown: 0, damage: None };
    let compressed = is_compressed(&bytes);
    for batch in decode_batches(bytes, max_decompressed) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(e) => {
                out.damage = Some(e);
                break;
            }
        };
        if batch.last_offset < offset {
            continue;
        }
        if !batch.is_control {
            match take(&batch, offset, &mut out) {
                Ok(size) if compressed => out.grown += size,
                Ok(_) => {}
                Err(e) => {
                    out.damage = Some(e);
                    break;
                }
            }
        }
        out.next_offset = batch.last_offset + 1;
    }
    out.grown += out.records.capacity() * size_of::<Record>();
    out
}

/// The records of a batch; gives their size.
fn take(batch: &Batch, offset: i64, out: &mut Unpacked) -> Result<usize, Error> {
    let records = batch.records()?;
    out.records.reserve(records.size_hint().1.unwrap_or(0));
    let mut size = 0;
    for record in records {
        let record = record?;
        size += record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
        size += record.headers.raw.len();
        if record.offset >= offset {
            out.next_offset = record.offset + 1;
            out.records.push(record);
        }
    }
    Ok(size)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
