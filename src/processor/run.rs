//! The loop of a subscription: it takes the consumer's events, feeds the workers, commits what has ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, OptionFuture};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::dead_letter::DeadLetters;
use super::handler::Call;
use super::state::{Progress, SubscriptionState};
use super::worker::{Context, Worker};
use crate::config::ProcessorConfig;
use crate::consumer::{Consumer, ConsumerEvent, ConsumerState, Records};
use crate::error::{Error, Result};
use crate::record::TopicPartition;

/// What a revoke leaves for the commit, out of the time until the partitions are given up.
const COMMIT_MARGIN: Duration = Duration::from_millis(500);

/// A partition that is owned.
struct Owned {
    progress: Arc<Progress>,
    records: mpsc::UnboundedSender<Records>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Offsets = Vec<(TopicPartition, i64)>;

/// A commit under way.
struct Commit {
    offsets: Vec<(Arc<Progress>, i64)>,
    outcome: BoxFuture<'static, Result<()>>,
}

impl Commit {
    /// Notes what came of it. What failed is tried again with the next commit, unless a rebalance ends it.
    fn ended(self, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.offsets.iter().for_each(|(progress, offset)| progress.committed(*offset)),
            Err(e) => tracing::warn!(error = %e.full(), "handled offsets could not be committed yet"),
        }
    }
}

pub(super) struct Run {
    consumer: Consumer,
    context: Arc<Context>,
    owned: HashMap<TopicPartition, Owned>,
    commit: Option<Commit>,
    stop: CancellationToken,
    fatal: mpsc::Receiver<Error>,
}

impl Run {
    pub(super) fn new(
        consumer: Consumer,
        handler: Arc<Call>,
        dead_letters: DeadLetters,
        config: ProcessorConfig,
        shared: Arc<SubscriptionState>,
        stop: CancellationToken,
    ) -> Self {
        let (tell, fatal) = mpsc::channel(1);
        let context = Arc::new(Context { handler, dead_letters, config, shared, fatal: tell });
        Self { consumer, context, owned: HashMap::new(), commit: None, stop, fatal }
    }

    /// Runs until it is told to stop or until the consumer has failed for good; then ends in good order.
    pub(super) async fn finish(mut self) -> Result<()> {
        let failed = self.work().await.err();
        let deadline = Instant::now() + self.context.config.shutdown_timeout;
        let mut all: Vec<_> = self.owned.keys().cloned().collect();
        all.sort();
        let drained = self.give_up(&all, deadline, true).await;
        self.context.shared.enter("closed");
        let closed = self.consumer.close().await;
        let dead_letters = self.context.dead_letters.close(Duration::from_secs(1)).await;
        match failed {
            Some(e) => Err(e),
            None => drained.and(closed).and(dead_letters),
        }
    }

    async fn work(&mut self) -> Result<()> {
        let stop = self.stop.clone();
        let mut tick = tokio::time::interval(self.context.config.commit_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let idle = self.commit.is_none();
            let commit = OptionFuture::from(self.commit.as_mut().map(|c| &mut c.outcome));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(error) = self.fatal.recv() => return Err(error),
                Some(outcome) = commit => if let Some(commit) = self.commit.take() { commit.ended(outcome) },
                _ = tick.tick(), if idle => self.begin_commit(),
                event = self.consumer.recv() => match event {
                    Ok(event) => self.on(event).await,
                    Err(e) if self.consumer.state() == ConsumerState::Closed => return Err(e),
                    // Trouble with one partition, such as a damaged log: the consumer tries again, and it stands still.
                    Err(e) => tracing::error!(error = %e.full(), "records can't be read"),
                },
            }
        }
    }

    async fn on(&mut self, event: ConsumerEvent) {
        match event {
            ConsumerEvent::Assigned(partitions) => {
                self.context.shared.enter("member");
                self.context.shared.rebalances.fetch_add(1, Ordering::Relaxed);
                partitions.into_iter().for_each(|tp| self.own(tp));
            }
            ConsumerEvent::Records(records) => {
                let tp = TopicPartition { topic: Arc::clone(&records.topic), partition: records.partition };
                if let Some(owned) = self.owned.get(&tp) {
                    _ = owned.records.send(records); // its worker ends only when it is given up
                }
            }
            ConsumerEvent::Revoked(revocation) => {
                let deadline = revocation.deadline.checked_sub(COMMIT_MARGIN).unwrap_or(revocation.deadline);
                if let Err(e) = self.give_up(&revocation.partitions, deadline.into(), true).await {
                    tracing::warn!(error = %e.full(), "what ended before the rebalance is not committed: it will be handled again");
                }
                self.context.shared.enter("joining");
                drop(revocation);
            }
            ConsumerEvent::Lost(partitions) => {
                tracing::warn!(count = partitions.len(), "partitions were lost: their handlers are cancelled");
                _ = self.give_up(&partitions, Instant::now(), false).await;
                self.context.shared.enter("joining");
            }
        }
    }

    fn own(&mut self, tp: TopicPartition) {
        let progress = Arc::new(Progress::new());
        let (records, queue) = mpsc::unbounded_channel();
        // A child: when all is to stop, no worker begins another record before the loop has told it.
        let stop = self.stop.child_token();
        let worker = Worker {
            context: Arc::clone(&self.context),
            progress: Arc::clone(&progress),
            records: queue,
            stop: stop.clone(),
        };
        let task = tokio::spawn(worker.run());
        self.context.shared.own(tp.clone(), Arc::clone(&progress));
        self.owned.insert(tp, Owned { progress, records, stop, task });
    }

    /// Lets the workers of some partitions finish the record in hand until `deadline`, cancels those that do not, commits what
    /// ended (if that is still allowed), and forgets them.
    async fn give_up(&mut self, partitions: &[TopicPartition], deadline: Instant, commit: bool) -> Result<()> {
        let mut leaving: Vec<_> =
            partitions.iter().filter_map(|tp| Some((tp.clone(), self.owned.remove(tp)?))).collect();
        leaving.iter().for_each(|(_, o)| o.stop.cancel());
        for (tp, owned) in &mut leaving {
            if tokio::time::timeout_at(deadline, &mut owned.task).await.is_err() {
                owned.task.abort();
                _ = (&mut owned.task).await;
                if commit {
                    tracing::warn!(partition = %tp, "a handler did not finish in time and was cancelled: its record will be handled again");
                }
            }
            self.context.shared.disown(tp);
        }
        if let Some(mut under_way) = self.commit.take() {
            let outcome = (&mut under_way.outcome).await;
            under_way.ended(outcome);
        }
        if !commit {
            return Ok(());
        }
        let offsets: Offsets =
            leaving.iter().filter_map(|(tp, o)| Some((tp.clone(), o.progress.uncommitted()?))).collect();
        if offsets.is_empty() { Ok(()) } else { self.consumer.commit(&offsets).await }
    }

    fn begin_commit(&mut self) {
        let (mut asked, mut offsets) = (Offsets::new(), Vec::new());
        for (tp, owned) in &self.owned {
            if let Some(offset) = owned.progress.uncommitted() {
                asked.push((tp.clone(), offset));
                offsets.push((Arc::clone(&owned.progress), offset));
            }
        }
        if !asked.is_empty() {
            let committer = self.consumer.committer();
            let outcome = async move { committer.commit(&asked).await }.boxed();
            self.commit = Some(Commit { offsets, outcome });
        }
    }
}
