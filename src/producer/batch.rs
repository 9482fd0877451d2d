//! One batch on its way from `append` to its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::delivery::{AppendInfo, Completion};
use crate::config::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{BatchBuilder, Headers, ProducerSequence, replace_producer};

/// A batch's bytes.
#[derive(Debug)]
pub(crate) enum Payload {
    /// As the records were appended.
    Plain(BatchBuilder),
    /// As it goes to the broker.
    Encoded(Bytes),
}

impl Payload {
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Plain(builder) => builder.size(),
            Self::Encoded(bytes) => bytes.len(),
        }
    }

    /// Whether it has yet to be compressed, if it is to be.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// The bytes that go to the broker; compresses if that was not done before. Also gives the buffer that this leaves free.
    pub(crate) fn encode(self, compression: Compression, producer: ProducerSequence) -> (Bytes, Option<Vec<u8>>) {
        match self {
            Self::Plain(builder) => builder.seal(compression, producer),
            Self::Encoded(bytes) => (replace_producer(bytes, producer), None),
        }
    }
}

/// How a try to send a batch ended.
#[derive(Debug)]
pub(crate) enum SendOutcome {
    Written(AppendInfo),
    /// The broker says that it had these sequence numbers before; it may not know any more where it put them.
    Duplicate {
        written: AppendInfo,
        error: Error,
    },
    /// It may go better next time.
    Retry {
        retry: RetryPayload,
        maybe_written: bool,
    },
    /// Its sequence numbers are not those that come next, or the broker has forgotten the producer.
    OutOfSequence(RetryPayload),
    /// The broker takes nothing more from this producer id.
    Fenced(RetryPayload),
    /// It is larger than the broker takes: its two halves, unless it is a single record.
    TooLarge {
        error: Error,
        halves: Option<Vec<(Bytes, u32)>>,
    },
    /// It was not written because of some of its records: what goes on without them.
    BadRecords {
        error: Error,
        pieces: Vec<Piece>,
    },
    Failed(Error),
    /// It was sent, and what came back makes no sense.
    Unknown(Error),
}

/// Records of a batch that go on as a batch of their own, or fail.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) records: u32,
    pub(crate) outcome: std::result::Result<Bytes, Error>,
}

/// A batch that could be sent again.
#[derive(Debug)]
pub(crate) struct RetryPayload {
    pub(crate) error: Error,
    pub(crate) payload: Bytes,
    /// The wait before the next try.
    pub(crate) backoff: Duration,
}

/// A batch that has ended, and what there is to tell about it.
#[derive(Debug)]
pub(crate) struct FinishedBatch {
    pub(crate) completion: Arc<Completion>,
    /// The place of its first record among those of the completion.
    pub(crate) first_record: u32,
    pub(crate) result: Result<AppendInfo>,
    pub(crate) records: u32,
    /// Buffer space that is free again.
    pub(crate) freed_bytes: usize,
    /// When it would have failed.
    pub(crate) expires_at: Instant,
}

#[derive(Debug)]
pub(super) enum BatchState {
    /// Records are appended to it.
    Open(BatchBuilder),
    /// It waits to be sent.
    Closed(Payload),
    /// It is with its broker.
    Sent,
}

#[derive(Debug)]
pub(super) struct Batch {
    /// Among those of its partition.
    pub(super) number: u64,
    pub(super) completion: Arc<Completion>,
    first_record: u32,
    pub(super) compression: Compression,
    pub(super) state: BatchState,
    pub(super) records: u32,
    /// What its records count for in the buffer.
    pub(super) buffered_bytes: usize,
    /// When it may be sent: after its linger time, or after the wait before a retry.
    pub(super) ready_at: Instant,
    /// When its records fail.
    pub(super) expires_at: Instant,
    pub(super) attempts: u32,
    /// What it was sent with, and will be sent with again.
    pub(super) producer: Option<ProducerSequence>,
    last_error: Option<Error>,
    /// Whether a try that is over may have written it.
    pub(super) maybe_written: bool,
    /// Its records have been told that it failed; its broker has yet to answer.
    pub(super) expired_in_flight: bool,
}

impl Batch {
    pub(super) fn open(
        number: u64,
        completion: Arc<Completion>,
        compression: Compression,
        builder: BatchBuilder,
        ready_at: Instant,
        expires_at: Instant,
    ) -> Self {
        Self {
            number,
            completion,
            first_record: 0,
            compression,
            state: BatchState::Open(builder),
            records: 0,
            buffered_bytes: 0,
            ready_at,
            expires_at,
            attempts: 0,
            producer: None,
            last_error: None,
            maybe_written: false,
            expired_in_flight: false,
        }
    }

    pub(super) fn size(&self) -> usize {
        match &self.state {
            BatchState::Open(builder) => builder.size(),
            BatchState::Closed(payload) => payload.size(),
            BatchState::Sent => 0,
        }
    }

