//! Produce: appends batches to logs.

use std::io;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use super::text;
use super::transaction::{unverified, wait_for_completion};
use crate::cluster::Cluster;
use crate::log::{self, Log, ValidBatch};
use crate::request::{Context, Response};
use crate::shared::Shared;
use crate::topic_config::TopicConfig;
use crate::transaction::{Participant, ProducerIdAndEpoch, TransactionCoordinator, TransactionVersion};

const ALL: i16 = -1;
/// First version with TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION: i16 = 11;
/// First version in which the leader registers the partition with the coordinator (KIP-890).
const V2_VERSION: i16 = 12;

/// The coordinator, and the transactional id of the request.
type Transaction<'a> = (&'a mut TransactionCoordinator, Option<&'a str>);

pub(super) async fn handle(shared: &Shared, cx: &Context, request: ProduceRequest) -> io::Result<Response> {
    if let Some(id) = request.transactional_id.as_ref().filter(|_| cx.version >= V2_VERSION) {
        wait_for_completion(shared, id).await;
    }
    append_all(shared, cx, request)
}

fn append_all(shared: &Shared, cx: &Context, request: ProduceRequest) -> io::Result<Response> {
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
        // Held until the batches are appended, or a marker could come between check and append.
        let mut transactions = has_transactions(&checked).then(|| shared.transactions());
        let mut cluster = shared.cluster();
        let name = match cx.version {
            ..=12 => Some(topic.name.to_string()),
            _ => cluster.topic_name(topic.topic_id).map(str::to_owned),
        };
        let id = request.transactional_id.as_ref().map(|id| id.as_str());
        let mut one = |(index, batch): (i32, Result<ValidBatch, ResponseError>)| {
            let check_fault = cx.check_partition_fault(index).and(allowed);
            let appended = check_fault.map_err(ProduceError::from).and_then(|()| match &name {
                Some(name) => {
                    let transaction = transactions.as_deref_mut().map(|coordinator| (coordinator, id));
                    append(shared, cx, (&mut cluster, transaction), (name, index), batch, acks)
                }
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

fn has_transactions(batches: &[(i32, Result<ValidBatch, ResponseError>)]) -> bool {
    batches.iter().any(|(_, batch)| batch.as_ref().is_ok_and(ValidBatch::is_transactional))
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
    (cluster, transaction): (&mut Cluster, Option<Transaction<'_>>),
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
    if let Some((coordinator, id)) = transaction.filter(|_| batch.is_transactional()) {
        let id = id.filter(|_| shared.config.versions.has_transactions());
        let id = id.ok_or(ResponseError::TransactionalIdAuthorizationFailed)?;
        let participant = Participant::Partition(topic.to_owned(), partition);
        register(shared, cx, coordinator, &leader.log, id, &batch, participant)?;
    }
    let base = leader.log.append(batch, leader.leader_epoch)?;
    if let Some(limit) = retention {
        leader.log.retain_bytes(limit);
    }
    Ok((base, leader.log.start()))
}

/// Verifies that the partition was added to the transaction; with version 2, adds it. An open
/// transaction of the partition needs no verification.
fn register(
    shared: &Shared,
    cx: &Context,
    coordinator: &mut TransactionCoordinator,
    log: &Log,
    id: &str,
    batch: &ValidBatch,
    participant: Participant,
) -> Result<(), ResponseError> {
    let (producer_id, epoch) = batch.producer();
    if log.has_open_transaction(producer_id, epoch) {
        return Ok(());
    }
    let producer = ProducerIdAndEpoch { id: producer_id, epoch };
    let registered = if cx.version >= V2_VERSION {
        coordinator.add(id, producer, [participant], TransactionVersion::V2, shared.now())
    } else {
        coordinator.verify(id, producer, &participant, shared.now())
    };
    let rules = coordinator.rules();
    registered.map_err(|error| match unverified(rules, error, cx.version >= ABORTABLE_VERSION) {
        ResponseError::ConcurrentTransactions if cx.version >= V2_VERSION => ResponseError::ConcurrentTransactions,
        // Errors that clients of older versions may not retry.
        ResponseError::ConcurrentTransactions | ResponseError::CoordinatorLoadInProgress => {
            ResponseError::NotEnoughReplicas
        }
        error => error,
    })
}
