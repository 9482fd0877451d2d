//! A registry that counts in memory.

mod families;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::{Histogram, Metrics, MetricsSnapshot, Observation};
use crate::error::ErrorKind;
use crate::lock::Lock;

/// An unknown offset.
const UNKNOWN_OFFSET: i64 = -1;

/// Counts metric events in memory, for applications that read or export the numbers: the command's
/// `/metrics` prints a [`snapshot`](Self::snapshot). `docs/metrics.md` lists the metrics.
///
/// One registry may serve several clients, whose numbers are added up.
///
/// See the [module](super) for an example.
#[derive(Debug, Default)]
pub struct Registry {
    brokers: Map<String, BrokerMetrics>,
    topics: Map<String, TopicMetrics>,
    producers: BufferMetrics,
    groups: Map<String, GroupMetrics>,
    polls: ByError<Lock<Histogram>>,
    commits: ByError<Lock<Histogram>>,
    failures: Map<&'static str, ByError<AtomicU64>>,
}

/// Metrics by name, created on first use. Names are brokers, topics, groups and errors, of which
/// there are few.
#[derive(Debug)]
struct Map<K, V>(RwLock<BTreeMap<K, Arc<V>>>);

/// Metrics by the name of the error; empty for success.
type ByError<V> = Map<String, V>;

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Ord + Clone, V: Default> Map<K, V> {
    fn get_or_insert<Q: Ord + ToOwned<Owned = K> + ?Sized>(&self, key: &Q) -> Arc<V>
    where
        K: Borrow<Q>,
    {
        if let Some(found) = self.get(key) {
            return found;
        }
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(map.entry(key.to_owned()).or_default())
    }

    fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn all(&self) -> Vec<(K, Arc<V>)> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        map.iter().map(|(k, v)| (k.clone(), Arc::clone(v))).collect()
    }
}

impl<V: Default> ByError<V> {
    fn for_error(&self, error: Option<ErrorKind>) -> Arc<V> {
        match error {
            None => self.get_or_insert(""),
            Some(error) => self.get_or_insert(&*error.name()),
        }
    }
}

#[derive(Debug, Default)]
struct BrokerMetrics {
    connections: AtomicI64,
    opened: AtomicU64,
    failures: ByError<AtomicU64>,
    reauthentications: ByError<AtomicU64>,
    apis: Map<&'static str, ApiMetrics>,
}

#[derive(Debug, Default)]
struct ApiMetrics {
    in_flight: AtomicI64,
    took: Lock<Histogram>,
    errors: ByError<AtomicU64>,
    throttled: Lock<Duration>,
}

/// Production to a topic.
#[derive(Debug, Default)]
struct TopicMetrics {
    batches: AtomicU64,
    uncompressed: AtomicU64,
    bytes: AtomicU64,
    records: ByError<AtomicU64>,
    took: ByError<Lock<Histogram>>,
    retries: ByError<AtomicU64>,
}

#[derive(Debug, Default)]
struct BufferMetrics {
    used: AtomicI64,
    limit: AtomicI64,
    waits: AtomicU64,
    waited: Lock<Duration>,
}

#[derive(Debug, Default)]
struct GroupMetrics {
    members: Map<&'static str, AtomicI64>,
    assigned: AtomicI64,
    lost: AtomicU64,
    rebalances: Lock<Histogram>,
    commits: ByError<AtomicU64>,
    topics: Map<String, GroupTopicMetrics>,
}

/// Consumption of a topic by a group.
#[derive(Debug, Default)]
struct GroupTopicMetrics {
    batches: AtomicU64,
    fetched: AtomicU64,
    bytes: AtomicU64,
    uncompressed: AtomicU64,
    consumed: AtomicU64,
    done: Lock<Histogram>,
    failed: Lock<Histogram>,
    attempts_failed: AtomicU64,
    retries: AtomicU64,
    dead_letters: AtomicU64,
    partitions: Map<i32, PartitionMetrics>,
}

/// An assigned partition.
#[derive(Debug)]
struct PartitionMetrics {
    /// Number of members of this registry that own it: two while it moves from one to another.
    owners: AtomicI64,
    position: AtomicI64,
    end: AtomicI64,
    committed: AtomicI64,
    /// Lowest offset that is not done; unknown without handlers.
    handled: AtomicI64,
    in_flight: AtomicU64,
    waiting: AtomicU64,
    parked: AtomicU64,
    parked_keys: AtomicU64,
}

