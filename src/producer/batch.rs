//! One batch on its way from `append` to its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::delivery::{Completion, Written};
use crate::config::Compression;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{BatchBuilder, Headers, ProducerSequence};

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

    /// The bytes that go to the broker; compresses if that was not done before.
    pub(crate) fn encode(self, compression: Compression) -> Bytes {
        match self {
            Self::Plain(builder) => builder.finish(compression, ProducerSequence::NONE),
            Self::Encoded(bytes) => bytes,
        }
    }
}

/// How a try to send a batch ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Written(Written),
    /// It may go better next time.
    Retry {
        error: Error,
        /// Whether the broker may have written it all the same.
        maybe_written: bool,
        payload: Bytes,
        /// The wait before the next try.
        after: Duration,
    },
    Failed(Error),
}

/// A batch that has ended, and what there is to tell about it.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) completion: Arc<Completion>,
    pub(crate) result: Result<Written>,
    pub(crate) records: u32,
    /// Buffer space that is free again.
    pub(crate) freed: usize,
}

#[derive(Debug)]
pub(super) enum State {
    /// Records are appended to it.
    Open(BatchBuilder),
    /// It waits to be sent.
    Closed(Payload),
    /// It is with its broker.
    Sent,
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) completion: Arc<Completion>,
    pub(super) compression: Compression,
    pub(super) state: State,
    pub(super) records: u32,
    /// What its records count for in the buffer.
    pub(super) charged: usize,
    /// When it may be sent: after its linger time, or after the wait before a retry.
    pub(super) ready_at: Instant,
    /// When its records fail.
    pub(super) expires: Instant,
    pub(super) attempts: u32,
    pub(super) last_error: Option<Error>,
    maybe_written: bool,
    /// Its records have been told that it failed; its broker has yet to answer.
    pub(super) given_up: bool,
}

impl Batch {
    pub(super) fn open(
        completion: Arc<Completion>,
        compression: Compression,
        room: usize,
        ready_at: Instant,
        expires: Instant,
    ) -> Self {
        Self {
            completion,
            compression,
            state: State::Open(BatchBuilder::new(room)),
            records: 0,
            charged: 0,
            ready_at,
            expires,
            attempts: 0,
            last_error: None,
            maybe_written: false,
            given_up: false,
        }
    }

    pub(super) fn size(&self) -> usize {
        match &self.state {
            State::Open(builder) => builder.size(),
            State::Closed(payload) => payload.size(),
            State::Sent => 0,
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
        if let State::Open(builder) = &mut self.state {
            builder.append(timestamp, key, value, headers);
            self.records += 1;
            self.charged += charge;
        }
    }

    /// No more records; it may be sent from `now` on.
    pub(super) fn close(&mut self, now: Instant) {
        self.state = match std::mem::replace(&mut self.state, State::Sent) {
            State::Open(builder) => {
                self.ready_at = self.ready_at.min(now);
                State::Closed(Payload::Plain(builder))
            }
            other => other,
        };
    }

    /// Hands out its bytes.
    pub(super) fn send(&mut self) -> Option<Payload> {
        match std::mem::replace(&mut self.state, State::Sent) {
            State::Open(builder) => Some(Payload::Plain(builder)),
            State::Closed(payload) => Some(payload),
            State::Sent => None,
        }
    }

    pub(super) fn is_sent(&self) -> bool {
        matches!(self.state, State::Sent)
    }

    /// Takes its bytes back for another try.
    pub(super) fn retry(&mut self, payload: Bytes, error: Error, maybe_written: bool, ready_at: Instant) {
        self.state = State::Closed(Payload::Encoded(payload));
        self.attempts += 1;
        self.last_error = Some(error);
        self.maybe_written |= maybe_written;
        self.ready_at = ready_at;
    }

    pub(super) fn end(self, result: Result<Written>) -> Ended {
        Ended { completion: self.completion, result, records: self.records, freed: self.charged }
    }

    /// What to tell its records while their broker still has them.
    pub(super) fn give_up(&mut self, error: Error) -> Ended {
        self.given_up = true;
        self.last_error = Some(error.clone());
        Ended { completion: Arc::clone(&self.completion), result: Err(error), records: self.records, freed: 0 }
    }

    /// What to tell its records when the broker has refused it for good.
    pub(super) fn failed(&self, error: Error) -> Error {
        if !self.maybe_written {
            return error;
        }
        let (what, records) = (self.describe(), self.records);
        error.context(format!(
            "{what}: its {records} records may be in the log or not: an earlier try was not answered, and the last one failed"
        ))
    }

    /// Whether it can be said that its records are not in the log.
    fn surely_unwritten(&self) -> bool {
        !self.maybe_written && !self.is_sent()
    }

    /// The delivery timeout has passed; `leader_error` says why its leader can't be reached, if so.
    pub(super) fn timed_out(&self, timeout: Duration, leader_error: Option<&Error>) -> Error {
        let (what, tries) = (self.describe(), self.attempts);
        let cause = self.last_error.as_ref().or(leader_error).cloned();
        if !self.surely_unwritten() {
            let text = format!(
                "{what}: the fate of its {} records is not known: the broker did not answer within the delivery timeout of \
                 {timeout:?} whether it wrote them ({tries} tries failed before); they may be in the log or not",
                self.records
            );
            return match cause {
                Some(cause) => Error::with_source(ErrorKind::Timeout, text, cause),
                None => Error::new(ErrorKind::Timeout, text),
            };
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

    /// Its topic is gone.
    pub(super) fn topic_missing(&self, waited: Duration) -> Error {
        let text = format!(
            "{}: the topic has not existed for {waited:.1?}; it was deleted, or its name is wrong{}",
            self.describe(),
            self.fate()
        );
        Error::new(ErrorKind::UnknownTopic, text)
    }

    /// Its producer ends.
    pub(super) fn abandoned(&self, why: &str) -> Error {
        Error::new(ErrorKind::Closed, format!("{}: {why}{}", self.describe(), self.fate()))
    }

    fn fate(&self) -> &'static str {
        if self.surely_unwritten() {
            "; its records were not written"
        } else {
            "; its records were sent but not acknowledged: they may be in the log or not"
        }
    }

    fn describe(&self) -> String {
        format!("produce to {}/{}", self.completion.topic, self.completion.partition)
    }
}