    /// Adds a record to an open batch.
    pub(super) fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Option<&Headers>,
        charge: usize,
    ) {
        if let BatchState::Open(builder) = &mut self.state {
            builder.append(timestamp, key, value, headers);
            self.records += 1;
            self.buffered_bytes += charge;
        }
    }

    /// No more records; it may be sent from `now` on.
    pub(super) fn close(&mut self, now: Instant) {
        self.state = match std::mem::replace(&mut self.state, BatchState::Sent) {
            BatchState::Open(builder) => {
                self.ready_at = self.ready_at.min(now);
                BatchState::Closed(Payload::Plain(builder))
            }
            other => other,
        };
    }

    /// Hands out its bytes.
    pub(super) fn send(&mut self) -> Option<Payload> {
        match std::mem::replace(&mut self.state, BatchState::Sent) {
            BatchState::Open(builder) => Some(Payload::Plain(builder)),
            BatchState::Closed(payload) => Some(payload),
            BatchState::Sent => None,
        }
    }

    pub(super) fn last_error(&self) -> Option<Error> {
        self.last_error.clone()
    }

    pub(super) fn is_sent(&self) -> bool {
        matches!(self.state, BatchState::Sent)
    }

    /// Takes its bytes back for another try.
    pub(super) fn retry(&mut self, retry: RetryPayload, maybe_written: bool, now: Instant) {
        self.state = BatchState::Closed(Payload::Encoded(retry.payload));
        self.attempts += 1;
        self.last_error = Some(retry.error);
        self.maybe_written |= maybe_written;
        self.ready_at = now + retry.backoff;
    }

    /// Cuts it into pieces of so many records, with no bytes yet, which stand in its place and have its sequence numbers;
    /// `number` gives those of all but the first.
    pub(super) fn split_into(
        self,
        records: impl Iterator<Item = u32>,
        mut number: impl FnMut() -> u64,
        now: Instant,
    ) -> Vec<Self> {
        let mut pieces = Vec::<Self>::new();
        let (mut skipped, mut buffered_bytes) = (0_u32, 0);
        for count in records {
            if skipped > 0 {
                self.completion.add_sub_batch();
            }
            let end = skipped + count;
            let until = (self.buffered_bytes as u64 * u64::from(end) / u64::from(self.records.max(1))) as usize;
            pieces.push(Self {
                number: if skipped == 0 { self.number } else { number() },
                completion: Arc::clone(&self.completion),
                first_record: self.first_record + skipped,
                compression: self.compression,
                state: BatchState::Closed(Payload::Encoded(Bytes::new())),
                records: count,
                buffered_bytes: until - buffered_bytes,
                ready_at: now,
                expires_at: self.expires_at,
                attempts: self.attempts + 1,
                producer: self.producer.map(|p| p.skip(skipped)),
                last_error: self.last_error.clone(),
                maybe_written: self.maybe_written,
                expired_in_flight: false,
            });
            (skipped, buffered_bytes) = (end, until);
        }
        pieces
    }

    /// What is sent from now on.
    pub(super) fn set_payload(&mut self, bytes: Bytes) {
        self.state = BatchState::Closed(Payload::Encoded(bytes));
    }

    pub(super) fn finish(self, result: Result<AppendInfo>) -> FinishedBatch {
        let Self { completion, first_record, records, buffered_bytes: freed_bytes, expires_at, .. } = self;
        FinishedBatch { completion, first_record, result, records, freed_bytes, expires_at }
    }

    /// What to tell its records while their broker still has them.
    pub(super) fn expire_in_flight(&mut self, error: Error) -> FinishedBatch {
        self.expired_in_flight = true;
        self.last_error = Some(error.clone());
        let completion = Arc::clone(&self.completion);
        let (first_record, expires_at) = (self.first_record, self.expires_at);
        FinishedBatch {
            completion,
            first_record,
            result: Err(error),
            records: self.records,
            freed_bytes: 0,
            expires_at,
        }
    }

    /// Whether it can be said that its records are not in the log.
    fn is_unwritten(&self) -> bool {
        !self.maybe_written && !self.is_sent()
    }

    /// The delivery timeout has passed; `leader_error` says why its leader can't be reached, if so.
    pub(super) fn timed_out(&self, timeout: Duration, leader_error: Option<&Error>) -> Error {
        let (what, tries) = (self.describe(), self.attempts);
        let cause = self.last_error.as_ref().or(leader_error).cloned();
        if !self.is_unwritten() {
            return self.indeterminate(
                format_args!(
                    "the broker has not told within the delivery timeout of {timeout:?}, after {tries} failed tries"
                ),
                cause,
            );
        }
        let text = format!(
            "{what}: its {} records were not written within the delivery timeout of {timeout:?} ({tries} tries failed)",
            self.records
        );
        match cause {
            Some(cause) => cause.context(text),
            None => {
                Error::new(ErrorKind::Timeout, format!("{text}: batches in front of it, or its broker, took too long"))
            }
        }
    }

    /// It can't be told whether its records are in the log, and they must not be sent again.
    pub(super) fn indeterminate(&self, why: impl std::fmt::Display, cause: Option<Error>) -> Error {
        let text = format!(
            "{}: the fate of its {} records is not known: they may be in the log or not, {why}",
            self.describe(),
            self.records
        );
        match cause {
            Some(cause) => Error::with_source(ErrorKind::Indeterminate, text, cause),
            None => Error::new(ErrorKind::Indeterminate, text),
        }
    }

    /// The last try failed for good; one before may have written it all the same.
    pub(super) fn permanent_failure(&self, error: Error) -> Error {
        if self.maybe_written {
            self.indeterminate("an earlier try was not answered and the last one failed", Some(error))
        } else {
            error
        }
    }

    /// Its topic is gone.
    pub(super) fn topic_missing(&self, waited: Duration) -> Error {
        let text = format!(
            "{}: the topic has not existed for {waited:.1?}; it was deleted, or its name is wrong{}",
            self.describe(),
            self.fate_suffix()
        );
        Error::new(ErrorKind::UnknownTopic, text)
    }

    /// Its producer ends.
    pub(super) fn closed_error(&self, why: &str) -> Error {
        Error::new(ErrorKind::Closed, format!("{}: {why}{}", self.describe(), self.fate_suffix()))
    }

    fn fate_suffix(&self) -> &'static str {
        if self.is_unwritten() {
            "; its records were not written"
        } else {
            "; its records were sent but not acknowledged: they may be in the log or not"
        }
    }

    fn describe(&self) -> String {
        format!("produce to {}/{}", self.completion.topic, self.completion.partition)
    }
}
