//! Positions of a consumer's front: moved and paused by hand, how far behind they are, where logs begin and end.

use std::collections::BTreeMap;

use super::Consumer;
use super::event::{StartOffset, Watermarks};
use super::lease::Lease;
use crate::cluster::list_offsets::{EARLIEST, LATEST, OffsetAndTimestamp, list_offsets};
use crate::config::IsolationLevel;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

impl Consumer {
    /// Reads a partition on from another place. Once this has returned, [`recv`](Self::recv) gives no record of it that was
    /// fetched for the place before; what was given already is the program's. Where the place has to be asked for (the ends, a
    /// time), or is outside the log, that goes on behind it. Nothing is committed by this.
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
    /// [`ErrorKind::GroupMembership`] if the partition is not ours by what [`recv`](Self::recv) has told, or not any more;
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

    /// Fetches and gives no records of these partitions before they are [resumed](Self::resume). What was fetched already is
    /// kept; the partitions stay ours. A partition that is given up and comes back is not paused.
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if one is not ours by what [`recv`](Self::recv) has told, or not any more: none is paused.
    pub fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, true)
    }

    /// Goes on with partitions that are [paused](Self::pause); first comes what was kept.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, false)
    }

    /// The partitions that are paused.
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

    /// Where the log of a partition that is ours begins and ends, as of its last fetch; none before the first.
    pub fn watermarks(&self, partition: &TopicPartition) -> Option<Watermarks> {
        self.events.watermarks(partition)
    }

    /// How many offsets that can be read lie behind the [`position`](Self::position) of a partition that is ours, as of its
    /// last fetch; none before the first.
    pub fn lag(&self, partition: &TopicPartition) -> Option<i64> {
        lag(self.watermarks(partition), self.position(partition), self.isolation_level)
    }

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

/// How many offsets that can be read lie behind a position.
pub(super) fn lag(marks: Option<Watermarks>, position: Option<i64>, level: IsolationLevel) -> Option<i64> {
    let marks = marks?;
    let stable = marks.last_stable_offset.filter(|_| level == IsolationLevel::ReadCommitted);
    let end = stable.unwrap_or(marks.high_watermark);
    Some((end - position?).max(0))
}
