//! The loop of a subscription: it takes the consumer's events, feeds the workers, commits what has ended.

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

use super::drain::{Commit, Leaving, Owned, Unfinished};
use super::lanes::{Lanes, NO_EPOCH};
use super::letter::shown;
use super::progress::Ended;
use super::state::{Hanging, PartitionState, Position};
use super::worker::{Context, Worker};
use crate::consumer::{Consumer, ConsumerEvent, ConsumerState, Records, Revocation};
use crate::error::{Error, Result};
use crate::record::TopicPartition;

/// What a revoke leaves for the commit, out of the time until the partitions are given up.
const COMMIT_MARGIN: Duration = Duration::from_millis(500);

pub(super) struct Run {
    consumer: Consumer,
    context: Arc<Context>,
    owned: HashMap<TopicPartition, Owned>,
    commit: Option<Commit>,
    /// Partitions that are being given up while the others go on.
    leaving: FuturesUnordered<BoxFuture<'static, (Unfinished, Result<()>)>>,
    /// How many attempts had ended, and since when that is so.
    progress: Option<(u64, std::time::Instant)>,
    /// Cancelled when all is to end in good order.
    stop: CancellationToken,
    /// Cancelled when that is to be cut short.
    cut: CancellationToken,
    fatal: mpsc::Receiver<Error>,
}

impl Run {
    pub(super) fn new(
        consumer: Consumer,
        context: Context,
        (stop, cut): (CancellationToken, CancellationToken),
        fatal: mpsc::Receiver<Error>,
    ) -> Self {
        let leaving = FuturesUnordered::new();
        let (owned, context) = (HashMap::new(), Arc::new(context));
        Self { consumer, context, owned, commit: None, leaving, progress: None, stop, cut, fatal }
    }

    /// Runs until it is told to stop or until the consumer has failed for good; then ends in good order.
    pub(super) async fn finish(mut self) -> Result<Unfinished> {
        let failed = self.work().await.err();
        let all: Vec<_> = self.owned.keys().cloned().collect();
        let deadline = Instant::now() + self.context.config.shutdown_timeout;
        if let Some(listener) = self.context.listener.as_ref().filter(|_| !all.is_empty()) {
            listener.revoked(&all);
        }
        self.give_up(&all, deadline, true, None);
        let (mut left, drained) = self.drained().await;
        left.partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        if !left.is_empty() {
            tracing::warn!(group = %self.context.shared.group(), %left, "the subscription ended with records left: they will be handled again");
        }
        self.context.shared.enter("closed");
        let closed = self.consumer.close().await;
        if let Err(e) = self.context.dead_letters.close(Duration::from_secs(1)).await {
            // Its record counts as left, and nothing is committed of it.
            tracing::warn!(error = %e.full(), "a dead letter was not acknowledged: it will be written again");
        }
        match failed {
            Some(e) => Err(e),
            None => drained.and(closed).map(|()| left),
        }
    }

