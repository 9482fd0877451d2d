//! A registry that counts in memory.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ailurus::ErrorKind;
use ailurus::metrics::{Histogram, Metrics, Observation};
use parking_lot::Mutex;

/// An unknown offset.
const UNKNOWN_OFFSET: i64 = -1;

/// Counts metric events in memory, for applications that read or export the numbers: the command's
/// `/metrics` prints a [`snapshot`](Self::snapshot). `docs/metrics.md` lists the metrics.
///
/// One registry may serve several clients, whose numbers are added up.
///
/// See the [crate](crate) for an example.
#[derive(Debug, Default)]
pub struct Registry {
    pub(crate) brokers: Map<String, BrokerMetrics>,
    pub(crate) topics: Map<String, TopicMetrics>,
    pub(crate) producers: BufferMetrics,
    pub(crate) groups: Map<String, GroupMetrics>,
    pub(crate) transactions: Map<String, TransactionMetrics>,
    pub(crate) polls: ByError<Mutex<Histogram>>,
    pub(crate) commits: ByError<Mutex<Histogram>>,
    pub(crate) failures: Map<&'static str, ByError<AtomicU64>>,
}

/// Metrics by name, created on first use. Names are brokers, topics, groups and errors, of which
/// there are few.
#[derive(Debug)]
pub(crate) struct Map<K, V>(Mutex<BTreeMap<K, Arc<V>>>);

/// Metrics by the name of the error; empty for success.
pub(crate) type ByError<V> = Map<String, V>;

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Clone, V: Default> Map<K, V> {
    fn get_or_insert<Q: Ord + ToOwned<Owned = K> + ?Sized>(&self, key: &Q) -> Arc<V>
    where
        K: Borrow<Q>,
    {
        let mut map = self.0.lock();
        match map.get(key) {
            Some(found) => Arc::clone(found),
            None => Arc::clone(map.entry(key.to_owned()).or_default()),
        }
    }

    fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.0.lock().get(key).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(K, Arc<V>)> {
        self.0.lock().iter().map(|(k, v)| (k.clone(), Arc::clone(v))).collect()
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
pub(crate) struct BrokerMetrics {
    pub(crate) connections: AtomicI64,
    pub(crate) opened: AtomicU64,
    pub(crate) failures: ByError<AtomicU64>,
    pub(crate) reauthentications: ByError<AtomicU64>,
    pub(crate) apis: Map<&'static str, ApiMetrics>,
}

#[derive(Debug, Default)]
pub(crate) struct ApiMetrics {
    pub(crate) in_flight: AtomicI64,
    pub(crate) took: Mutex<Histogram>,
    pub(crate) errors: ByError<AtomicU64>,
    pub(crate) throttled: Mutex<Duration>,
}

/// Production to a topic.
#[derive(Debug, Default)]
pub(crate) struct TopicMetrics {
    pub(crate) batches: AtomicU64,
    pub(crate) uncompressed: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) records: ByError<AtomicU64>,
    pub(crate) took: ByError<Mutex<Histogram>>,
    pub(crate) retries: ByError<AtomicU64>,
}

#[derive(Debug, Default)]
pub(crate) struct BufferMetrics {
    pub(crate) used: AtomicI64,
    pub(crate) limit: AtomicI64,
    pub(crate) waits: AtomicU64,
    pub(crate) waited: Mutex<Duration>,
}

/// Transactions of the producers that have a transactional id, or one that begins with it.
#[derive(Debug, Default)]
pub(crate) struct TransactionMetrics {
    /// Number of producers by state.
    pub(crate) states: Map<&'static str, AtomicI64>,
    /// Number of open transactions by the time at which they began.
    open: Mutex<BTreeMap<Instant, usize>>,
    pub(crate) ended: Map<&'static str, ByError<AtomicU64>>,
    pub(crate) commits: Mutex<Histogram>,
}

impl TransactionMetrics {
    /// Returns the time for which the oldest open transaction has been open; zero if none is.
    pub(crate) fn open_for(&self) -> Duration {
        self.open.lock().keys().next().map(Instant::elapsed).unwrap_or_default()
    }
}

#[derive(Debug, Default)]
pub(crate) struct GroupMetrics {
    pub(crate) members: Map<&'static str, AtomicI64>,
    pub(crate) assigned: AtomicI64,
    /// Sum of the limits of its subscriptions; none for consumers.
    pub(crate) concurrency: AtomicI64,
    pub(crate) lost: AtomicU64,
    pub(crate) rebalances: Mutex<Histogram>,
    pub(crate) commits: ByError<AtomicU64>,
    pub(crate) transactions: ByError<Mutex<Histogram>>,
    pub(crate) transaction_records: AtomicU64,
    pub(crate) transaction_bytes: AtomicU64,
    /// Dependencies of handlers, by name.
    pub(crate) holds: Map<String, HoldMetrics>,
    pub(crate) topics: Map<String, GroupTopicMetrics>,
}

/// A dependency of handlers.
#[derive(Debug, Default)]
pub(crate) struct HoldMetrics {
    /// Number of holds that are open.
    pub(crate) open: AtomicI64,
    pub(crate) started: AtomicU64,
    /// Time of those that have ended.
    pub(crate) held_for: Mutex<Duration>,
}

/// Consumption of a topic by a group.
#[derive(Debug, Default)]
pub(crate) struct GroupTopicMetrics {
    pub(crate) batches: AtomicU64,
    pub(crate) fetched: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) uncompressed: AtomicU64,
    pub(crate) consumed: AtomicU64,
    pub(crate) done: Mutex<Histogram>,
    pub(crate) failed: Mutex<Histogram>,
    pub(crate) attempts_failed: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
    pub(crate) skipped: AtomicU64,
    /// Number of paused partitions by reason.
    pub(crate) paused: Map<&'static str, AtomicI64>,
    pub(crate) partitions: Map<i32, PartitionMetrics>,
}

