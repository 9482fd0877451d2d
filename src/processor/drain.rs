//! Drains revoked partitions: handlers finish or are cancelled, handled offsets are committed, the
//! rest is reported.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pauses::PauseReasons;
use super::pipeline::Transactions;
use super::positions::CommitPosition;
use super::state::{PartitionState, SubscriptionState};
use crate::consumer::{Committer, OffsetAndMetadata, Records};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// Maximum time for cancelled handlers to reach an await point.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of partitions that a text names; the others are summed up.
const MAX_LISTED: usize = 5;
/// Maximum time for the commit after handlers were cancelled.
const CANCELLED_COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Fetched records that a shutdown left unfinished: none is committed, the next owner handles all
/// of them.
///
/// ```
/// # async fn example(subscription: ailurus::Subscription) -> ailurus::Result<()> {
/// let left = subscription.shutdown().await?;
/// if !left.is_empty() {
///     eprintln!("{left}"); // orders/3: 1 cancelled, 0 awaiting retry, 17 queued
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// Partitions with unfinished records.
    pub partitions: Vec<UnfinishedPartition>,
}

/// Unfinished records of one partition.
///
/// See [`Unfinished`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnfinishedPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Number of records whose handler was cancelled.
    pub cancelled: usize,
    /// Number of records that had failed and awaited a retry, or that their dead letter was
    /// written.
    pub awaiting_retry: usize,
    /// Number of records that were fetched and not started.
    pub queued: usize,
}

impl Unfinished {
    /// Returns whether nothing was left.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }
}

/// Names the first few partitions, and sums up the others.
impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.partitions.iter().take(MAX_LISTED).enumerate() {
            let (separator, UnfinishedPartition { topic, partition, cancelled, awaiting_retry, queued }) =
                (if i == 0 { "" } else { "; " }, p);
            write!(
                f,
                "{separator}{topic}/{partition}: {cancelled} cancelled, {awaiting_retry} awaiting retry, {queued} queued"
            )?;
        }
        match self.partitions.len() {
            0 => f.write_str("nothing was left"),
            all if all > MAX_LISTED => {
                let sum = |count: fn(&UnfinishedPartition) -> usize| {
                    self.partitions.iter().skip(MAX_LISTED).map(count).sum::<usize>()
                };
                let (cancelled, awaiting_retry) = (sum(|p| p.cancelled), sum(|p| p.awaiting_retry));
                write!(
                    f,
                    "; and in {} more partitions: {cancelled} cancelled, {awaiting_retry} awaiting retry, {} queued",
                    all - MAX_LISTED,
                    sum(|p| p.queued)
                )
            }
            _ => Ok(()),
        }
    }
}

/// An assigned partition and its worker.
pub(super) struct OwnedPartition {
    pub(super) state: Arc<PartitionState>,
    /// Records, and the number of seeks before they were fetched.
    pub(super) records: mpsc::UnboundedSender<(u64, Records)>,
    /// Cancelled to start no more records.
    pub(super) stop: CancellationToken,
    /// Cancelled to cancel the handlers in flight.
    pub(super) cancel: CancellationToken,
    /// True if its consumer does not fetch it.
    pub(super) is_fetch_paused: bool,
    /// The reasons to be paused that metrics have.
    pub(super) reported_pauses: PauseReasons,
    pub(super) task: JoinHandle<()>,
}

impl Drop for OwnedPartition {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A commit in flight.
pub(super) struct PendingCommit {
    shared: Arc<SubscriptionState>,
    positions: Vec<(TopicPartition, Arc<PartitionState>, CommitPosition)>,
    pub(super) outcome: BoxFuture<'static, Result<()>>,
}

impl PendingCommit {
    /// Starts a commit of the uncommitted positions of these partitions; `None` if there are none.
    pub(super) fn for_partitions<'a>(
        partitions: impl Iterator<Item = (&'a TopicPartition, &'a OwnedPartition)>,
        shared: &Arc<SubscriptionState>,
        committer: Committer,
    ) -> Option<Self> {
        let (mut positions, mut offsets) = (Vec::new(), Vec::new());
        for (tp, owned) in partitions {
            if let Some(position) = owned.state.uncommitted() {
                let mut offset = OffsetAndMetadata::new(position.offset).with_metadata(position.metadata.clone());
                offset.leader_epoch = position.leader_epoch;
                offsets.push((tp.clone(), offset));
                positions.push((tp.clone(), Arc::clone(&owned.state), position));
            }
        }
        if positions.is_empty() {
            return None;
        }
        let outcome = Box::pin(async move { committer.commit_with(&offsets).await });
        Some(Self { shared: Arc::clone(shared), positions, outcome })
    }

    /// Handles the outcome. Positions that could not be committed are part of the next commit,
    /// unless they are revoked before.
    pub(super) fn on_done(self, outcome: &Result<()>) {
        match outcome {
            Ok(()) => self.positions.into_iter().for_each(|(_, state, position)| state.set_committed(position)),
            Err(e) => {
                self.positions.iter().for_each(|(tp, state, _)| self.shared.mark_moved(tp, state));
                tracing::warn!(error = %e.full(), "handled offsets could not be committed yet");
            }
        }
    }

    async fn finish(mut self) -> Result<()> {
        let outcome = (&mut self.outcome).await;
        self.on_done(&outcome);
        outcome
    }
}

