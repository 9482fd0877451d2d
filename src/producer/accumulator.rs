//! Buffers records in batches until they are sent, as Kafka's `RecordAccumulator` does. No task, no
//! socket, no clock.
//!
//! Each partition has one queue of batches, in the order in which they are sent. Records are
//! appended to the last batch while it is open; the first ones may be in flight. A partition that
//! has a batch to send is queued with its leader, and the leader's sender takes what is ready from
//! there.
//!
//! Inputs: [`append`](Accumulator::append) for a record,
//! [`update_topic`](Accumulator::update_topic) for metadata,
//! [`set_producer_id`](Accumulator::set_producer_id),
//! [`begin_transaction`](Accumulator::begin_transaction) and what follows, [`complete`](Accumulator::complete) for the
//! outcome of each batch that was drained, and [`expire`](Accumulator::expire) at the time that its
//! last call returned.
//!
//! Outputs: [`take_wakeups`](Accumulator::take_wakeups) after each of these, and
//! [`drain`](Accumulator::drain) for a broker.

mod expiry;
mod ready;
mod topic;
mod transaction;

#[cfg(test)]
mod model;
#[cfg(test)]
mod partitioning_tests;
#[cfg(test)]
mod sequence_tests;
#[cfg(test)]
pub(super) mod tests;
#[cfg(test)]
mod transaction_tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::ready::ReadyQueues;
use self::topic::Topic;
use self::transaction::OpenTransaction;
pub(crate) use self::transaction::SendFailure;
use super::batch::{Batch, BatchState, FinishedBatch, Payload, SendOutcome};
use super::delivery::Completion;
use super::partition::{PartitionQueue, ProducerIdAndEpoch, SendContext};
use super::partitioner::{PartitionChoice, partition_of_hash};
use crate::config::{Compression, ProducerConfig};
use crate::error::{Error, ErrorKind};
use crate::record::{BATCH_HEADER_BYTES, BatchBuilder, Headers, ProducerSequence};

/// The broker id of the leader of a partition that has none.
pub(crate) const NO_LEADER: i32 = -1;
/// Smallest size to which the batches of a topic shrink when its broker rejects them as too large.
const MIN_BATCH_BYTES: usize = 1 << 10;
/// Smallest buffer that is pooled for further batches.
const MIN_POOLED_BYTES: usize = 8 << 10;
/// Smallest batch that may take a pooled buffer of any size: it often grows beyond the last one of
/// its partition, by which its size is estimated.
const MIN_GROWING_BYTES: usize = 64 << 10;

/// Settings of the accumulator, from its producer's.
#[derive(Debug, Clone)]
pub(crate) struct AccumulatorConfig {
    pub(crate) linger: Duration,
    pub(crate) idempotence: bool,
    /// True if the producer has a transactional id.
    pub(crate) transactional: bool,
    pub(crate) batch_size: usize,
    pub(crate) max_request_size: usize,
    /// Maximum bytes of pooled buffers: as many as batches may take. A buffer that went back to the
    /// allocator would be allocated again, among other things that got in between.
    pub(crate) pool_limit: usize,
    pub(crate) delivery_timeout: Duration,
    /// Time for which a topic may be missing before its records fail.
    pub(crate) missing_timeout: Duration,
    pub(crate) adaptive_partitioning: bool,
    pub(crate) partition_availability_timeout: Duration,
}

impl AccumulatorConfig {
    pub(crate) fn new(config: &ProducerConfig, missing_timeout: Duration) -> Self {
        Self {
            linger: config.linger,
            idempotence: config.idempotence,
            transactional: false,
            batch_size: config.batch_size.min(config.max_request_size),
            max_request_size: config.max_request_size,
            // A producer with a limit of its own for records sends few large ones: their buffers
            // are freed.
            pool_limit: config.max_record_size.map_or(config.buffer_memory, |_| config.max_request_size),
            delivery_timeout: config.delivery_timeout,
            missing_timeout: missing_timeout.min(config.delivery_timeout),
            adaptive_partitioning: config.adaptive_partitioning,
            partition_availability_timeout: config.partition_availability_timeout,
        }
    }
}

