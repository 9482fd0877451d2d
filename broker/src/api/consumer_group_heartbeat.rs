//! ConsumerGroupHeartbeat: a member of the `consumer` protocol joins, is alive, or leaves, and learns what is assigned to it.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use uuid::Uuid;

use super::{check_coordinator, owned, text};
use crate::consumer_group::{Assignor, Beat, Beaten, JOIN, LEAVE, LEAVE_FOR_NOW, Partitions, Topics};
use crate::group::Group;
use crate::request::Context;
use crate::shared::Shared;

/// From this version on the member makes its id itself (KIP-1082).
const OWN_ID: i16 = 1;

pub(super) fn handle(
    shared: &Shared,
    cx: &Context,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    match serve(shared, cx, &request) {
        Ok(beaten) => {
            let interval = i32::try_from(shared.config.heartbeat_interval.as_millis()).unwrap_or(i32::MAX);
            ConsumerGroupHeartbeatResponse::default()
                .with_member_id(Some(text(beaten.member_id)))
                .with_member_epoch(beaten.epoch)
                .with_heartbeat_interval_ms(if beaten.epoch < 0 { 0 } else { interval })
                .with_assignment(beaten.assignment.as_ref().map(assignment))
        }
        Err((error, why)) => {
            ConsumerGroupHeartbeatResponse::default().with_error_code(error.code()).with_error_message(Some(text(why)))
        }
    }
}

type Refused = (ResponseError, String);

fn plain(error: ResponseError) -> Refused {
    (error, error.to_string())
}

fn serve(shared: &Shared, cx: &Context, request: &ConsumerGroupHeartbeatRequest) -> Result<Beaten, Refused> {
    check(cx, request).map_err(|why| (ResponseError::InvalidRequest, why.to_owned()))?;
    check_coordinator(shared, cx, &request.group_id).map_err(plain)?;
    let epoch = request.member_epoch;
    let mut beat = beat(cx, request)?;
    let now = shared.now();
    if epoch < 0 {
        let (id, instance) = (beat.member_id, beat.instance_id.as_deref());
        let step = |group: &mut Group| group.consumer_leave(&id, instance, epoch == LEAVE_FOR_NOW);
        let left = shared.groups().update(&request.group_id, false, step);
        left.unwrap_or(Err(ResponseError::GroupIdNotFound)).map_err(plain)?;
        return Ok(Beaten { member_id: id, epoch, assignment: None });
    }
    if beat.member_id.is_empty() {
        beat.member_id = Uuid::now_v7().to_string();
    }
    let topics: Topics = {
        let cluster = shared.cluster();
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        cluster.topics.iter().map(|(name, t)| (name.clone(), (t.id, count(t.partitions.len())))).collect()
    };
    let step = |group: &mut Group| group.consumer_heartbeat(beat, &topics, now);
    let beaten = shared.groups().update(&request.group_id, epoch == JOIN, step);
    beaten.unwrap_or(Err(ResponseError::GroupIdNotFound)).map_err(plain)
}

/// What a request must have.
fn check(cx: &Context, request: &ConsumerGroupHeartbeatRequest) -> Result<(), &'static str> {
    let fails = |wrong: bool, why: &'static str| if wrong { Err(why) } else { Ok(()) };
    let epoch = request.member_epoch;
    fails(request.group_id.is_empty(), "GroupId can't be empty.")?;
    fails(request.instance_id.as_ref().is_some_and(|i| i.is_empty()), "InstanceId can't be empty.")?;
    fails(request.rack_id.as_ref().is_some_and(|r| r.is_empty()), "RackId can't be empty.")?;
    let named = cx.version < OWN_ID && epoch == JOIN || !request.member_id.is_empty();
    fails(!named, "MemberId can't be empty.")?;
    match epoch {
        JOIN => {
            fails(request.rebalance_timeout_ms == -1, "RebalanceTimeoutMs must be provided in first request.")?;
            let owned = request.topic_partitions.as_ref();
            fails(owned.is_none_or(|o| !o.is_empty()), "TopicPartitions must be empty when (re-)joining.")?;
            let nothing = request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none();
            fails(nothing, "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")
        }
        LEAVE_FOR_NOW => fails(request.instance_id.is_none(), "InstanceId can't be null."),
        LEAVE => Ok(()),
        epoch => fails(epoch < 0, "MemberEpoch is invalid."),
    }
}

fn beat(cx: &Context, request: &ConsumerGroupHeartbeatRequest) -> Result<Beat, Refused> {
    if request.subscribed_topic_regex.as_ref().is_some_and(|r| !r.is_empty()) {
        let why = "Regular expressions are not supported by this broker.";
        return Err((ResponseError::InvalidRegularExpression, why.into()));
    }
    let assignor = match &request.server_assignor {
        None => None,
        Some(name) => Some(Assignor::by_name(name).ok_or_else(|| {
            let why =
                format!("ServerAssignor {} is not supported. Supported assignors: uniform, range.", name.as_str());
            (ResponseError::UnsupportedAssignor, why)
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
    Ok(Beat {
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
