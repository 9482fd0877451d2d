//! State of a subscription that its task, its workers and health checks share.

mod holds;

pub(super) use holds::{HoldDecision, UnclassifiedFailure};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::activity::Activity;
use super::breaker::{Breakers, OutageDetector};
use super::concurrency::Concurrency;
use super::dead_letter::RetryTopics;
use super::partition_state::RecordCounts;
pub(super) use super::partition_state::{PartitionState, StuckHandler};
use super::pauses::{PauseReason, PauseRules, Scope};
use super::{Stats, SubscriptionHealth};
use crate::config::{IsolationLevel, ProcessorConfig};
use crate::consumer::{ConsumerState, ConsumerStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Lock;
use crate::metrics::Reporter;
use crate::record::TopicPartition;

/// Shared state of a subscription.
#[derive(Debug)]
pub(crate) struct SubscriptionState {
    group: String,
    topics: Lock<BTreeSet<String>>,
    /// Those among `topics` that are retry topics of others.
    pub(super) retry_topics: RetryTopics,
    /// Maximum time without progress before pending records are stalled.
    stall_timeout: Duration,
    isolation_level: IsolationLevel,
    /// Has the outages that its consumer waits for.
    status: Arc<ConsumerStatus>,
    /// Membership state, and since when.
    state: Lock<(ConsumerState, Instant)>,
    /// Member id and generation.
    member: Lock<(Option<String>, Option<i32>)>,
    owned: Lock<Owned>,
    /// Notifies the task that a partition may be paused or resumed.
    pauses_changed: Notify,
    /// Notified of progress while there are waiters.
    progress: Notify,
    progress_waiters: AtomicUsize,
    pub(super) concurrency: Arc<Concurrency>,
    /// Number of `owned` partitions.
    partition_count: AtomicUsize,
    /// Partitions whose position may have changed since the last commit, each once.
    moved: Lock<Vec<TopicPartition>>,
    pub(super) handled: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) rebalances: AtomicU64,
    /// Changes with the holds.
    holds_version: AtomicU64,
    /// True if a record failed since the last success.
    has_failures: AtomicBool,
    metrics: Reporter,
}

/// The assigned partitions, and what is paused or held of them and of later ones. One lock has both, so
/// that a partition that is assigned while a topic is paused is not missed.
#[derive(Debug)]
struct Owned {
    partitions: BTreeMap<TopicPartition, Arc<PartitionState>>,
    rules: PauseRules,
    breakers: Breakers,
    outage: OutageDetector,
}

impl SubscriptionState {
    pub(super) fn topics(&self) -> BTreeSet<String> {
        self.topics.lock().clone()
    }

    /// Sets the topics. Pauses of those that are removed end.
    pub(super) fn set_topics(&self, topics: BTreeSet<String>) {
        self.owned.lock().rules.retain_topics(&topics);
        *self.topics.lock() = topics;
    }

    pub(super) fn new(
        group: &str,
        topics: &[&str],
        retry_topics: RetryTopics,
        config: &ProcessorConfig,
        (isolation_level, status): (IsolationLevel, Arc<ConsumerStatus>),
        metrics: Reporter,
    ) -> Self {
        let owned = Owned {
            partitions: BTreeMap::new(),
            rules: PauseRules::default(),
            breakers: Breakers::new(config.hold_backoff, config.hold_backoff_max),
            outage: OutageDetector::new(config.outage_records),
        };
        Self {
            group: group.to_owned(),
            topics: Lock::new(topics.iter().map(|t| (*t).to_owned()).collect()),
            retry_topics,
            stall_timeout: config.stall_timeout,
            isolation_level,
            status,
            state: Lock::new((ConsumerState::Joining, Instant::now())),
            member: Lock::default(),
            owned: Lock::new(owned),
            pauses_changed: Notify::new(),
            progress: Notify::new(),
            progress_waiters: AtomicUsize::new(0),
            concurrency: Arc::new(Concurrency::new(config.concurrency)),
            partition_count: AtomicUsize::new(0),
            moved: Lock::default(),
            handled: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            rebalances: AtomicU64::new(0),
            holds_version: AtomicU64::new(0),
            has_failures: AtomicBool::new(false),
            metrics,
        }
    }

