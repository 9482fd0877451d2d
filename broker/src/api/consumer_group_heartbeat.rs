//! ConsumerGroupHeartbeat: a member of the `consumer` protocol joins, stays or leaves, and gets its
//! assignment.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use uuid::Uuid;

use super::{check_coordinator, owned, text};
use crate::consumer_group::{
    Assignor, HeartbeatRequest, HeartbeatResponse, JOIN_EPOCH, LEAVE_EPOCH, Partitions, STATIC_LEAVE_EPOCH, Topics,
};
use crate::error::ApiError;
use crate::group::Group;
use crate::request::Context;
use crate::shared::Shared;

/// First version in which the client generates the member id (KIP-1082).
const CLIENT_MEMBER_ID_VERSION: i16 = 1;

pub(super) fn handle(
    shared: &Shared,
    cx: &Context,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    match serve(shared, cx, &request) {
        Ok(response) => {
            let interval = i32::try_from(shared.config.heartbeat_interval.as_millis()).unwrap_or(i32::MAX);
            ConsumerGroupHeartbeatResponse::default()
                .with_member_id(Some(text(response.member_id)))
                .with_member_epoch(response.epoch)
                .with_heartbeat_interval_ms(if response.epoch < 0 { 0 } else { interval })
                .with_assignment(response.assignment.as_ref().map(assignment))
        }
        Err(error) => ConsumerGroupHeartbeatResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(text(error.message))),
    }
}

fn serve(
    shared: &Shared,
    cx: &Context,
    request: &ConsumerGroupHeartbeatRequest,
) -> Result<HeartbeatResponse, ApiError> {
    check(cx, request).map_err(|message| ApiError::new(ResponseError::InvalidRequest, message))?;
    check_coordinator(shared, cx, &request.group_id)?;
    let epoch = request.member_epoch;
    let mut heartbeat = heartbeat_request(cx, request)?;
    let now = shared.now();
    if epoch < 0 {
        let (id, instance) = (heartbeat.member_id, heartbeat.instance_id.as_deref());
        let step = |group: &mut Group| group.consumer_leave(&id, instance, epoch == STATIC_LEAVE_EPOCH);
        let left = shared.groups().update(&request.group_id, false, step);
        left.unwrap_or(Err(ResponseError::GroupIdNotFound))?;
        return Ok(HeartbeatResponse { member_id: id, epoch, assignment: None });
    }
    if heartbeat.member_id.is_empty() {
        heartbeat.member_id = Uuid::now_v7().to_string();
    }
    let topics: Topics = {
        let cluster = shared.cluster();
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        cluster.topics.iter().map(|(name, t)| (name.clone(), (t.id, count(t.partitions.len())))).collect()
    };
    let step = |group: &mut Group| group.consumer_heartbeat(heartbeat, &topics, now);
    let response = shared.groups().update(&request.group_id, epoch == JOIN_EPOCH, step);
    Ok(response.unwrap_or(Err(ResponseError::GroupIdNotFound))?)
}

/// Validates a request.
fn check(cx: &Context, request: &ConsumerGroupHeartbeatRequest) -> Result<(), &'static str> {
    let reject_if = |invalid: bool, message: &'static str| if invalid { Err(message) } else { Ok(()) };
    let epoch = request.member_epoch;
    reject_if(request.group_id.is_empty(), "GroupId can't be empty.")?;
    reject_if(request.instance_id.as_ref().is_some_and(|i| i.is_empty()), "InstanceId can't be empty.")?;
    reject_if(request.rack_id.as_ref().is_some_and(|r| r.is_empty()), "RackId can't be empty.")?;
    let has_member_id = cx.version < CLIENT_MEMBER_ID_VERSION && epoch == JOIN_EPOCH || !request.member_id.is_empty();
    reject_if(!has_member_id, "MemberId can't be empty.")?;
    match epoch {
        JOIN_EPOCH => {
            reject_if(request.rebalance_timeout_ms == -1, "RebalanceTimeoutMs must be provided in first request.")?;
            let owned = request.topic_partitions.as_ref();
            reject_if(owned.is_none_or(|o| !o.is_empty()), "TopicPartitions must be empty when (re-)joining.")?;
            let no_subscription = request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none();
            reject_if(
                no_subscription,
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            )
        }
        STATIC_LEAVE_EPOCH => reject_if(request.instance_id.is_none(), "InstanceId can't be null."),
        LEAVE_EPOCH => Ok(()),
        epoch => reject_if(epoch < 0, "MemberEpoch is invalid."),
    }
}

fn heartbeat_request(cx: &Context, request: &ConsumerGroupHeartbeatRequest) -> Result<HeartbeatRequest, ApiError> {
    if request.subscribed_topic_regex.as_ref().is_some_and(|r| !r.is_empty()) {
        let message = "Regular expressions are not supported by this broker.";
        return Err(ApiError::new(ResponseError::InvalidRegularExpression, message));
    }
    let assignor = match &request.server_assignor {
        None => None,
        Some(name) => Some(Assignor::by_name(name).ok_or_else(|| {
            let message =
                format!("ServerAssignor {} is not supported. Supported assignors: uniform, range.", name.as_str());
            ApiError::new(ResponseError::UnsupportedAssignor, message)
        })?),
    };
    let timeout = u64::try_from(request.rebalance_timeout_ms).ok();
    let names = request.subscribed_topic_names.as_ref();
    let partitions = request.topic_partitions.as_ref().map(|topics| {
        let of = |t: &kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions| {
            let topic = t.topic_id;
            t.partitions.iter().map(move |p| (topic, *p)).collect::<Vec<_>>()
        };
        topics.iter().flat_map(of).collect::<Partitions>()
    });
    Ok(HeartbeatRequest {
        member_id: request.member_id.to_string(),
        epoch: request.member_epoch,
        instance_id: owned(request.instance_id.as_ref()),
        rack_id: owned(request.rack_id.as_ref()),
        rebalance_timeout: timeout.map(Duration::from_millis),
        topics: names.map(|names| names.iter().map(|n| n.to_string()).collect()),
        assignor,
        owned: partitions,
        client_id: cx.client_id.clone(),
        client_host: cx.client_host.clone(),
    })
}

fn assignment(partitions: &Partitions) -> Assignment {
    let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for &(topic, partition) in partitions {
        topics.entry(topic).or_default().push(partition);
    }
    let topic = |(id, partitions)| TopicPartitions::default().with_topic_id(id).with_partitions(partitions);
    Assignment::default().with_topic_partitions(topics.into_iter().map(topic).collect())
}
