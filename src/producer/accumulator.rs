//! What waits to be sent: topics, their partitions, and each partition's batches in order. No task, no socket, no clock.
//!
//! A partition's batches stand in one queue. The last may be open (records are appended to it), the first may be with their
//! broker. A partition that has a batch to send is is_queued with its leader; [`drain`](Accumulator::drain) takes what is ready
//! from that list.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::batch::{Batch, BatchState, FinishedBatch, Payload, SendOutcome};
use super::delivery::Completion;
use super::partition::{PartitionQueue, ProducerIdAndEpoch, SendContext};
use super::partitioner::{BuiltInPartitioner, PartitionChoice, PartitionLoad, partition_of_hash};
use crate::cluster::Interest;
use crate::config::{Compression, ProducerConfig};
use crate::error::{Error, ErrorKind};
use crate::record::{BATCH_HEADER_BYTES, BatchBuilder, Headers, ProducerSequence};

/// Stands for the leader of a partition that has none.
pub(crate) const NO_LEADER: i32 = -1;
/// A batch that the broker finds too large makes the next ones smaller, down to this.
const MIN_BATCH_BYTES: usize = 1 << 10;
/// The size from which on a buffer is kept for further batches.
const MIN_SPARE_BYTES: usize = 64 << 10;
/// The most that a produce request adds to a batch beside its topic's name: numbers, lengths, tags.
const BATCH_OVERHEAD_BYTES: usize = 32;

/// What the accumulator must know of its producer's config.
#[derive(Debug, Clone)]
pub(crate) struct AccumulatorConfig {
    pub(crate) linger: Duration,
    pub(crate) idempotence: bool,
    pub(crate) batch_size: usize,
    pub(crate) max_request_size: usize,
    /// Bytes of buffers that are kept: no more than batches may take, so that none is given back to the allocator, where other
    /// things would get in between, and taken from it again.
    pub(crate) spare_memory: usize,
    pub(crate) delivery_timeout: Duration,
    /// How long a topic may be missing before its records fail.
    pub(crate) missing_timeout: Duration,
    pub(crate) adaptive_partitioning: bool,
    pub(crate) partition_availability_timeout: Duration,
}

impl AccumulatorConfig {
    pub(crate) fn new(config: &ProducerConfig, missing_timeout: Duration) -> Self {
        Self {
            linger: config.linger,
            idempotence: config.idempotence,
            batch_size: config.batch_size.min(config.max_request_size),
            max_request_size: config.max_request_size,
            // Large records of a producer that has its own limit for them are few: their buffers are given back.
            spare_memory: config.max_record_size.map_or(config.buffer_memory, |_| config.max_request_size),
            delivery_timeout: config.delivery_timeout,
            missing_timeout: missing_timeout.min(config.delivery_timeout),
            adaptive_partitioning: config.adaptive_partitioning,
            partition_availability_timeout: config.partition_availability_timeout,
        }
    }
}

/// A partition, by its topic's place in the accumulator.
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

/// A record to append; its size has been checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewRecord<'a> {
    pub(crate) topic: &'a str,
    pub(crate) target: PartitionChoice,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Option<&'a Headers>,
    pub(crate) compression: Compression,
    /// What it counts for in the buffer: [`record_size_bound`](crate::record::record_size_bound).
    pub(crate) size: usize,
}

/// Why a record can't be appended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// Metadata is needed first.
    UnknownTopic,
    /// The topic has only so many partitions.
    NoSuchPartition { partition: i32, count: usize },
}

/// A batch on its way to the broker; [`Accumulator::complete`] must be told how that ended.
#[derive(Debug)]
pub(crate) struct DrainedBatch {
    pub(crate) id: BatchId,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) payload: Payload,
    pub(crate) compression: Compression,
    pub(crate) producer: ProducerSequence,
    pub(crate) records: u32,
    /// How often it was tried before.
    pub(crate) attempts: u32,
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    /// Another one when it was deleted and created again.
    id: Option<Uuid>,
    /// Where a batch is full: less than the setting once the broker has found one too large.
    batch_size: usize,
    /// As many as the topic has now; there may be more below, of when it had more.
    partition_count: usize,
    partitions: Vec<PartitionQueue>,
    partitioner: BuiltInPartitioner,
    /// Since when metadata says that it does not exist.
    missing_since: Option<Instant>,
    /// Told of each use, so that its metadata is kept fresh.
    interest: Option<Arc<Interest>>,
}

