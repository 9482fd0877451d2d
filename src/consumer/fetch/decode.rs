//! From what a fetch brought of a partition to its records.

use std::collections::HashSet;

use bytes::Bytes;
use kafka_protocol::messages::fetch_response::AbortedTransaction;

use crate::error::{Error, ErrorKind};
use crate::record::{BATCH_HEADER_BYTES, BufferPool, Record, RecordBatch, decode_batches, is_compressed};

/// What is in the bytes of a partition.
#[derive(Debug)]
pub(crate) struct DecodedFetch {
    pub(crate) records: Vec<Record>,
    /// The offset to go on at.
    pub(crate) next_offset: i64,
    /// Of the leader that wrote what was passed; none if nothing was, -1 if the batches don't tell.
    pub(crate) leader_epoch: Option<i32>,
    /// Bytes of those that came that were passed.
    pub(crate) used_bytes: usize,
    /// Bytes that the records keep in memory, besides those that came.
    pub(crate) decoded_bytes: usize,
    /// Batches that were opened, and their size without compression.
    pub(crate) batches: u32,
    pub(crate) uncompressed: usize,
    /// Why what follows can't be read.
    pub(crate) error: Option<Error>,
    /// For what follows.
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

/// How much may be decoded, in bytes.
#[derive(Debug)]
pub(crate) struct DecodeLimits {
    pub(crate) max_decompressed: usize,
    pub(crate) max_memory: usize,
    /// Offset that the broker says the log ends at: what is behind it has a wrong offset, for no checksum covers that.
    pub(crate) log_end: i64,
    /// Where to open batches.
    pub(crate) spare: BufferPool,
}

/// Knows which batches are of transactions that were aborted, in the order of the log: a producer's batches count as aborted
/// from the first offset that the broker told of its transaction to the marker that ends it.
#[derive(Debug)]
pub(crate) struct AbortedTransactions {
    /// Still to come, the first one last.
    pending: Vec<(i64, i64)>,
    aborted_producers: HashSet<i64>,
}

impl AbortedTransactions {
    /// From what a broker told of the aborted transactions among the records it sent.
    pub(crate) fn new(told: &[AbortedTransaction]) -> Self {
        let mut pending: Vec<_> = told.iter().map(|a| (a.first_offset, a.producer_id.0)).collect();
        pending.sort_unstable_by(|a, b| b.cmp(a));
        Self { pending, aborted_producers: HashSet::new() }
    }

    /// Whether the records of the next batch were aborted.
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
        Ok(batch.origin.is_transactional && self.aborted_producers.contains(&producer))
    }
}

/// Takes the records from `offset` on: a fetch brings whole batches, so it may begin before it. Markers of transactions are
/// no records, but they move the position, as do offsets whose records compaction has taken, and, where only committed records
/// are asked for, those that were `aborted`.
///
/// It ends where another leader has begun to write, and behind the batch with which the records take as much memory as there is
/// `room` for; what follows is for the next fetch.
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
            // Brokers send batches in order: one that is not brings nothing new, and must not take the position back.
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
            let size = if skip { 0 } else { read_batch(&batch, &limits.spare, &mut out)? };
            out.next_offset = batch.last_offset + 1;
            Ok(Some(size))
        });
        match taken {
            Ok(Some(size)) => {
                out.decoded_bytes += if compressed { size } else { 0 };
                out.used_bytes = wire - batches.rest();
                let came = if compressed { 0 } else { out.used_bytes };
                if came + out.decoded_bytes + out.records.len() * size_of::<Record>() >= limits.max_memory {
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
    out.records.shrink_to_fit(); // its size is told by the batches one after another, so it grew by guess
    out.decoded_bytes += out.records.capacity() * size_of::<Record>();
    out
}

fn beyond_log_end(batch: &RecordBatch, end: i64) -> Error {
    let what = format!("the broker sent a batch up to offset {} of a log that ends at {end}", batch.last_offset);
    Error::new(ErrorKind::Corrupt, what)
}

/// The records of a batch from the position on; gives the size of what they are slices of.
fn read_batch(batch: &RecordBatch, spare: &BufferPool, out: &mut DecodedFetch) -> Result<usize, Error> {
    let records = batch.records_using(spare)?;
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