/// An assigned partition.
#[derive(Debug)]
pub(crate) struct PartitionMetrics {
    /// Number of members of this registry that own it: two while it moves from one to another.
    pub(crate) owners: AtomicI64,
    pub(crate) position: AtomicI64,
    pub(crate) end: AtomicI64,
    pub(crate) committed: AtomicI64,
    /// Lowest offset that is not done; unknown without handlers.
    pub(crate) handled: AtomicI64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) parked: AtomicU64,
    pub(crate) parked_keys: AtomicU64,
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
    pub(crate) fn lag(&self) -> Option<i64> {
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

    /// Records events of transactional producers.
    fn observe_transaction(&self, observation: &Observation<'_>) {
        match *observation {
            Observation::TransactionalProducer { transactional_id, was, is } => {
                let states = &self.transactions.get_or_insert(transactional_id).states;
                was.into_iter().for_each(|was| add(&states.get_or_insert(&was), -1));
                is.into_iter().for_each(|is| add(&states.get_or_insert(&is), 1));
            }
            Observation::TransactionOpen { transactional_id, was, is } => {
                let transactions = self.transactions.get_or_insert(transactional_id);
                let mut open = transactions.open.lock();
                if let Some(was) = was {
                    match open.get_mut(&was) {
                        Some(count) if *count > 1 => *count -= 1,
                        _ => _ = open.remove(&was),
                    }
                }
                is.into_iter().for_each(|is| *open.entry(is).or_default() += 1);
            }
            Observation::TransactionEnded { transactional_id, outcome, took, error } => {
                let transactions = self.transactions.get_or_insert(transactional_id);
                count(&transactions.ended.get_or_insert(&outcome).for_error(error), 1);
                if outcome == "committed" {
                    transactions.commits.lock().add(took);
                }
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
                let mut partitions = topic.partitions.0.lock();
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
            Observation::PipelineTransactionEnded { group, records, bytes, took, error } => {
                let group = self.groups.get_or_insert(group);
                group.transactions.for_error(error).lock().add(took);
                if error.is_none() {
                    count(&group.transaction_records, records as u64);
                    count(&group.transaction_bytes, bytes as u64);
                }
            }
            Observation::PauseChanged { group, topic, reason, paused, .. } => {
                add(&self.read(group, topic).paused.get_or_insert(&reason), if paused { 1 } else { -1 });
            }
            Observation::HoldStarted { group, dependency } => {
                let hold = self.groups.get_or_insert(group).holds.get_or_insert(dependency);
                add(&hold.open, 1);
                count(&hold.started, 1);
            }
            Observation::HoldEnded { group, dependency, held_for } => {
                let hold = self.groups.get_or_insert(group).holds.get_or_insert(dependency);
                add(&hold.open, -1);
                *hold.held_for.lock() += held_for;
            }
            Observation::Skipped { group, topic, .. } => count(&self.read(group, topic).skipped, 1),
            Observation::ConcurrencyChanged { group, from, to } => {
                let change = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
                add(&self.groups.get_or_insert(group).concurrency, change(to) - change(from));
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
    /// Records an event: each layer's function ignores those of the others.
    fn observe(&self, observation: &Observation<'_>) {
        self.observe_connection(observation);
        self.observe_producer(observation);
        self.observe_transaction(observation);
        self.observe_consumer(observation);
        self.observe_processor(observation);
        if let Observation::Failed { part, error } = observation {
            count(&self.failures.get_or_insert(part).for_error(Some(*error)), 1);
        }
    }
}

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn add(gauge: &AtomicI64, n: i64) {
    gauge.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn known_offset(offset: &AtomicI64) -> Option<i64> {
    Some(offset.load(Ordering::Relaxed)).filter(|offset| *offset != UNKNOWN_OFFSET)
}
