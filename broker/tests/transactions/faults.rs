//! Late requests, delayed markers, lost responses, moves and timeouts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

/// Returns a hook that injects a fault into the first request of an API.
fn once(api_key: i16, fault: Fault) -> impl Fn(&ailurus_broker::RequestInfo<'_>) -> Option<Fault> {
    let is_done = AtomicBool::new(false);
    move |request| (request.api_key == api_key && !is_done.swap(true, Ordering::SeqCst)).then_some(fault)
}

/// Returns the partition of a marker, as a hook sees it.
fn marked_partition(request: &ailurus_broker::RequestInfo<'_>) -> Option<i32> {
    if request.api_key != WRITE_TXN_MARKERS || request.client_id != "transaction-coordinator" {
        return None;
    }
    let markers = WriteTxnMarkersRequest::decode(&mut request.body.clone(), request.version).unwrap();
    Some(markers.markers[0].topics[0].partition_indexes[0])
}

/// Commits with an EndTxn that is held, commits again over another connection, and begins the next
/// transaction with one record.
async fn begin_after_a_held_end(broker: &Broker, versions: RequestVersions) -> Producer {
    let mut p = producer(broker, versions).await;
    if versions.end < 5 {
        assert_eq!(p.add_partitions("t", &[0]).await, [0]);
    }
    assert_eq!(p.produce("t", 0, 0).await, 0);
    broker.set_hook(once(END_TXN, Fault::Hold));
    let request = p.end_request(true);
    assert!(p.client.try_call(versions.end, &request).await.is_none(), "the connection is closed");
    assert_eq!((broker.held_requests(), state(broker)), (vec![END_TXN], "Ongoing"));
    p.client = Client::connect(&broker.bootstrap()).await;
    assert_eq!(p.end(true).await, 0);
    if versions.end < 5 {
        assert_eq!(p.add_partitions("t", &[0, 1]).await, [0, 0]);
    }
    let sequence = i32::from(versions.end < 5);
    assert_eq!(p.produce("t", 0, sequence).await, 0);
    p
}

#[tokio::test]
async fn late_end_txn_of_version_1_ends_the_next_transaction() {
    let broker = start(Versions::kafka_3_9()).await;
    let mut p = begin_after_a_held_end(&broker, V1).await;
    assert_eq!(broker.release_held().await, 1);
    assert_eq!(state(&broker), "CompleteCommit");
    assert_eq!(outcomes(&broker, 0), [TransactionOutcome::Committed; 2], "torn: its second half is missing");
    assert_eq!(p.produce("t", 1, 0).await, TRANSACTION_ABORTABLE);
    assert_eq!(broker.release_held().await, 0);
    broker.shutdown().await;
}

#[tokio::test]
async fn late_end_txn_of_version_2_has_no_effect() {
    let broker = start(Versions::kafka()).await;
    let mut p = begin_after_a_held_end(&broker, V2).await;
    assert_eq!(broker.release_held().await, 1);
    assert_eq!(state(&broker), "Ongoing");
    assert_eq!(p.produce("t", 1, 0).await, 0);
    assert_eq!(p.end(false).await, 0);
    assert_eq!(outcomes(&broker, 0), [TransactionOutcome::Committed, TransactionOutcome::Aborted]);
    assert_eq!(outcomes(&broker, 1), [TransactionOutcome::Aborted]);
    broker.shutdown().await;
}

#[tokio::test]
async fn late_batch_joins_the_next_transaction_only_in_version_1() {
    for (preset, versions) in [(Versions::kafka_3_9(), V1), (Versions::kafka(), V2)] {
        let broker = start(preset).await;
        let mut p = producer(&broker, versions).await;
        let is_v1 = versions == V1;
        if is_v1 {
            assert_eq!(p.add_partitions("t", &[0]).await, [0]);
        }
        broker.set_hook(once(PRODUCE, Fault::Hold));
        let late = p.produce_request("t", 0, 0, 1);
        assert!(p.client.try_call(versions.produce, &late).await.is_none());
        p.client = Client::connect(&broker.bootstrap()).await;
        assert_eq!(p.end(false).await, 0, "without its batch");
        if is_v1 {
            assert_eq!(p.add_partitions("t", &[0, 1]).await, [0, 0]);
        }
        assert_eq!(p.produce("t", 1, 0).await, 0);
        assert_eq!(broker.release_held().await, 1);
        assert_eq!(p.end(true).await, 0);
        let expected = if is_v1 { vec![TransactionOutcome::Committed] } else { vec![] };
        assert_eq!(outcomes(&broker, 0), expected, "{versions:?}");
        broker.shutdown().await;
    }
}

