//! A consumer: the handle that an application reads and commits with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::command::Command;
use super::event::{ConsumerEvent, Records};
use super::event_queue::EventQueue;
use super::fetch::tasks::{FetchState, Fetcher};
use super::group_metadata::group_metadata;
use super::lease::Lease;
use super::offsets::committer::{Commands, CommitHandle, Committer};
use super::running::RunningConsumer;
use super::status::{ConsumerState, Problem, Status};
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::cluster::{Client, ConsumerGroupMetadata, Pin};
use crate::config::IsolationLevel;
use crate::error::Result;
use crate::record::TopicPartition;

/// Maximum time that `close` waits for the group's task, which itself limits leaving to 5 s.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads partitions, alone or as a member of a group.
///
/// ```no_run
/// # async fn example() -> ailurus::Result<()> {
/// use ailurus::{Client, Config, Consumer, ConsumerEvent};
///
/// let client = Client::connect(Config::from_env()?).await?;
/// let mut consumer = client.consumer("billing").subscribe(["orders"]).await?;
/// loop {
///     match consumer.recv().await? {
///         ConsumerEvent::Records(batch) => {
///             for record in &batch.records {
///                 println!("{:?}", record.value);
///             }
///             consumer.commit(&[(batch.topic_partition(), batch.next_offset)]).await?;
///             if batch.lag() == 0 {
///                 break;
///             }
///         }
///         // Everything was committed as it was handled: dropping a revocation lets the group go on.
///         other => println!("{other:?}"),
///     }
/// }
/// consumer.close().await
/// # }
/// ```
///
/// Records are read once all in-sync replicas have them, including those of open and aborted
/// transactions unless [`isolation_level`](crate::ConsumerConfig::isolation_level) is `ReadCommitted`.
///
/// Dropping it without [`close`](Self::close) ends its tasks without leaving the group: other members
/// get its partitions when its session expires.
#[must_use = "dropping a consumer leaves its partitions without an owner until its session expires: keep it, and `close` it"]
#[derive(Debug)]
pub struct Consumer {
    pub(super) client: Client,
    pub(super) isolation_level: IsolationLevel,
    pub(super) group: Option<Commands>,
    pub(super) events: Arc<EventQueue>,
    pub(super) status: Arc<Status>,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
    /// Fetch tasks of a consumer without a group.
    pub(super) fetcher: Option<Fetcher>,
    /// Fetch state, to seek and to pause.
    pub(super) fetch_state: Option<Arc<FetchState>>,
    /// Offsets after the records returned last, where the next poll counts them as handled.
    pub(super) delivered: Option<Vec<(Lease, OffsetAndMetadata)>>,
    /// Entry in the health of the client.
    pub(super) running: Option<Arc<RunningConsumer>>,
    /// Keeps the metadata of its topics fresh.
    pub(super) _topics_in_use: Vec<Pin>,
}

impl Consumer {
    /// Counts the records returned last as handled, since the application polls again.
    pub(super) fn mark_delivered_handled(&mut self) {
        for (lease, offset) in self.delivered.iter_mut().flat_map(|delivered| delivered.drain(..)) {
            self.events.mark_handled(lease, offset);
        }
    }

    pub(super) fn on_delivered(&mut self, records: &Records) {
        if let Some(delivered) = &mut self.delivered {
            delivered.push(records.handled(records.next_offset));
        }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// An error of a single partition is returned once, and fetching it is retried until it works:
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) for records that can't be decoded (nothing is skipped),
    /// [`ErrorKind::UnknownTopic`](crate::ErrorKind::UnknownTopic), [`ErrorKind::Authorization`](crate::ErrorKind::Authorization) and others that name the partition.
    /// [`ErrorKind::OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange) where [`offset_reset`](crate::ConsumerConfig::offset_reset) is none:
    /// the partition is not read before [`seek`](Self::seek). An error after which
    /// [`state`](Self::state) is [`ConsumerState::Closed`] has ended the consumer, and every further
    /// call returns it again.
    ///
    /// # Cancellation
    /// Safe: an event that was not returned is returned by the next call.
    pub async fn recv(&mut self) -> Result<ConsumerEvent> {
        self.mark_delivered_handled();
        let events = Arc::clone(&self.events);
        let _polling = events.start_poll();
        loop {
            match self.events.pop() {
                Some(Ok(ConsumerEvent::Records(records))) => {
                    self.on_delivered(&records);
                    return Ok(ConsumerEvent::Records(records));
                }
                Some(event) => return event,
                None => self.events.ready().await,
            }
        }
    }

