//! OffsetForLeaderEpoch: the end of a leader epoch, by which a consumer detects truncation.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::cluster::Cluster;
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(
    shared: &Shared,
    cx: &Context,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut cluster = shared.cluster();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let one = |p: &OffsetForLeaderPartition| {
            let out = EpochEndOffset::default().with_partition(p.partition);
            match find(cx, &mut cluster, &topic.topic, p) {
                Ok((epoch, end)) => out.with_leader_epoch(epoch).with_end_offset(end),
                Err(error) => out.with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1),
            }
        };
        let partitions = topic.partitions.iter().map(one).collect();
        topics.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

fn find(
    cx: &Context,
    cluster: &mut Cluster,
    topic: &str,
    requested: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ResponseError> {
    cx.check_fault()?;
    let partition = cluster.leader_partition(cx.node, topic, requested.partition)?;
    partition.check_epoch(requested.current_leader_epoch)?;
    Ok(partition.log.end_of_epoch(requested.leader_epoch))
}
