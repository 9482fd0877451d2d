//! The holds of a subscription: its workers report what fails and probe, and its partitions are paused
//! and resumed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{Owned, PartitionState, SubscriptionState};
use crate::metrics::Observation;
use crate::processor::breaker::{HoldEvent, HoldId, ProbeId, UNKNOWN};
use crate::processor::failure_policy::Hold;
use crate::processor::health::WaitingFor;
use crate::processor::pauses::PauseReason;
use crate::record::TopicPartition;
use crate::timestamp::Timestamp;

/// Decision on a record whose attempt failed for a reason without a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::processor) enum HoldDecision {
    /// It is retried, or has failed for the last time.
    None,
    /// It waits for a hold.
    Held(HoldId),
    /// It would wait, but its partition is being revoked: the next owner handles it.
    Revoked,
}

/// An attempt that failed for a reason without a policy.
pub(in crate::processor) struct UnclassifiedFailure<'a> {
    /// Hashes of the record and its key, unless the failure is counted already.
    pub(in crate::processor) hashes: Option<(u64, u64)>,
    /// True if the record has no attempt left.
    pub(in crate::processor) is_last: bool,
    /// The error.
    pub(in crate::processor) error: &'a str,
}

impl SubscriptionState {
    /// Returns a number that changes with the holds.
    pub(in crate::processor) fn holds_version(&self) -> u64 {
        self.holds_version.load(Ordering::Acquire)
    }

    /// Handles a record that failed because of a dependency; `None` if its partition is not assigned
    /// any more.
    pub(in crate::processor) fn hold(
        &self,
        (tp, state): (&TopicPartition, &Arc<PartitionState>),
        hold: &Hold,
        error: &str,
    ) -> Option<HoldId> {
        self.change_holds(|owned| owned.has(tp, state).then(|| owned.breakers.on_held(hold, tp, error, Instant::now())))
    }

    /// Handles an attempt that failed for a reason without a policy: it may be one of an outage.
    pub(in crate::processor) fn on_unclassified_failure(
        &self,
        (tp, state): (&TopicPartition, &Arc<PartitionState>),
        failure: &UnclassifiedFailure<'_>,
    ) -> HoldDecision {
        self.change_holds(|owned| {
            if let Some((record, key)) = failure.hashes {
                owned.outage.on_failed(record, key);
                self.has_failures.store(true, Ordering::Relaxed);
            }
            let is_outage = failure.is_last && owned.outage.is_outage();
            if !owned.has(tp, state) {
                let is_held = is_outage || (failure.is_last && owned.breakers.is_held(tp));
                return if is_held { HoldDecision::Revoked } else { HoldDecision::None };
            }
            if let Some(id) = owned.breakers.on_failed_while_held(tp) {
                return HoldDecision::Held(id);
            }
            if !is_outage {
                return HoldDecision::None;
            }
            let error = format!("all of the last records failed, this one with: {}", failure.error);
            HoldDecision::Held(owned.breakers.on_held(&Hold::on(UNKNOWN), tp, &error, Instant::now()))
        })
    }

    /// Handles a success: failures before it are not those of an outage.
    pub(in crate::processor) fn on_success(&self) {
        if self.has_failures.load(Ordering::Relaxed) {
            let mut owned = self.owned.lock();
            self.has_failures.store(false, Ordering::Relaxed);
            owned.outage.on_success();
        }
    }

    /// Calls `is_open` with each of these holds, and `false` for those that have ended; returns the
    /// version of the holds and the next probe that this partition may make.
    pub(in crate::processor) fn next_probe(
        &self,
        tp: &TopicPartition,
        ids: impl Iterator<Item = HoldId>,
        mut is_open: impl FnMut(HoldId, bool),
    ) -> (u64, Option<(Instant, HoldId)>) {
        let owned = self.owned.lock();
        let mut next = None;
        for id in ids {
            is_open(id, owned.breakers.is_open(id));
            let at = owned.breakers.probe_at(id, tp).map(|at| (at, id));
            next = [next, at].into_iter().flatten().min();
        }
        (self.holds_version(), next)
    }

    /// Starts a probe by a held record of a partition, if it is due.
    pub(in crate::processor) fn try_probe(&self, id: HoldId, tp: &TopicPartition) -> Option<(ProbeId, Hold)> {
        self.change_holds(|owned| owned.breakers.try_probe(id, tp, Instant::now()))
    }

    /// Handles a probe that failed because of the dependency.
    pub(in crate::processor) fn on_probe_failed(&self, id: HoldId, probe: ProbeId, error: &str) {
        self.change_waiting(id, |owned| owned.breakers.on_probe_failed(id, probe, error, Instant::now()));
    }

