//! State that the workers of a pipeline and the task of its transactions share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, Cut, Payload, Size};
use crate::cluster::ConsumerGroupMetadata;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Lock;
use crate::processor::dead_letter::DeadLetters;
use crate::processor::lanes::Lane;
use crate::processor::offset_tracker::CompletedOffsets;
use crate::processor::state::PartitionState;
use crate::record::TopicPartition;

/// Maximum time to close the producer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bounds of a transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) interval: Duration,
    pub(super) size: Size,
}

/// The collector of an assigned partition.
#[derive(Debug)]
pub(in crate::processor) struct PartitionCollector {
    core: Lock<Collector>,
    pub(super) state: Arc<PartitionState>,
    shared: Arc<Shared>,
}

/// Totals and wake-ups, without the partitions.
#[derive(Debug)]
struct Shared {
    limits: Limits,
    /// Size of what is not committed, over all partitions, when the last transaction began or ended.
    held: Lock<Size>,
    /// Number and bytes of ended records since the last transaction began, or nothing waited.
    ended_records: AtomicUsize,
    ended_bytes: AtomicUsize,
    /// Wakes the task.
    work: Notify,
    /// Wakes workers and drains when a transaction has ended.
    ended: Notify,
}

/// See the [module](self).
#[derive(Debug)]
pub(in crate::processor) struct Transactions {
    shared: Arc<Shared>,
    registry: Lock<Registry>,
    dead_letters: DeadLetters,
    /// True once no transaction can be committed any more.
    has_failed: AtomicBool,
    stop: CancellationToken,
    task: Lock<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Registry {
    /// The membership that the partitions are assigned under.
    group: Option<ConsumerGroupMetadata>,
    partitions: BTreeMap<TopicPartition, Arc<PartitionCollector>>,
    /// Number of partitions that await their last transaction.
    flushing: usize,
    /// The partition that the last transaction began with.
    last_first: Option<TopicPartition>,
}

/// Records of all partitions that one transaction takes.
pub(super) struct TransactionCut {
    pub(super) group: ConsumerGroupMetadata,
    pub(super) partitions: Vec<(TopicPartition, Arc<PartitionCollector>, Cut)>,
    pub(super) size: Size,
}

impl PartitionCollector {
    pub(in crate::processor) fn lock(&self) -> MutexGuard<'_, Collector> {
        self.core.lock()
    }

    /// Adds records that have ended together.
    pub(in crate::processor) fn end(&self, records: Vec<(Lane, i64)>, payload: Payload) {
        let count = records.len();
        let mut core = self.core.lock();
        let before = core.waiting();
        core.end(records, payload);
        self.state.set_awaiting_commit(core.held().records);
        let bytes = core.waiting().bytes.saturating_sub(before.bytes);
        drop(core);
        let Size { records: max_records, bytes: max_bytes } = self.shared.limits.size;
        let records = self.shared.ended_records.fetch_add(count, Ordering::SeqCst);
        let total = self.shared.ended_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let is_full = (records + count >= max_records && records < max_records)
            || (total >= max_bytes && total - bytes < max_bytes);
        if records == 0 || is_full {
            self.shared.work.notify_one();
        }
    }

    /// Returns whether the partition may not read another record before a transaction is committed. It
    /// may hold a transaction's size beside the one that commits, and all partitions twice as much.
    pub(in crate::processor) fn is_full(&self) -> bool {
        let own = self.core.lock().held();
        let Size { records, bytes } = self.shared.limits.size;
        let all = Size { records: 2 * records, bytes: bytes.saturating_mul(2) };
        let is_above = |held: Size, limit: Size| held.records >= limit.records || held.bytes >= limit.bytes;
        let mut total = *self.shared.held.lock();
        total.add(Size {
            records: self.shared.ended_records.load(Ordering::SeqCst),
            bytes: self.shared.ended_bytes.load(Ordering::SeqCst),
        });
        is_above(own, all) || (own.records > 0 && is_above(total, all))
    }

    /// Waits until it is not [full](Self::is_full).
    pub(in crate::processor) async fn has_room(&self) {
        loop {
            let ended = self.shared.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable(); // before the check, so that no end is missed
            if !self.is_full() {
                return;
            }
            ended.await;
        }
    }
}

