//! What waits to be sent: topics, their partitions, and each partition's batches in order. No task, no socket, no clock.
//!
//! A partition's batches stand in one queue. The last may be open (records are appended to it), the first may be with its
//! broker; only one batch of a partition is, so that retries keep the order. A partition whose first batch waits is listed
//! with its leader; [`drain`](Accumulator::drain) takes what is ready from that list.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Batch, Ended, Outcome, Payload, State};
use super::delivery::Completion;
use super::partitioner::{Target, partition_of};
use crate::config::{Compression, ProducerConfig};
use crate::error::{Error, ErrorKind};
use crate::record::{BATCH_HEADER, Headers};

/// Stands for the leader of a partition that has none.
pub(crate) const NO_LEADER: i32 = -1;
/// The most that a produce request adds to a batch beside its topic's name: numbers, lengths, tags.
const OVERHEAD: usize = 32;

/// What the accumulator must know of its producer's settings.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) linger: Duration,
    pub(crate) batch_size: usize,
    pub(crate) max_request_size: usize,
    pub(crate) delivery_timeout: Duration,
    /// How long a topic may be missing before its records fail.
    pub(crate) missing_timeout: Duration,
}

impl Settings {
    pub(crate) fn new(config: &ProducerConfig, request_timeout: Duration) -> Self {
        Self {
            linger: config.linger,
            batch_size: config.batch_size.min(config.max_request_size),
            max_request_size: config.max_request_size,
            delivery_timeout: config.delivery_timeout,
            missing_timeout: request_timeout.min(config.delivery_timeout),
        }
    }
}

/// A partition, by its topic's place in the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PartitionId {
    topic: usize,
    partition: usize,
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
    NoSuchPartition { count: usize },
}

/// A batch on its way to the broker; [`Accumulator::complete`] must be told how that ended.
#[derive(Debug)]
pub(crate) struct Drained {
    pub(crate) id: PartitionId,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) payload: Payload,
    pub(crate) compression: Compression,
    pub(crate) records: u32,
    /// How often it was tried before.
    pub(crate) attempts: u32,
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    /// As many as the topic has now; there may be more below, of when it had more.
    count: usize,
    partitions: Vec<Partition>,
    /// Where records without a key go for now.
    sticky: usize,
    /// Since when metadata says that it does not exist.
    missing_since: Option<Instant>,
}

impl Topic {
    /// Another partition for records without a key, at random, if possible one with a leader.
    fn stick_elsewhere(&mut self, random: &mut fastrand::Rng) {
        let (before, others) = (self.sticky, self.count.saturating_sub(1));
        for _ in 0..if others > 0 { 8 } else { 0 } {
            let pick = random.usize(..others);
            self.sticky = if pick >= before { pick + 1 } else { pick };
            if self.partitions[self.sticky].leader != NO_LEADER {
                break;
            }
        }
    }
}

#[derive(Debug)]
struct Partition {
    leader: i32,
    /// Whether it is in its leader's list: it is if and only if its first batch waits.
    listed: bool,
    queue: VecDeque<Batch>,
    /// The size of the batch before: room for the next one.
    last_size: usize,
}

impl Partition {
    fn new() -> Self {
        Self { leader: NO_LEADER, listed: false, queue: VecDeque::new(), last_size: 0 }
    }

    /// Closes its open batch if that can't take the record; tells whether it did.
    fn close_unless_room(&mut self, now: Instant, record: &NewRecord<'_>, limit: usize, lists: &mut Lists) -> bool {
        let alone = self.queue.len() == 1;
        let Some(batch) = self.queue.back_mut() else { return false };
        let State::Open(builder) = &batch.state else { return false };
        if batch.compression == record.compression && builder.size() + record.size <= limit {
            return false;
        }
        if alone && batch.ready_at > now {
            lists.wakes.push(self.leader); // it need not linger any more
        }
        batch.close(now);
        true
    }
}

/// The partitions whose first batch waits, by leader, and the leaders to wake.
#[derive(Debug, Default)]
struct Lists {
    leaders: HashMap<i32, Leader>,
    wakes: Vec<i32>,
}

#[derive(Debug, Default)]
struct Leader {
    waiting: VecDeque<PartitionId>,
    /// Why it can't be reached, if so.
    error: Option<Error>,
}

impl Lists {
    /// Lists a partition whose first batch waits, if it is not listed already.
    fn list(&mut self, id: PartitionId, partition: &mut Partition) {
        if !partition.listed && partition.queue.front().is_some_and(|b| !b.is_sent()) {
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
    lists: Lists,
    random: fastrand::Rng,
}

impl Accumulator {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let mut new = Self { settings, topics: Vec::new(), by_name: HashMap::new(), lists: Lists::default(), random };
        let what = "the partition has had no leader: see whether the brokers that hold it run, or whether its topic was created \
                    anew with fewer partitions";
        new.set_leader_error(NO_LEADER, Some(Error::new(ErrorKind::Timeout, what)));
        new
    }

    /// The brokers (or [`NO_LEADER`]) for which there is something new to send or to wait for since the last call.
    pub(crate) fn take_wakes(&mut self) -> std::vec::Drain<'_, i32> {
        self.lists.wakes.drain(..)
    }