impl Topic {
    fn new(name: Arc<str>, id: Option<Uuid>, batch_size: usize, random: &mut fastrand::Rng) -> Self {
        let partitioner = BuiltInPartitioner::new(random);
        Self {
            name,
            id,
            batch_size,
            partition_count: 0,
            partitions: Vec::new(),
            partitioner,
            missing_since: None,
            interest: None,
        }
    }

    /// Whether records that may go anywhere go elsewhere from this one on.
    fn should_switch_sticky(&self, size: usize, adaptive: bool) -> bool {
        let open =
            self.partitions[self.partitioner.sticky()].queue.back().filter(|b| matches!(b.state, BatchState::Open(_)));
        self.partitioner.should_switch(open.map(|b| b.number), size, self.batch_size, adaptive)
    }

    fn switch_sticky(&mut self, now: Instant, config: &AccumulatorConfig, random: &mut fastrand::Rng) {
        if !config.adaptive_partitioning {
            return self.partitioner.switch_random(random);
        }
        let patience = config.partition_availability_timeout;
        // A batch expires when it has lingered and waited for all of the delivery timeout.
        let late = |b: &Batch| b.expires_at + config.linger + patience < now + config.delivery_timeout;
        let partitions = &self.partitions;
        self.partitioner.switch_by_load(random, |p| {
            let queue = &partitions[p].queue;
            PartitionLoad {
                queued_batches: queue.len(),
                responds: patience.is_zero() || !queue.front().is_some_and(late),
            }
        });
    }
}

/// Closes a partition's open batch if that can't take the record; tells whether it did.
fn close_if_full(
    partition: &mut PartitionQueue,
    now: impl Fn() -> Instant,
    record: &NewRecord<'_>,
    limit: usize,
    wakeups: &mut Vec<i32>,
) -> bool {
    let next = partition.is_queued && partition.queue.len() == partition.in_flight() + 1;
    let Some(batch) = partition.queue.back_mut() else { return false };
    let BatchState::Open(builder) = &batch.state else { return false };
    if batch.compression == record.compression && builder.size() + record.size <= limit {
        return false;
    }
    let now = now();
    if next {
        wakeups.push(partition.leader); // it need not linger any more, and may make a large request
    }
    partition.last_batch_bytes = batch.size();
    batch.close(now);
    true
}

/// The partitions with a batch to send, by leader, and the leaders to wake.
#[derive(Debug, Default)]
struct ReadyQueues {
    by_leader: BTreeMap<i32, LeaderQueue>,
    wakeups: Vec<i32>,
}

#[derive(Debug, Default)]
struct LeaderQueue {
    partitions: VecDeque<PartitionId>,
    /// Why it can't be reached, if so.
    error: Option<Error>,
    /// [`Accumulator::appended`] at which what waits may be enough for a request that must be large.
    recheck_at_bytes: u64,
}

impl ReadyQueues {
    /// ReadyQueues a partition that has something to send, once, and none that has not.
    fn update(&mut self, id: PartitionId, partition: &mut PartitionQueue, context: SendContext) {
        if partition.next_to_send(context).is_none() {
            self.remove(id, partition);
        } else if !partition.is_queued {
            partition.is_queued = true;
            self.by_leader.entry(partition.leader).or_default().partitions.push_back(id);
            self.wakeups.push(partition.leader);
        }
    }

    fn remove(&mut self, id: PartitionId, partition: &mut PartitionQueue) {
        if std::mem::take(&mut partition.is_queued) {
            if let Some(leader) = self.by_leader.get_mut(&partition.leader) {
                leader.partitions.retain(|other| *other != id);
            }
        }
    }

    fn error(&self, leader: i32) -> Option<&Error> {
        self.by_leader.get(&leader)?.error.as_ref()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Accumulator {
    config: AccumulatorConfig,
    topics: Vec<Topic>,
    by_name: HashMap<Arc<str>, usize>,
    /// Places in `topics` of topics that were deleted.
    free_slots: Vec<usize>,
    /// The topic of the record before, most often that of the next, too.
    last_used: usize,
    ready: ReadyQueues,
    /// Bytes of all records appended so far.
    appended_bytes: u64,
    random: fastrand::Rng,
    producer_id: Option<ProducerIdAndEpoch>,
    producer_id_error: Option<Error>,
    /// Buffers of large batches that have ended: the next ones need no fresh memory.
    spare_buffers: Vec<Vec<u8>>,
    /// What they have room for, in all.
    spare_bytes: usize,
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
            appended_bytes: 0,
            random,
            producer_id: None,
            producer_id_error: None,
            spare_buffers: Vec::new(),
            spare_bytes: 0,
        };
        let what = "the partition has had no leader: see whether the brokers that hold it run, or whether its topic was created \
                    anew with fewer partitions";
        new.set_leader_error(NO_LEADER, Some(Error::new(ErrorKind::Timeout, what)));
        new
    }

