//! Records that no attempt could handle, kept where they can be looked at.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use super::BoxError;
use crate::admin::Admin;
use crate::cluster::Client;
use crate::config::ProcessorConfig;
use crate::consumer::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::producer::{Producer, ProducerRecord};

/// The longest error text kept in a header, in bytes.
const ERROR_TEXT: usize = 2048;

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
    suffix: String,
}

impl DeadLetters {
    /// Sees that each topic's dead-letter topic exists, or creates it with as many partitions as the topic has.
    pub(super) async fn open(client: &Client, topics: &[&str], config: &ProcessorConfig) -> Result<Self> {
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
        let producer = Producer::new(client, client.config().producer.clone())?;
        Ok(Self { producer, suffix: config.dead_letter_suffix.clone() })
    }

    pub(super) fn topic_of(&self, message: &Message) -> String {
        format!("{}{}", message.topic, self.suffix)
    }

    /// Writes one and waits for its acknowledgement.
    pub(super) async fn write(&self, message: &Message, failure: &Failure) -> Result<()> {
        let topic = self.topic_of(message);
        let mut headers = message.headers.clone();
        let mut add = |name: &str, value: &str| headers.push(name, Some(value.as_bytes()));
        add("dlq-error", clip(&describe(&*failure.error)));
        add("dlq-topic", &message.topic);
        add("dlq-partition", &message.partition.to_string());
        add("dlq-offset", &message.offset.to_string());
        add("dlq-attempts", &failure.attempts.to_string());
        add("dlq-first-failure", &rfc3339(failure.first));
        add("dlq-last-failure", &rfc3339(failure.last));
        let mut record = ProducerRecord::to(&topic).headers(&headers);
        record.key = message.key.as_deref();
        record.value = message.value.as_deref();
        record.timestamp = Some(message.timestamp).filter(|t| *t >= 0);
        self.producer.send(record).await?.await.map(drop)
    }

    pub(super) async fn close(&self, timeout: Duration) -> Result<()> {
        self.producer.close(timeout).await
    }
}

fn rfc3339(t: DateTime<Utc>) -> String {
    t.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// An error and its causes in one line.
pub(super) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn clip(text: &str) -> &str {
    let mut end = text.len().min(ERROR_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
