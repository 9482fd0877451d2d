//! Decodes the bytes fetched from a partition into records.

use std::collections::HashSet;

use bytes::Bytes;
use kafka_protocol::messages::fetch_response::AbortedTransaction;

use crate::error::{Error, ErrorKind};
use crate::record::{BATCH_HEADER_BYTES, BufferPool, Record, RecordBatch, decode_batches, is_compressed};

/// Records decoded from the bytes of a partition.
#[derive(Debug)]
pub(crate) struct DecodedFetch {
    pub(crate) records: Vec<Record>,
    /// Offset to fetch next.
    pub(crate) next_offset: i64,
    /// Leader epoch of the batches; none if there was no batch, -1 if they have none.
    pub(crate) leader_epoch: Option<i32>,
    /// Bytes of the input that were decoded or skipped.
    pub(crate) used_bytes: usize,
    /// Bytes of memory that the records take besides the input.
    pub(crate) decoded_bytes: usize,
    /// Number of decoded batches.
    pub(crate) batches: u32,
    /// Size of the decoded batches without compression.
    pub(crate) uncompressed: usize,
    /// Error of the batch after them.
    pub(crate) error: Option<Error>,
    /// State for the rest of the input.
    pub(crate) aborted: Option<AbortedTransactions>,
}

impl DecodedFetch {
    pub(crate) fn empty(offset: i64) -> Self {
        Self {
            records: Vec::new(),
            next_offset: offset,
            leader_epoch: None,
            used_bytes: 0,
            decoded_bytes: 0,
            batches: 0,
            uncompressed: 0,
            error: None,
            aborted: None,
        }
    }
}

/// Limits of one decoding, in bytes.
#[derive(Debug)]
pub(crate) struct DecodeLimits {
    pub(crate) max_decompressed: usize,
    pub(crate) max_memory: usize,
    /// End of the log by the response. A batch beyond it has a wrong offset, which no checksum
    /// covers.
    pub(crate) log_end: i64,
    /// Buffers to decompress into.
    pub(crate) buffers: BufferPool,
}

/// Finds the batches of aborted transactions, in the order of the log: a producer's batches are
/// aborted from the first offset of its transaction in the response to the marker that ends it.
#[derive(Debug)]
pub(crate) struct AbortedTransactions {
    /// Transactions that begin later, the first one last.
    pending: Vec<(i64, i64)>,
    aborted_producers: HashSet<i64>,
}

impl AbortedTransactions {
    /// Takes the aborted transactions of a response.
    pub(crate) fn new(transactions: &[AbortedTransaction]) -> Self {
        let mut pending: Vec<_> = transactions.iter().map(|a| (a.first_offset, a.producer_id.0)).collect();
        pending.sort_unstable_by(|a, b| b.cmp(a));
        Self { pending, aborted_producers: HashSet::new() }
    }

    /// Returns whether the records of the next batch were aborted.
    fn is_aborted(&mut self, batch: &RecordBatch) -> Result<bool, Error> {
        while let Some((_, producer)) = self.pending.last().filter(|(first, _)| *first <= batch.last_offset) {
            self.aborted_producers.insert(*producer);
            self.pending.pop();
        }
        let producer = batch.origin.producer.id;
        if batch.is_control {
            if !self.aborted_producers.is_empty() && batch.is_abort_marker()? {
                self.aborted_producers.remove(&producer);
            }
            return Ok(false);
        }
        Ok(batch.origin.producer.is_transactional && self.aborted_producers.contains(&producer))
    }
}

/// Decodes the records from `offset` on: a fetch returns whole batches, so the first may begin
/// before it. Transaction markers are no records but move the position, as do offsets that
/// compaction has removed and, for `read_committed`, records that were `aborted`.
///
/// Stops where another leader epoch begins, and after the batch with which the records take
/// `max_memory`; the rest is decoded or fetched later.
pub(crate) fn decode_fetch(
    bytes: Bytes,
    offset: i64,
    mut aborted: Option<AbortedTransactions>,
    limits: DecodeLimits,
) -> DecodedFetch {
    let mut out = DecodedFetch::empty(offset);
    let compressed = is_compressed(&bytes);
    let wire = bytes.len();
    let mut batches = decode_batches(bytes, limits.max_decompressed);
    while let Some(batch) = batches.next() {
        let taken = batch.and_then(|batch| {
            let skip = aborted.as_mut().map_or(Ok(false), |a| a.is_aborted(&batch))? || batch.is_control;
            // Batches come in order: an older one brings nothing new and must not move the position back.
            if batch.last_offset < out.next_offset {
                return Ok(Some(0));
            }
            if batch.last_offset >= limits.log_end {
                return if out.used_bytes > 0 { Ok(None) } else { Err(beyond_log_end(&batch, limits.log_end)) };
            }
            let epoch = batch.origin.leader_epoch;
            if *out.leader_epoch.get_or_insert(epoch) != epoch {
                return Ok(None);
            }
            let size = if skip { 0 } else { read_batch(&batch, &limits.buffers, &mut out)? };
            out.next_offset = batch.last_offset + 1;
            Ok(Some(size))
        });
        match taken {
            Ok(Some(size)) => {
                out.decoded_bytes += if compressed { size } else { 0 };
                out.used_bytes = wire - batches.rest();
                let input = if compressed { 0 } else { out.used_bytes };
                if input + out.decoded_bytes + out.records.len() * size_of::<Record>() >= limits.max_memory {
                    break;
                }
            }
            Ok(None) => break,
            Err(e) => {
                out.error = Some(e);
                break;
            }
        }
    }
    if out.error.is_some() {
        out.used_bytes = wire;
    }
    out.aborted = aborted;
    out.records.shrink_to_fit(); // it grew batch by batch, by doubling
    out.decoded_bytes += out.records.capacity() * size_of::<Record>();
    out
}

fn beyond_log_end(batch: &RecordBatch, end: i64) -> Error {
    let what = format!("the broker sent a batch up to offset {} of a log that ends at {end}", batch.last_offset);
    Error::new(ErrorKind::Corrupt, what)
}

/// Appends the records of a batch from the position on. Returns the size of the buffer that they
/// are slices of.
fn read_batch(batch: &RecordBatch, buffers: &BufferPool, out: &mut DecodedFetch) -> Result<usize, Error> {
    let records = batch.records_using(buffers)?;
    let (memory, before) = (records.memory(), out.records.len());
    let outcome = records.read_from_offset(out.next_offset, &mut out.records);
    if outcome.is_err() {
        let read = out.records[before..].iter().map(|record| record.offset + 1);
        out.next_offset = read.fold(out.next_offset, i64::max);
    }
    out.batches += 1;
    out.uncompressed += BATCH_HEADER_BYTES + memory;
    outcome.map(|()| memory)
}

#[cfg(test)]
mod tests;