/// A partition, by its topic's index in the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PartitionId {
    topic: usize,
    partition: usize,
}

/// A batch, by its partition and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BatchId {
    partition: PartitionId,
    number: u64,
}

#[cfg(test)]
impl BatchId {
    pub(super) fn of(topic: usize, partition: usize, number: u64) -> Self {
        Self { partition: PartitionId { topic, partition }, number }
    }
}

/// A record to append, whose size was checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewRecord<'a> {
    pub(crate) topic: &'a str,
    pub(crate) target: PartitionChoice,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Option<&'a Headers>,
    pub(crate) compression: Compression,
    /// Bytes of the buffer that it takes: [`record_size_bound`](crate::record::record_size_bound).
    pub(crate) size: usize,
}

/// The reason why a record can't be appended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// The topic's metadata is needed first.
    UnknownTopic,
    /// The topic has only `count` partitions.
    NoSuchPartition { partition: i32, count: usize },
    /// The open transaction can only be aborted.
    TransactionFailed,
}

/// A batch to be sent now; its outcome must be passed to [`Accumulator::complete`].
#[derive(Debug)]
pub(crate) struct DrainedBatch {
    pub(crate) id: BatchId,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) payload: Payload,
    pub(crate) compression: Compression,
    pub(crate) producer: ProducerSequence,
    pub(crate) records: u32,
    /// Number of attempts before this one.
    pub(crate) attempts: u32,
}

/// The batches of one producer. See the module.
#[derive(Debug)]
pub(crate) struct Accumulator {
    config: AccumulatorConfig,
    topics: Vec<Topic>,
    by_name: HashMap<Arc<str>, usize>,
    /// Indexes in `topics` of deleted topics.
    free_slots: Vec<usize>,
    /// Index of the topic of the last record: most often that of the next one, too.
    last_used: usize,
    ready: ReadyQueues,
    transaction: OpenTransaction,
    /// Bytes of all records appended so far.
    appended_bytes: u64,
    random: fastrand::Rng,
    /// The latest producer id; none until a broker has assigned one, or after brokers have rejected
    /// it.
    producer_id: Option<ProducerIdAndEpoch>,
    producer_id_error: Option<Error>,
    /// Buffers of finished large batches, for the next ones.
    pooled_buffers: Vec<Vec<u8>>,
    /// Capacity of the pooled buffers in total.
    pooled_bytes: usize,
}

impl Accumulator {
    pub(crate) fn new(config: AccumulatorConfig, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let mut new = Self {
            config,
            topics: Vec::new(),
            by_name: HashMap::new(),
            free_slots: Vec::new(),
            last_used: 0,
            ready: ReadyQueues::default(),
            transaction: OpenTransaction::default(),
            appended_bytes: 0,
            random,
            producer_id: None,
            producer_id_error: None,
            pooled_buffers: Vec::new(),
            pooled_bytes: 0,
        };
        let what = "the partition has had no leader: see whether the brokers that have its replicas run, or whether its \
                    topic was recreated with fewer partitions";
        new.set_leader_error(NO_LEADER, Some(Error::new(ErrorKind::Timeout, what)));
        new
    }

    fn context(&self) -> SendContext {
        SendContext {
            linger: self.config.linger,
            transactional: self.config.transactional,
            idempotent: self.config.idempotence,
            producer_id: self.producer_id,
        }
    }

    /// Returns whether a producer id must be requested.
    pub(crate) fn needs_producer_id(&self) -> bool {
        self.config.idempotence && self.producer_id.is_none()
    }

    /// Sets the producer id that a broker has assigned.
    pub(crate) fn set_producer_id(&mut self, producer_id: ProducerIdAndEpoch) {
        self.producer_id = Some(producer_id);
        self.producer_id_error = None;
        if self.config.transactional {
            self.topics.iter_mut().flat_map(|t| &mut t.partitions).for_each(PartitionQueue::restart_sequences);
        }
        let context = self.context();
        for (t, topic) in self.topics.iter_mut().enumerate() {
            for (p, partition) in topic.partitions.iter_mut().enumerate() {
                self.ready.update(PartitionId { topic: t, partition: p }, partition, context);
            }
        }
    }

