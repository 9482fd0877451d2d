//! Records that no attempt could handle, kept where they can be looked at.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::BoxError;
use super::letter::{DeadLetter, LeftOut, Origin, describe};
use crate::admin::Admin;
use crate::cluster::Client;
use crate::config::{Acks, ProcessorConfig};
use crate::consumer::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::producer::{Producer, ProducerRecord};

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
    producer: Producer,
    group: String,
    suffix: String,
    is_traced: bool,
}

impl DeadLetters {
    /// Sees that each topic's dead-letter topic exists, or creates it with as many partitions as the topic has.
    pub(super) async fn open(client: &Client, topics: &[&str], group: &str, config: &ProcessorConfig) -> Result<Self> {
        let admin = Admin::new(client);
        for topic in topics {
            let name = format!("{topic}{}", config.dead_letter_suffix);
            match admin.describe_topic(&name).await {
                Ok(_) => continue,
                Err(e) if e.is_unknown_topic() => {}
                // It is being created, by another member for example.
                Err(e) if e.is_retriable() && e.broker_code().is_some() => {}
                Err(e) => return Err(e.context(format!("looking for the dead-letter topic {name:?}"))),
            }
            if !client.config().allow_auto_topic_creation {
                let what = format!(
                    "the dead-letter topic {name:?} of {topic:?} does not exist, and creating topics is not allowed: create it \
                     (ailurus topic create {name}) or set REDPANDA_ALLOW_AUTO_TOPIC_CREATION=true"
                );
                return Err(Error::new(ErrorKind::Config, what));
            }
            let partitions = admin.describe_topic(topic).await?.partitions.len();
            match admin.create_topic(&name, i32::try_from(partitions).unwrap_or(1), None).await {
                Ok(()) => tracing::info!(topic = %name, partitions, "dead-letter topic created"),
                Err(e) if e.kind() == ErrorKind::TopicExists => {}
                Err(e) => return Err(e.context(format!("creating the dead-letter topic {name:?}"))),
            }
        }
        let mut settings = client.config().producer.clone();
        settings.acks = Acks::All; // the record's offset is committed on the strength of it
        let producer = Producer::new(client, settings)?;
        let is_traced = client.config().propagation.is_on();
        Ok(Self { producer, group: group.to_owned(), suffix: config.dead_letter_suffix.clone(), is_traced })
    }

    pub(super) fn topic_of(&self, message: &Message) -> String {
        format!("{}{}", message.topic, self.suffix)
    }

    /// Writes one and waits for its acknowledgement. What makes it too large is left out, and the letter says so.
    pub(super) async fn write(&self, message: &Message, failure: &Failure) -> Result<()> {
        let topic = self.topic_of(message);
        let mut letter = self.letter(message, failure);
        loop {
            let outcome = self.send(&topic, message, &letter).await;
            let smaller = letter.left_out.more().filter(|_| is_too_large(&outcome));
            let Some(left_out) = smaller else { return outcome };
            let Message { topic, partition, offset, .. } = message;
            tracing::warn!(%topic, partition, offset, left_out = left_out.name(), "a dead letter is too large to be kept whole");
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
            left_out: LeftOut::Nothing,
        }
    }

    async fn send(&self, topic: &str, message: &Message, letter: &DeadLetter) -> Result<()> {
        let mut headers = letter.to_headers();
        // It comes of the attempt that failed last.
        if let Some(trace) = message.trace().filter(|_| self.is_traced) {
            headers = headers.with_trace(trace);
        }
        let mut record = ProducerRecord::to(topic).headers(&headers);
        record.key = message.key.as_deref().filter(|_| letter.left_out < LeftOut::ValueHeadersAndKey);
        record.value = message.value.as_deref().filter(|_| letter.left_out < LeftOut::Value);
        self.producer.send(record).await?.await.map(drop)
    }

    pub(super) async fn close(&self, timeout: Duration) -> Result<()> {
        self.producer.close(timeout).await
    }
}

fn is_too_large(outcome: &Result<()>) -> bool {
    outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::RecordTooLarge)
}