    async fn work(&mut self) -> Result<()> {
        let stop = self.stop.clone();
        let mut tick = tokio::time::interval(self.context.config.commit_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = tokio::time::interval(self.context.hangs_after.max(Duration::from_millis(4)) / 4);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let idle = self.commit.is_none();
            let commit = OptionFuture::from(self.commit.as_mut().map(|c| &mut c.outcome));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(error) = self.fatal.recv() => return Err(error),
                Some(outcome) = commit => if let Some(commit) = self.commit.take() { commit.ended(&outcome) },
                Some((_, outcome)) = self.leaving.next() => warn_uncommitted(&outcome),
                _ = tick.tick(), if idle => {
                    let moved = self.context.shared.take_moved();
                    // One that has come back may be listed twice.
                    let moved = moved.iter().filter_map(|tp| self.owned.get_key_value(tp)).filter(|(_, o)| o.state.clear());
                    self.commit = Commit::of(moved, &self.context.shared, self.consumer.committer());
                }
                now = watch.tick() => self.watch(now.into()).await,
                event = self.consumer.recv() => match event {
                    Ok(event) => self.on(event).await,
                    Err(e) if self.consumer.state() == ConsumerState::Closed => return Err(e),
                    // Trouble with one partition, such as a damaged log: the consumer tries again, and it stands still.
                    Err(e) => tracing::error!(error = %e.full(), "records can't be read"),
                },
            }
        }
    }

    /// Names the records that handlers do not come back from. If nothing else ends either, others are to have the partitions:
    /// then what hangs is cancelled, and this member joins the group again.
    async fn watch(&mut self, now: std::time::Instant) {
        let limit = self.context.hangs_after;
        let mut hangs = None;
        for (tp, owned) in &self.owned {
            for Hanging { offset, key, long, is_news } in owned.state.hanging(limit, now) {
                let record = format!("{tp}@{offset}");
                if is_news {
                    let key = key.map(|k| shown(&k));
                    tracing::warn!(
                        group = %self.context.shared.group(), record, key,
                        "a handler has had this record for {long:.1?}: what must come after it waits; REDPANDA_ATTEMPT_TIMEOUT \
                         limits its time"
                    );
                }
                hangs =
                    Some(format!("a handler has had {record} for {long:.1?}, and no other attempt ended meanwhile"));
            }
        }
        let ended = self.context.shared.ended();
        if self.progress.is_none_or(|(before, _)| before != ended) {
            self.progress = Some((ended, now));
        }
        let stands = self.progress.is_some_and(|(_, since)| now.saturating_duration_since(since) >= limit);
        if let Some(why) = hangs.filter(|_| stands) {
            self.progress = None;
            self.consumer.expel(why).await;
        }
    }

    async fn on(&mut self, event: ConsumerEvent) {
        match event {
            ConsumerEvent::Assigned(partitions) => {
                self.context.shared.is_member(self.consumer.member_id(), self.consumer.generation());
                self.context.shared.enter("member");
                self.context.shared.rebalances.fetch_add(1, Ordering::Relaxed);
                if let Some(listener) = &self.context.listener {
                    listener.assigned(&partitions);
                }
                for tp in partitions {
                    self.own(tp).await;
                }
            }
            ConsumerEvent::Records(records) => self.feed(records),
            ConsumerEvent::Revoked(revocation) => self.revoked(revocation),
            ConsumerEvent::Lost(partitions) => self.lost(&partitions),
        }
    }

    fn feed(&mut self, records: Records) {
        if let Some(owned) = self.owned.get(&records.topic_partition()) {
            _ = owned.records.send(records); // its worker ends only when it is given up
        }
    }

    fn revoked(&mut self, revocation: Revocation) {
        let deadline = revocation.deadline.checked_sub(COMMIT_MARGIN).unwrap_or(revocation.deadline).into();
        let partitions = revocation.partitions.clone();
        if let Some(listener) = &self.context.listener {
            listener.revoked(&partitions);
        }
        self.give_up(&partitions, deadline, true, Some(revocation));
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        tracing::warn!(count = partitions.len(), "partitions were lost: their handlers are cancelled");
        if let Some(listener) = &self.context.listener {
            listener.lost(partitions);
        }
        self.give_up(partitions, Instant::now(), false, None);
    }

    async fn own(&mut self, tp: TopicPartition) {
        // A partition that comes back before it was given up: those that handle it now end first.
        if self.owned.contains_key(&tp) {
            self.lost(std::slice::from_ref(&tp));
        }
        while let Some((_, outcome)) = self.leaving.next().await {
            warn_uncommitted(&outcome);
        }
        let state = Arc::new(PartitionState::new());
        let committed = self.consumer.committed_metadata(&tp).map(|at| {
            let epoch = at.leader_epoch.unwrap_or(NO_EPOCH);
            let ended = Ended::decode(&at.metadata, at.offset, epoch).unwrap_or_default();
            state.begins_at(Position { offset: at.offset, leader_epoch: at.leader_epoch, metadata: at.metadata });
            (at.offset, ended)
        });
        let (records, queue) = mpsc::unbounded_channel();
        // A child: when all is to stop, no worker begins another record before the loop has told it.
        let (stop, cut) = (self.stop.child_token(), CancellationToken::new());
        let lanes = Lanes::new(self.context.config.ordering, committed);
        let tokens = (stop.clone(), cut.clone());
        let worker = Worker::new(Arc::clone(&self.context), (tp.clone(), Arc::clone(&state)), lanes, queue, tokens);
        self.context.shared.own(tp.clone(), Arc::clone(&state));
        self.owned.insert(tp, Owned { state, records, stop, cut, task: tokio::spawn(worker.run()) });
    }

    /// Begins to give some partitions up; `revocation` is held until that is done.
    fn give_up(&mut self, all: &[TopicPartition], deadline: Instant, commit: bool, revocation: Option<Revocation>) {
        let partitions: Vec<_> = all.iter().filter_map(|tp| Some((tp.clone(), self.owned.remove(tp)?))).collect();
        all.iter().for_each(|tp| self.context.shared.disown(tp));
        if self.owned.is_empty() {
            self.context.shared.enter("joining");
        }
        let committer = commit.then(|| self.consumer.committer());
        let cut = if commit { self.cut.clone() } else { CancellationToken::new() };
        let leaving = Leaving {
            partitions,
            deadline,
            cut,
            before: self.commit.take(),
            committer,
            shared: Arc::clone(&self.context.shared),
        };
        let finish = async move {
            let ended = leaving.finish().await;
            drop(revocation);
            ended
        };
        self.leaving.push(finish.boxed());
    }

    /// Waits until all are given up, while the group goes on: it may want some of them sooner.
    async fn drained(&mut self) -> (Unfinished, Result<()>) {
        let (mut left, mut outcome, mut revocation) = (Unfinished::default(), Ok(()), None);
        let mut sooner: Option<Instant> = None;
        loop {
            let listening = self.consumer.state() != ConsumerState::Closed;
            let early = OptionFuture::from(sooner.map(tokio::time::sleep_until));
            tokio::select! {
                biased;
                ended = self.leaving.next() => {
                    let Some((more, ended)) = ended else { break };
                    left.partitions.extend(more.partitions);
                    outcome = outcome.and(ended);
                }
                Some(()) = early => {
                    sooner = None;
                    self.cut.cancel();
                }
                event = self.consumer.recv(), if listening => match event {
                    Ok(ConsumerEvent::Revoked(r)) => {
                        sooner = r.deadline.checked_sub(COMMIT_MARGIN).map(Into::into);
                        revocation = Some(r);
                    }
                    Ok(ConsumerEvent::Lost(_)) => self.cut.cancel(),
                    Ok(ConsumerEvent::Assigned(_) | ConsumerEvent::Records(_)) => {}
                    Err(e) => tracing::debug!(error = %e.full(), "while the subscription ends"),
                },
            }
        }
        drop(revocation);
        (left, outcome)
    }
}

fn warn_uncommitted(outcome: &Result<()>) {
    if let Err(e) = outcome {
        tracing::warn!(error = %e.full(), "what ended before the rebalance is not committed: it will be handled again");
    }
}
