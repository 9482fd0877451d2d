//! A record, its headers, and the batch format v2 that carries them.
//!
//! What a program sees is here: [`Record`], [`Headers`] and [`TopicPartition`]. Batches are built by appending records
//! straight into the buffer that goes to the broker, and read as slices of the buffer that came from it.
//! The format is Kafka's record batch, version 2 (<https://kafka.apache.org/documentation/#recordbatch>). The two older ones are
//! read, too.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

mod compress;
mod decode;
mod deflate;
mod encode;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod headers;
mod huffman;
mod legacy;
#[doc(hidden)]
pub mod raw;
mod snappy;
mod spare;
mod varint;

pub(crate) use decode::{Batch, begins_with_batch, decode_batches, is_compressed};
pub(crate) use encode::{BATCH_HEADER, BatchBuilder, ProducerSequence, cut, record_size_bound, restamp, split};
pub use headers::{Header, Headers};
pub(crate) use spare::Spare;
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
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition of a topic.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A record as it was read; its key, value and headers are slices of the batch it came in.
///
/// One such slice keeps the whole batch in memory: [`detach`](Record::detach) a record that is kept for later.
///
/// ```
/// fn keep(kept: &mut Vec<ailurus::Record>, record: &ailurus::Record) {
///     kept.push(record.detach());
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, -1 for none: set by its producer or, if the topic says so, by the broker.
    pub timestamp: i64,
    /// Null is `None`.
    pub key: Option<Bytes>,
    /// Null (a tombstone) is `None`.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Headers,
}

impl Record {
    /// A copy with memory of its own, which no longer keeps its batch. One allocation.
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