#[tokio::test]
async fn request_is_served_after_its_delay() {
    let broker = start(Versions::kafka()).await;
    let mut p = producer(&broker, V2).await;
    assert_eq!(p.produce("t", 0, 0).await, 0);
    broker.set_hook(|r| (r.api_key == END_TXN).then_some(Fault::HoldFor(Duration::from_millis(5))));
    let request = p.end_request(true);
    assert!(p.client.try_call(5, &request).await.is_none());
    wait_for_state(&broker, "CompleteCommit").await;
    broker.shutdown().await;
}

#[tokio::test]
async fn end_txn_is_repeated_after_a_lost_response() {
    let broker = start(Versions::kafka()).await;
    let mut p = producer(&broker, V2).await;
    assert_eq!(p.produce("t", 0, 0).await, 0);
    broker.set_hook(once(END_TXN, Fault::DropResponse));
    let request = p.end_request(true);
    assert!(p.client.try_call(5, &request).await.is_none());
    assert_eq!(state(&broker), "CompleteCommit", "its effect is there");
    p.client = Client::connect(&broker.bootstrap()).await;
    assert_eq!(p.try_end(true).await, (0, p.id, p.epoch + 1));
    broker.shutdown().await;
}

#[tokio::test]
async fn marker_of_one_partition_is_held() {
    let broker = start(Versions::kafka()).await;
    broker.set_hook(|request| (marked_partition(request) == Some(1)).then_some(Fault::Hold));
    let mut p = producer(&broker, V1).await;
    assert_eq!(p.add_partitions("t", &[0, 1]).await, [0, 0]);
    assert_eq!(p.produce("t", 0, 0).await, 0);
    assert_eq!(p.produce("t", 1, 0).await, 0);
    assert_eq!(p.end(true).await, 0, "the response does not wait for markers");
    assert_eq!((state(&broker), broker.waiting_markers()), ("PrepareCommit", 1));
    assert_eq!(broker.last_stable_offset("t", 0).unwrap(), 2);
    assert_eq!(broker.last_stable_offset("t", 1).unwrap(), 0);
    assert_eq!(outcomes(&broker, 1), [TransactionOutcome::Open]);
    assert_eq!(p.end(true).await, CONCURRENT_TRANSACTIONS);
    assert_eq!(p.init().await, CONCURRENT_TRANSACTIONS);
    assert_eq!(p.add_partitions("t", &[0]).await, [CONCURRENT_TRANSACTIONS]);
    p.versions.produce = 12;
    assert_eq!(p.produce("t", 0, 1).await, CONCURRENT_TRANSACTIONS, "after a wait in the broker");
    assert_eq!(broker.request_count(WRITE_TXN_MARKERS), 0, "no client has sent them");
    assert_eq!(broker.release_held().await, 1);
    assert_eq!((state(&broker), broker.last_stable_offset("t", 1).unwrap()), ("CompleteCommit", 2));
    assert_eq!(p.add_partitions("t", &[0]).await, [0]);
    broker.shutdown().await;
}

