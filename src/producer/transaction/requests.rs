//! The requests to coordinators, encoded, and their responses.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiVersionsResponse, EndTxnRequest,
    EndTxnResponse, InitProducerIdRequest, ProducerId, TransactionalId, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::action::{RequestKind, action_of};
use super::core::{RequestFailure, Response};
use crate::cluster::fields::{encode_topics, group_id, millis, partitions_by_topic, text};
use crate::cluster::group_metadata::GroupMember;
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::code;
use crate::error::Error;
use crate::producer::partition::ProducerIdAndEpoch;
use crate::record::TopicPartition;

/// The feature whose finalized level is the version of transactions (KIP-890).
const FEATURE: &str = "transaction.version";

fn transactional_id(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

pub(super) fn init_producer_id(
    id: &str,
    timeout: Duration,
    present: Option<ProducerIdAndEpoch>,
) -> InitProducerIdRequest {
    let present = present.unwrap_or(ProducerIdAndEpoch { id: -1, epoch: -1 });
    InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(id)))
        .with_transaction_timeout_ms(millis(timeout))
        .with_producer_id(ProducerId(present.id))
        .with_producer_epoch(present.epoch)
}

pub(super) fn add_partitions(
    id: &str,
    producer: ProducerIdAndEpoch,
    partitions: &[TopicPartition],
) -> AddPartitionsToTxnRequest {
    let topics = partitions_by_topic(partitions)
        .map(|(name, partitions)| AddPartitionsToTxnTopic::default().with_name(name).with_partitions(partitions));
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id(id))
        .with_v3_and_below_producer_id(ProducerId(producer.id))
        .with_v3_and_below_producer_epoch(producer.epoch)
        .with_v3_and_below_topics(topics.collect())
}

pub(super) fn add_offsets(id: &str, producer: ProducerIdAndEpoch, group: &str) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_group_id(group_id(group))
}

pub(super) fn commit_offsets(
    id: &str,
    producer: ProducerIdAndEpoch,
    group: &str,
    member: GroupMember,
    offsets: &BTreeMap<TopicPartition, OffsetAndMetadata>,
) -> TxnOffsetCommitRequest {
    let partition = |index, at: &OffsetAndMetadata| {
        TxnOffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(at.offset)
            .with_committed_leader_epoch(at.leader_epoch.unwrap_or(-1))
            .with_committed_metadata(Some(text(&at.metadata)))
    };
    let topics = encode_topics(offsets.iter().map(|(p, at)| (p.clone(), at)), partition)
        .map(|(name, partitions)| TxnOffsetCommitRequestTopic::default().with_name(name).with_partitions(partitions));
    TxnOffsetCommitRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_group_id(group_id(group))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_generation_id(member.generation)
        .with_member_id(StrBytes::from_string(member.member_id))
        .with_group_instance_id(member.instance_id.map(StrBytes::from_string))
        .with_topics(topics.collect())
}

pub(super) fn end_txn(id: &str, producer: ProducerIdAndEpoch, commit: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_committed(commit)
}

/// Returns the failure of a response with an error code.
pub(super) fn check(code: i16, what: &str) -> Result<(), RequestFailure> {
    match code {
        0 => Ok(()),
        code => Err(RequestFailure { code: Some(code), error: Error::broker(code, what) }),
    }
}

/// Returns the failure of a response with a code for each partition: the one that decides.
fn check_partitions(
    kind: RequestKind,
    what: &str,
    codes: impl Iterator<Item = (String, i16)>,
) -> Result<Response, RequestFailure> {
    let failed = codes.filter(|(_, code)| *code != 0);
    // The cause, and not what was not attempted because of it.
    match failed.max_by_key(|(_, code)| (action_of(kind, *code), *code != code::OPERATION_NOT_ATTEMPTED)) {
        None => Ok(Response::Done),
        Some((partition, code)) => Err(RequestFailure {
            code: Some(code),
            error: Error::broker(code, format_args!("{what}, partition {partition}")),
        }),
    }
}

pub(super) fn check_added(response: &AddPartitionsToTxnResponse, what: &str) -> Result<Response, RequestFailure> {
    let topics = response.results_by_topic_v3_and_below.iter();
    let codes = topics.flat_map(|t| {
        let code = |p: &kafka_protocol::messages::add_partitions_to_txn_response::AddPartitionsToTxnPartitionResult| {
            (format!("{}/{}", t.name.as_str(), p.partition_index), p.partition_error_code)
        };
        t.results_by_partition.iter().map(code)
    });
    check_partitions(RequestKind::AddPartitions, what, codes)
}

pub(super) fn check_offsets(response: &TxnOffsetCommitResponse, what: &str) -> Result<Response, RequestFailure> {
    let codes = response.topics.iter().flat_map(|t| {
        t.partitions.iter().map(|p| (format!("{}/{}", t.name.as_str(), p.partition_index), p.error_code))
    });
    check_partitions(RequestKind::CommitOffsets, what, codes)
}

/// Returns the producer id and epoch of the next transaction, which version 2 has in the response.
pub(super) fn check_ended(response: &EndTxnResponse, what: &str) -> Result<Response, RequestFailure> {
    check(response.error_code, what)?;
    Ok(match response.producer_id.0 {
        id if id >= 0 => Response::Producer(ProducerIdAndEpoch { id, epoch: response.producer_epoch }),
        _ => Response::Done,
    })
}

/// Returns the epoch of a broker's finalized features, and the level of `transaction.version`.
pub(super) fn feature(response: &ApiVersionsResponse) -> (i64, i16) {
    let mut features = response.finalized_features.iter();
    let level = features.find(|f| f.name.as_str() == FEATURE).map_or(0, |f| f.max_version_level);
    (response.finalized_features_epoch, level)
}
