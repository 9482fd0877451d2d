//! Fetch: reads batches, and waits for more if there are too few.
//!
//! Fetch sessions are not offered: every answer says session 0, and each request names all of its partitions.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::conn::Context;
use crate::shared::Shared;

const READ_COMMITTED: i8 = 1;
/// From this version on topics are named by id.
const BY_ID: i16 = 13;

/// What one look at the logs found.
struct Found {
    topics: Vec<FoundTopic>,
    bytes: usize,
    /// An error is told at once.
    failed: bool,
}

pub(super) async fn handle(shared: &Shared, cx: &Context, request: FetchRequest) -> FetchResponse {
    if request.session_id != 0 {
        return FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = tokio::time::Instant::now() + wait;
    let mut late = wait.is_zero() || request.topics.iter().all(|t| t.partitions.is_empty());
    loop {
        if let Some(found) = look_or_wait(shared, cx, &request, late) {
            return answer(cx, found);
        }
        late = tokio::time::timeout_at(deadline, cx.wake.notified()).await.is_err();
    }
}

/// What there is, if it is enough or it is `late`. Otherwise the connection will be woken by the next change: both under
/// one lock, so that no append slips in between the look and the wait.
fn look_or_wait(shared: &Shared, cx: &Context, request: &FetchRequest, late: bool) -> Option<Found> {
    let min = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut cluster = shared.cluster();
    let found = look(shared, cx, &mut cluster, request);
    if late || found.failed || found.bytes >= min {
        return Some(found);
    }
    for topic in &request.topics {
        let name = name_of(cx, &cluster, &topic.topic, topic.topic_id).unwrap_or_default();
        cluster.wait(&cx.wake, topic.partitions.iter().map(|p| (name.as_str(), p.partition)));
    }
    None
}

fn look(shared: &Shared, cx: &Context, cluster: &mut Cluster, request: &FetchRequest) -> Found {
    let mut found = Found { topics: Vec::with_capacity(request.topics.len()), bytes: 0, failed: false };
    let max = usize::try_from(request.max_bytes).unwrap_or(0);
    for topic in &request.topics {
        let name = name_of(cx, cluster, &topic.topic, topic.topic_id);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let data = PartitionData::default()
                .with_partition_index(asked.partition)
                .with_aborted_transactions((request.isolation_level == READ_COMMITTED).then(Vec::new));
            let room = max.saturating_sub(found.bytes);
            let first = found.bytes == 0;
            let got = name.as_ref().ok_or(ResponseError::UnknownTopicId);
            let got = got.and_then(|name| read(shared, cx, cluster, name, asked, room, first));
            partitions.push(match got {
                Ok(read) => {
                    found.bytes += read.batches.iter().map(Bytes::len).sum::<usize>();
                    let data = data.with_high_watermark(read.end).with_last_stable_offset(read.end);
                    (data.with_log_start_offset(read.start), read.batches)
                }
                Err(error) => {
                    found.failed = true;
                    (data.with_error_code(error.code()).with_high_watermark(-1), Vec::new())
                }
            });
        }
        found.topics.push(FoundTopic { name: topic.topic.clone(), id: topic.topic_id, partitions });
    }
    found
}

struct FoundTopic {
    name: TopicName,
    id: Uuid,
    partitions: Vec<(PartitionData, Vec<Bytes>)>,
}

struct Read {
    batches: Vec<Bytes>,
    start: i64,
    end: i64,
}

fn read(
    shared: &Shared,
    cx: &Context,
    cluster: &mut Cluster,
    topic: &str,
    asked: &FetchPartition,
    room: usize,
    first: bool,
) -> Result<Read, ResponseError> {
    cx.gate()?;
    let partition = cluster.led_by(cx.node, topic, asked.partition)?;
    partition.check_epoch(asked.current_leader_epoch)?;
    let room = room.min(usize::try_from(asked.partition_max_bytes).unwrap_or(0));
    let log = &partition.log;
    let batches = log.read(asked.fetch_offset, room, first, shared.config.cut_batches)?;
    Ok(Read { batches, start: log.start(), end: log.end() })
}

fn name_of(cx: &Context, cluster: &Cluster, name: &StrBytes, id: Uuid) -> Option<String> {
    if cx.version < BY_ID { Some(name.to_string()) } else { cluster.topic_name(id).map(str::to_owned) }
}

fn answer(cx: &Context, found: Found) -> FetchResponse {
    let partition = |(data, batches): (PartitionData, Vec<Bytes>)| data.with_records(Some(joined(batches)));
    let topic = |t: FoundTopic| {
        let partitions = t.partitions.into_iter().map(partition).collect();
        let out = FetchableTopicResponse::default().with_partitions(partitions);
        if cx.version < BY_ID { out.with_topic(t.name) } else { out.with_topic_id(t.id) }
    };
    FetchResponse::default().with_responses(found.topics.into_iter().map(topic).collect())
}

/// One batch is passed on as it is; several are copied into one buffer.
fn joined(mut batches: Vec<Bytes>) -> Bytes {
    if batches.len() == 1 {
        return batches.pop().unwrap_or_default();
    }
    let mut out = BytesMut::with_capacity(batches.iter().map(Bytes::len).sum());
    batches.iter().for_each(|b| out.extend_from_slice(b));
    out.freeze()
}
