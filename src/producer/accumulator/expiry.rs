//! Expiry of batches: by the delivery timeout, or because their topic is missing.

use tokio::time::Instant;

use super::{Accumulator, PartitionId};
use crate::producer::batch::FinishedBatch;

impl Accumulator {
    /// Fails batches that are older than the delivery timeout, or whose topic has been missing for
    /// too long. Returns them, and when to call again.
    ///
    /// A batch that expires while its request is in flight fails at once, for its caller has waited
    /// long enough, but stays in its queue:
    /// [`PartitionQueue::complete`](crate::producer::partition::PartitionQueue::complete) has what
    /// follows.
    pub(crate) fn expire(&mut self, now: Instant) -> (Vec<FinishedBatch>, Instant) {
        let mut finished = Vec::new();
        let (mut rejected_id, mut failed) = (None, Vec::new());
        let context = self.context();
        let timeout = self.config.delivery_timeout;
        // Nothing that is appended from now on expires before this.
        let mut next = now + timeout;
        for (t, topic) in self.topics.iter_mut().enumerate() {
            let missing_until = topic.missing_since.map(|since| since + self.config.missing_timeout);
            let missing = topic.missing_since.filter(|_| missing_until.is_some_and(|at| at <= now));
            for (p, partition) in topic.partitions.iter_mut().enumerate() {
                if partition.queue.is_empty() {
                    continue;
                }
                if let Some(at) = missing_until.filter(|at| *at > now) {
                    next = next.min(at);
                }
                if missing.is_some() || partition.queue.iter().any(|b| b.expires_at <= now) {
                    let cause = match self.ready.error(partition.leader) {
                        None if context.producer_id.is_none() => self.producer_id_error.as_ref(),
                        error => error,
                    };
                    partition.fail_where(&mut finished, |batch| match missing {
                        Some(since) => Some(batch.topic_missing(now.duration_since(since))),
                        None => (batch.expires_at <= now).then(|| batch.timed_out(timeout, cause)),
                    });
                    rejected_id = partition.resolve_gap(&mut finished).or(rejected_id);
                    let id = PartitionId { topic: t, partition: p };
                    self.ready.update(id, partition, context);
                    failed.push(id);
                }
                let pending = partition.queue.iter().map(|b| b.expires_at).filter(|at| *at > now);
                next = pending.min().map_or(next, |at| next.min(at));
            }
        }
        self.discard_producer_id(rejected_id);
        self.on_transaction_results(failed, &mut finished, 0);
        (finished, next)
    }
}
