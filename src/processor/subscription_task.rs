//! The task of a subscription: receives the consumer's events, feeds the workers, commits offsets
//! of handled records.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt, OptionFuture};
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::dead_letter::printable_key;
use super::drain::{Drain, OwnedPartition, PendingCommit, Unfinished};
use super::lanes::{Lanes, NO_EPOCH};
use super::offset_tracker::CompletedOffsets;
use super::state::{CommitPosition, PartitionState, StuckHandler};
use super::worker::{Worker, WorkerContext};
use crate::consumer::{Consumer, ConsumerEvent, ConsumerState, Records, Revocation};
use crate::error::{Error, Result};
use crate::record::TopicPartition;

/// Time reserved for the commit before revoked partitions must be returned.
const COMMIT_MARGIN: Duration = Duration::from_millis(500);

pub(super) struct SubscriptionTask {
    consumer: Consumer,
    context: Arc<WorkerContext>,
    owned: HashMap<TopicPartition, OwnedPartition>,
    commit: Option<PendingCommit>,
    /// Revoked and lost partitions, which are drained while the others go on.
    draining: FuturesUnordered<BoxFuture<'static, (Unfinished, Result<()>)>>,
    /// Number of finished attempts, and since when it is unchanged.
    last_progress: Option<(u64, std::time::Instant)>,
    /// Cancelled to shut down.
    stop: CancellationToken,
    /// Cancelled to cancel handlers in flight during the shutdown.
    cancel: CancellationToken,
    fatal: mpsc::Receiver<Error>,
}

impl SubscriptionTask {
    pub(super) fn new(
        consumer: Consumer,
        context: WorkerContext,
        (stop, cancel): (CancellationToken, CancellationToken),
        fatal: mpsc::Receiver<Error>,
    ) -> Self {
        let draining = FuturesUnordered::new();
        let (owned, context) = (HashMap::new(), Arc::new(context));
        Self { consumer, context, owned, commit: None, draining, last_progress: None, stop, cancel, fatal }
    }

    /// Runs until `stop` is cancelled or the consumer has a fatal error, then drains, commits and
    /// leaves the group.
    pub(super) async fn run(mut self) -> Result<Unfinished> {
        let failed = self.run_until_stopped().await.err();
        let all: Vec<_> = self.owned.keys().cloned().collect();
        let deadline = Instant::now() + self.context.config.shutdown_timeout;
        if let Some(listener) = self.context.listener.as_ref().filter(|_| !all.is_empty()) {
            listener.revoked(&all);
        }
        self.begin_drain(&all, deadline, true, None);
        let (mut unfinished, drained) = self.wait_drained().await;
        unfinished.partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        if !unfinished.is_empty() {
            tracing::warn!(group = %self.context.shared.group(), left = %unfinished, "the subscription ended with records left: they will be handled again");
        }
        self.context.shared.set_member_state(ConsumerState::Closed);
        let closed = self.consumer.close().await;
        if let Err(e) = self.context.dead_letters.close(Duration::from_secs(1)).await {
            // Its record counts as unfinished and is not committed.
            tracing::warn!(error = %e.full(), "a dead letter was not acknowledged: it will be written again");
        }
        match failed {
            Some(e) => Err(e),
            None => drained.and(closed).map(|()| unfinished),
        }
    }

