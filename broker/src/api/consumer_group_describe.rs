//! ConsumerGroupDescribe: state, members and assignments of groups of the `consumer` protocol.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member as MemberResponse, TopicPartitions,
};
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId, TopicName};
use uuid::Uuid;

use super::{check_coordinator, text};
use crate::consumer_group::{ConsumerGroup, Member, Partitions};
use crate::group::Group;
use crate::request::Context;
use crate::shared::Shared;

/// Member type of the `consumer` protocol.
const CONSUMER_MEMBER_TYPE: i8 = 1;
/// First version with a member type.
const MEMBER_TYPE_VERSION: i16 = 1;

type Names = BTreeMap<Uuid, String>;

pub(super) fn handle(
    shared: &Shared,
    cx: &Context,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let names: Names = shared.cluster().topics.iter().map(|(name, t)| (t.id, name.clone())).collect();
    let one = |id: GroupId| {
        let out = DescribedGroup::default().with_group_id(id.clone());
        if let Err(error) = check_coordinator(shared, cx, &id) {
            return out.with_error_code(error.code());
        }
        let groups = shared.groups();
        match groups.get(&id).map(Group::consumer) {
            Some(Some(group)) => describe(cx, out, group, &names),
            found => {
                let reason = if found.is_some() { "is not a consumer group" } else { "not found" };
                out.with_error_code(ResponseError::GroupIdNotFound.code())
                    .with_error_message(Some(text(format!("Group {} {reason}.", id.as_str()))))
            }
        }
    };
    ConsumerGroupDescribeResponse::default().with_groups(request.group_ids.into_iter().map(one).collect())
}

fn describe(cx: &Context, out: DescribedGroup, group: &ConsumerGroup, names: &Names) -> DescribedGroup {
    let member = |(id, m): (&str, &Member)| {
        let out = MemberResponse::default()
            .with_member_id(text(id))
            .with_instance_id(m.instance_id.clone().map(text))
            .with_rack_id(m.rack_id.clone().map(text))
            .with_member_epoch(m.epoch)
            .with_client_id(text(m.client_id.clone()))
            .with_client_host(text(m.client_host.clone()))
            .with_subscribed_topic_names(m.topics.iter().map(|t| TopicName(text(t.clone()))).collect())
            .with_assignment(assignment(&m.assigned, names))
            .with_target_assignment(assignment(&group.target(id), names));
        if cx.version >= MEMBER_TYPE_VERSION { out.with_member_type(CONSUMER_MEMBER_TYPE) } else { out }
    };
    out.with_group_state(text(group.state()))
        .with_group_epoch(group.epoch())
        .with_assignment_epoch(group.target_epoch())
        .with_assignor_name(text(group.assignor().name()))
        .with_members(group.members().map(member).collect())
}

fn assignment(partitions: &Partitions, names: &Names) -> Assignment {
    let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for &(topic, partition) in partitions {
        topics.entry(topic).or_default().push(partition);
    }
    let topic = |(id, partitions): (Uuid, Vec<i32>)| {
        let name = names.get(&id).cloned().unwrap_or_default();
        let out = TopicPartitions::default().with_topic_id(id).with_topic_name(TopicName(text(name)));
        out.with_partitions(partitions)
    };
    Assignment::default().with_topic_partitions(topics.into_iter().map(topic).collect())
}
