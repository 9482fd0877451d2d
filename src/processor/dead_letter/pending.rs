//! Failed records before they are written: to a retry topic, or as dead letters, and what these lose
//! if they are too large.

use super::super::BoxError;
use super::topics::{TopicKind, WantedTopic};
use super::{DeadLetter, Truncation, clip, printable_key, retry};
use crate::config::Compression;
use crate::consumer::Message;
use crate::error::Error;
use crate::producer::ProducerRecord;
use crate::timestamp::Timestamp;

/// Codec of dead letters that are too large uncompressed: the best one that every broker reads.
const SMALLEST_CODEC: Compression = Compression::Gzip { level: 7 };
/// Maximum size of a dead letter before compression: lengths of the format are `i32`, and it must
/// fit into the producer's buffer.
pub(super) const MAX_DEAD_LETTER_BYTES: usize =
    if usize::BITS > 32 { i32::MAX as usize - (1 << 20) } else { 256 << 20 };
/// Assumed `max.message.bytes` of a dead-letter topic if unknown: a larger request could end the
/// connection.
const ASSUMED_MAX_MESSAGE_BYTES: usize = 32 << 20;
/// Maximum size of a batch with one record beyond that record's.
const MAX_BATCH_OVERHEAD_BYTES: usize = 128;

/// The failure of the last attempt at a record.
#[derive(Debug)]
pub(in crate::processor) struct HandlerFailure {
    pub(in crate::processor) error: BoxError,
    pub(in crate::processor) attempts: u32,
    pub(in crate::processor) first: Timestamp,
    pub(in crate::processor) last: Timestamp,
    /// Retry topic that the record goes to, by its place among the delays; `None`: it is a dead
    /// letter.
    pub(in crate::processor) retry: Option<usize>,
}

/// A record whose last attempt failed and that is not written yet.
#[derive(Debug)]
pub(in crate::processor) struct FailedRecord {
    /// The record as its handler got it.
    pub(in crate::processor) message: Message,
    pub(in crate::processor) failure: HandlerFailure,
    /// Topic that it is written to.
    pub(in crate::processor) topic: String,
    /// Time of its next attempts, if that is a retry topic.
    pub(in crate::processor) due: Option<Timestamp>,
    dead_letter_topic: String,
    /// Topic whose dead-letter or retry topic it is written to.
    base: String,
    letter: DeadLetter,
    compression: Option<Compression>,
    pub(super) is_traced: bool,
}

impl FailedRecord {
    pub(super) fn new(
        message: Message,
        failure: HandlerFailure,
        letter: DeadLetter,
        dead_letter_topic: String,
        retry: Option<(String, Timestamp)>,
        base: String,
    ) -> Self {
        let (topic, due) = retry.map_or_else(|| (dead_letter_topic.clone(), None), |(topic, due)| (topic, Some(due)));
        Self { message, failure, topic, due, dead_letter_topic, base, letter, compression: None, is_traced: false }
    }

    /// Compresses a record that is known to be too large uncompressed, which saves a round trip.
    pub(super) fn compress_if_larger(&mut self, limit: Option<usize>) {
        let limit = limit.unwrap_or(ASSUMED_MAX_MESSAGE_BYTES);
        self.compression = (self.message.size() + MAX_BATCH_OVERHEAD_BYTES > limit).then_some(SMALLEST_CODEC);
    }

    /// Returns the record to write.
    pub(in crate::processor) fn record(&self) -> ProducerRecord<'_> {
        let Self { message, letter, .. } = self;
        let headers = match self.due {
            Some(due) => retry::to_headers(letter, due),
            None => {
                let headers = letter.to_headers();
                // The trace of the last attempt.
                match message.trace().filter(|_| self.is_traced) {
                    Some(trace) => headers.with_trace(trace),
                    None => headers,
                }
            }
        };
        let mut record = ProducerRecord::to(&*self.topic).headers(headers);
        record.key =
            message.key.as_ref().filter(|_| letter.truncation < Truncation::ValueHeadersAndKey).map(Into::into);
        record.value = message.value.as_ref().filter(|_| letter.truncation < Truncation::Value).map(Into::into);
        record.compression = self.compression;
        record
    }

    /// Makes it smaller, because it was too large: compresses it; then a delayed retry becomes a dead
    /// letter, and a dead letter is truncated. Returns false if there is nothing left to omit.
    pub(in crate::processor) fn shrink(&mut self, error: &Error) -> bool {
        if self.compression.is_none() {
            self.compression = Some(SMALLEST_CODEC);
            return true;
        }
        let Message { topic: origin, partition, offset, key, .. } = &self.message;
        let (record, bytes) = (format!("{origin}/{partition}@{offset}"), self.message.size());
        let (group, key) = (self.letter.origin.group.as_deref(), key.as_deref().map(printable_key));
        if self.due.take().is_some() {
            tracing::error!(
                %record, group, key, bytes, topic = %self.topic, error = %error.full(),
                "a record is too large for its retry topic even compressed and becomes a dead letter; raise max.message.bytes of the topic"
            );
            self.topic.clone_from(&self.dead_letter_topic);
            return true;
        }
        let Some(truncation) = self.letter.truncation.next() else { return false };
        tracing::error!(
            topic = %self.topic, %record, group, key, bytes, truncation = truncation.name(), error = %error.full(),
            "a dead letter is too large even compressed and is truncated: the rest is only in its record, until that is deleted; \
             raise max.message.bytes of the dead-letter topic"
        );
        self.letter.truncation = truncation;
        true
    }

    /// Returns its approximate memory.
    pub(in crate::processor) fn size(&self) -> usize {
        size_of::<Self>() + self.message.size() + self.letter.headers.raw.len() + self.letter.error.len()
    }

    /// Returns its topic, to be created.
    pub(super) fn wanted_topic(&self) -> WantedTopic {
        let kind = match self.due {
            Some(due) => TopicKind::Retry(due.saturating_duration_since(self.failure.last)),
            None => TopicKind::DeadLetters,
        };
        WantedTopic { origin: self.base.clone(), name: self.topic.clone(), kind }
    }

    /// Returns the error, bounded, for logs.
    pub(in crate::processor) fn error(&self) -> &str {
        clip(&self.letter.error)
    }

    /// Returns what dead letters say of it.
    pub(in crate::processor) fn letter(&self) -> &DeadLetter {
        &self.letter
    }
}