    /// Puts a record into its partition's open batch; gives that batch's completion and the record's place in it.
    pub(crate) fn append(&mut self, now: Instant, record: &NewRecord<'_>) -> Result<(Arc<Completion>, u32), Refused> {
        let Some(&index) = self.by_name.get(record.topic) else { return Err(Refused::UnknownTopic) };
        let topic = &mut self.topics[index];
        if topic.missing_since.is_some() || topic.count == 0 {
            return Err(Refused::UnknownTopic);
        }
        let mut chosen = match record.target {
            Target::Partition(p) => {
                let found = usize::try_from(p).ok().filter(|p| *p < topic.count);
                found.ok_or(Refused::NoSuchPartition { count: topic.count })?
            }
            Target::Hash(hash) => partition_of(hash, topic.count),
            Target::Any => topic.sticky,
        };
        let (limit, lists) = (self.settings.batch_size, &mut self.lists);
        if topic.partitions[chosen].close_unless_room(now, record, limit, lists) {
            if chosen == topic.sticky {
                topic.stick_elsewhere(&mut self.random);
            }
            if record.target == Target::Any && chosen != topic.sticky {
                // The batch it did not fit into is complete, and records without a key move on with each batch.
                chosen = topic.sticky;
                topic.partitions[chosen].close_unless_room(now, record, limit, lists);
            }
        }
        let partition = &mut topic.partitions[chosen];
        if !partition.queue.back().is_some_and(|b| matches!(b.state, State::Open(_))) {
            let room = partition.last_size.max(record.size + BATCH_HEADER);
            partition.queue.push_back(Batch::open(
                Completion::new(Arc::clone(&topic.name), chosen as i32),
                record.compression,
                room,
                now + self.settings.linger,
                now + self.settings.delivery_timeout,
            ));
            lists.list(PartitionId { topic: index, partition: chosen }, partition);
        }
        let Some(batch) = partition.queue.back_mut() else { return Err(Refused::UnknownTopic) };
        let place = batch.records;
        batch.append(record.timestamp, record.key, record.value, record.headers, record.size);
        Ok((Arc::clone(&batch.completion), place))
    }

