//! Positions of a consumer's front: where logs begin and end, and where they are at a time.

use std::collections::BTreeMap;

use super::{Consumer, EARLIEST, LATEST, OffsetAndTimestamp, list_offsets};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

impl Consumer {
    /// The offsets at which the logs of partitions begin, whether they are ours or not.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if one does not exist; [`ErrorKind::Timeout`] if one has no leader that answers within the
    /// request timeout.
    pub async fn beginning_offsets(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>> {
        self.list(partitions, EARLIEST).await
    }

    /// The offsets up to which partitions can be read now, whether they are ours or not: the last stable offset for a reader
    /// of committed records, else the high watermark.
    ///
    /// # Errors
    /// As [`beginning_offsets`](Self::beginning_offsets).
    pub async fn end_offsets(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>> {
        self.list(partitions, LATEST).await
    }

    /// For each partition the first record with the timestamp (milliseconds since 1970) or a later one; none behind the last
    /// record. The partitions need not be ours.
    ///
    /// ```no_run
    /// # async fn example(consumer: ailurus::Consumer) -> ailurus::Result<()> {
    /// let orders = ailurus::TopicPartition::new("orders", 0);
    /// let found = consumer.offsets_for_times(&[(orders.clone(), 1_767_225_600_000)]).await?;
    /// if let Some(first) = found[&orders] {
    ///     println!("2026 begins at offset {}", first.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a timestamp is negative; else as [`beginning_offsets`](Self::beginning_offsets).
    pub async fn offsets_for_times(
        &self,
        times: &[(TopicPartition, i64)],
    ) -> Result<BTreeMap<TopicPartition, Option<OffsetAndTimestamp>>> {
        if let Some((p, at)) = times.iter().find(|(_, at)| *at < 0) {
            return Err(negative(p, *at));
        }
        let asks = times.iter().cloned().collect();
        let found = list_offsets(self.client.cluster(), &asks, self.isolation_level).await?;
        Ok(found.into_iter().map(|(p, found)| (p, Some(found).filter(|f| f.offset >= 0))).collect())
    }

    async fn list(&self, partitions: &[TopicPartition], at: i64) -> Result<BTreeMap<TopicPartition, i64>> {
        let asks = partitions.iter().map(|p| (p.clone(), at)).collect();
        let found = list_offsets(self.client.cluster(), &asks, self.isolation_level).await?;
        Ok(found.into_iter().map(|(p, found)| (p, found.offset)).collect())
    }
}

pub(super) fn negative(p: &TopicPartition, offset: i64) -> Error {
    let what = format!("{p} can't be read from {offset}: offsets and timestamps are not negative");
    Error::new(ErrorKind::Config, what)
}
