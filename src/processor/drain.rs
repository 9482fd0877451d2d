//! Giving partitions up: what is in hand is finished or cancelled, what ended is committed, and what was left is told.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::state::{PartitionState, Position, SubscriptionState};
use crate::consumer::{Committer, OffsetAndMetadata, Records};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// How long handlers that were cancelled may take to reach an await point.
const CANCEL: Duration = Duration::from_secs(1);
/// Partitions that a text names; a count stands for the others.
const SHOWN: usize = 5;
/// How long a commit may take when the end is cut short.
const CUT_COMMIT: Duration = Duration::from_secs(5);

/// What a shutdown left of what was fetched: none of it is committed, all of it will be handled by the next owner.
///
/// ```
/// # async fn example(subscription: ailurus::Subscription) -> ailurus::Result<()> {
/// let left = subscription.shutdown().await?;
/// if !left.is_empty() {
///     eprintln!("{left}"); // orders/3: 1 in hand cancelled, 0 parked, 17 not begun
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// Partitions of which something was left.
    pub partitions: Vec<PartitionLeftOver>,
}

/// What was left of one partition.
///
/// See [`Unfinished`] for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionLeftOver {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Records whose handler was cancelled.
    pub cancelled: usize,
    /// Records that had failed and waited for another attempt, or for their dead letter to be written.
    pub parked: usize,
    /// Records that were fetched and not begun.
    pub not_begun: usize,
}

impl Unfinished {
    /// Whether nothing was left.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }
}

/// The first few partitions, and what was left in all others together.
impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.partitions.iter().take(SHOWN).enumerate() {
            let (separator, PartitionLeftOver { topic, partition, cancelled, parked, not_begun }) =
                (if i == 0 { "" } else { "; " }, p);
            write!(
                f,
                "{separator}{topic}/{partition}: {cancelled} in hand cancelled, {parked} parked, {not_begun} not begun"
            )?;
        }
        match self.partitions.len() {
            0 => f.write_str("nothing was left"),
            all if all > SHOWN => {
                let of_more = |count: fn(&PartitionLeftOver) -> usize| {
                    self.partitions.iter().skip(SHOWN).map(count).sum::<usize>()
                };
                let (cancelled, parked) = (of_more(|p| p.cancelled), of_more(|p| p.parked));
                write!(
                    f,
                    "; and in {} more partitions: {cancelled} in hand cancelled, {parked} parked, {} not begun",
                    all - SHOWN,
                    of_more(|p| p.not_begun)
                )
            }
            _ => Ok(()),
        }
    }
}

/// A partition that is owned.
pub(super) struct Owned {
    pub(super) state: Arc<PartitionState>,
    pub(super) records: mpsc::UnboundedSender<Records>,
    pub(super) stop: CancellationToken,
    pub(super) cut: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A commit under way.
pub(super) struct Commit {
    shared: Arc<SubscriptionState>,
    positions: Vec<(TopicPartition, Arc<PartitionState>, Position)>,
    pub(super) outcome: BoxFuture<'static, Result<()>>,
}

impl Commit {
    /// What of these partitions can be committed and is not.
    pub(super) fn of<'a>(
        partitions: impl Iterator<Item = (&'a TopicPartition, &'a Owned)>,
        shared: &Arc<SubscriptionState>,
        committer: Committer,
    ) -> Option<Self> {
        let (mut positions, mut asked) = (Vec::new(), Vec::new());
        for (tp, owned) in partitions {
            if let Some(position) = owned.state.uncommitted() {
                let mut offset = OffsetAndMetadata::new(position.offset).with_metadata(position.metadata.clone());
                offset.leader_epoch = position.leader_epoch;
                asked.push((tp.clone(), offset));
                positions.push((tp.clone(), Arc::clone(&owned.state), position));
            }
        }
        if positions.is_empty() {
            return None;
        }
        let outcome = Box::pin(async move { committer.commit_with(&asked).await });
        Some(Self { shared: Arc::clone(shared), positions, outcome })
    }

    /// Notes what came of it. What failed is tried again with the next commit, unless a rebalance ends it.
    pub(super) fn ended(self, outcome: &Result<()>) {
        match outcome {
            Ok(()) => self.positions.into_iter().for_each(|(_, state, position)| state.committed(position)),
            Err(e) => {
                self.positions.iter().for_each(|(tp, state, _)| self.shared.has_moved(tp, state));
                tracing::warn!(error = %e.full(), "handled offsets could not be committed yet");
            }
        }
    }

