//! DescribeLogDirs: sizes of this node's replicas.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};

use super::{code, text};
use crate::cluster::Partition;
use crate::request::Context;
use crate::shared::Shared;

/// Name of the log directory; there is none.
const LOG_DIR: &str = "memory";
/// First version with a top-level error code.
const ERROR_CODE_VERSION: i16 = 3;
/// First version with volume sizes.
const VOLUME_BYTES_VERSION: i16 = 4;
const UNKNOWN_BYTES: i64 = -1;

pub(super) fn handle(shared: &Shared, cx: &Context, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let error = code(&cx.check_fault());
    let mut dir = DescribeLogDirsResult::default().with_error_code(error).with_log_dir(text(LOG_DIR));
    if error == 0 {
        dir = dir.with_topics(topics(shared, cx, request.topics));
    }
    if cx.version >= VOLUME_BYTES_VERSION {
        dir = dir.with_total_bytes(UNKNOWN_BYTES).with_usable_bytes(UNKNOWN_BYTES);
    }
    let out = DescribeLogDirsResponse::default().with_results(vec![dir]);
    if cx.version >= ERROR_CODE_VERSION { out.with_error_code(error) } else { out }
}

/// Returns this node's replicas, of the requested topics or of all.
fn topics(shared: &Shared, cx: &Context, requested: Option<Vec<DescribableLogDirTopic>>) -> Vec<DescribeLogDirsTopic> {
    let requested: Option<BTreeMap<String, Vec<i32>>> =
        requested.map(|all| all.into_iter().map(|t| (t.topic.to_string(), t.partitions)).collect());
    let wanted = |topic: &str, partition: i32| {
        requested.as_ref().is_none_or(|all| all.get(topic).is_some_and(|wanted| wanted.contains(&partition)))
    };
    let cluster = shared.cluster();
    let mut found = Vec::new();
    for (name, topic) in &cluster.topics {
        let here = (0..).zip(&topic.partitions).filter(|(i, p)| wanted(name, *i) && p.replicas.contains(&cx.node));
        let partitions: Vec<_> = here.map(|(i, p)| partition(i, p)).collect();
        if !partitions.is_empty() {
            let out = DescribeLogDirsTopic::default().with_name(TopicName(text(name.clone())));
            found.push(out.with_partitions(partitions));
        }
    }
    found
}

fn partition(index: i32, p: &Partition) -> DescribeLogDirsPartition {
    let bytes: usize = p.log.batches().map(|b| b.data.len()).sum();
    DescribeLogDirsPartition::default()
        .with_partition_index(index)
        .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX))
}
