//! Offsets in transactions.

use super::*;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};

const OFFSET_METADATA_TOO_LARGE: i16 = 12;

#[tokio::test]
async fn later_commit_outside_a_transaction_stays() {
    let broker = start(Versions::kafka()).await;
    let mut p = producer(&broker, V2).await;
    assert_eq!(p.commit_offset("g", "t", 0, 5).await, 0);
    assert_eq!(p.commit_offset("g", "t", 1, 5).await, 0);
    let pending = broker.pending_offsets("g");
    let found: Vec<_> = pending.iter().map(|o| (o.producer_id, o.topic.as_str(), o.partition, o.offset)).collect();
    assert_eq!(found, [(p.id, "t", 0, 5), (p.id, "t", 1, 5)]);
    let partition = OffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(9);
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id("g"))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    assert_eq!(p.client.call(7, &request).await.topics[0].partitions[0].error_code, 0);
    assert_eq!(p.end(true).await, 0);
    assert_eq!(broker.committed_offset("g", "t", 0), Some(9));
    assert_eq!(broker.committed_offset("g", "t", 1), Some(5));
    assert_eq!(broker.pending_offsets("g"), []);
    broker.shutdown().await;
}

#[tokio::test]
async fn offset_that_cannot_be_stored_fails_alone() {
    let broker = start(Versions::kafka()).await;
    let mut p = producer(&broker, V2).await;
    let one = |partition, metadata: String| {
        let one = TxnOffsetCommitRequestPartition::default().with_partition_index(partition).with_committed_offset(1);
        one.with_committed_metadata(Some(text(&metadata)))
    };
    let topic = |name, partitions| {
        TxnOffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
    };
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(TransactionalId(text("p")))
        .with_group_id(group_id("g"))
        .with_producer_id(ProducerId(p.id))
        .with_producer_epoch(p.epoch)
        .with_generation_id(-1)
        .with_topics(vec![
            topic("t", vec![one(0, "x".repeat(4097)), one(1, "x".repeat(4096))]),
            topic("none", vec![one(0, String::new())]),
        ]);
    let response = p.client.call(5, &request).await;
    let codes: Vec<i16> = response.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect();
    assert_eq!(codes, [OFFSET_METADATA_TOO_LARGE, 0, UNKNOWN_TOPIC_OR_PARTITION]);
    broker.shutdown().await;
}
