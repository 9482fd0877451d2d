//! The task of a subscription: receives the consumer's events, feeds the workers, commits offsets
//! of handled records.

mod topics;

pub(super) use topics::{TopicsReply, list_topics};

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

use super::control::ControlCommand;
use super::dead_letter::printable_key;
use super::discovery::Discovery;
use super::drain::{Drain, OwnedPartition, PendingCommit, Unfinished};
use super::lanes::Lanes;
use super::offset_tracker::CompletedOffsets;
use super::partition_offsets::NO_EPOCH;
use super::pauses::PauseReasons;
use super::pipeline::AbortOnDrop;
use super::positions::{CommitPosition, SeekReply};
use super::state::{PartitionState, StuckHandler};
use super::worker::{Sink, Worker, WorkerContext};
use crate::cluster::Client;
use crate::consumer::{Consumer, ConsumerEvent, ConsumerState, Records, Revocation, StartOffset};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Observation;
use crate::record::TopicPartition;
use topics::TopicEvent;

/// Time reserved for the commit before revoked partitions must be returned.
const COMMIT_MARGIN: Duration = Duration::from_millis(500);
/// Maximum time for the last transactions of a pipeline, after that for its handlers.
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct SubscriptionTask {
    consumer: Consumer,
    context: Arc<WorkerContext>,
    owned: HashMap<TopicPartition, OwnedPartition>,
    commit: Option<PendingCommit>,
    /// Revoked and lost partitions, which are drained while the others go on.
    draining: FuturesUnordered<BoxFuture<'static, (Unfinished, Result<()>)>>,
    /// Number of finished attempts, and since when it is unchanged.
    last_progress: Option<(u64, Instant)>,
    /// Cancelled to shut down.
    stop: CancellationToken,
    /// Cancelled to cancel handlers in flight during the shutdown.
    cancel: CancellationToken,
    fatal: mpsc::Receiver<Error>,
    commands: mpsc::Receiver<ControlCommand>,
    client: Client,
    /// Set where topics are chosen by a pattern.
    discovery: Option<Discovery>,
    topic_events: FuturesUnordered<BoxFuture<'static, TopicEvent>>,
    _transactions: Option<AbortOnDrop>,
}

impl SubscriptionTask {
    pub(super) fn new(
        consumer: Consumer,
        context: WorkerContext,
        (stop, cancel): (CancellationToken, CancellationToken),
        (fatal, commands): (mpsc::Receiver<Error>, mpsc::Receiver<ControlCommand>),
        (client, discovery): (Client, Option<Discovery>),
    ) -> Self {
        let draining = FuturesUnordered::new();
        let (owned, context) = (HashMap::new(), Arc::new(context));
        let transactions = match &context.sink {
            Sink::DeadLetters(_) => None,
            Sink::Transactions(transactions) => Some(AbortOnDrop(Arc::clone(transactions))),
        };
        Self {
            consumer,
            context,
            owned,
            commit: None,
            draining,
            last_progress: None,
            stop,
            cancel,
            fatal,
            commands,
            client,
            discovery,
            topic_events: FuturesUnordered::new(),
            _transactions: transactions,
        }
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
        self.begin_drain(&all, deadline, deadline + LAST_COMMIT_TIMEOUT, true, None);
        let (mut unfinished, drained) = self.wait_drained().await;
        unfinished.partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        if !unfinished.is_empty() {
            tracing::warn!(group = %self.context.shared.group(), left = %unfinished, "the subscription ended with records left: they will be handled again");
        }
        self.context.shared.set_member_state(ConsumerState::Closed);
        let closed = self.consumer.close().await;
        match &self.context.sink {
            Sink::DeadLetters(writer) => {
                if let Err(e) = writer.close(Duration::from_secs(1)).await {
                    // Its record counts as unfinished and is not committed.
                    tracing::warn!(error = %e.full(), "a dead letter was not acknowledged: it will be written again");
                }
            }
            Sink::Transactions(transactions) => transactions.close().await,
        }
        match failed {
            Some(e) => Err(e),
            None => drained.and(closed).map(|()| unfinished),
        }
    }

