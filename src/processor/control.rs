//! Controls a running subscription from any task.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

#[cfg(doc)]
use super::Subscription;
use super::catch_up::CatchUp;
use super::drain::Unfinished;
use super::pauses::Scope;
use super::positions::SeekReply;
use super::state::SubscriptionState;
use super::subscription_task::TopicsReply;
use crate::cluster::Client;
use crate::config::ProcessorConfig;
use crate::consumer::{StartOffset, end_offsets, resolve_start};
use crate::error::{Error, ErrorKind, Result};
use crate::failure::fails_fast;
use crate::record::TopicPartition;

/// Time after which a waiting [`SubscriptionControl::caught_up`] looks again without a notification:
/// the group's task completes revocations, and notifies nobody of that.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A command to the task of a subscription.
#[derive(Debug)]
pub(super) enum ControlCommand {
    Seek { partition: TopicPartition, offset: i64, reply: SeekReply },
    Subscribe { topics: Vec<String>, reply: TopicsReply },
    Unsubscribe { topics: Vec<String>, reply: TopicsReply },
}

/// Controls a running [`Subscription`]: pauses, resumes and moves it. From
/// [`Subscription::control`]; cheap to clone. It does not keep the subscription running.
///
/// ```no_run
/// # async fn example(subscription: ailurus::Subscription) -> ailurus::Result<()> {
/// use ailurus::TopicPartition;
///
/// let control = subscription.control();
/// control.pause("orders")?;
/// control.resume(TopicPartition::new("orders", 3))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SubscriptionControl {
    pub(super) shared: Arc<SubscriptionState>,
    pub(super) client: Client,
    pub(super) commands: mpsc::Sender<ControlCommand>,
    /// The outcome of the subscription, once it has ended.
    pub(super) ended: watch::Receiver<Option<Result<Unfinished>>>,
}

impl SubscriptionControl {
    /// Returns the group of the subscription.
    pub fn group(&self) -> &str {
        self.shared.group()
    }

    /// Returns the maximum number of records (or batches) in handlers at a time.
    pub fn concurrency(&self) -> usize {
        self.shared.concurrency.limit()
    }

    /// Pauses all topics, a topic or a partition. Membership and assignment stay: the group does not
    /// rebalance. After this returns, no other record of them is started (but one that was being
    /// started at that time); those in a handler finish and are committed. Fetched records and
    /// retries stay queued, within [`prefetch_bytes`](crate::ConsumerConfig::prefetch_bytes) and
    /// [`parked_records`](crate::ProcessorConfig::parked_records), and no more are fetched.
    ///
    /// The last call that covers a partition decides: `pause(Scope::All)`, then `resume("orders")`
    /// leaves all other topics paused. [`PartitionHealth::paused_by`](super::PartitionHealth::paused_by)
    /// shows what is paused. With a topic, its [retry topics](crate::ProcessorConfig::delayed_retries) are paused.
    ///
    /// # Rebalances
    /// A pause of all topics or of a topic lasts until it is resumed, and holds for partitions that
    /// are assigned later. A pause of a partition lasts through each rebalance after which the
    /// partition is still, or again, assigned to this member, and ends when it is another member's:
    /// that one handles it, and it is not paused when it comes back. Other members are not paused by
    /// this.
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if the partition is not assigned to this member;
    /// [`ErrorKind::Config`] if the topic is not subscribed to; [`ErrorKind::Closed`] if the
    /// subscription has ended.
    pub fn pause(&self, scope: impl Into<Scope>) -> Result<()> {
        self.set_paused(&scope.into(), true)
    }

    /// Resumes what [`pause`](Self::pause) has paused, with queued records first.
    ///
    /// # Errors
    /// Those of [`pause`](Self::pause), but a partition need not be assigned.
    pub fn resume(&self, scope: impl Into<Scope>) -> Result<()> {
        self.set_paused(&scope.into(), false)
    }

    fn set_paused(&self, scope: &Scope, paused: bool) -> Result<()> {
        self.check_open()?;
        self.shared.set_scope_paused(scope, paused)?;
        let (group, doing) = (self.shared.group(), if paused { "paused" } else { "resumed" });
        tracing::info!(group, %scope, "the subscription was {doing} by its control");
        Ok(())
    }

