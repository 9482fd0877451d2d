//! Records that no attempt could handle, kept where they can be looked at.

use std::collections::HashMap;
use std::sync::MutexGuard;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::BoxError;
use super::letter::{DeadLetter, Origin, Truncation, describe};
use super::letter_topics::{self, HEADERS_ROOM, LetterTopic};
use crate::cluster::Client;
use crate::config::{Acks, Compression, ProcessorConfig};
use crate::consumer::Message;
use crate::error::{ErrorKind, Result};
use crate::lock::Lock;
use crate::producer::{Acknowledgement, Producer, ProducerRecord};

/// Compression of a letter that is too large as it is: the smallest that every broker reads.
const SMALLEST: Compression = Compression::Gzip { level: 7 };
/// Largest letter, in bytes before compression, however much a consumer may read: what lengths of the format can say, and
/// what may be buffered.
const LARGEST: usize = if usize::BITS > 32 { i32::MAX as usize - (1 << 20) } else { 256 << 20 };
/// What a dead-letter topic is taken to take where that is not known: requests larger than brokers take end the connection.
const UNKNOWN_LIMIT: usize = 32 << 20;
/// A batch's size beyond that of its only record, in bytes, at most.
const BATCH_ROOM: usize = 128;

/// Why a record became a dead letter.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: BoxError,
    pub(super) attempts: u32,
    pub(super) first: DateTime<Utc>,
    pub(super) last: DateTime<Utc>,
}

/// Writes dead letters.
#[derive(Debug)]
pub(super) struct DeadLetters {
    client: Client,
    config: ProcessorConfig,
    producer: Producer,
    group: String,
    /// By the topic whose letters they take.
    topics: Lock<HashMap<String, LetterTopic>>,
    /// One looks for a topic that is gone, the others wait.
    reopening: tokio::sync::Mutex<()>,
    is_traced: bool,
}

impl DeadLetters {
    /// Finds or creates the dead-letter topics; `readable` is the size of the largest record that can be read.
    pub(super) async fn open(
        client: &Client,
        topics: &[&str],
        group: &str,
        config: &ProcessorConfig,
        readable: usize,
    ) -> Result<Self> {
        let topics = Lock::new(letter_topics::open(client, topics, config).await?);
        let mut settings = client.config().producer.clone();
        settings.acks = Acks::All; // the record's offset is committed on the strength of it
        // What could be read can be kept.
        let largest = readable.max(settings.max_request_size).saturating_add(HEADERS_ROOM).min(LARGEST);
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

    pub(super) fn topic_of(&self, message: &Message) -> String {
        format!("{}{}", message.topic, self.config.dead_letter_suffix)
    }

    /// Writes one and waits for its acknowledgement. A topic that was deleted meanwhile is created again first.
    pub(super) async fn write(&self, message: &Message, failure: &Failure) -> Result<Acknowledgement> {
        match self.write_to_existing(message, failure).await {
            Err(e) if e.is_unknown_topic() => {
                self.reopen(&message.topic).await?;
                self.write_to_existing(message, failure).await
            }
            outcome => outcome,
        }
    }

    async fn reopen(&self, origin: &str) -> Result<()> {
        let _one = self.reopening.lock().await;
        let opened = letter_topics::open(&self.client, &[origin], &self.config).await?;
        self.topics().extend(opened);
        Ok(())
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<String, LetterTopic>> {
        self.topics.lock()
    }

    /// One that is too large is compressed; what is too large then is left out, and the letter says so.
    async fn write_to_existing(&self, message: &Message, failure: &Failure) -> Result<Acknowledgement> {
        let topic = self.topic_of(message);
        let limit = self.topics().get(&*message.topic).and_then(|t| t.max_message_bytes).unwrap_or(UNKNOWN_LIMIT);
        let mut letter = self.letter(message, failure);
        // What is known to be too large as it is need not be sent to hear so.
        let size = message.size() + BATCH_ROOM;
        let mut compression = (size > limit).then_some(SMALLEST);
        loop {
            let outcome = self.send(&topic, message, &letter, compression).await;
            let Some(error) = outcome.as_ref().err().filter(|e| e.kind() == ErrorKind::RecordTooLarge) else {
                return outcome;
            };
            if compression.is_none() {
                compression = Some(SMALLEST);
                continue;
            }
            let Some(left_out) = letter.left_out.more() else { return outcome };
            let (Message { topic: origin, partition, offset, .. }, bytes) = (message, message.size());
            tracing::error!(
                %topic, record = format_args!("{origin}/{partition}@{offset}"), bytes, left_out = left_out.name(), error = %error.full(),
                "a dead letter is too large to be kept whole, even compressed: the rest is in its record alone, for as long as \
                 that is kept; raise max.message.bytes of the dead-letter topic"
            );
            letter.left_out = left_out;
        }
    }

    fn letter(&self, message: &Message, failure: &Failure) -> DeadLetter {
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
            left_out: Truncation::Nothing,
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
        // It comes of the attempt that failed last.
        if let Some(trace) = message.trace().filter(|_| self.is_traced) {
            headers = headers.with_trace(trace);
        }
        let mut record = ProducerRecord::to(topic).headers(&headers);
        record.key = message.key.as_deref().filter(|_| letter.left_out < Truncation::ValueHeadersAndKey);
        record.value = message.value.as_deref().filter(|_| letter.left_out < Truncation::Value);
        record.compression = compression;
        self.producer.send(record).await?.await
    }

    pub(super) async fn close(&self, timeout: Duration) -> Result<()> {
        self.producer.close(timeout).await
    }
}
