//! Records, their headers, and the batches that carry them.
//!
//! The public types are [`Record`], [`Headers`] and [`TopicPartition`]. Records are appended
//! straight to the buffer that is sent, and read as slices of the buffer that was received. The
//! format is Kafka's record batch, version 2
//! (<https://kafka.apache.org/documentation/#recordbatch>); batches of the two older formats are
//! read too.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::timestamp::Timestamp;

mod codec;
pub(crate) mod compression;
mod decode;
mod encode;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod headers;
mod legacy;
#[doc(hidden)]
pub mod raw;
mod split;
mod varint;

pub(crate) use codec::BufferPool;
pub(crate) use decode::{RecordBatch, begins_with_batch, decode_batches, is_compressed};
pub(crate) use encode::{BatchBuilder, record_size_bound, replace_producer};
pub(crate) use format::{BATCH_HEADER_BYTES, ProducerSequence};
pub use headers::{Header, Headers};
pub(crate) use split::{split_in_half, split_into_runs};
pub(crate) use varint::{Reader, put_varlong};

/// A partition of a topic.
///
/// ```
/// use ailurus::TopicPartition;
///
/// assert_eq!(TopicPartition::new("orders", 3).to_string(), "orders/3");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Creates the name of a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A fetched record. Its key, value and headers are slices of its batch.
///
/// Each slice keeps the whole batch in memory: [`detach`](Record::detach) a record to store it.
///
/// ```
/// fn store(stored: &mut Vec<ailurus::Record>, record: &ailurus::Record) {
///     stored.push(record.detach());
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Offset in the partition.
    pub offset: i64,
    /// Timestamp, set by the producer or, if the topic is configured so, by the broker;
    /// [`Timestamp::NONE`] if it has none.
    pub timestamp: Timestamp,
    /// Key; null is `None`.
    pub key: Option<Bytes>,
    /// Value; null (a tombstone) is `None`.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Headers,
}

impl Record {
    /// Returns a copy that does not keep the batch in memory. Allocates once.
    #[must_use]
    pub fn detach(&self) -> Self {
        let len = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
        let mut own = Vec::with_capacity(len(&self.key) + len(&self.value) + self.headers.raw.len());
        for part in [self.key.as_ref(), self.value.as_ref(), Some(&self.headers.raw)].into_iter().flatten() {
            own.extend_from_slice(part);
        }
        let mut own = Bytes::from(own);
        let key = self.key.as_ref().map(|k| own.split_to(k.len()));
        let value = self.value.as_ref().map(|v| own.split_to(v.len()));
        let headers = Headers { raw: own, count: self.headers.count };
        Self { offset: self.offset, timestamp: self.timestamp, key, value, headers }
    }
}

#[cfg(test)]
mod tests;
