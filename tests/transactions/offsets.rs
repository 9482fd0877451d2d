//! Offsets that are committed with records, of groups of both protocols.

use ailurus::{Consumer, GroupProtocol, OffsetReset, Records};

use super::*;

/// A topic with three records to consume, and the name of a group.
pub(super) async fn input(test: &Setup) -> (String, String) {
    let topic = test.broker.topic("input");
    support::create_topic(&test.client, &topic, 1).await.unwrap();
    let producer = test.client.producer().start().unwrap();
    for value in ["1", "2", "3"] {
        producer.send(ProducerRecord::to(&*topic).value(value)).await.unwrap().await.unwrap();
    }
    producer.close(PATIENCE).await.unwrap();
    (topic, test.broker.group("g"))
}

pub(super) async fn member(test: &Setup, topic: &str, group: &str, protocol: GroupProtocol) -> (Consumer, Records) {
    let mut config = test.client.config().consumer.clone();
    config.group_protocol = protocol;
    config.offset_reset = OffsetReset::Earliest;
    config.isolation_level = IsolationLevel::ReadCommitted;
    let mut consumer = test.client.consumer(group).config(config).subscribe([topic]).await.unwrap();
    loop {
        let event = tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("records come").unwrap();
        if let ConsumerEvent::Records(batch) = event {
            return (consumer, batch);
        }
    }
}

pub(super) async fn committed(test: &Setup, topic: &str, group: &str) -> Option<i64> {
    let offsets = Admin::new(&test.client).describe_group(group).await.unwrap().offsets;
    offsets.iter().find(|at| at.topic == topic).and_then(|at| at.committed)
}

async fn offsets_go_with_the_transaction(protocol: GroupProtocol) {
    let test = Setup::new().await;
    let (topic, group) = input(&test).await;
    let (consumer, batch) = member(&test, &topic, &group, protocol).await;
    let metadata = consumer.group_metadata().unwrap();
    assert_eq!(metadata.group_id(), group);
    let mut producer = test.producer().await;

    let mut transaction = producer.begin().await.unwrap();
    _ = transaction.send(test.record(0, "aborted")).await.unwrap();
    transaction.send_offsets(&metadata, [(batch.topic_partition(), 1)]).unwrap();
    transaction.abort().await.unwrap();
    assert_eq!(committed(&test, &topic, &group).await, None);

    let mut transaction = producer.begin().await.unwrap();
    _ = transaction.send(test.record(0, "committed")).await.unwrap();
    transaction.send_offsets(&metadata, [(batch.topic_partition(), 1)]).unwrap();
    transaction.send_offsets(&metadata, [(batch.topic_partition(), 2)]).unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(committed(&test, &topic, &group).await, Some(2));

    let mut transaction = producer.begin().await.unwrap();
    transaction.send_offsets(&metadata, [(batch.topic_partition(), 3)]).unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(committed(&test, &topic, &group).await, Some(3), "without a record");
    assert_eq!(test.committed().await, ["committed"]);
    consumer.close().await.unwrap();
    producer.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn offsets_are_committed_with_the_transaction_in_a_classic_group() {
    offsets_go_with_the_transaction(GroupProtocol::Classic).await;
}

#[tokio::test]
async fn offsets_are_committed_with_the_transaction_in_a_kip_848_group() {
    offsets_go_with_the_transaction(GroupProtocol::Auto).await;
}

#[tokio::test]
async fn offsets_of_a_partition_that_is_not_assigned_abort_the_transaction() {
    let test = Setup::new().await;
    let (topic, group) = input(&test).await;
    let (consumer, batch) = member(&test, &topic, &group, GroupProtocol::Auto).await;
    let metadata = consumer.group_metadata().unwrap();
    consumer.close().await.unwrap();
    let mut producer = test.producer().await;
    let mut transaction = producer.begin().await.unwrap();
    _ = transaction.send(test.record(0, "aborted")).await.unwrap();
    let error = transaction.send_offsets(&metadata, [(batch.topic_partition(), -1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    transaction.send_offsets(&metadata, [(batch.topic_partition(), 1)]).unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(
        (error.action(), error.error().kind()),
        (TransactionAction::Abort, ErrorKind::GroupMembership),
        "{error}"
    );
    assert_eq!(committed(&test, &topic, &group).await, None);
    let transaction = producer.begin().await.unwrap();
    _ = transaction.send(test.record(0, "again")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(test.committed().await, ["again"]);
    producer.close(PATIENCE).await.unwrap();
}
