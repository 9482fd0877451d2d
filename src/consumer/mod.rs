//! Reads partitions, alone or as a member of a group.
//!
//! A [`Consumer`] is told of everything by [`recv`](Consumer::recv): which partitions it has, which it is about to lose, and
//! their records. Behind it work tasks of its own: one that keeps the membership (`group`, whose `coordinator_task` drives the
//! state machine of a `member`), and per broker one that fetches all partitions it leads in one request (`fetch`, whose `tasks` follow the
//! `planner`). What they have for the application waits in the `event_queue`; commits wait in `offsets`.
//!
//! Each partition that is assigned comes under a `lease`, a number that ends when the partition is given up. Records, start
//! offsets and commits carry it, and what is of another lease than the present one is dropped or refused, so that nothing of a
//! partition that went to another member is delivered or committed, while those that stay are read on.

mod builder;
mod command;
mod event;
mod event_queue;
mod fetch;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod group;
mod lease;
mod memory;
mod metrics;
mod offsets;
mod outlook;
mod running;
mod seek;
mod starting;
mod status;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::assignor::{Assignments, Assignor, GroupMember, RebalanceProtocol, TopicLayout, Topics};
pub use crate::cluster::list_offsets::OffsetAndTimestamp;
pub use crate::cluster::offset_commit::OffsetAndMetadata;
pub use builder::{ConsumerBuilder, ReaderBuilder};
pub use event::{ConsumerEvent, Message, Records, Revocation, StartOffset, Watermarks};
pub(crate) use group::subscription::{Subscription as MemberSubscription, decode_assignment as assigned_partitions};
pub use offsets::committer::{CommitHandle, Committer};
pub(crate) use outlook::Outlook;
pub use outlook::Problem;
pub(crate) use running::{RunningConsumer, RunningPartition};
pub use status::ConsumerState;
pub use stream::MessageStream;

use crate::cluster::{Client, Pin};
use crate::config::{ConsumerConfig, IsolationLevel};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;
use command::Command;
use event_queue::EventQueue;
use fetch::partition::StartPosition;
use fetch::tasks::{FetchState, Fetcher};
use group::coordinator_task::{CoordinatorTask, GroupContext};
use lease::Lease;
use metrics::Meter;
use offsets::commits::Outbox;
use offsets::committer::Commands;
use starting::Retry;
pub(crate) use starting::Starting;
use status::Status;

/// Commands of the front that may wait for the group's task.
const COMMANDS: usize = 64;
/// How long `close` waits for the group's task, which bounds leaving to 5 s itself.
const CLOSE: Duration = Duration::from_secs(10);

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
/// Records are read as soon as all replicas have them, those of transactions that are still open or were aborted too, unless
/// [`isolation_level`](ConsumerConfig::isolation_level) asks for committed ones alone.
///
/// Dropping it without [`close`](Self::close) ends its tasks without leaving the group, whose other members get its partitions
/// when its session expires.
#[must_use = "dropping a consumer leaves its partitions without an owner until its session expires: keep it, and `close` it"]
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    isolation_level: IsolationLevel,
    group: Option<Commands>,
    events: Arc<EventQueue>,
    status: Arc<Status>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    /// Of a consumer without a group.
    fetcher: Option<Fetcher>,
    /// What is read, to move it and to pause it.
    fetch_state: Option<Arc<FetchState>>,
    /// What was returned last, where it counts as handled when the program asks for more; else nothing.
    delivered: Option<Vec<(Lease, OffsetAndMetadata)>>,
    /// Shows it in the health of its client.
    running: Option<Arc<RunningConsumer>>,
    /// Its topics, which are in use for as long as it is.
    _topics_in_use: Vec<Pin>,
}

impl Consumer {
    async fn subscribe(client: &Client, group: &str, topics: &[String], config: ConsumerConfig) -> Result<Self> {
        let mut starting = Starting::new(client, group, topics, config)?;
        starting.find_topics().await?;
        let mut consumer = starting.join();
        let running = Arc::new(RunningConsumer::new(group, topics, &consumer));
        client.cluster().components().add(&running);
        consumer.running = Some(running);
        Ok(consumer)
    }

