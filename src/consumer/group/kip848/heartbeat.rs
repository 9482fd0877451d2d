//! ConsumerGroupHeartbeat, the one request of the `consumer` group protocol (KIP-848).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use uuid::Uuid;

use crate::cluster::fields::{group_id, millis, text, topic_name};
use crate::config::ConsumerConfig;
use crate::consumer::group::requests::{RequestFailure, instance_id};

/// A partition, named by the id of its topic.
pub(crate) type IdPartition = (Uuid, i32);

/// A heartbeat of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeartbeatRequest {
    pub(crate) member_id: String,
    /// Epoch of the last response; 0 joins, -1 leaves, -2 leaves as a static member that will be
    /// back.
    pub(crate) epoch: i32,
    /// True to include subscription and settings, for a coordinator that may not know them.
    pub(crate) full: bool,
    /// The owned partitions, if the coordinator does not know them yet.
    pub(crate) owned: Option<BTreeSet<IdPartition>>,
}

/// The coordinator's response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeartbeatResponse {
    pub(crate) member_id: Option<String>,
    pub(crate) epoch: i32,
    /// Time until the next heartbeat.
    pub(crate) interval: Duration,
    /// The target assignment, if it has changed.
    pub(crate) assignment: Option<BTreeSet<IdPartition>>,
}

pub(crate) fn encode_heartbeat(
    group: &str,
    topics: &BTreeSet<String>,
    config: &ConsumerConfig,
    heartbeat: HeartbeatRequest,
) -> ConsumerGroupHeartbeatRequest {
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group_id(group))
        .with_member_id(heartbeat.member_id.into())
        .with_member_epoch(heartbeat.epoch)
        .with_instance_id(instance_id(config))
        .with_rebalance_timeout_ms(-1)
        .with_topic_partitions(heartbeat.owned.as_ref().map(by_topic));
    if !heartbeat.full {
        return request;
    }
    let assignor = config.group_remote_assignor.as_deref().map(text);
    request
        .with_rebalance_timeout_ms(millis(config.rebalance_timeout))
        .with_subscribed_topic_names(Some(topics.iter().map(|t| topic_name(t)).collect()))
        .with_server_assignor(assignor)
}

fn by_topic(partitions: &BTreeSet<IdPartition>) -> Vec<TopicPartitions> {
    let mut topics: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(*topic).or_default().push(*partition);
    }
    let topic = |(id, partitions)| TopicPartitions::default().with_topic_id(id).with_partitions(partitions);
    topics.into_iter().map(topic).collect()
}

/// Returns what a response assigns. With an error comes the coordinator's message.
pub(crate) fn check_heartbeat(
    r: ConsumerGroupHeartbeatResponse,
) -> Result<HeartbeatResponse, (RequestFailure, String)> {
    if r.error_code != 0 {
        let message = r.error_message.map(|m| m.to_string()).unwrap_or_default();
        return Err((RequestFailure::Code(r.error_code), message));
    }
    let assignment = r.assignment.map(|a| {
        let of = |t: kafka_protocol::messages::consumer_group_heartbeat_response::TopicPartitions| {
            let id = t.topic_id;
            t.partitions.into_iter().filter(|p| *p >= 0).map(move |p| (id, p))
        };
        a.topic_partitions.into_iter().flat_map(of).collect()
    });
    Ok(HeartbeatResponse {
        member_id: r.member_id.map(|id| id.to_string()).filter(|id| !id.is_empty()),
        epoch: r.member_epoch,
        interval: Duration::from_millis(u64::try_from(r.heartbeat_interval_ms).unwrap_or(0)),
        assignment,
    })
}
