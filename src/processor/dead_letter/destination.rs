//! Chooses where failed records go: to their next retry topic, or to a dead-letter topic.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::MutexGuard;

use super::hooks::ChooseTopic;
use super::pending::{FailedRecord, HandlerFailure, MAX_DEAD_LETTER_BYTES};
use super::retry::RetryTopics;
use super::topics::{self, MAX_ADDED_HEADER_BYTES, TopicKind, WantedTopic};
use super::{DeadLetter, Origin, Truncation, describe, printable_key, schema_id};
use crate::admin::{Admin, TopicInfo};
use crate::cluster::Client;
use crate::config::{Acks, ProcessorConfig, ProducerConfig};
use crate::consumer::{Message, StartOffset};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Lock;
use crate::processor::batch::original;
use crate::record::{Headers, TopicPartition};
use crate::timestamp::Timestamp;

/// Maximum number of dead-letter topics that a function may choose beside the default ones: it may
/// take a name from the record.
const MAX_CHOSEN_TOPICS: usize = 100;

/// Returns the retry topic, by its place among `delays`, for a record that failed in the one at
/// `place`, or in its origin topic; `None` if there is no further one.
pub(in crate::processor) fn next_retry(place: Option<usize>, delays: usize) -> Option<usize> {
    Some(place.map_or(0, |place| place + 1)).filter(|next| *next < delays)
}

/// The topics for failed records of a subscription.
#[derive(Debug)]
pub(in crate::processor) struct DeadLetters {
    client: Client,
    config: ProcessorConfig,
    group: String,
    retry_topics: RetryTopics,
    choose_topic: Option<ChooseTopic>,
    known: Lock<KnownTopics>,
    /// Held while a deleted topic is created again; other writers wait.
    reopening: tokio::sync::Mutex<()>,
    is_traced: bool,
}

#[derive(Debug, Default)]
struct KnownTopics {
    /// Topics that the subscription reads: no dead letter goes there.
    sources: HashSet<String>,
    /// `max.message.bytes` of topics, if the broker returned it.
    max_message_bytes: HashMap<String, Option<usize>>,
    /// Topics that the function chose.
    chosen: BTreeSet<String>,
}

impl DeadLetters {
    /// Finds or creates the dead-letter topics and the retry topics.
    pub(in crate::processor) async fn open(
        client: &Client,
        topics: &[&str],
        group: &str,
        config: &ProcessorConfig,
        choose_topic: Option<&ChooseTopic>,
    ) -> Result<Self> {
        let retry_topics = RetryTopics::new(group, &config.delayed_retries)?;
        let letters = Self {
            client: client.clone(),
            config: config.clone(),
            group: group.to_owned(),
            retry_topics,
            choose_topic: choose_topic.cloned(),
            known: Lock::default(),
            reopening: tokio::sync::Mutex::default(),
            is_traced: client.config().propagation.is_on(),
        };
        letters.add_topics(topics).await?;
        Ok(letters)
    }

    /// Finds or creates the dead-letter topics and the retry topics of further topics.
    pub(in crate::processor) async fn add_topics(&self, topics: &[&str]) -> Result<()> {
        let Self { client, config, retry_topics, .. } = self;
        let before: Vec<_> = self.known().sources.iter().filter(|t| retry_topics.parse(t).is_none()).cloned().collect();
        let all: Vec<_> = before.iter().map(String::as_str).chain(topics.iter().copied()).collect();
        check_for_loops(&all, config, retry_topics)?;
        let mut wanted = Vec::new();
        for topic in topics.iter().copied().collect::<BTreeSet<_>>() {
            wanted.push(WantedTopic {
                origin: topic.to_owned(),
                name: format!("{topic}{}", config.dead_letter_suffix),
                kind: TopicKind::DeadLetters,
            });
            wanted.extend((0..config.delayed_retries.len()).filter_map(|place| {
                let (name, delay) = retry_topics.get(topic, place)?;
                Some(WantedTopic { origin: topic.to_owned(), name, kind: TopicKind::Retry(delay) })
            }));
        }
        let max_message_bytes = topics::find_or_create(client, &wanted, config).await?;
        warn_of_unread(client, topics, &self.group, retry_topics).await;
        let of_topics = topics.iter().map(|topic| (*topic).to_owned());
        let mut known = self.known();
        known.sources.extend(topics.iter().flat_map(|topic| retry_topics.names(topic)).chain(of_topics));
        known.max_message_bytes.extend(max_message_bytes);
        Ok(())
    }

