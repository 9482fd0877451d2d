//! Fetch: reads batches, and waits for more if there are too few.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::log::Aborted;
use crate::request::Context;
use crate::shared::Shared;

const READ_COMMITTED: i8 = 1;
/// From this version on a consumer may read from any replica.
const WITH_RACK: i16 = 11;
/// From this version on topics are named by id.
const BY_ID: i16 = 13;

/// What one look at the logs found.
struct Found {
    topics: Vec<FoundTopic>,
    bytes: usize,
    /// An error is told at once, and that another replica is to be read.
    failed: bool,
}

pub(super) async fn handle(shared: &Shared, cx: &Context, mut request: FetchRequest) -> FetchResponse {
    let incremental = request.session_epoch > 0;
    let session = match shared.sessions().enter(cx.node, &mut request) {
        Ok(session) => session,
        Err(error) => return FetchResponse::default().with_error_code(error.code()),
    };
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = tokio::time::Instant::now() + wait;
    let mut late = wait.is_zero() || request.topics.iter().all(|t| t.partitions.is_empty());
    loop {
        if let Some(found) = look_or_wait(shared, cx, &request, late) {
            return answer(shared, cx, found, session, incremental);
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
            let got = got.and_then(|name| read(shared, cx, cluster, name, asked, request, (room, first)));
            partitions.push(match got {
                Ok(read) => {
                    found.bytes += read.batches.iter().map(Bytes::len).sum::<usize>();
                    found.failed |= read.elsewhere.is_some();
                    let aborted = read.aborted.into_iter().map(|a| {
                        let producer = ProducerId(a.producer_id);
                        AbortedTransaction::default().with_producer_id(producer).with_first_offset(a.first_offset)
                    });
                    let aborted = data.aborted_transactions.as_ref().map(|_| aborted.collect());
                    let data = data.with_aborted_transactions(aborted).with_last_stable_offset(read.stable);
                    let data = data.with_preferred_read_replica(BrokerId(read.elsewhere.unwrap_or(-1)));
                    (data.with_high_watermark(read.end).with_log_start_offset(read.start), read.batches)
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
    aborted: Vec<Aborted>,
    /// The replica to read from instead.
    elsewhere: Option<i32>,
    start: i64,
    stable: i64,
    end: i64,
}

fn read(
    shared: &Shared,
    cx: &Context,
    cluster: &mut Cluster,
    topic: &str,
    asked: &FetchPartition,
    request: &FetchRequest,
    (room, first): (usize, bool),
) -> Result<Read, ResponseError> {
    cx.gate_of(asked.partition)?;
    let elsewhere = cluster.closest(topic, asked.partition, &request.rack_id).filter(|_| !request.rack_id.is_empty());
    let partition = match cx.version {
        WITH_RACK.. => cluster.held_by(cx.node, topic, asked.partition)?,
        _ => cluster.led_by(cx.node, topic, asked.partition)?,
    };
    partition.check_epoch(asked.current_leader_epoch)?;
    let elsewhere = elsewhere.filter(|_| partition.leader == cx.node);
    let room = room.min(usize::try_from(asked.partition_max_bytes).unwrap_or(0));
    let log = &partition.log;
    let committed = request.isolation_level == READ_COMMITTED;
    let to = if committed { log.last_stable_offset() } else { log.end() };
    let from = asked.fetch_offset;
    let mut batches = log.read(from, to, room, first, shared.config.cut_batches)?;
    if elsewhere.is_some() {
        batches.clear();
    }
    let aborted = if committed { log.aborted(from, to) } else { Vec::new() };
    Ok(Read { batches, aborted, elsewhere, start: log.start(), stable: log.last_stable_offset(), end: log.end() })
}

fn name_of(cx: &Context, cluster: &Cluster, name: &StrBytes, id: Uuid) -> Option<String> {
    if cx.version < BY_ID { Some(name.to_string()) } else { cluster.topic_name(id).map(str::to_owned) }
}

fn answer(shared: &Shared, cx: &Context, found: Found, session: i32, incremental: bool) -> FetchResponse {
    let mut sessions = shared.sessions();
    let mut responses = Vec::with_capacity(found.topics.len());
    for t in found.topics {
        let mut partitions = Vec::with_capacity(t.partitions.len());
        for (data, batches) in t.partitions {
            let bytes = batches.iter().map(Bytes::len).sum();
            if sessions.leave(session, incremental, (&t.name, t.id), &data, bytes) {
                partitions.push(data.with_records(Some(joined(batches))));
            }
        }
        let out = FetchableTopicResponse::default();
        let out = if cx.version < BY_ID { out.with_topic(t.name) } else { out.with_topic_id(t.id) };
        if !partitions.is_empty() {
            responses.push(out.with_partitions(partitions));
        }
    }
    FetchResponse::default().with_session_id(session).with_responses(responses)
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
