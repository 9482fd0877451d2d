//! State of a subscription that its task, its workers and health checks share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::activity::{Activity, ProgressTracker};
use super::{PartitionHealth, Stats, SubscriptionHealth};
use crate::config::IsolationLevel;
use crate::consumer::{ConsumerState, Outlook};
use crate::failure::OngoingOutage;
use crate::lock::Lock;
use crate::record::TopicPartition;

const NONE: i64 = -1;

/// The offset to commit, with the offsets completed above it as metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommitPosition {
    pub(super) offset: i64,
    pub(super) leader_epoch: Option<i32>,
    pub(super) metadata: String,
}

/// Number of records of a partition by state, as last published by its worker.
#[derive(Debug, Default)]
pub(super) struct RecordCounts {
    /// Records in a handler.
    pub(super) in_flight: AtomicUsize,
    /// Records that failed and await a retry, or that their dead letter is written.
    pub(super) parked: AtomicUsize,
    /// Records that were fetched and not started.
    pub(super) waiting: AtomicUsize,
    /// Keys (or lanes of another ordering) that are blocked by a failed record.
    pub(super) parked_keys: AtomicUsize,
}

/// A handler that runs.
#[derive(Debug)]
struct RunningHandler {
    started_at: Instant,
    key: Option<Bytes>,
    /// Time of the last warning that it runs for long.
    warned_at: Option<Instant>,
}

/// A handler that has run for too long.
#[derive(Debug)]
pub(super) struct StuckHandler {
    pub(super) offset: i64,
    pub(super) key: Option<Bytes>,
    pub(super) running_for: Duration,
    /// True if no warning was logged within the limit.
    pub(super) should_warn: bool,
}

/// State of one partition while it is assigned.
#[derive(Debug)]
pub(super) struct PartitionState {
    position: Lock<Option<CommitPosition>>,
    /// True while it is in the list of [moved partitions](SubscriptionState::mark_moved).
    is_marked_moved: AtomicBool,
    committed: Lock<Option<CommitPosition>>,
    progress: Lock<ProgressTracker>,
    pub(super) counts: RecordCounts,
    /// Offset of the record whose handler the worker polls itself, or [`NONE`].
    inline_handler: AtomicI64,
    /// The inline handler seen by the last check for stuck handlers.
    inline_seen: Lock<Option<(i64, RunningHandler)>>,
    running: Lock<BTreeMap<i64, RunningHandler>>,
    /// Reasons why records don't make progress by themselves, by offset.
    paused_reasons: Lock<BTreeMap<i64, String>>,
}

impl PartitionState {
    pub(super) fn new() -> Self {
        Self {
            position: Lock::default(),
            is_marked_moved: AtomicBool::new(false),
            committed: Lock::default(),
            progress: Lock::default(),
            counts: RecordCounts::default(),
            inline_handler: AtomicI64::new(NONE),
            inline_seen: Lock::default(),
            running: Lock::default(),
            paused_reasons: Lock::default(),
        }
    }

    pub(super) fn set_position(&self, position: CommitPosition) {
        *self.position.lock() = Some(position);
    }

    /// Handles the end offset returned with a fetch.
    pub(super) fn on_fetched_end(&self, end: i64) {
        self.progress.lock().on_fetched_end(end, Instant::now());
    }

    /// Publishes the worker's position and pending records, and whether it completed one since the
    /// last time.
    pub(super) fn publish_progress(&self, position: Option<i64>, pending: usize, completed: bool) {
        self.progress.lock().on_worker_report(position, pending, completed, Instant::now());
    }

    /// Sets the reason why a record makes no progress by itself; `None` when it does.
    pub(super) fn set_paused(&self, offset: i64, why: Option<String>) {
        let mut reasons = self.paused_reasons.lock();
        match why {
            Some(why) => drop(reasons.insert(offset, why)),
            None => drop(reasons.remove(&offset)),
        }
    }

