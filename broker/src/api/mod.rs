//! One file per API of the Kafka protocol: from the decoded request to the response.

mod add_offsets_to_txn;
mod add_partitions_to_txn;
pub(crate) mod api_versions;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_acls;
mod create_partitions;
mod create_topics;
mod delete_acls;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_transactions;
mod end_txn;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
pub(crate) mod sasl_authenticate;
pub(crate) mod sasl_handshake;
mod sync_group;
mod transaction;
mod txn_offset_commit;
mod write_txn_markers;

use std::io;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;

use crate::request::{Context, Response};
use crate::shared::Shared;

/// Serves one request.
pub(crate) async fn dispatch(shared: &Shared, api: ApiKey, cx: &Context, body: Bytes) -> io::Result<Response> {
    match api {
        ApiKey::Produce => produce::handle(shared, cx, cx.decode(body)?).await,
        ApiKey::Fetch => cx.encode(&fetch::handle(shared, cx, cx.decode(body)?).await),
        ApiKey::ListOffsets => cx.encode(&list_offsets::handle(shared, cx, cx.decode(body)?)),
        ApiKey::Metadata => cx.encode(&metadata::handle(shared, cx, cx.decode(body)?)),
        ApiKey::OffsetCommit => cx.encode(&offset_commit::handle(shared, cx, cx.decode(body)?)),
        ApiKey::OffsetFetch => cx.encode(&offset_fetch::handle(shared, cx, cx.decode(body)?)),
        ApiKey::OffsetForLeaderEpoch => cx.encode(&offset_for_leader_epoch::handle(shared, cx, cx.decode(body)?)),
        ApiKey::FindCoordinator => cx.encode(&find_coordinator::handle(shared, cx, cx.decode(body)?)),
        ApiKey::JoinGroup => cx.encode(&join_group::handle(shared, cx, cx.decode(body)?).await),
        ApiKey::Heartbeat => cx.encode(&heartbeat::handle(shared, cx, cx.decode(body)?)),
        ApiKey::LeaveGroup => cx.encode(&leave_group::handle(shared, cx, cx.decode(body)?)),
        ApiKey::SyncGroup => cx.encode(&sync_group::handle(shared, cx, cx.decode(body)?).await),
        ApiKey::DescribeGroups => cx.encode(&describe_groups::handle(shared, cx, cx.decode(body)?)),
        ApiKey::ListGroups => cx.encode(&list_groups::handle(shared, cx, cx.decode(body)?)),
        ApiKey::ApiVersions => cx.encode(&api_versions::versions(shared, cx.version, cx.check_fault().err())),
        ApiKey::CreateTopics => cx.encode(&create_topics::handle(shared, cx, cx.decode(body)?)),
        ApiKey::DeleteTopics => cx.encode(&delete_topics::handle(shared, cx, cx.decode(body)?)),
        ApiKey::DeleteRecords => cx.encode(&delete_records::handle(shared, cx, cx.decode(body)?)),
        ApiKey::InitProducerId => cx.encode(&init_producer_id::handle(shared, cx, cx.decode(body)?)),
        ApiKey::AddPartitionsToTxn => cx.encode(&add_partitions_to_txn::handle(shared, cx, cx.decode(body)?)),
        ApiKey::AddOffsetsToTxn => cx.encode(&add_offsets_to_txn::handle(shared, cx, cx.decode(body)?)),
        ApiKey::EndTxn => cx.encode(&end_txn::handle(shared, cx, cx.decode(body)?)),
        ApiKey::TxnOffsetCommit => cx.encode(&txn_offset_commit::handle(shared, cx, cx.decode(body)?).await),
        ApiKey::ListTransactions => cx.encode(&list_transactions::handle(shared, cx, cx.decode(body)?)),
        ApiKey::DescribeTransactions => cx.encode(&describe_transactions::handle(shared, cx, cx.decode(body)?)),
        ApiKey::DescribeProducers => cx.encode(&describe_producers::handle(shared, cx, cx.decode(body)?)),
        ApiKey::WriteTxnMarkers => cx.encode(&write_txn_markers::handle(shared, cx, cx.decode(body)?)),
        ApiKey::DescribeAcls => cx.encode(&describe_acls::handle(shared, cx, cx.decode(body)?)),
        ApiKey::CreateAcls => cx.encode(&create_acls::handle(shared, cx, cx.decode(body)?)),
        ApiKey::DeleteAcls => cx.encode(&delete_acls::handle(shared, cx, cx.decode(body)?)),
        ApiKey::DescribeConfigs => cx.encode(&describe_configs::handle(shared, cx, cx.decode(body)?)),
        ApiKey::DescribeLogDirs => cx.encode(&describe_log_dirs::handle(shared, cx, cx.decode(body)?)),
        ApiKey::CreatePartitions => cx.encode(&create_partitions::handle(shared, cx, cx.decode(body)?)),
        ApiKey::DeleteGroups => cx.encode(&delete_groups::handle(shared, cx, cx.decode(body)?)),
        ApiKey::IncrementalAlterConfigs => cx.encode(&incremental_alter_configs::handle(shared, cx, cx.decode(body)?)),
        ApiKey::OffsetDelete => cx.encode(&offset_delete::handle(shared, cx, cx.decode(body)?)),
        ApiKey::DescribeCluster => cx.encode(&describe_cluster::handle(shared, cx, cx.decode(body)?)),
        ApiKey::ConsumerGroupHeartbeat => cx.encode(&consumer_group_heartbeat::handle(shared, cx, cx.decode(body)?)),
        ApiKey::ConsumerGroupDescribe => cx.encode(&consumer_group_describe::handle(shared, cx, cx.decode(body)?)),
        other => Err(io::Error::new(io::ErrorKind::Unsupported, format!("{other:?} is not supported"))),
    }
}

/// Fails unless this node coordinates the group.
fn check_coordinator(shared: &Shared, cx: &Context, group: &str) -> Result<(), ResponseError> {
    cx.check_fault()?;
    if group.is_empty() {
        return Err(ResponseError::InvalidGroupId);
    }
    if shared.cluster().coordinator(group) == cx.node { Ok(()) } else { Err(ResponseError::NotCoordinator) }
}

/// Returns the error code of a result: 0 for success.
fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().err().map_or(0, ResponseError::code)
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// Copies a string: a slice would keep the whole request in memory.
fn owned(text: Option<&StrBytes>) -> Option<String> {
    text.map(|t| t.to_string())
}
