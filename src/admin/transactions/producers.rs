//! Producers of a partition, and the abort of a transaction by a marker in its log.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::{ProducerState as WireState, TopicResponse};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, ProducerId, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use serde::Serialize;

use crate::admin::Admin;
use crate::cluster::fields::{partitions_by_topic, topic_name};
use crate::cluster::leaders::{Outcomes, RetryPolicy, all_or_error};
use crate::code;
use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicPartition;
use crate::timestamp::{Timestamp, millis};

/// A producer that has written to a partition, as the partition's leader knows it.
///
/// ```
/// use ailurus::admin::ProducerState;
///
/// fn open(producers: &[ProducerState]) -> Option<i64> {
///     producers.iter().filter_map(|p| p.transaction_start_offset).min() // the last stable offset
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ProducerState {
    /// Producer id.
    pub producer_id: i64,
    /// Epoch of the producer.
    pub producer_epoch: i32,
    /// Sequence number of its last record; -1 after a marker.
    pub last_sequence: i32,
    /// Timestamp of its last record: `lastTimestampMs` in JSON.
    #[serde(rename = "lastTimestampMs", with = "millis")]
    pub last_timestamp: Timestamp,
    /// Epoch of the coordinator that wrote its last marker; none before the first.
    pub coordinator_epoch: Option<i32>,
    /// Offset of the first record of its open transaction; none if no transaction is open.
    pub transaction_start_offset: Option<i64>,
}

/// A transaction that is open in a partition.
///
/// ```
/// # fn show(t: &ailurus::admin::OpenTransaction) {
/// println!("{}/{} is stable up to {}: producer id {}", t.topic, t.partition, t.start_offset, t.producer_id);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct OpenTransaction {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset of the transaction's first record in the partition.
    pub start_offset: i64,
    /// Producer id.
    pub producer_id: i64,
    /// Epoch of the producer.
    pub producer_epoch: i32,
    /// Epoch of the coordinator that wrote the producer's last marker; none before the first.
    pub coordinator_epoch: Option<i32>,
    /// Timestamp of the producer's last record: `lastTimestampMs` in JSON.
    #[serde(rename = "lastTimestampMs", with = "millis")]
    pub last_timestamp: Timestamp,
}

impl OpenTransaction {
    /// Returns the time since the producer's last record, by the clock of this machine.
    pub fn idle_for(&self) -> Duration {
        self.last_timestamp.elapsed()
    }

    pub(super) fn place(&self) -> TopicPartition {
        TopicPartition::new(self.topic.as_str(), self.partition)
    }
}

/// Returns the open transactions among the producers of a partition, the one that holds the last
/// stable offset first.
pub(crate) fn open_transactions(at: &TopicPartition, producers: &[ProducerState]) -> Vec<OpenTransaction> {
    let open = |p: &ProducerState| {
        Some(OpenTransaction {
            topic: at.topic.to_string(),
            partition: at.partition,
            start_offset: p.transaction_start_offset?,
            producer_id: p.producer_id,
            producer_epoch: p.producer_epoch,
            coordinator_epoch: p.coordinator_epoch,
            last_timestamp: p.last_timestamp,
        })
    };
    let mut open: Vec<_> = producers.iter().filter_map(open).collect();
    open.sort_by_key(|t| t.start_offset);
    open
}

