//! TxnOffsetCommit: adds offsets of a group to a transaction.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::transaction::{producer, unverified, wait_for_completion};
use super::{check_coordinator, code, offset_commit, owned};
use crate::group::{CommittedOffset, Group, MemberKey, Phase};
use crate::request::Context;
use crate::shared::Shared;
use crate::transaction::{
    Participant, ProducerIdAndEpoch, TransactionCoordinator, TransactionRules, TransactionVersion,
};

/// First version with TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION: i16 = 4;
/// First version that registers the group itself (KIP-890).
const V2_VERSION: i16 = 5;

pub(super) async fn handle(shared: &Shared, cx: &Context, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    if cx.version >= V2_VERSION {
        wait_for_completion(shared, &request.transactional_id).await;
    }
    let refused =
        |error: ResponseError| request.topics.iter().map(|t| vec![error.code(); t.partitions.len()]).collect();
    let codes: Vec<Vec<i16>> = commit(shared, cx, &request).unwrap_or_else(refused);
    let topic = |(topic, codes): (TxnOffsetCommitRequestTopic, Vec<i16>)| {
        let one = |(index, code)| {
            TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
        };
        let partitions = topic.partitions.iter().map(|p| p.partition_index).zip(codes).map(one).collect();
        TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    };
    TxnOffsetCommitResponse::default().with_topics(request.topics.into_iter().zip(codes).map(topic).collect())
}

/// Returns the error code of each partition of each topic.
fn commit(shared: &Shared, cx: &Context, request: &TxnOffsetCommitRequest) -> Result<Vec<Vec<i16>>, ResponseError> {
    check_coordinator(shared, cx, &request.group_id)?;
    let producer = producer(request.producer_id, request.producer_epoch);
    // Held until the offsets are pending, or a marker could come between check and commit.
    let mut transactions = shared.transactions();
    let rules = transactions.rules();
    register(shared, cx, &mut transactions, request, producer)
        .map_err(|error| unverified(rules, error, cx.version >= ABORTABLE_VERSION))?;
    let known: Vec<bool> = {
        let cluster = shared.cluster();
        request.topics.iter().map(|t| cluster.topics.contains_key(t.name.as_str())).collect()
    };
    let key = MemberKey { id: &request.member_id, instance: request.group_instance_id.as_deref() };
    let generation = request.generation_id;
    let step = |group: &mut Group| {
        if rules == TransactionRules::Redpanda && group.phase() == Phase::CompletingRebalance {
            return Err(ResponseError::ConcurrentTransactions);
        }
        group.check_txn_commit(key, generation)?;
        let topics = request.topics.iter().zip(&known);
        Ok(topics.map(|(topic, &known)| commit_topic(group, producer, topic, known)).collect())
    };
    let committed = shared.groups().update(&request.group_id, generation < 0, step);
    committed.unwrap_or(Err(ResponseError::IllegalGeneration))
}

/// Verifies that the group was added to the transaction; with version 2, adds it. An open
/// transaction of the group needs no verification.
fn register(
    shared: &Shared,
    cx: &Context,
    transactions: &mut TransactionCoordinator,
    request: &TxnOffsetCommitRequest,
    producer: ProducerIdAndEpoch,
) -> Result<(), ResponseError> {
    let group = &request.group_id;
    let is_open = shared.groups().get(group).is_some_and(|g| g.has_open_transaction(producer.id, producer.epoch));
    if is_open {
        return Ok(());
    }
    let (id, group) = (&request.transactional_id, Participant::Group(group.to_string()));
    if cx.version >= V2_VERSION {
        transactions.add(id, producer, [group], TransactionVersion::V2, shared.now())
    } else {
        transactions.verify(id, producer, &group, shared.now())
    }
}

fn commit_topic(
    group: &mut Group,
    producer: ProducerIdAndEpoch,
    topic: &TxnOffsetCommitRequestTopic,
    known: bool,
) -> Vec<i16> {
    let mut one = |p: &TxnOffsetCommitRequestPartition| {
        if !known {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        let metadata = owned(p.committed_metadata.as_ref());
        offset_commit::check_metadata(metadata.as_deref())?;
        let (offset, leader_epoch) = (p.committed_offset, p.committed_leader_epoch);
        let committed = CommittedOffset { offset, leader_epoch, metadata };
        group.add_pending_offset((producer.id, producer.epoch), &topic.name, p.partition_index, committed);
        Ok(())
    };
    topic.partitions.iter().map(|p| code(&one(p))).collect()
}