    /// Notes the handler that the worker polls itself. The worker publishes nothing until that
    /// returns.
    pub(super) fn set_inline_handler(&self, offset: Option<i64>) {
        self.inline_handler.store(offset.unwrap_or(NONE), Ordering::Relaxed);
    }

    pub(super) fn handler_started(&self, offset: i64, key: Option<Bytes>) {
        self.running.lock().insert(offset, RunningHandler { started_at: Instant::now(), key, warned_at: None });
    }

    pub(super) fn handler_finished(&self, offset: i64) {
        self.running.lock().remove(&offset);
    }

    /// Returns the handlers that have run for longer than `limit`.
    pub(super) fn stuck_handlers(&self, limit: Duration, now: Instant) -> Vec<StuckHandler> {
        let mut running = self.running.lock();
        let mut seen = self.inline_seen.lock();
        let inline = Some(self.inline_handler.load(Ordering::Relaxed)).filter(|o| *o != NONE);
        if seen.as_ref().map(|(offset, _)| *offset) != inline {
            *seen = inline.map(|offset| (offset, RunningHandler { started_at: now, key: None, warned_at: None }));
        }
        let mut stuck = Vec::new();
        for (offset, handler) in running.iter_mut().chain(seen.as_mut().map(|(offset, h)| (&*offset, h))) {
            let running_for = now.saturating_duration_since(handler.started_at);
            if running_for >= limit {
                let should_warn = handler.warned_at.is_none_or(|at| now.saturating_duration_since(at) >= limit);
                if should_warn {
                    handler.warned_at = Some(now);
                }
                stuck.push(StuckHandler { offset: *offset, key: handler.key.clone(), running_for, should_warn });
            }
        }
        stuck
    }

    /// Removes the mark of a moved partition; returns whether there was one.
    pub(super) fn clear_moved(&self) -> bool {
        self.is_marked_moved.swap(false, Ordering::AcqRel)
    }

    /// Returns the position if it is not committed.
    pub(super) fn uncommitted(&self) -> Option<CommitPosition> {
        let position = self.position.lock().clone()?;
        (self.committed.lock().as_ref() != Some(&position)).then_some(position)
    }

    pub(super) fn set_committed(&self, position: CommitPosition) {
        *self.committed.lock() = Some(position);
    }

    /// Sets the position that was committed before the partition was assigned.
    pub(super) fn start_at_committed(&self, position: CommitPosition) {
        self.progress.lock().start_at(position.offset);
        self.set_committed(position);
    }

    fn health(
        &self,
        tp: &TopicPartition,
        outage: Option<&OngoingOutage>,
        stall_timeout: Duration,
        now: Instant,
    ) -> PartitionHealth {
        let progress = self.progress.lock();
        let count = |n: &AtomicUsize| n.load(Ordering::Relaxed);
        let reasons = self.paused_reasons.lock();
        let paused = reasons.values().next().map(|first| match reasons.len() {
            1 => first.clone(),
            more => format!("{first} (and {} more)", more - 1),
        });
        // While the partition can't be read, it is unknown whether records are pending.
        let unreachable = match outage.map(|outage| now.saturating_duration_since(outage.since)) {
            None => Activity::Idle,
            Some(long) if long < stall_timeout => Activity::Busy,
            Some(_) => Activity::Stalled,
        };
        PartitionHealth {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            activity: progress.activity(stall_timeout, now).max(unreachable),
            quiet_ms: progress.quiet_for(now).map(millis),
            position: progress.position().unwrap_or(NONE),
            committed: self.committed.lock().as_ref().map(|p| p.offset),
            lag: progress.lag().filter(|_| outage.is_none()),
            in_flight: count(&self.counts.in_flight),
            parked_keys: count(&self.counts.parked_keys),
            paused,
            problem: outage.map(|outage| outage.describe(now)),
        }
    }
}