    /// Notes topics that the subscription reads no more.
    pub(in crate::processor) fn remove_topics(&self, topics: &[String]) {
        let mut known = self.known();
        for topic in topics {
            known.sources.remove(topic);
            self.retry_topics.names(topic).iter().for_each(|name| _ = known.sources.remove(name));
        }
    }

    /// See [`has_failed_records`].
    pub(in crate::processor) fn has_failed_records(&self, topic: &str) -> bool {
        has_failed_records(topic, &self.config)
    }

    /// Returns a producer's settings with which any record of up to `max_record_bytes` becomes a
    /// dead letter.
    pub(in crate::processor) fn producer_config(&self, max_record_bytes: usize) -> ProducerConfig {
        let mut settings = self.client.config().producer.clone();
        settings.acks = Acks::All; // the record's offset is committed once it is acknowledged
        // Any record that could be fetched can be written.
        let largest = max_record_bytes
            .max(settings.max_request_size)
            .saturating_add(MAX_ADDED_HEADER_BYTES)
            .min(MAX_DEAD_LETTER_BYTES);
        settings.max_record_size = Some(largest);
        settings.buffer_memory = settings.buffer_memory.max(largest);
        settings
    }

    /// Returns what is written of a record whose last attempt failed.
    pub(in crate::processor) fn failed_record(&self, message: Message, failure: HandlerFailure) -> FailedRecord {
        let origin = Origin {
            topic: message.topic.to_string(),
            partition: message.partition,
            offset: message.offset,
            timestamp: Some(message.timestamp).filter(|t| !t.is_none()),
            group: Some(self.group.clone()),
        };
        let letter = DeadLetter {
            error: describe(&*failure.error),
            attempts: failure.attempts,
            first_failure: Some(failure.first),
            last_failure: Some(failure.last),
            origin,
            headers: own_headers(&message.headers, message.topic.ends_with(&*self.config.dead_letter_suffix)),
            truncation: Truncation::Nothing,
            schema_id: schema_id(&*failure.error),
        };
        // A record that somebody else wrote to a retry topic has no origin.
        let base = self.retry_topics.parse(&message.topic).map_or(&*message.topic, |(topic, _)| topic);
        let dead_letter_topic = self.dead_letter_topic(&message, base, &failure);
        let retry = failure.retry.and_then(|place| self.retry_topics.get(base, place));
        let retry = retry.map(|(topic, delay)| (topic, Timestamp::now().saturating_add(delay)));
        let base = base.to_owned();
        let mut record = FailedRecord::new(message, failure, letter, dead_letter_topic, retry, base);
        record.is_traced = self.is_traced;
        let limit = self.known().max_message_bytes.get(&record.topic).copied().flatten();
        record.compress_if_larger(limit);
        record
    }

    /// Returns the topic for the dead letter of a record.
    fn dead_letter_topic(&self, message: &Message, base: &str, failure: &HandlerFailure) -> String {
        let default = format!("{base}{}", self.config.dead_letter_suffix);
        let Some(choose) = &self.choose_topic else { return default };
        let chosen = match choose.call(message, original(&failure.error)) {
            Ok(None) => return default,
            Ok(Some(topic)) if topic == default => return default,
            Ok(Some(topic)) => self.check_chosen(&topic).map(|()| topic),
            Err(panicked) => Err(panicked.to_owned()),
        };
        chosen.unwrap_or_else(|problem| {
            let Message { topic, partition, offset, key, .. } = message;
            tracing::error!(
                record = format_args!("{topic}/{partition}@{offset}"), group = %self.group,
                key = key.as_deref().map(printable_key), dead_letter_topic = %default,
                "the topic chosen for a dead letter can't be used, its default topic is: {problem}"
            );
            default
        })
    }