    /// Begins to be a member of a group, without showing in the client's health.
    fn join(mut self, group: &str, topics: &[String], config: ConsumerConfig, pins: Vec<Pin>) -> Self {
        self.delivered = config.auto_commit_interval.map(|_| Vec::new());
        self._topics_in_use = pins;
        let outbox = Arc::<Outbox>::default();
        let (sender, commands) = mpsc::channel(COMMANDS);
        let context = GroupContext {
            client: self.client.clone(),
            config,
            group: group.into(),
            topics: topics.iter().cloned().collect(),
            events: Arc::clone(&self.events),
            outbox: Arc::clone(&outbox),
            status: Arc::clone(&self.status),
            tasks: self.tasks.clone(),
        };
        let group_task = CoordinatorTask::new(context, commands);
        self.fetch_state = Some(group_task.fetch_state());
        let task = self.cancel.clone().run_until_cancelled_owned(group_task.run());
        self.tasks.spawn(task);
        let timeout = self.client.config().request_timeout;
        self.group = Some(Commands { group: group.into(), sender, outbox, timeout });
        self
    }

    async fn assign(
        client: &Client,
        partitions: Vec<(TopicPartition, StartOffset)>,
        config: ConsumerConfig,
    ) -> Result<Self> {
        config.validate()?;
        if partitions.is_empty() {
            return Err(Error::new(ErrorKind::Config, "no partition was given to read"));
        }
        let mut consumer = Self::idle(client, &config, "");
        let mut retry = Retry::new(client, "a consumer without a group".to_owned(), &consumer.status);
        let mut pins = Vec::new();
        for (p, start) in &partitions {
            let topic = retry.run(|| client.cluster().topic(&p.topic, false)).await?;
            pins.push(client.cluster().pin(&topic.name));
            if topic.partition(p.partition).is_none() {
                let what = format!("{p} does not exist: the topic has {} partitions, from 0", topic.partitions.len());
                return Err(Error::new(ErrorKind::UnknownTopic, what));
            }
            if let StartOffset::Offset(offset @ ..0) | StartOffset::Timestamp(offset @ ..0) = start {
                return Err(seek::negative(p, *offset));
            }
        }
        consumer._topics_in_use = pins;
        let partitions: BTreeMap<_, _> = partitions.into_iter().collect();
        consumer.status.alone(&partitions.keys().cloned().collect::<Vec<_>>());
        let leased = |(partition, start)| (Lease { partition, epoch: 1 }, StartPosition::At(start));
        let partitions: Vec<_> = partitions.into_iter().map(leased).collect();
        consumer.events.on_assigned(partitions.iter().map(|(lease, _)| lease.clone()));
        let fetcher = Fetcher::start(client, &config, &consumer.events, &consumer.tasks, None);
        fetcher.add(partitions);
        consumer.fetch_state = Some(fetcher.state());
        consumer.fetcher = Some(fetcher);
        Ok(consumer)
    }

    fn idle(client: &Client, config: &ConsumerConfig, group: &str) -> Self {
        let meter = Meter::new(&client.config().metrics, group);
        Self {
            client: client.clone(),
            isolation_level: config.isolation_level,
            group: None,
            events: Arc::new(EventQueue::new(meter.clone())),
            status: Arc::new(Status::new(meter)),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            fetcher: None,
            fetch_state: None,
            delivered: None,
            running: None,
            _topics_in_use: Vec::new(),
        }
    }

    /// The program asks for more: what it was given before is handled.
    fn mark_delivered_handled(&mut self) {
        for (lease, offset) in self.delivered.iter_mut().flat_map(|given| given.drain(..)) {
            self.events.mark_handled(lease, offset);
        }
    }

    fn on_delivered(&mut self, records: &Records) {
        if let Some(given) = &mut self.delivered {
            given.push(records.handled(records.next_offset));
        }
    }

    /// The next event.
    ///
    /// # Errors
    /// Trouble with a single partition is told once, and reading it is tried again until it succeeds: [`ErrorKind::Corrupt`] for
    /// bytes that can't be read (nothing is skipped), [`ErrorKind::UnknownTopic`], [`ErrorKind::Authorization`] and others that
    /// name the partition. [`ErrorKind::OffsetOutOfRange`], where [`offset_reset`](ConsumerConfig::offset_reset) is none: the
    /// partition is not read before it is sought. Any error after which [`state`](Self::state) is [`ConsumerState::Closed`] has ended the consumer and is
    /// told again by each further call.
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

