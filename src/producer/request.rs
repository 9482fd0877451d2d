//! Batches to a produce request, and its answer to each batch's outcome.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;

use super::accumulator::{BatchId, Drained};
use super::batch::{Again, Outcome};
use super::delivery::Written;
use crate::config::{Acks, Compression};
use crate::error::{Error, ErrorKind, is_retriable_code};
use crate::metrics::{Observation, Reporter};
use crate::record;
use crate::wire::{Produce, TopicBatches};

const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const LEADER_NOT_AVAILABLE: i16 = 5;
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
const MESSAGE_TOO_LARGE: i16 = 10;
const RECORD_LIST_TOO_LARGE: i16 = 18;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const UNKNOWN_PRODUCER_ID: i16 = 59;
const PRODUCER_FENCED: i16 = 90;
const KAFKA_STORAGE_ERROR: i16 = 56;
const FENCED_LEADER_EPOCH: i16 = 74;
const UNKNOWN_LEADER_EPOCH: i16 = 75;

/// The most that a batch may decompress to when it has to be cut: larger ones are not made.
const MAX_PLAIN: usize = 256 << 20;

/// A batch as it goes to the broker.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) id: BatchId,
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    compression: Compression,
    bytes: Bytes,
    /// The buffer that compressing it has left free.
    plain: Option<Vec<u8>>,
    /// Its size before it was compressed; none if this is not its first try.
    uncompressed: Option<usize>,
    records: u32,
    attempts: u32,
}

impl From<Drained> for Encoded {
    fn from(b: Drained) -> Self {
        let uncompressed = b.payload.is_plain().then(|| b.payload.size());
        let (bytes, plain) = b.payload.encode(b.compression, b.producer);
        let Drained { id, topic, partition, compression, records, attempts, .. } = b;
        Self { id, topic, partition, compression, bytes, plain, uncompressed, records, attempts }
    }
}

impl Encoded {
    /// Counts it on its first try.
    pub(super) fn count(&self, metrics: &Reporter) {
        if let Some(uncompressed) = self.uncompressed {
            let Self { topic, records, bytes, .. } = self;
            let bytes = bytes.len();
            metrics.report(|| Observation::BatchEncoded { topic, records: *records, uncompressed, bytes });
        }
    }

    /// The buffer that is free already.
    pub(super) fn take_free(&mut self) -> Option<Vec<u8>> {
        self.plain.take()
    }

    /// What it is made of, to be used again if it is not sent again; none if that is smaller than what records need.
    pub(super) fn buffer(&self) -> Option<Bytes> {
        (self.compression == Compression::None).then(|| self.bytes.clone())
    }

    fn again(self, error: Error, wait: impl Fn(u32) -> Duration) -> Again {
        tracing::debug!(error = %error, attempts = self.attempts, "a batch will be tried again");
        Again { error, payload: self.bytes, after: wait(self.attempts) }
    }
}

/// A request for these batches.
pub(super) fn produce(batches: &[Encoded], acks: Acks, timeout: Duration) -> Produce {
    let mut topics: Vec<TopicBatches> = Vec::new();
    for batch in batches {
        let data = (batch.partition, batch.bytes.clone());
        // Few topics: those of one broker that have a batch ready at one time.
        match topics.iter_mut().rev().find(|t| Arc::ptr_eq(&t.topic, &batch.topic)) {
            Some(topic) => topic.batches.push(data),
            None => topics.push(TopicBatches { topic: Arc::clone(&batch.topic), batches: vec![data] }),
        }
    }
    // The broker gives up before we do, so that its answer still comes.
    let timeout = timeout - (timeout / 10).min(Duration::from_secs(1));
    Produce {
        acks: match acks {
            Acks::All => -1,
            Acks::Leader => 1,
        },
        timeout_ms: timeout.as_millis().try_into().unwrap_or(i32::MAX),
        topics,
    }
}

/// The answers of a response by topic and partition.
pub(super) struct Answers<'a>(Vec<(&'a str, &'a PartitionProduceResponse)>);

