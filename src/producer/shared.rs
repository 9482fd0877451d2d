//! State that a producer's handles, senders and supervisor share: the accumulator behind its lock,
//! and the wake-ups.

use std::collections::HashSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::{Arc, MutexGuard};

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accumulator::{Accumulator, AccumulatorConfig};
use super::batch::FinishedBatch;
use super::metrics::ProducerMetrics;
use super::send::METADATA_PROPAGATION;
use super::transaction::task::TransactionShared;
use crate::cluster::{Client, Cluster, TopicMeta};
use crate::config::ProducerConfig;
use crate::error::ErrorKind;
use crate::lock::Lock;

/// State that a producer's handles, senders and supervisor share.
#[derive(Debug)]
pub(super) struct ProducerShared {
    pub(super) client: Client,
    /// True if brokers may create missing topics, as far as the settings allow it.
    pub(super) creates_topics: bool,
    pub(super) config: ProducerConfig,
    /// True if each record has a span.
    pub(super) traced: bool,
    state: Lock<State>,
    /// Free bytes of the buffer. A fair semaphore.
    pub(super) memory: Semaphore,
    pub(super) metrics: ProducerMetrics,
    /// Wakes the supervisor.
    pub(super) supervisor: Notify,
    /// Wakes the task that requests producer ids.
    pub(super) producer_id: Notify,
    /// Wakes the task of transactions.
    pub(super) transaction: Notify,
    /// State of the transactions of a transactional producer.
    pub(super) transactions: Option<Arc<TransactionShared>>,
    pub(super) cancel: CancellationToken,
    pub(super) tasks: TaskTracker,
}

#[derive(Debug)]
struct State {
    accumulator: Accumulator,
    senders: BTreeMap<i32, SenderWaker>,
    /// Topics that are being looked up for callers who do not wait.
    lookups: HashSet<String>,
    closed: bool,
}

/// Wakes the sender of a broker, if it waits for batches.
///
/// A sender that has as many requests in flight as it may have looks for batches when one of them
/// completes. To wake it before, once for each batch, would cost as much as to send the batch.
#[derive(Debug)]
struct SenderWaker {
    notify: Arc<Notify>,
    /// True if the sender found nothing to send when it looked last.
    ///
    /// Both sides change it under the lock of [`State`], so that no wake-up is lost:
    /// 1. The sender takes the lock, finds no batch, sets `is_waiting` and releases the lock.
    /// 2. An append takes the lock, queues a batch, finds `is_waiting` set, clears it and notifies.
    /// 3. The sender reaches `notified().await`: the permit of 2 is there, and it looks again.
    ///
    /// If 2 comes before 1, the sender finds the batch in 1.
    is_waiting: bool,
}

/// The accumulator, locked. When it is dropped, it wakes the senders that got something to send.
pub(super) struct AccumulatorGuard<'a> {
    state: MutexGuard<'a, State>,
    supervisor: &'a Notify,
    transaction: &'a Notify,
}

impl AccumulatorGuard<'_> {
    pub(super) fn is_closed(&self) -> bool {
        self.state.closed
    }

    /// Closes the producer for records. Returns whether it was closed before.
    pub(super) fn close(&mut self) -> bool {
        std::mem::replace(&mut self.state.closed, true)
    }

    /// Returns whether the caller is to look the topic up: false if it is being looked up already.
    pub(super) fn try_start_lookup(&mut self, topic: &str) -> bool {
        !self.state.closed && self.state.lookups.insert(topic.to_owned())
    }

    pub(super) fn finish_lookup(&mut self, topic: &str) {
        self.state.lookups.remove(topic);
    }

    /// Returns what wakes the new sender of a broker; `None` if the broker has a sender.
    pub(super) fn add_sender(&mut self, broker: i32) -> Option<Arc<Notify>> {
        let Entry::Vacant(entry) = self.state.senders.entry(broker) else { return None };
        let notify = Arc::new(Notify::new());
        entry.insert(SenderWaker { notify: Arc::clone(&notify), is_waiting: false }); // it looks first
        Some(notify)
    }

    /// Has the sender of a broker woken when there is a batch to send to it.
    pub(super) fn wake_when_ready(&mut self, broker: i32) {
        if let Some(waker) = self.state.senders.get_mut(&broker) {
            waker.is_waiting = true;
        }
    }
}