impl Default for PartitionMetrics {
    fn default() -> Self {
        let none = || AtomicI64::new(UNKNOWN_OFFSET);
        Self {
            owners: AtomicI64::new(0),
            position: none(),
            end: none(),
            committed: none(),
            handled: none(),
            in_flight: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            parked_keys: AtomicU64::new(0),
        }
    }
}

impl PartitionMetrics {
    /// Returns the number of records that are not handled, or not returned where there are no
    /// handlers.
    fn lag(&self) -> Option<i64> {
        let end = known_offset(&self.end)?;
        let at = known_offset(&self.handled).or_else(|| known_offset(&self.position))?;
        Some((end - at).max(0))
    }
}

impl Registry {
    /// Creates an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the counts so far and the current gauges.
    pub fn snapshot(&self) -> MetricsSnapshot {
        families::snapshot(self)
    }

    fn api(&self, broker: &str, api: &'static str) -> Arc<ApiMetrics> {
        self.brokers.get_or_insert(broker).apis.get_or_insert(&api)
    }

    fn read(&self, group: &str, topic: &str) -> Arc<GroupTopicMetrics> {
        self.groups.get_or_insert(group).topics.get_or_insert(topic)
    }

    /// Returns an assigned partition; its tasks may report after it was revoked.
    fn partition(&self, group: &str, topic: &str, partition: i32) -> Option<Arc<PartitionMetrics>> {
        self.groups.get(group)?.topics.get(topic)?.partitions.get(&partition)
    }

    /// Records events of connections and requests.
    fn observe_connection(&self, observation: &Observation<'_>) {
        match *observation {
            Observation::Connected { broker } => {
                let broker = self.brokers.get_or_insert(broker);
                add(&broker.connections, 1);
                count(&broker.opened, 1);
            }
            Observation::Disconnected { broker } => add(&self.brokers.get_or_insert(broker).connections, -1),
            Observation::ConnectFailed { broker, error } => {
                count(&self.brokers.get_or_insert(broker).failures.for_error(Some(error)), 1);
            }
            Observation::Reauthenticated { broker, error } => {
                count(&self.brokers.get_or_insert(broker).reauthentications.for_error(error), 1);
            }
            Observation::RequestSent { broker, api } => add(&self.api(broker, api).in_flight, 1),
            Observation::RequestEnded { broker, api: name, took, error } => {
                let api = self.api(broker, name);
                add(&api.in_flight, -1);
                api.took.lock().add(took);
                if error.is_some() {
                    count(&api.errors.for_error(error), 1);
                }
                match name {
                    "Fetch" => self.polls.for_error(error).lock().add(took),
                    "OffsetCommit" => self.commits.for_error(error).lock().add(took),
                    _ => {}
                }
            }
            Observation::Throttled { broker, api, pause } => *self.api(broker, api).throttled.lock() += pause,
            _ => {}
        }
    }

    /// Records events of producers.
    fn observe_producer(&self, observation: &Observation<'_>) {
        match *observation {
            Observation::BatchEncoded { topic, uncompressed, bytes, .. } => {
                let topic = self.topics.get_or_insert(topic);
                count(&topic.batches, 1);
                count(&topic.uncompressed, uncompressed as u64);
                count(&topic.bytes, bytes as u64);
            }
            Observation::BatchRetried { topic, error } => {
                count(&self.topics.get_or_insert(topic).retries.for_error(Some(error)), 1)
            }
            Observation::BatchEnded { topic, records, took, error } => {
                let topic = self.topics.get_or_insert(topic);
                count(&topic.records.for_error(error), u64::from(records));
                topic.took.for_error(error).lock().add(took);
            }
            Observation::BufferChanged { used, limit } => {
                add(&self.producers.used, used);
                add(&self.producers.limit, limit);
            }
            Observation::BufferWaited { took } => {
                count(&self.producers.waits, 1);
                *self.producers.waited.lock() += took;
            }
            _ => {}
        }
    }

