//! Offsets of positions in partitions, and deletion of records.

use std::collections::BTreeMap;

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_records_response::DeleteRecordsTopicResult;
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::Admin;
use crate::cluster::fields::encode_topics;
use crate::cluster::leaders::{Outcomes, RetryPolicy, all_or_error};
use crate::cluster::list_offsets::{EARLIEST, LATEST, list_offsets};
use crate::config::IsolationLevel;
use crate::consumer::StartOffset;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;

impl Admin {
    /// Returns the offset of a position in each partition; for a timestamp after the last record:
    /// the end offset. With [`IsolationLevel::ReadCommitted`] in the client's settings the end
    /// offset is the last stable offset.
    ///
    /// A request to a leader that has moved, or of a partition without a leader, is retried for the
    /// request timeout. [`list_offsets_each`](Self::list_offsets_each) returns what is available at
    /// once.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if a partition does not exist; nothing is created.
    pub async fn list_offsets(
        &self,
        partitions: &[TopicPartition],
        at: StartOffset,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        all_or_error(self.offsets_at(partitions, at, RetryPolicy::all_or_none(self.cluster())).await?)
    }

    /// Returns the offset of a position in each partition, or the partition's error, such as a
    /// missing leader. Takes about a second longer than the slowest broker that responds, and 5
    /// seconds for one that does not.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] if no broker can be reached; [`ErrorKind::Config`] for a negative timestamp.
    pub async fn list_offsets_each(
        &self,
        partitions: &[TopicPartition],
        at: StartOffset,
    ) -> Result<BTreeMap<TopicPartition, Result<i64>>> {
        self.offsets_at(partitions, at, RetryPolicy::best_effort(self.cluster())).await
    }

    async fn offsets_at(
        &self,
        partitions: &[TopicPartition],
        at: StartOffset,
        policy: RetryPolicy,
    ) -> Result<Outcomes<i64>> {
        let timestamp = match at {
            StartOffset::Latest => LATEST,
            StartOffset::Earliest => EARLIEST,
            StartOffset::Timestamp(at) if !at.is_none() => at.as_millis(),
            StartOffset::Timestamp(at) => {
                let at = at.as_millis();
                let what = format!("timestamp {at} can't be looked for: timestamps are not negative");
                return Err(Error::new(ErrorKind::Config, what));
            }
            StartOffset::Offset(o) => return Ok(partitions.iter().map(|p| (p.clone(), Ok(o))).collect()),
        };
        let mut found = self.offsets_of(partitions.iter().cloned(), timestamp, policy).await?;
        // A timestamp behind the last record has no offset: what comes next has.
        let none: Vec<_> = found.iter().filter(|(_, o)| matches!(o, Ok(..0))).map(|(p, _)| p.clone()).collect();
        found.extend(self.offsets_of(none, LATEST, policy).await?);
        Ok(found)
    }

    async fn offsets_of(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        timestamp: i64,
        policy: RetryPolicy,
    ) -> Result<Outcomes<i64>> {
        let level = self.cluster().config().consumer.isolation_level;
        self.offsets_for(partitions, timestamp, level, policy).await
    }

    /// Returns the end offset of each partition for readers of an isolation level, or the
    /// partition's error.
    pub(super) async fn ends_for(&self, partitions: &[TopicPartition], level: IsolationLevel) -> Result<Outcomes<i64>> {
        let policy = RetryPolicy::best_effort(self.cluster());
        self.offsets_for(partitions.iter().cloned(), LATEST, level, policy).await
    }

    async fn offsets_for(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        timestamp: i64,
        level: IsolationLevel,
        policy: RetryPolicy,
    ) -> Result<Outcomes<i64>> {
        let targets = partitions.into_iter().map(|p| (p, timestamp)).collect();
        let found = list_offsets(self.cluster(), &targets, level, policy).await?;
        Ok(found.into_iter().map(|(p, found)| (p, found.map(|at| at.offset))).collect())
    }

    /// Deletes the records before an offset in each partition, permanently; -1 means up to the high
    /// watermark. Returns the new start offsets.
    ///
    /// A request to a leader that has moved is retried for the request timeout.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if a partition does not exist; [`ErrorKind::OffsetOutOfRange`]
    /// for an offset after the high watermark; other errors of a broker. Records of other
    /// partitions may be deleted by then.
    pub async fn delete_records(
        &self,
        before: &BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let request = |of_leader: &[TopicPartition]| {
            // 0 deletes nothing.
            let bounds = of_leader.iter().map(|p| (p.clone(), before.get(p).copied().unwrap_or_default()));
            let partition =
                |index, offset| DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset);
            let topics = encode_topics(bounds, partition)
                .map(|(name, partitions)| DeleteRecordsTopic::default().with_name(name).with_partitions(partitions));
            DeleteRecordsRequest::default().with_topics(topics.collect()).with_timeout_ms(self.timeout_ms())
        };
        let decode = |response: DeleteRecordsResponse| {
            let of_topic = |t: DeleteRecordsTopicResult| {
                let place = move |p: i32| TopicPartition::new(t.name.as_str(), p);
                t.partitions.into_iter().map(move |p| (place(p.partition_index), p.error_code, p.low_watermark))
            };
            response.topics.into_iter().flat_map(of_topic).collect()
        };
        let (cluster, partitions) = (self.cluster(), before.keys().cloned());
        let policy = RetryPolicy::all_or_none(cluster);
        all_or_error(cluster.request_leaders("deleting records", partitions, policy, request, decode).await?)
    }
}