impl<'a> Answers<'a> {
    pub(super) fn of(response: &'a ProduceResponse) -> Self {
        let topics = response.responses.iter();
        let mut all: Vec<_> =
            topics.flat_map(|t| t.partition_responses.iter().map(|p| (t.name.0.as_str(), p))).collect();
        all.sort_unstable_by_key(|(topic, p)| (*topic, p.index));
        Self(all)
    }

    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<&'a PartitionProduceResponse> {
        let at = self.0.binary_search_by_key(&(topic, partition), |(topic, p)| (*topic, p.index)).ok()?;
        self.0.get(at).map(|(_, answer)| *answer)
    }
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
    let what = |batch: &Encoded| format!("produce to {}/{} on {peer}", batch.topic, batch.partition);
    let Some(answer) = answer else {
        let what = format!("{}: the answer does not mention the batch", what(&batch));
        return Outcome::Unknown(Error::new(ErrorKind::Corrupt, what));
    };
    let code = answer.error_code;
    let append_time = Some(answer.log_append_time_ms).filter(|t| *t >= 0);
    let written = Written { base_offset: Some(answer.base_offset).filter(|o| *o >= 0), append_time };
    if code == 0 {
        return Outcome::Written(written);
    }
    let too_large = matches!(code, MESSAGE_TOO_LARGE | RECORD_LIST_TOO_LARGE);
    let more = if too_large { ", is more than the broker takes" } else { "" };
    let (what, records, size) = (what(&batch), batch.records, batch.bytes.len());
    let error =
        Error::broker(code, format_args!("{what}: a batch of {records} records, {size} bytes{more}{}", said(answer)));
    match code {
        DUPLICATE_SEQUENCE_NUMBER => Outcome::Duplicate { written, error },
        OUT_OF_ORDER_SEQUENCE_NUMBER | UNKNOWN_PRODUCER_ID => Outcome::OutOfSequence(batch.again(error, wait)),
        INVALID_PRODUCER_EPOCH | PRODUCER_FENCED => Outcome::Fenced(batch.again(error, wait)),
        _ if too_large => {
            Outcome::TooLarge { halves: record::split(&batch.bytes, batch.compression, MAX_PLAIN), error }
        }
        code if is_retriable_code(code) => {
            Outcome::Retry { again: batch.again(error, wait), maybe_written: !is_before_append(code) }
        }
        _ => Outcome::Failed(error),
    }
}

/// Whether a broker that answers this has surely not written the batch. Other passing errors come after it was appended, too:
/// a leader that steps down while it waits for its followers answers that it is not the leader.
fn is_before_append(code: i16) -> bool {
    matches!(
        code,
        CORRUPT_MESSAGE
            | UNKNOWN_TOPIC_OR_PARTITION
            | LEADER_NOT_AVAILABLE
            | NOT_ENOUGH_REPLICAS
            | FENCED_LEADER_EPOCH
            | UNKNOWN_LEADER_EPOCH
    )
}

/// What the broker has to say beside the code.
fn said(answer: &PartitionProduceResponse) -> String {
    let message = answer.error_message.as_ref().map(|m| m.to_string());
    let message = message.or_else(|| {
        answer.record_errors.iter().find_map(|r| {
            let message = r.batch_index_error_message.as_ref()?;
            Some(format!("record {} of the batch: {message}", r.batch_index))
        })
    });
    message.map(|m| format!(" (the broker says: {m})")).unwrap_or_default()
}

/// What a request without an answer means for one of its batches. `sent` is whether any of it may have reached the broker.
pub(super) fn unanswered(batch: Encoded, error: &Error, sent: bool, wait: impl Fn(u32) -> Duration) -> Outcome {
    let what = format!("produce to {}/{}", batch.topic, batch.partition);
    match error.kind() {
        ErrorKind::Disconnected | ErrorKind::Timeout => {
            Outcome::Retry { again: batch.again(error.clone(), wait), maybe_written: sent }
        }
        ErrorKind::Corrupt => Outcome::Unknown(error.clone().context(what)),
        _ => Outcome::Failed(error.clone().context(what)),
    }
}
