//! OffsetCommit: committed offsets, and the request that commits them.

use std::collections::HashMap;

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use kafka_protocol::protocol::StrBytes;

use super::fields::{encode_topics, group_id, text};
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

impl From<i64> for OffsetAndMetadata {
    fn from(offset: i64) -> Self {
        Self::new(offset)
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
    let partition = |index, offset: OffsetAndMetadata| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset.offset)
            .with_committed_leader_epoch(offset.leader_epoch.unwrap_or(-1))
            .with_committed_metadata(Some(StrBytes::from_string(offset.metadata)))
    };
    let topics = encode_topics(offsets.iter().cloned(), partition)
        .map(|(topic, partitions)| OffsetCommitRequestTopic::default().with_name(topic).with_partitions(partitions));
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_member_id(text(member_id))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(topics.collect())
}

pub(crate) fn decode_commit_response(response: &OffsetCommitResponse) -> CommitCodes {
    let topics = response.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (&t.name, p)));
    topics.map(|(name, p)| (TopicPartition::new(name.as_str(), p.partition_index), p.error_code)).collect()
}
