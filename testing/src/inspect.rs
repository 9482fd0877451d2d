//! Records that were written, handled, and written to dead-letter topics, as the broker has them.

use std::collections::BTreeSet;

use ailurus::processor::DeadLetter;
use ailurus::{Headers, Timestamp};
use ailurus_broker::{Broker, LogRecord, TransactionOutcome};
use bytes::Bytes;

/// A record in the log of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredRecord {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Timestamp.
    pub timestamp: Timestamp,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Headers,
}

impl StoredRecord {
    fn new(topic: &str, partition: i32, record: LogRecord) -> Self {
        let mut headers = Headers::new();
        for (name, value) in &record.headers {
            headers.push(name, value.as_deref());
        }
        let LogRecord { offset, timestamp, key, value, .. } = record;
        let timestamp = Timestamp::from_millis(timestamp);
        Self { topic: topic.to_owned(), partition, offset, timestamp, key, value, headers }
    }

    /// Returns the key as text, with replacement characters for what is no UTF-8; empty if there is
    /// none.
    pub fn key_text(&self) -> String {
        text(self.key.as_ref())
    }

    /// Returns the value as text, as [`key_text`](Self::key_text) does the key.
    pub fn value_text(&self) -> String {
        text(self.value.as_ref())
    }
}

fn text(bytes: Option<&Bytes>) -> String {
    String::from_utf8_lossy(bytes.map_or(&[][..], |bytes| bytes)).into_owned()
}

/// A dead letter: the record in the dead-letter topic, and what its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterRecord {
    /// The record, with the key and value of the one that failed.
    pub record: StoredRecord,
    /// Error, attempts and origin.
    pub details: DeadLetter,
}

/// Returns the records of a topic, by partition and offset, without those of open and aborted
/// transactions. Empty if there is no such topic.
pub(crate) fn records(broker: &Broker, topic: &str) -> Vec<StoredRecord> {
    let one = |p| {
        let hidden = hidden_offsets(broker, topic, p);
        let records = broker.log_records(topic, p).unwrap_or_default().into_iter();
        records.filter(|r| !hidden.contains(&r.offset)).map(|r| StoredRecord::new(topic, p, r)).collect::<Vec<_>>()
    };
    (0..partition_count(broker, topic)).flat_map(one).collect()
}

/// Returns the offsets of a partition that a reader of committed records does not see.
fn hidden_offsets(broker: &Broker, topic: &str, partition: i32) -> BTreeSet<i64> {
    let records = broker.transactional_records(topic, partition).unwrap_or_default();
    let hidden = records.iter().filter(|r| r.outcome != TransactionOutcome::Committed);
    hidden.map(|r| r.record.offset).collect()
}

pub(crate) fn dead_letters(broker: &Broker, topic: &str) -> Vec<DeadLetterRecord> {
    let letter = |record: StoredRecord| {
        let details = DeadLetter::parse(&record.headers)?;
        Some(DeadLetterRecord { record, details })
    };
    records(broker, topic).into_iter().filter_map(letter).collect()
}

/// Returns the records below the committed offsets of a group, in all topics it has commits for.
pub(crate) fn handled(broker: &Broker, group: &str) -> Vec<StoredRecord> {
    let is_committed = |r: &StoredRecord| {
        broker.committed_offset(group, &r.topic, r.partition).is_some_and(|committed| r.offset < committed)
    };
    let topics = broker.topics().into_iter();
    topics.flat_map(|(topic, _)| records(broker, &topic)).filter(is_committed).collect()
}

fn partition_count(broker: &Broker, topic: &str) -> i32 {
    let count = broker.topics().into_iter().find(|(name, _)| name == topic).map_or(0, |(_, count)| count);
    i32::try_from(count).unwrap_or(i32::MAX)
}