    async fn run_until_stopped(&mut self) -> Result<()> {
        let stop = self.stop.clone();
        let mut tick = tokio::time::interval(self.context.config.commit_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut check = tokio::time::interval(self.context.stuck_after.max(Duration::from_millis(4)) / 4);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let idle = self.commit.is_none();
            let commit = OptionFuture::from(self.commit.as_mut().map(|c| &mut c.outcome));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(error) = self.fatal.recv() => return Err(error),
                Some(outcome) = commit => if let Some(commit) = self.commit.take() { commit.on_done(&outcome) },
                Some((_, outcome)) = self.draining.next() => warn_uncommitted(&outcome),
                _ = tick.tick(), if idle => {
                    let moved = self.context.shared.take_moved();
                    // A partition that was revoked and assigned again may be listed twice.
                    let moved = moved.iter().filter_map(|tp| self.owned.get_key_value(tp)).filter(|(_, o)| o.state.clear_moved());
                    self.commit = PendingCommit::for_partitions(moved, &self.context.shared, self.consumer.committer());
                }
                now = check.tick() => self.check_stuck_handlers(now.into()).await,
                event = self.consumer.recv() => match event {
                    Ok(event) => self.handle_event(event).await,
                    Err(e) if self.consumer.state() == ConsumerState::Closed => return Err(e),
                    // A failure of one partition, such as a corrupt batch: the consumer retries,
                    // and its position stays.
                    Err(e) => tracing::error!(error = %e.full(), "records can't be read"),
                },
            }
        }
    }

    /// Warns of stuck handlers. If no other attempt finishes either, leaves the group, so that
    /// other members get the partitions: the stuck handlers are cancelled, and this member rejoins.
    async fn check_stuck_handlers(&mut self, now: std::time::Instant) {
        let limit = self.context.stuck_after;
        let mut stuck = None;
        for (tp, owned) in &self.owned {
            for StuckHandler { offset, key, running_for, should_warn } in owned.state.stuck_handlers(limit, now) {
                let record = format!("{tp}@{offset}");
                if should_warn {
                    let key = key.map(|k| printable_key(&k));
                    tracing::warn!(
                        group = %self.context.shared.group(), record, key,
                        "a handler has had this record for {running_for:.1?}: what must come after it waits; REDPANDA_ATTEMPT_TIMEOUT \
                         limits its time"
                    );
                }
                stuck = Some(format!(
                    "a handler has had {record} for {running_for:.1?}, and no other attempt finished meanwhile"
                ));
            }
        }
        let finished = self.context.shared.finished_attempts();
        if self.last_progress.is_none_or(|(before, _)| before != finished) {
            self.last_progress = Some((finished, now));
        }
        let stalled = self.last_progress.is_some_and(|(_, since)| now.saturating_duration_since(since) >= limit);
        if let Some(why) = stuck.filter(|_| stalled) {
            self.last_progress = None;
            self.consumer.leave_temporarily(why).await;
        }
    }

    async fn handle_event(&mut self, event: ConsumerEvent) {
        match event {
            ConsumerEvent::Assigned(partitions) => {
                self.context.shared.set_member(self.consumer.member_id(), self.consumer.generation());
                self.context.shared.set_member_state(ConsumerState::Member);
                self.context.shared.rebalances.fetch_add(1, Ordering::Relaxed);
                if let Some(listener) = &self.context.listener {
                    listener.assigned(&partitions);
                }
                for tp in partitions {
                    self.start_worker(tp).await;
                }
            }
            ConsumerEvent::Records(records) => self.dispatch(records),
            ConsumerEvent::Revoked(revocation) => self.on_revoked(revocation),
            ConsumerEvent::Lost(partitions) => self.on_lost(&partitions),
        }
    }

    fn dispatch(&mut self, records: Records) {
        if let Some(owned) = self.owned.get(&records.topic_partition()) {
            _ = owned.records.send(records); // its worker runs until the partition is drained
        }
    }

    fn on_revoked(&mut self, revocation: Revocation) {
        let deadline = revocation.deadline.checked_sub(COMMIT_MARGIN).unwrap_or(revocation.deadline).into();
        let partitions = revocation.partitions.clone();
        if let Some(listener) = &self.context.listener {
            listener.revoked(&partitions);
        }
        self.begin_drain(&partitions, deadline, true, Some(revocation));
    }

    fn on_lost(&mut self, partitions: &[TopicPartition]) {
        tracing::warn!(count = partitions.len(), "partitions were lost: their handlers are cancelled");
        if let Some(listener) = &self.context.listener {
            listener.lost(partitions);
        }
        self.begin_drain(partitions, Instant::now(), false, None);
    }

    async fn start_worker(&mut self, tp: TopicPartition) {
        // Assigned again while its previous worker drains: that worker must end first, so that no
        // record is handled by two.
        if self.owned.contains_key(&tp) {
            self.on_lost(std::slice::from_ref(&tp));
        }
        while let Some((_, outcome)) = self.draining.next().await {
            warn_uncommitted(&outcome);
        }
        let state = Arc::new(PartitionState::new());
        let committed = self.consumer.committed_metadata(&tp).map(|at| {
            let epoch = at.leader_epoch.unwrap_or(NO_EPOCH);
            let completed = CompletedOffsets::decode(&at.metadata, at.offset, epoch).unwrap_or_default();
            state.start_at_committed(CommitPosition {
                offset: at.offset,
                leader_epoch: at.leader_epoch,
                metadata: at.metadata,
            });
            (at.offset, completed)
        });
        let (records, queue) = mpsc::unbounded_channel();
        // A child token: on shutdown no worker starts another record, even before this task has
        // started the drain.
        let (stop, cancel) = (self.stop.child_token(), CancellationToken::new());
        let lanes = Lanes::new(self.context.config.ordering, committed);
        let tokens = (stop.clone(), cancel.clone());
        let worker = Worker::new(Arc::clone(&self.context), (tp.clone(), Arc::clone(&state)), lanes, queue, tokens);
        self.context.shared.add_partition(tp.clone(), Arc::clone(&state));
        self.owned.insert(tp, OwnedPartition { state, records, stop, cancel, task: tokio::spawn(worker.run()) });
    }

    /// Starts to drain partitions; `revocation` is dropped, which returns them, after their commit.
    fn begin_drain(&mut self, all: &[TopicPartition], deadline: Instant, commit: bool, revocation: Option<Revocation>) {
        let partitions: Vec<_> = all.iter().filter_map(|tp| Some((tp.clone(), self.owned.remove(tp)?))).collect();
        all.iter().for_each(|tp| self.context.shared.remove_partition(tp));
        if self.owned.is_empty() {
            self.context.shared.set_member_state(ConsumerState::Joining);
        }
        let committer = commit.then(|| self.consumer.committer());
        let cancel = if commit { self.cancel.clone() } else { CancellationToken::new() };
        let drain = Drain {
            partitions,
            deadline,
            cancel,
            earlier_commit: self.commit.take(),
            committer,
            shared: Arc::clone(&self.context.shared),
        };
        let finish = async move {
            let outcome = drain.finish().await;
            drop(revocation);
            outcome
        };
        self.draining.push(finish.boxed());
    }

    /// Waits until all partitions are drained, while membership goes on: a rebalance may revoke
    /// some of them sooner.
    async fn wait_drained(&mut self) -> (Unfinished, Result<()>) {
        let (mut unfinished, mut outcome, mut revocation) = (Unfinished::default(), Ok(()), None);
        let mut revoke_deadline: Option<Instant> = None;
        loop {
            let is_open = self.consumer.state() != ConsumerState::Closed;
            let early = OptionFuture::from(revoke_deadline.map(tokio::time::sleep_until));
            tokio::select! {
                biased;
                drained = self.draining.next() => {
                    let Some((more, committed)) = drained else { break };
                    unfinished.partitions.extend(more.partitions);
                    outcome = outcome.and(committed);
                }
                Some(()) = early => {
                    revoke_deadline = None;
                    self.cancel.cancel();
                }
                event = self.consumer.recv(), if is_open => match event {
                    Ok(ConsumerEvent::Revoked(r)) => {
                        revoke_deadline = r.deadline.checked_sub(COMMIT_MARGIN).map(Into::into);
                        revocation = Some(r);
                    }
                    Ok(ConsumerEvent::Lost(_)) => self.cancel.cancel(),
                    Ok(ConsumerEvent::Assigned(_) | ConsumerEvent::Records(_)) => {}
                    Err(e) => tracing::debug!(error = %e.full(), "while the subscription shuts down"),
                },
            }
        }
        drop(revocation);
        (unfinished, outcome)
    }
}

fn warn_uncommitted(outcome: &Result<()>) {
    if let Err(e) = outcome {
        tracing::warn!(error = %e.full(), "offsets of records handled before the rebalance are not committed: the records will be handled again");
    }
}
