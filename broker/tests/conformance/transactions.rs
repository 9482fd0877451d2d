//! Transactions, in both versions of the protocol.

use super::*;
use ailurus_test_support::raw_client::transactions::*;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};

/// Returns a producer that has found its coordinator and is initialized.
pub async fn producer(target: &Target, versions: RequestVersions, name: &str) -> Producer {
    let id = target.name(name);
    let mut producer = Producer::connect(&target.address, versions, &id).await;
    let find = FindCoordinatorRequest::default().with_key(text(&id)).with_key_type(1);
    // A broker creates the coordinator's topic for the first id, and loads it.
    while producer.client.call(3, &find).await.error_code != 0 {}
    while [14, 15, 16].contains(&producer.init().await) {}
    assert!(producer.id >= 0, "initialized");
    producer
}

/// Waits until the markers of the last transaction are written.
pub async fn completed(producer: &mut Producer) {
    while producer.state().await.starts_with("Prepare") {}
}

/// Reads committed records, once the last stable offset is this one.
async fn read_at(reader: &mut Client, topic: &str, stable: i64) -> (Vec<i64>, usize) {
    loop {
        let (found, offsets, aborted) = read_committed(reader, topic, 0).await;
        if found >= stable {
            return (offsets, aborted);
        }
    }
}

/// Repeats a request while the markers of the last transaction are missing.
async fn add(producer: &mut Producer, topic: &str) {
    if producer.versions == V2 {
        return;
    }
    while producer.add_partitions(topic, &[0]).await != [0] {}
}

#[tokio::test]
async fn aborted_records_are_listed_and_committed_ones_readable() {
    for target in targets().await {
        for versions in [V1, V2] {
            let topic = target.name(&format!("t{}", versions.end));
            let mut reader = target.client().await;
            assert_eq!(reader.create_topic(&topic, 1).await, 0);
            let mut p = producer(&target, versions, &topic).await;
            add(&mut p, &topic).await;
            assert_eq!(p.produce(&topic, 0, 0).await, 0);
            assert_eq!(p.produce(&topic, 0, 1).await, 0);
            assert_eq!(p.state().await, "Ongoing");
            assert_eq!(read_committed(&mut reader, &topic, 0).await, (0, vec![], 0), "open");
            assert_eq!(latest_offset(&mut reader, &topic, READ_COMMITTED).await, 0);
            assert_eq!(latest_offset(&mut reader, &topic, 0).await, 2);
            let first = p.epoch;
            assert_eq!(p.end(true).await, 0);
            assert_eq!(p.epoch - first, i16::from(versions == V2), "an epoch for each transaction");
            completed(&mut p).await;
            assert_eq!(read_at(&mut reader, &topic, 3).await, (vec![0, 1], 0), "a marker has an offset");
            add(&mut p, &topic).await;
            let sequence = if versions == V2 { 0 } else { 2 };
            assert_eq!(p.produce(&topic, 0, sequence).await, 0);
            assert_eq!(p.end(false).await, 0);
            completed(&mut p).await;
            assert_eq!(p.state().await, "CompleteAbort");
            assert_eq!(read_at(&mut reader, &topic, 5).await, (vec![0, 1], 1));
        }
        clean_up(target).await;
    }
}

/// Codes of a produce request below version 11 to a partition that was not added. Kafka has the
/// partitions of several producers verified by one request, and responds as the version of the
/// first of them allows: tests run side by side.
fn not_added(target: &Target) -> &'static [i16] {
    if target.broker.is_some() { &[INVALID_TXN_STATE] } else { &[INVALID_TXN_STATE, TRANSACTION_ABORTABLE] }
}

