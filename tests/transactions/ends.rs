//! Commit, abort, and what is neither.

use super::*;

#[tokio::test]
async fn records_are_visible_after_the_commit_and_not_before() {
    let test = Setup::new().await;
    let mut producer = test.producer().await;
    let transaction = producer.begin().await.unwrap();
    for partition in 0..3 {
        transaction.send(test.record(partition, "a")).await.unwrap().await.unwrap();
    }
    assert_eq!(test.read(IsolationLevel::ReadUncommitted, false).await, ["a", "a", "a"]);
    assert!(test.read(IsolationLevel::ReadCommitted, true).await.is_empty());
    _ = transaction.send(test.record(0, "b")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(test.committed().await, ["a", "a", "a", "b"]);
    assert_eq!(producer.outcome().await.unwrap().unwrap(), TransactionOutcome::Committed);
    producer.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn aborted_records_are_never_visible() {
    let test = Setup::new().await;
    let mut producer = test.producer().await;
    for round in 0..3 {
        let transaction = producer.begin().await.unwrap();
        transaction.send(test.record(round, "aborted")).await.unwrap().await.unwrap();
        transaction.abort().await.unwrap();
        assert_eq!(producer.outcome().await.unwrap().unwrap(), TransactionOutcome::Aborted);
        let transaction = producer.begin().await.unwrap();
        _ = transaction.send(test.record(round, "committed")).await.unwrap();
        transaction.commit().await.unwrap();
    }
    assert_eq!(test.committed().await, ["committed"; 3]);
    producer.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_dropped_transaction_is_aborted() {
    let test = Setup::new().await;
    let mut producer = test.producer().await;
    let transaction = producer.begin().await.unwrap();
    transaction.send(test.record(0, "dropped")).await.unwrap().await.unwrap();
    drop(transaction);
    let transaction = producer.begin().await.unwrap();
    _ = transaction.send(test.record(0, "committed")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(test.committed().await, ["committed"]);
    let transaction = producer.begin().await.unwrap();
    transaction.send(test.record(0, "dropped")).await.unwrap().await.unwrap();
    drop(transaction);
    producer.close(PATIENCE).await.unwrap();
    assert_eq!(test.committed().await, ["committed"], "closing ends it too");
}

#[tokio::test]
async fn a_commit_whose_future_is_dropped_is_carried_out() {
    let test = Setup::new().await;
    let mut producer = test.producer().await;
    let transaction = producer.begin().await.unwrap();
    _ = transaction.send(test.record(1, "committed")).await.unwrap();
    drop(transaction.commit());
    assert_eq!(producer.outcome().await.unwrap().unwrap(), TransactionOutcome::Committed);
    assert_eq!(test.committed().await, ["committed"]);
    producer.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn many_transactions_in_a_row_keep_their_order() {
    let test = Setup::new().await;
    let mut producer = test.producer().await;
    let mut expected = Vec::new();
    for n in 0..30 {
        let transaction = producer.begin().await.unwrap();
        for part in 0..3 {
            let value = format!("{n:02}-{part}");
            _ = transaction.send(test.record(part, &value)).await.unwrap();
            if n % 3 != 2 {
                expected.push(value);
            }
        }
        match n % 3 {
            2 => transaction.abort().await.unwrap(),
            _ => transaction.commit().await.unwrap(),
        }
    }
    assert_eq!(test.committed().await, expected);
    producer.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_large_transaction_is_committed_as_a_whole() {
    let test = Setup::new().await;
    let mut producer = test
        .client
        .transactional_producer(test.id())
        .batch_size(10_000)
        .max_request_size(20_000)
        .start()
        .await
        .unwrap();
    let transaction = producer.begin().await.unwrap();
    let mut expected = Vec::new();
    for n in 0..3_000 {
        let value = format!("{n:04}{:0>100}", "");
        _ = transaction.send(test.record(n % 3, &value)).await.unwrap();
        expected.push(value);
    }
    transaction.commit().await.unwrap();
    assert_eq!(test.committed().await, expected);
    producer.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_commit_is_refused_after_a_failed_send() {
    let test = Setup::new().await;
    let mut producer = test.producer().await;
    let transaction = producer.begin().await.unwrap();
    transaction.send(test.record(0, "before")).await.unwrap().await.unwrap();
    let error = transaction.send(test.record(17, "nowhere")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRecord);
    let error = transaction.send(test.record(0, "after")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TransactionAborted);
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.action(), TransactionAction::Abort, "{error}");
    assert!(error.to_string().contains("has no partition 17"), "{error}");
    let transaction = producer.begin().await.unwrap();
    _ = transaction.send(test.record(0, "again")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(test.committed().await, ["again"]);
    producer.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_record_that_the_broker_rejects_aborts_the_transaction() {
    let test = Setup::new().await;
    let admin = Admin::new(&test.client);
    let compacted = test.broker.topic("compacted");
    let new = ailurus::admin::NewTopic::new(&compacted).partitions(1).config("cleanup.policy", "compact");
    admin.create_topic_with(&new).await.unwrap();
    let mut producer = test.producer().await;
    let transaction = producer.begin().await.unwrap();
    _ = transaction.send(test.record(0, "before")).await.unwrap();
    let delivery = transaction.send(ProducerRecord::to(&*compacted).value("without key")).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.action(), TransactionAction::Abort, "{error}");
    assert!(delivery.await.is_err());
    let transaction = producer.begin().await.unwrap();
    _ = transaction.send(test.record(0, "again")).await.unwrap();
    _ = transaction.send(ProducerRecord::to(&*compacted).key("k").value("with key")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(test.committed().await, ["again"]);
    producer.close(PATIENCE).await.unwrap();
}
