//! DescribeTransactions.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName, TransactionalId,
};

use super::text;
use super::transaction::check_coordinator;
use crate::markers::{OFFSETS_TOPIC, offsets_partition};
use crate::request::Context;
use crate::shared::{Shared, now_ms};
use crate::transaction::{Participant, TransactionMetadata};

pub(super) fn handle(
    shared: &Shared,
    cx: &Context,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let one = |id: TransactionalId| {
        let described = check_coordinator(shared, cx, &id).and_then(|()| {
            let transactions = shared.transactions();
            transactions.get(&id).map(|t| describe(shared, t)).ok_or(ResponseError::TransactionalIdNotFound)
        });
        let failed = |error: ResponseError| {
            let out = TransactionState::default().with_error_code(error.code());
            out.with_producer_id(ProducerId(-1)).with_transaction_start_time_ms(-1)
        };
        described.unwrap_or_else(failed).with_transactional_id(id)
    };
    let states = request.transactional_ids.into_iter().map(one).collect();
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

fn describe(shared: &Shared, transaction: &TransactionMetadata) -> TransactionState {
    let mut topics: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for participant in transaction.participants() {
        let (topic, partition) = match participant {
            Participant::Partition(topic, partition) => (topic.as_str(), *partition),
            Participant::Group(group) => (OFFSETS_TOPIC, offsets_partition(group)),
        };
        topics.entry(topic).or_default().insert(partition);
    }
    let topic = |(name, partitions): (&str, BTreeSet<i32>)| {
        TopicData::default().with_topic(TopicName(text(name))).with_partitions(partitions.into_iter().collect())
    };
    let age = transaction.started_at().map(|at| shared.now().saturating_duration_since(at).as_millis());
    let started = age.map_or(-1, |age| now_ms() - i64::try_from(age).unwrap_or(0));
    let producer = transaction.producer();
    TransactionState::default()
        .with_transaction_state(text(transaction.state().name()))
        .with_transaction_timeout_ms(i32::try_from(transaction.timeout().as_millis()).unwrap_or(i32::MAX))
        .with_transaction_start_time_ms(started)
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_topics(topics.into_iter().map(topic).collect())
}
