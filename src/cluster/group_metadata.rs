//! A consumer's place in its group, as a transaction commits offsets with.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::record::TopicPartition;

/// A member of a group at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupMember {
    pub(crate) member_id: String,
    /// Generation of a classic group, or the member epoch.
    pub(crate) generation: i32,
    pub(crate) instance_id: Option<String>,
}

/// The membership that offsets are committed under.
pub(crate) trait GroupMembership: fmt::Debug + Send + Sync {
    /// Returns the member as it is now; `None` while it rejoins and may keep the partitions.
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`](crate::ErrorKind::GroupMembership) if one of the partitions
    /// is not assigned any more, or was assigned again since.
    fn member(&self, partitions: &mut dyn Iterator<Item = &TopicPartition>) -> Result<Option<GroupMember>>;

    /// Takes notice that offsets of this generation were refused.
    fn on_refused(&self, generation: i32);
}

/// A consumer's place in its group, for [`Transaction::send_offsets`](crate::Transaction::send_offsets):
/// the partitions that it had when [`Consumer::group_metadata`](crate::Consumer::group_metadata) was
/// called. Cheap to clone.
///
/// Member id and generation (or member epoch) are taken when the transaction commits, so that a
/// rebalance in which the partitions stay does not disturb it. A coordinator that has a newer generation
/// than the consumer has heard of refuses the offsets: they are sent again when it has. If one of the
/// partitions was revoked or lost, the commit is refused, also if it was assigned again (KIP-447).
///
/// ```no_run
/// # async fn example(
/// #     consumer: ailurus::Consumer, producer: &mut ailurus::TransactionalProducer, batch: ailurus::Records,
/// # ) -> ailurus::Result<()> {
/// let mut transaction = producer.begin().await?;
/// let metadata = consumer.group_metadata()?;
/// transaction.send_offsets(&metadata, [(batch.topic_partition(), batch.next_offset)])?;
/// transaction.commit().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ConsumerGroupMetadata {
    group: Arc<str>,
    membership: Arc<dyn GroupMembership>,
}

impl ConsumerGroupMetadata {
    pub(crate) fn new(group: Arc<str>, membership: Arc<dyn GroupMembership>) -> Self {
        Self { group, membership }
    }

    /// Returns the group's id.
    pub fn group_id(&self) -> &str {
        &self.group
    }

    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    pub(crate) fn member(&self, partitions: &mut dyn Iterator<Item = &TopicPartition>) -> Result<Option<GroupMember>> {
        self.membership.member(partitions)
    }

    pub(crate) fn on_refused(&self, generation: i32) {
        self.membership.on_refused(generation);
    }
}
