//! Batches to a produce request, and its response to each batch's outcome.

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

/// The most that a batch may decompress to when it has to be cut: larger ones are not made.
const MAX_DECOMPRESSED_BYTES: usize = 256 << 20;

/// A batch as it goes to the broker.
#[derive(Debug)]
pub(super) struct EncodedBatch {
    pub(super) id: BatchId,
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    compression: Compression,
    bytes: Bytes,
    /// The buffer that compressing it has left free.
    spare_buffer: Option<Vec<u8>>,
    /// Its size before it was compressed; none if this is not its first try.
    uncompressed: Option<usize>,
    records: u32,
    attempts: u32,
}

impl From<DrainedBatch> for EncodedBatch {
    fn from(b: DrainedBatch) -> Self {
        let uncompressed = b.payload.is_plain().then(|| b.payload.size());
        let (bytes, spare_buffer) = b.payload.encode(b.compression, b.producer);
        let DrainedBatch { id, topic, partition, compression, records, attempts, .. } = b;
        Self { id, topic, partition, compression, bytes, spare_buffer, uncompressed, records, attempts }
    }
}

impl EncodedBatch {
    /// Counts it on its first try.
    pub(super) fn report_encoded(&self, metrics: &Reporter) {
        if let Some(uncompressed) = self.uncompressed {
            let Self { topic, records, bytes, .. } = self;
            let bytes = bytes.len();
            metrics.report(|| Observation::BatchEncoded { topic, records: *records, uncompressed, bytes });
        }
    }

    /// The buffer that is free already.
    pub(super) fn take_spare_buffer(&mut self) -> Option<Vec<u8>> {
        self.spare_buffer.take()
    }

    /// What it is made of, to be used again if it is not sent again; none if that is smaller than what records need.
    pub(super) fn reusable_buffer(&self) -> Option<Bytes> {
        (self.compression == Compression::None).then(|| self.bytes.clone())
    }

    fn into_retry(self, error: Error, wait: impl Fn(u32) -> Duration) -> RetryPayload {
        tracing::debug!(error = %error, attempts = self.attempts, "a batch will be tried again");
        RetryPayload { error, payload: self.bytes, backoff: wait(self.attempts) }
    }
}