impl std::ops::Deref for AccumulatorGuard<'_> {
    type Target = Accumulator;
    fn deref(&self) -> &Accumulator {
        &self.state.accumulator
    }
}

impl std::ops::DerefMut for AccumulatorGuard<'_> {
    fn deref_mut(&mut self) -> &mut Accumulator {
        &mut self.state.accumulator
    }
}

impl Drop for AccumulatorGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        let State { accumulator, senders, .. } = &mut *self.state;
        if accumulator.take_transaction_change() {
            self.transaction.notify_one();
        }
        for leader in accumulator.take_wakeups() {
            match senders.get_mut(&leader) {
                Some(waker) => {
                    if std::mem::take(&mut waker.is_waiting) {
                        waker.notify.notify_one();
                    }
                }
                None => self.supervisor.notify_one(), // it starts senders, and looks for leaders
            }
        }
    }
}

impl ProducerShared {
    pub(super) fn new(
        client: &Client,
        config: ProducerConfig,
        creates_topics: bool,
        transactions: Option<Arc<TransactionShared>>,
    ) -> Self {
        let request_timeout = client.config().request_timeout;
        // A producer that may not create topics serves a caller that does, once the records of a
        // deleted one have failed.
        let missing_timeout = if creates_topics { request_timeout } else { METADATA_PROPAGATION.min(request_timeout) };
        let transactional = transactions.is_some();
        let accumulator_config =
            AccumulatorConfig { transactional, ..AccumulatorConfig::new(&config, missing_timeout) };
        Self {
            client: client.clone(),
            creates_topics,
            traced: client.config().propagation.is_on(),
            memory: Semaphore::new(config.buffer_memory),
            metrics: ProducerMetrics::new(&client.config().metrics, &config),
            config,
            state: Lock::new(State {
                accumulator: Accumulator::new(accumulator_config, fastrand::u64(..)),
                senders: BTreeMap::new(),
                lookups: HashSet::new(),
                closed: false,
            }),
            supervisor: Notify::new(),
            producer_id: Notify::new(),
            transaction: Notify::new(),
            transactions,
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    #[inline]
    pub(super) fn lock(&self) -> AccumulatorGuard<'_> {
        let state = self.state.lock();
        AccumulatorGuard { state, supervisor: &self.supervisor, transaction: &self.transaction }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        self.client.cluster()
    }

    /// Resolves the deliveries of finished batches and frees their part of the buffer. Not under
    /// the lock: it wakes tasks.
    pub(super) fn resolve_batches(&self, finished: impl IntoIterator<Item = FinishedBatch>) {
        let now = self.metrics.now_if_on();
        for batch in finished {
            // What fails with its transaction is the application's wish, or reported by the transaction.
            if let Some(e) = batch.result.as_ref().err().filter(|e| e.kind() != ErrorKind::TransactionAborted) {
                // A target of its own: an application that reports each delivery itself can filter
                // it out.
                tracing::warn!(
                    target: "ailurus::undelivered",
                    error = %e.full(),
                    records = batch.records,
                    "records were not delivered"
                );
            }
            self.metrics.report_finished(now, &batch);
            self.memory.add_permits(batch.freed_bytes);
            batch.completion.resolve(batch.first_record, batch.records, batch.result);
        }
        self.metrics.report_buffer(&self.memory);
    }

    /// Adds a topic that was looked up, and keeps its metadata fresh from now on.
    pub(super) fn track_topic(&self, topic: &TopicMeta) {
        self.apply_metadata(topic);
        let interest = self.cluster().interest(&topic.name);
        self.lock().track_use(&topic.name, interest);
    }

    pub(super) fn apply_metadata(&self, topic: &TopicMeta) {
        let leaders: Vec<_> = topic.partitions.iter().map(|p| p.leader).collect();
        let finished = self.lock().update_topic(Instant::now(), &topic.name, topic.id, Some(&leaders));
        self.resolve_batches(finished);
    }
}
