//! Fetch: reads batches, and waits until there are `min_bytes`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::log::AbortedTxn;
use crate::request::Context;
use crate::shared::Shared;
use crate::transaction::TransactionRules;

const READ_COMMITTED: i8 = 1;
/// First version with a rack id: a consumer may read from a follower.
const RACK_VERSION: i16 = 11;
/// First version with topic ids.
const TOPIC_ID_VERSION: i16 = 13;

/// Result of one read of all partitions.
struct FetchedTopics {
    topics: Vec<FetchedTopic>,
    bytes: usize,
    /// True if a partition has an error or a preferred replica: the response does not wait.
    failed: bool,
}

pub(super) async fn handle(shared: &Shared, cx: &Context, mut request: FetchRequest) -> FetchResponse {
    let incremental = request.session_epoch > 0;
    let session = match shared.sessions().resolve_request(cx.node, &mut request) {
        Ok(session) => session,
        Err(error) => return FetchResponse::default().with_error_code(error.code()),
    };
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = tokio::time::Instant::now() + wait;
    let mut is_due = wait.is_zero() || request.topics.iter().all(|t| t.partitions.is_empty());
    loop {
        if let Some(found) = read_or_wait(shared, cx, &request, is_due) {
            return fetch_response(shared, cx, found, session, incremental);
        }
        is_due = tokio::time::timeout_at(deadline, cx.wake.notified()).await.is_err();
    }
}

/// Reads all partitions. If there is too little and the deadline is not due, registers the
/// connection for the next change and returns `None`.
fn read_or_wait(shared: &Shared, cx: &Context, request: &FetchRequest, is_due: bool) -> Option<FetchedTopics> {
    let min = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut cluster = shared.cluster();
    let found = read_all(shared, cx, &mut cluster, request);
    if is_due || found.failed || found.bytes >= min {
        return Some(found);
    }
    // Read and registration share one lock. Otherwise: 1. the read finds too little; 2. an append
    // notifies the waiters, this connection not among them; 3. the registration comes too late, and
    // the fetch waits until its deadline although there are records.
    for topic in &request.topics {
        let name = topic_name(cx, &cluster, &topic.topic, topic.topic_id).unwrap_or_default();
        cluster.notify_on_change(&cx.wake, topic.partitions.iter().map(|p| (name.as_str(), p.partition)));
    }
    None
}

fn read_all(shared: &Shared, cx: &Context, cluster: &mut Cluster, request: &FetchRequest) -> FetchedTopics {
    let mut found = FetchedTopics { topics: Vec::with_capacity(request.topics.len()), bytes: 0, failed: false };
    let max = usize::try_from(request.max_bytes).unwrap_or(0);
    for topic in &request.topics {
        let name = topic_name(cx, cluster, &topic.topic, topic.topic_id);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for requested in &topic.partitions {
            let data = PartitionData::default()
                .with_partition_index(requested.partition)
                .with_aborted_transactions((request.isolation_level == READ_COMMITTED).then(Vec::new));
            let max_bytes = max.saturating_sub(found.bytes);
            let at_least_one = found.bytes == 0;
            let result = name.as_ref().ok_or(ResponseError::UnknownTopicId);
            let result =
                result.and_then(|name| read(shared, cx, cluster, name, requested, request, (max_bytes, at_least_one)));
            partitions.push(match result {
                Ok(read) => {
                    found.bytes += read.batches.iter().map(Bytes::len).sum::<usize>();
                    found.failed |= read.preferred_replica.is_some();
                    let aborted = read.aborted.into_iter().map(|a| {
                        let producer = ProducerId(a.producer_id);
                        AbortedTransaction::default().with_producer_id(producer).with_first_offset(a.first_offset)
                    });
                    let aborted = data.aborted_transactions.as_ref().map(|_| aborted.collect());
                    let data = data.with_aborted_transactions(aborted).with_last_stable_offset(read.last_stable_offset);
                    let data = data.with_preferred_read_replica(BrokerId(read.preferred_replica.unwrap_or(-1)));
                    (
                        data.with_high_watermark(read.high_watermark).with_log_start_offset(read.log_start_offset),
                        read.batches,
                    )
                }
                Err(error) => {
                    found.failed = true;
                    (data.with_error_code(error.code()).with_high_watermark(-1), Vec::new())
                }
            });
        }
        found.topics.push(FetchedTopic { name: topic.topic.clone(), id: topic.topic_id, partitions });
    }
    found
}