impl Admin {
    /// Returns the producers of each partition, by producer id, or the partition's error, such as a
    /// missing leader. Takes about a second longer than the slowest broker that responds, and 5
    /// seconds for one that does not.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] if no broker can be reached. Of a partition:
    /// [`ErrorKind::Unsupported`] before Kafka 2.8.
    pub async fn describe_producers(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Result<Vec<ProducerState>>>> {
        self.producers_of(partitions, RetryPolicy::best_effort(self.cluster())).await
    }

    async fn producers_of(
        &self,
        partitions: &[TopicPartition],
        policy: RetryPolicy,
    ) -> Result<Outcomes<Vec<ProducerState>>> {
        let request = |of_leader: &[TopicPartition]| {
            let topics = partitions_by_topic(of_leader)
                .map(|(topic, partitions)| TopicRequest::default().with_name(topic).with_partition_indexes(partitions));
            DescribeProducersRequest::default().with_topics(topics.collect())
        };
        let partitions = partitions.iter().cloned();
        self.cluster().request_leaders("describing the producers", partitions, policy, request, decode_producers).await
    }

    /// Returns the transaction that is open in a partition from this offset on.
    ///
    /// # Errors
    /// [`ErrorKind::OffsetOutOfRange`] if no open transaction begins there: it names those that are
    /// open; [`ErrorKind::UnknownTopic`]; if the leader does not respond.
    pub async fn open_transaction(&self, partition: &TopicPartition, start_offset: i64) -> Result<OpenTransaction> {
        let policy = RetryPolicy::all_or_none(self.cluster());
        let found = all_or_error(self.producers_of(std::slice::from_ref(partition), policy).await?)?;
        let open: Vec<_> = found.iter().flat_map(|(at, producers)| open_transactions(at, producers)).collect();
        if let Some(found) = open.iter().find(|t| t.start_offset == start_offset) {
            return Ok(found.clone());
        }
        let begin = open.iter().map(|t| t.start_offset.to_string()).collect::<Vec<_>>().join(", ");
        let open = if begin.is_empty() { "none is open".to_owned() } else { format!("those that are open: {begin}") };
        let what = format!("no open transaction of {partition} begins at offset {start_offset}; {open}");
        Err(Error::new(ErrorKind::OffsetOutOfRange, what))
    }

    /// Aborts a transaction in one partition: writes an abort marker into its log. For a hanging
    /// transaction, which no coordinator will end; one that a coordinator has open is ended by
    /// [`fence_producer`](Self::fence_producer), in all of its partitions.
    ///
    /// Needs the right `CLUSTER_ACTION` on the cluster. Redpanda does not support it.
    ///
    /// # Errors
    /// The broker's code INVALID_PRODUCER_EPOCH or TRANSACTION_COORDINATOR_FENCED if the producer
    /// has begun another transaction, or a coordinator has ended this one meanwhile;
    /// [`ErrorKind::Unsupported`] with what to do on Redpanda; [`ErrorKind::Config`] for an epoch
    /// that is none.
    ///
    /// # Cancellation
    /// If the future is dropped, the marker may be written.
    pub async fn abort_transaction(&self, transaction: &OpenTransaction) -> Result<()> {
        let (place, id, epoch) = (transaction.place(), transaction.producer_id, transaction.producer_epoch);
        let what = format!("aborting the transaction of producer id {id} in {place}");
        let short = i16::try_from(epoch).map_err(|_| {
            let what = format!("{what}: {epoch} is no epoch of a producer");
            Error::new(ErrorKind::Config, what)
        })?;
        let request = |_: &[TopicPartition]| {
            let topic = WritableTxnMarkerTopic::default()
                .with_name(topic_name(&transaction.topic))
                .with_partition_indexes(vec![transaction.partition]);
            // Without a marker before, no coordinator's epoch is known, and any is accepted.
            let marker = WritableTxnMarker::default()
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(short)
                .with_transaction_result(false)
                .with_coordinator_epoch(transaction.coordinator_epoch.unwrap_or(0))
                .with_topics(vec![topic]);
            WriteTxnMarkersRequest::default().with_markers(vec![marker])
        };
        let policy = RetryPolicy::all_or_none(self.cluster());
        let outcomes = self.cluster().request_leaders(&what, [place.clone()], policy, request, decode_markers).await?;
        all_or_error(outcomes).map(drop).map_err(|e| explain_abort(e, transaction))
    }
}

fn decode_producers(response: DescribeProducersResponse) -> Vec<(TopicPartition, i16, Vec<ProducerState>)> {
    let of_topic = |t: TopicResponse| {
        let name = t.name;
        t.partitions.into_iter().map(move |p| {
            let mut producers: Vec<_> = p.active_producers.into_iter().map(producer).collect();
            producers.sort_by_key(|p| p.producer_id);
            (TopicPartition::new(name.as_str(), p.partition_index), p.error_code, producers)
        })
    };
    response.topics.into_iter().flat_map(of_topic).collect()
}

fn producer(p: WireState) -> ProducerState {
    ProducerState {
        producer_id: p.producer_id.0,
        producer_epoch: p.producer_epoch,
        last_sequence: p.last_sequence,
        last_timestamp: Timestamp::from_millis(p.last_timestamp),
        coordinator_epoch: Some(p.coordinator_epoch).filter(|epoch| *epoch >= 0),
        transaction_start_offset: Some(p.current_txn_start_offset).filter(|offset| *offset >= 0),
    }
}

fn decode_markers(response: WriteTxnMarkersResponse) -> Vec<(TopicPartition, i16, ())> {
    let topics = response.markers.into_iter().flat_map(|m| m.topics);
    let partitions = topics.flat_map(|t| {
        let name = t.name;
        t.partitions.into_iter().map(move |p| (TopicPartition::new(name.as_str(), p.partition_index), p.error_code, ()))
    });
    partitions.collect()
}

fn explain_abort(e: Error, t: &OpenTransaction) -> Error {
    let OpenTransaction { topic, partition, producer_id, producer_epoch, .. } = t;
    let why = match e.kind() {
        ErrorKind::Unsupported => format!(
            "Redpanda does not let clients write markers: end the transaction by its transactional id \
             (Admin::fence_producer), or if it has none, by Redpanda's admin API: POST \
             /v1/partitions/kafka/{topic}/{partition}/mark_transaction_expired?id={producer_id}&epoch={producer_epoch}"
        ),
        ErrorKind::Broker(code::INVALID_PRODUCER_EPOCH | code::TRANSACTION_COORDINATOR_FENCED) => {
            "the producer or its coordinator has gone on: describe the producers again (Admin::describe_producers)"
                .to_owned()
        }
        ErrorKind::Authorization => "it needs the operation cluster_action on the cluster".to_owned(),
        _ => return e,
    };
    e.context(why)
}
