//! OffsetCommit: committed offsets, and the request that commits them.

use std::collections::HashMap;

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetCommitResponse};
use kafka_protocol::protocol::StrBytes;

use super::fields::{by_topic, topic_name};
use crate::record::TopicPartition;

/// A committed offset, or one to commit, with leader epoch and metadata.
///
/// ```
/// use ailurus::OffsetAndMetadata;
///
/// let offset = OffsetAndMetadata::new(42).with_leader_epoch(7).with_metadata("checked");
/// assert_eq!((offset.offset, offset.leader_epoch), (42, Some(7)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OffsetAndMetadata {
    /// The offset of the next record to handle.
    pub offset: i64,
    /// The leader epoch of the last record before it, if known.
    pub leader_epoch: Option<i32>,
    /// Any text; brokers take up to 4,096 bytes of it, unless `offset.metadata.max.bytes` is
    /// another number.
    pub metadata: String,
}

impl OffsetAndMetadata {
    /// Creates an offset with neither leader epoch nor metadata.
    pub fn new(offset: i64) -> Self {
        Self { offset, leader_epoch: None, metadata: String::new() }
    }

    /// Sets the leader epoch of the last record before it.
    #[must_use]
    pub fn with_leader_epoch(mut self, leader_epoch: i32) -> Self {
        self.leader_epoch = Some(leader_epoch).filter(|epoch| *epoch >= 0);
        self
    }

    /// Sets a text that is returned with the committed offset.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<String>) -> Self {
        self.metadata = metadata.into();
        self
    }
}

/// A partition and its offset.
pub(crate) type PartitionOffset = (TopicPartition, OffsetAndMetadata);
/// Error codes of a commit by partition.
pub(crate) type CommitCodes = HashMap<TopicPartition, i16>;

/// Encodes a commit of a member in a generation.
pub(crate) fn encode_commit(
    group: &str,
    member_id: &str,
    generation: i32,
    offsets: &[PartitionOffset],
) -> OffsetCommitRequest {
    let topics = by_topic(offsets.iter().cloned()).into_iter().map(|(topic, offsets)| {
        let partition = |(index, offset): (i32, OffsetAndMetadata)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset.offset)
                .with_committed_leader_epoch(offset.leader_epoch.unwrap_or(-1))
                .with_committed_metadata(Some(StrBytes::from_string(offset.metadata)))
        };
        OffsetCommitRequestTopic::default()
            .with_name(topic_name(&topic))
            .with_partitions(offsets.into_iter().map(partition).collect())
    });
    OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_member_id(StrBytes::from_string(member_id.to_owned()))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(topics.collect())
}

pub(crate) fn decode_commit_response(response: &OffsetCommitResponse) -> CommitCodes {
    let topics = response.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (&t.name, p)));
    topics.map(|(name, p)| (TopicPartition::new(name.as_str(), p.partition_index), p.error_code)).collect()
}
