//! Commits without a response, with the versions of each release: unknown, until their outcome is learned.

use ailurus_broker::Fault;
use ailurus_test_support::api_keys::END_TXN;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Commits a record and an offset while each EndTxn meets this fault; the result is unknown.
struct Unknown {
    test: Setup,
    topic: String,
    group: String,
    producer: TransactionalProducer,
}

impl Unknown {
    async fn after(versions: ailurus_broker::Versions, fault: Fault, exclusive: bool) -> Option<Self> {
        let test = Setup::offering(versions).await;
        let broker = test.broker.embedded()?;
        let (topic, group) = offsets::input(&test).await;
        let (consumer, batch) = offsets::member(&test, &topic, &group, ailurus::GroupProtocol::Auto).await;
        let builder = test.client.transactional_producer(test.id()).transaction_timeout(SECOND);
        let builder = if exclusive { builder.exclusive() } else { builder };
        let mut producer = builder.start().await.unwrap();
        broker.set_hook(move |r| (r.api_key == END_TXN).then_some(fault));
        let mut transaction = producer.begin().await.unwrap();
        _ = transaction.send(test.record(0, "first")).await.unwrap();
        transaction.send_offsets(&consumer.group_metadata().unwrap(), [(batch.topic_partition(), 2)]).unwrap();
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(error.action(), TransactionAction::Unknown, "{error}");
        if fault == Fault::Close {
            // A reader at the end of the log has seen how the transaction ended.
            assert!(test.committed().await.is_empty(), "the coordinator aborts it at its timeout");
        }
        broker.clear_hook();
        consumer.close().await.unwrap();
        Some(Self { test, topic, group, producer })
    }

    async fn committed_offset(&self) -> Option<i64> {
        offsets::committed(&self.test, &self.topic, &self.group).await
    }
}

#[tokio::test]
async fn a_commit_whose_responses_are_lost_is_committed_as_its_outcome_says() {
    for (versions, _) in embedded::releases() {
        let Some(mut unknown) = Unknown::after(versions, Fault::DropResponse, false).await else { return };
        assert_eq!(unknown.producer.outcome().await.unwrap().unwrap(), TransactionOutcome::Committed);
        assert_eq!(unknown.test.committed().await, ["first"]);
        assert_eq!(unknown.committed_offset().await, Some(2));
        let Unknown { test, mut producer, .. } = unknown;
        let transaction = producer.begin().await.unwrap();
        _ = transaction.send(test.record(0, "next")).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(test.committed().await, ["first", "next"]);
        producer.close(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn a_commit_that_does_not_arrive_is_aborted_at_the_timeout() {
    for exclusive in [false, true] {
        for (versions, _) in embedded::releases() {
            let Some(mut unknown) = Unknown::after(versions, Fault::Close, exclusive).await else { return };
            // A coordinator that does not know the epoch may have committed the transaction before.
            let error = unknown.producer.outcome().await.unwrap().unwrap_err();
            assert_eq!(error.action(), TransactionAction::Unknown, "{error}");
            assert_eq!(unknown.committed_offset().await, None);
            let Unknown { test, mut producer, .. } = unknown;
            match producer.begin().await {
                Ok(transaction) => {
                    assert!(exclusive, "another producer may have the id");
                    _ = transaction.send(test.record(0, "again")).await.unwrap();
                    transaction.commit().await.unwrap();
                    assert_eq!(test.committed().await, ["again"]);
                }
                Err(e) => assert!(!exclusive && e.action() == TransactionAction::Fenced, "{e}"),
            }
            producer.close(PATIENCE).await.unwrap();
        }
    }
}
