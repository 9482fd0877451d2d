//! ListOffsets: earliest, latest, or by timestamp.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use crate::cluster::Cluster;
use crate::request::Context;
use crate::shared::Shared;

const READ_COMMITTED: i8 = 1;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

pub(super) fn handle(shared: &Shared, cx: &Context, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut cluster = shared.cluster();
    let committed = request.isolation_level == READ_COMMITTED;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let one = |p: &ListOffsetsPartition| {
            let out = ListOffsetsPartitionResponse::default().with_partition_index(p.partition_index);
            match find(cx, &mut cluster, &topic.name, p, committed) {
                Err(error) => out.with_error_code(error.code()),
                Ok((offset, timestamp, epoch)) => {
                    let out = out.with_offset(offset).with_timestamp(timestamp);
                    if cx.version >= 4 { out.with_leader_epoch(epoch) } else { out }
                }
            }
        };
        let partitions = topic.partitions.iter().map(one).collect();
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// Returns offset, timestamp and leader epoch; -1 each if there is no such record.
fn find(
    cx: &Context,
    cluster: &mut Cluster,
    topic: &str,
    requested: &ListOffsetsPartition,
    committed: bool,
) -> Result<(i64, i64, i32), ResponseError> {
    cx.check_partition_fault(requested.partition_index)?;
    let partition = cluster.leader_partition(cx.node, topic, requested.partition_index)?;
    partition.check_epoch(requested.current_leader_epoch)?;
    let log = &partition.log;
    let end = if committed { log.last_stable_offset() } else { log.end() };
    let found = match requested.timestamp {
        LATEST => Some((end, -1)),
        EARLIEST | EARLIEST_LOCAL => Some((log.start(), -1)),
        MAX_TIMESTAMP => log.offset_of_max_timestamp(),
        LATEST_TIERED => None,
        timestamp => log.offset_for(timestamp).filter(|(offset, _)| *offset < end),
    };
    let epoch = match (requested.timestamp, found) {
        (_, None) => -1,
        (LATEST, _) => partition.leader_epoch,
        (_, Some((offset, _))) => log.epoch_at(offset).unwrap_or(partition.leader_epoch),
    };
    let (offset, timestamp) = found.unwrap_or((-1, -1));
    Ok((offset, timestamp, epoch))
}
