//! AddPartitionsToTxn: registers partitions with the coordinator before the first batch. From version
//! 4 on it is a request between brokers, for several transactions.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use super::code;
use super::transaction::{check_coordinator, complete_last, producer, transaction_version, without_fenced};
use crate::request::Context;
use crate::shared::Shared;
use crate::transaction::Participant;

/// First version with PRODUCER_FENCED.
const FENCED_VERSION: i16 = 2;
/// First version with several transactions.
const BATCH_VERSION: i16 = 4;
/// First version that adds by the rules of version 2 of the protocol.
const V2_VERSION: i16 = 5;

pub(super) fn handle(shared: &Shared, cx: &Context, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    if cx.version < BATCH_VERSION {
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        let results = add(shared, cx, transaction);
        return AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results);
    }
    let one = |transaction: AddPartitionsToTxnTransaction| {
        let out = AddPartitionsToTxnResult::default().with_transactional_id(transaction.transactional_id.clone());
        out.with_topic_results(add(shared, cx, transaction))
    };
    let results = request.transactions.into_iter().map(one).collect();
    AddPartitionsToTxnResponse::default().with_error_code(code(&cx.check_fault())).with_results_by_transaction(results)
}

/// Adds all partitions, or none: then the unknown ones name the cause.
fn add(shared: &Shared, cx: &Context, request: AddPartitionsToTxnTransaction) -> Vec<AddPartitionsToTxnTopicResult> {
    let topics = &request.topics;
    let each = |topic: &AddPartitionsToTxnTopic| {
        let name = topic.name.to_string();
        topic.partitions.iter().map(|&p| Participant::Partition(name.clone(), p)).collect::<Vec<_>>()
    };
    let participants: Vec<Participant> = topics.iter().flat_map(each).collect();
    let is_known = |shared: &Shared, topic: &str, p| shared.cluster().partition(topic, p).is_some();
    let known: Vec<bool> =
        topics.iter().flat_map(|t| t.partitions.iter().map(|&p| is_known(shared, &t.name, p))).collect();
    let codes: Vec<i16> = if known.contains(&false) && cx.check_fault().is_ok() {
        let code = |&known: &bool| match known {
            true => ResponseError::OperationNotAttempted.code(),
            false => ResponseError::UnknownTopicOrPartition.code(),
        };
        known.iter().map(code).collect()
    } else {
        add_known(shared, cx, &request, participants)
    };
    let mut codes = codes.into_iter();
    let mut result = |topic: AddPartitionsToTxnTopic| {
        let one = |(partition, code)| {
            AddPartitionsToTxnPartitionResult::default().with_partition_index(partition).with_partition_error_code(code)
        };
        let results = topic.partitions.into_iter().zip(&mut codes).map(one).collect();
        AddPartitionsToTxnTopicResult::default().with_name(topic.name).with_results_by_partition(results)
    };
    request.topics.into_iter().map(&mut result).collect()
}

/// Returns the error code of each partition.
fn add_known(
    shared: &Shared,
    cx: &Context,
    request: &AddPartitionsToTxnTransaction,
    participants: Vec<Participant>,
) -> Vec<i16> {
    let id = &request.transactional_id;
    let producer = producer(request.producer_id, request.producer_epoch);
    let older = |error| if cx.version < FENCED_VERSION { without_fenced(error) } else { error };
    let checked = check_coordinator(shared, cx, id);
    let count = participants.len();
    if let Err(error) = checked {
        return vec![error.code(); count];
    }
    complete_last(shared, id);
    let mut transactions = shared.transactions();
    let now = shared.now();
    if request.verify_only {
        let verified = participants.iter().map(|p| code(&transactions.verify(id, producer, p, now)));
        return verified.collect();
    }
    let added = transactions.add(id, producer, participants, transaction_version(cx, V2_VERSION), now);
    vec![code(&added.map_err(older)); count]
}
