//! DescribeProducers: the producers of partitions, and the starts of their open transactions.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::text;
use crate::log::Log;
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let one = |&index: &i32| {
            let out = PartitionResponse::default().with_partition_index(index);
            match describe(shared, cx, &topic.name, index) {
                Ok(producers) => out.with_active_producers(producers),
                Err(error) => out.with_error_code(error.code()).with_error_message(Some(text(error.to_string()))),
            }
        };
        let partitions = topic.partition_indexes.iter().map(one).collect();
        topics.push(TopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

fn describe(shared: &Shared, cx: &Context, topic: &str, partition: i32) -> Result<Vec<ProducerState>, ResponseError> {
    cx.check_fault()?;
    let mut cluster = shared.cluster();
    let log: &Log = &cluster.leader_partition(cx.node, topic, partition)?.log;
    let one = |(id, state): (i64, &crate::log::ProducerState)| {
        ProducerState::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(state.epoch.into())
            .with_last_sequence(state.last_sequence())
            .with_last_timestamp(state.last_timestamp)
            .with_coordinator_epoch(state.coordinator_epoch)
            .with_current_txn_start_offset(log.open_transaction(id).unwrap_or(-1))
    };
    Ok(log.producers().map(one).collect())
}