#[tokio::test]
async fn broker_waits_for_delayed_markers_of_version_2() {
    let broker = start(Versions::kafka()).await;
    broker.set_hook(|request| marked_partition(request).map(|_| Fault::Delay(Duration::from_millis(5))));
    let mut p = producer(&broker, V2).await;
    for _ in 0..3 {
        assert_eq!(p.produce("t", 0, 0).await, 0);
        assert_eq!(p.commit_offset("g", "t", 0, 1).await, 0);
        assert_eq!(p.end(true).await, 0);
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn marker_waits_for_a_leader() {
    let broker = Broker::start(BrokerConfig::default().versions(Versions::kafka()).nodes(2)).await.unwrap();
    broker.create_topic("t", 1).unwrap();
    broker.move_leader("t", 0, 1).unwrap();
    broker.move_transaction_coordinator("p", 0).unwrap();
    let mut p = Producer::connect(&broker.address(0).unwrap(), V1, "p").await;
    assert_eq!(p.init().await, 0);
    assert_eq!(p.add_partitions("t", &[0]).await, [0]);
    broker.stop_node(1).await.unwrap();
    assert_eq!(p.end(true).await, 0);
    assert_eq!((state(&broker), broker.waiting_markers()), ("PrepareCommit", 1));
    broker.start_node(1).await.unwrap();
    wait_for_state(&broker, "CompleteCommit").await;
    assert_eq!(broker.log_range("t", 0).unwrap(), (0, 1));
    broker.shutdown().await;
}

#[tokio::test]
async fn deleted_topic_needs_no_marker() {
    let broker = start(Versions::kafka()).await;
    let mut p = producer(&broker, V2).await;
    assert_eq!(p.produce("t", 0, 0).await, 0);
    assert!(broker.delete_topic("t"));
    assert_eq!(p.end(true).await, 0);
    assert_eq!(state(&broker), "CompleteCommit");
    broker.shutdown().await;
}

#[tokio::test]
async fn moved_coordinator_keeps_the_transaction() {
    let config = BrokerConfig::default().versions(Versions::kafka()).nodes(3).coordinator_load_time(LOAD_TIME);
    let broker = Broker::start(config).await.unwrap();
    broker.create_topic("t", 1).unwrap();
    broker.move_leader("t", 0, 0).unwrap();
    broker.move_transaction_coordinator("p", 0).unwrap();
    let mut p = Producer::connect(&broker.address(0).unwrap(), V2, "p").await;
    while p.init().await == COORDINATOR_LOAD_IN_PROGRESS {}
    assert_eq!(p.produce("t", 0, 0).await, 0);
    broker.move_transaction_coordinator("p", 1).unwrap();
    assert_eq!(broker.transaction_coordinator("p"), Some(1));
    assert_eq!(p.end(true).await, NOT_COORDINATOR);
    let find = FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text("p")]);
    assert_eq!(p.client.call(4, &find).await.coordinators[0].node_id.0, 1);
    p.client = Client::connect(&broker.address(1).unwrap()).await;
    assert_eq!(p.end(true).await, COORDINATOR_LOAD_IN_PROGRESS);
    while p.end(true).await == COORDINATOR_LOAD_IN_PROGRESS {}
    assert_eq!(state(&broker), "CompleteCommit");
    broker.stop_node(1).await.unwrap();
    let next = broker.transaction_coordinator("p").unwrap();
    assert_ne!(next, 1, "another node has taken over");
    p.client = Client::connect(&broker.address(next).unwrap()).await;
    assert_eq!(p.init().await, COORDINATOR_LOAD_IN_PROGRESS);
    broker.shutdown().await;
}

/// Long enough for one request, short enough to wait for.
const LOAD_TIME: Duration = Duration::from_millis(100);
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;

#[tokio::test]
async fn timed_out_owner_of_older_brokers_stays_fenced() {
    for preset in [Versions::kafka_3_9(), Versions::redpanda_26_2()] {
        let (versions, fenced) = match preset == Versions::kafka_3_9() {
            true => (V1, PRODUCER_FENCED),
            false => (REDPANDA, INVALID_PRODUCER_EPOCH),
        };
        let broker = start(preset).await;
        let mut p = Producer::connect(&broker.bootstrap(), versions, "p").await;
        assert_eq!(p.init_with_timeout(20).await, 0);
        assert_eq!(p.add_partitions("t", &[0]).await, [0]);
        wait_for_state(&broker, "CompleteAbort").await;
        assert_eq!(p.produce("t", 0, 0).await, INVALID_PRODUCER_EPOCH);
        assert_eq!(p.end(true).await, fenced);
        assert_eq!(p.init().await, fenced, "even by its id and epoch");
        (p.id, p.epoch) = (-1, -1);
        assert_eq!(p.init().await, 0);
        broker.shutdown().await;
    }
}