    /// Starts to notify of progress until the guard is dropped.
    pub(super) fn watch_progress(&self) -> ProgressWatch<'_> {
        self.progress_waiters.fetch_add(1, Ordering::SeqCst);
        ProgressWatch(self)
    }

    /// Wakes those who watch the progress, after a change of what [`progress`](Self::progress)
    /// returns. Costs nothing while there are none.
    pub(super) fn notify_progress(&self) {
        if self.progress_waiters.load(Ordering::SeqCst) > 0 {
            self.progress.notify_waiters();
        }
    }

    /// Returns the assigned partitions, each with the offset up to which it is handled; none while it
    /// is not a member. Those whose committed offset is yet to be fetched, or whose revocation is not
    /// complete, have no offset.
    pub(super) fn progress(&self) -> Option<Vec<(TopicPartition, Option<i64>)>> {
        if self.state.lock().0 != ConsumerState::Member {
            return None;
        }
        let mut assigned: BTreeMap<_, _> = self.status.assignment().into_iter().map(|tp| (tp, None)).collect();
        let owned = self.owned.lock();
        assigned.extend(owned.partitions.iter().map(|(tp, state)| (tp.clone(), state.completed_up_to())));
        // What waits in retry topics has been handled once, and may wait for hours.
        assigned.retain(|tp, _| self.retry_topics.parse(&tp.topic).is_none());
        Some(assigned.into_iter().collect())
    }

    pub(super) fn isolation_level(&self) -> IsolationLevel {
        self.isolation_level
    }

    pub(super) fn group(&self) -> &str {
        &self.group
    }

    pub(super) fn set_member_state(&self, state: ConsumerState) {
        let mut now = self.state.lock();
        if now.0 != state {
            *now = (state, Instant::now());
            drop(now);
            self.notify_progress();
        }
    }

    pub(super) fn set_member(&self, id: Option<String>, generation: Option<i32>) {
        *self.member.lock() = (id, generation);
    }

    pub(super) fn add_partition(&self, tp: TopicPartition, partition: Arc<PartitionState>) {
        let mut owned = self.owned.lock();
        partition.set_paused_by(PauseReason::Control, owned.rules.is_paused(&tp));
        partition.set_paused_by(PauseReason::Breaker, owned.breakers.is_held(&tp));
        owned.partitions.insert(tp, partition);
        self.partition_count.store(owned.partitions.len(), Ordering::Relaxed);
        drop(owned);
        self.notify_progress();
    }

    pub(super) fn remove_partition(&self, tp: &TopicPartition) {
        self.change_holds(|owned| {
            owned.partitions.remove(tp);
            owned.end_holds(tp);
            self.partition_count.store(owned.partitions.len(), Ordering::Relaxed);
        });
        self.notify_progress();
    }

    /// Pauses or resumes a partition for [`PauseReason::Delay`].
    pub(super) fn set_delayed(&self, partition: &PartitionState, is_delayed: bool) {
        if is_delayed != partition.paused_by().contains(PauseReason::Delay) {
            partition.set_paused_by(PauseReason::Delay, is_delayed);
            self.pauses_changed.notify_one();
        }
    }

    /// Pauses or resumes a scope for [`PauseReason::Control`].
    pub(super) fn set_scope_paused(&self, scope: &Scope, paused: bool) -> Result<()> {
        let owned = &mut *self.owned.lock();
        let group = &self.group;
        match scope {
            Scope::Partition(tp) if paused && !owned.partitions.contains_key(tp) => {
                let what = format!(
                    "{tp} can't be paused: it is not, or no longer, assigned to this member of group {group:?}"
                );
                return Err(Error::new(ErrorKind::GroupMembership, what));
            }
            Scope::Topic(topic) if !self.topics.lock().contains(topic) => {
                let what =
                    format!("topic {topic:?} can't be paused or resumed: group {group:?} is not subscribed to it here");
                return Err(Error::new(ErrorKind::Config, what));
            }
            _ => {}
        }
        owned.rules.set(scope, paused);
        if let Scope::Topic(topic) = scope {
            let retries = self.retry_topics.names(topic).into_iter();
            retries.for_each(|retry| owned.rules.set(&Scope::Topic(retry), paused));
        }
        for (tp, partition) in &owned.partitions {
            let is_paused = owned.rules.is_paused(tp);
            if is_paused != partition.paused_by().contains(PauseReason::Control) {
                partition.set_paused_by(PauseReason::Control, is_paused);
            }
        }
        self.pauses_changed.notify_one();
        Ok(())
    }

    /// Returns the scopes that are paused for [`PauseReason::Control`].
    pub(super) fn paused_scopes(&self) -> Vec<Scope> {
        self.owned.lock().rules.paused()
    }

    /// Handles the end of a rebalance: pauses of single partitions end when they have moved.
    pub(super) fn on_rebalanced(&self, assignment: &[TopicPartition]) {
        self.owned.lock().rules.retain_assigned(|tp| assignment.contains(tp));
    }

    /// Resolves when a partition may have been paused or resumed. For one waiter.
    pub(super) async fn pauses_changed(&self) {
        self.pauses_changed.notified().await;
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
        if partition.set_moved() {
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
        let outages: BTreeMap<_, _> = self.status.partition_outages().into_iter().collect();
        let owned = self.owned.lock();
        let health =
            |(tp, p): (&TopicPartition, &Arc<PartitionState>)| p.health(tp, outages.get(tp), self.stall_timeout, now);
        let partitions: Vec<_> = owned.partitions.iter().map(health).collect();
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
            topics: self.topics().into_iter().collect(),
            state,
            state_age: in_state,
            member_id,
            generation,
            problem: self.status.outage().map(|outage| outage.describe(now)),
            activity: partitions.iter().map(|p| p.activity).max().unwrap_or_default().max(membership),
            lag: partitions.iter().filter_map(|p| p.lag).sum(),
            concurrency: Some(self.concurrency.limit()),
            waiting_for: self.waiting_for(now),
            partitions,
        }
    }

    /// Returns the isolation level and the assigned partitions.
    pub(crate) fn assigned(&self) -> (IsolationLevel, Vec<TopicPartition>) {
        (self.isolation_level, self.owned.lock().partitions.keys().cloned().collect())
    }

    /// Sets the end offset that the leader of a partition has returned.
    pub(crate) fn set_end_offset(&self, tp: &TopicPartition, end: i64) {
        if let Some(partition) = self.owned.lock().partitions.get(tp) {
            partition.on_end_offset(end);
        }
    }

    /// Returns the number of attempts that have finished.
    pub(super) fn finished_attempts(&self) -> u64 {
        self.handled.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn stats(&self) -> Stats {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let sum = |count: fn(&RecordCounts) -> &AtomicUsize| {
            self.owned.lock().partitions.values().map(|p| count(&p.counts).load(Ordering::Relaxed)).sum()
        };
        Stats {
            handled: get(&self.handled),
            failed_attempts: get(&self.failed),
            retries: get(&self.retries),
            dead_letters: get(&self.dead_letters),
            skipped: get(&self.skipped),
            rebalances: get(&self.rebalances),
            in_flight: sum(|c| &c.in_flight),
            parked_keys: sum(|c| &c.parked_keys),
        }
    }
}

/// Ends the notifications of [`SubscriptionState::watch_progress`] when it is dropped.
pub(super) struct ProgressWatch<'a>(&'a SubscriptionState);

impl ProgressWatch<'_> {
    /// Resolves after the next change.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.0.progress.notified()
    }
}

impl Drop for ProgressWatch<'_> {
    fn drop(&mut self) {
        self.0.progress_waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::positions::CommitPosition;

    #[test]
    fn a_moved_partition_is_listed_once_per_commit() {
        let (none, config, of_consumer) = (RetryTopics::default(), ProcessorConfig::default(), Default::default());
        let shared = SubscriptionState::new("g", &["t"], none, &config, of_consumer, Reporter::default());
        let (tp, state) = (TopicPartition::new("t", 0), PartitionState::new());
        let to = |offset| {
            state.set_position(CommitPosition { offset, leader_epoch: None, metadata: String::new(), seek: 0 });
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
}
