//! Produce requests made of batches, and the outcome of each batch made of the response.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::protocol::StrBytes;

use super::accumulator::{BatchId, DrainedBatch};
use super::batch::{Piece, RetryPayload, SendOutcome};
use super::delivery::AppendInfo;
use super::verdict::Verdict;
use crate::config::{Acks, Compression};
use crate::error::{Error, ErrorKind};
use crate::metrics::{Observation, Reporter};
use crate::record;
use crate::wire::{Produce, TopicBatches};

/// Maximum size to which a batch that must be split is decompressed: the producer makes none that
/// is larger.
const MAX_DECOMPRESSED_BYTES: usize = 256 << 20;

/// A batch in the form in which it is sent.
#[derive(Debug)]
pub(super) struct EncodedBatch {
    pub(super) id: BatchId,
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    compression: Compression,
    bytes: Bytes,
    /// The buffer that its compression left unused.
    unused_buffer: Option<Vec<u8>>,
    /// Size before compression; none on a retry.
    uncompressed_size: Option<usize>,
    records: u32,
    attempts: u32,
}

impl From<DrainedBatch> for EncodedBatch {
    fn from(b: DrainedBatch) -> Self {
        let uncompressed_size = b.payload.is_plain().then(|| b.payload.size());
        let (bytes, unused_buffer) = b.payload.encode(b.compression, b.producer);
        let DrainedBatch { id, topic, partition, compression, records, attempts, .. } = b;
        Self { id, topic, partition, compression, bytes, unused_buffer, uncompressed_size, records, attempts }
    }
}

impl EncodedBatch {
    /// Reports its first attempt.
    pub(super) fn report_encoded(&self, metrics: &Reporter) {
        if let Some(uncompressed) = self.uncompressed_size {
            let Self { topic, records, bytes, .. } = self;
            let bytes = bytes.len();
            metrics.report(|| Observation::BatchEncoded { topic, records: *records, uncompressed, bytes });
        }
    }

    pub(super) fn take_unused_buffer(&mut self) -> Option<Vec<u8>> {
        self.unused_buffer.take()
    }

    /// Returns its bytes, whose buffer can be pooled if it is not retried; `None` for a compressed
    /// one, which is too small.
    pub(super) fn reusable_buffer(&self) -> Option<Bytes> {
        (self.compression == Compression::None).then(|| self.bytes.clone())
    }

    fn into_retry(self, error: Error, backoff: impl Fn(u32) -> Duration) -> RetryPayload {
        tracing::debug!(error = %error, attempts = self.attempts, "a batch will be retried");
        RetryPayload { error, payload: self.bytes, backoff: backoff(self.attempts) }
    }
}

pub(super) fn produce_request(
    batches: &[EncodedBatch],
    acks: Acks,
    timeout: Duration,
    transactional_id: Option<Arc<str>>,
) -> Produce {
    let mut topics: Vec<TopicBatches> = Vec::new();
    for batch in batches {
        let data = (batch.partition, batch.bytes.clone());
        // There are few topics: those with a batch that is ready for one broker at one time.
        match topics.iter_mut().rev().find(|t| Arc::ptr_eq(&t.topic, &batch.topic)) {
            Some(topic) => topic.batches.push(data),
            None => topics.push(TopicBatches { topic: Arc::clone(&batch.topic), batches: vec![data] }),
        }
    }
    // The broker's limit is the shorter one, so that its response arrives in time.
    let timeout = timeout - (timeout / 10).min(Duration::from_secs(1));
    Produce {
        transactional_id,
        acks: match acks {
            Acks::All => -1,
            Acks::Leader => 1,
        },
        timeout_ms: timeout.as_millis().try_into().unwrap_or(i32::MAX),
        topics,
    }
}

/// Finds the part of a response that is about a partition.
pub(super) struct PartitionResponses<'a>(Vec<(&'a str, &'a PartitionProduceResponse)>);

impl<'a> PartitionResponses<'a> {
    pub(super) fn new(response: &'a ProduceResponse) -> Self {
        let topics = response.responses.iter();
        let mut all: Vec<_> =
            topics.flat_map(|t| t.partition_responses.iter().map(|p| (t.name.0.as_str(), p))).collect();
        all.sort_unstable_by_key(|(topic, p)| (*topic, p.index));
        Self(all)
    }

    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<&'a PartitionProduceResponse> {
        let at = self.0.binary_search_by_key(&(topic, partition), |(topic, p)| (*topic, p.index)).ok()?;
        self.0.get(at).map(|(_, response)| *response)
    }
}