    async fn run_until_stopped(&mut self) -> Result<()> {
        let (stop, shared) = (self.stop.clone(), Arc::clone(&self.context.shared));
        let max_age = self.client.config().metadata_max_age;
        let mut list = tokio::time::interval_at(Instant::now() + max_age, max_age);
        list.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                now = check.tick() => self.check_stuck_handlers(now).await,
                Some(command) = self.commands.recv() => {
                    self.on_command(command).await;
                    tick.reset_immediately(); // commits a seek
                }
                Some(event) = self.topic_events.next() => self.on_topic_event(event).await,
                _ = list.tick(), if self.discovery.is_some() && self.topic_events.is_empty() => self.start_listing(),
                () = shared.pauses_changed() => self.sync_pauses(),
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
    async fn check_stuck_handlers(&mut self, now: Instant) {
        let limit = self.context.stuck_after;
        let mut stuck = None;
        for (tp, owned) in &self.owned {
            for StuckHandler { offset, key, running_for, should_warn } in owned.state.stuck_handlers(limit, now) {
                let record = format!("{tp}@{offset}");
                if should_warn {
                    let key = key.map(|k| printable_key(&k));
                    tracing::warn!(
                        group = %self.context.shared.group(), record, key,
                        "a handler has had this record for {running_for:.1?}: what must come after it waits; ProcessorConfig::attempt_timeout \
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
                self.context.shared.rebalances.fetch_add(1, Ordering::Relaxed);
                if let Some(listener) = &self.context.listener {
                    listener.assigned(&partitions);
                }
                self.context.shared.on_rebalanced(&self.consumer.assignment());
                for tp in partitions {
                    self.start_worker(tp).await;
                }
                // After its partitions are there: a member without any has caught up.
                self.context.shared.set_member_state(ConsumerState::Member);
                self.context.shared.notify_progress();
                self.sync_pauses(); // before the next `recv`: none of their records is passed on
            }
            ConsumerEvent::Records(records) => self.dispatch(records),
            ConsumerEvent::Revoked(revocation) => self.on_revoked(revocation),
            ConsumerEvent::Lost(partitions) => self.on_lost(&partitions),
        }
    }

    fn dispatch(&mut self, records: Records) {
        if let Some(owned) = self.owned.get(&records.topic_partition()) {
            // Those of an earlier position are not received any more: see `Consumer::seek`.
            _ = owned.records.send((owned.state.seek_number(), records)); // its worker runs until the partition is drained
        }
    }

    fn on_revoked(&mut self, revocation: Revocation) {
        let deadline = revocation.deadline.checked_sub(COMMIT_MARGIN).unwrap_or(revocation.deadline);
        let partitions = revocation.partitions.clone();
        if let Some(listener) = &self.context.listener {
            listener.revoked(&partitions);
        }
        let last_commit = revocation.deadline;
        self.begin_drain(&partitions, deadline, last_commit, true, Some(revocation));
    }

    fn on_lost(&mut self, partitions: &[TopicPartition]) {
        tracing::warn!(count = partitions.len(), "partitions were lost: their handlers are cancelled");
        if let Some(listener) = &self.context.listener {
            listener.lost(partitions);
        }
        let now = Instant::now();
        if let Sink::Transactions(transactions) = &self.context.sink {
            transactions.remove(partitions.iter()); // before a handler ends
        }
        self.begin_drain(partitions, now, now, false, None);
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
            let completed = CompletedOffsets::decode(&at.metadata, at.offset, epoch).unwrap_or_else(|| {
                if !at.metadata.is_empty() {
                    tracing::error!(
                        partition = %tp, offset = at.offset, "the metadata of the committed offset can't be read, or is of another client: \
                         records above the offset that were handled before are handled again"
                    );
                }
                CompletedOffsets::default()
            });
            state.start_at_committed(CommitPosition {
                offset: at.offset,
                leader_epoch: at.leader_epoch,
                metadata: at.metadata,
                seek: 0,
            });
            (at.offset, completed)
        });
        let (records, queue) = mpsc::unbounded_channel();
        // A child token: on shutdown no worker starts another record, even before this task has
        // started the drain.
        let (stop, cancel) = (self.stop.child_token(), CancellationToken::new());
        let collector = match &self.context.sink {
            Sink::DeadLetters(_) => None,
            Sink::Transactions(transactions) => {
                Some(transactions.assign(&tp, &state, self.consumer.group_metadata().ok(), committed.clone()))
            }
        };
        let lanes = Lanes::new(self.context.config.ordering, committed);
        let tokens = (stop.clone(), cancel.clone());
        let partition = (tp.clone(), Arc::clone(&state), collector);
        let worker = Worker::new(Arc::clone(&self.context), partition, lanes, queue, tokens);
        self.context.shared.add_partition(tp.clone(), Arc::clone(&state));
        let task = tokio::spawn(worker.run());
        self.owned.insert(
            tp,
            OwnedPartition {
                state,
                records,
                stop,
                cancel,
                is_fetch_paused: false,
                reported_pauses: PauseReasons::default(),
                task,
            },
        );
    }

    async fn on_command(&mut self, command: ControlCommand) {
        match command {
            ControlCommand::Seek { partition, offset, reply } => self.seek(&partition, offset, reply),
            ControlCommand::Subscribe { topics, reply } => self.find_topics(topics, Some(reply)),
            ControlCommand::Unsubscribe { topics, reply } => self.remove_topics(&topics, reply).await,
        }
    }

    fn seek(&mut self, tp: &TopicPartition, offset: i64, reply: SeekReply) {
        if matches!(self.context.sink, Sink::Transactions(_)) {
            let what = format!(
                "{tp} can't be moved: outputs of a pipeline's records are committed with their offsets; \
                 end the pipeline, and reset the offsets of its group"
            );
            _ = reply.send(Err(Error::new(ErrorKind::Unsupported, what))); // it may have been dropped
            return;
        }
        // The consumer first: what `recv` returns after this is of the new position, and `dispatch`
        // gives it the number of this seek.
        let moved = self.consumer.seek(tp, StartOffset::Offset(offset));
        match moved.map(|()| self.owned.get(tp)) {
            Ok(Some(owned)) => {
                tracing::info!(group = %self.context.shared.group(), partition = %tp, offset, "the position is moved by a seek");
                owned.state.seek(offset, reply);
                self.context.shared.mark_moved(tp, &owned.state);
            }
            Ok(None) => drop(reply),
            Err(e) => _ = reply.send(Err(e)),
        }
    }

    /// Stops or starts to fetch partitions that were paused or resumed.
    fn sync_pauses(&mut self) {
        for (tp, owned) in &mut self.owned {
            let reasons = owned.state.paused_by();
            report_pauses(&self.context, tp, std::mem::replace(&mut owned.reported_pauses, reasons), reasons);
            let is_paused = !reasons.is_empty();
            if is_paused == owned.is_fetch_paused {
                continue;
            }
            let tp = std::slice::from_ref(tp);
            let done = if is_paused { self.consumer.pause(tp) } else { self.consumer.resume(tp) };
            if done.is_ok() {
                owned.is_fetch_paused = is_paused; // else it is being revoked
            }
        }
    }

    /// Starts to drain partitions; `revocation` is dropped, which returns them, after their commit.
    /// A pipeline has until `last_commit` for that.
    fn begin_drain(
        &mut self,
        all: &[TopicPartition],
        deadline: Instant,
        last_commit: Instant,
        commit: bool,
        revocation: Option<Revocation>,
    ) {
        let partitions: Vec<_> = all.iter().filter_map(|tp| Some((tp.clone(), self.owned.remove(tp)?))).collect();
        for (tp, owned) in &partitions {
            report_pauses(&self.context, tp, owned.reported_pauses, PauseReasons::default());
        }
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
            transactions: match &self.context.sink {
                Sink::DeadLetters(_) => None,
                Sink::Transactions(transactions) => Some((Arc::clone(transactions), last_commit)),
            },
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
                        revoke_deadline = r.deadline.checked_sub(COMMIT_MARGIN);
                        revocation = Some(r);
                    }
                    Ok(ConsumerEvent::Lost(lost)) => {
                        self.cancel.cancel();
                        if let Sink::Transactions(transactions) = &self.context.sink {
                            transactions.remove(lost.iter());
                        }
                    }
                    Ok(ConsumerEvent::Assigned(_) | ConsumerEvent::Records(_)) => {}
                    Err(e) => tracing::debug!(error = %e.full(), "while the subscription shuts down"),
                },
            }
        }
        drop(revocation);
        (unfinished, outcome)
    }
}

fn report_pauses(context: &WorkerContext, tp: &TopicPartition, before: PauseReasons, now: PauseReasons) {
    let (group, TopicPartition { topic, partition }) = (context.shared.group(), tp);
    for reason in PauseReasons(before.0 ^ now.0).iter() {
        let (partition, paused, reason) = (*partition, now.contains(reason), reason.as_str());
        context.metrics.report(|| Observation::PauseChanged { group, topic, partition, reason, paused });
    }
}

fn warn_uncommitted(outcome: &Result<()>) {
    if let Err(e) = outcome {
        tracing::warn!(error = %e.full(), "offsets of records handled before the rebalance are not committed: the records will be handled again");
    }
}