/// Revoked or lost partitions that are drained.
pub(super) struct Drain {
    pub(super) partitions: Vec<(TopicPartition, OwnedPartition)>,
    /// Deadline for handlers in flight.
    pub(super) deadline: Instant,
    /// Cancelled to cancel them before the deadline.
    pub(super) cancel: CancellationToken,
    /// A commit that was in flight before the drain.
    pub(super) earlier_commit: Option<PendingCommit>,
    /// `None` if the partitions are lost, and nothing may be committed.
    pub(super) committer: Option<Committer>,
    /// In a pipeline, what commits instead, and until when.
    pub(super) transactions: Option<(Arc<Transactions>, Instant)>,
    pub(super) shared: Arc<SubscriptionState>,
}

impl Drain {
    /// Drains and commits; returns what is unfinished.
    pub(super) async fn finish(mut self) -> (Unfinished, Result<()>) {
        self.partitions.iter().for_each(|(_, owned)| owned.stop.cancel());
        let drained = join_all(self.partitions.iter_mut().map(|(_, owned)| &mut owned.task));
        let in_time = tokio::select! {
            biased;
            _ = drained => true,
            () = self.cancel.cancelled() => false,
            () = tokio::time::sleep_until(self.deadline) => false,
        };
        // A handler that finishes at the deadline has one of two outcomes. Its worker alone decides
        // which, and this task reads counts and positions only after the worker has stopped:
        // 1. the worker sees the finished task before `cancel`: the record is completed, `publish`
        //    sets a position behind it, and `commit` below commits that.
        // 2. the worker sees `cancel` first (its select is biased): it leaves the record in
        //    `counts.in_flight` and drops the finished outcome. The position stays before the
        //    record, which the next owner handles again.
        if !in_time {
            self.cancel_handlers().await;
        }
        let unfinished = self.unfinished();
        let cancel = self.cancel.clone();
        let too_late = async {
            cancel.cancelled().await;
            tokio::time::sleep(CANCELLED_COMMIT_TIMEOUT).await;
        };
        let outcome = tokio::select! {
            biased;
            outcome = self.commit() => outcome,
            () = too_late => {
                let what = format!("offsets of handled records could not be committed within {CANCELLED_COMMIT_TIMEOUT:?}: the records will be handled again");
                Err(Error::new(ErrorKind::Timeout, what))
            }
        };
        if let Some((transactions, _)) = &self.transactions {
            transactions.remove(self.partitions.iter().map(|(tp, _)| tp));
        }
        (unfinished, outcome)
    }

    async fn commit(&mut self) -> Result<()> {
        if let Some(earlier) = self.earlier_commit.take() {
            _ = earlier.finish().await; // what it could not commit is in the next one
        }
        let Some(committer) = self.committer.take() else { return Ok(()) };
        if let Some((transactions, deadline)) = &self.transactions {
            return transactions.flush(self.partitions.iter().map(|(tp, _)| tp), *deadline).await;
        }
        match PendingCommit::for_partitions(
            self.partitions.iter().map(|(tp, owned)| (tp, owned)),
            &self.shared,
            committer,
        ) {
            Some(commit) => commit.finish().await,
            None => Ok(()),
        }
    }

    async fn cancel_handlers(&mut self) {
        self.partitions.iter().for_each(|(_, owned)| owned.cancel.cancel());
        let deadline = Instant::now() + CANCEL_TIMEOUT;
        for (tp, owned) in &mut self.partitions {
            if !owned.task.is_finished() && tokio::time::timeout_at(deadline, &mut owned.task).await.is_err() {
                tracing::error!(partition = %tp, "a handler blocks its thread and can't be cancelled: its record will be handled again");
            }
        }
    }

    fn unfinished(&self) -> Unfinished {
        let mut unfinished = Unfinished::default();
        for (tp, owned) in &self.partitions {
            let counts = &owned.state.counts;
            let p = UnfinishedPartition {
                topic: tp.topic.to_string(),
                partition: tp.partition,
                cancelled: counts.in_flight.load(Ordering::Relaxed),
                awaiting_retry: counts.parked.load(Ordering::Relaxed),
                queued: counts.waiting.load(Ordering::Relaxed),
            };
            if p.cancelled + p.awaiting_retry + p.queued > 0 {
                unfinished.partitions.push(p);
            }
        }
        let mut cancelled = unfinished.clone();
        cancelled.partitions.retain(|p| p.cancelled > 0);
        if !cancelled.is_empty() {
            tracing::warn!(left = %cancelled, "handlers did not finish in time and were cancelled: their records will be handled again");
        }
        unfinished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_partitions_are_displayed_in_one_bounded_line() {
        let partition = |partition| UnfinishedPartition {
            topic: "t".into(),
            partition,
            cancelled: 1,
            awaiting_retry: 2,
            queued: 3,
        };
        let left = |count| Unfinished { partitions: (0..count).map(partition).collect() }.to_string();
        assert_eq!(left(0), "nothing was left");
        assert_eq!(left(1), "t/0: 1 cancelled, 2 awaiting retry, 3 queued");
        assert!(left(5).ends_with("; t/4: 1 cancelled, 2 awaiting retry, 3 queued"));
        let many = left(1000);
        assert!(
            many.ends_with("; and in 995 more partitions: 995 cancelled, 1990 awaiting retry, 2985 queued"),
            "{many}"
        );
        assert!(many.len() < 400, "{many}");
    }
}
