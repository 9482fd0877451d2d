//! Waits for dependencies: held records, and probes.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task;

use tokio::time::Instant;

use super::{AttemptHistory, Blocked, HandlerMode, PendingRecord, Worker};
use crate::cluster::Backoff;
use crate::processor::batch::original;
use crate::processor::breaker::{HoldId, ProbeId, UNKNOWN};
use crate::processor::dead_letter::describe;
use crate::processor::failure_policy::{AttemptTimeout, Hold, find_cause};
use crate::processor::handler::{BoxError, Outcome};
use crate::processor::lanes::{Lane, QueuedRecord};
use crate::processor::pauses::PauseReason;
use crate::processor::state::{HoldDecision, UnclassifiedFailure};
use crate::timestamp::Timestamp;

/// The holds that records of a partition wait for.
#[derive(Debug, Default)]
pub(super) struct WorkerHolds {
    ids: BTreeSet<HoldId>,
    /// Version of the holds as of the last look at them; 0 before it.
    version: u64,
    /// The next probe that this partition may make.
    pub(super) next_probe: Option<(Instant, HoldId)>,
}

/// A record that is handled as a probe.
#[derive(Debug)]
pub(super) struct Probe {
    hold: HoldId,
    id: ProbeId,
    of: Hold,
}

impl Probe {
    /// Returns whether an attempt failed because of the dependency. A timeout is no response of it, and
    /// of an unknown one nothing else is known.
    fn is_failed_by(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Hold { hold, .. } => hold.dependency() == self.of.dependency(),
            Outcome::Retry { error, .. } | Outcome::RetryForever { error, .. } => {
                self.of.dependency() == UNKNOWN || find_cause::<AttemptTimeout>(original(error)).is_some()
            }
            _ => false,
        }
    }
}

impl PendingRecord {
    fn take_probe(&mut self) -> Option<Probe> {
        self.history.as_mut()?.probe.take()
    }
}

impl Worker {
    /// Starts a probe if one is due; returns what the worker is blocked on if it may handle no other
    /// record.
    pub(super) fn poll_holds(&mut self, cx: &mut task::Context<'_>) -> Option<Blocked> {
        let is_paused = self.state.paused_by().contains(PauseReason::Breaker);
        if self.holds.ids.is_empty() {
            return is_paused.then_some(Blocked::OnHold);
        }
        if self.holds.version != self.context.shared.holds_version() {
            self.sync_holds();
        }
        let due = self.holds.next_probe.filter(|(at, _)| *at <= Instant::now());
        if let Some((_, hold)) = due {
            if let Err(blocked) = self.take_permit() {
                return Some(blocked);
            }
            self.start_probe(cx, hold);
            return Some(Blocked::Not);
        }
        self.state.paused_by().contains(PauseReason::Breaker).then_some(Blocked::OnHold)
    }

    /// Releases what waited for holds that have ended, and finds the next probe.
    fn sync_holds(&mut self) {
        let mut open = BTreeSet::new();
        let (version, next_probe) =
            self.context.shared.next_probe(self.metrics.partition(), self.holds.ids.iter().copied(), |id, is_open| {
                if is_open {
                    open.insert(id);
                }
            });
        (self.holds.version, self.holds.next_probe) = (version, next_probe);
        if open.len() < self.holds.ids.len() {
            self.lanes.release_held(|id| open.contains(&id));
            self.holds.ids = open;
        }
    }

    fn start_probe(&mut self, cx: &mut task::Context<'_>, hold: HoldId) {
        let context = Arc::clone(&self.context);
        let tp = self.metrics.partition();
        if !self.lanes.has_held(hold) {
            // What waits for it is behind others of its lane, and can't probe. Those others may be
            // covered by the hold: it must not wait for them.
            self.lanes.release_held(|id| id != hold);
            self.holds.ids.remove(&hold);
            self.holds.next_probe = None;
            self.holds.version = 0;
            return context.shared.on_none_held(hold, tp);
        }
        let Some((id, of)) = context.shared.try_probe(hold, tp) else { return };
        let Some((lane, QueuedRecord { record: mut pending, .. })) = self.lanes.take_held(hold) else { return };
        if let Some(history) = &mut pending.history {
            history.probe = Some(Probe { hold, id, of });
        }
        match &context.mode {
            HandlerMode::Each(call) => self.start_attempt(cx, call, lane, pending, true),
            HandlerMode::Batches(_, call) => self.start_batch_attempt(cx, call, vec![(lane, pending)]),
        }
    }

