//! Health of transactional producers.

use ailurus::RedpandaService;
use ailurus::producer::{TransactionalProducerHealth, TransactionalProducerState};

use super::*;

async fn of(service: &RedpandaService, id: &str) -> Option<TransactionalProducerHealth> {
    let all = service.health().await.transactional_producers;
    all.into_iter().find(|p| p.transactional_id == id)
}

#[tokio::test]
async fn health_shows_a_producer_and_its_open_transaction() {
    let test = Setup::new().await;
    let service = RedpandaService::new(&test.client).unwrap();
    let (id, mut producer) = (test.id(), test.producer().await);
    let ready = of(&service, &id).await.unwrap();
    assert_eq!((ready.state, ready.open_for), (TransactionalProducerState::Ready, None));
    assert_eq!((ready.committed, ready.aborted, ready.group), (0, 0, None));

    let transaction = producer.begin().await.unwrap();
    transaction.send(test.record(0, "a")).await.unwrap().await.unwrap();
    let open = of(&service, &id).await.unwrap();
    assert_eq!(open.state, TransactionalProducerState::Open);
    assert!(open.open_for.is_some());
    transaction.commit().await.unwrap();
    let committed = of(&service, &id).await.unwrap();
    assert_eq!((committed.committed, committed.aborted, committed.open_for), (1, 0, None));
    assert!(committed.commit_latency.is_some());

    let transaction = producer.begin().await.unwrap();
    _ = transaction.send(test.record(17, "nowhere")).await.unwrap_err();
    _ = transaction.commit().await.unwrap_err();
    let failed = of(&service, &id).await.unwrap();
    let error = failed.last_error.unwrap();
    assert_eq!((failed.committed, failed.aborted, &*error.action), (1, 1, "abort"));
    assert!(error.error.contains("has no partition 17"), "{}", error.error);

    // Another producer takes the id over: this one is fenced with its next transaction.
    let successor = test.producer().await;
    let transaction = producer.begin().await.unwrap();
    drop(transaction.send(test.record(0, "late")).await);
    assert_eq!(transaction.commit().await.unwrap_err().action(), TransactionAction::Fenced);
    let health = service.health().await;
    let states: Vec<_> = health.transactional_producers.iter().filter(|p| p.transactional_id == id).collect();
    assert_eq!(states[0].state, TransactionalProducerState::Fenced, "{states:?}");
    assert!(health.problems.iter().any(|p| p.contains(&id) && p.contains("is fenced")), "{:?}", health.problems);
    successor.close(PATIENCE).await.unwrap();
    producer.close(PATIENCE).await.unwrap();
    assert_eq!(of(&service, &id).await, None, "closed");
}