#[tokio::test]
async fn partition_that_was_not_added_is_refused() {
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 2).await;
        let mut p = producer(&target, V1, "p").await;
        assert_eq!(p.produce(&topic, 0, 0).await, TRANSACTION_ABORTABLE);
        p.versions.produce = 10;
        assert!(not_added(&target).contains(&p.produce(&topic, 0, 0).await));
        let none = target.name("none");
        assert_eq!(p.add_partitions(&none, &[0]).await, [UNKNOWN_TOPIC_OR_PARTITION]);
        assert_eq!(
            p.add_partitions(&topic, &[0, 7]).await,
            [OPERATION_NOT_ATTEMPTED, UNKNOWN_TOPIC_OR_PARTITION],
            "all or none"
        );
        assert_eq!(p.add_partitions(&topic, &[0]).await, [0]);
        assert_eq!(p.produce(&topic, 0, 0).await, 0);
        assert!(not_added(&target).contains(&p.produce(&topic, 1, 0).await));
        p.versions = V2;
        assert_eq!(p.produce(&topic, 1, 0).await, 0, "version 12 adds it");
        assert_eq!(p.end(true).await, 0);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn end_txn_follows_the_table() {
    const OK: i16 = 0;
    const ITS: i16 = INVALID_TXN_STATE;
    const PF: i16 = PRODUCER_FENCED;
    // Per state: commit and abort by the epoch before the stored one, then by the stored one.
    let v1 = [
        ("Empty", [PF, PF, ITS, ITS]),
        ("Ongoing", [PF, PF, OK, OK]),
        ("CompleteCommit", [PF, PF, OK, ITS]),
        ("CompleteAbort", [PF, PF, ITS, OK]),
    ];
    let v2 = [
        ("Empty", [PF, PF, ITS, OK]),
        ("Ongoing", [PF, PF, OK, OK]),
        ("CompleteCommit", [OK, ITS, ITS, OK]),
        ("CompleteAbort", [ITS, OK, ITS, OK]),
    ];
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 1).await;
        for (versions, table) in [(V1, v1), (V2, v2)] {
            for (state, expected) in table {
                for (i, code) in expected.into_iter().enumerate() {
                    let (is_retry, is_commit) = (i < 2, i % 2 == 0);
                    let case = format!("{versions:?}: {state}, retry {is_retry}, commit {is_commit}");
                    let mut p = producer(&target, versions, &format!("{}-{state}-{i}", versions.end)).await;
                    assert_eq!(p.init().await, 0, "{case}");
                    if state != "Empty" {
                        add(&mut p, &topic).await;
                        assert_eq!(p.produce(&topic, 0, 0).await, 0, "{case}");
                    }
                    if state.starts_with("Complete") {
                        assert_eq!(p.end(state == "CompleteCommit").await, 0, "{case}");
                        completed(&mut p).await;
                    }
                    assert_eq!(p.state().await, state, "{case}");
                    p.epoch -= i16::from(is_retry);
                    assert_eq!(p.try_end(is_commit).await.0, code, "{case}");
                    p.epoch += i16::from(is_retry);
                    if state == "Ongoing" && is_retry {
                        assert_eq!(p.end(false).await, 0, "{case}: not left open");
                    }
                }
            }
        }
        clean_up(target).await;
    }
}

#[tokio::test]
async fn repeated_end_txn_has_the_same_response() {
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 1).await;
        let mut p = producer(&target, V2, "p").await;
        assert_eq!(p.produce(&topic, 0, 0).await, 0);
        let ended = p.try_end(true).await;
        assert_eq!(ended, (0, p.id, p.epoch + 1));
        completed(&mut p).await;
        assert_eq!(p.try_end(true).await, ended);
        assert_eq!(p.produce(&topic, 0, 1).await, INVALID_PRODUCER_EPOCH, "late, of the last transaction");
        clean_up(target).await;
    }
}