    async fn finish(mut self) -> Result<()> {
        let outcome = (&mut self.outcome).await;
        self.ended(&outcome);
        outcome
    }
}

/// Partitions that are being given up.
pub(super) struct Leaving {
    pub(super) partitions: Vec<(TopicPartition, Owned)>,
    /// Until when handlers may finish.
    pub(super) deadline: Instant,
    /// Cuts that short.
    pub(super) cut: CancellationToken,
    /// A commit that began before.
    pub(super) before: Option<Commit>,
    /// None where nothing may be committed any more.
    pub(super) committer: Option<Committer>,
    pub(super) shared: Arc<SubscriptionState>,
}

impl Leaving {
    /// Drains and commits; tells what was left.
    pub(super) async fn finish(mut self) -> (Unfinished, Result<()>) {
        self.partitions.iter().for_each(|(_, owned)| owned.stop.cancel());
        let drained = join_all(self.partitions.iter_mut().map(|(_, owned)| &mut owned.task));
        let in_time = tokio::select! {
            biased;
            _ = drained => true,
            () = self.cut.cancelled() => false,
            () = tokio::time::sleep_until(self.deadline) => false,
        };
        if !in_time {
            self.cancel().await;
        }
        let left = self.left();
        let cut = self.cut.clone();
        let too_late = async {
            cut.cancelled().await;
            tokio::time::sleep(CUT_COMMIT).await;
        };
        let outcome = tokio::select! {
            biased;
            outcome = self.commit() => outcome,
            () = too_late => {
                let what = format!("what ended could not be committed within {CUT_COMMIT:?}: it will be handled again");
                Err(Error::new(ErrorKind::Timeout, what))
            }
        };
        (left, outcome)
    }

    async fn commit(&mut self) -> Result<()> {
        if let Some(before) = self.before.take() {
            _ = before.finish().await; // what it could not commit is in the next
        }
        let Some(committer) = self.committer.take() else { return Ok(()) };
        match Commit::of(self.partitions.iter().map(|(tp, owned)| (tp, owned)), &self.shared, committer) {
            Some(commit) => commit.finish().await,
            None => Ok(()),
        }
    }

    async fn cancel(&mut self) {
        self.partitions.iter().for_each(|(_, owned)| owned.cut.cancel());
        let deadline = Instant::now() + CANCEL;
        for (tp, owned) in &mut self.partitions {
            if !owned.task.is_finished() && tokio::time::timeout_at(deadline, &mut owned.task).await.is_err() {
                tracing::error!(partition = %tp, "a handler blocks its thread and can't be cancelled: its record will be handled again");
            }
        }
    }

    fn left(&self) -> Unfinished {
        let mut left = Unfinished::default();
        for (tp, owned) in &self.partitions {
            let counts = &owned.state.counts;
            let p = PartitionLeftOver {
                topic: tp.topic.to_string(),
                partition: tp.partition,
                cancelled: counts.in_flight.load(Ordering::Relaxed),
                parked: counts.parked.load(Ordering::Relaxed),
                not_begun: counts.waiting.load(Ordering::Relaxed),
            };
            if p.cancelled + p.parked + p.not_begun > 0 {
                left.partitions.push(p);
            }
        }
        let mut of = left.clone();
        of.partitions.retain(|p| p.cancelled > 0);
        if !of.is_empty() {
            tracing::warn!(left = %of, "handlers did not finish in time and were cancelled: their records will be handled again");
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_is_told_in_a_line_of_some_partitions_however_many_there_are() {
        let of = |partition| PartitionLeftOver { topic: "t".into(), partition, cancelled: 1, parked: 2, not_begun: 3 };
        let left = |count| Unfinished { partitions: (0..count).map(of).collect() }.to_string();
        assert_eq!(left(0), "nothing was left");
        assert_eq!(left(1), "t/0: 1 in hand cancelled, 2 parked, 3 not begun");
        assert!(left(5).ends_with("; t/4: 1 in hand cancelled, 2 parked, 3 not begun"));
        let many = left(1000);
        assert!(
            many.ends_with("; and in 995 more partitions: 995 in hand cancelled, 1990 parked, 2985 not begun"),
            "{many}"
        );
        assert!(many.len() < 400, "{many}");
    }
}
