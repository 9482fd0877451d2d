//! Requests of a transactional producer, in any version.

use std::collections::BTreeSet;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::records::RecordBatchDecoder;

use super::batch::BatchBuilder;
use super::{Client, fetch_request, group_id, produce_request, text, topic_name};

pub const READ_COMMITTED: i8 = 1;

/// Error codes.
pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
pub const NOT_COORDINATOR: i16 = 16;
pub const ILLEGAL_GENERATION: i16 = 22;
pub const UNKNOWN_MEMBER_ID: i16 = 25;
pub const INVALID_PRODUCER_EPOCH: i16 = 47;
pub const INVALID_TXN_STATE: i16 = 48;
pub const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
pub const INVALID_TRANSACTION_TIMEOUT: i16 = 50;
pub const CONCURRENT_TRANSACTIONS: i16 = 51;
pub const OPERATION_NOT_ATTEMPTED: i16 = 55;
pub const UNSTABLE_OFFSET_COMMIT: i16 = 88;
pub const PRODUCER_FENCED: i16 = 90;
pub const TRANSACTION_ABORTABLE: i16 = 120;

/// RequestVersions of the requests of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestVersions {
    pub init: i16,
    pub produce: i16,
    pub commit_offsets: i16,
    pub end: i16,
}

/// RequestVersions of `transaction.version` 0 and 1 on Kafka.
pub const V1: RequestVersions = RequestVersions { init: 4, produce: 11, commit_offsets: 4, end: 4 };
/// RequestVersions of `transaction.version` 2.
pub const V2: RequestVersions = RequestVersions { init: 4, produce: 12, commit_offsets: 5, end: 5 };
/// RequestVersions of Redpanda.
pub const REDPANDA: RequestVersions = RequestVersions { init: 3, produce: 7, commit_offsets: 3, end: 3 };

/// A transactional producer as a test plays it: what it knows of itself, and where it sends.
pub struct Producer {
    pub client: Client,
    pub versions: RequestVersions,
    pub transactional_id: String,
    /// Producer id and epoch.
    pub id: i64,
    pub epoch: i16,
    /// Member of the group that it commits for: generation, member id and instance id.
    pub member: (i32, String, Option<String>),
}

impl Producer {
    /// Connects without initializing.
    pub async fn connect(address: &str, versions: RequestVersions, transactional_id: &str) -> Self {
        Self {
            client: Client::connect(address).await,
            versions,
            transactional_id: transactional_id.to_owned(),
            id: -1,
            epoch: -1,
            member: (-1, String::new(), None),
        }
    }

    fn txn_id(&self) -> TransactionalId {
        TransactionalId(text(&self.transactional_id))
    }

    /// Initializes by the id and epoch that it has, and keeps new ones. Returns the error code.
    pub async fn init(&mut self) -> i16 {
        self.init_with_timeout(60_000).await
    }