    /// Returns the outcome of a failed attempt by the policy of the application.
    pub(super) fn classify(&self, pending: &PendingRecord, outcome: Outcome) -> Outcome {
        match (outcome, &self.context.on_failure) {
            (Outcome::Retry { after, error }, Some(classifier)) => {
                classifier.classify(&pending.for_handler(), after, error)
            }
            (outcome, _) => outcome,
        }
    }

    /// Handles a record that was handled, which may have been a probe.
    pub(super) fn on_success(&self, pending: &mut PendingRecord) {
        if let Some(probe) = pending.take_probe() {
            self.context.shared.on_probe_succeeded(probe.hold);
        }
    }

    /// Handles the failed attempt at a record, which may have been a probe.
    pub(super) fn end_probe(&self, pending: &mut PendingRecord, outcome: Outcome) -> Outcome {
        let Some(probe) = pending.take_probe() else { return outcome };
        if !probe.is_failed_by(&outcome) {
            self.context.shared.on_probe_succeeded(probe.hold);
            return outcome;
        }
        match outcome {
            Outcome::Hold { error, .. } | Outcome::Retry { error, .. } | Outcome::RetryForever { error, .. } => {
                self.context.shared.on_probe_failed(probe.hold, probe.id, &describe(&*error));
                Outcome::Hold { hold: probe.of, error }
            }
            outcome => outcome,
        }
    }

    /// Decides whether a failure without a policy is one of an outage. `is_counted` if other records of
    /// the same call are counted.
    pub(super) fn check_outage(&self, pending: &PendingRecord, error: &BoxError, is_counted: bool) -> HoldDecision {
        let message = &pending.message;
        let record = hash(&(&message.topic, message.partition, message.offset));
        let key = message.key.as_ref().map_or(record, |key| hash(&(&message.topic, key)));
        let is_last = pending.attempt() >= self.context.config.max_attempts;
        let error = if is_last { describe(&**error) } else { String::new() };
        let failure = UnclassifiedFailure { hashes: (!is_counted).then_some((record, key)), is_last, error: &error };
        self.context.shared.on_unclassified_failure((self.metrics.partition(), &self.state), &failure)
    }

    /// Puts a failed record back to the head of its lane until its hold ends; there is none if its
    /// partition is being revoked.
    pub(super) fn hold(&mut self, lane: Lane, pending: PendingRecord, hold: Option<HoldId>, error: &BoxError) {
        let config = &self.context.config;
        let PendingRecord { mut message, history } = pending;
        message.detach(); // it outlives the other records of its fetch
        let mut history = history.unwrap_or_else(|| Box::new(AttemptHistory::new(config)));
        history.uncounted = message.attempt;
        tracing::debug!(
            record = format_args!("{}/{}@{}", message.topic, message.partition, message.offset),
            attempt = message.attempt, error = %describe(&**error), "the record waits for a dependency of its handler"
        );
        self.context.shared.failed.fetch_add(1, Ordering::Relaxed);
        self.context.shared.retries.fetch_add(1, Ordering::Relaxed);
        self.metrics.on_failure(self.context.shared.group(), true);
        message.attempt = message.attempt.saturating_add(1);
        let (offset, bytes) = (message.offset, message.size());
        let due = hold.is_none().then(|| Instant::now() + config.retry_backoff);
        let record = PendingRecord { message, history: Some(history) };
        self.lanes.requeue(lane, QueuedRecord { offset, bytes, due, hold, record });
        if hold.is_some_and(|hold| self.holds.ids.insert(hold)) {
            self.holds.version = 0; // looks at the new one
        }
    }

    /// Handles a seek: nothing waits any more.
    pub(super) fn drop_held(&mut self) {
        self.holds = WorkerHolds::default();
        self.context.shared.drop_held(self.metrics.partition());
    }
}

impl AttemptHistory {
    /// Returns the history of a record whose first attempt failed now.
    pub(super) fn new(config: &crate::config::ProcessorConfig) -> Self {
        Self {
            first_failure: Timestamp::now(),
            backoff: Backoff::new(config.retry_backoff, config.retry_backoff_max),
            delayed: None,
            uncounted: 0,
            probe: None,
        }
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
