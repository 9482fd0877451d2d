//! Batches to a produce request, and its answer to each batch's outcome.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::accumulator::{Drained, PartitionId};
use super::batch::Outcome;
use super::delivery::Written;
use crate::error::{Error, ErrorKind, is_retriable_code};

/// Wait for all replicas in sync.
const ACKS_ALL: i16 = -1;

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const LEADER_NOT_AVAILABLE: i16 = 5;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const REQUEST_TIMED_OUT: i16 = 7;
const MESSAGE_TOO_LARGE: i16 = 10;
const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
const KAFKA_STORAGE_ERROR: i16 = 56;
const FENCED_LEADER_EPOCH: i16 = 74;
const UNKNOWN_LEADER_EPOCH: i16 = 75;

/// A batch as it goes to the broker.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) id: PartitionId,
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    bytes: Bytes,
    records: u32,
    attempts: u32,
}

impl From<Drained> for Encoded {
    fn from(b: Drained) -> Self {
        let bytes = b.payload.encode(b.compression);
        Self { id: b.id, topic: b.topic, partition: b.partition, bytes, records: b.records, attempts: b.attempts }
    }
}

/// A request for these batches.
pub(super) fn produce(batches: &[Encoded], timeout: Duration) -> ProduceRequest {
    let mut topics: Vec<TopicProduceData> = Vec::new();
    let mut places: HashMap<&Arc<str>, usize> = HashMap::new();
    for batch in batches {
        let place = *places.entry(&batch.topic).or_insert_with(|| {
            let name = TopicName(StrBytes::from_string(batch.topic.to_string()));
            topics.push(TopicProduceData::default().with_name(name));
            topics.len() - 1
        });
        let data = PartitionProduceData::default().with_index(batch.partition).with_records(Some(batch.bytes.clone()));
        topics[place].partition_data.push(data);
    }
    // The broker gives up before we do, so that its answer still comes.
    let timeout = timeout - (timeout / 10).min(Duration::from_secs(1));
    ProduceRequest::default()
        .with_acks(ACKS_ALL)
        .with_timeout_ms(timeout.as_millis().try_into().unwrap_or(i32::MAX))
        .with_topic_data(topics)
}

/// The answers of a response by topic and partition.
pub(super) fn answers(response: &ProduceResponse) -> HashMap<(&str, i32), &PartitionProduceResponse> {
    let topics = response.responses.iter();
    topics.flat_map(|t| t.partition_responses.iter().map(|p| ((t.name.0.as_str(), p.index), p))).collect()
}

/// Whether the leader we know may be the wrong one.
pub(super) fn is_stale_leader(code: i16) -> bool {
    matches!(
        code,
        UNKNOWN_TOPIC_OR_PARTITION
            | LEADER_NOT_AVAILABLE
            | NOT_LEADER_OR_FOLLOWER
            | KAFKA_STORAGE_ERROR
            | FENCED_LEADER_EPOCH
            | UNKNOWN_LEADER_EPOCH
    )
}

/// What the broker's answer means for a batch; `wait` says how long before a batch is tried again that was tried so often.
pub(super) fn outcome(
    batch: Encoded,
    answer: Option<&PartitionProduceResponse>,
    peer: &str,
    wait: impl Fn(u32) -> Duration,
) -> Outcome {
    let what = format_args!("produce to {}/{} on {peer}", batch.topic, batch.partition);
    let Some(answer) = answer else {
        return Outcome::Failed(Error::new(
            ErrorKind::Corrupt,
            format!("{what}: the answer does not mention the batch"),
        ));
    };
    let code = answer.error_code;
    if code == 0 {
        let append_time = Some(answer.log_append_time_ms).filter(|t| *t >= 0);
        return Outcome::Written(Written { base_offset: answer.base_offset, append_time });
    }
    if is_retriable_code(code) {
        let error = Error::broker(code, what);
        tracing::debug!(error = %error, attempts = batch.attempts, "a batch will be tried again");
        return Outcome::Retry {
            error,
            maybe_written: matches!(code, REQUEST_TIMED_OUT | NOT_ENOUGH_REPLICAS_AFTER_APPEND),
            payload: batch.bytes,
            after: wait(batch.attempts),
        };
    }
    let said = answer.error_message.as_ref().map(|m| m.to_string());
    let said = said.or_else(|| {
        answer.record_errors.iter().find_map(|r| {
            let message = r.batch_index_error_message.as_ref()?;
            Some(format!("record {} of the batch: {message}", r.batch_index))
        })
    });
    let said = said.map(|m| format!(" (the broker says: {m})")).unwrap_or_default();
    let (records, size) = (batch.records, batch.bytes.len());
    Outcome::Failed(match code {
        MESSAGE_TOO_LARGE => Error::broker(
            code,
            format_args!(
                "{what}: a batch of {records} records, {size} bytes, is more than the broker takes (REDPANDA_BATCH_SIZE \
                 bounds it before compression){said}"
            ),
        ),
        _ => Error::broker(code, format_args!("{what}: a batch of {records} records, {size} bytes{said}")),
    })
}

/// What a request without an answer means for one of its batches. `sent` is whether any of it may have reached the broker.
pub(super) fn unanswered(batch: Encoded, error: &Error, sent: bool, wait: impl Fn(u32) -> Duration) -> Outcome {
    match error.kind() {
        ErrorKind::Disconnected | ErrorKind::Timeout => Outcome::Retry {
            error: error.clone(),
            maybe_written: sent,
            payload: batch.bytes,
            after: wait(batch.attempts),
        },
        ErrorKind::Corrupt => {
            let what = format!(
                "produce to {}/{}: whether its records were written is not known: the broker's answer makes no sense",
                batch.topic, batch.partition
            );
            Outcome::Failed(Error::with_source(ErrorKind::Corrupt, what, error.clone()))
        }
        _ => Outcome::Failed(error.clone().context(format!("produce to {}/{}", batch.topic, batch.partition))),
    }
}
