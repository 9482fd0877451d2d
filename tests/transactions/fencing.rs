//! One producer at a time has a transactional id.

use super::*;

#[tokio::test]
async fn a_second_owner_fences_the_first_and_aborts_its_transaction() {
    let test = Setup::new().await;
    let mut first = test.producer().await;
    let transaction = first.begin().await.unwrap();
    transaction.send(test.record(0, "first")).await.unwrap().await.unwrap();
    let mut second = test.producer().await;
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.action(), TransactionAction::Fenced, "{error}");
    let error = first.begin().await.unwrap_err();
    assert_eq!(error.action(), TransactionAction::Fenced, "{error}");
    let transaction = second.begin().await.unwrap();
    _ = transaction.send(test.record(0, "second")).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(test.committed().await, ["second"]);
    first.close(PATIENCE).await.unwrap();
    second.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn exclusive_ids_do_not_fence_each_other() {
    let test = Setup::new().await;
    let exclusive = || test.client.transactional_producer(test.id()).exclusive().start();
    let (mut first, mut second) = (exclusive().await.unwrap(), exclusive().await.unwrap());
    assert_ne!(first.transactional_id(), second.transactional_id());
    for (producer, value) in [(&mut first, "first"), (&mut second, "second")] {
        let transaction = producer.begin().await.unwrap();
        _ = transaction.send(test.record(0, value)).await.unwrap();
        transaction.commit().await.unwrap();
    }
    assert_eq!(test.committed().await, ["first", "second"]);
    first.close(PATIENCE).await.unwrap();
    second.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_transaction_timeout_that_the_broker_does_not_allow_stops_the_start() {
    let test = Setup::new().await;
    let day = Duration::from_secs(24 * 3600);
    let error = test.client.transactional_producer(test.id()).transaction_timeout(day).start().await.unwrap_err();
    assert_eq!(error.action(), TransactionAction::Stop, "{error}");
    assert!(error.to_string().contains("InvalidTransactionTimeout"), "{error}");
}

#[tokio::test]
async fn settings_without_idempotence_are_refused() {
    let test = Setup::new().await;
    let error = test.client.transactional_producer(test.id()).idempotence(false).start().await.unwrap_err();
    assert_eq!((error.action(), error.error().kind()), (TransactionAction::Stop, ErrorKind::Config), "{error}");
    let error = test.client.transactional_producer("").start().await.unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::Config, "{error}");
}
