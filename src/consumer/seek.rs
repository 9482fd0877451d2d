//! Positions of a consumer: seek, pause, lag and the offsets of logs.

use std::collections::BTreeMap;

use super::consumer::Consumer;
use super::event::{StartOffset, Watermarks};
use super::lease::Lease;
use crate::cluster::Cluster;
use crate::cluster::leaders::{RetryPolicy, all_or_error};
use crate::cluster::list_offsets::{EARLIEST, LATEST, OffsetAndTimestamp, list_offsets};
use crate::config::IsolationLevel;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;
use crate::timestamp::Timestamp;

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
    /// let new_year = StartOffset::Timestamp("2026-01-01T00:00:00Z".parse()?);
    /// consumer.seek(&TopicPartition::new("orders", 0), new_year)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::GroupMembership`] if [`recv`](Self::recv) has not reported the partition as assigned, or it no longer is;
    /// [`ErrorKind::Config`] if the offset or the timestamp is negative.
    pub fn seek(&self, partition: &TopicPartition, to: StartOffset) -> Result<()> {
        check_start(partition, to)?;
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
        self.list_at(partitions, EARLIEST).await
    }

    /// Returns the offsets up to which partitions can be read now, assigned or not: the last stable
    /// offset for `ReadCommitted`, else the high watermark.
    ///
    /// # Errors
    /// As [`beginning_offsets`](Self::beginning_offsets).
    pub async fn end_offsets(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>> {
        self.list_at(partitions, LATEST).await
    }

    /// Returns, for each partition, the first record with the timestamp or a later one; none
    /// after the last record. The partitions need not be assigned.
    ///
    /// ```no_run
    /// # async fn example(consumer: ailurus::Consumer) -> ailurus::Result<()> {
    /// let orders = ailurus::TopicPartition::new("orders", 0);
    /// let found = consumer.offsets_for_times(&[(orders.clone(), "2026-01-01T00:00:00Z".parse()?)]).await?;
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
        times: &[(TopicPartition, Timestamp)],
    ) -> Result<BTreeMap<TopicPartition, Option<OffsetAndTimestamp>>> {
        times.iter().try_for_each(|(p, at)| check_start(p, StartOffset::Timestamp(*at)))?;
        let found = self.list(times.iter().map(|(p, at)| (p.clone(), at.as_millis())).collect()).await?;
        Ok(found.into_iter().map(|(p, found)| (p, Some(found).filter(|f| f.offset >= 0))).collect())
    }

    async fn list_at(&self, partitions: &[TopicPartition], at: i64) -> Result<BTreeMap<TopicPartition, i64>> {
        let found = self.list(partitions.iter().map(|p| (p.clone(), at)).collect()).await?;
        Ok(found.into_iter().map(|(p, found)| (p, found.offset)).collect())
    }

    async fn list(&self, at: BTreeMap<TopicPartition, i64>) -> Result<BTreeMap<TopicPartition, OffsetAndTimestamp>> {
        let cluster = self.client.cluster();
        let policy = RetryPolicy::all_or_none(cluster);
        all_or_error(list_offsets(cluster, &at, self.isolation_level, policy).await?)
    }
}

/// Returns the offsets up to which partitions can be read now.
///
/// # Errors
/// Those of [`Consumer::end_offsets`].
pub(crate) async fn end_offsets(
    cluster: &Cluster,
    partitions: Vec<TopicPartition>,
    level: IsolationLevel,
) -> Result<BTreeMap<TopicPartition, i64>> {
    let targets = partitions.into_iter().map(|p| (p, LATEST)).collect();
    let found = all_or_error(list_offsets(cluster, &targets, level, RetryPolicy::all_or_none(cluster)).await?)?;
    Ok(found.into_iter().map(|(p, found)| (p, found.offset)).collect())
}

/// Returns the offset of a start in the log as it is now: the end, where no record has the
/// timestamp or a later one.
///
/// # Errors
/// [`ErrorKind::OffsetOutOfRange`] if the log does not have the offset; those of
/// [`Consumer::beginning_offsets`].
pub(crate) async fn resolve_start(
    cluster: &Cluster,
    partition: &TopicPartition,
    to: StartOffset,
    level: IsolationLevel,
) -> Result<i64> {
    check_start(partition, to)?;
    let list = async |at| {
        let targets = BTreeMap::from([(partition.clone(), at)]);
        let found = all_or_error(list_offsets(cluster, &targets, level, RetryPolicy::all_or_none(cluster)).await?)?;
        Ok::<_, Error>(found.get(partition).map_or(-1, |found| found.offset))
    };
    let offset = match to {
        StartOffset::Earliest => return list(EARLIEST).await,
        StartOffset::Latest => return list(LATEST).await,
        StartOffset::Timestamp(at) => match list(at.as_millis()).await? {
            none if none < 0 => return list(LATEST).await,
            found => return Ok(found),
        },
        StartOffset::Offset(offset) => offset,
    };
    let (first, end) = (list(EARLIEST).await?, list(LATEST).await?);
    if (first..=end).contains(&offset) {
        return Ok(offset);
    }
    let what = format!("{partition} can't be read from offset {offset}: its log is from {first} to {end}");
    Err(Error::new(ErrorKind::OffsetOutOfRange, what))
}

/// Returns an error for a position that no log has.
pub(crate) fn check_start(p: &TopicPartition, at: StartOffset) -> Result<()> {
    let number = match at {
        StartOffset::Offset(offset) => offset,
        StartOffset::Timestamp(at) => at.as_millis(),
        StartOffset::Earliest | StartOffset::Latest => return Ok(()),
    };
    if number >= 0 {
        return Ok(());
    }
    let what = format!("{p} can't be read from {number}: offsets and timestamps are not negative");
    Err(Error::new(ErrorKind::Config, what))
}
