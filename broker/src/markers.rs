//! Writes the markers of ended transactions: into logs, and to the pending offsets of groups.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{ApiKey, ProducerId, TopicName, WriteTxnMarkersRequest};
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::batch::EndMarker;
use crate::cluster::Cluster;
use crate::fault::{Fault, RequestInfo};
use crate::shared::{Shared, now_ms};
use crate::transaction::{Marker, Participant, TransactionVersion};

/// Topic that Kafka stores the offsets of groups in.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";
const OFFSETS_PARTITIONS: i32 = 50;
/// Client id by which a hook recognizes a marker of the coordinator.
const COORDINATOR_CLIENT_ID: &str = "transaction-coordinator";
/// Version of WriteTxnMarkers.
const MARKERS_VERSION: i16 = 1;
/// Pause before a marker is written again to a partition without a leader.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// Writes new markers, except for those that a hook delays, and delayed ones that are due.
pub(crate) fn write_markers(shared: &Shared) {
    loop {
        let (new, due) = shared.transactions().poll_markers(shared.now());
        if new.is_empty() && due.is_empty() {
            return;
        }
        due.into_iter().for_each(|marker| write(shared, marker));
        for marker in new {
            match fault_for(shared, &marker) {
                Some(Fault::Delay(delay) | Fault::HoldFor(delay)) => {
                    let until = shared.now() + delay;
                    shared.transactions().delay_marker(marker, Some(until));
                }
                Some(Fault::Hold) => shared.transactions().delay_marker(marker, None),
                _ => write(shared, marker),
            }
        }
    }
}

/// Writes a marker; without a leader, it is retried later.
fn write(shared: &Shared, marker: Marker) {
    let mut transactions = shared.transactions();
    let now = shared.now();
    let is_written = match &marker.participant {
        Participant::Partition(topic, partition) => {
            write_to_log(&mut shared.cluster(), topic, *partition, &end_marker(&marker))
        }
        Participant::Group(group) => {
            let id = marker.producer.id;
            shared.groups().update(group, false, |g| g.end_transaction(id, marker.commit));
            true
        }
    };
    if is_written {
        transactions.on_marker_written(&marker, now);
    } else {
        transactions.delay_marker(marker, Some(now + RETRY_DELAY));
    }
}

/// Returns false if the partition has no leader. A deleted partition needs no marker, and a fenced
/// one is dropped, as by Kafka.
fn write_to_log(cluster: &mut Cluster, topic: &str, partition: i32, marker: &EndMarker) -> bool {
    let Some(found) = cluster.partition(topic, partition) else { return true };
    if found.leader < 0 {
        return false;
    }
    if let Err(error) = found.log.append_marker(marker, found.leader_epoch) {
        tracing::debug!(topic, partition, producer = marker.producer_id, %error, "marker dropped");
    }
    true
}

fn end_marker(marker: &Marker) -> EndMarker {
    EndMarker {
        producer_id: marker.producer.id,
        producer_epoch: marker.producer.epoch,
        coordinator_epoch: marker.coordinator_epoch,
        commit: marker.commit,
        has_new_epoch: marker.version == TransactionVersion::V2,
        timestamp: now_ms(),
    }
}

/// Returns the fault that the hook injects into a marker, which it sees as a WriteTxnMarkers with
/// one partition.
fn fault_for(shared: &Shared, marker: &Marker) -> Option<Fault> {
    let (topic, partition) = match &marker.participant {
        Participant::Partition(topic, partition) => (topic.clone(), *partition),
        Participant::Group(group) => (OFFSETS_TOPIC.to_owned(), offsets_partition(group)),
    };
    let node = match &marker.participant {
        Participant::Partition(..) => shared.cluster().partition(&topic, partition).map_or(-1, |p| p.leader),
        Participant::Group(group) => shared.cluster().coordinator(group),
    };
    let topic = WritableTxnMarkerTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic)))
        .with_partition_indexes(vec![partition]);
    let one = WritableTxnMarker::default()
        .with_producer_id(ProducerId(marker.producer.id))
        .with_producer_epoch(marker.producer.epoch)
        .with_transaction_result(marker.commit)
        .with_coordinator_epoch(marker.coordinator_epoch)
        .with_topics(vec![topic]);
    let mut body = BytesMut::new();
    // No field is long enough to fail.
    let encoded = WriteTxnMarkersRequest::default().with_markers(vec![one]).encode(&mut body, MARKERS_VERSION);
    let body = encoded.map_or_else(|_| Bytes::new(), |()| body.freeze());
    shared.fault_for_marker(&RequestInfo {
        node,
        api_key: ApiKey::WriteTxnMarkers as i16,
        version: MARKERS_VERSION,
        correlation_id: 0,
        client_id: COORDINATOR_CLIENT_ID,
        body: &body,
    })
}

/// Returns the partition of a group in [`OFFSETS_TOPIC`], by Java's hash of its name.
pub(crate) fn offsets_partition(group: &str) -> i32 {
    let hash = group.encode_utf16().fold(0_i32, |h, c| h.wrapping_mul(31).wrapping_add(c.into()));
    (hash & i32::MAX) % OFFSETS_PARTITIONS
}