impl Transactions {
    pub(super) fn new(limits: Limits, dead_letters: DeadLetters) -> Self {
        let shared = Shared {
            limits,
            held: Lock::default(),
            ended_records: AtomicUsize::new(0),
            ended_bytes: AtomicUsize::new(0),
            work: Notify::new(),
            ended: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
            registry: Lock::default(),
            dead_letters,
            has_failed: AtomicBool::new(false),
            stop: CancellationToken::new(),
            task: Lock::default(),
        }
    }

    /// Starts the task that commits; `task` runs until the token is cancelled.
    pub(super) fn start<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(CancellationToken) -> F) {
        *self.task.lock() = Some(tokio::spawn(task(self.stop.clone())));
    }

    pub(in crate::processor) fn dead_letters(&self) -> &DeadLetters {
        &self.dead_letters
    }

    // Assignment.

    /// Adds an assigned partition, with the membership of now.
    pub(in crate::processor) fn assign(
        &self,
        tp: &TopicPartition,
        state: &Arc<PartitionState>,
        group: Option<ConsumerGroupMetadata>,
        committed: Option<(i64, CompletedOffsets)>,
    ) -> Arc<PartitionCollector> {
        let collector = Arc::new(PartitionCollector {
            core: Lock::new(Collector::new(committed)),
            state: Arc::clone(state),
            shared: Arc::clone(&self.shared),
        });
        // Together, so that a transaction never has a partition's records under a later assignment:
        // 1. A partition's collector is removed at its revocation, before it is returned.
        // 2. It is assigned again, and its new collector is inserted with the membership that has it.
        // A cut that has the old collector was made with the old membership, which has ended.
        let mut registry = self.registry.lock();
        registry.group = group.or(registry.group.take());
        registry.partitions.insert(tp.clone(), Arc::clone(&collector));
        collector
    }

    /// Commits what has ended in these partitions, and removes them. Their workers must have stopped.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it is not committed by `deadline`; [`ErrorKind::GroupMembership`] if
    /// a partition is lost before.
    pub(in crate::processor) async fn flush(
        &self,
        partitions: impl Iterator<Item = &TopicPartition>,
        deadline: Instant,
    ) -> Result<()> {
        let all: Vec<_> = {
            let mut registry = self.registry.lock();
            registry.flushing += 1;
            partitions.filter_map(|tp| Some((tp.clone(), Arc::clone(registry.partitions.get(tp)?)))).collect()
        };
        let _end = EndFlush(self);
        self.shared.work.notify_one();
        let is_flushed = || {
            let now = Instant::now();
            self.has_failed.load(Ordering::SeqCst) || all.iter().all(|(_, c)| c.lock().is_flushed(now))
        };
        let flushed = async {
            loop {
                let ended = self.shared.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if is_flushed() {
                    return;
                }
                ended.await;
            }
        };
        _ = tokio::time::timeout_at(deadline, flushed).await;
        if all.iter().any(|(_, collector)| collector.lock().is_closed()) {
            let what = "partitions were lost before the outputs of their handled records were committed: the records will be handled again";
            return Err(Error::new(ErrorKind::GroupMembership, what));
        }
        let left = self.remove(all.iter().map(|(tp, _)| tp));
        if left == 0 {
            return Ok(());
        }
        let what = format!(
            "the outputs of {left} handled records were not committed before their partitions were revoked: the records will be handled again"
        );
        Err(Error::new(ErrorKind::Timeout, what))
    }

    /// Drops what has ended in these partitions; returns the number of records that are not committed.
    pub(in crate::processor) fn remove<'a>(&self, partitions: impl Iterator<Item = &'a TopicPartition>) -> usize {
        let mut registry = self.registry.lock();
        let removed: Vec<_> = partitions.filter_map(|tp| registry.partitions.remove(tp)).collect();
        drop(registry);
        let left = removed.iter().map(|collector| collector.lock().close()).sum();
        self.on_ended(); // a drain need not wait for what is lost
        left
    }

    /// Ends the task and its producer.
    pub(in crate::processor) async fn close(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(mut task) = task {
            if tokio::time::timeout(CLOSE_TIMEOUT, &mut task).await.is_err() {
                task.abort();
                tracing::warn!("the last transaction of a pipeline has not ended in time: its coordinator ends it");
            }
        }
    }

    // The task.

    /// Waits until a transaction is due; `not_before` after a failure.
    pub(super) async fn wait_for_work(&self, last: Instant, took_nothing: bool, not_before: Option<Instant>) {
        loop {
            let work = self.shared.work.notified();
            tokio::pin!(work);
            work.as_mut().enable();
            let due = self.due_at(last, took_nothing).or_else(|| {
                // Nothing waits, but the count of ended records may not be 0, and only the first wakes:
                // 1. A record ends: the count is 1. Its partition is lost before a transaction takes it.
                // 2. A record of another partition ends: the count is 2, and nothing wakes the task.
                // The second look finds a record that ended before the count was set.
                self.reset_ended();
                self.due_at(last, took_nothing)
            });
            let due = due.map(|at| not_before.map_or(at, |n| at.max(n)));
            match due {
                Some(at) if at <= Instant::now() => return,
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => return,
                    () = work => {}
                },
                None => work.await,
            }
        }
    }

    fn reset_ended(&self) {
        [&self.shared.ended_records, &self.shared.ended_bytes].iter().for_each(|n| n.store(0, Ordering::SeqCst));
    }

    fn due_at(&self, last: Instant, took_nothing: bool) -> Option<Instant> {
        let registry = self.registry.lock();
        let mut waiting = Size::default();
        registry.partitions.values().for_each(|c| waiting.add(c.lock().waiting()));
        let Limits { interval, size } = self.shared.limits;
        let is_due = registry.flushing > 0 || waiting.records >= size.records || waiting.bytes >= size.bytes;
        match waiting.records {
            0 => None,
            _ if is_due && !took_nothing => Some(last),
            _ => Some(last + interval),
        }
    }

    /// Takes what the next transaction gets, of all partitions in turn; `None` if there is nothing.
    pub(super) fn take(&self, transaction: i64, now: Instant) -> Option<TransactionCut> {
        self.reset_ended();
        let mut registry = self.registry.lock();
        let group = registry.group.clone()?;
        let last = registry.last_first.take();
        let (before, after): (Vec<_>, Vec<_>) =
            registry.partitions.iter().partition(|(tp, _)| last.as_ref().is_some_and(|last| *tp <= last));
        let mut taken = TransactionCut { group, partitions: Vec::new(), size: Size::default() };
        let limit = self.shared.limits.size;
        for (tp, collector) in after.into_iter().chain(before) {
            let room = Size {
                records: limit.records.saturating_sub(taken.size.records),
                bytes: limit.bytes.saturating_sub(taken.size.bytes),
            };
            let is_first = taken.partitions.is_empty();
            if let Some(cut) = collector.lock().take(room, is_first, transaction, now) {
                taken.size.add(cut.size);
                let is_alone = cut.ended.iter().any(|e| e.failures > 0);
                taken.partitions.push((tp.clone(), Arc::clone(collector), cut));
                if is_alone {
                    break;
                }
            }
        }
        registry.last_first = taken.partitions.first().map(|(tp, ..)| tp.clone());
        drop(registry);
        self.count_held();
        (!taken.partitions.is_empty()).then_some(taken)
    }

    /// Counts what is held, and wakes workers and drains.
    pub(super) fn on_ended(&self) {
        self.count_held();
        self.shared.ended.notify_waiters();
    }

    fn count_held(&self) {
        let mut held = Size::default();
        self.registry.lock().partitions.values().for_each(|c| held.add(c.lock().held()));
        *self.shared.held.lock() = held;
    }

    /// Ends flushes: nothing will be committed any more.
    pub(super) fn fail(&self) {
        self.has_failed.store(true, Ordering::SeqCst);
        self.on_ended();
    }
}

/// Ends the task when the subscription is dropped, as a crash would.
pub(in crate::processor) struct AbortOnDrop(pub(in crate::processor) Arc<Transactions>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = self.0.task.lock().take() {
            task.abort();
        }
    }
}

/// Ends a flush, also if it is dropped.
struct EndFlush<'a>(&'a Transactions);

impl Drop for EndFlush<'_> {
    fn drop(&mut self) {
        self.0.registry.lock().flushing -= 1;
    }
}

#[cfg(test)]
mod tests;
