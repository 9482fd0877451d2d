//! Requests of the fetch tasks, and the decoding of their responses.

use std::collections::HashMap;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::planner::{PartitionRequest, PositionCheck};
use super::source::FetchPlan;
use crate::cluster::fields::{encode_topics, isolation, millis, partitions_by_topic, topic_name};
use crate::cluster::list_offsets::{self, EARLIEST, LATEST};
use crate::config::{ConsumerConfig, IsolationLevel};
use crate::consumer::event::StartOffset;
use crate::record::TopicPartition;

pub(super) fn fetch_request(plan: &FetchPlan, config: &ConsumerConfig) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for request in &plan.requests {
        let partition = FetchPartition::default()
            .with_partition(request.lease.partition.partition)
            .with_current_leader_epoch(request.leader_epoch)
            .with_fetch_offset(request.what.offset)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(to_i32(request.what.max_bytes));
        // The broker fills the response in this order: the partition served longest ago comes first.
        let name = &request.lease.partition.topic;
        let place = *places.entry(name).or_insert_with(|| {
            topics.push(FetchTopic::default().with_topic(topic_name(name)));
            topics.len() - 1
        });
        topics[place].partitions.push(partition);
    }
    let forgotten = partitions_by_topic(&plan.forgotten)
        .map(|(name, partitions)| ForgottenTopic::default().with_topic(name).with_partitions(partitions));
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(millis(plan.wait))
        .with_min_bytes(to_i32(config.fetch_min_bytes.max(1)))
        .with_max_bytes(to_i32(plan.max_bytes))
        .with_isolation_level(isolation(config.isolation_level))
        .with_session_id(plan.session.id)
        .with_session_epoch(plan.session.epoch)
        .with_forgotten_topics_data(forgotten.collect())
        .with_rack_id(StrBytes::from_string(config.client_rack.clone().unwrap_or_default()))
        .with_topics(topics)
}

/// Builds the request for the end offsets of leader epochs (KIP-320).
pub(super) fn leader_epochs_request(requests: &[PartitionRequest<PositionCheck>]) -> OffsetForLeaderEpochRequest {
    let partition = |index, request: &PartitionRequest<PositionCheck>| {
        OffsetForLeaderPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(request.leader_epoch)
            .with_leader_epoch(request.what.epoch)
    };
    let topics = encode_topics(requests.iter().map(|a| (a.lease.partition.clone(), a)), partition)
        .map(|(name, partitions)| OffsetForLeaderTopic::default().with_topic(name).with_partitions(partitions));
    OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect())
}

/// Returns the end offset of each epoch, none if the leader does not know it, or an error code.
pub(super) fn decode_leader_epochs(
    response: &OffsetForLeaderEpochResponse,
) -> HashMap<TopicPartition, Result<Option<i64>, i16>> {
    let partitions = response.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (&t.topic, p)));
    partitions
        .map(|(name, p)| {
            let end = Some(p.end_offset).filter(|end| *end >= 0 && p.leader_epoch >= 0);
            let outcome = if p.error_code == 0 { Ok(end) } else { Err(p.error_code) };
            (TopicPartition::new(name.as_str(), p.partition), outcome)
        })
        .collect()
}

fn to_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Builds the request for offsets at an end of the log or at a timestamp.
pub(crate) fn list_offsets_request(
    requests: &[PartitionRequest<StartOffset>],
    level: IsolationLevel,
) -> ListOffsetsRequest {
    let timestamp = |to: StartOffset| match to {
        StartOffset::Latest => LATEST,
        StartOffset::Timestamp(at) => at.as_millis(),
        StartOffset::Earliest | StartOffset::Offset(_) => EARLIEST, // an offset needs no request
    };
    let requests = requests.iter().map(|a| (a.lease.partition.clone(), (a.leader_epoch, timestamp(a.what))));
    list_offsets::encode_request(requests, level)
}

/// Returns the listed offset and its leader epoch, or an error code.
pub(crate) fn decode_list_offsets(
    response: ListOffsetsResponse,
) -> HashMap<TopicPartition, Result<(i64, Option<i32>), i16>> {
    list_offsets::decode_response(response)
        .into_iter()
        .map(|(partition, code, found)| {
            let epoch = Some(found.leader_epoch).filter(|epoch| *epoch >= 0);
            (partition, if code == 0 { Ok((found.offset, epoch)) } else { Err(code) })
        })
        .collect()
}
