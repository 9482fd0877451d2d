//! Requests of a transaction, counted, and faults: on the embedded broker, with the versions of each release.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ailurus_broker::{Fault, Versions};

use super::*;

const APIS: [(i16, &str); 8] = [
    (0, "Produce"),
    (10, "FindCoordinator"),
    (18, "ApiVersions"),
    (22, "InitProducerId"),
    (24, "AddPartitionsToTxn"),
    (25, "AddOffsetsToTxn"),
    (26, "EndTxn"),
    (28, "TxnOffsetCommit"),
];
const END_TXN: i16 = 26;

/// Each release's versions, and its version of transactions.
pub(super) fn releases() -> [(Versions, i16); 4] {
    [(Versions::redpanda_24_3(), 1), (Versions::redpanda_26_2(), 1), (Versions::kafka_3_9(), 1), (Versions::kafka(), 2)]
}

fn counts(broker: &ailurus_broker::Broker) -> BTreeMap<&'static str, u64> {
    APIS.iter().map(|(key, name)| (*name, broker.request_count(*key))).collect()
}

fn since(broker: &ailurus_broker::Broker, before: &BTreeMap<&'static str, u64>) -> String {
    let more = counts(broker).into_iter().map(|(name, count)| (name, count - before[name]));
    more.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

/// Begins a transaction with a record for each partition, which have a leader each, and an offset.
async fn fill<'a>(
    test: &Setup,
    producer: &'a mut TransactionalProducer,
    metadata: &ailurus::consumer::ConsumerGroupMetadata,
    input: &TopicPartition,
    offset: i64,
) -> ailurus::Transaction<'a> {
    let mut transaction = producer.begin().await.unwrap();
    for partition in 0..3 {
        _ = transaction.send(test.record(partition, "x")).await.unwrap();
    }
    transaction.send_offsets(metadata, [(input.clone(), offset)]).unwrap();
    transaction
}

#[tokio::test]
async fn requests_of_a_transaction_are_no_more_than_needed() {
    for (versions, level) in releases() {
        let test = Setup::offering(versions).await;
        let Some(broker) = test.broker.embedded() else { return };
        let (topic, group) = offsets::input(&test).await;
        let (consumer, batch) = offsets::member(&test, &topic, &group, ailurus::GroupProtocol::Classic).await;
        let metadata = consumer.group_metadata().unwrap();
        let mut producer = test.producer().await;
        // The first finds coordinators and connects.
        fill(&test, &mut producer, &metadata, &batch.topic_partition(), 1).await.commit().await.unwrap();

        let before = counts(broker);
        fill(&test, &mut producer, &metadata, &batch.topic_partition(), 2).await.commit().await.unwrap();
        let expected = match level {
            1 => "1 AddOffsetsToTxn, 1 AddPartitionsToTxn, 1 EndTxn, 3 Produce, 1 TxnOffsetCommit",
            _ => "1 EndTxn, 3 Produce, 1 TxnOffsetCommit",
        };
        assert_eq!(since(broker, &before), expected);

        let before = counts(broker);
        producer.begin().await.unwrap().commit().await.unwrap();
        producer.begin().await.unwrap().abort().await.unwrap();
        drop(producer.begin().await.unwrap());
        producer.begin().await.unwrap().commit().await.unwrap();
        assert_eq!(since(broker, &before), "", "of empty transactions");
        assert_eq!(offsets::committed(&test, &topic, &group).await, Some(2));
        consumer.close().await.unwrap();
        producer.close(PATIENCE).await.unwrap();
    }
}

/// Commits twice, with faults in the requests with these numbers of one API; the records are there once.
async fn commits_despite(api: i16, fault: Fault) {
    for (versions, _) in releases() {
        let test = Setup::offering(versions).await;
        let Some(broker) = test.broker.embedded() else { return };
        let requests = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&requests);
        broker.set_hook(move |r| {
            let first = r.api_key == api && count.fetch_add(1, Ordering::SeqCst) == 0;
            first.then_some(fault)
        });
        let mut producer = test.producer().await;
        for value in ["1", "2"] {
            let transaction = producer.begin().await.unwrap();
            for partition in 0..3 {
                _ = transaction.send(test.record(partition, value)).await.unwrap();
            }
            transaction.commit().await.unwrap();
        }
        assert_eq!(test.committed().await, ["1", "1", "1", "2", "2", "2"]);
        producer.close(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_request_or_response_is_sent_again() {
    for (api, _) in APIS.into_iter().filter(|(api, _)| ![18, 25, 28].contains(api)) {
        for fault in [Fault::Close, Fault::DropResponse] {
            commits_despite(api, fault).await;
        }
    }
}

#[tokio::test]
async fn transient_codes_are_retried() {
    for code in [14, 15, 16, 51] {
        for api in [22, 24, END_TXN] {
            commits_despite(api, Fault::Error(code)).await;
        }
    }
    commits_despite(0, Fault::Error(6)).await;
}

#[tokio::test]
async fn a_coordinator_that_moves_is_found_again() {
    for (versions, _) in releases() {
        let test = Setup::offering(versions).await;
        let Some(broker) = test.broker.embedded() else { return };
        let mut producer = test.producer().await;
        let mut expected = Vec::new();
        for n in 0..6 {
            let transaction = producer.begin().await.unwrap();
            let value = n.to_string();
            _ = transaction.send(test.record(0, &value)).await.unwrap().await.unwrap();
            let id = test.id();
            broker.move_transaction_coordinator(&id, (broker.transaction_coordinator(&id).unwrap() + 1) % 3).unwrap();
            transaction.commit().await.unwrap();
            expected.push(value);
        }
        assert_eq!(test.committed().await, expected);
        producer.close(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn a_late_copy_of_a_commit_does_not_end_the_next_transaction() {
    for (versions, _) in releases() {
        let test = Setup::offering(versions).await;
        let Some(broker) = test.broker.embedded() else { return };
        let requests = AtomicU32::new(0);
        broker.set_hook(move |r| {
            let first = r.api_key == END_TXN && requests.fetch_add(1, Ordering::SeqCst) == 0;
            first.then_some(Fault::Hold)
        });
        let mut producer = test.producer().await;
        let transaction = producer.begin().await.unwrap();
        _ = transaction.send(test.record(0, "first")).await.unwrap();
        transaction.commit().await.unwrap();
        let transaction = producer.begin().await.unwrap();
        transaction.send(test.record(0, "aborted")).await.unwrap().await.unwrap();
        assert_eq!(broker.release_held().await, 1);
        transaction.send(test.record(1, "aborted")).await.unwrap().await.unwrap();
        transaction.abort().await.unwrap();
        assert_eq!(test.committed().await, ["first"]);
        producer.close(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn an_upgrade_and_a_downgrade_of_the_version_count_from_a_later_begin() {
    let test = Setup::offering(Versions::kafka()).await;
    let Some(broker) = test.broker.embedded() else { return };
    let mut expected = Vec::new();
    let mut producer = test.producer().await;
    for level in [2, 1, 2, 0, 2] {
        let transaction = producer.begin().await.unwrap();
        let value = format!("{}", expected.len());
        _ = transaction.send(test.record(0, &value)).await.unwrap();
        assert!(broker.set_transaction_version(level));
        transaction.commit().await.unwrap();
        expected.push(value);
        // Connecting to another coordinator shows the version.
        let id = test.id();
        broker.move_transaction_coordinator(&id, (broker.transaction_coordinator(&id).unwrap() + 1) % 3).unwrap();
    }
    assert_eq!(test.committed().await, expected);
    producer.close(PATIENCE).await.unwrap();
}
