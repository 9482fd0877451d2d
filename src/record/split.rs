//! Cuts a batch that was built here into smaller ones.

use bytes::Bytes;

use super::compression::Compression;
use super::decode::decode_batches;
use super::encode::BatchBuilder;
use super::format::{BATCH_HEADER_BYTES, ProducerSequence};

/// Returns the two halves of a batch, each with its number of records; none if it holds a single
/// record or can't be read. `max_decompressed` bounds its size without compression.
pub(crate) fn split_in_half(
    batch: &Bytes,
    compression: Compression,
    max_decompressed: usize,
) -> Option<Vec<(Bytes, u32)>> {
    let count = decode_batches(batch.clone(), max_decompressed).next()?.ok()?.record_count;
    let head = count / 2;
    if head == 0 {
        return None;
    }
    split_into_runs(batch, compression, max_decompressed, &[(head, true), (count - head, true)])
}

/// Cuts a batch into runs of records, each given by its number of records and whether to keep it: a
/// batch of its own per run, empty for those to drop. None if the batch can't be read or has
/// another number of records.
pub(crate) fn split_into_runs(
    batch: &Bytes,
    compression: Compression,
    max_decompressed: usize,
    runs: &[(u32, bool)],
) -> Option<Vec<(Bytes, u32)>> {
    let batch = decode_batches(batch.clone(), max_decompressed).next()?.ok()?;
    if runs.iter().map(|(count, _)| count).sum::<u32>() != batch.record_count {
        return None;
    }
    let mut records = batch.records().ok()?;
    let mut pieces = Vec::with_capacity(runs.len());
    for &(count, keep) in runs {
        let mut builder = BatchBuilder::new(BATCH_HEADER_BYTES);
        for _ in 0..count {
            let r = records.next()?.ok()?;
            if keep {
                builder.append(r.timestamp.as_millis(), r.key.as_deref(), r.value.as_deref(), Some(&r.headers));
            }
        }
        let bytes = if keep { builder.finish(compression, ProducerSequence::NONE) } else { Bytes::new() };
        pieces.push((bytes, count));
    }
    Some(pieces)
}