    /// Returns what is paused, the widest scopes first. Narrower ones may be
    /// [resumed](Self::resume) within them.
    pub fn paused(&self) -> Vec<Scope> {
        self.shared.paused_scopes()
    }

    /// Moves the position of a partition, and commits the new one: it holds for the next owner, too.
    /// Returns the new offset when it is committed. An end, a beginning or a timestamp is that of
    /// the log at this call; a timestamp after the last record is the end.
    ///
    /// From then on:
    /// - No record fetched for an earlier position is started, and none of its retries.
    /// - Records in a handler finish first, within
    ///   [`shutdown_timeout`](crate::ProcessorConfig::shutdown_timeout); then they are cancelled.
    ///   Their outcomes count no more: they are handled again if the new position is not behind
    ///   them.
    /// - The committed offset is the new position, or follows it; a commit that was in flight comes
    ///   before. Which records were completed above the old one is forgotten: those from the new
    ///   position on are all handled, again if they were.
    ///
    /// A paused partition is moved, and stays paused.
    ///
    /// ```no_run
    /// # async fn example(control: ailurus::processor::SubscriptionControl) -> ailurus::Result<()> {
    /// use ailurus::{StartOffset, TopicPartition};
    ///
    /// let since = StartOffset::Timestamp("2026-01-01T09:00:00Z".parse()?);
    /// let offset = control.seek(&TopicPartition::new("orders", 0), since).await?;
    /// println!("handled again from {offset} on");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if the partition is not assigned to this member, or is revoked
    /// before the new position is committed; [`ErrorKind::OffsetOutOfRange`] if its log does not
    /// have the offset; [`ErrorKind::Config`] if the offset or the timestamp is negative;
    /// [`ErrorKind::Unsupported`] in an [exactly-once](super::ExactlyOnce) pipeline;
    /// [`ErrorKind::Timeout`] if it has no leader that responds within the request timeout;
    /// [`ErrorKind::Closed`] if the subscription has ended.
    ///
    /// # Cancellation
    /// The partition may be moved or not. While the coordinator can't be reached the call waits:
    /// the partition is moved, and committed later.
    pub async fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<i64> {
        self.check_open()?;
        let (cluster, level) = (self.client.cluster(), self.shared.isolation_level());
        let offset = resolve_start(cluster, partition, to, level).await?;
        let (reply, replied) = oneshot::channel();
        let command = ControlCommand::Seek { partition: partition.clone(), offset, reply };
        self.commands.send(command).await.map_err(|_| self.closed())?;
        let lost = || {
            let what = format!("{partition} was revoked before its new position {offset} was committed");
            Error::new(ErrorKind::GroupMembership, what)
        };
        replied.await.unwrap_or_else(|_| Err(lost()))?;
        Ok(offset)
    }

    /// Changes the maximum number of records (or batches) in handlers at a time,
    /// [`ProcessorConfig::concurrency`], from the next record on. While more are in a handler than a
    /// lower number allows, none is started. [`SubscriptionHealth::concurrency`](super::SubscriptionHealth::concurrency)
    /// shows it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is out of the bounds of the setting; [`ErrorKind::Closed`] if the
    /// subscription has ended.
    pub fn set_concurrency(&self, concurrency: usize) -> Result<()> {
        self.check_open()?;
        ProcessorConfig { concurrency, ..ProcessorConfig::default() }.validate()?;
        self.shared.concurrency.set_limit(concurrency);
        tracing::info!(group = self.shared.group(), concurrency, "the concurrency was changed by the control");
        Ok(())
    }