    /// Commits, for each partition, the offset of the next record to handle, with the leader epoch
    /// of the record before it if [`recv`](Self::recv) returned that last (KIP-320). Retried for
    /// the request timeout while the coordinator moves or loads.
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`](crate::ErrorKind::GroupMembership) if a partition is not, or no longer, assigned: no offset is
    /// committed then, or another member has the partition by now. [`ErrorKind::Timeout`](crate::ErrorKind::Timeout): the offsets
    /// may have been committed or not. Otherwise the error of the coordinator.
    ///
    /// # Cancellation
    /// The offsets may be committed or not.
    pub async fn commit(&self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        let with_epoch = |(p, offset): &(TopicPartition, i64)| {
            let leader_epoch = self.events.leader_epoch(p, *offset);
            (p.clone(), OffsetAndMetadata { leader_epoch, ..OffsetAndMetadata::new(*offset) })
        };
        self.commit_with(&offsets.iter().map(with_epoch).collect::<Vec<_>>()).await
    }

    /// Starts a commit without waiting for it: see [`Committer::commit_async`].
    pub fn commit_async(&self, offsets: &[(TopicPartition, i64)]) -> CommitHandle {
        self.committer().commit_async(offsets)
    }

    /// Returns a handle to commit from other tasks, for the partitions that [`recv`](Self::recv)
    /// has reported as assigned.
    pub fn committer(&self) -> Committer {
        Committer::new(self.events.reported(), self.group.clone())
    }

    /// Returns its place in the group, to commit offsets of the partitions that
    /// [`recv`](Self::recv) has reported as assigned in a transaction:
    /// [`Transaction::send_offsets`](crate::Transaction::send_offsets).
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`](crate::ErrorKind::GroupMembership) for a consumer without a
    /// group.
    pub fn group_metadata(&self) -> Result<ConsumerGroupMetadata> {
        group_metadata(self.group.as_ref(), self.events.reported(), &self.status)
    }

    /// Returns the offset after the records of a partition that [`recv`](Self::recv) has returned,
    /// or where its first fetch starts; none if that is not known yet or the partition is not
    /// assigned.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.events.position(partition)
    }

    /// Commits offsets with their leader epochs and metadata.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit), and the coordinator's for metadata that is too long.
    ///
    /// # Cancellation
    /// The offsets may be committed or not.
    pub async fn commit_with(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        self.committer().commit_with(offsets).await
    }

    /// Returns the committed offset of an assigned partition, as far as this member knows.
    pub fn committed(&self, partition: &TopicPartition) -> Option<i64> {
        self.status.committed_offset(partition).map(|at| at.offset)
    }

    /// Returns the committed offset of an assigned partition with its metadata and leader epoch,
    /// whichever member committed it.
    pub fn committed_metadata(&self, partition: &TopicPartition) -> Option<OffsetAndMetadata> {
        self.status.committed_offset(partition)
    }

    /// Returns the assigned partitions. [`recv`](Self::recv) may not have reported them yet.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.status.assignment()
    }

    pub(crate) fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Returns what this consumer waits for now: a leader that can't be reached, a partition
    /// without one, a group that can't be joined. Empty while all is well. None of them ends the
    /// consumer: each is retried until it works.
    pub fn problems(&self) -> Vec<Problem> {
        self.status.problems()
    }

    /// Returns the state of the membership.
    pub fn state(&self) -> ConsumerState {
        self.status.state()
    }

    /// Returns the member id in the group, once it has joined.
    pub fn member_id(&self) -> Option<String> {
        self.status.member_id()
    }

    /// Returns the generation of the group in which the partitions are assigned.
    pub fn generation(&self) -> Option<i32> {
        self.status.generation()
    }

    /// Returns the group.
    pub fn group(&self) -> Option<&str> {
        self.group.as_ref().map(|g| &*g.group)
    }

    /// Leaves the group, so that its partitions go to other members at once, and ends all tasks.
    /// Commit before: records that were handled and not committed are handled again.
    ///
    /// # Errors
    /// If the coordinator was not reached within 5 s: the other members get the partitions after the
    /// session timeout. The tasks have ended nevertheless.
    ///
    /// # Cancellation
    /// The tasks end as on drop, and the group may not be left.
    pub async fn close(mut self) -> Result<()> {
        let mut outcome = Ok(());
        self.running = None; // its end is no problem of the client
        self.mark_delivered_handled();
        if let Some(commands) = self.group.take() {
            let (reply, replied) = oneshot::channel();
            // A task that has ended has left the group.
            if commands.sender.send(Command::Leave(reply)).await.is_ok() {
                if let Ok(Ok(left)) = tokio::time::timeout(CLOSE_TIMEOUT, replied).await {
                    outcome = left;
                }
            }
        }
        self.end().await;
        outcome
    }

    /// Leaves the group until the next poll, at once if one is in progress: all partitions are
    /// [lost](ConsumerEvent::Lost) and go to other members. For a handler that hangs.
    pub(crate) async fn leave_temporarily(&self, why: String) {
        if let Some(commands) = &self.group {
            _ = commands.sender.send(Command::LeaveTemporarily(why)).await; // a task that has ended has left the group
        }
    }

    /// Subscribes to these topics instead; a rebalance assigns their partitions. Those of
    /// `new_topics` that have no committed offset are read from their beginning, whatever
    /// `offset_reset` says: they were created after the subscription.
    pub(crate) async fn set_topics(&mut self, topics: BTreeSet<String>, new_topics: BTreeSet<String>) {
        let cluster = self.client.cluster();
        self._topics_in_use = topics.iter().map(|topic| cluster.pin(&topic.as_str().into())).collect();
        if let Some(commands) = &self.group {
            _ = commands.sender.send(Command::SetTopics { topics, new_topics }).await; // a task that has ended has left the group
        }
    }

    /// Ends all tasks at once, as a crash would: the group is not left.
    pub async fn abort(mut self) {
        self.group = None;
        self.end().await;
    }

    async fn end(&mut self) {
        self.cancel.cancel();
        self.fetcher = None;
        self.tasks.close();
        self.tasks.wait().await;
        self.status.closed();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.status.closed();
        if let Some(commands) = &self.group {
            tracing::warn!(
                group = %commands.group,
                "a consumer was dropped without close: its partitions stay without an owner until its session expires"
            );
        }
    }
}
