//! Who is told of a subscription's partitions.

use std::fmt::Debug;

use crate::record::TopicPartition;

/// Is told which partitions a [`Subscription`](super::Subscription) has, to keep what goes with them: caches, counters, locks. Set
/// by [`Processor::listener`](super::Processor::listener).
///
/// It is called by the loop that feeds the handlers, so it must not block.
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
    /// These have come, beside those there are; their records follow. Perhaps none: a rebalance has changed nothing here.
    fn assigned(&self, partitions: &[TopicPartition]) {
        _ = partitions;
    }

    /// These are given up: no other record of them is begun, those in hand end or are cancelled in time, and what ended is
    /// committed.
    fn revoked(&self, partitions: &[TopicPartition]) {
        _ = partitions;
    }

    /// These are gone already: their handlers are cancelled, and nothing is committed.
    fn lost(&self, partitions: &[TopicPartition]) {
        _ = partitions;
    }
}
