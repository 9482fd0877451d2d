//! Writes dead letters.

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::super::BoxError;
use super::topics::{self, DeadLetterTopic, MAX_ADDED_HEADER_BYTES};
use super::{DeadLetter, Origin, Truncation, describe};
use crate::cluster::Client;
use crate::config::{Acks, Compression, ProcessorConfig};
use crate::consumer::Message;
use crate::error::{ErrorKind, Result};
use crate::lock::Lock;
use crate::producer::{Acknowledgement, Producer, ProducerRecord};

/// Codec of dead letters that are too large uncompressed: the best one that every broker reads.
const SMALLEST_CODEC: Compression = Compression::Gzip { level: 7 };
/// Maximum size of a dead letter before compression: lengths of the format are `i32`, and it must
/// fit into the producer's buffer.
const MAX_DEAD_LETTER_BYTES: usize = if usize::BITS > 32 { i32::MAX as usize - (1 << 20) } else { 256 << 20 };
/// Assumed `max.message.bytes` of a dead-letter topic if unknown: a larger request could end the
/// connection.
const ASSUMED_MAX_MESSAGE_BYTES: usize = 32 << 20;
/// Maximum size of a batch with one record beyond that record's.
const MAX_BATCH_OVERHEAD_BYTES: usize = 128;

/// The failure that made a record a dead letter.
#[derive(Debug)]
pub(in crate::processor) struct HandlerFailure {
    pub(in crate::processor) error: BoxError,
    pub(in crate::processor) attempts: u32,
    pub(in crate::processor) first: DateTime<Utc>,
    pub(in crate::processor) last: DateTime<Utc>,
}

/// Writes the dead letters of a subscription.
#[derive(Debug)]
pub(in crate::processor) struct DeadLetterWriter {
    client: Client,
    config: ProcessorConfig,
    producer: Producer,
    group: String,
    /// Dead-letter topics by the topic of their records.
    topics: Lock<HashMap<String, DeadLetterTopic>>,
    /// Held while a deleted topic is created again; other writers wait.
    reopening: tokio::sync::Mutex<()>,
    is_traced: bool,
}

impl DeadLetterWriter {
    /// Finds or creates the dead-letter topics; `max_record_bytes` is the size of the largest
    /// record that can be fetched.
    pub(in crate::processor) async fn open(
        client: &Client,
        topics: &[&str],
        group: &str,
        config: &ProcessorConfig,
        max_record_bytes: usize,
    ) -> Result<Self> {
        let topics = Lock::new(topics::find_or_create(client, topics, config).await?);
        let mut settings = client.config().producer.clone();
        settings.acks = Acks::All; // the record's offset is committed once it is acknowledged
        // Any record that could be fetched can be written.
        let largest = max_record_bytes
            .max(settings.max_request_size)
            .saturating_add(MAX_ADDED_HEADER_BYTES)
            .min(MAX_DEAD_LETTER_BYTES);
        settings.max_record_size = Some(largest);
        settings.buffer_memory = settings.buffer_memory.max(largest);
        let producer = Producer::to_existing(client, settings)?;
        Ok(Self {
            client: client.clone(),
            config: config.clone(),
            producer,
            group: group.to_owned(),
            topics,
            reopening: tokio::sync::Mutex::default(),
            is_traced: client.config().propagation.is_on(),
        })
    }

    /// Returns the name of the dead-letter topic of a record.
    pub(in crate::processor) fn topic_of(&self, message: &Message) -> String {
        format!("{}{}", message.topic, self.config.dead_letter_suffix)
    }

    /// Writes a dead letter and waits for its acknowledgement. Creates its topic again if that was
    /// deleted.
    pub(in crate::processor) async fn write(
        &self,
        message: &Message,
        failure: &HandlerFailure,
    ) -> Result<Acknowledgement> {
        match self.write_to_existing(message, failure).await {
            Err(e) if e.is_unknown_topic() => {
                self.reopen(&message.topic).await?;
                self.write_to_existing(message, failure).await
            }
            outcome => outcome,
        }
    }

    async fn reopen(&self, origin: &str) -> Result<()> {
        let _guard = self.reopening.lock().await;
        let opened = topics::find_or_create(&self.client, &[origin], &self.config).await?;
        self.topics().extend(opened);
        Ok(())
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<String, DeadLetterTopic>> {
        self.topics.lock()
    }

    /// Compresses a dead letter that is too large; one that still is gets truncated, and says so in
    /// a header.
    async fn write_to_existing(&self, message: &Message, failure: &HandlerFailure) -> Result<Acknowledgement> {
        let topic = self.topic_of(message);
        let limit =
            self.topics().get(&*message.topic).and_then(|t| t.max_message_bytes).unwrap_or(ASSUMED_MAX_MESSAGE_BYTES);
        let mut letter = self.build_letter(message, failure);
        // Known to be too large uncompressed: saves the round trip.
        let size = message.size() + MAX_BATCH_OVERHEAD_BYTES;
        let mut compression = (size > limit).then_some(SMALLEST_CODEC);
        loop {
            let outcome = self.send(&topic, message, &letter, compression).await;
            let Some(error) = outcome.as_ref().err().filter(|e| e.kind() == ErrorKind::RecordTooLarge) else {
                return outcome;
            };
            if compression.is_none() {
                compression = Some(SMALLEST_CODEC);
                continue;
            }
            let Some(truncation) = letter.truncation.next() else { return outcome };
            let (Message { topic: origin, partition, offset, .. }, bytes) = (message, message.size());
            tracing::error!(
                %topic, record = format_args!("{origin}/{partition}@{offset}"), bytes, truncation = truncation.name(), error = %error.full(),
                "a dead letter is too large even compressed and is truncated: the rest is only in its record, until that is deleted; \
                 raise max.message.bytes of the dead-letter topic"
            );
            letter.truncation = truncation;
        }
    }

    fn build_letter(&self, message: &Message, failure: &HandlerFailure) -> DeadLetter {
        let origin = Origin {
            topic: message.topic.to_string(),
            partition: message.partition,
            offset: message.offset,
            timestamp: Some(message.timestamp).filter(|t| *t >= 0),
            group: Some(self.group.clone()),
        };
        DeadLetter {
            error: describe(&*failure.error),
            attempts: failure.attempts,
            first_failure: Some(failure.first),
            last_failure: Some(failure.last),
            origin,
            headers: message.headers.clone(),
            truncation: Truncation::Nothing,
        }
    }

    async fn send(
        &self,
        topic: &str,
        message: &Message,
        letter: &DeadLetter,
        compression: Option<Compression>,
    ) -> Result<Acknowledgement> {
        let mut headers = letter.to_headers();
        // The trace of the last attempt.
        if let Some(trace) = message.trace().filter(|_| self.is_traced) {
            headers = headers.with_trace(trace);
        }
        let mut record = ProducerRecord::to(topic).headers(&headers);
        record.key = message.key.as_deref().filter(|_| letter.truncation < Truncation::ValueHeadersAndKey);
        record.value = message.value.as_deref().filter(|_| letter.truncation < Truncation::Value);
        record.compression = compression;
        self.producer.send(record).await?.await
    }

    pub(in crate::processor) async fn close(&self, timeout: Duration) -> Result<()> {
        self.producer.close(timeout).await
    }
}
