//! The listener for rebalances of a subscription.

use std::fmt::Debug;

use crate::record::TopicPartition;

/// Is notified of the partitions assigned to a [`Subscription`](super::Subscription), to maintain
/// state per partition: caches, counters, locks. Set by
/// [`Processor::listener`](super::Processor::listener).
///
/// Methods are called by the task that feeds the handlers, so they must not block.
///
/// ```
/// use ailurus::TopicPartition;
/// use ailurus::processor::RebalanceListener;
///
/// #[derive(Debug)]
/// struct Log;
///
/// impl RebalanceListener for Log {
///     fn assigned(&self, partitions: &[TopicPartition]) {
///         println!("{} more", partitions.len());
///     }
/// }
/// # Log.assigned(&[]);
/// ```
pub trait RebalanceListener: Debug + Send + Sync + 'static {
    /// Partitions were assigned, in addition to those assigned before; their records follow. Empty
    /// if a rebalance changed nothing for this member.
    fn assigned(&self, partitions: &[TopicPartition]) {
        _ = partitions;
    }

    /// Partitions are being revoked: none of their records is started any more, handlers in flight
    /// finish or are cancelled in time, and offsets of handled records are committed.
    fn revoked(&self, partitions: &[TopicPartition]) {
        _ = partitions;
    }

    /// Partitions were lost: another member may own them already. Their handlers are cancelled, and
    /// nothing is committed.
    fn lost(&self, partitions: &[TopicPartition]) {
        _ = partitions;
    }
}