    /// Handles a probe that did not fail because of the dependency.
    pub(in crate::processor) fn on_probe_succeeded(&self, id: HoldId) {
        self.change_waiting(id, |owned| owned.breakers.on_probe_succeeded(id, Instant::now()));
    }

    /// Handles a partition that has no record any more that waits for a hold.
    pub(in crate::processor) fn on_none_held(&self, id: HoldId, tp: &TopicPartition) {
        self.change_waiting(id, |owned| owned.breakers.on_none_held(id, tp, Instant::now()));
    }

    /// Handles a seek: the held records of a partition are dropped.
    pub(in crate::processor) fn drop_held(&self, tp: &TopicPartition) {
        self.change_holds(|owned| owned.end_holds(tp));
    }

    /// Changes a hold, and wakes the partitions that wait for it.
    fn change_waiting(&self, id: HoldId, change: impl FnOnce(&mut Owned)) {
        self.change_holds(|owned| {
            let waiting: Vec<_> = owned.breakers.waiting(id).cloned().collect();
            change(owned);
            owned.wake(&waiting);
        });
    }

    /// Changes the holds, pauses and resumes the partitions that they cover, and reports the changes.
    pub(super) fn change_holds<T>(&self, change: impl FnOnce(&mut Owned) -> T) -> T {
        let mut owned = self.owned.lock();
        let result = change(&mut owned);
        // Workers compare the version without this lock, and look at the holds under it.
        self.holds_version.store(owned.breakers.version(), Ordering::Release);
        let events: Vec<_> = std::iter::from_fn(|| owned.breakers.poll_event()).collect();
        let are_pauses_changed = !events.is_empty() && owned.sync_breaker_pauses();
        drop(owned);
        if are_pauses_changed {
            self.pauses_changed.notify_one();
        }
        events.into_iter().for_each(|event| self.report_hold(event));
        result
    }

    fn report_hold(&self, event: HoldEvent) {
        let group = &*self.group;
        match event {
            HoldEvent::Opened { dependency, scope, error } => {
                tracing::warn!(
                    %group, %dependency, %scope, %error,
                    "the subscription waits for a dependency of its handler: single records probe whether it is back, and no attempt counts"
                );
                self.metrics.report(|| Observation::HoldStarted { group, dependency: &dependency });
            }
            HoldEvent::Closed { dependency, held_for, failed_probes, is_back } => {
                let message = match is_back {
                    true => "a dependency of the handler is back: the subscription goes on",
                    false => {
                        "the subscription does not wait for a dependency any more: the records that did are no longer its own"
                    }
                };
                tracing::warn!(%group, %dependency, waited = ?held_for, failed_probes, "{message}");
                self.metrics.report(|| Observation::HoldEnded { group, dependency: &dependency, held_for });
            }
        }
    }

    /// Returns what it waits for.
    pub(super) fn waiting_for(&self, now: Instant) -> Vec<WaitingFor> {
        let holds = self.owned.lock().breakers.status();
        let waiting_for = holds.into_iter().map(|hold| {
            let waited_for = now.saturating_duration_since(hold.since);
            WaitingFor {
                dependency: hold.dependency,
                scope: hold.scope,
                since: Timestamp::now().saturating_sub(waited_for),
                waited_for,
                error: hold.error,
                failed_probes: hold.failed_probes,
                partitions: hold.partitions,
            }
        });
        waiting_for.collect()
    }
}

impl Owned {
    /// Returns whether a partition is assigned under this state.
    fn has(&self, tp: &TopicPartition, state: &Arc<PartitionState>) -> bool {
        self.partitions.get(tp).is_some_and(|owned| Arc::ptr_eq(owned, state))
    }

    fn wake(&self, partitions: &[TopicPartition]) {
        partitions.iter().filter_map(|tp| self.partitions.get(tp)).for_each(|state| state.notify());
    }

    /// Ends the holds of a partition's records.
    pub(super) fn end_holds(&mut self, tp: &TopicPartition) {
        let waiting: Vec<_> = self.breakers.on_partition_ended(tp, Instant::now());
        // One that has probed may be among them: the others are next.
        let others: Vec<_> = waiting.iter().flat_map(|id| self.breakers.waiting(*id)).cloned().collect();
        self.wake(&others);
    }

    /// Pauses and resumes partitions for [`PauseReason::Breaker`]; returns whether any changed.
    fn sync_breaker_pauses(&self) -> bool {
        let mut is_changed = false;
        for (tp, state) in &self.partitions {
            let is_held = self.breakers.is_held(tp);
            if is_held != state.paused_by().contains(PauseReason::Breaker) {
                state.set_paused_by(PauseReason::Breaker, is_held);
                is_changed = true;
            }
        }
        is_changed
    }
}