/// Returns the outcome of a batch by the broker's response. `backoff` returns the time to wait
/// after so many attempts.
pub(super) fn outcome_of_response(
    batch: EncodedBatch,
    response: Option<&PartitionProduceResponse>,
    peer: &str,
    backoff: impl Fn(u32) -> Duration,
) -> SendOutcome {
    let what = |batch: &EncodedBatch| format!("produce to {}/{} on {peer}", batch.topic, batch.partition);
    let Some(response) = response else {
        let what = format!("{}: the response does not mention the batch", what(&batch));
        return SendOutcome::InvalidResponse(Error::new(ErrorKind::Corrupt, what));
    };
    let code = response.error_code;
    let append_time = Some(response.log_append_time_ms).filter(|t| *t >= 0);
    let info = AppendInfo { base_offset: Some(response.base_offset).filter(|o| *o >= 0), append_time };
    if code == 0 {
        return SendOutcome::Written(info);
    }
    let verdict = Verdict::of_code(code);
    let more = if verdict == Verdict::TooLarge { ", is more than the broker allows" } else { "" };
    let (what, records, size) = (what(&batch), batch.records, batch.bytes.len());
    let error = Error::broker(
        code,
        format_args!("{what}: a batch of {records} records, {size} bytes{more}{}", broker_message(response)),
    );
    match verdict {
        Verdict::Duplicate => SendOutcome::Duplicate { info, error },
        Verdict::OutOfSequence => SendOutcome::OutOfSequence(batch.into_retry(error, backoff)),
        Verdict::Fenced => SendOutcome::Fenced(batch.into_retry(error, backoff)),
        Verdict::TooLarge => SendOutcome::TooLarge {
            halves: record::split_in_half(&batch.bytes, batch.compression, MAX_DECOMPRESSED_BYTES),
            error,
        },
        Verdict::BadRecords => match pieces_without_bad_records(&batch, response, &what) {
            Some(pieces) => SendOutcome::BadRecords { error, pieces },
            None => SendOutcome::Failed(error),
        },
        Verdict::Retry => SendOutcome::Retry { retry: batch.into_retry(error, backoff), maybe_written: false },
        Verdict::RetryMaybeWritten => {
            SendOutcome::Retry { retry: batch.into_retry(error, backoff), maybe_written: true }
        }
        Verdict::Rejected => SendOutcome::Failed(error),
    }
}

/// Splits a batch so that the records that the response names fail and the others are sent. If it
/// names none, returns the halves of the batch, so that each is tried, and so on down to the bad
/// records; `None` if there is but one record.
fn pieces_without_bad_records(
    batch: &EncodedBatch,
    response: &PartitionProduceResponse,
    what: &str,
) -> Option<Vec<Piece>> {
    let reason = |message: Option<&StrBytes>| message.or(response.error_message.as_ref()).map(|m| format!(": {m}"));
    let bad: BTreeMap<u32, String> = response
        .record_errors
        .iter()
        .filter_map(|r| {
            let index = u32::try_from(r.batch_index).ok().filter(|index| *index < batch.records)?;
            Some((index, reason(r.batch_index_error_message.as_ref()).unwrap_or_default()))
        })
        .collect();
    if bad.is_empty() {
        let halves = record::split_in_half(&batch.bytes, batch.compression, MAX_DECOMPRESSED_BYTES)?;
        return Some(halves.into_iter().map(|(bytes, records)| Piece { records, outcome: Ok(bytes) }).collect());
    }
    let (mut runs, mut next) = (Vec::new(), 0);
    for &index in bad.keys() {
        runs.extend((index > next).then(|| (index - next, true)));
        runs.push((1, false));
        next = index + 1;
    }
    runs.extend((batch.records > next).then(|| (batch.records - next, true)));
    let parts = record::split_into_runs(&batch.bytes, batch.compression, MAX_DECOMPRESSED_BYTES, &runs)?;
    let mut index = 0;
    let piece = |(bytes, records): (Bytes, u32)| {
        let outcome = match bad.get(&index) {
            None => Ok(bytes),
            Some(reason) => {
                let what = format_args!("{what}: record {index} of a batch of {}{reason}", batch.records);
                Err(Error::broker(response.error_code, what))
            }
        };
        index += records;
        Piece { records, outcome }
    };
    Some(parts.into_iter().map(piece).collect())
}