/// Shared state of a subscription.
#[derive(Debug)]
pub(crate) struct SubscriptionState {
    group: String,
    topics: Vec<String>,
    /// Maximum time without progress before pending records are stalled.
    stall_timeout: Duration,
    isolation_level: IsolationLevel,
    /// Outages that its consumer waits for.
    outlook: Outlook,
    /// Membership state, and since when.
    state: Lock<(ConsumerState, Instant)>,
    /// Member id and generation.
    member: Lock<(Option<String>, Option<i32>)>,
    owned: Lock<BTreeMap<TopicPartition, Arc<PartitionState>>>,
    /// Number of `owned` partitions.
    partition_count: AtomicUsize,
    /// Partitions whose position may have changed since the last commit, each once.
    moved: Lock<Vec<TopicPartition>>,
    pub(super) handled: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    pub(super) rebalances: AtomicU64,
}

impl SubscriptionState {
    /// Returns the group and the topics.
    pub(super) fn names(&self) -> (&str, &[String]) {
        (&self.group, &self.topics)
    }

    pub(super) fn new(
        group: &str,
        topics: &[&str],
        stall_timeout: Duration,
        isolation_level: IsolationLevel,
        outlook: Outlook,
    ) -> Self {
        Self {
            group: group.to_owned(),
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            stall_timeout,
            isolation_level,
            outlook,
            state: Lock::new((ConsumerState::Joining, Instant::now())),
            member: Lock::default(),
            owned: Lock::default(),
            partition_count: AtomicUsize::new(0),
            moved: Lock::default(),
            handled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            rebalances: AtomicU64::new(0),
        }
    }

    pub(super) fn group(&self) -> &str {
        &self.group
    }

    pub(super) fn set_member_state(&self, state: ConsumerState) {
        let mut now = self.state.lock();
        if now.0 != state {
            *now = (state, Instant::now());
        }
    }

    pub(super) fn set_member(&self, id: Option<String>, generation: Option<i32>) {
        *self.member.lock() = (id, generation);
    }

    pub(super) fn add_partition(&self, tp: TopicPartition, partition: Arc<PartitionState>) {
        let mut owned = self.owned.lock();
        owned.insert(tp, partition);
        self.partition_count.store(owned.len(), Ordering::Relaxed);
    }

    pub(super) fn remove_partition(&self, tp: &TopicPartition) {
        let mut owned = self.owned.lock();
        owned.remove(tp);
        self.partition_count.store(owned.len(), Ordering::Relaxed);
    }

    pub(super) fn partition_count(&self) -> usize {
        self.partition_count.load(Ordering::Relaxed)
    }

    /// Marks a partition whose position changed or could not be committed: the next commit looks at
    /// it.
    pub(super) fn mark_moved(&self, tp: &TopicPartition, partition: &PartitionState) {
        // The worker sets the position before this; the commit reads it after `clear_moved`. So a
        // position is never missed:
        // 1. the worker sets position 5 and finds no mark: the partition is listed.
        // 2. the commit takes the list; the worker sets position 6 and finds the mark of step 1:
        //    the partition is not listed.
        // 3. the commit clears the mark and reads position 6.
        // A position set after step 3 finds no mark, and is listed again.
        if !partition.is_marked_moved.swap(true, Ordering::AcqRel) {
            self.moved.lock().push(tp.clone());
        }
    }

    /// Returns the partitions marked since the last call. Each must be
    /// [cleared](PartitionState::clear_moved) before its position is read.
    pub(super) fn take_moved(&self) -> Vec<TopicPartition> {
        std::mem::take(&mut *self.moved.lock())
    }