struct FetchedTopic {
    name: TopicName,
    id: Uuid,
    partitions: Vec<(PartitionData, Vec<Bytes>)>,
}

struct PartitionRead {
    batches: Vec<Bytes>,
    aborted: Vec<AbortedTxn>,
    /// Preferred read replica, if it is another node.
    preferred_replica: Option<i32>,
    log_start_offset: i64,
    last_stable_offset: i64,
    high_watermark: i64,
}

fn read(
    shared: &Shared,
    cx: &Context,
    cluster: &mut Cluster,
    topic: &str,
    requested: &FetchPartition,
    request: &FetchRequest,
    (max_bytes, at_least_one): (usize, bool),
) -> Result<PartitionRead, ResponseError> {
    cx.check_partition_fault(requested.partition)?;
    let preferred_replica = cluster
        .preferred_read_replica(topic, requested.partition, &request.rack_id)
        .filter(|_| !request.rack_id.is_empty());
    let partition = match cx.version {
        RACK_VERSION.. => cluster.replica_partition(cx.node, topic, requested.partition)?,
        _ => cluster.leader_partition(cx.node, topic, requested.partition)?,
    };
    partition.check_epoch(requested.current_leader_epoch)?;
    let preferred_replica = preferred_replica.filter(|_| partition.leader == cx.node);
    let max_bytes = max_bytes.min(usize::try_from(requested.partition_max_bytes).unwrap_or(0));
    let log = &partition.log;
    let committed = request.isolation_level == READ_COMMITTED;
    let to = if committed { log.last_stable_offset() } else { log.end() };
    let from = requested.fetch_offset;
    let mut batches = log.read(from, to, max_bytes, at_least_one, shared.config.partial_batches)?;
    if preferred_replica.is_some() {
        batches.clear();
    }
    let mut aborted = if committed { log.aborted(from, to) } else { Vec::new() };
    if shared.config.versions.transaction_rules() == TransactionRules::Redpanda {
        // Redpanda does not sort them.
        aborted.reverse();
    }
    Ok(PartitionRead {
        batches,
        aborted,
        preferred_replica,
        log_start_offset: log.start(),
        last_stable_offset: log.last_stable_offset(),
        high_watermark: log.end(),
    })
}

fn topic_name(cx: &Context, cluster: &Cluster, name: &StrBytes, id: Uuid) -> Option<String> {
    if cx.version < TOPIC_ID_VERSION { Some(name.to_string()) } else { cluster.topic_name(id).map(str::to_owned) }
}

fn fetch_response(
    shared: &Shared,
    cx: &Context,
    found: FetchedTopics,
    session: i32,
    incremental: bool,
) -> FetchResponse {
    let mut sessions = shared.sessions();
    let mut responses = Vec::with_capacity(found.topics.len());
    for t in found.topics {
        let mut partitions = Vec::with_capacity(t.partitions.len());
        for (data, batches) in t.partitions {
            let bytes = batches.iter().map(Bytes::len).sum();
            if sessions.record_response(session, incremental, (&t.name, t.id), &data, bytes) {
                partitions.push(data.with_records(Some(concat(batches))));
            }
        }
        let out = FetchableTopicResponse::default();
        let out = if cx.version < TOPIC_ID_VERSION { out.with_topic(t.name) } else { out.with_topic_id(t.id) };
        if !partitions.is_empty() {
            responses.push(out.with_partitions(partitions));
        }
    }
    FetchResponse::default().with_session_id(session).with_responses(responses)
}

/// Concatenates batches; a single one is not copied.
fn concat(mut batches: Vec<Bytes>) -> Bytes {
    if batches.len() == 1 {
        return batches.pop().unwrap_or_default();
    }
    let mut out = BytesMut::with_capacity(batches.iter().map(Bytes::len).sum());
    batches.iter().for_each(|b| out.extend_from_slice(b));
    out.freeze()
}