/// A request for these batches.
pub(super) fn produce_request(batches: &[EncodedBatch], acks: Acks, timeout: Duration) -> Produce {
    let mut topics: Vec<TopicBatches> = Vec::new();
    for batch in batches {
        let data = (batch.partition, batch.bytes.clone());
        // Few topics: those of one broker that have a batch ready at one time.
        match topics.iter_mut().rev().find(|t| Arc::ptr_eq(&t.topic, &batch.topic)) {
            Some(topic) => topic.batches.push(data),
            None => topics.push(TopicBatches { topic: Arc::clone(&batch.topic), batches: vec![data] }),
        }
    }
    // The broker gives up before we do, so that its response still comes.
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

/// The response of a response by topic and partition.
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

/// What the broker's response means for a batch; `wait` says how long before a batch is tried again that was tried so often.
pub(super) fn outcome_of_response(
    batch: EncodedBatch,
    response: Option<&PartitionProduceResponse>,
    peer: &str,
    wait: impl Fn(u32) -> Duration,
) -> SendOutcome {
    let what = |batch: &EncodedBatch| format!("produce to {}/{} on {peer}", batch.topic, batch.partition);
    let Some(response) = response else {
        let what = format!("{}: the answer does not mention the batch", what(&batch));
        return SendOutcome::Unknown(Error::new(ErrorKind::Corrupt, what));
    };
    let code = response.error_code;
    let append_time = Some(response.log_append_time_ms).filter(|t| *t >= 0);
    let written = AppendInfo { base_offset: Some(response.base_offset).filter(|o| *o >= 0), append_time };
    if code == 0 {
        return SendOutcome::Written(written);
    }
    let verdict = Verdict::of_code(code);
    let more = if verdict == Verdict::TooLarge { ", is more than the broker takes" } else { "" };
    let (what, records, size) = (what(&batch), batch.records, batch.bytes.len());
    let error = Error::broker(
        code,
        format_args!("{what}: a batch of {records} records, {size} bytes{more}{}", broker_message(response)),
    );
    match verdict {
        Verdict::Duplicate => SendOutcome::Duplicate { written, error },
        Verdict::OutOfSequence => SendOutcome::OutOfSequence(batch.into_retry(error, wait)),
        Verdict::Fenced => SendOutcome::Fenced(batch.into_retry(error, wait)),
        Verdict::TooLarge => SendOutcome::TooLarge {
            halves: record::split_in_half(&batch.bytes, batch.compression, MAX_DECOMPRESSED_BYTES),
            error,
        },
        Verdict::BadRecords => match pieces_without_bad_records(&batch, response, &what) {
            Some(pieces) => SendOutcome::BadRecords { error, pieces },
            None => SendOutcome::Failed(error),
        },
        Verdict::Retry => SendOutcome::Retry { retry: batch.into_retry(error, wait), maybe_written: false },
        Verdict::RetryMaybeWritten => SendOutcome::Retry { retry: batch.into_retry(error, wait), maybe_written: true },
        Verdict::Rejected => SendOutcome::Failed(error),
    }
}

/// What is left of a batch when the records that the response names have failed. Where it names none, or all, the halves of the
/// batch are tried, and so on down to the bad records; none if there is but one record.
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

/// What the broker has to say beside the code.
fn broker_message(response: &PartitionProduceResponse) -> String {
    let message = response.error_message.as_ref().map(|m| m.to_string());
    let message = message.or_else(|| {
        response.record_errors.iter().find_map(|r| {
            let message = r.batch_index_error_message.as_ref()?;
            Some(format!("record {} of the batch: {message}", r.batch_index))
        })
    });
    message.map(|m| format!(" (the broker says: {m})")).unwrap_or_default()
}

/// What a request without an response means for one of its batches. `sent` is whether any of it may have reached the broker.
pub(super) fn outcome_without_response(
    batch: EncodedBatch,
    error: &Error,
    sent: bool,
    wait: impl Fn(u32) -> Duration,
) -> SendOutcome {
    let what = format!("produce to {}/{}", batch.topic, batch.partition);
    match error.kind() {
        ErrorKind::Disconnected | ErrorKind::Timeout => {
            SendOutcome::Retry { retry: batch.into_retry(error.clone(), wait), maybe_written: sent }
        }
        ErrorKind::Corrupt => SendOutcome::Unknown(error.clone().context(what)),
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

    /// A batch of records with their places as values.
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
            spare_buffer: None,
            uncompressed: None,
            records,
            attempts: 0,
        }
    }

    fn answer(bad: &[i32]) -> PartitionProduceResponse {
        let named = |&index| {
            let message = StrBytes::from_string(format!("reason {index}"));
            let error = BatchIndexAndErrorMessage::default().with_batch_index(index);
            error.with_batch_index_error_message(Some(message))
        };
        let response = PartitionProduceResponse::default().with_error_code(code::INVALID_RECORD);
        response.with_record_errors(bad.iter().map(named).collect())
    }

    /// What goes on, by its values, and the texts of the errors.
    fn pieces_and_errors(outcome: SendOutcome) -> (Vec<Vec<String>>, Vec<String>) {
        let SendOutcome::BadRecords { pieces, .. } = outcome else { panic!("{outcome:?}") };
        let (mut kept, mut errors) = (Vec::new(), Vec::new());
        for piece in pieces {
            match piece.outcome {
                Ok(bytes) => kept.push(values(Payload::Encoded(bytes))),
                Err(e) => errors.push(e.to_string()),
            }
        }
        (kept, errors)
    }

    fn outcome_of(records: u32, bad: &[i32]) -> SendOutcome {
        outcome_of_response(batch(records), Some(&answer(bad)), "h:1", |_| Duration::ZERO)
    }

    #[test]
    fn the_records_that_the_answer_names_fail_each_with_its_own_index_and_reason() {
        let (kept, errors) = pieces_and_errors(outcome_of(6, &[5, 1, 2]));
        assert_eq!(kept, [vec!["0"], vec!["3", "4"]]);
        assert_eq!(errors.len(), 3);
        for (error, index) in errors.iter().zip([1, 2, 5]) {
            assert!(error.contains(&format!("record {index} of a batch of 6: reason {index}: ")), "{error}");
        }
    }

    #[test]
    fn where_no_record_or_none_of_the_batch_is_named_its_halves_are_tried() {
        for bad in [&[][..], &[-1, 6]] {
            let (kept, errors) = pieces_and_errors(outcome_of(6, bad));
            assert_eq!(
                (kept, errors.len()),
                (vec![vec!["0".to_owned(), "1".into(), "2".into()], vec!["3".into(), "4".into(), "5".into()]], 0)
            );
        }
        assert!(matches!(outcome_of(1, &[]), SendOutcome::Failed(_)), "it stands alone");
    }
}