    fn context(&self) -> SendContext {
        SendContext { linger: self.config.linger, idempotent: self.config.idempotence, producer_id: self.producer_id }
    }

    /// Whether an producer_id must be asked for.
    pub(crate) fn needs_producer_id(&self) -> bool {
        self.config.idempotence && self.producer_id.is_none()
    }

    /// A broker has given the producer an producer_id.
    pub(crate) fn set_producer_id(&mut self, producer_id: ProducerIdAndEpoch) {
        self.producer_id = Some(producer_id);
        self.producer_id_error = None;
        let context = self.context();
        for (t, topic) in self.topics.iter_mut().enumerate() {
            for (p, partition) in topic.partitions.iter_mut().enumerate() {
                self.ready.update(PartitionId { topic: t, partition: p }, partition, context);
            }
        }
    }

    /// Why there is no producer_id yet; with `refused`, there will not be one, and what waits for it fails.
    pub(crate) fn set_producer_id_error(&mut self, error: Error, refused: bool) -> Vec<FinishedBatch> {
        let mut ended = Vec::new();
        if refused {
            for partition in self.topics.iter_mut().flat_map(|t| &mut t.partitions).filter(|p| !p.has_producer_id()) {
                partition.fail_where(&mut ended, |_| Some(error.clone()));
            }
        }
        self.producer_id_error = Some(error);
        ended
    }

