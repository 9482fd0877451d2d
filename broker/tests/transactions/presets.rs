//! Differences between the brokers of the presets.

use super::*;
use kafka_protocol::messages::api_versions_response::FinalizedFeatureKey;

const UNKNOWN_SERVER_ERROR: i16 = -1;

async fn finalized(broker: &Broker, version: i16) -> (i64, Vec<(String, i16)>) {
    let mut client = Client::connect(&broker.bootstrap()).await;
    let response = client.call(version, &ApiVersionsRequest::default()).await;
    let level = |f: &FinalizedFeatureKey| (f.name.to_string(), f.max_version_level);
    (response.finalized_features_epoch, response.finalized_features.iter().map(level).collect())
}

#[tokio::test]
async fn transaction_version_changes_while_the_broker_runs() {
    let broker = start(Versions::kafka()).await;
    let (epoch, features) = finalized(&broker, 3).await;
    assert!(features.contains(&("transaction.version".into(), 2)));
    assert_eq!(broker.transaction_version(), Some(2));
    assert!(broker.set_transaction_version(1));
    let (downgraded, features) = finalized(&broker, 4).await;
    assert!(downgraded > epoch && features.contains(&("transaction.version".into(), 1)));
    assert!(broker.set_transaction_version(0));
    let (_, features) = finalized(&broker, 4).await;
    assert!(!features.iter().any(|(name, _)| name == "transaction.version"), "level 0 is not reported");
    assert!(!broker.set_transaction_version(3), "not supported");
    broker.shutdown().await;
}

#[tokio::test]
async fn older_presets_have_no_version_2() {
    for versions in [Versions::redpanda_24_3(), Versions::redpanda_26_2(), Versions::kafka_3_9()] {
        let is_redpanda = versions.range(PRODUCE) == Some((0, 7));
        assert!(versions.range(END_TXN).is_some_and(|(_, highest)| highest < 5));
        assert_eq!(versions.range(WRITE_TXN_MARKERS).is_none(), is_redpanda);
        let broker = start(versions).await;
        let (epoch, features) = finalized(&broker, 3).await;
        assert_eq!((epoch == -1, features.is_empty()), (is_redpanda, is_redpanda));
        assert!(!features.iter().any(|(name, _)| name == "transaction.version"));
        assert!(!broker.set_transaction_version(2));
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn redpanda_has_error_codes_of_its_own() {
    let broker = start(Versions::redpanda_24_3()).await;
    let mut p = producer(&broker, REDPANDA).await;
    assert_eq!(p.end(true).await, 0, "empty");
    assert_eq!(p.produce("t", 0, 0).await, INVALID_PRODUCER_EPOCH, "not added");
    assert_eq!(p.commit_offset("g", "t", 0, 1).await, INVALID_PRODUCER_EPOCH, "not added");
    assert_eq!(p.add_partitions("t", &[0]).await, [0]);
    assert_eq!(p.produce("t", 0, 0).await, 0);
    assert_eq!(p.add_offsets("g").await, 0);
    assert_eq!(p.add_offsets("g").await, 0, "no offsets yet");
    assert_eq!(p.commit_offset("g", "t", 0, 1).await, 0);
    assert_eq!(p.add_offsets("g").await, UNKNOWN_SERVER_ERROR);
    assert_eq!(p.end(true).await, 0);
    assert_eq!(p.end(true).await, 0, "again");
    let mut new = Producer::connect(&broker.bootstrap(), REDPANDA, "p").await;
    assert_eq!(new.init().await, 0);
    assert_eq!(p.add_partitions("t", &[0]).await, [INVALID_PRODUCER_EPOCH]);
    assert_eq!(p.end(true).await, INVALID_PRODUCER_EPOCH);
    assert_eq!(p.init().await, INVALID_PRODUCER_EPOCH);
    broker.shutdown().await;
}

#[tokio::test]
async fn redpanda_refuses_offsets_while_a_rebalance_completes() {
    let broker = start(Versions::redpanda_26_2()).await;
    let mut client = Client::connect(&broker.bootstrap()).await;
    let member = client.call(4, &join_request("g", "")).await.member_id.to_string();
    let joined = client.call(4, &join_request("g", &member)).await;
    assert_eq!(broker.group_state("g").unwrap().0, "CompletingRebalance");
    let mut p = producer(&broker, REDPANDA).await;
    p.member = (joined.generation_id, member, None);
    assert_eq!(p.add_offsets("g").await, CONCURRENT_TRANSACTIONS);
    broker.shutdown().await;
}

#[tokio::test]
async fn redpanda_completes_the_last_transaction_before_the_next() {
    let broker = start(Versions::redpanda_24_3()).await;
    broker.set_hook(|r| (r.api_key == WRITE_TXN_MARKERS).then_some(Fault::Delay(std::time::Duration::from_secs(600))));
    let mut p = producer(&broker, REDPANDA).await;
    for sequence in 0..3 {
        assert_eq!(p.add_partitions("t", &[0]).await, [0]);
        assert_eq!(p.produce("t", 0, sequence).await, 0);
        assert_eq!(p.end(true).await, 0);
        assert_eq!(state(&broker), "PrepareCommit");
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn redpanda_lists_aborted_transactions_unsorted() {
    for (preset, versions, expected) in [(Versions::redpanda_24_3(), REDPANDA, [2, 0]), (Versions::kafka(), V1, [0, 2])]
    {
        let broker = start(preset).await;
        let mut p = producer(&broker, versions).await;
        for sequence in 0..2 {
            assert_eq!(p.add_partitions("t", &[0]).await, [0]);
            assert_eq!(p.produce("t", 0, sequence).await, 0);
            assert_eq!(p.end(false).await, 0);
        }
        let request = fetch_request("t", 0, 0).with_isolation_level(READ_COMMITTED);
        let fetched = p.client.call(11, &request).await.responses.remove(0).partitions.remove(0);
        let starts: Vec<i64> = fetched.aborted_transactions.unwrap().iter().map(|a| a.first_offset).collect();
        assert_eq!(starts, expected);
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn broker_without_transactions_refuses_them() {
    let broker = start(Versions::redpanda_24_3().without_transactions()).await;
    let mut p = Producer::connect(&broker.bootstrap(), REDPANDA, "p").await;
    let find = FindCoordinatorRequest::default().with_key(text("p")).with_key_type(1);
    assert_eq!(p.client.call(3, &find).await.error_code, 35);
    assert_eq!(p.client.call(3, &find.with_key_type(0)).await.error_code, 0, "a group's");
    (p.id, p.epoch) = (1, 0);
    assert_eq!(p.produce("t", 0, 0).await, 53);
    let end = p.end_request(true);
    assert!(p.client.try_call(3, &end).await.is_none(), "not offered");
    broker.shutdown().await;
}