    /// Returns why a chosen topic can't be used.
    fn check_chosen(&self, topic: &str) -> Result<(), String> {
        topics::check_name(topic)?;
        if self.known().sources.contains(topic) {
            return Err(format!("{topic:?} is read by this subscription, which would handle the dead letter again"));
        }
        let mut known = self.known();
        if known.chosen.len() >= MAX_CHOSEN_TOPICS && !known.chosen.contains(topic) {
            return Err(format!(
                "{topic:?} would be one more than the {MAX_CHOSEN_TOPICS} that a subscription may choose"
            ));
        }
        known.chosen.insert(topic.to_owned());
        Ok(())
    }

    /// Creates the topic of a failed record, which was deleted, or chosen for the first time.
    pub(in crate::processor) async fn reopen(&self, record: &FailedRecord) -> Result<()> {
        let _guard = self.reopening.lock().await;
        let opened = topics::find_or_create(&self.client, &[record.wanted_topic()], &self.config).await?;
        self.known().max_message_bytes.extend(opened);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, KnownTopics> {
        self.known.lock()
    }
}

/// Warns of retry topics in which records wait, and whose delay is not among the settings any more.
async fn warn_of_unread(client: &Client, topics: &[&str], group: &str, retry_topics: &RetryTopics) {
    let unknown =
        |e: Error| tracing::debug!(error = %e.full(), "it is not known whether there are further retry topics");
    let admin = Admin::new(client);
    let all = match admin.list_topics().await {
        Ok(all) => all,
        Err(e) => return unknown(e),
    };
    let unread: Vec<_> = all.iter().filter(|topic| retry_topics.is_unread(&topic.name, topics)).collect();
    if unread.is_empty() {
        return;
    }
    let waiting = match records_left(&admin, group, &unread).await {
        Ok(waiting) => waiting,
        Err(e) => return unknown(e),
    };
    let records: i64 = waiting.values().sum();
    if records > 0 {
        let topics = waiting.iter().filter(|(_, records)| **records > 0);
        let topics: Vec<_> = topics.map(|(topic, records)| format!("{topic} ({records})")).collect();
        tracing::warn!(
            group,
            records,
            topics = topics.join(", "),
            "records wait in retry topics that this group does not read, because their delays are not among \
             ProcessorConfig::delayed_retries: add the delays until the topics are empty"
        );
    }
}

/// Returns the number of records of each topic that the group has not committed.
async fn records_left<'a>(admin: &Admin, group: &str, topics: &[&'a TopicInfo]) -> Result<BTreeMap<&'a str, i64>> {
    let of = |t: &'a TopicInfo| t.partitions.iter().map(|p| TopicPartition::new(t.name.as_str(), p.partition));
    let partitions: Vec<_> = topics.iter().copied().flat_map(of).collect();
    let (starts, ends, described) = tokio::try_join!(
        admin.list_offsets(&partitions, StartOffset::Earliest),
        admin.list_offsets(&partitions, StartOffset::Latest),
        admin.describe_group(group),
    )?;
    let left = |at: TopicPartition| {
        let committed = described.offsets.iter().find(|o| *o.topic == *at.topic && o.partition == at.partition);
        let from = starts.get(&at).copied().max(committed.and_then(|o| o.committed)).unwrap_or_default();
        ends.get(&at).map_or(0, |end| (end - from).max(0))
    };
    Ok(topics.iter().map(|t| (t.name.as_str(), of(t).map(left).sum())).collect())
}