    /// Sets why there is no producer id yet. If it was `rejected`, there will be none, and the
    /// batches that wait for it fail.
    pub(crate) fn set_producer_id_error(&mut self, error: Error, rejected: bool) -> Vec<FinishedBatch> {
        let mut finished = Vec::new();
        if rejected {
            for partition in self.topics.iter_mut().flat_map(|t| &mut t.partitions).filter(|p| !p.has_producer_id()) {
                partition.fail_where(&mut finished, |_| Some(error.clone()));
            }
        }
        self.producer_id_error = Some(error);
        finished
    }

    /// Drops the producer id if it is the one that a broker has rejected.
    fn discard_producer_id(&mut self, rejected: Option<i64>) {
        if rejected.is_some() && self.producer_id.map(|i| i.id) == rejected {
            self.producer_id = None;
            self.ready.wakeups.push(NO_LEADER); // wakes the supervisor
        }
    }

    /// Appends a record to its partition's open batch. Returns the batch's completion and the
    /// record's index there.
    ///
    /// `now` is called only where a batch is opened or closed: reading a clock costs more than all
    /// the rest.
    #[inline]
    pub(crate) fn append(
        &mut self,
        now: impl Fn() -> Instant,
        record: &NewRecord<'_>,
    ) -> Result<(Arc<Completion>, u32), AppendError> {
        if self.transaction.has_failed() {
            return Err(AppendError::TransactionFailed);
        }
        let topic_index = self.topic_index(record.topic).ok_or(AppendError::UnknownTopic)?;
        let topic = &mut self.topics[topic_index];
        if topic.missing_since.is_some() || topic.partition_count == 0 {
            return Err(AppendError::UnknownTopic);
        }
        if let Some(interest) = &topic.interest {
            interest.touch();
        }
        let mut chosen = match record.target {
            PartitionChoice::Partition(p) => {
                let found = usize::try_from(p).ok().filter(|p| *p < topic.partition_count);
                found.ok_or(AppendError::NoSuchPartition { partition: p, count: topic.partition_count })?
            }
            PartitionChoice::KeyHash(hash) => partition_of_hash(hash, topic.partition_count),
            PartitionChoice::RoundRobin => topic.partitioner.next_round_robin(),
            PartitionChoice::Sticky => topic.partitioner.sticky(),
        };
        let (limit, ready) = (topic.batch_size, &mut self.ready);
        let context = SendContext {
            linger: self.config.linger,
            transactional: self.config.transactional,
            idempotent: self.config.idempotence,
            producer_id: self.producer_id,
        };
        let mut make_room = |topic: &mut Topic, chosen| {
            let partition = &mut topic.partitions[chosen];
            if ready.close_if_full(partition, &now, record, limit) {
                ready.update(PartitionId { topic: topic_index, partition: chosen }, partition, context);
            }
        };
        make_room(topic, chosen);
        if record.target == PartitionChoice::Sticky
            && topic.should_switch_sticky(record.size, self.config.adaptive_partitioning)
        {
            topic.switch_sticky(now(), &self.config, &mut self.random);
            chosen = topic.partitioner.sticky();
            make_room(topic, chosen);
        }
        let partition = &mut topic.partitions[chosen];
        if !partition.queue.back().is_some_and(|b| matches!(b.state, BatchState::Open(_))) {
            let size = partition.last_batch_bytes.max(record.size + BATCH_HEADER_BYTES);
            let size = if size > limit / 2 { size.max(limit) } else { size }; // large ones are of one size, and none grows
            // A small one takes none of many times its size, which a large one would then allocate.
            let fits = |buffer: &Vec<u8>| {
                size >= MIN_GROWING_BYTES || (size >= MIN_POOLED_BYTES && buffer.capacity() / 4 <= size)
            };
            let pooled = if self.pooled_buffers.last().is_some_and(fits) { self.pooled_buffers.pop() } else { None };
            let pooled = pooled.unwrap_or_default();
            self.pooled_bytes -= pooled.capacity();
            let builder = BatchBuilder::reuse(pooled, size);
            let number = partition.next_batch_number();
            let now = now();
            partition.queue.push_back(Batch::open(
                number,
                Completion::new(Arc::clone(&topic.name), chosen as i32),
                record.compression,
                builder,
                now + self.config.linger,
                now + self.config.delivery_timeout,
            ));
            let id = PartitionId { topic: topic_index, partition: chosen };
            if self.config.transactional {
                self.transaction.on_use(id, partition);
            }
            ready.update(id, partition, context);
        }
        let Some(batch) = partition.queue.back_mut() else { return Err(AppendError::UnknownTopic) };
        let index = batch.records;
        if record.target == PartitionChoice::Sticky {
            topic.partitioner.record_appended(batch.number, record.size);
        }
        batch.append(record.timestamp, record.key, record.value, record.headers, record.size);
        self.appended_bytes += record.size as u64;
        Ok((Arc::clone(&batch.completion), index))
    }