#[tokio::test]
async fn initialization_fences_older_epochs() {
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 1).await;
        let mut old = producer(&target, V1, "p").await;
        let first = old.epoch;
        assert_eq!(old.init().await, 0);
        assert_eq!(old.epoch, first + 1);
        old.epoch = first;
        assert_eq!(old.init().await, 0, "a retry");
        assert_eq!(old.epoch, first + 1);
        add(&mut old, &topic).await;
        assert_eq!(old.produce(&topic, 0, 0).await, 0);
        let mut new = Producer::connect(&target.address, V1, &old.transactional_id).await;
        assert_eq!(new.init().await, CONCURRENT_TRANSACTIONS, "the open transaction is aborted first");
        while new.init().await == CONCURRENT_TRANSACTIONS {}
        assert_eq!((new.id, new.epoch), (old.id, first + 3));
        assert_eq!(old.produce(&topic, 0, 1).await, INVALID_PRODUCER_EPOCH);
        assert_eq!(old.add_partitions(&topic, &[0]).await, [PRODUCER_FENCED]);
        assert_eq!(old.add_offsets("g").await, INVALID_PRODUCER_EPOCH, "version 1 has no PRODUCER_FENCED");
        assert_eq!(old.end(true).await, PRODUCER_FENCED);
        assert_eq!(old.init().await, PRODUCER_FENCED);
        old.versions.init = 3;
        assert_eq!(old.init().await, INVALID_PRODUCER_EPOCH);
        old.id += 1_000_000;
        assert_eq!(old.end(true).await, INVALID_PRODUCER_ID_MAPPING);
        let mut unlimited = Producer::connect(&target.address, V1, &target.name("other")).await;
        assert_eq!(unlimited.init_with_timeout(900_001).await, INVALID_TRANSACTION_TIMEOUT);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn owner_may_initialize_over_its_open_transaction() {
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 1).await;
        for versions in [V1, V2] {
            let mut p = producer(&target, versions, &format!("p{}", versions.end)).await;
            add(&mut p, &topic).await;
            assert_eq!(p.produce(&topic, 0, 0).await, 0);
            let epoch = p.epoch;
            assert_eq!(p.init().await, CONCURRENT_TRANSACTIONS, "aborted first");
            while p.init().await == CONCURRENT_TRANSACTIONS {}
            assert_eq!(p.epoch, epoch + 1);
        }
        clean_up(target).await;
    }
}

#[tokio::test]
async fn takeover_of_version_2_fences_the_old_owner() {
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 1).await;
        let mut old = producer(&target, V2, "p").await;
        assert_eq!(old.produce(&topic, 0, 0).await, 0);
        let mut new = Producer::connect(&target.address, V2, &old.transactional_id).await;
        assert_eq!(new.init().await, CONCURRENT_TRANSACTIONS);
        while new.init().await == CONCURRENT_TRANSACTIONS {}
        assert_eq!((new.id, new.epoch), (old.id, old.epoch + 2));
        assert_eq!(old.end(true).await, PRODUCER_FENCED);
        assert_eq!(old.produce(&topic, 0, 1).await, INVALID_PRODUCER_EPOCH);
        assert_eq!(new.produce(&topic, 0, 0).await, 0);
        assert_eq!(new.end(true).await, 0);
        completed(&mut new).await;
        let mut reader = target.client().await;
        assert_eq!(read_at(&mut reader, &topic, 4).await, (vec![2], 1));
        clean_up(target).await;
    }
}

