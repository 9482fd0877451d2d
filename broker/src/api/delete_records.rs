//! DeleteRecords: advances the log start offset.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use crate::request::Context;
use crate::shared::Shared;

/// Sentinel offset of the high watermark.
const HIGH_WATERMARK: i64 = -1;

pub(super) fn handle(shared: &Shared, cx: &Context, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let one = |p: &DeleteRecordsPartition| {
            let out = DeleteRecordsPartitionResult::default().with_partition_index(p.partition_index);
            match delete(shared, cx, &topic.name, p) {
                Ok(start) => out.with_low_watermark(start),
                Err(error) => out.with_low_watermark(-1).with_error_code(error.code()),
            }
        };
        let partitions = topic.partitions.iter().map(one).collect();
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

/// Returns the new log start offset.
fn delete(
    shared: &Shared,
    cx: &Context,
    topic: &str,
    requested: &DeleteRecordsPartition,
) -> Result<i64, ResponseError> {
    cx.check_fault()?;
    let mut cluster = shared.cluster();
    let log = &mut cluster.leader_partition(cx.node, topic, requested.partition_index)?.log;
    let offset = if requested.offset == HIGH_WATERMARK { log.end() } else { requested.offset };
    log.delete_before(offset)?;
    Ok(log.start())
}
