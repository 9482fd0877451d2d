//! Produce: appends batches to logs.

use std::io;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use super::text;
use crate::cluster::Cluster;
use crate::log::{self, ValidBatch};
use crate::request::{Context, Response};
use crate::shared::Shared;
use crate::topic_config::TopicConfig;

const ALL: i16 = -1;

pub(super) fn handle(shared: &Shared, cx: &Context, request: ProduceRequest) -> io::Result<Response> {
    let acks = request.acks;
    let allowed = match acks {
        ALL..=1 => Ok(()),
        _ => Err(ResponseError::InvalidRequiredAcks),
    };
    let mut failed = false;
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        // Checksums and copies are made before the lock is taken.
        let check = |p: PartitionProduceData| {
            (p.index, log::validate(&p.records.unwrap_or_default(), shared.config.check_records))
        };
        let checked: Vec<_> = topic.partition_data.into_iter().map(check).collect();
        let mut cluster = shared.cluster();
        let name = match cx.version {
            ..=12 => Some(topic.name.to_string()),
            _ => cluster.topic_name(topic.topic_id).map(str::to_owned),
        };
        let mut one = |(index, batch): (i32, Result<ValidBatch, ResponseError>)| {
            let check_fault = cx.check_partition_fault(index).and(allowed);
            let appended = check_fault.map_err(ProduceError::from).and_then(|()| match &name {
                Some(name) => append(shared, cx, &mut cluster, (name, index), batch, acks),
                None => Err(ResponseError::UnknownTopicId.into()),
            });
            let appended =
                appended.and_then(|done| cx.check_fault_after_append().map(|()| done).map_err(ProduceError::from));
            failed |= appended.is_err();
            let response = PartitionProduceResponse::default().with_index(index);
            match appended {
                Ok((base, start)) => response.with_base_offset(base).with_log_start_offset(start),
                Err(ProduceError { error, records }) => {
                    // Versions before 8 have no record errors.
                    let records = records.into_iter().filter(|_| cx.version >= 8);
                    let one = |index| {
                        let message = match cx.record_error_interval() {
                            Some(_) => "injected by a hook",
                            None => "a compacted topic rejects records without a key",
                        };
                        BatchIndexAndErrorMessage::default()
                            .with_batch_index(index)
                            .with_batch_index_error_message(Some(text(message)))
                    };
                    let response = response.with_base_offset(-1).with_error_code(error.code());
                    response.with_record_errors(records.map(one).collect())
                }
            }
        };
        let partitions = checked.into_iter().map(&mut one).collect();
        let response = TopicProduceResponse::default().with_partition_responses(partitions);
        responses.push(if cx.version <= 12 {
            response.with_name(topic.name)
        } else {
            response.with_topic_id(topic.topic_id)
        });
    }
    match acks {
        // Without a response, closing the connection is the only way to report an error.
        0 if failed => Ok(Response::Close),
        0 => Ok(Response::None),
        _ => cx.encode(&ProduceResponse::default().with_responses(responses)),
    }
}

/// Error of a batch that was not appended.
struct ProduceError {
    error: ResponseError,
    /// Indexes of the invalid records in the batch.
    records: Vec<i32>,
}

impl From<ResponseError> for ProduceError {
    fn from(error: ResponseError) -> Self {
        Self { error, records: Vec::new() }
    }
}

/// Returns base offset and log start offset.
fn append(
    shared: &Shared,
    cx: &Context,
    cluster: &mut Cluster,
    (topic, partition): (&str, i32),
    batch: Result<ValidBatch, ResponseError>,
    acks: i16,
) -> Result<(i64, i64), ProduceError> {
    let config = cluster.topics.get(topic).map(|t| &t.config);
    let max = config.map_or(usize::MAX, |c| c.max_message_bytes(&shared.config));
    let compacted = config.is_some_and(TopicConfig::is_compacted);
    let min_in_sync = config.map_or(1, |c| c.min_insync_replicas());
    let retention = config.and_then(|c| c.retention_bytes(&shared.config));
    let replicas = cluster.leader_partition(cx.node, topic, partition)?.replicas.clone();
    let in_sync = replicas.iter().filter(|&&n| cluster.is_up(n)).count();
    if acks == ALL && in_sync < min_in_sync {
        return Err(ResponseError::NotEnoughReplicas.into());
    }
    let batch = batch?;
    if batch.size() > max {
        return Err(ResponseError::MessageTooLarge.into());
    }
    let records = match cx.record_error_interval() {
        Some(every) => batch.record_indexes().step_by(every).collect(),
        None if compacted => batch.indexes_without_key(),
        None => Vec::new(),
    };
    if !records.is_empty() {
        return Err(ProduceError { error: ResponseError::InvalidRecord, records });
    }
    let leader = cluster.leader_partition(cx.node, topic, partition)?;
    let base = leader.log.append(batch, leader.leader_epoch)?;
    if let Some(limit) = retention {
        leader.log.retain_bytes(limit);
    }
    Ok((base, leader.log.start()))
}