    pub(crate) fn health(&self) -> SubscriptionHealth {
        let now = Instant::now();
        let (state, since) = *self.state.lock();
        let in_state = now.saturating_duration_since(since);
        let outages: BTreeMap<_, _> = self.outlook.of_partitions().into_iter().collect();
        let owned = self.owned.lock();
        let health =
            |(tp, p): (&TopicPartition, &Arc<PartitionState>)| p.health(tp, outages.get(tp), self.stall_timeout, now);
        let partitions: Vec<_> = owned.iter().map(health).collect();
        drop(owned);
        let (member_id, generation) =
            if state == ConsumerState::Member { self.member.lock().clone() } else { (None, None) };
        let membership = match state {
            ConsumerState::Joining if in_state >= self.stall_timeout => Activity::Stalled,
            ConsumerState::Joining => Activity::Busy,
            _ => Activity::Idle,
        };
        SubscriptionHealth {
            group: self.group.clone(),
            topics: self.topics.clone(),
            state,
            state_ms: millis(in_state),
            member_id,
            generation,
            problem: self.outlook.of_group().map(|outage| outage.describe(now)),
            activity: partitions.iter().map(|p| p.activity).max().unwrap_or_default().max(membership),
            lag: partitions.iter().filter_map(|p| p.lag).sum(),
            partitions,
        }
    }

    /// Returns the isolation level and the assigned partitions.
    pub(crate) fn assigned(&self) -> (IsolationLevel, Vec<TopicPartition>) {
        (self.isolation_level, self.owned.lock().keys().cloned().collect())
    }

    /// Sets the end offset that the leader of a partition has returned.
    pub(crate) fn set_end_offset(&self, tp: &TopicPartition, end: i64) {
        if let Some(partition) = self.owned.lock().get(tp) {
            partition.progress.lock().on_end_offset(end, Instant::now());
        }
    }

    /// Returns the number of attempts that have finished.
    pub(super) fn finished_attempts(&self) -> u64 {
        self.handled.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn stats(&self) -> Stats {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let sum = |count: fn(&RecordCounts) -> &AtomicUsize| {
            self.owned.lock().values().map(|p| count(&p.counts).load(Ordering::Relaxed)).sum()
        };
        Stats {
            handled: get(&self.handled),
            failed_attempts: get(&self.failed),
            retries: get(&self.retries),
            dead_letters: get(&self.dead_letters),
            rebalances: get(&self.rebalances),
            in_flight: sum(|c| &c.in_flight),
            parked_keys: sum(|c| &c.parked_keys),
        }
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_partition_is_listed_once_per_commit() {
        let shared =
            SubscriptionState::new("g", &["t"], Duration::from_secs(60), IsolationLevel::default(), Outlook::clear());
        let (tp, state) = (TopicPartition::new("t", 0), PartitionState::new());
        let to = |offset| {
            state.set_position(CommitPosition { offset, leader_epoch: None, metadata: String::new() });
            shared.mark_moved(&tp, &state);
        };
        (1..=3).for_each(to);
        assert_eq!(shared.take_moved().len(), 1, "once, whatever the number of moves");
        to(4); // after the list was taken, before the mark is cleared
        assert!(state.clear_moved());
        assert_eq!(state.uncommitted().map(|p| p.offset), Some(4));
        assert_eq!(shared.take_moved(), []);
        to(5);
        assert_eq!(shared.take_moved(), [tp]);
    }

    #[test]
    fn stuck_handlers_are_warned_of_once_per_limit() {
        let (state, limit) = (PartitionState::new(), Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let warned = |seconds| {
            let stuck = state.stuck_handlers(limit, at(seconds)).into_iter().filter(|h| h.should_warn);
            stuck.map(|h| h.offset).collect::<Vec<_>>()
        };
        state.handler_started(7, Some(Bytes::from_static(b"k")));
        state.set_inline_handler(Some(9));
        assert_eq!(warned(15), [0; 0]);
        assert_eq!(warned(61), [7], "the other was first seen after 15 s");
        assert_eq!(warned(76), [9]);
        assert_eq!(warned(100), [0; 0]);
        state.set_inline_handler(Some(10));
        state.handler_finished(7);
        assert_eq!(warned(200), [0; 0]);
        assert_eq!(warned(260), [10]);
        state.set_inline_handler(None);
        assert_eq!(warned(999), [0; 0]);
    }
}
