//! The rows of an outbox, and the trait of the table that has them.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Result;
use crate::producer::ProducerRecord;
use crate::record::Headers;
use crate::timestamp::Timestamp;

/// The header of an event's id.
const EVENT_ID: &str = "ce_id";

/// A record to send.
///
/// ```
/// use ailurus::store::OutboxRow;
///
/// let row = OutboxRow::new(17, "0190b3c8-2a5e-7c11-8000-000000000001", "orders").key("order-17").value("{}");
/// assert_eq!(row.headers().get_str("ce_id"), Some("0190b3c8-2a5e-7c11-8000-000000000001"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxRow {
    /// Number of the row; rows of a key are sent in its order.
    pub id: i64,
    /// Id of the event, unique among all outboxes and the same each time the row is sent.
    pub event_id: String,
    /// The destination topic.
    pub topic: String,
    /// The partition; `None` to have the partitioner choose it.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Headers,
    /// The timestamp; `None` for the time of sending.
    pub timestamp: Option<Timestamp>,
    /// Number of times that sending it has failed.
    pub attempts: u32,
}

impl OutboxRow {
    /// Creates a row with neither key nor value.
    pub fn new(id: i64, event_id: impl Into<String>, topic: impl Into<String>) -> Self {
        Self {
            id,
            event_id: event_id.into(),
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Headers::new(),
            timestamp: None,
            attempts: 0,
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Returns the headers of the record: those of the row, and `ce_id` with the event's id if they
    /// lack it.
    pub fn headers(&self) -> Headers {
        let headers = self.headers.clone();
        if headers.get(EVENT_ID).is_some() { headers } else { headers.with(EVENT_ID, &self.event_id) }
    }

    /// Returns its approximate memory, in bytes.
    pub(super) fn size(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        size_of::<Self>()
            + self.event_id.len()
            + self.topic.len()
            + len(&self.key)
            + len(&self.value)
            + self.headers.raw.len()
    }

    /// Returns the record to send; `headers` are those of [`headers`](Self::headers).
    pub(super) fn record<'a>(&'a self, headers: &'a Headers) -> ProducerRecord<'a> {
        ProducerRecord {
            partition: self.partition,
            key: self.key.as_ref().map(Into::into),
            value: self.value.as_ref().map(Into::into),
            headers: Some(std::borrow::Cow::Borrowed(headers)),
            timestamp: self.timestamp,
            ..ProducerRecord::to(&self.topic)
        }
    }
}

/// The rows that [`OutboxStore::fetch`] is to return.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchRows {
    /// Maximum number of rows.
    pub max_rows: usize,
    /// Maximum size of keys, values and headers together, in bytes; the first row may exceed it.
    pub max_bytes: usize,
    /// Ids of rows that the relay has, and which are not returned again.
    pub except: Vec<i64>,
}

/// A row that could not be sent, and is to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeferredRow {
    /// Number of the row.
    pub id: i64,
    /// Delay before it is returned again.
    pub retry_after: Duration,
    /// The reason, for people.
    pub error: String,
}

/// A table of records to send, as a [`Relay`](super::Relay) uses it: one relay at a time.
///
/// The methods are called one after the other. After an error each may be called again: the
/// implementation then connects again.
pub trait OutboxStore: Send + 'static {
    /// Returns committed rows in the order of their ids, the oldest first; `None` if another relay
    /// is active.
    ///
    /// A row that was [deferred](Self::defer) is not returned before its time, and neither are rows
    /// of the same topic and key behind it. A row must not be left out because one with a greater
    /// id was returned before: transactions do not commit in the order of their ids.
    ///
    /// # Errors
    /// Those of the database. They are retried without limit, with a backoff.
    fn fetch(&mut self, rows: &FetchRows) -> impl Future<Output = Result<Option<Vec<OutboxRow>>>> + Send;

    /// Removes rows, whose records are acknowledged.
    ///
    /// # Errors
    /// Those of the database. They are retried.
    fn remove(&mut self, ids: &[i64]) -> impl Future<Output = Result<()>> + Send;

    /// Defers rows that could not be sent, and counts the attempt.
    ///
    /// # Errors
    /// Those of the database. They are retried.
    fn defer(&mut self, rows: &[DeferredRow]) -> impl Future<Output = Result<()>> + Send;

    /// Waits until rows may have been added; without such a notification it never ends, and the
    /// relay looks at its poll interval. Must be cancel safe.
    fn added(&mut self) -> impl Future<Output = ()> + Send;
}
