//! From a fetch response to the event queue: its records are decoded within the partition's memory, charged to the budget and queued.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::PartitionData;
use tokio::time::Instant;

use super::decode::{AbortedTransactions, DecodeLimits, DecodedFetch, decode_fetch};
use super::partition::FetchedPartition;
use super::planner::{FetchFrom, PartitionRequest};
use super::tasks::FetchState;
use crate::code;
use crate::config::IsolationLevel;
use crate::consumer::event::{Records, Watermarks};
use crate::consumer::memory::Charge;
use crate::error::{Error, ErrorKind};
use crate::metrics::Observation;
use crate::record::{TopicPartition, begins_with_batch, is_compressed};

/// Compressed bytes of a partition from which they are decompressed on the blocking pool.
const OFFLOAD_BYTES: usize = 64 << 10;
/// Memory of decompressed batches after which they are queued. All at once they would take the partition's whole memory, and the
/// application would wait for the last of them.
const DECODE_CHUNK_BYTES: usize = 1 << 20;
/// Records are copied instead of sliced where slices would keep a response that is this many times as large in memory.
const COPY_RATIO: usize = 16;

/// A response whose partitions are being decoded.
struct Response {
    /// Bytes of records in it.
    bytes: usize,
    /// Charge for the response, once records are slices of it.
    charge: Option<Arc<Charge>>,
}

impl FetchState {
    /// Handles a fetch response with `bytes` of records.
    pub(super) async fn on_fetch_response(self: &Arc<Self>, response: FetchResponse, broker: i32, bytes: usize) {
        let mut memory = Response { bytes, charge: None };
        let mut sources_changed = false;
        for topic in response.responses {
            let name: Arc<str> = topic.topic.as_str().into();
            for data in topic.partitions {
                let p = TopicPartition { topic: Arc::clone(&name), partition: data.partition_index };
                let Some(request) = self.planner().current_request(broker, &p) else { continue };
                let replica = data.preferred_read_replica.0;
                match data.error_code {
                    0 if replica >= 0 => {
                        let until = Instant::now() + self.client.config().metadata_max_age;
                        tracing::debug!(partition = %p, replica, "fetching from a closer replica");
                        self.planner().set_preferred_replica(&request.lease, replica, until);
                        sources_changed = true;
                    }
                    0 => self.deliver(&request, data, &mut memory).await,
                    code => {
                        let dropped = self.planner().drop_preferred_replica(&request.lease, broker, Instant::now());
                        sources_changed |= dropped;
                        // A follower that lags does not have the whole log: the leader decides whether the offset is out of range.
                        if !(dropped && code == code::OFFSET_OUT_OF_RANGE) {
                            self.on_partition_error(&request.lease, code, "fetching");
                        }
                    }
                }
            }
        }
        if sources_changed {
            self.wake();
        }
    }

    async fn deliver(&self, request: &PartitionRequest<FetchFrom>, data: PartitionData, response: &mut Response) {
        let p = &request.lease;
        let committed = self.config.isolation_level == IsolationLevel::ReadCommitted;
        let mut aborted =
            committed.then(|| AbortedTransactions::new(data.aborted_transactions.as_deref().unwrap_or_default()));
        let watermarks = Watermarks {
            log_start_offset: Some(data.log_start_offset).filter(|offset| *offset >= 0),
            high_watermark: data.high_watermark,
            last_stable_offset: Some(data.last_stable_offset).filter(|offset| *offset >= 0),
        };
        let (mut bytes, mut offset) = (data.records.unwrap_or_default(), request.what.offset);
        loop {
            let (wire, compressed) = (bytes.len(), is_compressed(&bytes));
            let (available, full) = {
                let mut planner = self.planner();
                (planner.available_bytes(p), planner.budget().free() == 0)
            };
            // Records of an uncompressed batch are slices of the whole response: a few must not keep it in memory, and with the
            // budget used up none may.
            let sliced =
                !compressed && wire > 0 && wire >= response.bytes / COPY_RATIO && (response.charge.is_some() || !full);
            if wire > 0 && available == 0 && !sliced {
                return self.planner().clear_in_flight([p]); // other records have taken the memory: fetched again later
            }
            let (chunk, base, max_memory) = match (compressed, sliced) {
                (true, _) => (bytes.clone(), 0, available.min(DECODE_CHUNK_BYTES)),
                (false, true) => (bytes.clone(), wire, usize::MAX),
                (false, false) => (Bytes::copy_from_slice(&bytes), wire, available),
            };
            let shared = sliced.then(|| (self.charge(response), wire));
            let end = watermarks.high_watermark;
            let mut decoded = self.decode(chunk, offset, aborted.take(), max_memory, end).await;
            let (used, next, corrupt) = (decoded.used_bytes, decoded.next_offset, decoded.error.is_some());
            aborted = decoded.aborted.take();
            let is_current = self.enqueue_records(request, offset, decoded, (base, shared), watermarks);
            (bytes, offset) = (bytes.slice(used..), next);
            if !(is_current && compressed && used > 0 && begins_with_batch(&bytes)) || corrupt {
                return;
            }
        }
    }

