//! One batch, from its first record to its outcome.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::delivery::{AppendInfo, Completion};
use crate::config::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{BatchBuilder, Headers, ProducerSequence, replace_producer};

/// The bytes of a batch.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Records as they were appended.
    Plain(BatchBuilder),
    /// The batch as it is sent: with header, compressed.
    Encoded(Bytes),
}

impl Payload {
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Plain(builder) => builder.size(),
            Self::Encoded(bytes) => bytes.len(),
        }
    }

    /// Returns whether it is yet to be encoded.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Encodes the batch as it is sent, unless an earlier attempt did. Also returns the buffer that
    /// compression leaves unused.
    pub(crate) fn encode(self, compression: Compression, producer: ProducerSequence) -> (Bytes, Option<Vec<u8>>) {
        match self {
            Self::Plain(builder) => builder.seal(compression, producer),
            Self::Encoded(bytes) => (replace_producer(bytes, producer), None),
        }
    }
}

/// The outcome of one attempt to send a batch.
#[derive(Debug)]
pub(crate) enum SendOutcome {
    Written(AppendInfo),
    /// The broker had these sequences before; it may have forgotten their offsets.
    Duplicate {
        info: AppendInfo,
        error: Error,
    },
    /// A transient failure.
    Retry {
        retry: RetryPayload,
        maybe_written: bool,
    },
    /// Its sequence is not the next one, or the broker has forgotten the producer.
    OutOfSequence(RetryPayload),
    /// The broker knows a newer epoch of this producer id.
    Fenced(RetryPayload),
    /// It is larger than the broker allows. Has its two halves, unless it is a single record.
    TooLarge {
        error: Error,
        halves: Option<Vec<(Bytes, u32)>>,
    },
    /// It was rejected because of some of its records. Has its pieces, those records apart.
    BadRecords {
        error: Error,
        pieces: Vec<Piece>,
    },
    Failed(Error),
    /// It was sent, and the response can't be understood.
    InvalidResponse(Error),
}

/// Records of a rejected batch that are sent as a batch of their own, or fail.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) records: u32,
    pub(crate) outcome: std::result::Result<Bytes, Error>,
}

/// The bytes of a batch that is to be retried, and why.
#[derive(Debug)]
pub(crate) struct RetryPayload {
    pub(crate) error: Error,
    pub(crate) payload: Bytes,
    /// Time until the next attempt.
    pub(crate) backoff: Duration,
}

/// The result of a batch for its deliveries, and what it frees.
#[derive(Debug)]
pub(crate) struct FinishedBatch {
    pub(crate) completion: Arc<Completion>,
    /// Index of its first record in the completion.
    pub(crate) first_record: u32,
    pub(crate) result: Result<AppendInfo>,
    pub(crate) records: u32,
    /// Bytes of the producer's buffer that it releases.
    pub(crate) freed_bytes: usize,
    pub(crate) expires_at: Instant,
}

#[derive(Debug)]
pub(super) enum BatchState {
    /// Records are appended to it.
    Open(BatchBuilder),
    /// It is complete, and pending.
    Closed(Payload),
    /// It is in flight; its sender has the bytes.
    Sent,
}

#[derive(Debug)]
pub(super) struct Batch {
    /// Number of the batch in its partition.
    pub(super) number: u64,
    pub(super) completion: Arc<Completion>,
    first_record: u32,
    pub(super) compression: Compression,
    pub(super) state: BatchState,
    pub(super) records: u32,
    /// Bytes of the producer's buffer that its records take.
    pub(super) buffered_bytes: usize,
    /// Earliest time to send it: the end of its linger time, or of its backoff.
    pub(super) ready_at: Instant,
    /// Time of its delivery timeout.
    pub(super) expires_at: Instant,
    pub(super) attempts: u32,
    /// Producer id, epoch and sequence that it was first sent with, and that retries have too.
    pub(super) producer: Option<ProducerSequence>,
    last_error: Option<Error>,
    /// True if an earlier attempt may have written it.
    pub(super) maybe_written: bool,
    /// True if its deliveries were failed by the delivery timeout while its request was in flight.
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