/// Returns the headers of a record without those of earlier dead letters, which a tool has copied
/// from a dead-letter topic: they would grow with each copy. A record of a dead-letter topic is one
/// itself and keeps those of it, so that it can be replayed.
fn own_headers(headers: &Headers, is_dead_letter: bool) -> Headers {
    let Some(letter) = DeadLetter::parse(headers) else { return headers.clone() };
    let mut own = letter.headers.clone();
    while let Some(earlier) = DeadLetter::parse(&own) {
        own = earlier.headers;
    }
    let added = headers.iter().skip(letter.headers.len()).filter(|_| is_dead_letter);
    own.iter().chain(added).collect()
}

/// Returns whether a topic has failed records of any subscription with these settings.
pub(in crate::processor) fn has_failed_records(topic: &str, config: &ProcessorConfig) -> bool {
    topic.ends_with(&config.dead_letter_suffix) || RetryTopics::is_retry_topic(topic)
}

/// Returns an error if a failed record would be handled again by its own subscription.
fn check_for_loops(topics: &[&str], config: &ProcessorConfig, retry_topics: &RetryTopics) -> Result<()> {
    for topic in topics {
        let dead_letters = format!("{topic}{}", config.dead_letter_suffix);
        if topics.contains(&&*dead_letters) {
            let what = format!(
                "{dead_letters:?} has the dead letters of {topic:?}, and the subscription reads both: its handler would get \
                 the records that it could not handle again; read them in a group of their own"
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        if !retry_topics.is_empty() && retry_topics.parse(topic).is_some() {
            let what =
                format!("{topic:?} is a retry topic of this group: it is read with the topic that it belongs to");
            return Err(Error::new(ErrorKind::Config, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn a_record_goes_to_each_retry_topic_once() {
        let places = std::iter::successors(next_retry(None, 3), |place| next_retry(Some(*place), 3));
        assert_eq!(places.collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(next_retry(None, 0), None);
    }

    #[test]
    fn headers_of_earlier_dead_letters_do_not_pile_up() {
        let origin = |offset| Origin { topic: "orders".into(), partition: 0, offset, timestamp: None, group: None };
        let letter = |offset, headers| DeadLetter {
            error: "no".into(),
            attempts: 1,
            first_failure: None,
            last_failure: None,
            origin: origin(offset),
            headers,
            truncation: Truncation::Nothing,
            schema_id: None,
        };
        let own = Headers::new().with("h", "1").with("dlq-replays", "2");
        assert_eq!(own_headers(&own, false), own);
        let once = letter(1, own.clone()).to_headers();
        let twice = letter(2, once.clone()).to_headers();
        assert_eq!((own_headers(&once, false), own_headers(&twice, false)), (own.clone(), own.clone()));
        assert_eq!(own_headers(&once, true), once, "a dead letter that failed is whole");
        assert_eq!(own_headers(&twice, true), letter(2, own).to_headers(), "and nested no deeper");
    }

    #[test]
    fn a_subscription_does_not_read_what_it_could_not_handle() {
        let config = ProcessorConfig { delayed_retries: vec![Duration::from_secs(60)], ..ProcessorConfig::default() };
        let retry_topics = RetryTopics::new("billing", &config.delayed_retries).unwrap();
        let check = |topics: &[&str]| check_for_loops(topics, &config, &retry_topics).map_err(|e| e.to_string());
        assert_eq!(check(&["orders", "payments.dlq", "orders.retry.other.1m"]), Ok(()));
        let e = check(&["orders.dlq", "orders"]).unwrap_err();
        assert!(e.contains("\"orders.dlq\" has the dead letters of \"orders\""), "{e}");
        let e = check(&["orders", "orders.retry.billing.1m"]).unwrap_err();
        assert!(e.contains("is a retry topic of this group"), "{e}");
    }
}
