//! ListTransactions, DescribeTransactions, DescribeProducers and WriteTxnMarkers, and inspection.

use super::*;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::ProducerState;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};

async fn list(client: &mut Client, request: ListTransactionsRequest) -> (i16, Vec<String>) {
    let response = client.call(2, &request).await;
    (response.error_code, response.transaction_states.iter().map(|t| t.transactional_id.to_string()).collect())
}

#[tokio::test]
async fn transactions_are_listed_by_filters() {
    let broker = start(Versions::kafka()).await;
    let mut client = Client::connect(&broker.bootstrap()).await;
    let mut idle = Producer::connect(&broker.bootstrap(), V2, "idle").await;
    assert_eq!(idle.init().await, 0);
    let mut busy = Producer::connect(&broker.bootstrap(), V2, "busy").await;
    assert_eq!(busy.init().await, 0);
    assert_eq!(busy.produce("t", 0, 0).await, 0);
    let all = || ListTransactionsRequest::default();
    assert_eq!(list(&mut client, all()).await, (0, vec!["busy".into(), "idle".into()]));
    let ongoing = all().with_state_filters(vec![text("Ongoing"), text("Nonsense")]);
    assert_eq!(client.call(2, &ongoing).await.unknown_state_filters, [text("Nonsense")]);
    assert_eq!(list(&mut client, ongoing).await, (0, vec!["busy".into()]));
    let by_id = all().with_producer_id_filters(vec![ProducerId(idle.id)]);
    assert_eq!(list(&mut client, by_id).await, (0, vec!["idle".into()]));
    assert_eq!(list(&mut client, all().with_duration_filter(600_000)).await, (0, vec![]));
    let by_pattern = |pattern| all().with_transactional_id_pattern(Some(text(pattern)));
    assert_eq!(list(&mut client, by_pattern("b.*")).await, (0, vec!["busy".into()]));
    assert_eq!(list(&mut client, by_pattern("b[")).await, (128, vec![]));
    broker.shutdown().await;
}

#[tokio::test]
async fn transaction_is_described_with_its_partitions_and_groups() {
    let broker = start(Versions::kafka()).await;
    let mut p = producer(&broker, V2).await;
    assert_eq!(p.produce("t", 1, 0).await, 0);
    assert_eq!(p.commit_offset("g", "t", 0, 3).await, 0);
    let ids = vec![TransactionalId(text("p")), TransactionalId(text("unknown"))];
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    let described = p.client.call(0, &request).await.transaction_states;
    let (one, unknown) = (&described[0], &described[1]);
    assert_eq!((one.producer_id.0, one.producer_epoch), (p.id, p.epoch));
    assert_eq!((one.transaction_state.as_str(), one.transaction_timeout_ms), ("Ongoing", 60_000));
    assert!(one.transaction_start_time_ms > 0);
    let topics: Vec<_> = one.topics.iter().map(|t| (t.topic.as_str(), t.partitions.clone())).collect();
    // The hash of "g" is 103.
    assert_eq!(topics, [("__consumer_offsets", vec![3]), ("t", vec![1])]);
    assert_eq!(unknown.error_code, 105);
    let info = broker.transactions().remove(0);
    assert_eq!((info.partitions, info.groups), (vec![("t".into(), 1)], vec!["g".into()]));
    broker.shutdown().await;
}

async fn producers(client: &mut Client) -> Vec<ProducerState> {
    let topic = TopicRequest::default().with_name(topic_name("t")).with_partition_indexes(vec![0]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    client.call(0, &request).await.topics.remove(0).partitions.remove(0).active_producers
}

#[tokio::test]
async fn hanging_transaction_is_found_and_aborted() {
    let broker = start(Versions::kafka()).await;
    let mut client = Client::connect(&broker.bootstrap()).await;
    let mut p = producer(&broker, V2).await;
    assert_eq!(p.produce("t", 0, 0).await, 0);
    assert_eq!(p.end(true).await, 0);
    assert_eq!(p.produce("t", 0, 0).await, 0);
    let found = producers(&mut client).await.remove(0);
    assert_eq!((found.producer_id.0, found.producer_epoch), (p.id, p.epoch.into()));
    assert_eq!((found.last_sequence, found.last_timestamp), (0, 1));
    assert_eq!((found.coordinator_epoch, found.current_txn_start_offset), (0, 2));
    let topic = WritableTxnMarkerTopic::default().with_name(topic_name("t")).with_partition_indexes(vec![0]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(ProducerId(p.id))
        .with_producer_epoch(p.epoch)
        .with_topics(vec![topic]);
    let mut write = async |marker: WritableTxnMarker| {
        let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        client.call(1, &request).await.markers[0].topics[0].partitions[0].error_code
    };
    assert_eq!(write(marker.clone().with_producer_epoch(0)).await, INVALID_PRODUCER_EPOCH);
    assert_eq!(write(marker.clone().with_coordinator_epoch(-1)).await, 52, "an older coordinator");
    assert_eq!(write(marker).await, 0);
    assert_eq!(producers(&mut client).await[0].current_txn_start_offset, -1);
    assert_eq!(broker.last_stable_offset("t", 0).unwrap(), 4);
    assert_eq!(outcomes(&broker, 0), [TransactionOutcome::Committed, TransactionOutcome::Aborted]);
    broker.shutdown().await;
}

#[tokio::test]
async fn records_are_inspected_by_transaction() {
    let broker = start(Versions::kafka()).await;
    let mut p = producer(&broker, V2).await;
    for commit in [true, false] {
        assert_eq!(p.produce("t", 0, 0).await, 0);
        assert_eq!(p.produce("t", 0, 1).await, 0);
        assert_eq!(p.end(commit).await, 0);
    }
    assert_eq!(p.produce("t", 0, 0).await, 0);
    let records = broker.transactional_records("t", 0).unwrap();
    let found: Vec<_> = records.iter().map(|r| (r.record.offset, r.transaction_start, r.outcome)).collect();
    let (committed, aborted) = (TransactionOutcome::Committed, TransactionOutcome::Aborted);
    assert_eq!(
        found,
        [(0, 0, committed), (1, 0, committed), (3, 3, aborted), (4, 3, aborted), (6, 6, TransactionOutcome::Open)]
    );
    let producer = broker.producers("t", 0).unwrap().remove(0);
    assert_eq!((producer.producer_id, producer.producer_epoch), (p.id, p.epoch));
    assert_eq!((producer.last_sequence, producer.transaction_start), (0, Some(6)));
    broker.shutdown().await;
}