    /// Records events of consumers.
    fn observe_consumer(&self, observation: &Observation<'_>) {
        match *observation {
            Observation::Member { group, was, is } => {
                let members = &self.groups.get_or_insert(group).members;
                was.into_iter().for_each(|was| add(&members.get_or_insert(&was), -1));
                is.into_iter().for_each(|is| add(&members.get_or_insert(&is), 1));
            }
            Observation::Assigned { group, topic, partition } => {
                add(&self.groups.get_or_insert(group).assigned, 1);
                add(&self.read(group, topic).partitions.get_or_insert(&partition).owners, 1);
            }
            Observation::Unassigned { group, topic, partition, lost } => {
                let group = self.groups.get_or_insert(group);
                add(&group.assigned, -1);
                count(&group.lost, u64::from(lost));
                let topic = group.topics.get_or_insert(topic);
                let mut partitions = topic.partitions.0.write().unwrap_or_else(PoisonError::into_inner);
                let others = partitions.get(&partition).map_or(0, |p| p.owners.fetch_sub(1, Ordering::Relaxed) - 1);
                if others <= 0 {
                    partitions.remove(&partition);
                }
            }
            Observation::Rebalanced { group, took } => self.groups.get_or_insert(group).rebalances.lock().add(took),
            Observation::Fetched { group, topic, partition, batches, records, bytes, uncompressed, end } => {
                let read = self.read(group, topic);
                count(&read.batches, u64::from(batches));
                count(&read.fetched, records as u64);
                count(&read.bytes, bytes as u64);
                count(&read.uncompressed, uncompressed as u64);
                if let Some(p) = self.partition(group, topic, partition) {
                    p.end.store(end, Ordering::Relaxed);
                }
            }
            Observation::Consumed { group, topic, partition, records, position } => {
                count(&self.read(group, topic).consumed, records as u64);
                if let Some(p) = self.partition(group, topic, partition) {
                    p.position.store(position, Ordering::Relaxed);
                }
            }
            Observation::Committed { group, error, .. } => {
                count(&self.groups.get_or_insert(group).commits.for_error(error), 1)
            }
            Observation::CommittedOffset { group, topic, partition, offset } => {
                if let Some(p) = self.partition(group, topic, partition) {
                    p.committed.store(offset, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }

    /// Records events of processors.
    fn observe_processor(&self, observation: &Observation<'_>) {
        match *observation {
            Observation::Handled { group, topic, done, failed, .. } => {
                let read = self.read(group, topic);
                read.done.lock().merge(done);
                read.failed.lock().merge(failed);
            }
            Observation::AttemptFailed { group, topic, retried, .. } => {
                let read = self.read(group, topic);
                count(&read.attempts_failed, 1);
                count(&read.retries, u64::from(retried));
            }
            Observation::DeadLettered { group, topic, .. } => count(&self.read(group, topic).dead_letters, 1),
            Observation::Backlog { group, topic, partition, in_flight, waiting, parked, parked_keys, position } => {
                let Some(p) = self.partition(group, topic, partition) else { return };
                let set = |to: &AtomicU64, n: usize| to.store(n as u64, Ordering::Relaxed);
                set(&p.in_flight, in_flight);
                set(&p.waiting, waiting);
                set(&p.parked, parked);
                set(&p.parked_keys, parked_keys);
                p.handled.store(position.unwrap_or(UNKNOWN_OFFSET), Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

impl Metrics for Registry {
    fn observe(&self, observation: &Observation<'_>) {
        match observation {
            Observation::Connected { .. }
            | Observation::Disconnected { .. }
            | Observation::ConnectFailed { .. }
            | Observation::Reauthenticated { .. }
            | Observation::RequestSent { .. }
            | Observation::RequestEnded { .. }
            | Observation::Throttled { .. } => self.observe_connection(observation),
            Observation::BatchEncoded { .. }
            | Observation::BatchRetried { .. }
            | Observation::BatchEnded { .. }
            | Observation::BufferChanged { .. }
            | Observation::BufferWaited { .. } => self.observe_producer(observation),
            Observation::Member { .. }
            | Observation::Assigned { .. }
            | Observation::Unassigned { .. }
            | Observation::Rebalanced { .. }
            | Observation::Fetched { .. }
            | Observation::Consumed { .. }
            | Observation::Committed { .. }
            | Observation::CommittedOffset { .. } => self.observe_consumer(observation),
            Observation::Handled { .. }
            | Observation::AttemptFailed { .. }
            | Observation::DeadLettered { .. }
            | Observation::Backlog { .. } => self.observe_processor(observation),
            Observation::Failed { part, error } => count(&self.failures.get_or_insert(part).for_error(Some(*error)), 1),
        }
    }
}

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn add(gauge: &AtomicI64, n: i64) {
    gauge.fetch_add(n, Ordering::Relaxed);
}

fn known_offset(offset: &AtomicI64) -> Option<i64> {
    Some(offset.load(Ordering::Relaxed)).filter(|offset| *offset != UNKNOWN_OFFSET)
}