    /// Appends a record to an open batch.
    pub(super) fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Option<&Headers>,
        buffered_bytes: usize,
    ) {
        if let BatchState::Open(builder) = &mut self.state {
            builder.append(timestamp, key, value, headers);
            self.records += 1;
            self.buffered_bytes += buffered_bytes;
        }
    }

    /// Closes it for further records; it may be sent from `now` on.
    pub(super) fn close(&mut self, now: Instant) {
        self.state = match std::mem::replace(&mut self.state, BatchState::Sent) {
            BatchState::Open(builder) => {
                self.ready_at = self.ready_at.min(now);
                BatchState::Closed(Payload::Plain(builder))
            }
            other => other,
        };
    }

    /// Takes its bytes to send them; `None` if they are taken.
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

    /// Takes its bytes back for a retry.
    pub(super) fn retry(&mut self, retry: RetryPayload, maybe_written: bool, now: Instant) {
        self.state = BatchState::Closed(Payload::Encoded(retry.payload));
        self.attempts += 1;
        self.last_error = Some(retry.error);
        self.maybe_written |= maybe_written;
        self.ready_at = now + retry.backoff;
    }

    /// Splits it into batches of so many records, which take its place and its sequences, and have
    /// no bytes yet. `number` returns the number of each but the first.
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

    pub(super) fn set_payload(&mut self, bytes: Bytes) {
        self.state = BatchState::Closed(Payload::Encoded(bytes));
    }

    pub(super) fn finish(self, result: Result<AppendInfo>) -> FinishedBatch {
        let Self { completion, first_record, records, buffered_bytes: freed_bytes, expires_at, .. } = self;
        FinishedBatch { completion, first_record, result, records, freed_bytes, expires_at }
    }

    /// Fails its deliveries while its request is in flight. It keeps its bytes of the buffer.
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

    /// Returns whether its records are certainly not in the log.
    fn is_unwritten(&self) -> bool {
        !self.maybe_written && !self.is_sent()
    }

    /// Returns the error of a batch that expired. `leader_error` is why its leader is unreachable,
    /// if it is.
    pub(super) fn timed_out(&self, timeout: Duration, leader_error: Option<&Error>) -> Error {
        let (what, attempts) = (self.describe(), self.attempts);
        let cause = self.last_error.as_ref().or(leader_error).cloned();
        if !self.is_unwritten() {
            return self.indeterminate(
                format_args!(
                    "the broker has not confirmed them within the delivery timeout of {timeout:?}, after {attempts} failed attempts"
                ),
                cause,
            );
        }
        let text = format!(
            "{what}: its {} records were not written within the delivery timeout of {timeout:?} ({attempts} attempts failed)",
            self.records
        );
        match cause {
            Some(cause) => cause.context(text),
            None => {
                Error::new(ErrorKind::Timeout, format!("{text}: batches in front of it, or its broker, took too long"))
            }
        }
    }

    /// Returns the error of records that may be in the log or not, and must not be sent again.
    pub(super) fn indeterminate(&self, why: impl std::fmt::Display, cause: Option<Error>) -> Error {
        let text = format!(
            "{}: it is not known whether its {} records were written: they may be in the log or not, {why}",
            self.describe(),
            self.records
        );
        match cause {
            Some(cause) => Error::with_source(ErrorKind::Indeterminate, text, cause),
            None => Error::new(ErrorKind::Indeterminate, text),
        }
    }

    /// Returns the error of a batch whose last attempt failed for good: an earlier one may have
    /// written it.
    pub(super) fn permanent_failure(&self, error: Error) -> Error {
        if self.maybe_written {
            self.indeterminate("an earlier attempt got no response and the last one failed", Some(error))
        } else {
            error
        }
    }

    /// Returns the error of a batch whose transaction is aborted before it was acknowledged.
    pub(super) fn transaction_aborted(&self, cause: &Error) -> Error {
        let text =
            format!("{}: its {} records are not written: the transaction is aborted", self.describe(), self.records);
        Error::with_source(ErrorKind::TransactionAborted, text, cause.clone())
    }

    /// Returns the error of a batch whose topic is missing.
    pub(super) fn topic_missing(&self, waited: Duration) -> Error {
        let text = format!(
            "{}: the topic has not existed for {waited:.1?}; it was deleted, or its name is wrong{}",
            self.describe(),
            self.fate_suffix()
        );
        Error::new(self.kind_unless_sent(ErrorKind::UnknownTopic), text)
    }

    /// Returns the error of a batch whose producer was closed or dropped.
    pub(super) fn closed_error(&self, why: &str) -> Error {
        let text = format!("{}: {why}{}", self.describe(), self.fate_suffix());
        Error::new(self.kind_unless_sent(ErrorKind::Closed), text)
    }

    /// Returns `kind`, which says that the records were not written, unless they may have been.
    fn kind_unless_sent(&self, kind: ErrorKind) -> ErrorKind {
        if self.is_unwritten() { kind } else { ErrorKind::Indeterminate }
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
