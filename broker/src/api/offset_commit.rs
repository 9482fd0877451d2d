//! OffsetCommit.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::{check_coordinator, code, owned};
use crate::group::{CommittedOffset, Group, MemberKey};
use crate::request::Context;
use crate::shared::Shared;

/// First version with member epochs of the `consumer` protocol in place of the generation.
const MEMBER_EPOCH_VERSION: i16 = 9;
/// Maximum bytes of an offset's metadata, as Kafka's `offset.metadata.max.bytes`.
const MAX_METADATA_BYTES: usize = 4096;

pub(super) fn handle(shared: &Shared, cx: &Context, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let known: Vec<bool> = {
        let cluster = shared.cluster();
        request.topics.iter().map(|t| cluster.topics.contains_key(t.name.as_str())).collect()
    };
    let codes_or_error = check_coordinator(shared, cx, &request.group_id).and_then(|()| {
        let key = MemberKey { id: &request.member_id, instance: request.group_instance_id.as_deref() };
        let generation = request.generation_id_or_member_epoch;
        let now = shared.now();
        let step = |group: &mut Group| {
            group.check_commit(key, generation, cx.version >= MEMBER_EPOCH_VERSION, now)?;
            Ok(request.topics.iter().zip(&known).map(|(t, &known)| commit(group, t, known)).collect::<Vec<_>>())
        };
        // A commit without a generation may create the group.
        let committed = shared.groups().update(&request.group_id, generation < 0, step);
        let not_found = if cx.version >= MEMBER_EPOCH_VERSION {
            ResponseError::GroupIdNotFound
        } else {
            ResponseError::IllegalGeneration
        };
        committed.unwrap_or(Err(not_found))
    });
    let refused =
        |error: ResponseError| request.topics.iter().map(|t| vec![error.code(); t.partitions.len()]).collect();
    let codes: Vec<Vec<i16>> = codes_or_error.unwrap_or_else(refused);
    let topic = |(t, codes): (OffsetCommitRequestTopic, Vec<i16>)| {
        let one =
            |(index, code)| OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code);
        let partitions = t.partitions.iter().map(|p| p.partition_index).zip(codes).map(one).collect();
        OffsetCommitResponseTopic::default().with_name(t.name).with_partitions(partitions)
    };
    OffsetCommitResponse::default().with_topics(request.topics.into_iter().zip(codes).map(topic).collect())
}

/// Returns the error code of each partition.
fn commit(group: &mut Group, topic: &OffsetCommitRequestTopic, known: bool) -> Vec<i16> {
    let mut one = |p: &kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition| {
        if !known {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        let metadata = owned(p.committed_metadata.as_ref());
        check_metadata(metadata.as_deref())?;
        let committed =
            CommittedOffset { offset: p.committed_offset, leader_epoch: p.committed_leader_epoch, metadata };
        group.commit(&topic.name, p.partition_index, committed);
        Ok(())
    };
    topic.partitions.iter().map(|p| code(&one(p))).collect()
}

/// Checks the size of an offset's metadata.
pub(super) fn check_metadata(metadata: Option<&str>) -> Result<(), ResponseError> {
    let is_too_large = metadata.is_some_and(|m| m.len() > MAX_METADATA_BYTES);
    if is_too_large { Err(ResponseError::OffsetMetadataTooLarge) } else { Ok(()) }
}
