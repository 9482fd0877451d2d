//! Positions of a consumer: seek, pause, lag and the offsets of logs.

use std::collections::BTreeMap;

use super::consumer::Consumer;
use super::event::{StartOffset, Watermarks};
use super::lease::Lease;
use crate::cluster::list_offsets::{EARLIEST, LATEST, OffsetAndTimestamp, list_offsets};
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

impl Consumer {
    /// Moves the position of a partition. After this returns, [`recv`](Self::recv) returns no
    /// record fetched for the previous position; records returned before belong to the application.
    /// A position that must be listed first (an end, a timestamp), or that is outside the log, is
    /// resolved in the background. Nothing is committed.
    ///
    /// ```no_run
    /// # async fn example(consumer: ailurus::Consumer) -> ailurus::Result<()> {
    /// use ailurus::{StartOffset, TopicPartition};
    ///
    /// consumer.seek(&TopicPartition::new("orders", 0), StartOffset::Timestamp(1_767_225_600_000))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if [`recv`](Self::recv) has not reported the partition as assigned, or it no longer is;
    /// [`ErrorKind::Config`] if the offset or the timestamp is negative.
    pub fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<()> {
        if let StartOffset::Offset(offset @ ..0) | StartOffset::Timestamp(offset @ ..0) = to {
            return Err(negative(partition, offset));
        }
        let lease = self.lease(partition, "moved")?;
        if let Some(fetch_state) = &self.fetch_state {
            fetch_state.seek(&lease, to);
        }
        Ok(())
    }

    /// Stops fetching and returning records of these partitions until they are
    /// [resumed](Self::resume). Queued records stay queued, and the partitions stay assigned. A
    /// partition that is revoked and assigned again is not paused.
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if [`recv`](Self::recv) has not reported one as assigned, or it no longer is: none is paused.
    pub fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, true)
    }

    /// Resumes [paused](Self::pause) partitions, with their queued records first.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, false)
    }

    /// Returns the paused partitions.
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.events.paused()
    }

    fn set_paused(&self, partitions: &[TopicPartition], paused: bool) -> Result<()> {
        let doing = if paused { "paused" } else { "resumed" };
        let leases: Vec<_> = partitions.iter().map(|p| self.lease(p, doing)).collect::<Result<_>>()?;
        if let Some(fetch_state) = &self.fetch_state {
            fetch_state.pause(&leases, paused);
        }
        Ok(())
    }

    fn lease(&self, partition: &TopicPartition, doing: &str) -> Result<Lease> {
        self.events.active_lease(partition).ok_or_else(|| {
            let what = format!("{partition} can't be {doing}: it is not, or no longer, assigned to this consumer");
            Error::new(ErrorKind::GroupMembership, what)
        })
    }

    /// Returns the watermarks of an assigned partition as of its last fetch; none before the first.
    pub fn watermarks(&self, partition: &TopicPartition) -> Option<Watermarks> {
        self.events.watermarks(partition)
    }

    /// Returns the number of readable offsets after the [`position`](Self::position) of an assigned
    /// partition, as of its last fetch; none before the first.
    pub fn lag(&self, partition: &TopicPartition) -> Option<i64> {
        let (watermarks, position) = (self.watermarks(partition)?, self.position(partition)?);
        Some(watermarks.lag(position, self.isolation_level))
    }

    /// Returns the offsets at which the logs of partitions begin, assigned or not.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if one does not exist; [`ErrorKind::Timeout`] if one has no leader that responds within the
    /// request timeout.
    pub async fn beginning_offsets(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>> {
        self.list(partitions, EARLIEST).await
    }

    /// Returns the offsets up to which partitions can be read now, assigned or not: the last stable
    /// offset for `ReadCommitted`, else the high watermark.
    ///
    /// # Errors
    /// As [`beginning_offsets`](Self::beginning_offsets).
    pub async fn end_offsets(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>> {
        self.list(partitions, LATEST).await
    }

    /// Returns, for each partition, the first record with the timestamp (milliseconds since 1970)
    /// or a later one; none after the last record. The partitions need not be assigned.
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
        let requests = times.iter().cloned().collect();
        let found = list_offsets(self.client.cluster(), &requests, self.isolation_level).await?;
        Ok(found.into_iter().map(|(p, found)| (p, Some(found).filter(|f| f.offset >= 0))).collect())
    }

    async fn list(&self, partitions: &[TopicPartition], at: i64) -> Result<BTreeMap<TopicPartition, i64>> {
        let requests = partitions.iter().map(|p| (p.clone(), at)).collect();
        let found = list_offsets(self.client.cluster(), &requests, self.isolation_level).await?;
        Ok(found.into_iter().map(|(p, found)| (p, found.offset)).collect())
    }
}

pub(super) fn negative(p: &TopicPartition, offset: i64) -> Error {
    let what = format!("{p} can't be read from {offset}: offsets and timestamps are not negative");
    Error::new(ErrorKind::Config, what)
}
