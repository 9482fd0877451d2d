//! Commits on behalf of the partitions that were assigned at one time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::commit_queue::Commits;
use crate::cluster::offset_commit::{OffsetAndMetadata, PartitionOffset};
use crate::consumer::command::Command;
use crate::consumer::event::Message;
use crate::consumer::lease::{Lease, Leases};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

/// Maximum length of a string in a request. Brokers allow less: 4,096 bytes by default.
const MAX_METADATA_BYTES: usize = i16::MAX as usize;

/// Handle to the group's task.
#[derive(Debug, Clone)]
pub(in crate::consumer) struct Commands {
    pub(in crate::consumer) group: Arc<str>,
    pub(in crate::consumer) sender: mpsc::Sender<Command>,
    pub(in crate::consumer) commits: Arc<Commits>,
    pub(in crate::consumer) timeout: Duration,
    pub(in crate::consumer) instance_id: Option<String>,
}

/// Commits offsets of the partitions that were assigned when
/// [`Consumer::committer`](crate::Consumer::committer) created it; cheap to clone, for any task.
///
/// A partition that was revoked is not committed by it, even if it is assigned again later;
/// partitions that stayed assigned are.
///
/// ```no_run
/// # async fn example(consumer: ailurus::Consumer) -> ailurus::Result<()> {
/// let committer = consumer.committer();
/// tokio::spawn(async move {
///     committer.commit(&[(ailurus::TopicPartition::new("orders", 0), 42)]).await
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Committer {
    leases: Leases,
    group: Option<Commands>,
}

impl Committer {
    pub(in crate::consumer) fn new(leases: Leases, group: Option<Commands>) -> Self {
        Self { leases, group }
    }

    /// See [`Consumer::commit`](crate::Consumer::commit), also for errors and cancellation.
    pub async fn commit(&self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        self.commit_async(offsets).await
    }

    /// Commits offsets with their leader epochs and metadata.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit), and the coordinator's for metadata that is too long.
    pub async fn commit_with(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        self.begin(offsets.to_vec()).await
    }

    /// Starts a [`commit`](Self::commit) without waiting for it: await the returned handle for its
    /// outcome, or drop it.
    ///
    /// Commits keep their order: a newer one replaces one of the same partitions that is being
    /// retried, so an older offset never overwrites a newer. They are retried for the request
    /// timeout. A revocation, and closing the consumer, wait for those that were started before.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: ailurus::Consumer) -> ailurus::Result<()> {
    /// use ailurus::ConsumerEvent;
    ///
    /// while let ConsumerEvent::Records(batch) = consumer.recv().await? {
    ///     // Handle them; then:
    ///     consumer.committer().commit_async(&[(batch.topic_partition(), batch.next_offset)]);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn commit_async(&self, offsets: &[(TopicPartition, i64)]) -> CommitHandle {
        self.begin(offsets.iter().map(|(p, offset)| (p.clone(), OffsetAndMetadata::new(*offset))).collect())
    }

    /// Starts a commit of a record and all before it in its partition, see
    /// [`commit_async`](Self::commit_async). It counts for the assignment that the record came
    /// with: refused once the partition was revoked, even if it was assigned again.
    pub fn commit_message(&self, message: &Message) -> CommitHandle {
        let partition = TopicPartition { topic: Arc::clone(&message.topic), partition: message.partition };
        let lease = Lease { partition, epoch: message.epoch };
        match self.group() {
            Ok(commands) => {
                let leader_epoch = message.leader_epoch;
                commands.push(vec![(
                    lease,
                    OffsetAndMetadata { leader_epoch, ..OffsetAndMetadata::new(message.offset + 1) },
                )])
            }
            Err(e) => CommitHandle::of(Err(e)),
        }
    }

    fn group(&self) -> Result<&Commands> {
        let what = "nothing can be committed: this consumer reads without a group (subscribe to read with one)";
        self.group.as_ref().ok_or_else(|| Error::new(ErrorKind::GroupMembership, what))
    }

    fn begin(&self, offsets: Vec<PartitionOffset>) -> CommitHandle {
        match self.check(offsets) {
            Ok((_, offsets)) if offsets.is_empty() => CommitHandle::of(Ok(())),
            Ok((commands, offsets)) => commands.push(offsets),
            Err(e) => CommitHandle::of(Err(e)),
        }
    }

    fn check(&self, offsets: Vec<PartitionOffset>) -> Result<(&Commands, Vec<(Lease, OffsetAndMetadata)>)> {
        let commands = self.group()?;
        if let Some((p, at)) = offsets.iter().find(|(_, at)| at.offset < 0) {
            let what = format!("offset {} of {p} can't be committed: offsets are not negative", at.offset);
            return Err(Error::new(ErrorKind::OffsetOutOfRange, what));
        }
        if let Some((p, at)) = offsets.iter().find(|(_, at)| at.metadata.len() > MAX_METADATA_BYTES) {
            let len = at.metadata.len();
            let what = format!(
                "the metadata of {p} has {len} bytes and can't be committed: allowed is up to {MAX_METADATA_BYTES}"
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        let lease = |(p, at): PartitionOffset| {
            let lease = self.leases.of(&p).ok_or_else(|| not_assigned(&p, at.offset, &commands.group))?;
            Ok((lease, at))
        };
        Ok((commands, offsets.into_iter().map(lease).collect::<Result<_>>()?))
    }
}

impl Commands {
    fn push(&self, offsets: Vec<(Lease, OffsetAndMetadata)>) -> CommitHandle {
        let (sender, reply) = oneshot::channel();
        self.commits.push(offsets, Instant::now() + self.timeout, Some(sender));
        CommitHandle { reply }
    }
}

/// A commit in flight, from [`Committer::commit_async`]: a future of its outcome, which comes
/// within the request timeout.
///
/// Dropping it does not stop the commit; a failure is logged then.
///
/// ```no_run
/// # async fn example(consumer: ailurus::Consumer, done: ailurus::TopicPartition) -> ailurus::Result<()> {
/// let commit = consumer.commit_async(&[(done, 42)]);
/// // Something else meanwhile.
/// commit.await
/// # }
/// ```
#[derive(Debug)]
pub struct CommitHandle {
    reply: oneshot::Receiver<Result<()>>,
}

impl CommitHandle {
    fn of(outcome: Result<()>) -> Self {
        let (sender, reply) = oneshot::channel();
        _ = sender.send(outcome); // its receiver is right here
        Self { reply }
    }
}

impl Future for CommitHandle {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let outcome = ready!(Pin::new(&mut self.reply).poll(cx));
        Poll::Ready(outcome.unwrap_or_else(|_| Err(ended())))
    }
}

pub(super) fn ended() -> Error {
    let what = "the consumer has ended before the response to the commit: it may have been made or not";
    Error::new(ErrorKind::Closed, what)
}

pub(super) fn not_assigned(partition: &TopicPartition, offset: i64, group: &str) -> Error {
    let what = format!(
        "offset {offset} of {partition} was not committed: the partition is not, or no longer, assigned to this member of group {group:?}"
    );
    Error::new(ErrorKind::GroupMembership, what)
}