    pub async fn init_with_timeout(&mut self, timeout_ms: i32) -> i16 {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(self.txn_id()))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch);
        let response = self.client.call(self.versions.init, &request).await;
        if response.error_code == 0 {
            (self.id, self.epoch) = (response.producer_id.0, response.producer_epoch);
        }
        response.error_code
    }

    /// Returns the error codes of the partitions, in their order.
    pub async fn add_partitions(&mut self, topic: &str, partitions: &[i32]) -> Vec<i16> {
        let topic =
            AddPartitionsToTxnTopic::default().with_name(topic_name(topic)).with_partitions(partitions.to_vec());
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.txn_id())
            .with_v3_and_below_producer_id(ProducerId(self.id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(vec![topic]);
        let response = self.client.call(3, &request).await;
        let results = response.results_by_topic_v3_and_below.iter().flat_map(|t| &t.results_by_partition);
        let mut results: Vec<_> = results.map(|p| (p.partition_index, p.partition_error_code)).collect();
        results.sort_unstable(); // Kafka groups them by their errors
        results.into_iter().map(|(_, code)| code).collect()
    }

    /// Builds a Produce of one batch with `count` records from this sequence on.
    pub fn produce_request(&self, topic: &str, partition: i32, sequence: i32, count: usize) -> ProduceRequest {
        let batch = BatchBuilder::new(&vec![1; count]).by(self.id, self.epoch, sequence).transactional().make();
        produce_request(topic, partition, batch, -1).with_transactional_id(Some(self.txn_id()))
    }

    /// Produces one record; returns the error code.
    pub async fn produce(&mut self, topic: &str, partition: i32, sequence: i32) -> i16 {
        let request = self.produce_request(topic, partition, sequence, 1);
        let mut response = self.client.call(self.versions.produce, &request).await;
        response.responses.remove(0).partition_responses.remove(0).error_code
    }

    /// Returns the error code.
    pub async fn add_offsets(&mut self, group: &str) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(self.txn_id())
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_group_id(group_id(group));
        self.client.call(1, &request).await.error_code
    }

    /// Commits an offset; returns the error code.
    pub async fn commit_offset(&mut self, group: &str, topic: &str, partition: i32, offset: i64) -> i16 {
        let (generation, member, instance) = &self.member;
        let one = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("m")));
        let topic = TxnOffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![one]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(self.txn_id())
            .with_group_id(group_id(group))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_generation_id(*generation)
            .with_member_id(text(member))
            .with_group_instance_id(instance.as_deref().map(text))
            .with_topics(vec![topic]);
        self.client.call(self.versions.commit_offsets, &request).await.topics[0].partitions[0].error_code
    }

    pub fn end_request(&self, commit: bool) -> EndTxnRequest {
        EndTxnRequest::default()
            .with_transactional_id(self.txn_id())
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(commit)
    }

    /// Ends the transaction, without taking over the next epoch: returns the error code and the
    /// response's producer id and epoch.
    pub async fn try_end(&mut self, commit: bool) -> (i16, i64, i16) {
        let request = self.end_request(commit);
        let response = self.client.call(self.versions.end, &request).await;
        (response.error_code, response.producer_id.0, response.producer_epoch)
    }

    /// Ends the transaction and takes over the next epoch; returns the error code.
    pub async fn end(&mut self, commit: bool) -> i16 {
        let (code, id, epoch) = self.try_end(commit).await;
        if code == 0 && self.versions.end >= 5 {
            (self.id, self.epoch) = (id, epoch);
        }
        code
    }

    /// Returns the state of the transactional id by DescribeTransactions.
    pub async fn state(&mut self) -> String {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![self.txn_id()]);
        let described = self.client.call(0, &request).await.transaction_states.remove(0);
        assert_eq!(described.error_code, 0);
        described.transaction_state.to_string()
    }
}

/// Offset and error code of a committed offset, with `require_stable`.
pub async fn stable_offset(client: &mut Client, group: &str, topic: &str, partition: i32) -> (i64, i16) {
    let topic = OffsetFetchRequestTopic::default().with_name(topic_name(topic)).with_partition_indexes(vec![partition]);
    let request = OffsetFetchRequest::default()
        .with_group_id(group_id(group))
        .with_topics(Some(vec![topic]))
        .with_require_stable(true);
    let mut response = client.call(7, &request).await;
    if response.error_code != 0 {
        return (-1, response.error_code);
    }
    let found = response.topics.remove(0).partitions.remove(0);
    (found.committed_offset, found.error_code)
}

/// Committed records as a reader sees them: the last stable offset, the offsets below it of records
/// of no aborted transaction, and the number of aborted transactions.
pub async fn read_committed(client: &mut Client, topic: &str, partition: i32) -> (i64, Vec<i64>, usize) {
    let (mut position, mut offsets, mut aborted) = (0, Vec::new(), BTreeSet::new());
    let mut ended = BTreeSet::new();
    // A response may end before the last stable offset.
    loop {
        let request = fetch_request(topic, partition, position).with_isolation_level(READ_COMMITTED);
        let data = client.call(11, &request).await.responses.remove(0).partitions.remove(0);
        assert_eq!(data.error_code, 0);
        let listed = data.aborted_transactions.unwrap_or_default();
        aborted.extend(listed.iter().map(|a| (a.producer_id.0, a.first_offset)));
        let mut records = data.records.unwrap_or_default();
        while !records.is_empty() {
            for record in RecordBatchDecoder::decode(&mut records).unwrap().records {
                position = record.offset + 1;
                let of = |&&(id, first): &&(i64, i64)| id == record.producer_id && first <= record.offset;
                let transaction = aborted.iter().filter(|a| !ended.contains(*a)).find(of).copied();
                match transaction {
                    Some(transaction) if record.control => _ = ended.insert(transaction),
                    None if !record.control => offsets.push(record.offset),
                    _ => {}
                }
            }
        }
        if position >= data.last_stable_offset {
            return (data.last_stable_offset, offsets, aborted.len());
        }
    }
}

/// Returns the offset of the end of the log for readers of this isolation level.
pub async fn latest_offset(client: &mut Client, topic: &str, isolation: i8) -> i64 {
    let partition = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_isolation_level(isolation)
        .with_topics(vec![topic]);
    client.call(4, &request).await.topics[0].partitions[0].offset
}