#[tokio::test]
async fn transactional_batch_needs_its_transaction() {
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 1).await;
        let mut p = producer(&target, V1, "p").await;
        let without_id = p.produce_request(&topic, 0, 0, 1).with_transactional_id(None);
        let refused = p.client.call(9, &without_id).await;
        assert_eq!(refused.responses[0].partition_responses[0].error_code, 53);
        add(&mut p, &topic).await;
        assert_eq!(p.produce(&topic, 0, 0).await, 0);
        let plain = BatchBuilder::new(&[1]).by(p.id, p.epoch, 1).make();
        assert_eq!(p.client.produce(&topic, 0, plain).await.error_code, INVALID_TXN_STATE);
        assert_eq!(p.end(true).await, 0);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn initialization_continues_from_the_epoch_before_end_txn() {
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 1).await;
        let mut p = producer(&target, V2, "p").await;
        assert_eq!(p.produce(&topic, 0, 0).await, 0);
        let epoch = p.epoch;
        assert_eq!(p.try_end(true).await.0, 0);
        completed(&mut p).await;
        assert_eq!(p.init().await, 0, "the response of EndTxn was lost");
        assert_eq!(p.epoch, epoch + 1);
        assert_eq!(p.init().await, 0);
        assert_eq!(p.epoch, epoch + 2);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn late_batch_of_an_ended_transaction_is_refused() {
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 1).await;
        let mut p = producer(&target, V1, "p").await;
        add(&mut p, &topic).await;
        assert_eq!(p.produce(&topic, 0, 0).await, 0);
        assert_eq!(p.end(false).await, 0);
        completed(&mut p).await;
        assert_eq!(p.produce(&topic, 0, 1).await, TRANSACTION_ABORTABLE);
        p.versions = V2;
        assert_eq!(p.end(false).await, 0, "version 2 abandons it with its epoch");
        completed(&mut p).await;
        assert_eq!(p.produce(&topic, 0, 0).await, 0);
        assert_eq!(p.end(true).await, 0);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn owner_of_a_timed_out_transaction_initializes_again() {
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 1).await;
        for versions in [V1, V2] {
            let mut p = producer(&target, versions, &format!("p{}", versions.end)).await;
            assert_eq!(p.init_with_timeout(50).await, 0);
            add(&mut p, &topic).await;
            // A slow machine may send the batch after the timeout.
            let produced = p.produce(&topic, 0, 0).await;
            assert!([0, INVALID_PRODUCER_EPOCH].contains(&produced), "{produced}");
            while p.state().await != "CompleteAbort" {}
            assert_eq!(p.produce(&topic, 0, 1).await, INVALID_PRODUCER_EPOCH);
            let epoch = p.epoch;
            match versions == V1 {
                true => assert_eq!((p.end(true).await, p.end(false).await), (PRODUCER_FENCED, PRODUCER_FENCED)),
                // The epoch looks like the one of a repeated request.
                false => {
                    assert_eq!(p.end(true).await, INVALID_TXN_STATE);
                    assert_eq!(p.try_end(false).await, (0, p.id, epoch + 1));
                }
            }
            assert_eq!((p.init().await, p.epoch), (0, epoch + 1), "the owner may continue");
        }
        clean_up(target).await;
    }
}

#[tokio::test]
async fn open_transaction_is_described_and_aborted_by_a_marker() {
    for target in targets().await {
        let topic = target.name("t");
        let mut client = target.client().await;
        client.create_topic(&topic, 1).await;
        let mut p = producer(&target, V2, "p").await;
        assert_eq!(p.produce(&topic, 0, 0).await, 0);
        assert_eq!(p.end(true).await, 0);
        completed(&mut p).await;
        assert_eq!(p.produce(&topic, 0, 0).await, 0);
        let described = TopicRequest::default().with_name(topic_name(&topic)).with_partition_indexes(vec![0]);
        let describe = DescribeProducersRequest::default().with_topics(vec![described]);
        let found = client.call(0, &describe).await.topics.remove(0).partitions.remove(0).active_producers.remove(0);
        assert_eq!((found.producer_id.0, found.producer_epoch), (p.id, p.epoch.into()));
        assert_eq!((found.last_sequence, found.last_timestamp, found.current_txn_start_offset), (0, 1, 2));
        let list = ListTransactionsRequest::default()
            .with_state_filters(vec![text("Ongoing"), text("Nonsense")])
            .with_producer_id_filters(vec![ProducerId(p.id)])
            .with_transactional_id_pattern(Some(text(".*-p")));
        let listed = client.call(2, &list).await;
        assert_eq!((listed.error_code, listed.unknown_state_filters), (0, vec![text("Nonsense")]));
        assert_eq!(listed.transaction_states.len(), 1);
        let marked = WritableTxnMarkerTopic::default().with_name(topic_name(&topic)).with_partition_indexes(vec![0]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(p.id))
            .with_producer_epoch(p.epoch)
            .with_coordinator_epoch(found.coordinator_epoch)
            .with_topics(vec![marked]);
        let mut write = async |marker: WritableTxnMarker| {
            let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
            client.call(1, &request).await.markers[0].topics[0].partitions[0].error_code
        };
        assert_eq!(write(marker.clone().with_producer_epoch(p.epoch - 1)).await, INVALID_PRODUCER_EPOCH);
        assert_eq!(write(marker).await, 0);
        let found = client.call(0, &describe).await.topics.remove(0).partitions.remove(0).active_producers.remove(0);
        assert_eq!(found.current_txn_start_offset, -1);
        assert_eq!(read_at(&mut client, &topic, 4).await, (vec![0], 1));
        clean_up(target).await;
    }
}
