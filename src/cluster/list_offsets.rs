//! ListOffsets: the offset of a partition's start, its end, or the first record at or after a
//! timestamp.

use std::collections::BTreeMap;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse};

use super::Cluster;
use super::fields::{encode_topics, isolation};
use super::leaders::{Outcomes, RetryPolicy};
use crate::config::IsolationLevel;
use crate::error::Result;
use crate::record::TopicPartition;
use crate::timestamp::Timestamp;

/// Timestamp that means the end of a partition.
pub(crate) const LATEST: i64 = -1;
/// Timestamp that means the start of a partition.
pub(crate) const EARLIEST: i64 = -2;

/// A record's offset and timestamp, from
/// [`Consumer::offsets_for_times`](crate::Consumer::offsets_for_times).
///
/// ```
/// fn print(found: ailurus::consumer::OffsetAndTimestamp) {
///     println!("at {:?}: offset {}", found.timestamp, found.offset);
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetAndTimestamp {
    /// The offset.
    pub offset: i64,
    /// The record's timestamp; none for the start and the end of a log.
    pub timestamp: Option<Timestamp>,
    /// The epoch of the leader that wrote it, -1 if the broker does not return it (KIP-320).
    pub leader_epoch: i32,
}

/// Requests the offset of a timestamp, [`LATEST`] or [`EARLIEST`] in each partition: -1 for a
/// timestamp behind the last record.
///
/// # Errors
/// If no broker returns metadata.
pub(crate) async fn list_offsets(
    cluster: &Cluster,
    targets: &BTreeMap<TopicPartition, i64>,
    level: IsolationLevel,
    policy: RetryPolicy,
) -> Result<Outcomes<OffsetAndTimestamp>> {
    let request = |of_leader: &[TopicPartition]| {
        encode_request(of_leader.iter().filter_map(|p| targets.get(p).map(|at| (p.clone(), (-1, *at)))), level)
    };
    let partitions = targets.keys().cloned();
    cluster.request_leaders("listing offsets", partitions, policy, request, decode_response).await
}

/// Encodes a request to one leader: for each partition the known leader epoch, or -1, and a
/// timestamp, [`LATEST`] or [`EARLIEST`].
pub(crate) fn encode_request(
    targets: impl IntoIterator<Item = (TopicPartition, (i32, i64))>,
    level: IsolationLevel,
) -> ListOffsetsRequest {
    let encode = |partition, (leader_epoch, timestamp)| {
        ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(leader_epoch)
            .with_timestamp(timestamp)
    };
    let topics = encode_topics(targets, encode)
        .map(|(name, partitions)| ListOffsetsTopic::default().with_name(name).with_partitions(partitions));
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation(level))
        .with_topics(topics.collect())
}

/// Decodes a response: error code and offset of each partition.
pub(crate) fn decode_response(response: ListOffsetsResponse) -> Vec<(TopicPartition, i16, OffsetAndTimestamp)> {
    let of_topic = |t: ListOffsetsTopicResponse| {
        t.partitions.into_iter().map(move |p| {
            let ListOffsetsPartitionResponse { offset, timestamp, leader_epoch, .. } = p;
            let timestamp = Some(Timestamp::from_millis(timestamp)).filter(|at| !at.is_none());
            let found = OffsetAndTimestamp { offset, timestamp, leader_epoch };
            (TopicPartition::new(t.name.as_str(), p.partition_index), p.error_code, found)
        })
    };
    response.topics.into_iter().flat_map(of_topic).collect()
}
