//! What waits to be sent: topics, their partitions, and each partition's batches in order. No task, no socket, no clock.
//!
//! A partition's batches stand in one queue. The last may be open (records are appended to it), the first may be with their
//! broker. A partition that has a batch to send is listed with its leader; [`drain`](Accumulator::drain) takes what is ready
//! from that list.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::batch::{Batch, Ended, Outcome, Payload, State};
use super::delivery::Completion;
use super::partition::{Identity, Partition, Rules};
use super::partitioner::{Load, Spread, Target, partition_of};
use crate::cluster::Interest;
use crate::config::{Compression, ProducerConfig};
use crate::error::{Error, ErrorKind};
use crate::record::{BATCH_HEADER, BatchBuilder, Headers, ProducerSequence};

/// Stands for the leader of a partition that has none.
pub(crate) const NO_LEADER: i32 = -1;
/// A batch that the broker finds too large makes the next ones smaller, down to this.
const SMALLEST_BATCH: usize = 1 << 10;
/// The size from which on a buffer is kept for further batches.
const SPARE_SIZE: usize = 64 << 10;
/// The most that a produce request adds to a batch beside its topic's name: numbers, lengths, tags.
const OVERHEAD: usize = 32;

/// What the accumulator must know of its producer's settings.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
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

impl Settings {
    pub(crate) fn new(config: &ProducerConfig, request_timeout: Duration) -> Self {
        Self {
            linger: config.linger,
            idempotence: config.idempotence,
            batch_size: config.batch_size.min(config.max_request_size),
            max_request_size: config.max_request_size,
            // Large records of a producer that has its own limit for them are few: their buffers are given back.
            spare_memory: config.max_record_size.map_or(config.buffer_memory, |_| config.max_request_size),
            delivery_timeout: config.delivery_timeout,
            missing_timeout: request_timeout.min(config.delivery_timeout),
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
    pub(crate) target: Target,
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
pub(crate) enum Refused {
    /// Metadata is needed first.
    UnknownTopic,
    /// The topic has only so many partitions.
    NoSuchPartition { partition: i32, count: usize },
}

/// A batch on its way to the broker; [`Accumulator::complete`] must be told how that ended.
#[derive(Debug)]
pub(crate) struct Drained {
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
    count: usize,
    partitions: Vec<Partition>,
    spread: Spread,
    /// Since when metadata says that it does not exist.
    missing_since: Option<Instant>,
    /// Told of each use, so that its metadata is kept fresh.
    interest: Option<Arc<Interest>>,
}

impl Topic {
    fn new(name: Arc<str>, id: Option<Uuid>, batch_size: usize, random: &mut fastrand::Rng) -> Self {
        let spread = Spread::new(random);
        Self { name, id, batch_size, count: 0, partitions: Vec::new(), spread, missing_since: None, interest: None }
    }

    /// Whether records that may go anywhere go elsewhere from this one on.
    fn is_to_move_on(&self, size: usize, adaptive: bool) -> bool {
        let open = self.partitions[self.spread.sticky()].queue.back().filter(|b| matches!(b.state, State::Open(_)));
        self.spread.is_over(open.map(|b| b.number), size, self.batch_size, adaptive)
    }

    fn move_on(&mut self, now: Instant, settings: &Settings, random: &mut fastrand::Rng) {
        if !settings.adaptive_partitioning {
            return self.spread.move_on(random);
        }
        let patience = settings.partition_availability_timeout;
        // A batch expires when it has lingered and waited for all of the delivery timeout.
        let late = |b: &Batch| b.expires + settings.linger + patience < now + settings.delivery_timeout;
        let partitions = &self.partitions;
        self.spread.move_by_load(random, |p| {
            let queue = &partitions[p].queue;
            Load { batches: queue.len(), responds: patience.is_zero() || !queue.front().is_some_and(late) }
        });
    }
}

/// Closes a partition's open batch if that can't take the record; tells whether it did.
fn close_unless_room(
    partition: &mut Partition,
    now: impl Fn() -> Instant,
    record: &NewRecord<'_>,
    limit: usize,
    wakes: &mut Vec<i32>,
) -> bool {
    let next = partition.listed && partition.queue.len() == partition.under_way() + 1;
    let Some(batch) = partition.queue.back_mut() else { return false };
    let State::Open(builder) = &batch.state else { return false };
    if batch.compression == record.compression && builder.size() + record.size <= limit {
        return false;
    }
    let now = now();
    if next {
        wakes.push(partition.leader); // it need not linger any more, and may make a large request
    }
    partition.last_size = batch.size();
    batch.close(now);
    true
}

/// The partitions with a batch to send, by leader, and the leaders to wake.
#[derive(Debug, Default)]
struct Lists {
    leaders: BTreeMap<i32, Leader>,
    wakes: Vec<i32>,
}

#[derive(Debug, Default)]
struct Leader {
    waiting: VecDeque<PartitionId>,
    /// Why it can't be reached, if so.
    error: Option<Error>,
    /// [`Accumulator::appended`] at which what waits may be enough for a request that must be large.
    enough_at: u64,
}

impl Lists {
    /// Lists a partition that has something to send, once, and none that has not.
    fn update(&mut self, id: PartitionId, partition: &mut Partition, rules: Rules) {
        if partition.candidate(rules).is_none() {
            self.unlist(id, partition);
        } else if !partition.listed {
            partition.listed = true;
            self.leaders.entry(partition.leader).or_default().waiting.push_back(id);
            self.wakes.push(partition.leader);
        }
    }

    fn unlist(&mut self, id: PartitionId, partition: &mut Partition) {
        if std::mem::take(&mut partition.listed) {
            if let Some(leader) = self.leaders.get_mut(&partition.leader) {
                leader.waiting.retain(|other| *other != id);
            }
        }
    }

    fn error(&self, leader: i32) -> Option<&Error> {
        self.leaders.get(&leader)?.error.as_ref()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Accumulator {
    settings: Settings,
    topics: Vec<Topic>,
    by_name: HashMap<Arc<str>, usize>,
    /// Places in `topics` of topics that were deleted.
    free: Vec<usize>,
    /// The topic of the record before, most often that of the next, too.
    latest: usize,
    lists: Lists,
    /// Bytes of all records appended so far.
    appended: u64,
    random: fastrand::Rng,
    identity: Option<Identity>,
    identity_error: Option<Error>,
    /// Buffers of large batches that have ended: the next ones need no fresh memory.
    spare: Vec<Vec<u8>>,
    /// What they have room for, in all.
    spare_size: usize,
}

impl Accumulator {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let mut new = Self {
            settings,
            topics: Vec::new(),
            by_name: HashMap::new(),
            free: Vec::new(),
            latest: 0,
            lists: Lists::default(),
            appended: 0,
            random,
            identity: None,
            identity_error: None,
            spare: Vec::new(),
            spare_size: 0,
        };
        let what = "the partition has had no leader: see whether the brokers that hold it run, or whether its topic was created \
                    anew with fewer partitions";
        new.set_leader_error(NO_LEADER, Some(Error::new(ErrorKind::Timeout, what)));
        new
    }

    fn rules(&self) -> Rules {
        Rules { linger: self.settings.linger, idempotent: self.settings.idempotence, identity: self.identity }
    }

    /// Whether an identity must be asked for.
    pub(crate) fn needs_identity(&self) -> bool {
        self.settings.idempotence && self.identity.is_none()
    }

    /// A broker has given the producer an identity.
    pub(crate) fn set_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
        self.identity_error = None;
        let rules = self.rules();
        for (t, topic) in self.topics.iter_mut().enumerate() {
            for (p, partition) in topic.partitions.iter_mut().enumerate() {
                self.lists.update(PartitionId { topic: t, partition: p }, partition, rules);
            }
        }
    }

    /// Why there is no identity yet; with `refused`, there will not be one, and what waits for it fails.
    pub(crate) fn set_identity_error(&mut self, error: Error, refused: bool) -> Vec<Ended> {
        let mut ended = Vec::new();
        if refused {
            for partition in self.topics.iter_mut().flat_map(|t| &mut t.partitions).filter(|p| !p.has_identity()) {
                partition.fail(&mut ended, |_| Some(error.clone()));
            }
        }
        self.identity_error = Some(error);
        ended
    }

    /// The brokers (or [`NO_LEADER`]) for which there is something new to send or to wait for since the last call.
    pub(crate) fn take_wakes(&mut self) -> std::vec::Drain<'_, i32> {
        self.lists.wakes.drain(..)
    }

    /// Puts a record into its partition's open batch; gives that batch's completion and the record's place in it.
    ///
    /// The time is asked for only where a batch begins or ends: reading a clock costs more than the rest.
    #[inline]
    pub(crate) fn append(
        &mut self,
        now: impl Fn() -> Instant,
        record: &NewRecord<'_>,
    ) -> Result<(Arc<Completion>, u32), Refused> {
        let index = self.index(record.topic).ok_or(Refused::UnknownTopic)?;
        let topic = &mut self.topics[index];
        if topic.missing_since.is_some() || topic.count == 0 {
            return Err(Refused::UnknownTopic);
        }
        if let Some(interest) = &topic.interest {
            interest.touch();
        }
        let mut chosen = match record.target {
            Target::Partition(p) => {
                let found = usize::try_from(p).ok().filter(|p| *p < topic.count);
                found.ok_or(Refused::NoSuchPartition { partition: p, count: topic.count })?
            }
            Target::Hash(hash) => partition_of(hash, topic.count),
            Target::Next => topic.spread.next(),
            Target::Any => topic.spread.sticky(),
        };
        let (limit, lists) = (topic.batch_size, &mut self.lists);
        let rules =
            Rules { linger: self.settings.linger, idempotent: self.settings.idempotence, identity: self.identity };
        let mut make_room = |topic: &mut Topic, chosen| {
            let partition = &mut topic.partitions[chosen];
            if close_unless_room(partition, &now, record, limit, &mut lists.wakes) {
                lists.update(PartitionId { topic: index, partition: chosen }, partition, rules);
            }
        };
        make_room(topic, chosen);
        if record.target == Target::Any && topic.is_to_move_on(record.size, self.settings.adaptive_partitioning) {
            topic.move_on(now(), &self.settings, &mut self.random);
            chosen = topic.spread.sticky();
            make_room(topic, chosen);
        }
        let partition = &mut topic.partitions[chosen];
        if !partition.queue.back().is_some_and(|b| matches!(b.state, State::Open(_))) {
            let room = partition.last_size.max(record.size + BATCH_HEADER);
            let room = if room > limit / 2 { room.max(limit) } else { room }; // large ones are of one size, and none grows
            let spare = if room >= SPARE_SIZE { self.spare.pop().unwrap_or_default() } else { Vec::new() };
            self.spare_size -= spare.capacity();
            let builder = BatchBuilder::reuse(spare, room);
            let number = partition.number();
            let now = now();
            partition.queue.push_back(Batch::open(
                number,
                Completion::new(Arc::clone(&topic.name), chosen as i32),
                record.compression,
                builder,
                now + self.settings.linger,
                now + self.settings.delivery_timeout,
            ));
            lists.update(PartitionId { topic: index, partition: chosen }, partition, rules);
        }
        let Some(batch) = partition.queue.back_mut() else { return Err(Refused::UnknownTopic) };
        let place = batch.records;
        if record.target == Target::Any {
            topic.spread.stuck(batch.number, record.size);
        }
        batch.append(record.timestamp, record.key, record.value, record.headers, record.size);
        self.appended += record.size as u64;
        Ok((Arc::clone(&batch.completion), place))
    }

    #[inline]
    fn index(&mut self, topic: &str) -> Option<usize> {
        if self.topics.get(self.latest).is_none_or(|t| *t.name != *topic) {
            self.latest = *self.by_name.get(topic)?;
        }
        Some(self.latest)
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
    ) -> Vec<Ended> {
        let rules = self.rules();
        let index = match self.by_name.get(name) {
            Some(&index) => index,
            None if leaders.is_none() => return Vec::new(),
            None => {
                let topic = Topic::new(Arc::clone(name), id, self.settings.batch_size, &mut self.random);
                let index = self.free.pop().unwrap_or(self.topics.len());
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
                topic.count = leaders.len();
                while topic.partitions.len() < topic.count {
                    topic.partitions.push(Partition::new(NO_LEADER));
                }
                topic.spread.update(leaders, &mut self.random);
            }
            None => topic.missing_since = topic.missing_since.or(Some(now)),
        }
        let anew = id.is_some() && topic.id.is_some() && id != topic.id;
        topic.id = id.or(topic.id);
        let (mut ended, mut useless) = (Vec::new(), None);
        for (i, partition) in topic.partitions.iter_mut().enumerate() {
            let id = PartitionId { topic: index, partition: i };
            if anew {
                partition.restart();
                useless = partition.settle(&mut ended).or(useless);
                self.lists.update(id, partition, rules);
            }
            let leader = leaders.and_then(|l| l.get(i).copied().flatten()).unwrap_or(NO_LEADER);
            if leader == partition.leader {
                continue;
            }
            self.lists.unlist(id, partition);
            partition.leader = leader;
            partition.hold();
            if let Some(first) = partition.queue.front_mut().filter(|b| b.attempts > 0) {
                first.ready_at = first.ready_at.min(now);
            }
            self.lists.update(id, partition, rules);
        }
        self.drop_identity(useless);
        ended
    }

    /// Has a topic's uses noted from now on.
    pub(crate) fn watch(&mut self, name: &str, interest: Arc<Interest>) {
        if let Some(topic) = self.by_name.get(name).and_then(|&index| self.topics.get_mut(index)) {
            topic.interest = Some(interest);
        }
    }

    /// Notes that topics are in use whose records wait.
    pub(crate) fn touch_waiting(&self) {
        for topic in self.topics.iter().filter(|t| t.partitions.iter().any(|p| !p.queue.is_empty())) {
            topic.interest.iter().for_each(|interest| interest.touch());
        }
    }

    /// Forgets where a topic's partitions are, which nothing was sent to for a while: its next record looks it up again. The
    /// sequence numbers of its partitions stay, for its brokers know them; with one that was deleted they go, too. Returns
    /// false, and forgets nothing, if records of it still wait.
    pub(crate) fn forget(&mut self, name: &str) -> bool {
        let Some(&index) = self.by_name.get(name) else { return true };
        let topic = &mut self.topics[index];
        if topic.partitions.iter().any(|p| !p.queue.is_empty()) {
            return false;
        }
        topic.count = 0;
        topic.interest = None;
        topic.partitions.iter_mut().for_each(|p| p.queue.shrink_to_fit());
        if topic.missing_since.is_some() {
            self.by_name.remove(name);
            let none = Topic::new("".into(), None, 0, &mut self.random);
            self.topics[index] = none;
            self.free.push(index);
        }
        true
    }

    /// A broker does not want this producer id any more.
    fn drop_identity(&mut self, useless: Option<i64>) {
        if useless.is_some() && self.identity.map(|i| i.id) == useless {
            self.identity = None;
            self.lists.wakes.push(NO_LEADER); // wakes the supervisor
        }
    }

    /// Why a broker can't be reached; none when it can.
    pub(crate) fn set_leader_error(&mut self, leader: i32, error: Option<Error>) {
        self.lists.leaders.entry(leader).or_default().error = error;
    }

    /// Whether a batch waits for this broker (or [`NO_LEADER`]).
    pub(crate) fn has_waiting(&self, leader: i32) -> bool {
        self.lists.leaders.get(&leader).is_some_and(|l| !l.waiting.is_empty())
    }

    /// The brokers for which batches wait.
    pub(crate) fn waiting_leaders(&self) -> Vec<i32> {
        let waiting = self.lists.leaders.iter().filter(|(_, l)| !l.waiting.is_empty());
        waiting.map(|(id, _)| *id).filter(|id| *id != NO_LEADER).collect()
    }

    /// How many partitions a topic has, and which of them are to be had; none if metadata is needed first.
    pub(crate) fn partitions(&self, topic: &str) -> Option<(i32, Arc<[i32]>)> {
        let topic = &self.topics[*self.by_name.get(topic)?];
        let known = topic.missing_since.is_none() && topic.count > 0;
        known.then(|| (topic.count as i32, Arc::clone(topic.spread.available())))
    }

    /// The topics that it knows and has not forgotten.
    pub(crate) fn topic_names(&self) -> Vec<Arc<str>> {
        let known = self.by_name.iter().map(|(name, &index)| (name, &self.topics[index]));
        known.filter(|(_, t)| t.count > 0 || t.missing_since.is_some()).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Returns when the batches that wait for a broker make a request of half of `max_request_size`, if they do: a time that has
    /// passed for at once. The time is asked for only if so many bytes have been appended since the last call that the answer
    /// may be another one.
    pub(crate) fn large_request_at(&mut self, now: impl Fn() -> Instant, broker: i32) -> Option<Instant> {
        let rules = self.rules();
        let leader = self.lists.leaders.get_mut(&broker)?;
        if leader.waiting.is_empty() || self.appended < leader.enough_at {
            return None;
        }
        let now = now();
        let enough = self.settings.max_request_size / 2;
        let (mut ready, mut total, mut last) = (0, 0, now);
        for id in &leader.waiting {
            let partition = &self.topics[id.topic].partitions[id.partition];
            let Some(batch) = partition.candidate(rules).and_then(|at| partition.queue.get(at)) else { continue };
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
        leader.enough_at = self.appended + (enough - total) as u64;
        None
    }

    /// The next request to a broker: at most one batch of each partition it leads, together at most `max_request_size`. If
    /// nothing is ready, also the time at which something will be. The time is asked for only if something waits.
    pub(crate) fn drain(&mut self, now: impl Fn() -> Instant, broker: i32) -> (Vec<Drained>, Option<Instant>) {
        let (mut drained, mut next) = (Vec::new(), None::<Instant>);
        let mut room = self.settings.max_request_size;
        let rules = self.rules();
        let Some(leader) = self.lists.leaders.get_mut(&broker).filter(|l| !l.waiting.is_empty()) else {
            return (drained, next);
        };
        let now = now();
        for _ in 0..leader.waiting.len() {
            let Some(id) = leader.waiting.pop_front() else { break };
            let topic = &mut self.topics[id.topic];
            let partition = &mut topic.partitions[id.partition];
            let candidate = partition.candidate(rules).and_then(|at| partition.queue.get(at));
            let Some(batch) = candidate else {
                partition.listed = false;
                continue;
            };
            if batch.ready_at > now {
                next = Some(next.map_or(batch.ready_at, |n| n.min(batch.ready_at)));
                leader.waiting.push_back(id);
                continue;
            }
            let size = batch.size() + OVERHEAD + topic.name.len();
            if size > room && !drained.is_empty() {
                leader.waiting.push_front(id);
                break;
            }
            room = room.saturating_sub(size);
            partition.last_size = batch.size();
            if let Some((batch, payload)) = partition.send(rules) {
                drained.push(Drained {
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
            partition.listed = partition.candidate(rules).is_some();
            if partition.listed {
                leader.waiting.push_back(id);
            }
        }
        (drained, next)
    }

    /// A batch that was drained is back; adds what has ended by that.
    pub(crate) fn complete(&mut self, now: Instant, id: BatchId, outcome: Outcome, ended: &mut Vec<Ended>) {
        let rules = self.rules();
        let BatchId { partition: place, number } = id;
        let topic = &mut self.topics[place.topic];
        let partition = &mut topic.partitions[place.partition];
        if let Outcome::TooLarge { halves: Some(_), .. } = &outcome {
            // Smaller ones from now on, so that not every one has to be cut.
            let size = partition.queue.iter().find(|b| b.number == number).map_or(usize::MAX, |b| b.charged / 2);
            topic.batch_size = topic.batch_size.min(size.max(SMALLEST_BATCH));
        }
        partition.complete(now, number, outcome, ended);
        let useless = partition.settle(ended);
        self.lists.update(place, partition, rules);
        self.drop_identity(useless);
    }

    /// Takes back the buffer of a batch.
    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        let size = buffer.capacity();
        if size >= SPARE_SIZE && self.spare_size + size <= self.settings.spare_memory {
            self.spare_size += size;
            self.spare.push(buffer);
        }
    }

    /// Fails what is older than the delivery timeout or whose topic has been missing for too long; says when to look again.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<Ended>, Instant) {
        let mut ended = Vec::new();
        let mut useless = None;
        let rules = self.rules();
        let timeout = self.settings.delivery_timeout;
        // Nothing that is appended from now on expires before this.
        let mut next = now + timeout;
        for (t, topic) in self.topics.iter_mut().enumerate() {
            let gone_at = topic.missing_since.map(|since| since + self.settings.missing_timeout);
            let missing = topic.missing_since.filter(|_| gone_at.is_some_and(|at| at <= now));
            for (p, partition) in topic.partitions.iter_mut().enumerate() {
                if partition.queue.is_empty() {
                    continue;
                }
                if let Some(at) = gone_at.filter(|at| *at > now) {
                    next = next.min(at);
                }
                if missing.is_some() || partition.queue.iter().any(|b| b.expires <= now) {
                    let cause = match self.lists.error(partition.leader) {
                        None if rules.identity.is_none() => self.identity_error.as_ref(),
                        error => error,
                    };
                    partition.fail(&mut ended, |batch| match missing {
                        Some(since) => Some(batch.topic_missing(now.duration_since(since))),
                        None => (batch.expires <= now).then(|| batch.timed_out(timeout, cause)),
                    });
                    useless = partition.settle(&mut ended).or(useless);
                    self.lists.update(PartitionId { topic: t, partition: p }, partition, rules);
                }
                let waits = partition.queue.iter().map(|b| b.expires).filter(|at| *at > now);
                next = waits.min().map_or(next, |at| next.min(at));
            }
        }
        self.drop_identity(useless);
        (ended, next)
    }

    /// Makes all that is open ready to be sent; gives the completions of all that has not ended.
    pub(crate) fn flush(&mut self, now: Instant) -> Vec<Arc<Completion>> {
        let mut waiting = Vec::new();
        let rules = self.rules();
        for (t, topic) in self.topics.iter_mut().enumerate() {
            for (p, partition) in topic.partitions.iter_mut().enumerate() {
                let Some(last) = partition.queue.back_mut() else { continue };
                last.close(now);
                if partition.listed {
                    self.lists.wakes.push(partition.leader);
                }
                self.lists.update(PartitionId { topic: t, partition: p }, partition, rules);
                waiting.extend(partition.queue.iter().map(|b| Arc::clone(&b.completion)));
            }
        }
        waiting
    }

    /// Fails all there is.
    pub(crate) fn abort(&mut self, why: &str) -> Vec<Ended> {
        let mut ended = Vec::new();
        for topic in &mut self.topics {
            for partition in &mut topic.partitions {
                ended.extend(partition.abort(why));
            }
        }
        self.lists.leaders.clear();
        ended
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod spread_tests;
#[cfg(test)]
pub(super) mod tests;