    #[inline]
    fn topic_index(&mut self, topic: &str) -> Option<usize> {
        if self.topics.get(self.last_used).is_none_or(|t| *t.name != *topic) {
            self.last_used = *self.by_name.get(topic)?;
        }
        Some(self.last_used)
    }

    /// Takes the outcome of a batch that was drained. Adds the batches that are finished by it.
    pub(crate) fn complete(
        &mut self,
        now: Instant,
        id: BatchId,
        outcome: SendOutcome,
        finished: &mut Vec<FinishedBatch>,
    ) {
        let context = self.context();
        let BatchId { partition: at, number } = id;
        let topic = &mut self.topics[at.topic];
        let partition = &mut topic.partitions[at.partition];
        if let SendOutcome::TooLarge { halves: Some(_), .. } = &outcome {
            // Smaller ones from now on, so that not each has to be split.
            let size = partition.queue.iter().find(|b| b.number == number).map_or(usize::MAX, |b| b.buffered_bytes / 2);
            topic.batch_size = topic.batch_size.min(size.max(MIN_BATCH_BYTES));
        }
        let before = finished.len();
        partition.complete(now, number, outcome, finished);
        let rejected_id = partition.resolve_gap(finished);
        self.ready.update(at, partition, context);
        self.on_transaction_results([at], finished, before);
        self.discard_producer_id(rejected_id);
    }

    /// Pools the buffer of a batch for further ones, as far as `pool_limit` goes.
    pub(crate) fn recycle_buffer(&mut self, buffer: Vec<u8>) {
        let size = buffer.capacity();
        if size >= MIN_POOLED_BYTES && self.pooled_bytes + size <= self.config.pool_limit {
            self.pooled_bytes += size;
            self.pooled_buffers.push(buffer);
        }
    }

    /// Closes all open batches, so that they are sent without linger. Returns the completions of
    /// all unfinished batches.
    pub(crate) fn flush(&mut self, now: Instant) -> Vec<Arc<Completion>> {
        let mut unfinished = Vec::new();
        let context = self.context();
        for (t, topic) in self.topics.iter_mut().enumerate() {
            for (p, partition) in topic.partitions.iter_mut().enumerate() {
                let Some(last) = partition.queue.back_mut() else { continue };
                last.close(now);
                if partition.is_queued {
                    self.ready.wakeups.push(partition.leader);
                }
                self.ready.update(PartitionId { topic: t, partition: p }, partition, context);
                unfinished.extend(partition.queue.iter().map(|b| Arc::clone(&b.completion)));
            }
        }
        unfinished
    }

    /// Fails all batches, in flight or not.
    pub(crate) fn abort(&mut self, why: &str) -> Vec<FinishedBatch> {
        let mut finished = Vec::new();
        for topic in &mut self.topics {
            for partition in &mut topic.partitions {
                finished.extend(partition.abort(why));
            }
        }
        self.ready.clear();
        finished
    }
}
