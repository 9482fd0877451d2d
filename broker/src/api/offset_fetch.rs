//! OffsetFetch: the committed offsets of groups.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};

use super::{check_coordinator, text};
use crate::group::{CommittedOffset, Group};
use crate::request::Context;
use crate::shared::Shared;

/// First version with several groups.
const BATCH_VERSION: i16 = 8;

/// Topics with their partitions.
type RequestedOffsets = Vec<(TopicName, Vec<i32>)>;
type FoundOffsets = Vec<(TopicName, Vec<FoundOffset>)>;

/// Offset of a partition, and its error code.
type FoundOffset = (i32, CommittedOffset, i16);

pub(super) fn handle(shared: &Shared, cx: &Context, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if cx.version < BATCH_VERSION {
        let requested = request.topics.map(|ts| ts.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        return match find(shared, cx, &request.group_id, None, requested, request.require_stable) {
            Err(error) => OffsetFetchResponse::default().with_error_code(error.code()),
            Ok(found) => OffsetFetchResponse::default().with_topics(found.into_iter().map(|t| topic(cx, t)).collect()),
        };
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let requested = group.topics.map(|ts| ts.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
        let member = group.member_id.as_ref().map(|id| (id.as_str(), group.member_epoch));
        let found = find(shared, cx, &group.group_id, member, requested, request.require_stable);
        let out = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
        groups.push(match found {
            Err(error) => out.with_error_code(error.code()),
            Ok(found) => out.with_topics(found.into_iter().map(topic_of_group).collect()),
        });
    }
    OffsetFetchResponse::default().with_groups(groups)
}

/// Returns the requested offsets, -1 for none, or all if none is named. In a group of the
/// `consumer` protocol, checks the epoch of the member if one is named. With `require_stable`, an
/// offset that an open transaction commits is an error.
fn find(
    shared: &Shared,
    cx: &Context,
    group: &str,
    member: Option<(&str, i32)>,
    requested: Option<RequestedOffsets>,
    require_stable: bool,
) -> Result<FoundOffsets, ResponseError> {
    check_coordinator(shared, cx, group)?;
    let groups = shared.groups();
    if let (Some(consumer), Some((id, epoch))) = (groups.get(group).and_then(Group::consumer), member) {
        consumer.check_epoch(id, epoch)?;
    }
    let empty = BTreeMap::new();
    let offsets = groups.get(group).map_or(&empty, |g| g.offsets());
    let none = || CommittedOffset { offset: -1, leader_epoch: -1, metadata: Some(String::new()) };
    let is_stable = |topic: &str, partition| {
        !require_stable || !groups.get(group).is_some_and(|g| g.has_pending_offset(topic, partition))
    };
    let found = |topic: &str, partition, committed| match is_stable(topic, partition) {
        true => (partition, committed, 0),
        false => (partition, none(), ResponseError::UnstableOffsetCommit.code()),
    };
    let Some(requested) = requested else {
        let mut all: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for ((topic, partition), committed) in offsets {
            all.entry(topic).or_default().push(found(topic, *partition, committed.clone()));
        }
        return Ok(all.into_iter().map(|(topic, offsets)| (TopicName(text(topic)), offsets)).collect());
    };
    let one = |topic: &TopicName, p| offsets.get(&(topic.to_string(), p)).cloned().unwrap_or_else(none);
    Ok(requested
        .into_iter()
        .map(|(topic, partitions)| {
            let offsets = partitions.into_iter().map(|p| found(&topic, p, one(&topic, p))).collect();
            (topic, offsets)
        })
        .collect())
}

fn topic(cx: &Context, (name, found): (TopicName, Vec<FoundOffset>)) -> OffsetFetchResponseTopic {
    let one = |(index, committed, code): FoundOffset| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_error_code(code)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(if cx.version >= 5 { committed.leader_epoch } else { -1 })
            .with_metadata(committed.metadata.map(text))
    };
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(found.into_iter().map(one).collect())
}

fn topic_of_group((name, found): (TopicName, Vec<FoundOffset>)) -> OffsetFetchResponseTopics {
    let one = |(index, committed, code): FoundOffset| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_error_code(code)
            .with_committed_offset(committed.offset)
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(committed.metadata.map(text))
    };
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(found.into_iter().map(one).collect())
}