    /// Commits, for each partition, the offset of the next record to handle, with the leader epoch of the record before it if that
    /// was given by [`recv`](Self::recv) last (KIP-320). Tried again for the request timeout while the
    /// coordinator moves or loads.
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if a partition is not, or no longer, ours: none of them is committed then, or another member
    /// has it by now. [`ErrorKind::Timeout`]: the offsets may have been committed or not. What the coordinator answers otherwise.
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

    /// Begins a commit and goes on: see [`Committer::commit_async`].
    pub fn commit_async(&self, offsets: &[(TopicPartition, i64)]) -> CommitHandle {
        self.committer().commit_async(offsets)
    }

    /// Commits from other tasks, in the name of the partitions that are ours by what [`recv`](Self::recv) has returned so far.
    pub fn committer(&self) -> Committer {
        Committer::new(self.events.reported(), self.group.clone())
    }

    /// The offset behind what [`recv`](Self::recv) has returned of a partition, or where its first fetch starts; none if that is
    /// not known yet or the partition is not ours.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.events.position(partition)
    }

    /// As [`commit`](Self::commit), of offsets with their leader epochs and metadata.
    ///
    /// # Errors
    /// Those of [`commit`](Self::commit), and what the coordinator says of metadata that is too long.
    ///
    /// # Cancellation
    /// The offsets may be committed or not.
    pub async fn commit_with(&self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        self.committer().commit_with(offsets).await
    }

    /// The committed offset of a partition that is ours, as far as this member knows.
    pub fn committed(&self, partition: &TopicPartition) -> Option<i64> {
        self.status.committed_offset(partition).map(|at| at.offset)
    }

    /// The same with what was committed with it, by whichever member.
    pub fn committed_metadata(&self, partition: &TopicPartition) -> Option<OffsetAndMetadata> {
        self.status.committed_offset(partition)
    }

    /// The partitions that are ours now. The program may not have been told of them yet.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.status.assignment()
    }

    /// What health asks for while it works.
    pub(crate) fn outlook(&self) -> Outlook {
        Outlook::new(&self.status, self.fetch_state.as_ref())
    }

    /// What this consumer waits for now: a leader that can't be reached, a partition without one, a group that can't be joined. Empty while all
    /// is well. None of it ends the consumer: each is tried again until it works.
    pub fn problems(&self) -> Vec<Problem> {
        self.outlook().problems()
    }

    /// The place in the group.
    pub fn state(&self) -> ConsumerState {
        self.status.state()
    }

    /// The id by which the group knows this member, once it has joined.
    pub fn member_id(&self) -> Option<String> {
        self.status.member_id()
    }

    /// The generation of the group in which the present partitions are ours.
    pub fn generation(&self) -> Option<i32> {
        self.status.generation()
    }

    /// The group.
    pub fn group(&self) -> Option<&str> {
        self.group.as_ref().map(|g| &*g.group)
    }

    /// Leaves the group, so that its partitions go to others at once, and ends all tasks. Commit before: what was handled and not
    /// committed is handled again.
    ///
    /// # Errors
    /// If the group could not be told within 5 s; its other members go on after the session timeout. The tasks have ended all
    /// the same.
    ///
    /// # Cancellation
    /// As [`drop`]: the tasks end, the group may not be left.
    pub async fn close(mut self) -> Result<()> {
        let mut outcome = Ok(());
        self.running = None; // that it ends now is no trouble
        self.mark_delivered_handled();
        if let Some(commands) = self.group.take() {
            let (reply, replied) = oneshot::channel();
            // A task that has ended already was no member any more.
            if commands.sender.send(Command::Leave(reply)).await.is_ok() {
                if let Ok(Ok(left)) = tokio::time::timeout(CLOSE, replied).await {
                    outcome = left;
                }
            }
        }
        self.end().await;
        outcome
    }

    /// Leaves the group for now: all partitions are [lost](ConsumerEvent::Lost) and go to others, and the member joins again when
    /// [`recv`](Self::recv) is called, at once if it is being called. For a handler that hangs.
    pub(crate) async fn expel(&self, why: String) {
        if let Some(commands) = &self.group {
            _ = commands.sender.send(Command::Expel(why)).await; // if its task has ended, it is no member any more
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