    /// Charges a response once, for all partitions whose records are slices of it.
    fn charge(&self, response: &mut Response) -> Arc<Charge> {
        let charge = response.charge.get_or_insert_with(|| Arc::new(self.planner().budget().charge(response.bytes)));
        Arc::clone(charge)
    }

    /// Advances the position from `offset` and queues the records. They take `decoded_bytes` and `base`, the bytes that they are
    /// slices of, which may be `shared` with other partitions of the response. Returns whether the request was still current.
    fn enqueue_records(
        &self,
        request: &PartitionRequest<FetchFrom>,
        offset: i64,
        decoded: DecodedFetch,
        (base, shared): (usize, Option<(Arc<Charge>, usize)>),
        watermarks: Watermarks,
    ) -> bool {
        let p = &request.lease;
        let DecodedFetch {
            records,
            next_offset,
            leader_epoch,
            used_bytes,
            decoded_bytes,
            batches,
            uncompressed,
            error,
            ..
        } = decoded;
        let committed = self.config.isolation_level == IsolationLevel::ReadCommitted;
        let count = records.len();
        let leader_epoch = leader_epoch.filter(|epoch| *epoch >= 0);
        let memory = if records.is_empty() { 0 } else { base + decoded_bytes };
        let end = watermarks.last_stable_offset.filter(|_| committed).unwrap_or(watermarks.high_watermark);
        let response = shared.filter(|_| memory > 0);
        let fetched = FetchedPartition {
            next: next_offset,
            end,
            leader_epoch,
            wire: used_bytes,
            memory,
            response,
            corrupt: error.is_some(),
        };
        {
            // One lock over the check, the new position and the queue. Without it:
            // 1. A fetch from offset 5 is in flight; its response is decoded (`decode` awaits).
            // 2. `seek` moves the position to 90 and drops the queued records.
            // 3. The records from 5 on are queued: the application gets them after `seek` has returned.
            // With it, 2 comes before the check, which fails because `position_version` has changed, or after the push, whose
            // records it drops. A revocation crosses in the same way: it removes the partition here first and its lease from the
            // event queue second, and each of the two refuses what comes after it.
            let mut planner = self.planner();
            if !planner.is_current(request) {
                return false;
            }
            let outcome = planner.on_fetched(p, Instant::now(), offset, fetched);
            self.events.set_watermarks(p, watermarks);
            let TopicPartition { topic, partition } = &p.partition;
            self.events.meter().report(|group| Observation::Fetched {
                group,
                topic,
                partition: *partition,
                batches,
                records: count,
                bytes: used_bytes,
                uncompressed,
                end,
            });
            let Some((memory, is_news)) = outcome else { return false };
            if is_news {
                let records = Records {
                    topic: Arc::clone(&p.partition.topic),
                    partition: p.partition.partition,
                    records,
                    next_offset,
                    leader_epoch,
                    high_watermark: watermarks.high_watermark,
                    last_stable_offset: watermarks.last_stable_offset,
                    read_committed: committed,
                    epoch: p.epoch,
                    _memory: Some(memory),
                };
                self.events.push_records(p, records);
            }
        }
        if let Some(e) = error {
            if self.planner().on_corrupt(p) {
                let what = format!("reading {p} at offset {next_offset}; it is retried, nothing is skipped");
                self.report_error(Some(p), e.context(what));
            }
        }
        true
    }

    async fn decode(
        &self,
        bytes: Bytes,
        offset: i64,
        aborted: Option<AbortedTransactions>,
        max_memory: usize,
        end: i64,
    ) -> DecodedFetch {
        let (max_decompressed, buffers) = (self.config.max_decompressed_bytes, self.buffers.clone());
        let log_end = if end < 0 { i64::MAX } else { end };
        let limits = DecodeLimits { max_decompressed, max_memory, log_end, buffers };
        if !is_compressed(&bytes) || bytes.len() < OFFLOAD_BYTES {
            return decode_fetch(bytes, offset, aborted, limits);
        }
        match tokio::task::spawn_blocking(move || decode_fetch(bytes, offset, aborted, limits)).await {
            Ok(decoded) => decoded,
            Err(e) => {
                let e = Error::with_source(ErrorKind::Corrupt, "decompressing a batch failed", e);
                DecodedFetch { error: Some(e), ..DecodedFetch::empty(offset) }
            }
        }
    }
}