    /// Waits until the subscription has caught up: each assigned partition was handled up to the end
    /// that its log had when this call first saw it, at once for those that are assigned now. Records
    /// written later don't count. A record counts as handled when all before it are, too, as for
    /// commits; one with a dead letter when that is acknowledged; one of a pipeline when its outputs
    /// are committed. For `ReadCommitted` the end is the last stable offset.
    ///
    /// - While it has yet to join its group, or rejoins without partitions, this waits; a member
    ///   without any partition has caught up.
    /// - Partitions that a rebalance moves to another member count no more; those that it moves here
    ///   count from then on.
    /// - [Retry topics](crate::ProcessorConfig::delayed_retries) don't count: what waits there has failed before.
    /// - A paused partition counts: if it is not at its end, this waits until it is resumed.
    /// - A partition that has reached its end counts as such if a [`seek`](Self::seek) moves it back
    ///   later.
    ///
    /// ```no_run
    /// # async fn example(subscription: ailurus::Subscription) -> ailurus::Result<()> {
    /// subscription.control().caught_up().await?;
    /// println!("ready to serve");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the subscription ends; [`ErrorKind::UnknownTopic`] or
    /// [`ErrorKind::Authorization`] if the end of a partition can't be listed for such a reason.
    /// Outages are waited for.
    ///
    /// # Cancellation
    /// Dropping the future leaves nothing behind.
    pub async fn caught_up(&self) -> Result<()> {
        let (watch, mut ended) = (self.shared.watch_progress(), self.ended.clone());
        let (mut core, mut backoff) = (CatchUp::default(), self.client.cluster().backoff());
        loop {
            let mut changed = pin!(watch.changed());
            changed.as_mut().enable(); // before the look, so that no change is missed
            self.check_open()?;
            let progress = self.shared.progress();
            let is_member = progress.is_some();
            // Between two rebalances of an eager assignor nothing is assigned: what stays keeps its end.
            let unknown = progress.map(|progress| core.on_progress(progress)).unwrap_or_default();
            if !unknown.is_empty() {
                match end_offsets(self.client.cluster(), unknown, self.shared.isolation_level()).await {
                    Ok(ends) => core.on_ends(&ends),
                    Err(e) if fails_fast(&e) => return Err(e),
                    Err(_) => tokio::time::sleep(backoff.next()).await,
                }
                continue;
            }
            if is_member && core.is_done() {
                return Ok(());
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(LOOK_AGAIN_AFTER) => {}
                changed = ended.changed() => changed.map_err(|_| self.closed())?,
            }
        }
    }

    /// Returns the topics of the subscription, with its
    /// [retry topics](crate::ProcessorConfig::delayed_retries).
    pub fn topics(&self) -> Vec<String> {
        self.shared.topics().into_iter().collect()
    }

    /// Subscribes to further topics, in addition to those before. The group rebalances; then members
    /// that are subscribed to them have their partitions. Dead-letter and retry topics are found or
    /// created first, as by [`Processor::subscribe`](super::Processor::subscribe). Topics that are
    /// subscribed to already are no error.
    ///
    /// ```no_run
    /// # async fn example(control: ailurus::processor::SubscriptionControl) -> ailurus::Result<()> {
    /// control.subscribe(["orders.eu"]).await?;
    /// control.unsubscribe(["orders"]).await?;
    /// assert_eq!(control.topics(), ["orders.eu"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Processor::subscribe`](super::Processor::subscribe) on topics: nothing is changed.
    /// Outages are errors here, too. [`ErrorKind::Closed`] if the subscription has ended.
    ///
    /// # Cancellation
    /// The topics may be subscribed to or not.
    pub async fn subscribe(&self, topics: impl IntoIterator<Item: Into<String>>) -> Result<()> {
        let topics = topics.into_iter().map(Into::into).collect();
        self.change_topics(|reply| ControlCommand::Subscribe { topics, reply }).await
    }

    /// Subscribes to topics no more. The group rebalances: records in a handler finish and are
    /// committed, as for any revocation, and other members that are subscribed to them go on. A topic
    /// that a [pattern](super::Processor::subscribe_matching) matches stays removed until
    /// [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if one is not subscribed to, or no topic would be left: none is removed.
    /// [`ErrorKind::Closed`] if the subscription has ended.
    ///
    /// # Cancellation
    /// The topics may be subscribed to or not.
    pub async fn unsubscribe(&self, topics: impl IntoIterator<Item: Into<String>>) -> Result<()> {
        let topics = topics.into_iter().map(Into::into).collect();
        self.change_topics(|reply| ControlCommand::Unsubscribe { topics, reply }).await
    }

    async fn change_topics(&self, command: impl FnOnce(TopicsReply) -> ControlCommand) -> Result<()> {
        self.check_open()?;
        let (reply, replied) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| self.closed())?;
        replied.await.unwrap_or_else(|_| Err(self.closed()))
    }

    fn check_open(&self) -> Result<()> {
        if self.ended.borrow().is_some() { Err(self.closed()) } else { Ok(()) }
    }

    fn closed(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("the subscription of group {:?} has ended", self.shared.group()))
    }
}
