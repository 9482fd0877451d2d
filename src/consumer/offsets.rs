//! Committed offsets and the ends of logs: what is asked and what the answers mean.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    BrokerId, GroupId, ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::StartOffset;
use super::listing::{EARLIEST, LATEST};
use super::tracker::Ask;
use crate::code;
use crate::config::IsolationLevel;
use crate::error::Result;
use crate::record::TopicPartition;

/// A committed offset, or one to commit, with what goes with it.
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
    /// Of the next record to handle.
    pub offset: i64,
    /// The leader epoch of the last record before it, if known.
    pub leader_epoch: Option<i32>,
    /// Any text; brokers take up to 4,096 bytes of it unless they are told otherwise (`offset.metadata.max.bytes`).
    pub metadata: String,
}

impl OffsetAndMetadata {
    /// An offset with neither leader epoch nor metadata.
    pub fn new(offset: i64) -> Self {
        Self { offset, leader_epoch: None, metadata: String::new() }
    }

    /// With the leader epoch of the last record before it.
    #[must_use]
    pub fn with_leader_epoch(mut self, leader_epoch: i32) -> Self {
        self.leader_epoch = Some(leader_epoch).filter(|epoch| *epoch >= 0);
        self
    }

    /// With a text that is given back to whoever asks for the committed offset.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<String>) -> Self {
        self.metadata = metadata.into();
        self
    }
}

/// An offset of a partition.
pub(crate) type Offset = (TopicPartition, OffsetAndMetadata);
/// What a coordinator answered to a commit.
pub(crate) type Codes = HashMap<TopicPartition, i16>;

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// The level as requests name it.
pub(crate) fn isolation(level: IsolationLevel) -> i8 {
    match level {
        IsolationLevel::ReadUncommitted => 0,
        IsolationLevel::ReadCommitted => 1,
    }
}

/// Partitions by topic, as requests want them.
pub(crate) fn by_topic<T>(
    all: impl IntoIterator<Item = (TopicPartition, T)>,
) -> BTreeMap<std::sync::Arc<str>, Vec<(i32, T)>> {
    let mut topics: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (p, what) in all {
        topics.entry(p.topic).or_default().push((p.partition, what));
    }
    topics
}

/// Asks for committed offsets; with `stable`, not for those that a transaction may still take back.
pub(crate) fn committed_request(group: &str, partitions: &[TopicPartition], stable: bool) -> OffsetFetchRequest {
    let topics = by_topic(partitions.iter().map(|p| (p.clone(), ()))).into_iter().map(|(topic, partitions)| {
        OffsetFetchRequestTopic::default()
            .with_name(topic_name(&topic))
            .with_partition_indexes(partitions.into_iter().map(|(p, ())| p).collect())
    });
    OffsetFetchRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_topics(Some(topics.collect()))
        .with_require_stable(stable)
}

/// The committed offsets, of those partitions that have one; or an error code.
pub(crate) fn committed_answer(
    answer: &OffsetFetchResponse,
) -> Result<HashMap<TopicPartition, OffsetAndMetadata>, i16> {
    if answer.error_code != 0 {
        return Err(answer.error_code);
    }
    let mut committed = HashMap::new();
    for topic in &answer.topics {
        for p in &topic.partitions {
            match p.error_code {
                0 if p.committed_offset >= 0 => {
                    let metadata = p.metadata.as_ref().map_or("", |m| m.as_str());
                    let offset = OffsetAndMetadata::new(p.committed_offset)
                        .with_leader_epoch(p.committed_leader_epoch)
                        .with_metadata(metadata);
                    committed.insert(TopicPartition::new(topic.name.as_str(), p.partition_index), offset);
                }
                // Nothing can be committed for a topic that is gone.
                0 | code::UNKNOWN_TOPIC_OR_PARTITION => {}
                code => return Err(code),
            }
        }
    }
    Ok(committed)
}

/// Asks a leader for the offset at an end of the log or at a time.
pub(crate) fn list_request(asks: &[Ask<StartOffset>], level: IsolationLevel) -> ListOffsetsRequest {
    let timestamp = |to: StartOffset| match to {
        StartOffset::Latest => LATEST,
        StartOffset::Timestamp(at) => at,
        StartOffset::Earliest | StartOffset::Offset(_) => EARLIEST, // an offset has nothing to ask for
    };
    let topics = by_topic(asks.iter().map(|a| (a.lease.partition.clone(), a))).into_iter().map(|(topic, asks)| {
        let partition = |(index, ask): (i32, &Ask<StartOffset>)| {
            ListOffsetsPartition::default()
                .with_partition_index(index)
                .with_current_leader_epoch(ask.leader_epoch)
                .with_timestamp(timestamp(ask.what))
        };
        ListOffsetsTopic::default()
            .with_name(topic_name(&topic))
            .with_partitions(asks.into_iter().map(partition).collect())
    });
    ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation(level))
        .with_topics(topics.collect())
}

/// Offset and leader epoch of what was asked for, or an error code.
pub(crate) fn list_answer(answer: &ListOffsetsResponse) -> HashMap<TopicPartition, Result<(i64, Option<i32>), i16>> {
    let topics = answer.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (&t.name, p)));
    topics
        .map(|(name, p)| {
            let epoch = Some(p.leader_epoch).filter(|epoch| *epoch >= 0);
            let outcome = if p.error_code == 0 { Ok((p.offset, epoch)) } else { Err(p.error_code) };
            (TopicPartition::new(name.as_str(), p.partition_index), outcome)
        })
        .collect()
}

/// A commit in the name of a generation.
pub(crate) fn commit_request(group: &str, member_id: &str, generation: i32, offsets: &[Offset]) -> OffsetCommitRequest {
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

pub(crate) fn commit_answer(answer: &OffsetCommitResponse) -> Codes {
    let topics = answer.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (&t.name, p)));
    topics.map(|(name, p)| (TopicPartition::new(name.as_str(), p.partition_index), p.error_code)).collect()
}

#[cfg(test)]
#[path = "offsets_tests.rs"]
mod tests;