    /// The brokers (or [`NO_LEADER`]) for which there is something new to send or to wait for since the last call.
    pub(crate) fn take_wakeups(&mut self) -> std::vec::Drain<'_, i32> {
        self.ready.wakeups.drain(..)
    }

    /// Puts a record into its partition's open batch; gives that batch's completion and the record's place in it.
    ///
    /// The time is asked for only where a batch begins or ends: reading a clock costs more than the rest.
    #[inline]
    pub(crate) fn append(
        &mut self,
        now: impl Fn() -> Instant,
        record: &NewRecord<'_>,
    ) -> Result<(Arc<Completion>, u32), AppendError> {
        let index = self.topic_index(record.topic).ok_or(AppendError::UnknownTopic)?;
        let topic = &mut self.topics[index];
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
            idempotent: self.config.idempotence,
            producer_id: self.producer_id,
        };
        let mut make_room = |topic: &mut Topic, chosen| {
            let partition = &mut topic.partitions[chosen];
            if close_if_full(partition, &now, record, limit, &mut ready.wakeups) {
                ready.update(PartitionId { topic: index, partition: chosen }, partition, context);
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
            let room = partition.last_batch_bytes.max(record.size + BATCH_HEADER_BYTES);
            let room = if room > limit / 2 { room.max(limit) } else { room }; // large ones are of one size, and none grows
            let spare = if room >= MIN_SPARE_BYTES { self.spare_buffers.pop().unwrap_or_default() } else { Vec::new() };
            self.spare_bytes -= spare.capacity();
            let builder = BatchBuilder::reuse(spare, room);
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
            ready.update(PartitionId { topic: index, partition: chosen }, partition, context);
        }
        let Some(batch) = partition.queue.back_mut() else { return Err(AppendError::UnknownTopic) };
        let place = batch.records;
        if record.target == PartitionChoice::Sticky {
            topic.partitioner.record_appended(batch.number, record.size);
        }
        batch.append(record.timestamp, record.key, record.value, record.headers, record.size);
        self.appended_bytes += record.size as u64;
        Ok((Arc::clone(&batch.completion), place))
    }

    #[inline]
    fn topic_index(&mut self, topic: &str) -> Option<usize> {
        if self.topics.get(self.last_used).is_none_or(|t| *t.name != *topic) {
            self.last_used = *self.by_name.get(topic)?;
        }
        Some(self.last_used)
    }

    /// What metadata says of a topic: the leader of each partition, or that the topic does not exist.
    ///
    /// A partition's batches follow its leader; a new leader is tried at once.
    pub(crate) fn update_topic(
        &mut self,
        now: Instant,
        name: &Arc<str>,
        id: Option<Uuid>,
        leaders: Option<&[Option<i32>]>,
    ) -> Vec<FinishedBatch> {
        let context = self.context();
        let index = match self.by_name.get(name) {
            Some(&index) => index,
            None if leaders.is_none() => return Vec::new(),
            None => {
                let topic = Topic::new(Arc::clone(name), id, self.config.batch_size, &mut self.random);
                let index = self.free_slots.pop().unwrap_or(self.topics.len());
                match self.topics.get_mut(index) {
                    Some(place) => *place = topic,
                    None => self.topics.push(topic),
                }
                self.by_name.insert(Arc::clone(name), index);
                index
            }
        };
        let topic = &mut self.topics[index];
        match leaders {
            Some(leaders) => {
                topic.missing_since = None;
                topic.partition_count = leaders.len();
                while topic.partitions.len() < topic.partition_count {
                    topic.partitions.push(PartitionQueue::new(NO_LEADER));
                }
                topic.partitioner.update(leaders, &mut self.random);
            }
            None => topic.missing_since = topic.missing_since.or(Some(now)),
        }
        let recreated = id.is_some() && topic.id.is_some() && id != topic.id;
        topic.id = id.or(topic.id);
        let (mut ended, mut rejected_id) = (Vec::new(), None);
        for (i, partition) in topic.partitions.iter_mut().enumerate() {
            let id = PartitionId { topic: index, partition: i };
            if recreated {
                partition.on_topic_recreated();
                rejected_id = partition.resolve_gap(&mut ended).or(rejected_id);
                self.ready.update(id, partition, context);
            }
            let leader = leaders.and_then(|l| l.get(i).copied().flatten()).unwrap_or(NO_LEADER);
            if leader == partition.leader {
                continue;
            }
            self.ready.remove(id, partition);
            partition.leader = leader;
            partition.on_leader_change();
            if let Some(first) = partition.queue.front_mut().filter(|b| b.attempts > 0) {
                first.ready_at = first.ready_at.min(now);
            }
            self.ready.update(id, partition, context);
        }
        self.discard_producer_id(rejected_id);
        ended
    }

    /// Has a topic's uses noted from now on.
    pub(crate) fn track_use(&mut self, name: &str, interest: Arc<Interest>) {
        if let Some(topic) = self.by_name.get(name).and_then(|&index| self.topics.get_mut(index)) {
            topic.interest = Some(interest);
        }
    }

    /// Notes that topics are in use whose records wait.
    pub(crate) fn touch_pending_topics(&self) {
        for topic in self.topics.iter().filter(|t| t.partitions.iter().any(|p| !p.queue.is_empty())) {
            topic.interest.iter().for_each(|interest| interest.touch());
        }
    }

    /// Forgets where a topic's partitions are, which nothing was sent to for a while: its next record looks it up again. The
    /// sequence numbers of its partitions stay, for its brokers know them; with one that was deleted they go, too. Returns
    /// false, and forgets nothing, if records of it still wait.
    pub(crate) fn forget_topic(&mut self, name: &str) -> bool {
        let Some(&index) = self.by_name.get(name) else { return true };
        let topic = &mut self.topics[index];
        if topic.partitions.iter().any(|p| !p.queue.is_empty()) {
            return false;
        }
        topic.partition_count = 0;
        topic.interest = None;
        topic.partitions.iter_mut().for_each(|p| p.queue.shrink_to_fit());
        if topic.missing_since.is_some() {
            self.by_name.remove(name);
            let none = Topic::new("".into(), None, 0, &mut self.random);
            self.topics[index] = none;
            self.free_slots.push(index);
        }
        true
    }

    /// A broker does not want this producer id any more.
    fn discard_producer_id(&mut self, rejected_id: Option<i64>) {
        if rejected_id.is_some() && self.producer_id.map(|i| i.id) == rejected_id {
            self.producer_id = None;
            self.ready.wakeups.push(NO_LEADER); // wakeups the supervisor
        }
    }

    /// Why a broker can't be reached; none when it can.
    pub(crate) fn set_leader_error(&mut self, leader: i32, error: Option<Error>) {
        self.ready.by_leader.entry(leader).or_default().error = error;
    }

    /// Whether a batch waits for this broker (or [`NO_LEADER`]).
    pub(crate) fn has_pending(&self, leader: i32) -> bool {
        self.ready.by_leader.get(&leader).is_some_and(|l| !l.partitions.is_empty())
    }

    /// The brokers for which batches wait.
    pub(crate) fn leaders_with_pending(&self) -> Vec<i32> {
        let waiting = self.ready.by_leader.iter().filter(|(_, l)| !l.partitions.is_empty());
        waiting.map(|(id, _)| *id).filter(|id| *id != NO_LEADER).collect()
    }

    /// How many partitions a topic has, and which of them are to be had; none if metadata is needed first.
    pub(crate) fn partitions_of(&self, topic: &str) -> Option<(i32, Arc<[i32]>)> {
        let topic = &self.topics[*self.by_name.get(topic)?];
        let known = topic.missing_since.is_none() && topic.partition_count > 0;
        known.then(|| (topic.partition_count as i32, Arc::clone(topic.partitioner.available())))
    }

    /// The topics that it knows and has not forgotten.
    pub(crate) fn topic_names(&self) -> Vec<Arc<str>> {
        let known = self.by_name.iter().map(|(name, &index)| (name, &self.topics[index]));
        known
            .filter(|(_, t)| t.partition_count > 0 || t.missing_since.is_some())
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }

    /// Returns when the batches that wait for a broker make a request of half of `max_request_size`, if they do: a time that has
    /// passed for at once. The time is asked for only if so many bytes have been appended since the last call that the answer
    /// may be another one.
    pub(crate) fn large_request_at(&mut self, now: impl Fn() -> Instant, broker: i32) -> Option<Instant> {
        let context = self.context();
        let leader = self.ready.by_leader.get_mut(&broker)?;
        if leader.partitions.is_empty() || self.appended_bytes < leader.recheck_at_bytes {
            return None;
        }
        let now = now();
        let enough = self.config.max_request_size / 2;
        let (mut ready, mut total, mut last) = (0, 0, now);
        for id in &leader.partitions {
            let partition = &self.topics[id.topic].partitions[id.partition];
            let Some(batch) = partition.next_to_send(context).and_then(|at| partition.queue.get(at)) else { continue };
            total += batch.size();
            if batch.ready_at > now {
                last = last.max(batch.ready_at);
                continue;
            }
            ready += batch.size();
            if ready >= enough {
                return Some(now);
            }
        }
        if total >= enough {
            return Some(last);
        }
        leader.recheck_at_bytes = self.appended_bytes + (enough - total) as u64;
        None
    }

    /// The next request to a broker: at most one batch of each partition it leads, together at most `max_request_size`. If
    /// nothing is ready, also the time at which something will be. The time is asked for only if something waits.
    pub(crate) fn drain(&mut self, now: impl Fn() -> Instant, broker: i32) -> (Vec<DrainedBatch>, Option<Instant>) {
        let (mut drained, mut next) = (Vec::new(), None::<Instant>);
        let mut room = self.config.max_request_size;
        let context = self.context();
        let Some(leader) = self.ready.by_leader.get_mut(&broker).filter(|l| !l.partitions.is_empty()) else {
            return (drained, next);
        };
        let now = now();
        for _ in 0..leader.partitions.len() {
            let Some(id) = leader.partitions.pop_front() else { break };
            let topic = &mut self.topics[id.topic];
            let partition = &mut topic.partitions[id.partition];
            let next_to_send = partition.next_to_send(context).and_then(|at| partition.queue.get(at));
            let Some(batch) = next_to_send else {
                partition.is_queued = false;
                continue;
            };
            if batch.ready_at > now {
                next = Some(next.map_or(batch.ready_at, |n| n.min(batch.ready_at)));
                leader.partitions.push_back(id);
                continue;
            }
            let size = batch.size() + BATCH_OVERHEAD_BYTES + topic.name.len();
            if size > room && !drained.is_empty() {
                leader.partitions.push_front(id);
                break;
            }
            room = room.saturating_sub(size);
            partition.last_batch_bytes = batch.size();
            if let Some((batch, payload)) = partition.send(context) {
                drained.push(DrainedBatch {
                    id: BatchId { partition: id, number: batch.number },
                    topic: Arc::clone(&topic.name),
                    partition: id.partition as i32,
                    payload,
                    compression: batch.compression,
                    producer: batch.producer.unwrap_or(ProducerSequence::NONE),
                    records: batch.records,
                    attempts: batch.attempts,
                });
            }
            // The one behind it may go with the next request.
            partition.is_queued = partition.next_to_send(context).is_some();
            if partition.is_queued {
                leader.partitions.push_back(id);
            }
        }
        (drained, next)
    }

    /// A batch that was drained is back; adds what has ended by that.
    pub(crate) fn complete(&mut self, now: Instant, id: BatchId, outcome: SendOutcome, ended: &mut Vec<FinishedBatch>) {
        let context = self.context();
        let BatchId { partition: place, number } = id;
        let topic = &mut self.topics[place.topic];
        let partition = &mut topic.partitions[place.partition];
        if let SendOutcome::TooLarge { halves: Some(_), .. } = &outcome {
            // Smaller ones from now on, so that not every one has to be cut.
            let size = partition.queue.iter().find(|b| b.number == number).map_or(usize::MAX, |b| b.buffered_bytes / 2);
            topic.batch_size = topic.batch_size.min(size.max(MIN_BATCH_BYTES));
        }
        partition.complete(now, number, outcome, ended);
        let rejected_id = partition.resolve_gap(ended);
        self.ready.update(place, partition, context);
        self.discard_producer_id(rejected_id);
    }

    /// Takes back the buffer of a batch.
    pub(crate) fn recycle_buffer(&mut self, buffer: Vec<u8>) {
        let size = buffer.capacity();
        if size >= MIN_SPARE_BYTES && self.spare_bytes + size <= self.config.spare_memory {
            self.spare_bytes += size;
            self.spare_buffers.push(buffer);
        }
    }

    /// Fails what is older than the delivery timeout or whose topic has been missing for too long; says when to look again.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<FinishedBatch>, Instant) {
        let mut ended = Vec::new();
        let mut rejected_id = None;
        let context = self.context();
        let timeout = self.config.delivery_timeout;
        // Nothing that is appended from now on expires before this.
        let mut next = now + timeout;
        for (t, topic) in self.topics.iter_mut().enumerate() {
            let missing_until = topic.missing_since.map(|since| since + self.config.missing_timeout);
            let missing = topic.missing_since.filter(|_| missing_until.is_some_and(|at| at <= now));
            for (p, partition) in topic.partitions.iter_mut().enumerate() {
                if partition.queue.is_empty() {
                    continue;
                }
                if let Some(at) = missing_until.filter(|at| *at > now) {
                    next = next.min(at);
                }
                if missing.is_some() || partition.queue.iter().any(|b| b.expires_at <= now) {
                    let cause = match self.ready.error(partition.leader) {
                        None if context.producer_id.is_none() => self.producer_id_error.as_ref(),
                        error => error,
                    };
                    partition.fail_where(&mut ended, |batch| match missing {
                        Some(since) => Some(batch.topic_missing(now.duration_since(since))),
                        None => (batch.expires_at <= now).then(|| batch.timed_out(timeout, cause)),
                    });
                    rejected_id = partition.resolve_gap(&mut ended).or(rejected_id);
                    self.ready.update(PartitionId { topic: t, partition: p }, partition, context);
                }
                let waits = partition.queue.iter().map(|b| b.expires_at).filter(|at| *at > now);
                next = waits.min().map_or(next, |at| next.min(at));
            }
        }
        self.discard_producer_id(rejected_id);
        (ended, next)
    }

    /// Makes all that is open ready to be sent; gives the completions of all that has not ended.
    pub(crate) fn flush(&mut self, now: Instant) -> Vec<Arc<Completion>> {
        let mut waiting = Vec::new();
        let context = self.context();
        for (t, topic) in self.topics.iter_mut().enumerate() {
            for (p, partition) in topic.partitions.iter_mut().enumerate() {
                let Some(last) = partition.queue.back_mut() else { continue };
                last.close(now);
                if partition.is_queued {
                    self.ready.wakeups.push(partition.leader);
                }
                self.ready.update(PartitionId { topic: t, partition: p }, partition, context);
                waiting.extend(partition.queue.iter().map(|b| Arc::clone(&b.completion)));
            }
        }
        waiting
    }

    /// Fails all there is.
    pub(crate) fn abort(&mut self, why: &str) -> Vec<FinishedBatch> {
        let mut ended = Vec::new();
        for topic in &mut self.topics {
            for partition in &mut topic.partitions {
                ended.extend(partition.abort(why));
            }
        }
        self.ready.by_leader.clear();
        ended
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod spread_tests;
#[cfg(test)]
pub(super) mod tests;
