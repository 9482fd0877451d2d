//! OffsetFetch requests, and the decoding of their responses.

use std::collections::HashMap;

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};

use crate::cluster::fields::{group_id, partitions_by_topic};
use crate::cluster::offset_commit::OffsetAndMetadata;
use crate::code;
use crate::error::Result;
use crate::record::TopicPartition;

/// Builds the request for committed offsets; with `stable`, the broker waits for those of open
/// transactions.
pub(crate) fn committed_request(group: &str, partitions: &[TopicPartition], stable: bool) -> OffsetFetchRequest {
    let topics = partitions_by_topic(partitions).map(|(topic, partitions)| {
        OffsetFetchRequestTopic::default().with_name(topic).with_partition_indexes(partitions)
    });
    OffsetFetchRequest::default()
        .with_group_id(group_id(group))
        .with_topics(Some(topics.collect()))
        .with_require_stable(stable)
}

/// Returns the offsets of those partitions that have a committed one, or an error code.
pub(crate) fn decode_committed(
    response: &OffsetFetchResponse,
) -> Result<HashMap<TopicPartition, OffsetAndMetadata>, i16> {
    if response.error_code != 0 {
        return Err(response.error_code);
    }
    let mut committed = HashMap::new();
    for topic in &response.topics {
        for p in &topic.partitions {
            match p.error_code {
                0 if p.committed_offset >= 0 => {
                    let metadata = p.metadata.as_ref().map_or("", |m| m.as_str());
                    let offset = OffsetAndMetadata::new(p.committed_offset)
                        .with_leader_epoch(p.committed_leader_epoch)
                        .with_metadata(metadata);
                    committed.insert(TopicPartition::new(topic.name.as_str(), p.partition_index), offset);
                }
                // A topic that was deleted has no committed offsets.
                0 | code::UNKNOWN_TOPIC_OR_PARTITION => {}
                code => return Err(code),
            }
        }
    }
    Ok(committed)
}

#[cfg(test)]
mod tests;
