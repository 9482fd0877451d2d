//! State of an assigned partition that its worker, the subscription's task and health checks share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::PartitionHealth;
use super::activity::{Activity, ProgressTracker};
use super::pauses::{PauseReason, PauseReasons};
use super::positions::{CommitPosition, Positions, SeekReply};
use crate::failure::OngoingOutage;
use crate::lock::Lock;
use crate::record::TopicPartition;

const NONE: i64 = -1;

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
    /// Those of them that wait for a dependency.
    pub(super) held_keys: AtomicUsize,
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
    positions: Lock<Positions>,
    /// Number of seeks so far.
    seek: AtomicU64,
    /// True while it is in the list of [moved partitions](SubscriptionState::mark_moved).
    is_marked_moved: AtomicBool,
    progress: Lock<ProgressTracker>,
    pub(super) counts: RecordCounts,
    /// Offset of the record whose handler the worker polls itself, or [`NONE`].
    inline_handler: AtomicI64,
    /// The inline handler seen by the last check for stuck handlers.
    inline_seen: Lock<Option<(i64, RunningHandler)>>,
    running: Lock<BTreeMap<i64, RunningHandler>>,
    /// Reasons why records don't make progress by themselves, by offset.
    paused_reasons: Lock<BTreeMap<i64, String>>,
    /// Records of a pipeline that are handled and in no committed transaction.
    awaiting_commit: AtomicUsize,
    /// Bits of [`PauseReasons`].
    paused_by: AtomicU8,
    /// Notifies the worker that it is resumed.
    changed: Notify,
}

impl PartitionState {
    pub(super) fn new() -> Self {
        Self {
            positions: Lock::default(),
            seek: AtomicU64::new(0),
            is_marked_moved: AtomicBool::new(false),
            progress: Lock::default(),
            counts: RecordCounts::default(),
            inline_handler: AtomicI64::new(NONE),
            inline_seen: Lock::default(),
            running: Lock::default(),
            paused_reasons: Lock::default(),
            awaiting_commit: AtomicUsize::new(0),
            paused_by: AtomicU8::new(0),
            changed: Notify::new(),
        }
    }

    /// Returns the reasons why the partition is paused.
    pub(super) fn paused_by(&self) -> PauseReasons {
        PauseReasons(self.paused_by.load(Ordering::Acquire))
    }

    /// Adds or removes a reason to be paused; the others stay. The subscription's task must learn of
    /// it.
    pub(super) fn set_paused_by(&self, reason: PauseReason, paused: bool) {
        match paused {
            true => _ = self.paused_by.fetch_or(reason.bit(), Ordering::AcqRel),
            false => {
                let before = self.paused_by.fetch_and(!reason.bit(), Ordering::AcqRel);
                if before == reason.bit() {
                    self.progress.lock().on_resumed(Instant::now());
                }
            }
        }
        self.changed.notify_one();
    }

    /// Wakes the worker.
    pub(super) fn notify(&self) {
        self.changed.notify_one();
    }

    /// Resolves after a change that the worker must look at. For one waiter.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn set_position(&self, position: CommitPosition) {
        self.positions.lock().set_position(position);
    }

    /// Moves the position. The worker ignores what was fetched for earlier ones, and starts at the new
    /// one when its handlers have ended.
    pub(super) fn seek(&self, offset: i64, reply: SeekReply) {
        let number = self.positions.lock().seek(offset, reply);
        self.seek.store(number, Ordering::Release);
        self.progress.lock().on_seek(offset, Instant::now());
        self.changed.notify_one();
    }

    /// Returns the number of seeks so far.
    pub(super) fn seek_number(&self) -> u64 {
        self.seek.load(Ordering::Acquire)
    }

    /// Returns the position that a seek has set, with the seek's number.
    pub(super) fn sought(&self) -> Option<(u64, i64)> {
        self.positions.lock().sought()
    }

    /// Forgets handlers and reasons of the records before a seek.
    pub(super) fn clear_records(&self) {
        self.running.lock().clear();
        self.paused_reasons.lock().clear();
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

    /// Marks the partition as moved; returns whether it was not.
    pub(super) fn set_moved(&self) -> bool {
        !self.is_marked_moved.swap(true, Ordering::AcqRel)
    }

    /// Handles the end offset that the leader has just returned.
    pub(super) fn on_end_offset(&self, end: i64) {
        self.progress.lock().on_end_offset(end, Instant::now());
    }

    /// Returns the offset up to which all records are handled and, in a pipeline, committed with their
    /// outputs.
    pub(super) fn completed_up_to(&self) -> Option<i64> {
        // Outputs are counted before their record is handled: with the position first, none is
        // missed.
        let position = self.progress.lock().position();
        position.filter(|_| self.awaiting_commit.load(Ordering::Acquire) == 0)
    }

    /// Sets the number of records of a pipeline that are handled and in no committed transaction.
    pub(super) fn set_awaiting_commit(&self, records: usize) {
        self.awaiting_commit.store(records, Ordering::Release);
    }

    /// Removes the mark of a moved partition; returns whether there was one.
    pub(super) fn clear_moved(&self) -> bool {
        self.is_marked_moved.swap(false, Ordering::AcqRel)
    }

    /// Returns the position if it is not committed.
    pub(super) fn uncommitted(&self) -> Option<CommitPosition> {
        self.positions.lock().uncommitted()
    }

    pub(super) fn set_committed(&self, position: CommitPosition) {
        let confirmed = self.positions.lock().set_committed(position);
        confirmed.into_iter().for_each(|reply| _ = reply.send(Ok(()))); // it may have been dropped
    }

    /// Sets the position that was committed before the partition was assigned.
    pub(super) fn start_at_committed(&self, position: CommitPosition) {
        self.progress.lock().start_at(position.offset);
        self.set_committed(position);
    }

    pub(super) fn health(
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
        let paused_by = self.paused_by();
        // Nothing is expected of a paused partition but the end of its handlers.
        let is_at_rest = !paused_by.is_empty() && count(&self.counts.in_flight) == 0;
        let activity = progress.activity(stall_timeout, now);
        // What waits for a dependency is not stuck: the subscription says what it waits for.
        let is_held = count(&self.counts.held_keys) > 0;
        let activity = if is_held { activity.min(Activity::Busy) } else { activity }.max(unreachable);
        PartitionHealth {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            activity: if is_at_rest { Activity::Idle } else { activity },
            quiet_for: progress.quiet_for(now).filter(|_| !is_at_rest),
            position: progress.position().unwrap_or(NONE),
            committed: self.positions.lock().committed(),
            lag: progress.lag().filter(|_| outage.is_none()),
            in_flight: count(&self.counts.in_flight),
            parked_keys: count(&self.counts.parked_keys),
            paused,
            paused_by: paused_by.iter().collect(),
            problem: outage.map(|outage| outage.describe(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