    /// What metadata says of a topic: the leader of each partition, or that the topic does not exist.
    ///
    /// A partition's batches follow its leader; a new leader is tried at once.
    pub(crate) fn update_topic(&mut self, now: Instant, name: &Arc<str>, leaders: Option<&[Option<i32>]>) {
        let index = match self.by_name.get(name) {
            Some(&index) => index,
            None if leaders.is_none() => return,
            None => {
                let index = self.topics.len();
                self.by_name.insert(Arc::clone(name), index);
                self.topics.push(Topic {
                    name: Arc::clone(name),
                    count: 0,
                    partitions: Vec::new(),
                    sticky: usize::MAX,
                    missing_since: None,
                });
                index
            }
        };
        let topic = &mut self.topics[index];
        match leaders {
            Some(leaders) => {
                topic.missing_since = None;
                topic.count = leaders.len();
                while topic.partitions.len() < topic.count {
                    topic.partitions.push(Partition::new());
                }
            }
            None => topic.missing_since = topic.missing_since.or(Some(now)),
        }
        for (i, partition) in topic.partitions.iter_mut().enumerate() {
            let leader = leaders.and_then(|l| l.get(i).copied().flatten()).unwrap_or(NO_LEADER);
            if leader == partition.leader {
                continue;
            }
            let id = PartitionId { topic: index, partition: i };
            self.lists.unlist(id, partition);
            partition.leader = leader;
            if let Some(first) = partition.queue.front_mut().filter(|b| b.attempts > 0) {
                first.ready_at = first.ready_at.min(now);
            }
            self.lists.list(id, partition);
        }
        if topic.sticky >= topic.count && topic.count > 0 {
            topic.sticky = self.random.usize(..topic.count);
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

    /// The topics it knows.
    pub(crate) fn topic_names(&self) -> Vec<Arc<str>> {
        self.topics.iter().map(|t| Arc::clone(&t.name)).collect()
    }

    /// The next request to a broker: at most one batch of each partition it leads, together at most `max_request_size`. If
    /// nothing is ready, also the time at which something will be.
    pub(crate) fn drain(&mut self, now: Instant, broker: i32) -> (Vec<Drained>, Option<Instant>) {
        let (mut drained, mut next) = (Vec::new(), None::<Instant>);
        let mut room = self.settings.max_request_size;
        let Some(leader) = self.lists.leaders.get_mut(&broker) else { return (drained, next) };
        for _ in 0..leader.waiting.len() {
            let Some(id) = leader.waiting.pop_front() else { break };
            let topic = &mut self.topics[id.topic];
            let partition = &mut topic.partitions[id.partition];
            let Some(batch) = partition.queue.front_mut() else { continue };
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
            partition.listed = false;
            partition.last_size = batch.size();
            let was_open = matches!(batch.state, State::Open(_));
            let Some(payload) = batch.send() else { continue };
            drained.push(Drained {
                id,
                topic: Arc::clone(&topic.name),
                partition: id.partition as i32,
                payload,
                compression: batch.compression,
                records: batch.records,
                attempts: batch.attempts,
            });
            if was_open && id.partition == topic.sticky {
                topic.stick_elsewhere(&mut self.random);
            }
        }
        (drained, next)
    }

    /// A batch that was drained is back. What follows it in its partition may be sent now.
    pub(crate) fn complete(&mut self, now: Instant, id: PartitionId, outcome: Outcome) -> Option<Ended> {
        let partition = &mut self.topics[id.topic].partitions[id.partition];
        if !partition.queue.front().is_some_and(Batch::is_sent) {
            return None; // all was failed in the meantime
        }
        let mut batch = partition.queue.pop_front()?;
        let result = match outcome {
            Outcome::Written(written) => Ok(written),
            Outcome::Failed(error) => Err(batch.failed(error)),
            // Its records may not have been told yet: they are told the same, whoever comes first.
            Outcome::Retry { error, .. } if batch.given_up => Err(batch.last_error.clone().unwrap_or(error)),
            Outcome::Retry { error, maybe_written, payload, after } => {
                batch.retry(payload, error, maybe_written, now + after);
                partition.queue.push_front(batch);
                self.lists.list(id, partition);
                return None;
            }
        };
        self.lists.list(id, partition);
        Some(batch.end(result))
    }

    /// Fails what is older than the delivery timeout or whose topic has been missing for too long; says when to look again.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<Ended>, Instant) {
        let mut ended = Vec::new();
        // Nothing that is appended from now on expires before this.
        let mut next = now + self.settings.delivery_timeout;
        for (t, topic) in self.topics.iter_mut().enumerate() {
            let gone_at = topic.missing_since.map(|since| since + self.settings.missing_timeout);
            let missing = topic.missing_since.filter(|_| gone_at.is_some_and(|at| at <= now));
            for (p, partition) in topic.partitions.iter_mut().enumerate() {
                let Some(first) = partition.queue.front() else { continue };
                if missing.is_none() && partition.queue.iter().all(|b| b.expires > now) {
                    next = next.min(first.expires);
                    next = gone_at.map_or(next, |at| next.min(at));
                    continue;
                }
                if let Some(at) = gone_at.filter(|at| *at > now) {
                    next = next.min(at);
                }
                let leader_error = self.lists.error(partition.leader);
                let mut kept = VecDeque::with_capacity(partition.queue.len());
                for mut batch in partition.queue.drain(..) {
                    let error = match missing {
                        Some(since) => Some(batch.topic_missing(now.duration_since(since))),
                        None if batch.expires <= now => {
                            Some(batch.timed_out(self.settings.delivery_timeout, leader_error))
                        }
                        None => None,
                    };
                    match error {
                        // It keeps its place, and its buffer, until its broker has answered.
                        Some(error) if batch.is_sent() => {
                            ended.extend((!batch.given_up).then(|| batch.give_up(error)));
                            kept.push_back(batch);
                        }
                        Some(error) => ended.push(batch.end(Err(error))),
                        None => {
                            next = next.min(batch.expires);
                            kept.push_back(batch);
                        }
                    }
                }
                partition.queue = kept;
                if partition.queue.is_empty() {
                    self.lists.unlist(PartitionId { topic: t, partition: p }, partition);
                }
            }
        }
        (ended, next)
    }

    /// Makes all that is open ready to be sent; gives the completions of all that has not ended.
    pub(crate) fn flush(&mut self, now: Instant) -> Vec<Arc<Completion>> {
        let mut waiting = Vec::new();
        for topic in &mut self.topics {
            let mut sticky_closed = false;
            for (p, partition) in topic.partitions.iter_mut().enumerate() {
                let Some(last) = partition.queue.back_mut() else { continue };
                sticky_closed |= p == topic.sticky && matches!(last.state, State::Open(_));
                last.close(now);
                if partition.listed {
                    self.lists.wakes.push(partition.leader);
                }
                waiting.extend(partition.queue.iter().map(|b| Arc::clone(&b.completion)));
            }
            if sticky_closed {
                topic.stick_elsewhere(&mut self.random);
            }
        }
        waiting
    }

    /// Fails all there is.
    pub(crate) fn abort(&mut self, why: &str) -> Vec<Ended> {
        let mut ended = Vec::new();
        for topic in &mut self.topics {
            for partition in &mut topic.partitions {
                partition.listed = false;
                // What was given up has ended already.
                ended.extend(partition.queue.drain(..).filter(|batch| !batch.given_up).map(|batch| {
                    let error = batch.abandoned(why);
                    batch.end(Err(error))
                }));
            }
        }
        self.lists.leaders.clear();
        ended
    }
}

#[cfg(test)]
mod tests;