/// Returns the broker's message beside the error code, if it sent one.
fn broker_message(response: &PartitionProduceResponse) -> String {
    let message = response.error_message.as_ref().map(|m| m.to_string());
    let message = message.or_else(|| {
        response.record_errors.iter().find_map(|r| {
            let message = r.batch_index_error_message.as_ref()?;
            Some(format!("record {} of the batch: {message}", r.batch_index))
        })
    });
    message.map(|m| format!(" (broker message: {m})")).unwrap_or_default()
}

/// Returns the outcome of a batch whose request got no response. `sent` is true if any of it may
/// have reached the broker.
pub(super) fn outcome_without_response(
    batch: EncodedBatch,
    error: &Error,
    sent: bool,
    backoff: impl Fn(u32) -> Duration,
) -> SendOutcome {
    let what = format!("produce to {}/{}", batch.topic, batch.partition);
    match error.kind() {
        ErrorKind::Disconnected | ErrorKind::Timeout => {
            SendOutcome::Retry { retry: batch.into_retry(error.clone(), backoff), maybe_written: sent }
        }
        ErrorKind::Corrupt => SendOutcome::InvalidResponse(error.clone().context(what)),
        _ => SendOutcome::Failed(error.clone().context(what)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use kafka_protocol::messages::produce_response::BatchIndexAndErrorMessage;

    use super::super::accumulator::tests::values;
    use super::super::batch::Payload;
    use super::*;
    use crate::code;
    use crate::record::{BatchBuilder, ProducerSequence};

    /// Returns a batch of records with their indexes as values.
    fn batch(records: u32) -> EncodedBatch {
        let mut builder = BatchBuilder::new(100);
        (0..records).for_each(|n| builder.append(1, None, Some(n.to_string().as_bytes()), None));
        let bytes = builder.finish(Compression::None, ProducerSequence::NONE);
        let (id, topic) = (BatchId::of(0, 0, 1), "t".into());
        EncodedBatch {
            id,
            topic,
            partition: 0,
            compression: Compression::None,
            bytes,
            unused_buffer: None,
            uncompressed_size: None,
            records,
            attempts: 0,
        }
    }

    fn response_with(bad: &[i32]) -> PartitionProduceResponse {
        let named = |&index| {
            let message = StrBytes::from_string(format!("reason {index}"));
            let error = BatchIndexAndErrorMessage::default().with_batch_index(index);
            error.with_batch_index_error_message(Some(message))
        };
        let response = PartitionProduceResponse::default().with_error_code(code::INVALID_RECORD);
        response.with_record_errors(bad.iter().map(named).collect())
    }

    /// Returns the values of the pieces that are sent, and the texts of the errors.
    fn pieces_and_errors(outcome: SendOutcome) -> (Vec<Vec<String>>, Vec<String>) {
        let SendOutcome::BadRecords { pieces, .. } = outcome else { panic!("{outcome:?}") };
        let (mut sent, mut errors) = (Vec::new(), Vec::new());
        for piece in pieces {
            match piece.outcome {
                Ok(bytes) => sent.push(values(Payload::Encoded(bytes))),
                Err(e) => errors.push(e.to_string()),
            }
        }
        (sent, errors)
    }

    fn outcome_of(records: u32, bad: &[i32]) -> SendOutcome {
        outcome_of_response(batch(records), Some(&response_with(bad)), "h:1", |_| Duration::ZERO)
    }

    #[test]
    fn named_records_fail_each_with_its_index_and_reason() {
        let (sent, errors) = pieces_and_errors(outcome_of(6, &[5, 1, 2]));
        assert_eq!(sent, [vec!["0"], vec!["3", "4"]]);
        assert_eq!(errors.len(), 3);
        for (error, index) in errors.iter().zip([1, 2, 5]) {
            assert!(error.contains(&format!("record {index} of a batch of 6: reason {index}: ")), "{error}");
        }
    }

    #[test]
    fn halves_are_tried_if_no_record_of_the_batch_is_named() {
        for bad in [&[][..], &[-1, 6]] {
            let (sent, errors) = pieces_and_errors(outcome_of(6, bad));
            assert_eq!(
                (sent, errors.len()),
                (vec![vec!["0".to_owned(), "1".into(), "2".into()], vec!["3".into(), "4".into(), "5".into()]], 0)
            );
        }
        assert!(matches!(outcome_of(1, &[]), SendOutcome::Failed(_)), "it can't be split");
    }
}
