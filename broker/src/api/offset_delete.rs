//! OffsetDelete: deletes committed offsets, unless members subscribe to the topic.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic;
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::check_coordinator;
use crate::group::Group;
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let partitions: Vec<Option<usize>> = {
        let cluster = shared.cluster();
        request.topics.iter().map(|t| cluster.topics.get(t.name.as_str()).map(|t| t.partitions.len())).collect()
    };
    let deleted = check_coordinator(shared, cx, &request.group_id).and_then(|()| {
        let step = |group: &mut Group| {
            if group.has_members() && group.protocol_type() != "consumer" {
                return Err(ResponseError::NonEmptyGroup);
            }
            let topics = request.topics.iter().zip(&partitions);
            Ok(topics.map(|(topic, partition_count)| delete(group, topic, *partition_count)).collect::<Vec<_>>())
        };
        shared.groups().update(&request.group_id, false, step).unwrap_or(Err(ResponseError::GroupIdNotFound))
    });
    match deleted {
        Ok(topics) => OffsetDeleteResponse::default().with_topics(topics),
        Err(error) => OffsetDeleteResponse::default().with_error_code(error.code()),
    }
}

/// `partition_count` is `None` if the topic does not exist.
fn delete(
    group: &mut Group,
    topic: &OffsetDeleteRequestTopic,
    partition_count: Option<usize>,
) -> OffsetDeleteResponseTopic {
    let subscribed = group.is_subscribed_to(&topic.name);
    let mut one = |index: i32| {
        let out = OffsetDeleteResponsePartition::default().with_partition_index(index);
        let exists = partition_count.is_some_and(|n| usize::try_from(index).is_ok_and(|i| i < n));
        if !exists {
            return out.with_error_code(ResponseError::UnknownTopicOrPartition.code());
        }
        if subscribed {
            return out.with_error_code(ResponseError::GroupSubscribedToTopic.code());
        }
        group.delete_offset(&topic.name, index);
        out
    };
    let partitions = topic.partitions.iter().map(|p| one(p.partition_index)).collect();
    OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
}
