//! WriteTxnMarkers: ends transactions in partitions, whatever their coordinator says. Operators abort
//! hanging transactions by it.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::code;
use crate::batch::EndMarker;
use crate::markers::{OFFSETS_TOPIC, offsets_partition};
use crate::request::Context;
use crate::shared::{Shared, now_ms};

pub(super) fn handle(shared: &Shared, cx: &Context, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let one = |request: WritableTxnMarker| {
        let marker = EndMarker {
            producer_id: request.producer_id.0,
            producer_epoch: request.producer_epoch,
            coordinator_epoch: request.coordinator_epoch,
            commit: request.transaction_result,
            has_new_epoch: false,
            timestamp: now_ms(),
        };
        let topic = |topic: WritableTxnMarkerTopic| {
            let one = |&index: &i32| {
                let written = write(shared, cx, &topic.name, index, &marker);
                let out = WritableTxnMarkerPartitionResult::default().with_partition_index(index);
                out.with_error_code(code(&written))
            };
            let partitions = topic.partition_indexes.iter().map(one).collect();
            WritableTxnMarkerTopicResult::default().with_name(topic.name).with_partitions(partitions)
        };
        let topics = request.topics.into_iter().map(topic).collect();
        WritableTxnMarkerResult::default().with_producer_id(request.producer_id).with_topics(topics)
    };
    WriteTxnMarkersResponse::default().with_markers(request.markers.into_iter().map(one).collect())
}

fn write(shared: &Shared, cx: &Context, topic: &str, partition: i32, marker: &EndMarker) -> Result<(), ResponseError> {
    cx.check_fault()?;
    if topic == OFFSETS_TOPIC {
        let mut groups = shared.groups();
        let names: Vec<String> = groups.iter().map(|(name, _)| name.to_owned()).collect();
        for group in names.iter().filter(|name| offsets_partition(name) == partition) {
            groups.update(group, false, |g| g.end_transaction(marker.producer_id, marker.commit));
        }
        return Ok(());
    }
    let mut cluster = shared.cluster();
    let found = cluster.leader_partition(cx.node, topic, partition)?;
    found.log.append_marker(marker, found.leader_epoch).map(|_| ())
}
